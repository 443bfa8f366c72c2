//! One watcher: the lines that wait for it, and those it missed.

use std::io::Write;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Kinds, Watch};

/// Room kept for the line that tells how many were skipped.
const SKIPPED_LINE_MAX: usize = 32;

/// Lines on their way to one connection.
#[derive(Debug)]
pub(super) struct Watcher {
    kinds: Kinds,
    bytes_max: usize,
    waiting: Mutex<Waiting>,
    came: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    skipped: u64,
}

impl Watcher {
    pub(super) fn new(kinds: Kinds, bytes_max: usize) -> Watcher {
        Watcher {
            kinds,
            bytes_max,
            waiting: Mutex::default(),
            came: Notify::new(),
        }
    }

    pub(super) fn kinds(&self) -> Kinds {
        self.kinds
    }

    /// Puts a line into the buffer, or skips it where there is no room.
    pub(super) fn push(&self, line: &[u8]) -> bool {
        let mut waiting = self.waiting.lock();
        let Waiting { lines, skipped } = &mut *waiting;
        if lines.len() + SKIPPED_LINE_MAX + line.len() > self.bytes_max {
            *skipped += 1;
            return false;
        }
        let first = lines.is_empty();
        if *skipped > 0 {
            // Writing to a vector cannot fail.
            let _ = writeln!(lines, "skipped={skipped}");
            *skipped = 0;
        }
        lines.extend_from_slice(line);
        if first {
            self.came.notify_one();
        }
        true
    }
}

/// A watcher's side of it; ends the watching when dropped.
#[derive(Debug)]
pub struct Subscription {
    watch: Arc<Watch>,
    watcher: Arc<Watcher>,
    /// What was taken last, kept for its memory.
    taken: Vec<u8>,
}

impl Subscription {
    pub(super) fn new(watch: Arc<Watch>, watcher: Arc<Watcher>) -> Subscription {
        Subscription {
            watch,
            watcher,
            taken: Vec::new(),
        }
    }

    /// The lines that have come since the last call; waits for the first one.
    pub async fn lines(&mut self) -> &[u8] {
        self.taken.clear();
        loop {
            std::mem::swap(&mut self.taken, &mut self.watcher.waiting.lock().lines);
            if !self.taken.is_empty() {
                return &self.taken;
            }
            self.watcher.came.notified().await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.watch.unsubscribe(&self.watcher);
    }
}

//! The writer thread: queued buffers to the device, in order.
//!
//! A full disk pauses the tier and the write is tried again; any other error fails the tier.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::MutexGuard;

use super::super::core::Core;
use super::super::face::TierState;
use super::super::folder::disk_is_full;
use super::{Chunk, End};
use crate::fault::{self, Point};

/// How often a write to a full disk is tried again.
const PAUSED_RETRY: Duration = Duration::from_secs(1);

impl Core {
    /// The writer thread: writes what is queued until the end comes.
    pub(in super::super) fn run_writer(&self) {
        let mut progress = 0;
        while let Some(chunk) = self.next_chunk() {
            match self.write(&chunk, &mut progress) {
                Ok(()) => {
                    progress = 0;
                    self.written(chunk);
                    if self.change_state(TierState::Paused, TierState::Ok) {
                        tracing::info!("there is room on the disk again: the dry tier resumes");
                    }
                }
                Err(error) if disk_is_full(&error) => {
                    if self.change_state(TierState::Ok, TierState::Paused) {
                        tracing::warn!(%error, "the disk is full: the dry tier pauses");
                    }
                    let mut open = self.writer.open.lock();
                    if open.end.is_some() {
                        return;
                    }
                    self.writer.work.wait_for(&mut open, PAUSED_RETRY);
                }
                Err(error) => {
                    self.counters.io_errors.fetch_add(1, Relaxed);
                    self.fail(&format!("write segment {}: {error}", chunk.segment.id));
                    return;
                }
            }
        }
    }

    fn next_chunk(&self) -> Option<Arc<Chunk>> {
        let mut open = self.writer.open.lock();
        loop {
            if open.end == Some(End::Abandon) || self.tier_state() == TierState::Failed {
                return None;
            }
            match open.queue.front() {
                Some(chunk) => return Some(Arc::clone(chunk)),
                None if open.end.is_some() => return None,
                None => self.writer.work.wait(&mut open),
            }
        }
    }

    fn write(&self, chunk: &Chunk, progress: &mut usize) -> io::Result<()> {
        let segment = &chunk.segment;
        let file = match segment.file() {
            Some(file) => Arc::clone(file),
            None => {
                let file = self.store.create(segment.id)?;
                segment.set_file(Arc::clone(&file));
                file
            }
        };
        Point::BeforeWrite.pass();
        fault::write_slowly();
        let bytes = &chunk.buffer.bytes[..chunk.buffer.used];
        file.append_rest(chunk.buffer.start, bytes, progress)?;
        Point::AfterWrite.pass();
        if chunk.seals {
            Point::Sealed.pass();
        }
        if chunk.seals && self.limits.power {
            file.sync()?;
            self.folder.sync()?;
        }
        Ok(())
    }

    fn written(&self, chunk: Arc<Chunk>) {
        let bytes = chunk.buffer.used;
        let mut open = self.writer.open.lock();
        if open.end == Some(End::Abandon) {
            return;
        }
        // Readers look here first, then into the buffers, then here again.
        chunk.segment.set_written(chunk.buffer.start + bytes as u64);
        open.queue.pop_front();
        open.held_bytes -= chunk.buffer.bytes.len();
        if chunk.seals {
            chunk.segment.seal();
            self.counters.puts.fetch_add(1, Relaxed);
            self.reclaimer.sealed(chunk.segment.id);
            if self.spool.is_some() {
                self.uploader.sealed(chunk.segment.id);
            }
        }
        self.writer.pending_bytes.fetch_sub(bytes, Relaxed);
        // A reader that still copies from it keeps it alive; then it is not reused.
        if let Ok(chunk) = Arc::try_unwrap(chunk) {
            self.recycle(&mut open, chunk.buffer.bytes);
        }
        MutexGuard::unlock_fair(open);
        self.writer.room.notify_all();
    }
}

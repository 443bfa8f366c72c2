//! What stalled clients make the server hold: half received values and answers nobody reads.
//!
//! All connections of all workers share one bound. When it is passed, the connection that has made
//! no progress for the longest time is closed: an honest client makes progress, and one that does
//! not gives way to those that do. Small halves of requests are not entered here; their bound is
//! the limit of connections times a few KiB.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::command::Shared;

/// Bytes that half received requests and unread answers may take together. With what the allocator
/// adds, stalled clients cost less than 64 MB however many they are.
const HELD_BYTES_MAX: usize = 48 << 20;

/// Whoever stalls on purpose must not fill the log: one line in this time.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// Why bytes are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The rest of a request has not come.
    HalfRequest,
    /// The client does not read.
    Unread,
}

#[derive(Debug)]
struct Entry {
    bytes: usize,
    why: Why,
    progress: Instant,
    abort: AbortHandle,
}

#[derive(Debug, Default)]
struct Entries {
    by_connection: HashMap<u64, Entry>,
    bytes: usize,
    next_warning: Option<Instant>,
}

/// Who holds how much.
pub(super) struct Held {
    bytes_max: usize,
    entries: Mutex<Entries>,
    shared: Arc<Shared>,
}

impl Held {
    /// At least one item of the largest size always fits.
    pub(super) fn new(item_size_max: usize, shared: Arc<Shared>) -> Held {
        let bytes_max = HELD_BYTES_MAX.max(item_size_max.saturating_add(1 << 20));
        Held {
            bytes_max,
            entries: Mutex::default(),
            shared,
        }
    }

    /// Notes that a connection made progress and holds `bytes` now; closes others, the longest
    /// stalled first, until all fit.
    pub(super) fn hold(&self, connection: u64, bytes: usize, why: Why, abort: &AbortHandle) {
        let mut entries = self.entries.lock();
        let entry = Entry {
            bytes,
            why,
            progress: Instant::now(),
            abort: abort.clone(),
        };
        let before = entries
            .by_connection
            .insert(connection, entry)
            .map_or(0, |old| old.bytes);
        entries.bytes = entries.bytes + bytes - before;
        while entries.bytes > self.bytes_max {
            let others = entries
                .by_connection
                .iter()
                .filter(|(id, _)| **id != connection);
            let Some((&stalled, _)) = others.min_by_key(|(_, entry)| entry.progress) else {
                break;
            };
            self.close(&mut entries, stalled);
        }
    }

    fn close(&self, entries: &mut Entries, connection: u64) {
        let Some(entry) = entries.by_connection.remove(&connection) else {
            return;
        };
        entries.bytes -= entry.bytes;
        entry.abort.abort();
        let counters = &self.shared.metrics.server;
        let kicks = match entry.why {
            Why::HalfRequest => &counters.stalled_kicks,
            Why::Unread => &counters.unread_kicks,
        };
        kicks.fetch_add(1, Relaxed);
        tracing::debug!(connection, bytes = entry.bytes, why = ?entry.why, "closed a stalled connection");
        let now = Instant::now();
        if entries.next_warning.is_none_or(|next| now >= next) {
            entries.next_warning = Some(now + WARNING_INTERVAL);
            tracing::warn!(
                stalled_kicks = counters.stalled_kicks.load(Relaxed),
                unread_kicks = counters.unread_kicks.load(Relaxed),
                "clients that stall hold {} MiB: closing those that stall longest",
                self.bytes_max >> 20
            );
        }
    }

    /// Notes that a connection holds nothing any more.
    pub(super) fn release(&self, connection: u64) {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.by_connection.remove(&connection) {
            entries.bytes -= entry.bytes;
        }
    }
}

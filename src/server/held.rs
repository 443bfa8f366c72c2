//! What stalled clients make the server hold: half received values and answers nobody reads.
//!
//! All connections of all workers share one bound. When it is passed, the connection that has made
//! no progress for the longest time is closed, of those that hold for the reason that holds most: an
//! honest client makes progress, and one that does not gives way to those that do. So a store on its
//! way survives, between two of its parts, a thousand clients that read nothing. Small halves of
//! requests are not entered here; their bound is the limit of connections times a few KiB.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::tasks::Closer;
use crate::command::Shared;

/// Bytes that half received requests and unread answers may take together. With what the allocator
/// adds, and what those take that are told to end, stalled clients cost less than 64 MB however many
/// they are.
const HELD_BYTES_MAX: usize = 16 << 20;

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
    closer: Arc<Closer>,
    /// Told to end; its memory is free once its worker comes to it.
    closing: bool,
}

#[derive(Debug, Default)]
struct Entries {
    by_connection: HashMap<u64, Entry>,
    /// Of those that are not closing, by what they are held for.
    bytes: [usize; 2],
    next_warning: Option<Instant>,
}

impl Entries {
    /// The reason that holds most.
    fn most(&self) -> Why {
        let [half, unread] = self.bytes;
        if unread > half {
            Why::Unread
        } else {
            Why::HalfRequest
        }
    }
}

/// Who holds how much.
pub(super) struct Held {
    bytes_max: usize,
    /// Of all, those that are closing too.
    taken: AtomicUsize,
    entries: Mutex<Entries>,
    shared: Arc<Shared>,
}

impl Held {
    /// At least one item of the largest size always fits.
    pub(super) fn new(item_size_max: usize, shared: Arc<Shared>) -> Held {
        let bytes_max = HELD_BYTES_MAX.max(item_size_max.saturating_add(1 << 20));
        Held {
            bytes_max,
            taken: AtomicUsize::new(0),
            entries: Mutex::default(),
            shared,
        }
    }

    /// Notes that a connection made progress and holds `bytes` now; closes others, the longest
    /// stalled first, until all fit.
    pub(super) fn hold(&self, connection: u64, bytes: usize, why: Why, closer: &Arc<Closer>) {
        let mut entries = self.entries.lock();
        let entry = Entry {
            bytes,
            why,
            progress: Instant::now(),
            closer: Arc::clone(closer),
            closing: false,
        };
        self.forget(&mut entries, connection);
        entries.by_connection.insert(connection, entry);
        entries.bytes[why as usize] += bytes;
        self.taken.fetch_add(bytes, Relaxed);
        while entries.bytes.iter().sum::<usize>() > self.bytes_max {
            let most = entries.most();
            let others = entries
                .by_connection
                .iter()
                .filter(|(id, entry)| **id != connection && !entry.closing);
            let longest = others.min_by_key(|(_, entry)| (entry.why != most, entry.progress));
            let Some((&stalled, _)) = longest else {
                break;
            };
            self.close(&mut entries, stalled);
        }
    }

    fn close(&self, entries: &mut Entries, connection: u64) {
        let Entries {
            by_connection,
            bytes,
            next_warning,
        } = entries;
        let Some(entry) = by_connection.get_mut(&connection) else {
            return;
        };
        bytes[entry.why as usize] -= entry.bytes;
        entry.closing = true;
        entry.closer.close();
        let counters = &self.shared.metrics.server;
        let kicks = match entry.why {
            Why::HalfRequest => &counters.stalled_kicks,
            Why::Unread => &counters.unread_kicks,
        };
        kicks.fetch_add(1, Relaxed);
        tracing::debug!(connection, bytes = entry.bytes, why = ?entry.why, "closed a stalled connection");
        let now = Instant::now();
        if next_warning.is_none_or(|next| now >= next) {
            *next_warning = Some(now + WARNING_INTERVAL);
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
        self.forget(&mut self.entries.lock(), connection);
    }

    fn forget(&self, entries: &mut Entries, connection: u64) {
        if let Some(entry) = entries.by_connection.remove(&connection) {
            self.taken.fetch_sub(entry.bytes, Relaxed);
            if !entry.closing {
                entries.bytes[entry.why as usize] -= entry.bytes;
            }
        }
    }

    /// Whether connections that were told to end still hold so much that the others should let them
    /// come to their end before they take more.
    #[inline]
    pub(super) fn is_crowded(&self) -> bool {
        self.taken.load(Relaxed) > self.bytes_max
    }
}

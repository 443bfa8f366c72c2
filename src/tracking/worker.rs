//! The tracking thread: takes what the dry tier tells and brings the mirror up to it.
//!
//! Nobody waits for it. What is told is kept as a difference (segments to commit, segments to
//! forget), not as a queue of messages: ids are never reused, so it does not matter what came
//! first, and a segment that is freed before its turn costs nothing. Packed rows that wait are
//! bounded by [`WAITING_BYTES_MAX`]; beyond it only the segment's id is kept, and the thread asks
//! for the segment again ([`Start::resend`]) when nothing else waits, one at a time. The same
//! repairs what an earlier process left undone: at start, segments that dry no longer has are
//! forgotten and those that the mirror lacks are asked for.

#[cfg(test)]
mod tests;
mod thread;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use self::thread::Thread;
use super::access::Access;
use super::{PackedRows, SegmentEntry, StoreId, Totals, TrackError, Tracker};
use crate::clock::UnixSeconds;

/// Most bytes of packed rows that wait for the thread; a larger single segment may wait alone.
pub const WAITING_BYTES_MAX: usize = 8 << 20;

/// Most accesses that are kept between two updates; what is beyond is counted and dropped.
pub const ACCESSES_MAX: usize = 16 << 10;

/// Time between two updates of hits, last access and totals, and between two tries.
pub const UPDATE_INTERVAL: Duration = Duration::from_secs(60);

/// How often a mirror that turned out to be damaged is begun anew within one process.
pub const REBUILDS_MAX: u32 = 1;

/// A sealed segment and its rows.
#[derive(Debug, Clone, Default)]
pub struct Sealed {
    /// What the catalogue says of it; `rows` is filled in here.
    pub entry: SegmentEntry,
    /// Its rows; need not be packed if [`TrackingHandle::wants_rows`] says no.
    pub rows: PackedRows,
}

/// Whether to open what is there or to begin anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rebuild {
    /// Open what is there.
    No,
    /// Set aside what is there.
    Yes,
}

/// Opens the backend, on the tracking thread.
pub type Open = Box<dyn FnMut(Rebuild) -> Result<Box<dyn Tracker>, TrackError> + Send>;

/// Asks dry for a sealed segment again. The answer is [`TrackingHandle::sealed`],
/// [`TrackingHandle::freed`] or [`TrackingHandle::unreadable`], soon and from any thread, also from
/// within. Without an answer it is asked for again after [`UPDATE_INTERVAL`].
pub type Resend = Box<dyn FnMut(u32) + Send>;

/// What the thread begins with.
pub struct Start {
    /// Whose mirror it is.
    pub store: StoreId,
    /// The sealed segments that dry has at start.
    pub live: BTreeSet<u32>,
    /// Whether rows are kept: [`TrackingConfig::rows`](super::TrackingConfig::rows).
    pub rows: bool,
    /// Opens the backend.
    pub open: Open,
    /// Asks dry for a segment again.
    pub resend: Resend,
}

/// How far the mirror is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    /// Segments that wait to be committed.
    pub segments: u64,
    /// Bytes of packed rows that wait.
    pub bytes: u64,
    /// How long some segment has been waiting without a moment when none did.
    pub behind: Duration,
}

/// Counters since the start of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TrackingStats {
    /// Segments committed.
    pub segments: u64,
    /// Rows committed.
    pub rows: u64,
    /// Segments whose rows did not fit [`WAITING_BYTES_MAX`] and are asked for again.
    pub postponed: u64,
    /// Accesses dropped beyond [`ACCESSES_MAX`].
    pub accesses_dropped: u64,
    /// Times that the backend failed.
    pub errors: u64,
    /// Whether the backend was given up; the server goes on without it.
    pub failed: bool,
}

/// Tells the tracking thread; cheap to clone, never blocks on the backend.
#[derive(Clone)]
pub struct TrackingHandle {
    shared: Arc<Shared>,
}

/// Owns the tracking thread.
pub struct TrackingWorker {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    /// Whether rows are kept.
    rows: bool,
    state: Mutex<State>,
    /// There is work, or it is time to stop.
    work: Condvar,
    /// A flush is done, or the thread has ended.
    done: Condvar,
}

/// What the mirror should become. Bounded by the segments that dry has, and the two limits above.
#[derive(Default)]
struct State {
    live: BTreeSet<u32>,
    waiting: BTreeMap<u32, Sealed>,
    /// Of `waiting`, and of the segment that is being committed.
    waiting_bytes: usize,
    /// To be asked for.
    missing: BTreeSet<u32>,
    /// Asked for, not yet answered.
    asked: Option<u32>,
    /// Failed to be committed or read: to be asked for after the next update.
    put_off: BTreeSet<u32>,
    /// A commit failed: nothing is asked for before the next update.
    hold: bool,
    /// Dry may be closed already: nothing is asked for any more.
    closing: bool,
    freed: BTreeSet<u32>,
    accesses: Vec<Access>,
    totals: Option<Totals>,
    behind_since: Option<Instant>,
    flush_wanted: u64,
    flush_done: u64,
    /// Whether the latest flush left nothing out.
    flush_complete: bool,
    stop: bool,
    ended: bool,
    stats: TrackingStats,
}

impl TrackingHandle {
    /// Tells that a segment is sealed. Comes before [`TrackingHandle::freed`] of the same segment.
    /// It may be told twice.
    pub fn sealed(&self, sealed: Sealed) {
        let sealed = self.shared.without_unwanted_rows(sealed);
        let mut state = self.shared.state.lock();
        if state.ended {
            return;
        }
        let segment = sealed.entry.segment;
        let bytes = sealed.rows.bytes();
        let asked_for = state.asked.take_if(|asked| *asked == segment).is_some();
        state.live.insert(segment);
        state.missing.remove(&segment);
        state.put_off.remove(&segment);
        if let Some(twice) = state.waiting.remove(&segment) {
            state.waiting_bytes -= twice.rows.bytes();
        }
        let full = state.waiting_bytes > 0 && state.waiting_bytes + bytes > WAITING_BYTES_MAX;
        // Only one is asked for at a time, so it finds room beyond the bound.
        if full && !asked_for {
            state.stats.postponed += 1;
            state.missing.insert(segment);
        } else {
            state.waiting_bytes += bytes;
            state.waiting.insert(segment, sealed);
        }
        state.behind_since.get_or_insert_with(Instant::now);
        self.shared.work.notify_one();
    }

    /// Answers [`Start::resend`]: the segment is there, but its rows cannot be read now.
    pub fn unreadable(&self, segment: u32) {
        let mut state = self.shared.state.lock();
        state.asked.take_if(|asked| *asked == segment);
        if state.live.contains(&segment) {
            state.put_off.insert(segment);
        }
        self.shared.work.notify_one();
    }

    /// Whether rows are kept: if not, there is no use in packing them.
    pub fn wants_rows(&self) -> bool {
        self.shared.rows
    }

    /// Tells that a segment is gone.
    pub fn freed(&self, segment: u32) {
        let mut state = self.shared.state.lock();
        if state.ended {
            return;
        }
        state.live.remove(&segment);
        state.missing.remove(&segment);
        state.put_off.remove(&segment);
        state.asked.take_if(|asked| *asked == segment);
        if let Some(sealed) = state.waiting.remove(&segment) {
            state.waiting_bytes -= sealed.rows.bytes();
        }
        // Even if it was waiting: an earlier process may have committed it.
        state.freed.insert(segment);
        self.shared.work.notify_one();
    }

    /// Tells that a record was fetched: one lock and a push, and the thread is not woken.
    pub fn accessed(&self, segment: u32, offset: u32, hits: u8, last_access: UnixSeconds) {
        let mut state = self.shared.state.lock();
        if state.accesses.len() < ACCESSES_MAX && !state.ended {
            state.accesses.push(Access {
                segment,
                offset,
                hits,
                last_access,
            });
        } else {
            state.stats.accesses_dropped += 1;
        }
    }

    /// Replaces the totals; they are written with the next update.
    pub fn totals(&self, totals: Totals) {
        self.shared.state.lock().totals = Some(totals);
    }

    /// How far the mirror is behind.
    pub fn lag(&self) -> Lag {
        let state = self.shared.state.lock();
        Lag {
            segments: (state.waiting.len() + state.lacking()) as u64,
            bytes: state.waiting_bytes as u64,
            behind: state
                .behind_since
                .map_or(Duration::ZERO, |since| since.elapsed()),
        }
    }

    /// The segments that the mirror lacks and whose rows do not wait either, by their ids.
    pub fn missing(&self) -> Vec<u32> {
        let state = self.shared.state.lock();
        let mut missing: Vec<u32> = state
            .missing
            .union(&state.put_off)
            .copied()
            .chain(state.asked)
            .collect();
        missing.sort_unstable();
        missing
    }

    /// Counters for `stats`.
    pub fn stats(&self) -> TrackingStats {
        self.shared.state.lock().stats
    }

    /// Waits until the mirror has everything and it is on disk, or for `timeout`. Tells whether it
    /// is so; it is not when the backend fails or a segment cannot be read.
    pub fn flush(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.state.lock();
        state.flush_wanted += 1;
        let wanted = state.flush_wanted;
        self.shared.work.notify_one();
        while state.flush_done < wanted && !state.ended {
            if self
                .shared
                .done
                .wait_until(&mut state, deadline)
                .timed_out()
            {
                break;
            }
        }
        state.flush_done >= wanted && state.flush_complete
    }
}

impl TrackingWorker {
    /// Starts the thread. It opens the backend, compares it with [`Start::live`], and follows.
    ///
    /// # Errors
    /// When the system gives no thread. A backend that does not open is logged and shown by
    /// [`TrackingStats::failed`]: the server runs without its mirror.
    pub fn start(start: Start) -> std::io::Result<TrackingWorker> {
        let state = State {
            live: start.live.clone(),
            ..State::default()
        };
        let shared = Arc::new(Shared {
            rows: start.rows,
            state: Mutex::new(state),
            work: Condvar::new(),
            done: Condvar::new(),
        });
        let thread_shared = Arc::clone(&shared);
        let builder = std::thread::Builder::new().name("tracking".to_owned());
        let thread = builder.spawn(move || Thread::new(thread_shared, start).run())?;
        Ok(TrackingWorker {
            shared,
            thread: Some(thread),
        })
    }

    /// A handle for whoever has something to tell.
    pub fn handle(&self) -> TrackingHandle {
        TrackingHandle {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Flushes what was told and ends the thread, within `timeout`. Dry may be closed already, so
    /// what is missing is left to the next start; [`TrackingHandle::flush`] before closing dry waits
    /// for it. Tells whether the mirror is complete. A thread that does not end in time is left
    /// behind for the end of the process.
    pub fn close(mut self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        self.shared.state.lock().closing = true;
        let complete = self.handle().flush(timeout);
        self.shared.stop();
        let mut state = self.shared.state.lock();
        while !state.ended {
            if self
                .shared
                .done
                .wait_until(&mut state, deadline)
                .timed_out()
            {
                return false;
            }
        }
        drop(state);
        if let Some(thread) = self.thread.take() {
            // It ended by itself; a panic in it was caught and counted.
            let _ = thread.join();
        }
        complete
    }
}

impl Drop for TrackingWorker {
    /// Ends the thread after what it is doing, without waiting for it.
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl State {
    /// How many segments the mirror lacks without their rows being here.
    fn lacking(&self) -> usize {
        self.missing.len() + self.put_off.len() + usize::from(self.asked.is_some())
    }
}

impl Shared {
    /// The segment as it is to be kept.
    fn without_unwanted_rows(&self, mut sealed: Sealed) -> Sealed {
        if !self.rows {
            sealed.rows = PackedRows::default();
        }
        sealed.entry.rows = sealed.rows.rows;
        sealed
    }

    fn stop(&self) {
        self.state.lock().stop = true;
        self.work.notify_one();
    }
}

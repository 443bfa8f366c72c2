//! The reclaim thread: frees whole segments, and tells the owner and the tracking.
//!
//! A segment goes in this order, and a crash after any step leaves nothing that could come back:
//! FREE in the journal (on the device, in power mode), the owner's rows, the data file, the folder
//! synced (power mode), the table's slot and `seg-N.dead`.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread::ThreadId;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::core::Core;
use super::dead;
use super::face::{Reason, TierState};
use super::hooks::{Leaving, SealedSegment};
use super::journal::Stored;
use super::rows::Visitor;
use super::segment::Segment;
use crate::fault::Point;

/// How often dead and unused segments are looked for.
const TICK: Duration = Duration::from_secs(1);
/// Segments of room that are kept: one for the records that reclaim itself reinserts, and two so that
/// an append need not wait for reclaim.
const SPARE_SEGMENTS: u64 = 3;

/// What the reclaim thread is asked for.
#[derive(Debug, Default)]
pub(super) struct Reclaimer {
    requests: Mutex<Requests>,
    wake: Condvar,
    /// Some segment has no live record any more.
    dead: AtomicBool,
    /// The owner's index is complete: segments may be freed.
    running: AtomicBool,
    thread: OnceLock<ThreadId>,
}

#[derive(Debug, Default)]
struct Requests {
    /// Sealed segments that the tracking does not know yet: at most as many as there are segments.
    sealed: Vec<u32>,
    /// The owner's index is full, or the disk.
    free_one: bool,
    awake: bool,
}

impl Reclaimer {
    /// There is something to look at.
    pub(super) fn wake(&self) {
        self.requests.lock().awake = true;
        self.wake.notify_all();
    }

    /// A segment has no live record any more. Wait-free; the thread looks within a second.
    #[inline]
    pub(super) fn look_soon(&self) {
        self.dead.store(true, Relaxed);
    }

    /// Bytes that an append by this thread must leave free when it begins a segment.
    pub(super) fn reserve_bytes(&self, segment_bytes: u64) -> u64 {
        let is_reclaim = self.thread.get() == Some(&std::thread::current().id());
        if is_reclaim { 0 } else { segment_bytes }
    }

    /// Frees one segment, whatever the sizes say. Requests that come before it is freed are one request.
    pub(super) fn request(&self) {
        let mut requests = self.requests.lock();
        requests.free_one = true;
        requests.awake = true;
        self.wake.notify_all();
    }

    /// The tracking should hear of this segment.
    pub(super) fn sealed(&self, segment: u32) {
        let mut requests = self.requests.lock();
        requests.sealed.push(segment);
        requests.awake = true;
        self.wake.notify_all();
    }

    /// Lets segments be freed, or not any more.
    pub(super) fn run(&self, run: bool) {
        self.running.store(run, Relaxed);
        self.wake();
    }

    fn next(&self) -> Requests {
        let mut requests = self.requests.lock();
        if !requests.awake {
            self.wake.wait_for(&mut requests, TICK);
        }
        std::mem::take(&mut requests)
    }
}

impl Core {
    /// The reclaim thread.
    pub(super) fn run_reclaim(&self) {
        let _ = self.reclaimer.thread.set(std::thread::current().id());
        let mut gave_up = false;
        loop {
            let ending = self.stop.load(Relaxed);
            let requests = if ending {
                std::mem::take(&mut *self.reclaimer.requests.lock())
            } else {
                self.reclaimer.next()
            };
            if self.tier_state() == TierState::Failed {
                if !gave_up {
                    gave_up = true;
                    self.give_up();
                }
            } else {
                self.tell_sealed(&requests.sealed);
                if !ending && self.reclaimer.running.load(Relaxed) {
                    self.reclaim(requests.free_one);
                }
            }
            if ending {
                return;
            }
        }
    }

    fn tell_sealed(&self, segments: &[u32]) {
        let Some(hook) = self.hooks.sealed.get() else {
            return;
        };
        for segment in segments
            .iter()
            .filter_map(|id| self.table.get(*id))
            .filter(|segment| segment.sealed())
        {
            hook(&SealedSegment::new(self, segment));
        }
    }

    fn reclaim(&self, free_one: bool) {
        let found_dead = self.reclaimer.dead.swap(false, Relaxed);
        let flushed = self.state.flush_segment();
        let now = self.clock.now();
        for segment in self.sealed_segments() {
            if !self.go_on() {
                return;
            }
            let unused_since = segment
                .summary()
                .newest_access
                .saturating_add(self.limits.ttl_s);
            if segment.id < flushed {
                self.free(&segment, None);
            } else if found_dead && self.table.live_rows(&segment) == 0 {
                // The owner is asked all the same: should the count be wrong, no row is lost.
                self.free(&segment, Some(Reason::Compact));
            } else if unused_since < now {
                self.free(&segment, Some(Reason::Ttl));
            }
        }
        let room = SPARE_SEGMENTS * self.limits.segment_bytes;
        while self.table.bytes() + room > self.limits.size && self.go_on() {
            if !self.free_one(Reason::Size) {
                break;
            }
        }
        if free_one && self.go_on() {
            self.free_one(Reason::Index);
            self.reclaimer.requests.lock().free_one = false;
        }
    }

    fn go_on(&self) -> bool {
        !self.stop.load(Relaxed)
            && self.tier_state() != TierState::Failed
            && self.reclaimer.running.load(Relaxed)
    }

    fn sealed_segments(&self) -> Vec<Arc<Segment>> {
        let mut segments = self.table.all();
        segments.retain(|segment| segment.sealed());
        segments
    }

    /// Frees the segment that is at least half dead and most so, else the oldest one.
    fn free_one(&self, reason: Reason) -> bool {
        let segments = self.sealed_segments();
        let live = |segment: &Segment| self.table.live_rows(segment);
        let share = |segment: &Segment| live(segment) * 1000 / segment.summary().rows.max(1);
        // Compacting keeps every live row, which would not help against too many of them.
        let compactable = segments
            .iter()
            .filter(|segment| reason != Reason::Index && share(segment) <= 500);
        let (victim, reason) = match (
            compactable.min_by_key(|segment| share(segment)),
            segments.first(),
        ) {
            (Some(segment), _) => (segment, Reason::Compact),
            (None, Some(segment)) => (segment, reason),
            (None, None) => return false,
        };
        self.free(victim, Some(reason))
    }

    /// Frees a segment; without a reason the owner is not asked about its rows. False when it could not be.
    pub(super) fn free(&self, segment: &Arc<Segment>, reason: Option<Reason>) -> bool {
        match self.journal.free(segment.id) {
            Stored::Yes => {}
            Stored::NewFile => self.keeper.wake(),
            Stored::No => {
                self.fail("the kill journal is full and could not be folded in time");
                return false;
            }
        }
        if self.limits.power && self.commit().is_err() {
            return false;
        }
        Point::FreeStored.pass();
        if let (Some(reason), Some(owner)) = (reason, self.hooks.owner.get()) {
            let budget = Cell::new(if reason == Reason::Compact {
                u64::MAX
            } else {
                segment.bytes() / 2
            });
            let mut each = |row: &_| {
                owner(&Leaving {
                    row,
                    reason,
                    core: self,
                    segment,
                    budget: &budget,
                })
            };
            if let Err(error) = Visitor::new(self.salt, self.seed).rows(segment, &mut each) {
                // The owner keeps slots of places that are gone, which reads will tell it.
                self.counters.io_errors.fetch_add(1, Relaxed);
                tracing::warn!(segment = segment.id, %error, "rows of a segment being freed could not be read");
            }
        }
        Point::RowsGone.pass();
        let deleted = self.store.delete(segment.id).and_then(|()| {
            if self.limits.power {
                self.folder.sync()
            } else {
                Ok(())
            }
        });
        if let Err(error) = deleted {
            self.fail(&format!("delete segment {}: {error}", segment.id));
            return false;
        }
        Point::Unlinked.pass();
        {
            let _one_at_a_time = self.dead_files.lock();
            self.table.remove(segment.id);
            // One that stays behind belongs to no segment and goes at the next start.
            let _ = self.folder.remove(&dead::file_name(segment.id));
        }
        self.uploader.wake(); // Its object is to go.
        self.counters.reclaimed.fetch_add(1, Relaxed);
        tracing::debug!(segment = segment.id, ?reason, "freed a segment");
        if let Some(hook) = self.hooks.freed.get() {
            hook(segment.id);
        }
        self.segment_was_freed();
        true
    }

    /// The tier has failed: nothing of it stays.
    fn give_up(&self) {
        self.drop_buffers();
        for segment in self.table.all() {
            self.table.remove(segment.id);
            let _ = self.store.delete(segment.id); // The failed mark keeps what could not be deleted out.
            let _ = self.folder.remove(&dead::file_name(segment.id));
        }
        if let Some(hook) = self.hooks.failed.get() {
            hook();
        }
    }
}

//! The upload threads of a remote store: complete segments go there, objects of freed ones go away.
//!
//! A segment that a crash left without a footer gets one first, so that its rows need no scan of the
//! object later. What fails is tried again, after a pause that grows, until it succeeds: the bound is
//! the spool's, whose segments wait meanwhile.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::core::Core;
use super::face::{OFFSET_UNIT_BYTES, Place, TierState};
use super::footer::FooterBuilder;
use super::manifest;
use super::rows::Visitor;
use super::segment::Segment;
use super::store::Spool;

/// Segments that are uploaded at once.
pub(super) const UPLOADS_MAX: usize = 2;
/// The pause after a first failure; it doubles with each in a row.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// How often a degraded store is asked whether it answers: nothing else is asked of it meanwhile.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// Failures in a row from which on the tier counts as degraded.
const FAILING_AFTER: u32 = 3;
/// The longest pause.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Segments that are complete and not uploaded.
#[derive(Debug, Default)]
pub(super) struct Uploader {
    queue: Mutex<Queue>,
    work: Condvar,
    /// Failures in a row.
    failures: AtomicU32,
}

#[derive(Debug, Default)]
struct Queue {
    /// At most as many as the spool may hold.
    sealed: VecDeque<u32>,
    /// Tasks under way.
    under_way: usize,
    /// When orphans are looked for again.
    collect_at: Option<Instant>,
    /// When a degraded store is asked again.
    probe_at: Option<Instant>,
}

/// What an upload thread does.
#[derive(Debug, Clone, Copy)]
enum Task {
    /// Take the store over, which did not answer at start.
    Claim,
    /// Upload this segment.
    Upload(u32),
    /// Ask a degraded store whether it answers: clients' reads do not.
    Probe,
    /// Delete an object whose segment was freed.
    Delete,
    /// Delete the objects that nothing names.
    Collect,
}

impl Uploader {
    /// This segment is complete.
    pub(super) fn sealed(&self, segment: u32) {
        self.queue.lock().sealed.push_back(segment);
        self.work.notify_all();
    }

    /// Objects are to be deleted, or the end has come.
    pub(super) fn wake(&self) {
        drop(self.queue.lock()); // Nobody is between looking and waiting now.
        self.work.notify_all();
    }

    /// Whether uploads fail one after the other, also where reads do not.
    pub(super) fn is_failing(&self) -> bool {
        self.failures.load(Relaxed) >= FAILING_AFTER
    }

    fn idle(&self) -> bool {
        let queue = self.queue.lock();
        queue.sealed.is_empty() && queue.under_way == 0
    }
}

impl Core {
    /// One upload thread.
    pub(super) fn run_uploader(&self) {
        let Some(spool) = self.spool.clone() else {
            return;
        };
        let mut visitor = Visitor::new(self.salt, self.seed);
        while let Some(task) = self.next_task(&spool) {
            let done = match task {
                Task::Claim => self.claim_late(&spool),
                Task::Upload(id) => self.upload(&spool, &mut visitor, id),
                Task::Probe => {
                    spool.probe(manifest::NAME);
                    Ok(())
                }
                Task::Delete => spool.delete_one().unwrap_or(Ok(())),
                Task::Collect => self.collect_orphans(&spool),
            };
            let mut queue = self.uploader.queue.lock();
            queue.under_way -= 1;
            match done {
                Ok(()) => {
                    self.uploader.failures.store(0, Relaxed);
                    drop(queue);
                    self.uploader.work.notify_all();
                }
                Err(error) => {
                    if let Task::Upload(id) = task {
                        queue.sealed.push_front(id);
                    }
                    let failures = self.uploader.failures.fetch_add(1, Relaxed);
                    let place = spool.place();
                    tracing::debug!(place, ?task, %error, "the remote store refused, tried again later");
                    if !self.stop.load(Relaxed) {
                        let pause = pause_after(failures);
                        self.uploader.work.wait_for(&mut queue, pause);
                    }
                }
            }
        }
    }

    /// What to do next; `None` at the end.
    fn next_task(&self, spool: &Spool) -> Option<Task> {
        let mut queue = self.uploader.queue.lock();
        loop {
            if self.stop.load(Relaxed) || self.tier_state() == TierState::Failed {
                return None;
            }
            let now = Instant::now();
            let task = if self.claimed.lock().is_none() {
                // One thread asks; the other has nothing to do meanwhile.
                (queue.under_way == 0).then_some(Task::Claim)
            } else if spool.is_degraded() {
                // Whatever else was tried could hang for as long as it may take.
                let due = queue.probe_at.is_none_or(|at| at <= now);
                due.then(|| {
                    queue.probe_at = Some(now + PROBE_EVERY);
                    Task::Probe
                })
            } else if let Some(id) = queue.sealed.pop_front() {
                Some(Task::Upload(id))
            } else if spool.has_doomed() {
                Some(Task::Delete)
            } else if queue.collect_at.is_none_or(|at| at <= now) {
                queue.collect_at = Some(now + self.limits.orphan_age);
                Some(Task::Collect)
            } else {
                None
            };
            if task.is_some() {
                queue.under_way += 1;
                return task;
            }
            // Nobody says when the store degrades; while it is, a collection that is due waits too.
            let wait = match queue.collect_at {
                Some(at) if !spool.is_degraded() => PROBE_EVERY.min(at - now),
                _ => PROBE_EVERY,
            };
            self.uploader.work.wait_for(&mut queue, wait);
        }
    }

    fn upload(&self, spool: &Spool, visitor: &mut Visitor, id: u32) -> io::Result<()> {
        let Some(segment) = self.table.get(id) else {
            return Ok(()); // Freed meanwhile.
        };
        // Nothing is paid for in a store that somebody else has taken over.
        if !self.holds_store(spool)? {
            return Ok(());
        }
        let mut ranges = visitor.kept_ranges(&segment)?;
        if ranges.is_none() {
            self.finish(visitor, &segment)?;
            ranges = visitor.kept_ranges(&segment)?;
        }
        let Some(ranges) = ranges else {
            return Err(io::Error::other("the footer just written is not sound"));
        };
        if spool.upload(id, &ranges)? {
            tracing::debug!(segment = id, bytes = segment.bytes(), "uploaded a segment");
        }
        self.segment_was_freed();
        Ok(())
    }

    /// Gives a segment that a crash cut short tables and a footer, behind what it has.
    fn finish(&self, visitor: &mut Visitor, segment: &Segment) -> io::Result<()> {
        let Some(file) = segment.file().map(Arc::clone) else {
            return Ok(());
        };
        let start = segment
            .written()
            .next_multiple_of(u64::from(OFFSET_UNIT_BYTES));
        let mut footer = FooterBuilder::default();
        let mut added = Vec::new();
        let place = |added: &[u8]| Place {
            segment: segment.id,
            offset: ((start + added.len() as u64) / u64::from(OFFSET_UNIT_BYTES)) as u32,
        };
        visitor.rows_and_keys(segment, &mut |row, key| {
            footer.push(row, key);
            if footer.table_is_due()
                && let Some(table) = footer.table(self.salt, place(&added))
            {
                added.extend(table);
            }
        })?;
        if let Some(table) = footer.table(self.salt, place(&added)) {
            added.extend(table);
        }
        let last = footer.finish(self.salt, place(&added));
        added.extend(last);
        file.append_rest(start, &added, &mut 0)?;
        let end = start + added.len() as u64;
        segment.set_written(end);
        self.table.grow(segment, end);
        Ok(())
    }

    /// Queues what a start found to be complete and not uploaded.
    pub(super) fn resume_uploads(&self) {
        let Some(spool) = &self.spool else { return };
        spool.serve();
        for id in spool.waiting() {
            if self.table.get(id).is_some_and(|segment| segment.sealed()) {
                self.uploader.sealed(id);
            }
        }
        self.uploader.wake();
    }

    /// Waits until everything complete is uploaded, at most `timeout`; false when it is not.
    pub(super) fn wait_for_uploads(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut queue = self.uploader.queue.lock();
        while !(queue.sealed.is_empty() && queue.under_way == 0) {
            let waited = self.uploader.work.wait_until(&mut queue, deadline);
            if waited.timed_out() || self.tier_state() == TierState::Failed {
                drop(queue);
                return self.uploader.idle();
            }
        }
        true
    }
}

/// Half to all of a time that doubles with each failure, so that several do not come back at once.
fn pause_after(failures: u32) -> Duration {
    let longest = RETRY_MIN
        .saturating_mul(1 << failures.min(16))
        .min(RETRY_MAX);
    let random = RandomState::new().hash_one(failures) as u32;
    longest.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}

//! What the tracking thread does: compare, commit, forget, ask again, update.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::super::access::{self, Access};
use super::super::{Totals, TrackError, Tracker};
use super::{REBUILDS_MAX, Rebuild, Sealed, Shared, Start, State, UPDATE_INTERVAL};

/// What only the thread itself uses.
pub(super) struct Thread {
    shared: Arc<Shared>,
    start: Start,
    next_update: Instant,
}

impl Thread {
    pub(super) fn new(shared: Arc<Shared>, start: Start) -> Thread {
        Thread {
            shared,
            start,
            next_update: Instant::now(),
        }
    }

    /// Follows until it is told to stop, beginning a damaged mirror anew.
    pub(super) fn run(mut self) {
        let mut rebuild = Rebuild::No;
        let mut rebuilds = 0;
        while let Err(error) = self.follow_unless_panic(rebuild) {
            self.shared.state.lock().stats.errors += 1;
            let again = matches!(error, TrackError::Damaged { .. }) && rebuilds < REBUILDS_MAX;
            if !again {
                tracing::error!(%error, cause = cause(&error), "tracking is given up");
                self.shared.state.lock().stats.failed = true;
                break;
            }
            tracing::warn!(%error, "tracking is begun anew");
            rebuild = Rebuild::Yes;
            rebuilds += 1;
        }
        // Nobody will ask for what was collected.
        let mut state = self.shared.state.lock();
        let stats = state.stats;
        *state = State {
            ended: true,
            stats,
            ..State::default()
        };
        drop(state);
        self.shared.done.notify_all();
    }

    /// sled panics on some kinds of damage.
    fn follow_unless_panic(&mut self, rebuild: Rebuild) -> Result<(), TrackError> {
        let followed = catch_unwind(AssertUnwindSafe(|| self.follow(rebuild)));
        let panicked = |_| TrackError::Damaged {
            doing: "a panic of the backend".to_owned(),
        };
        followed.map_err(panicked)?
    }

    fn follow(&mut self, rebuild: Rebuild) -> Result<(), TrackError> {
        let mut tracker = (self.start.open)(rebuild)?;
        tracker.adopt(self.start.store)?;
        self.reconcile(&mut *tracker)?;
        self.next_update = Instant::now() + UPDATE_INTERVAL;
        loop {
            let done = match self.next_work() {
                Work::Stop => return tracker.flush(),
                Work::Forget(segment) => tracker.forget(segment),
                Work::Commit(sealed) => self.commit(&mut *tracker, &sealed),
                Work::Ask(segment) => {
                    (self.start.resend)(segment);
                    Ok(())
                }
                Work::Update {
                    accesses,
                    totals,
                    flush,
                } => {
                    let updated = update(&mut *tracker, &accesses, totals.as_ref());
                    self.finish_update(flush, updated.is_ok());
                    updated
                }
            };
            match done {
                Err(error @ TrackError::Damaged { .. }) => return Err(error),
                Err(error) => self.count_error(&error),
                Ok(()) => {}
            }
        }
    }

    /// Finds what dry has and the mirror lacks, and the other way round.
    fn reconcile(&mut self, tracker: &mut dyn Tracker) -> Result<(), TrackError> {
        let mut mirrored = BTreeSet::new();
        let mut other_rows = BTreeSet::new();
        let rows_wanted = self.start.rows;
        tracker.segments(&mut |entry| {
            mirrored.insert(entry.segment);
            // It was written when rows were kept and now they are not, or the other way round.
            let kept = if rows_wanted { entry.records } else { 0 };
            if entry.rows != kept {
                other_rows.insert(entry.segment);
            }
        })?;
        let mut state = self.shared.state.lock();
        let state = &mut *state;
        state.asked = None;
        state.freed.extend(mirrored.difference(&state.live));
        let lacking = state
            .live
            .difference(&mirrored)
            .filter(|id| !state.waiting.contains_key(id));
        state.missing.extend(lacking);
        state.missing.extend(other_rows.intersection(&state.live));
        // What was being committed when an earlier backend failed is among the missing now.
        state.waiting_bytes = state
            .waiting
            .values()
            .map(|sealed| sealed.rows.bytes())
            .sum();
        if state.lacking() > 0 {
            state.behind_since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    /// Waits for something to do.
    fn next_work(&mut self) -> Work {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state.lock();
        loop {
            if let Some(segment) = state.freed.pop_first() {
                return Work::Forget(segment);
            }
            if state.stop {
                return Work::Stop;
            }
            if let Some((_, sealed)) = state.waiting.pop_first() {
                return Work::Commit(sealed);
            }
            if state.lacking() == 0 {
                state.behind_since = None;
            }
            // A flush comes after all that was told before it and all that can still be had.
            let asking = !state.closing && !state.hold;
            let wait_for_more = asking && (!state.missing.is_empty() || state.asked.is_some());
            let flush = state.flush_wanted > state.flush_done && !wait_for_more;
            if flush || Instant::now() >= self.next_update {
                return Work::update(&mut state, flush);
            }
            if asking
                && state.asked.is_none()
                && let Some(segment) = state.missing.pop_first()
            {
                state.asked = Some(segment);
                return Work::Ask(segment);
            }
            shared.work.wait_until(&mut state, self.next_update);
        }
    }

    /// Commits a segment. If it is freed meanwhile, it is forgotten afterwards.
    fn commit(&mut self, tracker: &mut dyn Tracker, sealed: &Sealed) -> Result<(), TrackError> {
        let committed = tracker.commit(&sealed.entry, &sealed.rows);
        let mut state = self.shared.state.lock();
        state.waiting_bytes -= sealed.rows.bytes();
        if committed.is_ok() {
            state.stats.segments += 1;
            state.stats.rows += u64::from(sealed.rows.rows);
        } else if state.live.contains(&sealed.entry.segment) {
            state.put_off.insert(sealed.entry.segment);
            state.hold = true;
        }
        committed
    }

    /// Puts what was put off in line again, and tells who waits for the flush.
    fn finish_update(&mut self, flush: u64, written: bool) {
        let mut state = self.shared.state.lock();
        let state = &mut *state;
        state.flush_done = flush;
        state.flush_complete = written && state.lacking() == 0;
        state.missing.append(&mut state.put_off);
        state.hold = false;
        if Instant::now() >= self.next_update {
            // The answer is lost, or comes late and is then taken as well.
            state.missing.extend(state.asked.take());
        }
        self.next_update = Instant::now() + UPDATE_INTERVAL;
        self.shared.done.notify_all();
    }

    fn count_error(&self, error: &TrackError) {
        self.shared.state.lock().stats.errors += 1;
        tracing::warn!(%error, cause = cause(error), "tracking failed, it will be tried again");
    }
}

/// The next thing to do.
enum Work {
    Forget(u32),
    Commit(Sealed),
    Ask(u32),
    /// Accesses, totals, and what was put off; then flush up to this request.
    Update {
        accesses: Vec<Access>,
        totals: Option<Totals>,
        flush: u64,
    },
    Stop,
}

impl Work {
    /// An update with all that was collected; it answers all flushes so far, or none.
    fn update(state: &mut State, flush: bool) -> Work {
        Work::Update {
            accesses: std::mem::take(&mut state.accesses),
            totals: state.totals.take(),
            flush: if flush {
                state.flush_wanted
            } else {
                state.flush_done
            },
        }
    }
}

/// Brings rows and totals up to date and makes all of it lasting.
fn update(
    tracker: &mut dyn Tracker,
    accesses: &[Access],
    totals: Option<&Totals>,
) -> Result<(), TrackError> {
    access::apply(tracker, accesses)?;
    if let Some(totals) = totals {
        tracker.put_totals(totals)?;
    }
    tracker.flush()
}

/// What lies below an error, for the log.
fn cause(error: &TrackError) -> String {
    std::error::Error::source(error)
        .map(ToString::to_string)
        .unwrap_or_default()
}

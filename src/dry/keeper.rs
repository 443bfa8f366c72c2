//! The keeper's thread: folds full journal files into `.dead` files, and keeps time.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::Thread;
use std::time::{Duration, Instant};

use super::core::Core;
use super::dead::Dead;
use super::face::{Place, TierState};
use super::folder::{Sync, disk_is_full};
use super::journal::FREE_OFFSET;
use crate::fault::Point;

/// How often the time is persisted and an idle buffer is written.
const TICK: Duration = Duration::from_secs(1);
/// How soon a file is looked at again whose last kills are between two instructions.
const FOLD_RETRY: Duration = Duration::from_millis(1);

/// How the keeper's thread is reached.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    thread: OnceLock<Thread>,
}

impl Keeper {
    /// A journal file is full, or the end has come.
    pub(super) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

impl Core {
    /// The keeper's thread.
    pub(super) fn run_keeper(&self) {
        let _ = self.keeper.thread.set(std::thread::current());
        let mut ticked = Instant::now();
        while !self.stop.load(Relaxed) {
            let wait = self.fold_full_files().min(TICK);
            std::thread::park_timeout(wait);
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                self.tick();
            }
        }
    }

    fn tick(&self) {
        let now = self.clock.now();
        // Only forwards: items that were left out as expired stay out.
        let _ = self
            .state
            .update(Sync::PageCache, |fields| fields.wall = fields.wall.max(now));
        self.tick_writer();
    }

    /// Folds what is full and says when to come again.
    fn fold_full_files(&self) -> Duration {
        while self.journal.fold_is_due() && self.tier_state() != TierState::Failed {
            let Some(places) = self.journal.full() else {
                return FOLD_RETRY;
            };
            let folded = self.fold(&places).and_then(|()| {
                Point::Folded.pass();
                self.journal.folded()
            });
            match folded {
                Ok(()) => {
                    self.counters.journal_folds.fetch_add(1, Relaxed);
                }
                Err(error) if disk_is_full(&error) => {
                    // Room for kills is worth more than records.
                    tracing::warn!(%error, "the disk is full: a segment is freed to make room for kills");
                    self.reclaimer.request();
                    return TICK;
                }
                Err(error) => {
                    self.counters.io_errors.fetch_add(1, Relaxed);
                    self.fail(&format!("fold the kill journal: {error}"));
                }
            }
        }
        TICK
    }

    fn fold(&self, places: &[Place]) -> io::Result<()> {
        for kills in places.chunk_by(|one, other| one.segment == other.segment) {
            let _one_at_a_time = self.dead_files.lock();
            // A segment leaves the table after its data is gone for good: its kills mean nothing now.
            if self.table.get(kills[0].segment).is_some() {
                merge(self, kills)?;
                Point::Folding.pass();
            }
        }
        Ok(())
    }
}

fn merge(core: &Core, kills: &[Place]) -> io::Result<()> {
    let (offsets, freed) = split(kills);
    Dead::merge(&core.folder, kills[0].segment, &offsets, freed, core.sync())
}

/// One segment's kills as offsets, and whether all of it is freed.
pub(super) fn split(kills: &[Place]) -> (Vec<u32>, bool) {
    let offsets: Vec<u32> = kills
        .iter()
        .map(|place| place.offset)
        .filter(|offset| *offset != FREE_OFFSET)
        .collect();
    let freed = offsets.len() < kills.len();
    (offsets, freed)
}

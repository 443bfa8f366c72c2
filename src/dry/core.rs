//! What all parts of a running tier share, and the two acts that any of them may do: kill and fail.
//!
//! ```text
//! append ──▶ writer (buffers) ──▶ thread dry-writer ──▶ segment files
//! kill ────▶ journal slot ──────▶ thread dry-keeper ──▶ seg-N.dead, every full journal file
//!            segment accounting ▶ thread dry-reclaim ─▶ FREE, owner, unlink
//! ```
//! Lock order: writer, then the caller's shard, then the leaves (a table slot, the state, the
//! journal's conditions).

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use super::error::DryError;
use super::face::{DryStats, Place, TierState};
use super::folder::{Folder, Sync};
use super::hooks::{OnFailed, OnFreed, OnSealed, Owner};
use super::journal::{Journal, Stored};
use super::keeper::Keeper;
use super::reclaim::Reclaimer;
use super::segment::SegmentTable;
use super::state::State;
use super::store::remote::Tag;
use super::store::{SegmentStore, Spool};
use super::upload::Uploader;
use super::writer::Writer;
use crate::clock::{Clock, UnixSeconds};
use crate::entry::HashSeed;
use crate::fault::{Mutant, Point};

/// Sizes and times that were decided at start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes of all segments.
    pub(super) size: u64,
    /// Bytes of one segment.
    pub(super) segment_bytes: u64,
    /// Residence time since the last access, in seconds.
    pub(super) ttl_s: u32,
    /// Bytes of write buffers.
    pub(super) queue_bytes: usize,
    /// Kills reach the device before they count.
    pub(super) power: bool,
    /// How long a clean close waits for a remote store.
    pub(super) upload_timeout: Duration,
    /// Age from which on an object of a remote store that nothing names is deleted.
    pub(super) orphan_age: Duration,
}

/// Figures since start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) journal_folds: AtomicU64,
    pub(super) puts: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) write_bytes: AtomicU64,
    pub(super) reads: AtomicU64,
    pub(super) would_block: AtomicU64,
    pub(super) corrupt: AtomicU64,
    pub(super) io_errors: AtomicU64,
    pub(super) reclaimed: AtomicU64,
    pub(super) busy: AtomicU64,
    pub(super) behind: AtomicU64,
}

/// Who is told of what.
#[derive(Default)]
pub(super) struct Hooks {
    pub(super) owner: OnceLock<Owner>,
    pub(super) sealed: OnceLock<OnSealed>,
    pub(super) freed: OnceLock<OnFreed>,
    pub(super) failed: OnceLock<OnFailed>,
}

/// The running tier.
pub(super) struct Core {
    pub(super) limits: Limits,
    pub(super) clock: Arc<Clock>,
    pub(super) seed: HashSeed,
    /// Mixed into all checksums: another store's bytes are not ours.
    pub(super) salt: u32,
    pub(super) folder: Arc<Folder>,
    pub(super) store: Arc<dyn SegmentStore>,
    /// The store where it is a remote one.
    pub(super) spool: Option<Arc<Spool>>,
    /// The manifest of the remote store as this run wrote it; none until the store is claimed.
    pub(super) claimed: Mutex<Option<Tag>>,
    pub(super) uploader: Uploader,
    pub(super) state: State,
    pub(super) journal: Journal,
    pub(super) table: SegmentTable,
    pub(super) writer: Writer,
    pub(super) keeper: Keeper,
    pub(super) reclaimer: Reclaimer,
    pub(super) hooks: Hooks,
    pub(super) counters: Counters,
    /// Held while a `.dead` file is changed or removed.
    pub(super) dead_files: Mutex<()>,
    /// Items that had expired by then stay so.
    pub(super) wall_at_start: UnixSeconds,
    tier_state: AtomicU8,
    /// Set when the threads should end.
    pub(super) stop: AtomicBool,
}

/// The parts that recovery found or made.
pub(super) struct Parts {
    pub(super) limits: Limits,
    pub(super) clock: Arc<Clock>,
    pub(super) folder: Arc<Folder>,
    pub(super) store: Arc<dyn SegmentStore>,
    pub(super) spool: Option<Arc<Spool>>,
    pub(super) claimed: Option<Tag>,
    pub(super) state: State,
    pub(super) journal: Journal,
    pub(super) table: SegmentTable,
}

impl Core {
    pub(super) fn new(parts: Parts) -> Core {
        let fields = parts.state.fields();
        Core {
            limits: parts.limits,
            clock: parts.clock,
            seed: fields.seed,
            salt: salt(fields.uuid),
            folder: parts.folder,
            store: parts.store,
            spool: parts.spool,
            claimed: Mutex::new(parts.claimed),
            uploader: Uploader::default(),
            journal: parts.journal,
            table: parts.table,
            writer: Writer::new(&parts.limits, fields.next_segment),
            keeper: Keeper::default(),
            reclaimer: Reclaimer::default(),
            hooks: Hooks::default(),
            counters: Counters::default(),
            dead_files: Mutex::new(()),
            wall_at_start: fields.wall,
            state: parts.state,
            tier_state: AtomicU8::new(TierState::Ok as u8),
            stop: AtomicBool::new(false),
        }
    }

    /// How the tier is.
    #[inline]
    pub(super) fn tier_state(&self) -> TierState {
        match self.tier_state.load(Relaxed) {
            0 => TierState::Ok,
            1 => TierState::Paused,
            _ => TierState::Failed,
        }
    }

    /// Whether the remote store fails at the moment.
    pub(super) fn is_degraded(&self) -> bool {
        let spool = self.spool.as_ref();
        spool.is_some_and(|spool| spool.is_degraded()) || self.uploader.is_failing()
    }

    /// Changes between `Ok` and `Paused`; a failed tier stays failed. True when it did change.
    pub(super) fn change_state(&self, from: TierState, to: TierState) -> bool {
        self.tier_state
            .compare_exchange(from as u8, to as u8, Relaxed, Relaxed)
            .is_ok()
    }

    /// How far writes must get before they count.
    pub(super) fn sync(&self) -> Sync {
        Sync::of(self.limits.power)
    }

    /// Stores a kill; see [`super::Dry::kill`].
    #[inline]
    pub(super) fn kill(&self, place: Place) {
        Point::BeforeKill.pass();
        if !Mutant::SkipKill.is_on() {
            match self.journal.kill(place) {
                Stored::Yes => {}
                Stored::NewFile => self.keeper.wake(),
                Stored::No => self.fail("the kill journal is full and could not be folded in time"),
            }
        }
        Point::AfterKill.pass();
        if self.table.add_live(place.segment, -1) <= 0 {
            self.reclaimer.look_soon();
        }
    }

    /// Stores a kill and waits for the device; see [`super::Dry::commit_kill`].
    pub(super) fn commit_kill(&self, place: Place) -> Result<(), DryError> {
        self.kill(place);
        self.commit()
    }

    /// Waits until all kills are on the device. A failure fails the tier.
    pub(super) fn commit(&self) -> Result<(), DryError> {
        self.journal.commit().map_err(|error| {
            self.fail(&format!("sync the kill journal: {error}"));
            self.folder.error("sync the kill journal in", "", error)
        })
    }

    /// Gives the tier up. The mark comes first: whatever happens next, no restart trusts the folder.
    /// Segments and the owner's slots go on the reclaim thread, because this may be called under a
    /// shard lock.
    #[cold]
    pub(super) fn fail(&self, why: &str) {
        // Device errors are expected here; the mark is in the page cache all the same.
        let marked = self
            .state
            .update(self.sync(), |fields| fields.failed = true);
        if self.tier_state.swap(TierState::Failed as u8, Relaxed) != TierState::Failed as u8 {
            tracing::error!(folder = %self.folder.path().display(), why, "the dry tier failed and is given up");
            if let Err(error) = marked {
                tracing::error!(%error, "the failed mark may not have reached the device");
            }
        }
        self.journal.abandon();
        self.reclaimer.wake();
        self.uploader.wake();
        self.writer.wake_all();
    }

    /// A moment's figures.
    pub(super) fn stats(&self) -> DryStats {
        let all = self.table.all();
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        DryStats {
            segments: self.table.count(),
            bytes_on_disk: self.table.bytes(),
            size_bytes: self.limits.size,
            live_bytes: all
                .iter()
                .map(|segment| self.table.live_bytes(segment))
                .sum(),
            queue_bytes: self.writer.pending_bytes() as u64,
            journal_bytes: self.journal.used_bytes(),
            journal_kills: self.journal.kills(),
            journal_folds: count(&self.counters.journal_folds),
            puts: count(&self.counters.puts),
            writes: count(&self.counters.writes),
            write_bytes: count(&self.counters.write_bytes),
            reads: count(&self.counters.reads),
            would_block: count(&self.counters.would_block),
            corrupt: count(&self.counters.corrupt),
            io_errors: count(&self.counters.io_errors),
            reclaimed: count(&self.counters.reclaimed),
            busy: count(&self.counters.busy),
            behind: count(&self.counters.behind),
            remote: self.spool.as_ref().map(|spool| spool.stats()),
        }
    }
}

/// Where a store's checksums begin.
pub(super) fn salt(uuid: u64) -> u32 {
    crc32fast::hash(&uuid.to_le_bytes())
}

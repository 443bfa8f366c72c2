//! The dry tier on local disk: segments of records, a kill journal, and recovery from both.
//!
//! It knows places, never the index: the caller keeps (hash → place) and guarantees that at most one
//! live record exists per index slot. What is live after a restart is *segments minus kills minus
//! freed segments minus flushed minus expired*.
//!
//! ```text
//! face, hooks          what crosses the face: places, rows, records, callbacks
//! core                 what the parts share; kill and fail
//! writer reader        records in, records out
//! keeper reclaim       the background: folding kills, freeing segments
//! recovery load rows   starting
//! record footer dead journal state folder store/    formats and files
//! ```

pub mod config;
mod core;
mod dead;
mod device;
mod error;
mod face;
mod folder;
mod footer;
#[cfg(fuzzing)]
pub mod fuzz;
mod hooks;
mod journal;
mod keeper;
mod load;
mod manifest;
mod reader;
mod reclaim;
mod record;
mod recovery;
mod rows;
mod segment;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod upload;
mod writer;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

pub use config::{Checksums, DryConfig, Durability, MongoDbConfig, RemoteConfig, S3Config};
pub use error::{DryError, ErrorKind};
pub use face::{
    Append, DryStats, LoadReport, NewRecord, OFFSET_UNIT_BYTES, Place, Read, ReadMode, Reason, Row,
    Start, TierState,
};
pub use hooks::{Leaving, OnFailed, OnFreed, OnSealed, Owner, Record, SealedSegment};
pub use store::spool::RemoteStats;

use self::core::Core;
use self::folder::Sync;
use self::recovery::Machine;
use self::state::Fields;
use self::writer::End;
use crate::clock::{Clock, UnixSeconds};
use crate::entry::HashSeed;
use crate::fault::{Mutant, Point};

/// The dry tier. All methods take `&self`; share it in an [`Arc`].
///
/// Lock order: the caller may hold a shard lock only in [`Dry::kill`]; [`Dry::append`] calls
/// `publish` under the writer lock and `publish` may take the shard lock.
pub struct Dry {
    core: Arc<Core>,
    start: Start,
    first_version: u64,
    threads: Mutex<Option<Threads>>,
}

struct Threads {
    writer: JoinHandle<()>,
    others: Vec<JoinHandle<()>>,
}

/// How to close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// Everything appended so far is kept, over a reboot too.
    Clean,
    /// As if the process had died now.
    Dirty,
}

impl Dry {
    /// Opens the folder, decides whether what it holds is trusted, and marks it as in use. Set the
    /// hooks next, then [`Dry::load`].
    ///
    /// # Errors
    /// See [`ErrorKind`]. A folder that is ours but not trusted is no error: it is set aside.
    pub fn open(config: &DryConfig, clock: Arc<Clock>) -> Result<Dry, DryError> {
        let machine = Machine {
            remote: store::open(config)?,
            ..Machine::current()
        };
        Dry::open_on(config, clock, &machine)
    }

    fn open_on(
        config: &DryConfig,
        clock: Arc<Clock>,
        machine: &Machine<'_>,
    ) -> Result<Dry, DryError> {
        let (core, start) = recovery::open(config, clock, machine)?;
        let fields = core.state.fields();
        let first_version = if Mutant::ResetVersions.is_on() {
            1
        } else {
            fields
                .versions_reserved
                .max(fields.flush_version)
                .max(core.clock.now_us())
                + 1
        };
        let core = Arc::new(core);
        let spawn = |name: &str, run: fn(&Core)| {
            let running = Arc::clone(&core);
            let thread = std::thread::Builder::new().name(name.to_owned());
            let spawned = thread.spawn(move || run(&running));
            spawned.map_err(|error| DryError::io("start a thread for", core.folder.path(), error))
        };
        let mut others = vec![
            spawn("dry-keeper", Core::run_keeper)?,
            spawn("dry-reclaim", Core::run_reclaim)?,
            spawn("dry-trash", empty_trash)?,
        ];
        if core.spool.is_some() {
            for number in 0..upload::UPLOADS_MAX {
                others.push(spawn(&format!("dry-upload-{number}"), Core::run_uploader)?);
            }
        }
        let threads = Threads {
            writer: spawn("dry-writer", Core::run_writer)?,
            others,
        };
        Ok(Dry {
            core,
            start,
            first_version,
            threads: Mutex::new(Some(threads)),
        })
    }

    /// How the start found the folder, for the banner.
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// The seed of all hashes, kept in the folder.
    pub fn seed(&self) -> HashSeed {
        self.core.seed
    }

    /// The first version to hand out: greater than every version and flush before.
    pub fn first_version(&self) -> u64 {
        self.first_version
    }

    /// Makes sure that a later start begins above `upto`, also after a loss of power that sets the folder aside. On the
    /// device when it returns, so reserve in large blocks.
    ///
    /// # Errors
    /// The device's: the tier has failed then.
    pub fn reserve_versions(&self, upto: u64) -> Result<(), DryError> {
        self.persist(Sync::Device, |fields| {
            fields.versions_reserved = fields.versions_reserved.max(upto);
        })
    }

    /// Items with this version or a lower one are flushed.
    pub fn flush_version(&self) -> u64 {
        self.core.state.flush_version()
    }

    /// Flushes every record with this version or a lower one, and every record in a segment whose id
    /// is lower than the returned one. Persisted when it returns; a pending deadline is cleared.
    ///
    /// # Errors
    /// The device's, in power mode: the tier has failed then.
    pub fn flush(&self, version: u64) -> Result<u32, DryError> {
        // Under the writer lock: no record comes between the number of the segment and the flush.
        let segment = self.core.seal_then(|next_segment| {
            if Mutant::ForgetFlush.is_on() {
                return Ok(next_segment);
            }
            self.persist(self.core.sync(), |fields| {
                fields.flush_version = fields.flush_version.max(version);
                fields.flush_segment = next_segment;
                fields.flush_deadline = 0;
            })?;
            Ok(next_segment)
        });
        self.core.reclaimer.wake();
        segment
    }

    /// The persisted deadline of a delayed flush.
    pub fn flush_deadline(&self) -> Option<UnixSeconds> {
        Some(self.core.state.fields().flush_deadline).filter(|deadline| *deadline != 0)
    }

    /// Persists (or clears) the deadline of a delayed flush. A start after a deadline that was not
    /// applied by [`Dry::flush`] flushes everything.
    ///
    /// # Errors
    /// The device's, in power mode: the tier has failed then.
    pub fn set_flush_deadline(&self, deadline: Option<UnixSeconds>) -> Result<(), DryError> {
        self.persist(self.core.sync(), |fields| {
            fields.flush_deadline = deadline.unwrap_or(0);
        })
    }

    fn persist(&self, sync: Sync, change: impl FnOnce(&mut Fields)) -> Result<(), DryError> {
        self.core.state.update(sync, change).map_err(|error| {
            self.core.fail(&format!("write the state: {error}"));
            self.core.folder.error("write", folder::STATE_FILE, error)
        })
    }

    /// Sets who is told of each row that leaves with its segment. The owner removes its index slot if
    /// it still holds that place (no kill: the whole segment is dead already), or reinserts the record
    /// with [`Dry::append`] and a `publish` that switches the slot only if it still holds that place.
    /// Called on the reclaim thread, without locks, for killed rows too. The first call counts.
    pub fn set_owner(&self, owner: Owner) {
        let _ = self.core.hooks.owner.set(owner);
    }

    /// Sets who is told of each sealed segment, on the reclaim thread. The first call counts.
    pub fn set_on_sealed(&self, hook: OnSealed) {
        let _ = self.core.hooks.sealed.set(hook);
    }

    /// Sets who is told of each freed segment, on the reclaim thread. The first call counts.
    pub fn set_on_freed(&self, hook: OnFreed) {
        let _ = self.core.hooks.freed.set(hook);
    }

    /// Sets who is told, on the reclaim thread, that the tier failed: every place is gone. The first
    /// call counts.
    pub fn set_on_failed(&self, hook: OnFailed) {
        let _ = self.core.hooks.failed.set(hook);
    }

    /// About how many rows [`Dry::load`] will hand over.
    pub fn rows_expected(&self) -> u64 {
        self.core.rows_expected()
    }

    /// Hands every live row to `each`, those of a segment at once, from several threads and in no order, and lets
    /// reclaim begin. `progress` gets segments done, segments in all and rows so far, on the calling thread. Where
    /// two rows meet in one slot the higher version stays and the caller kills the other
    /// ([`Dry::record_version`] tells the version of one that is in the index already); a row that the
    /// caller does not take it must kill. Once, before the first append.
    ///
    /// # Errors
    /// When the tier failed meanwhile. A segment that cannot be read is freed and counted.
    pub fn load(
        &self,
        threads: usize,
        each: &(dyn Fn(&[Row]) + std::marker::Sync),
        progress: &dyn Fn(usize, usize, u64),
    ) -> Result<LoadReport, DryError> {
        let report = self.core.load(threads, each, progress);
        self.core.resume_uploads();
        if self.tier_state() == TierState::Failed {
            Err(DryError::Failed)
        } else {
            Ok(report)
        }
    }

    /// The ids of all sealed segments, for the tracker to compare its own with.
    pub fn segments(&self) -> Vec<u32> {
        let all = self.core.table.all();
        all.iter()
            .filter(|segment| segment.sealed())
            .map(|segment| segment.id)
            .collect()
    }

    /// The record at a place, whoever's it is, verified; `None` where it is gone or cannot be read.
    /// `bytes_hint` and `buffer` are as for [`Dry::read`]. Blocks on the device.
    pub fn record<'b>(
        &self,
        place: Place,
        bytes_hint: usize,
        buffer: &'b mut Vec<u8>,
    ) -> Option<Record<'b>> {
        self.core.record(place, bytes_hint, buffer)
    }

    /// Has [`Dry::set_on_sealed`]'s hook called again for a segment, soon.
    pub fn resend(&self, segment: u32) {
        self.core.reclaimer.sealed(segment);
    }

    /// Stores the kill of a record, in the page cache when it returns: call it under the key's shard
    /// lock, before a new state can be read, at most once per place. Wait-free (a slot of the journal
    /// and two atomic adds) while the journal has a file ready; else it waits for one, and after 5 s
    /// the tier fails rather than lose a kill.
    #[inline]
    pub fn kill(&self, place: Place) {
        self.core.kill(place);
    }

    /// As [`Dry::kill`], and on the device when it returns (one sync for all who wait). Blocks; call
    /// it without locks, before the new state becomes visible.
    ///
    /// # Errors
    /// The device's: the tier has failed then.
    pub fn commit_kill(&self, place: Place) -> Result<(), DryError> {
        self.core.commit_kill(place)
    }

    /// Waits until all kills stored so far are on the device: [`Dry::commit_kill`] for many.
    ///
    /// # Errors
    /// The device's: the tier has failed then.
    pub fn commit_kills(&self) -> Result<(), DryError> {
        self.core.commit()
    }

    /// Appends a record: `fill` writes key then value into exactly their bytes, then `publish` gets
    /// the place and the record's bytes and says whether the index took it. Both run under the
    /// writer lock. The record can be read as soon as `publish` returned true.
    pub fn append(
        &self,
        record: &NewRecord<'_>,
        fill: impl FnOnce(&mut [u8]),
        publish: impl FnOnce(Place, u32) -> bool,
    ) -> Append {
        self.core.append(record, fill, publish)
    }

    /// Waits until an append has a chance again, at most `timeout`; false when it has not.
    pub fn wait_for_room(&self, timeout: Duration) -> bool {
        self.core.wait_for_room(timeout)
    }

    /// Bytes that wait for the device.
    pub fn queue_bytes(&self) -> usize {
        self.core.writer.pending_bytes()
    }

    /// Hands a partly filled buffer to the writer thread. Done by itself when nothing was appended
    /// for a second.
    pub fn flush_buffers(&self) {
        self.core.flush_buffers();
    }

    /// Reads and verifies the record at `place`. `bytes_hint` is how much to read at once (0 for a
    /// guess; too little costs a second call). `buffer` may grow, never shrinks, and its content is
    /// overwritten.
    pub fn read(
        &self,
        place: Place,
        bytes_hint: usize,
        key: &[u8],
        mode: ReadMode,
        buffer: &mut Vec<u8>,
    ) -> Read {
        self.core.read(place, bytes_hint, key, mode, buffer)
    }

    /// Fetches the `bytes` from a record on that several reads will soon want, with one request of a
    /// remote store. Blocks; does nothing where the store is local.
    pub fn prefetch(&self, first: Place, bytes: usize) {
        self.core.prefetch(first, bytes);
    }

    /// Whether segments are in a remote store: reads take a round trip, and neighbours are worth
    /// fetching together.
    pub fn is_remote(&self) -> bool {
        self.core.spool.is_some()
    }

    /// The version of the record at `place`, if that is sound.
    pub fn record_version(&self, place: Place) -> Option<u64> {
        self.core.record_version(place)
    }

    /// Frees one segment soon because the caller's index is full. Calls that come before it is freed
    /// count as one.
    pub fn reclaim_one(&self) {
        self.core.reclaimer.request();
    }

    /// How the tier is.
    pub fn tier_state(&self) -> TierState {
        match self.core.tier_state() {
            TierState::Ok if self.core.is_degraded() => TierState::Degraded,
            state => state,
        }
    }

    /// A moment's figures.
    pub fn stats(&self) -> DryStats {
        self.core.stats()
    }

    /// Ends the tier's threads and releases the folder. A clean close drains the queue, seals the open
    /// segment and leaves a mark that makes the next start warm even after a reboot. Nothing may be
    /// called afterwards except reads of figures; closing twice does nothing.
    ///
    /// # Errors
    /// The device's, a full disk or a failed tier: the mark is not set then.
    pub fn close(&self, how: Close) -> Result<(), DryError> {
        let Some(threads) = self.threads.lock().take() else {
            return Ok(());
        };
        let core = &self.core;
        core.reclaimer.run(false);
        core.end_writer(if how == Close::Clean {
            End::Drain
        } else {
            End::Abandon
        });
        join(threads.writer);
        if how == Close::Clean && !core.wait_for_uploads(core.limits.upload_timeout) {
            tracing::warn!(
                "not everything was uploaded in time: the rest stays in the spool and follows after the next start"
            );
        }
        core.stop.store(true, Relaxed);
        core.keeper.wake();
        core.reclaimer.wake();
        core.uploader.wake();
        if let Some(spool) = &core.spool {
            spool.interrupt();
        }
        let own = std::thread::current().id();
        let (own, others): (Vec<_>, Vec<_>) = threads
            .others
            .into_iter()
            .partition(|thread| thread.thread().id() == own);
        others.into_iter().for_each(join);
        let closed = if how == Close::Clean {
            self.release_store();
            self.mark_clean()
        } else {
            Ok(())
        };
        // A hook that held the last reference closes on the reclaim thread, which cannot wait for
        // itself: it goes on to its end, and the folder is released with what the parts share.
        if own.is_empty() {
            core.folder.unlock();
        }
        closed
    }

    /// A manifest that is not written costs warmth elsewhere, nothing here.
    fn release_store(&self) {
        let core = &self.core;
        let healthy = core.tier_state() != TierState::Failed && core.drained();
        if let (true, Some(spool)) = (healthy, &core.spool)
            && let Err(error) = core.release_store(spool)
        {
            tracing::warn!(place = spool.place(), %error, "no other machine can take the remote store over warm");
        }
    }

    fn mark_clean(&self) -> Result<(), DryError> {
        let core = &self.core;
        if core.tier_state() == TierState::Failed {
            return Err(DryError::Failed);
        }
        if !core.drained() {
            return Err(DryError::io(
                "drain the write queue to",
                core.folder.path(),
                std::io::ErrorKind::StorageFull,
            ));
        }
        let now = core.clock.now();
        let synced = core.folder.list().and_then(|names| {
            recovery::sync_content(&core.folder, &names)?;
            Point::BeforeClean.pass();
            core.state.update(Sync::Device, |fields| {
                fields.wall = fields.wall.max(now);
                fields.clean = true;
            })
        });
        synced.map_err(|error| DryError::io("sync", core.folder.path(), error))
    }
}

impl Drop for Dry {
    fn drop(&mut self) {
        // A dirty close has nothing that could fail.
        let _ = self.close(Close::Dirty);
    }
}

/// Deletes what earlier starts set aside.
fn empty_trash(core: &Core) {
    if let Err(error) = core.folder.empty_trash(&core.stop) {
        tracing::warn!(%error, "what was set aside could not be deleted");
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a thread of the dry tier panicked");
    }
}

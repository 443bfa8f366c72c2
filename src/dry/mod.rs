//! The dry tier on local disk: segments of records, a kill journal, and recovery from both.
//!
//! It knows places, never the index: the caller keeps (hash → place) and guarantees that at most one
//! live record exists per index slot. What is live after a restart is *segments minus kills minus
//! freed segments minus flushed minus expired*.

pub mod config;
mod error;
mod face;

use std::sync::Arc;
use std::time::Duration;

pub use config::{DryConfig, Durability};
pub use error::{DryError, ErrorKind};
pub use face::{Append, DryStats, LoadReport, NewRecord, Place, Read, ReadMode, Reason, Row, Start, TierState};

use crate::clock::{Clock, UnixSeconds};
use crate::entry::{Facts, HashSeed};

/// A row whose segment is about to be freed; see [`Dry::set_owner`].
pub struct Leaving<'a> {
    /// The row.
    pub row: &'a Row,
    /// Why it leaves.
    pub reason: Reason,
}

/// A record read back whole, for reinsertion.
pub struct Record<'a> {
    /// What travels with the item.
    pub facts: Facts,
    /// Its key.
    pub key: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
}

impl Leaving<'_> {
    /// Reads the record, or `None` where it cannot be read or the segment's share of reinserted bytes is used up.
    pub fn record<'b>(&self, _buffer: &'b mut Vec<u8>) -> Option<Record<'b>> {
        None
    }
}

/// A sealed segment, for the tracking hook.
pub struct SealedSegment<'a> {
    /// Its id.
    pub segment: u32,
    /// Bytes on disk.
    pub bytes: u64,
    /// Bytes of records that are not killed.
    pub live_bytes: u64,
    /// Records, dead ones included.
    pub rows: u64,
    _rows: &'a (),
}

impl SealedSegment<'_> {
    /// Visits the rows with their keys in the order of their offsets, dead ones included.
    ///
    /// # Errors
    /// The device's.
    pub fn for_each(&self, _visit: &mut dyn FnMut(&Row, &[u8])) -> Result<(), DryError> {
        Err(DryError::Failed)
    }
}

/// The dry tier. All methods take `&self`; share it in an [`Arc`].
///
/// Lock order: the caller may hold a shard lock only in [`Dry::kill`]; [`Dry::append`] calls
/// `publish` under the writer lock and `publish` may take the shard lock.
pub struct Dry {}

/// What the owner is called with for each row that leaves with its segment.
pub type Owner = Box<dyn Fn(&Leaving<'_>) + Send + Sync>;
/// What is called with each sealed segment.
pub type OnSealed = Box<dyn Fn(&SealedSegment<'_>) + Send + Sync>;
/// What is called with the id of each freed segment.
pub type OnFreed = Box<dyn Fn(u32) + Send + Sync>;
/// What is called once when the tier fails.
pub type OnFailed = Box<dyn Fn() + Send + Sync>;

impl Dry {
    /// Opens the folder, decides whether what it holds is trusted, and marks it as in use.
    ///
    /// # Errors
    /// See [`ErrorKind`]. A folder that is ours but not trusted is no error: it is set aside.
    pub fn open(_config: &DryConfig, _clock: Arc<Clock>) -> Result<Dry, DryError> {
        Err(DryError::Failed)
    }

    /// How the start found the folder, for the banner.
    pub fn start(&self) -> &Start {
        &Start::New
    }

    /// The seed of all hashes, kept in the folder.
    pub fn seed(&self) -> HashSeed {
        [0; 2]
    }

    /// The first version to hand out: greater than every version and flush before.
    pub fn first_version(&self) -> u64 {
        1
    }

    /// Makes sure that a later start begins at `upto` or above. Persisted when it returns; costs a
    /// device write in power mode, so reserve in large blocks.
    ///
    /// # Errors
    /// The device's, in power mode.
    pub fn reserve_versions(&self, _upto: u64) -> Result<(), DryError> {
        Ok(())
    }

    /// Items with this version or a lower one are flushed.
    pub fn flush_version(&self) -> u64 {
        0
    }

    /// Flushes every record with this version or a lower one, and every record in a segment whose id
    /// is lower than the returned one. Persisted when it returns; a pending deadline is cleared.
    ///
    /// # Errors
    /// The device's, in power mode.
    pub fn flush(&self, _version: u64) -> Result<u32, DryError> {
        Ok(0)
    }

    /// The persisted deadline of a delayed flush.
    pub fn flush_deadline(&self) -> Option<UnixSeconds> {
        None
    }

    /// Persists (or clears) the deadline of a delayed flush. A start after a deadline that was not
    /// applied by [`Dry::flush`] flushes everything.
    ///
    /// # Errors
    /// The device's, in power mode.
    pub fn set_flush_deadline(&self, _deadline: Option<UnixSeconds>) -> Result<(), DryError> {
        Ok(())
    }

    /// Sets who is told of each row that leaves with its segment. Before [`Dry::load`], once. The
    /// owner removes its index slot if it still holds that place, or reinserts the record with
    /// [`Dry::append`] and a `publish` that switches the slot only if it still holds that place.
    /// Called on the reclaim thread, without locks.
    pub fn set_owner(&self, _owner: Owner) {}

    /// Sets who is told of each sealed segment. Called on the reclaim thread.
    pub fn set_on_sealed(&self, _hook: OnSealed) {}

    /// Sets who is told of each freed segment. Called on the reclaim thread.
    pub fn set_on_freed(&self, _hook: OnFreed) {}

    /// Sets who is told that the tier failed: every place is gone.
    pub fn set_on_failed(&self, _hook: OnFailed) {}

    /// Hands every live row to `each`, from several threads, in no order, and starts reclaim.
    /// `progress` gets segments done, segments in all and rows so far, on the calling thread. Where
    /// two rows meet in one slot the higher version stays and the caller kills the other
    /// ([`Dry::record_version`] tells the version of one that is in the index already).
    ///
    /// # Errors
    /// The device's.
    pub fn load(
        &self,
        _threads: usize,
        _each: &(dyn Fn(&Row) + Sync),
        _progress: &dyn Fn(usize, usize, u64),
    ) -> Result<LoadReport, DryError> {
        Ok(LoadReport::default())
    }

    /// The ids of all sealed segments, for the tracker to compare its own with.
    pub fn segments(&self) -> Vec<u32> {
        Vec::new()
    }

    /// Has [`Dry::set_on_sealed`]'s hook called again for a segment, soon.
    pub fn resend(&self, _segment: u32) {}

    /// Stores the kill of a record, in the page cache when it returns: call it under the key's shard
    /// lock, before a new state can be read. `bytes` are the record's, for accounting. Wait-free
    /// (a slot of the journal and two atomic adds) while the journal has a file ready.
    #[inline]
    pub fn kill(&self, _place: Place, _bytes: u32) {}

    /// As [`Dry::kill`], and on the device when it returns (shared with other callers). Blocks; call
    /// it without locks, before the new state becomes visible.
    ///
    /// # Errors
    /// The device's: the tier has failed then.
    pub fn commit_kill(&self, _place: Place, _bytes: u32) -> Result<(), DryError> {
        Ok(())
    }

    /// Appends a record: `fill` writes key then value into exactly their bytes, then `publish` gets
    /// the place and the record's bytes and says whether the index took it. Both run under the
    /// writer lock. The record can be read as soon as `publish` returned true.
    pub fn append(
        &self,
        _record: &NewRecord<'_>,
        _fill: impl FnOnce(&mut [u8]),
        _publish: impl FnOnce(Place, u32) -> bool,
    ) -> Append {
        Append::Failed
    }

    /// Waits until an append has a chance again, at most `timeout`; false when it has not.
    pub fn wait_for_room(&self, _timeout: Duration) -> bool {
        false
    }

    /// Bytes of records that wait for the device.
    pub fn queue_bytes(&self) -> usize {
        0
    }

    /// Hands partly filled buffers to the writer thread. Done by itself when nothing was appended
    /// for a second.
    pub fn flush_buffers(&self) {}

    /// Reads and verifies the record at `place`. `bytes_hint` is how much to read at once (0 for a
    /// guess; too little costs a second call). `buffer` may grow; its old content is lost.
    pub fn read(&self, _place: Place, _bytes_hint: usize, _key: &[u8], _mode: ReadMode, _buffer: &mut Vec<u8>) -> Read {
        Read::Gone
    }

    /// The version of the record at `place`, read from its header.
    pub fn record_version(&self, _place: Place) -> Option<u64> {
        None
    }

    /// Frees one segment soon because the caller's index is full.
    pub fn reclaim_one(&self) {}

    /// How the tier is.
    pub fn tier_state(&self) -> TierState {
        TierState::Failed
    }

    /// A moment's figures.
    pub fn stats(&self) -> DryStats {
        DryStats::default()
    }

    /// Ends the tier's threads and releases the folder. A clean close drains the queue, seals the open
    /// segment and leaves a mark that makes the next start warm even after a reboot.
    ///
    /// # Errors
    /// The device's: the mark is not set then.
    pub fn close(&self, _clean: Close) -> Result<(), DryError> {
        Ok(())
    }
}

/// How to close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// Everything appended so far is kept over a reboot.
    Clean,
    /// As if the process had died now.
    Dirty,
}
#[allow(dead_code)]
mod dead;
#[allow(dead_code)]
mod folder;
#[allow(dead_code)]
mod footer;
#[allow(dead_code)]
mod journal;
#[allow(dead_code)]
mod record;
#[allow(dead_code)]
mod segment;
#[allow(dead_code)]
mod state;
#[allow(dead_code)]
mod store;

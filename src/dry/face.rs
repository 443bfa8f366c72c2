//! The values that cross the dry tier's face: places, rows, records and what became of a call.

use std::ops::Range;

use super::store::spool::RemoteStats;
use crate::clock::UnixSeconds;
use crate::entry::Facts;

/// Bits of a place's segment id.
pub const SEGMENT_BITS: u32 = 28;
/// Bits of a place's offset.
pub const OFFSET_BITS: u32 = 23;
/// Records begin at multiples of this many bytes.
pub const OFFSET_UNIT_BYTES: u32 = 8;

/// Where a record lies. It never comes to mean another record: segment ids are not reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The segment's id: 1 or more, below 2^28.
    pub segment: u32,
    /// Where in the segment, in units of 8 bytes, below 2^23 - 1.
    pub offset: u32,
}

impl Place {
    /// The place as the low 51 bits of a word; never 0.
    #[inline]
    pub fn to_bits(self) -> u64 {
        u64::from(self.segment) << OFFSET_BITS | u64::from(self.offset)
    }

    /// The place in the low 51 bits of a word; the others are ignored.
    #[inline]
    pub fn from_bits(bits: u64) -> Place {
        Place {
            segment: (bits >> OFFSET_BITS) as u32 & ((1 << SEGMENT_BITS) - 1),
            offset: bits as u32 & ((1 << OFFSET_BITS) - 1),
        }
    }

    /// Where the record begins in its segment, in bytes.
    #[inline]
    pub fn byte(self) -> u64 {
        u64::from(self.offset) * u64::from(OFFSET_UNIT_BYTES)
    }
}

/// What is known about a record without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Where the record lies.
    pub place: Place,
    /// Bytes of the whole record on disk.
    pub bytes: u32,
    /// Hash of its key under [`super::Dry::seed`].
    pub hash: u64,
    /// Orders the writes of a key.
    pub version: u64,
    /// Never served from this second on; 0 for no limit.
    pub exptime: UnixSeconds,
    /// When the record was written to dry for the first time (or the item stored, as the caller says).
    pub created: UnixSeconds,
    /// When a client last used the item before it was dried.
    pub last_access: UnixSeconds,
    /// Hits before it was dried, saturating.
    pub hits: u8,
    /// Rule of its residence times.
    pub rule: u8,
    /// [`crate::entry::Marks`] as bits.
    pub marks: u8,
    /// Bytes of its key.
    pub key_bytes: u8,
}

/// A record to append.
#[derive(Debug, Clone, Copy)]
pub struct NewRecord<'a> {
    /// Hash of its key under [`super::Dry::seed`].
    pub hash: u64,
    /// What travels with the item. `exptime` must be the index slot's.
    pub facts: &'a Facts,
    /// Hits so far, saturating.
    pub hits: u8,
    /// Bytes of the key, at most 250.
    pub key_bytes: usize,
    /// Bytes of the value.
    pub value_bytes: usize,
    /// When the item was stored.
    pub created: UnixSeconds,
}

/// What became of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Append {
    /// The record has this place and can be read.
    Done(Place),
    /// `publish` said no: nothing was kept.
    Rejected,
    /// The write queue is full, or the size limit is reached and reclaim is behind. Drop or wait.
    Busy,
    /// The remote store is behind: as much as the spool may hold waits for it. Drop or wait.
    Behind,
    /// The disk is full. The tier resumes by itself.
    Paused,
    /// The tier has failed or is closed.
    Failed,
    /// The record does not fit a segment.
    TooLarge,
}

/// How far a read may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadMode {
    /// Only what is in memory (a write buffer or the page cache): never waits for the device.
    Cached,
    /// Waits for the device.
    Blocking,
}

/// What a read found.
#[derive(Debug)]
#[must_use]
pub enum Read {
    /// The record, verified: magic, lengths, checksum and the full key.
    Hit {
        /// What travels with the item, as it was when it was dried. The index slot's exptime wins.
        facts: Facts,
        /// Where the value lies in the caller's buffer.
        value: Range<usize>,
        /// Bytes of the record on disk, as [`super::Dry::kill`] wants them.
        bytes: u32,
    },
    /// A sound record of another key: a miss; leave the slot alone.
    OtherKey,
    /// No sound record: kill the place, then remove the slot. Counted.
    Corrupt,
    /// [`ReadMode::Cached`] only: the device would have to be asked.
    WouldBlock,
    /// The segment was freed, flushed or lost with the tier: remove the slot, no kill needed.
    Gone,
    /// The device answered with an error: a miss; leave the slot. Counted.
    Error(std::io::Error),
}

/// Why records leave with their segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Size limit, oldest segment: reinsert rows that were hit.
    Size,
    /// The caller's index limit ([`super::Dry::reclaim_one`]): as for `Size`.
    Index,
    /// Nobody used any of the segment's records for the residence time.
    Ttl,
    /// Size limit, but most of the segment is dead: reinsert every live row.
    Compact,
}

/// How the tier is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum TierState {
    /// Reads and writes.
    Ok = 0,
    /// The disk is full: reads and kills only, until there is room.
    Paused = 1,
    /// Nothing is kept and nothing is trusted at the next start.
    Failed = 2,
    /// The remote store fails: writes go to the spool as long as it has room, reads of what is remote
    /// are misses. Passes by itself.
    Degraded = 3,
}

impl TierState {
    /// Whether appends have a chance.
    pub fn takes_writes(self) -> bool {
        matches!(self, TierState::Ok | TierState::Degraded)
    }

    /// The name that `stats` shows.
    pub fn name(self) -> &'static str {
        match self {
            TierState::Ok => "ok",
            TierState::Paused => "paused",
            TierState::Failed => "failed",
            TierState::Degraded => "degraded",
        }
    }
}

/// How a start found the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// An empty or new folder.
    New,
    /// What was there is trusted: after a clean stop.
    Clean,
    /// What was there is trusted: the process died, or power mode.
    Recovered,
    /// The content of a remote store that its last user, maybe on another machine, left cleanly.
    Adopted,
    /// What was there was set aside, for this reason.
    SetAside(String),
}

/// What [`super::Dry::load`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadReport {
    /// Segments that are in use now.
    pub segments: usize,
    /// Rows handed to the caller.
    pub rows: u64,
    /// Bytes of their records.
    pub bytes: u64,
    /// Segments whose footer was missing or bad and that were scanned record by record.
    pub scanned: usize,
    /// Rows left out because they were killed.
    pub killed: u64,
    /// Rows left out because they are expired or flushed.
    pub outdated: u64,
    /// Corrupt places that were skipped.
    pub corrupt: u64,
}

/// A moment's figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DryStats {
    /// Segments, the open one included.
    pub segments: u64,
    /// Bytes of segments on disk or on their way.
    pub bytes_on_disk: u64,
    /// Bytes that segments may take: as configured, or what fits the disk.
    pub size_bytes: u64,
    /// About the bytes of records that are not killed.
    pub live_bytes: u64,
    /// Bytes of records that wait for the device.
    pub queue_bytes: u64,
    /// Bytes of the kill journal in use.
    pub journal_bytes: u64,
    /// Kills stored since start.
    pub journal_kills: u64,
    /// Journal files folded since start.
    pub journal_folds: u64,
    /// Segments sealed since start.
    pub puts: u64,
    /// Records appended since start.
    pub writes: u64,
    /// Bytes of them.
    pub write_bytes: u64,
    /// Records read since start (hits).
    pub reads: u64,
    /// Reads that the page cache could not answer.
    pub would_block: u64,
    /// Corrupt records met since start, those at load included.
    pub corrupt: u64,
    /// I/O errors met since start.
    pub io_errors: u64,
    /// Segments freed since start.
    pub reclaimed: u64,
    /// Appends refused because the queue or the tier was full.
    pub busy: u64,
    /// Appends refused because the remote store was behind.
    pub behind: u64,
    /// The remote store's figures, where there is one.
    pub remote: Option<RemoteStats>,
}

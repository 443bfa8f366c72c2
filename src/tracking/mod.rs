//! Tracking: a mirror of what the dry tier holds, for people and tools to look at.
//!
//! It keeps the catalogue of dry segments, totals per tier, and one row per dried record: where it
//! is, its size, when it was created and last asked for, its hits. It never sees a value, nobody
//! reads it to answer a client, and no restart trusts it: whatever it lacks or has too much of is
//! repaired from the dry tier, which is the authority.
//!
//! ```text
//! dry seals a segment ─ RowPacker ─┐                         ┌─ Sled    (default)
//! dry frees a segment ─────────────┤   one thread, in        ├─ Memory  (tests)
//! a dry hit ───────────────────────┼── TrackingWorker ── dyn Tracker
//! totals, once a minute ───────────┘   batches               └─ read offline by `inspect`
//! ```
//!
//! How it is tied to the dry tier:
//!
//! ```text
//! let open = tracking::opener(&config.tracking, folder);              // None: tracking is off
//! let worker = TrackingWorker::start(Start {
//!     store: hash_key(dry.seed(), b"tracking"),
//!     live: dry.segments(),                                           // and its unfinished ones
//!     rows: config.tracking.rows, open, resend: |segment| dry.resend(segment),
//! })?;
//! dry.set_on_sealed(|sealed| pack its rows, then handle.sealed(..) or handle.unreadable(..));
//! dry.set_on_freed(|segment| handle.freed(segment));
//! dry.load(..);
//! ...
//! after the drain:  handle.flush(timeout);  dry.close(..);            // seals the open segment
//!                   worker.close(timeout);
//! ```
//!
//! Rows are written when a segment is sealed and are gone when it is freed. Between the two, a
//! record that was overwritten or deleted keeps its row: kills are the dry tier's own business.

mod access;
pub mod catalogue;
pub mod config;
pub mod inspect;
pub mod memory;
pub mod rows;
pub mod sled;
mod varint;
pub mod worker;

#[cfg(test)]
mod conformance;

use std::path::{Path, PathBuf};

pub use self::catalogue::{SegmentEntry, Total, Totals};
pub use self::config::{Backend, TrackingConfig};
pub use self::rows::{Chunk, PackedRows, RowPacker, RowsError, TrackedRow};
pub use self::worker::{
    Lag, Open, Rebuild, Resend, Sealed, Start, TrackingHandle, TrackingStats, TrackingWorker,
};

/// Names what one dry folder holds, so that a mirror of something else is never taken for it: after
/// a folder's content was set aside, its successor may count segments from the start again. For
/// instance `hash_key(dry.seed(), b"tracking")`.
pub type StoreId = u64;

/// Bytes that [`TrackedRow::offset`] counts in: records start at multiples of it.
pub const OFFSET_UNIT_BYTES: u64 = 8;

/// Keeps packed rows and the catalogue somewhere. Byte-level: a backend stores chunks under
/// (segment, first offset) and never looks inside.
///
/// The caller guarantees that one thread uses a tracker, that segment ids are never reused within
/// a store, and that it can live with losing whatever was not yet flushed. The backend guarantees
/// that a segment is listed by [`Tracker::segments`] only if all chunks of its commit are there,
/// also after the process was killed half-way. It may block and do I/O; it must not retry for ever.
pub trait Tracker: Send {
    /// Makes this the mirror of `store`. Forgets everything if it was another store's.
    ///
    /// # Errors
    /// When the backend cannot be read or written. The same holds for all other functions.
    fn adopt(&mut self, store: StoreId) -> Result<(), TrackError>;

    /// Visits the catalogue by ascending segment id.
    ///
    /// # Errors
    /// See [`Tracker::adopt`]; also when an entry is damaged.
    fn segments(&self, each: &mut dyn FnMut(SegmentEntry)) -> Result<(), TrackError>;

    /// Stores a sealed segment: its rows first, then its entry. A segment that is already there is
    /// replaced.
    ///
    /// # Errors
    /// See [`Tracker::adopt`]. The segment may then be there or not, but never in part.
    fn commit(&mut self, segment: &SegmentEntry, rows: &PackedRows) -> Result<(), TrackError>;

    /// Removes a segment: its entry first, then its rows. An unknown segment is no error.
    ///
    /// # Errors
    /// See [`Tracker::adopt`].
    fn forget(&mut self, segment: u32) -> Result<(), TrackError>;

    /// Visits the chunks of a segment by ascending offset.
    ///
    /// # Errors
    /// See [`Tracker::adopt`]. Damage inside a chunk is found by whoever unpacks it.
    fn chunks(&self, segment: u32, each: &mut dyn FnMut(&Chunk)) -> Result<(), TrackError>;

    /// The chunk of a segment with the greatest first offset that is not above `offset`.
    ///
    /// # Errors
    /// See [`Tracker::adopt`].
    fn chunk_at(&self, segment: u32, offset: u32) -> Result<Option<Chunk>, TrackError>;

    /// Replaces the chunks with these first offsets, or adds them. The segment is in the catalogue.
    ///
    /// # Errors
    /// See [`Tracker::adopt`].
    fn put_chunks(&mut self, segment: u32, chunks: &[Chunk]) -> Result<(), TrackError>;

    /// Replaces the totals.
    ///
    /// # Errors
    /// See [`Tracker::adopt`].
    fn put_totals(&mut self, totals: &Totals) -> Result<(), TrackError>;

    /// The totals of the latest [`Tracker::put_totals`], if there was one.
    ///
    /// # Errors
    /// See [`Tracker::adopt`].
    fn totals(&self) -> Result<Option<Totals>, TrackError>;

    /// Returns once everything before it survives the end of the process.
    ///
    /// # Errors
    /// See [`Tracker::adopt`].
    fn flush(&mut self) -> Result<(), TrackError>;
}

/// Why the mirror could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TrackError {
    /// Another process has it open.
    #[error("tracking folder {} is in use by another process; stop the server first", .0.display())]
    Locked(PathBuf),
    /// There is no mirror in this place.
    #[error("no tracking data in {}", .0.display())]
    Absent(PathBuf),
    /// A later release wrote it.
    #[error("tracking data of format {found} is newer than this release reads ({known})")]
    Newer {
        /// The format found.
        found: u8,
        /// The newest format that this release reads.
        known: u8,
    },
    /// It holds bytes that nobody wrote.
    #[error("{doing}: tracking data is damaged")]
    Damaged {
        /// What was tried.
        doing: String,
    },
    /// The backend or the file system failed.
    #[error("{doing}")]
    Backend {
        /// What was tried.
        doing: String,
        /// What came back.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl TrackError {
    /// A backend's error and what was tried.
    pub(crate) fn backend(
        doing: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> TrackError {
        TrackError::Backend {
            doing: doing.into(),
            source: source.into(),
        }
    }
}

/// What opens the configured backend beside the dry tier in `dry_folder`; none with tracking off.
/// A mirror that cannot be opened because it is damaged is set aside and begun anew.
pub fn opener(config: &TrackingConfig, dry_folder: &Path) -> Option<Open> {
    let folder = config.folder(dry_folder);
    match config.backend {
        Backend::Off => None,
        Backend::Sled => Some(Box::new(move |rebuild| {
            Ok(Box::new(match rebuild {
                Rebuild::No => sled::SledTracker::open_or_rebuild(&folder)?,
                Rebuild::Yes => sled::SledTracker::rebuild(&folder)?,
            }))
        })),
    }
}

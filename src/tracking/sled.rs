//! The default tracker: an embedded sled in a folder of its own.
//!
//! sled loses what it has not flushed when the process is killed, keeps two to three times the live
//! bytes on disk and may find its files damaged. All three are fine for a mirror: at start the
//! worker compares it with the dry tier, and what cannot be opened is set aside and begun anew.
//!
//! ```text
//! tree        key                                    value
//! (default)   "format" "store" "totals"              one byte, StoreId (8, big endian), Totals
//! segments    segment (4, big endian)                SegmentEntry
//! rows        segment, first offset (4 + 4)          Chunk
//! ```

#[cfg(test)]
mod tests;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use ::sled::{Batch, Config, Db, IVec, Mode, Tree};

use super::{Chunk, PackedRows, SegmentEntry, StoreId, Totals, TrackError, Tracker};

/// Folder of the database inside the tracking folder.
const DATABASE_NAME: &str = "sled";

/// What cannot be opened is renamed to this, and then removed.
const ASIDE_NAME: &str = "sled.damaged";

/// Memory for pages. Writing goes on at the end of the rows and reading is rare.
const CACHE_BYTES: u64 = 4 << 20;

/// Most removes in one batch.
const BATCH_REMOVES_MAX: usize = 1024;

/// Tries to get the lock, and the time between two of them: one second in all.
const LOCK_TRIES_MAX: u32 = 50;
const LOCK_TRY_INTERVAL: Duration = Duration::from_millis(20);

/// A later layout takes another number.
const FORMAT: u8 = 1;

/// Keeps the mirror in sled.
#[derive(Debug)]
pub struct SledTracker {
    database: Db,
    segments: Tree,
    rows: Tree,
}

impl SledTracker {
    /// Opens the tracker in `folder`, which is created if need be (0700). What is there but cannot
    /// be used is removed, with a log line: the dry tier can tell it all again.
    ///
    /// # Errors
    /// [`TrackError::Locked`] if another process has it open; [`TrackError::Backend`] if the folder
    /// cannot be created or written.
    pub fn open_or_rebuild(folder: &Path) -> Result<SledTracker, TrackError> {
        let doing = || format!("create tracking folder {}", folder.display());
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder
            .create(folder)
            .map_err(|error| TrackError::backend(doing(), error))?;
        remove_aside(folder)?;
        match SledTracker::open(folder) {
            Ok(tracker) => Ok(tracker),
            Err(error) if !rebuilding_helps(&error) => Err(error),
            Err(error) => {
                let folder_name = folder.display();
                tracing::warn!(folder = %folder_name, %error, "tracking is set aside and rebuilt");
                SledTracker::rebuild(folder)
            }
        }
    }

    /// Begins anew in `folder`, whatever is there.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn rebuild(folder: &Path) -> Result<SledTracker, TrackError> {
        remove_aside(folder)?;
        // First out of the way, then removed: a kill in between leaves no half of a database.
        let doing = || format!("set aside {}", folder.join(DATABASE_NAME).display());
        match fs::rename(folder.join(DATABASE_NAME), folder.join(ASIDE_NAME)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(TrackError::backend(doing(), error));
            }
            _ => remove_aside(folder)?,
        }
        SledTracker::open(folder)
    }

    /// Opens what is in `folder`, or in `folder/tracking`, for inspection.
    ///
    /// # Errors
    /// [`TrackError::Absent`] if there is nothing, else as [`SledTracker::open_or_rebuild`]; damage
    /// is an error here.
    pub fn open_existing(folder: &Path) -> Result<SledTracker, TrackError> {
        let candidates = [folder.to_owned(), folder.join(super::config::FOLDER_NAME)];
        let exists = |folder: &&PathBuf| folder.join(DATABASE_NAME).join("db").is_file();
        match candidates.iter().find(exists) {
            Some(folder) => SledTracker::open(folder),
            None => Err(TrackError::Absent(folder.to_owned())),
        }
    }

    /// Opens the database. An earlier tracker of this process may hold the lock a little longer:
    /// sled's threads let go of the file some time after it was dropped.
    fn open(folder: &Path) -> Result<SledTracker, TrackError> {
        let path = folder.join(DATABASE_NAME);
        let mut opened = open_database(&path);
        for _ in 0..LOCK_TRIES_MAX {
            // Asked only after a failure, so that nothing in between is taken for damage.
            if !matches!(opened, Err(TrackError::Backend { .. })) || !locked(&path) {
                break;
            }
            thread::sleep(LOCK_TRY_INTERVAL);
            opened = open_database(&path);
        }
        match opened {
            Err(TrackError::Backend { .. }) if locked(&path) => {
                Err(TrackError::Locked(folder.to_owned()))
            }
            Err(error) => Err(error),
            Ok(mut tracker) => {
                tracker.check_format()?;
                tracker.drop_orphans()?;
                Ok(tracker)
            }
        }
    }

    fn check_format(&self) -> Result<(), TrackError> {
        let read = |error| TrackError::backend("read tracking format", error);
        match self.database.get("format").map_err(read)?.as_deref() {
            Some(&[FORMAT]) => Ok(()),
            Some(&[found]) => Err(TrackError::Newer {
                found,
                known: FORMAT,
            }),
            Some(_) => Err(TrackError::Damaged {
                doing: "read tracking format".to_owned(),
            }),
            None => self.put("format", &[FORMAT]),
        }
    }

    /// Removes rows of segments that are not in the catalogue: a commit or a forget did not end.
    fn drop_orphans(&mut self) -> Result<(), TrackError> {
        let mut next = Some(0u32);
        while let Some(from) = next {
            let first = self.rows.range(from.to_be_bytes()..).keys().next();
            let Some(key) = first.transpose().map_err(read_rows)? else {
                break;
            };
            let segment = segment_of(&key)?;
            if !self
                .segments
                .contains_key(segment.to_be_bytes())
                .map_err(read_catalogue)?
            {
                self.remove_rows(segment)?;
            }
            next = segment.checked_add(1);
        }
        Ok(())
    }

    fn put(&self, key: &str, value: &[u8]) -> Result<(), TrackError> {
        let write = |error| TrackError::backend(format!("write tracking {key}"), error);
        self.database.insert(key, value).map_err(write)?;
        Ok(())
    }

    fn remove_rows(&mut self, segment: u32) -> Result<(), TrackError> {
        loop {
            let mut batch = Batch::default();
            let mut removes = 0;
            let keys = self.rows.scan_prefix(segment.to_be_bytes()).keys();
            for key in keys.take(BATCH_REMOVES_MAX) {
                batch.remove(key.map_err(read_rows)?);
                removes += 1;
            }
            if removes == 0 {
                return Ok(());
            }
            self.rows.apply_batch(batch).map_err(|error| {
                TrackError::backend(format!("remove rows of segment {segment}"), error)
            })?;
        }
    }
}

impl Tracker for SledTracker {
    fn adopt(&mut self, store: StoreId) -> Result<(), TrackError> {
        let read = |error| TrackError::backend("read tracking store", error);
        if self.database.get("store").map_err(read)?.as_deref() == Some(&store.to_be_bytes()) {
            return Ok(());
        }
        let clear = |error| TrackError::backend("clear tracking data", error);
        self.segments.clear().map_err(clear)?;
        self.rows.clear().map_err(clear)?;
        self.database.remove("totals").map_err(clear)?;
        self.put("store", &store.to_be_bytes())
    }

    fn segments(&self, each: &mut dyn FnMut(SegmentEntry)) -> Result<(), TrackError> {
        for item in self.segments.iter() {
            let (key, value) = item.map_err(read_catalogue)?;
            let segment = segment_of(&key)?;
            let damaged = || TrackError::Damaged {
                doing: format!("read entry {segment}"),
            };
            each(SegmentEntry::from_bytes(segment, &value).ok_or_else(damaged)?);
        }
        Ok(())
    }

    fn commit(&mut self, segment: &SegmentEntry, rows: &PackedRows) -> Result<(), TrackError> {
        self.forget(segment.segment)?;
        self.put_chunks(segment.segment, &rows.chunks)?;
        // sled recovers a prefix of what was written, so an entry that is there has its rows.
        let key = segment.segment.to_be_bytes();
        self.segments
            .insert(key, segment.to_bytes())
            .map_err(|error| {
                TrackError::backend(format!("write entry of segment {}", segment.segment), error)
            })?;
        Ok(())
    }

    fn forget(&mut self, segment: u32) -> Result<(), TrackError> {
        let remove = |error| TrackError::backend(format!("remove entry of {segment}"), error);
        self.segments
            .remove(segment.to_be_bytes())
            .map_err(remove)?;
        self.remove_rows(segment)
    }

    fn chunks(&self, segment: u32, each: &mut dyn FnMut(&Chunk)) -> Result<(), TrackError> {
        for item in self.rows.scan_prefix(segment.to_be_bytes()) {
            let (key, value) = item.map_err(read_rows)?;
            each(&chunk(&key, &value)?);
        }
        Ok(())
    }

    fn chunk_at(&self, segment: u32, offset: u32) -> Result<Option<Chunk>, TrackError> {
        let range = row_key(segment, 0)..=row_key(segment, offset);
        let last = self
            .rows
            .range(range)
            .next_back()
            .transpose()
            .map_err(read_rows)?;
        last.map(|(key, value)| chunk(&key, &value)).transpose()
    }

    fn put_chunks(&mut self, segment: u32, chunks: &[Chunk]) -> Result<(), TrackError> {
        for chunk in chunks {
            let key = row_key(segment, chunk.first_offset);
            self.rows
                .insert(key, chunk.bytes.as_slice())
                .map_err(|error| {
                    TrackError::backend(format!("write rows of segment {segment}"), error)
                })?;
        }
        Ok(())
    }

    fn put_totals(&mut self, totals: &Totals) -> Result<(), TrackError> {
        self.put("totals", &totals.to_bytes())
    }

    fn totals(&self) -> Result<Option<Totals>, TrackError> {
        let doing = "read totals";
        let value = self.database.get("totals");
        let value = value.map_err(|error| TrackError::backend(doing, error))?;
        let damaged = || TrackError::Damaged {
            doing: doing.to_owned(),
        };
        value
            .map(|value| Totals::from_bytes(&value).ok_or_else(damaged))
            .transpose()
    }

    fn flush(&mut self) -> Result<(), TrackError> {
        let flushed = self.database.flush();
        flushed.map_err(|error| TrackError::backend("flush tracking data", error))?;
        Ok(())
    }
}

fn open_database(path: &Path) -> Result<SledTracker, TrackError> {
    let doing = || format!("open tracking database {}", path.display());
    let config = Config::new()
        .path(path)
        .mode(Mode::LowSpace)
        .cache_capacity(CACHE_BYTES)
        // The worker says when, on its own thread.
        .flush_every_ms(None);
    // sled panics on some kinds of damage.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let database = config.open()?;
        let (segments, rows) = (database.open_tree("segments")?, database.open_tree("rows")?);
        Ok::<_, ::sled::Error>(SledTracker {
            database,
            segments,
            rows,
        })
    }));
    match opened {
        Ok(opened) => opened.map_err(|error| TrackError::backend(doing(), error)),
        Err(_) => Err(TrackError::Damaged { doing: doing() }),
    }
}

fn row_key(segment: u32, first_offset: u32) -> [u8; 8] {
    (u64::from(segment) << 32 | u64::from(first_offset)).to_be_bytes()
}

/// The segment that a key of any tree begins with.
fn segment_of(key: &IVec) -> Result<u32, TrackError> {
    let segment = key.first_chunk().copied().map(u32::from_be_bytes);
    segment.ok_or_else(|| TrackError::Damaged {
        doing: "read a segment's key".to_owned(),
    })
}

fn chunk(key: &IVec, value: &IVec) -> Result<Chunk, TrackError> {
    let first_offset = key.last_chunk().copied().map(u32::from_be_bytes);
    let damaged = || TrackError::Damaged {
        doing: "read a row's key".to_owned(),
    };
    Ok(Chunk {
        first_offset: first_offset.ok_or_else(damaged)?,
        bytes: value.to_vec(),
    })
}

fn read_rows(error: ::sled::Error) -> TrackError {
    TrackError::backend("read tracking rows", error)
}

fn read_catalogue(error: ::sled::Error) -> TrackError {
    TrackError::backend("read tracking catalogue", error)
}

/// Whether another process holds sled's own lock. sled would say so in a text only.
fn locked(database: &Path) -> bool {
    use rustix::fs::{FlockOperation, flock};
    let Ok(file) = fs::File::open(database.join("db")) else {
        return false;
    };
    let taken = flock(&file, FlockOperation::NonBlockingLockExclusive);
    taken == Err(rustix::io::Errno::WOULDBLOCK)
}

/// Whether other files in the same place would do better; not so when the place is the trouble.
fn rebuilding_helps(error: &TrackError) -> bool {
    let TrackError::Backend { source, .. } = error else {
        return !matches!(error, TrackError::Locked(_));
    };
    match source.downcast_ref::<::sled::Error>() {
        Some(::sled::Error::Io(error)) => !matches!(
            error.kind(),
            ErrorKind::PermissionDenied
                | ErrorKind::StorageFull
                | ErrorKind::QuotaExceeded
                | ErrorKind::ReadOnlyFilesystem
                | ErrorKind::OutOfMemory
        ),
        other => other.is_some(),
    }
}

fn remove_aside(folder: &Path) -> Result<(), TrackError> {
    let aside = folder.join(ASIDE_NAME);
    match fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(TrackError::backend(
            format!("remove {}", aside.display()),
            error,
        )),
        _ => Ok(()),
    }
}

//! Segments of a remote store: open ones and those on their way are local files, the others objects.
//!
//! ```text
//! create ─▶ seg-N.data ──complete──▶ upload ──confirmed──▶ seg-N.rows, then seg-N.data goes
//!           reads are local                   reads of tables and footer are local, of records ranges
//! ```
//! After a crash at any point either the local file is there, or the object is and its rows are; the
//! same bytes are then uploaded again under the same name. A remote store that fails or is full keeps
//! segments here until they take `backlog_max`; from then on the tier takes no more.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use super::super::config::{DryConfig, Durability};
use super::super::error::DryError;
use super::super::folder::{Folder, Sync};
use super::ahead::Ahead;
use super::kept::{self, Kept};
use super::recent::Recent;
use super::remote::{Listed, Remote, Tag};
use super::{LocalStore, SegmentFile, SegmentStore, local};

/// Failed calls in a row from which on the store counts as degraded.
const DEGRADED_AFTER: u32 = 3;
/// Bytes that one read may bring along for others.
pub(in super::super) const SPAN_BYTES_MAX: usize = 1 << 20;

/// The store of a tier whose segments are remote.
pub(in super::super) struct Spool {
    folder: Arc<Folder>,
    local: LocalStore,
    far: Arc<Far>,
    sync: Sync,
    backlog_max: u64,
    /// Held while a segment's files change.
    state: Mutex<Waiting>,
}

/// What is not yet as it should be in the remote store.
#[derive(Default)]
struct Waiting {
    /// Segments that are local files, the open one included.
    local: BTreeMap<u32, Arc<SpoolFile>>,
    /// Objects to delete: at most as many as there were segments.
    doomed: VecDeque<String>,
}

/// The remote side, shared by all files.
struct Far {
    remote: Arc<dyn Remote>,
    /// Set when the start knows it.
    uuid: OnceLock<u64>,
    recent: Recent,
    figures: Figures,
    errors_in_row: AtomicU32,
    degraded: AtomicBool,
    /// Clients wait for reads.
    serving: AtomicBool,
}

#[derive(Debug, Default)]
struct Figures {
    puts: AtomicU64,
    put_bytes: AtomicU64,
    gets: AtomicU64,
    get_bytes: AtomicU64,
    lists: AtomicU64,
    deletes: AtomicU64,
    errors: AtomicU64,
    orphans: AtomicU64,
    recent_hits: AtomicU64,
}

/// What a remote dry tier did since start, and what waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RemoteStats {
    /// Objects written, manifests included; failed attempts count.
    pub puts: u64,
    /// Bytes of them.
    pub put_bytes: u64,
    /// Ranges and manifests read; failed attempts count.
    pub gets: u64,
    /// Bytes of them.
    pub get_bytes: u64,
    /// Lists of all objects.
    pub lists: u64,
    /// Objects deleted.
    pub deletes: u64,
    /// Calls that ended with an error.
    pub errors: u64,
    /// Objects that nothing named and that were deleted.
    pub orphans: u64,
    /// Reads that a range fetched for another record answered.
    pub recent_hits: u64,
    /// Segments that wait for their upload, the open one included.
    pub backlog_segments: u64,
    /// Bytes of them.
    pub backlog_bytes: u64,
    /// The store fails at the moment.
    pub degraded: bool,
}

impl Spool {
    /// The segments of store `uuid`, in a folder and a remote store.
    pub(in super::super) fn new(
        folder: Arc<Folder>,
        remote: Arc<dyn Remote>,
        config: &DryConfig,
    ) -> Spool {
        Spool {
            local: LocalStore::new(Arc::clone(&folder)),
            folder,
            far: Arc::new(Far {
                remote,
                uuid: OnceLock::new(),
                recent: Recent::new(config.read_cache.as_usize()),
                figures: Figures::default(),
                errors_in_row: AtomicU32::new(0),
                degraded: AtomicBool::new(false),
                serving: AtomicBool::new(false),
            }),
            sync: Sync::of(config.durability == Durability::Power),
            backlog_max: config.spool_bytes(),
            state: Mutex::default(),
        }
    }

    /// Says which store's segments these are, before any of them is touched. Once.
    pub(in super::super) fn begin(&self, uuid: u64) {
        let _ = self.far.uuid.set(uuid);
    }

    /// Clients wait for reads from now on: those of a degraded store fail at once. A takeover tries them all.
    pub(in super::super) fn serve(&self) {
        self.far.serving.store(true, Relaxed);
    }

    /// Asks a degraded store for the beginning of an object, as a client's read would: whether it answers shows
    /// in [`Spool::is_degraded`].
    pub(in super::super) fn probe(&self, name: &str) {
        self.far.figures.gets.fetch_add(1, Relaxed);
        let _ = self.far.watch(self.far.remote.read(name, 0, &mut [0; 8]));
    }

    /// An error with the place where it came up.
    pub(in super::super) fn error(&self, error: &io::Error) -> DryError {
        DryError::Remote {
            place: self.place().to_owned(),
            why: error.to_string(),
        }
    }

    /// A segment of which nothing is kept here yet, to be read ahead.
    pub(in super::super) fn foreign(&self, segment: u32, bytes: u64) -> Arc<dyn SegmentFile> {
        let file = self.file(segment, Source::Far(Arc::new(Kept::nothing(bytes))));
        Arc::new(Ahead::new(file, bytes))
    }

    /// Keeps the ranges of a foreign segment.
    pub(in super::super) fn adopt(
        &self,
        segment: u32,
        bytes: u64,
        ranges: &[Range<u64>],
        from: &dyn SegmentFile,
    ) -> io::Result<()> {
        Kept::write(&self.folder, segment, bytes, ranges, from, self.sync).map(drop)
    }

    /// Whether the store can be used; see [`Remote::check`].
    pub(in super::super) fn check(&self) -> io::Result<()> {
        self.far.remote.check()
    }

    /// Where the objects are, for messages.
    pub(in super::super) fn place(&self) -> &str {
        self.far.remote.place()
    }

    /// Ends calls that are under way with an error: they hold up the end of the process.
    pub(in super::super) fn interrupt(&self) {
        self.far.remote.interrupt();
    }

    /// Whether one more segment of that size may begin.
    pub(in super::super) fn has_room(&self, segment_bytes: u64) -> bool {
        self.backlog(&self.state.lock()) + segment_bytes <= self.backlog_max
    }

    fn backlog(&self, waiting: &Waiting) -> u64 {
        let sizes = waiting.local.values().map(|file| file.bytes().unwrap_or(0));
        sizes.sum()
    }

    /// The segments that are local files, the open one included, lowest first.
    pub(in super::super) fn waiting(&self) -> Vec<u32> {
        self.state.lock().local.keys().copied().collect()
    }

    /// Moves a complete segment to the remote store, and keeps `ranges` of it here. False where it was
    /// deleted meanwhile.
    pub(in super::super) fn upload(&self, segment: u32, ranges: &[Range<u64>]) -> io::Result<bool> {
        let Some(file) = self.state.lock().local.get(&segment).cloned() else {
            return Ok(false);
        };
        let bytes = file.bytes()?;
        // A disk without room for the rows is no reason to pay for the upload again.
        if !file.confirmed.load(Relaxed) {
            self.far.put(segment, &self.path(segment), bytes)?;
            file.confirmed.store(true, Relaxed);
        }
        // From here on nobody may delete the segment without deleting its object.
        let mut state = self.state.lock();
        if !state.local.contains_key(&segment) {
            state.doomed.push_back(self.far.name(segment));
            return Ok(false);
        }
        let kept = Kept::write(&self.folder, segment, bytes, ranges, &*file, self.sync)?;
        *file.source.write() = Source::Far(Arc::new(kept));
        state.local.remove(&segment);
        self.local.delete(segment)?;
        Ok(true)
    }

    fn path(&self, segment: u32) -> PathBuf {
        self.folder.path().join(local::file_name(segment))
    }

    /// Deletes one object that is to go; `None` where there is none.
    pub(in super::super) fn delete_one(&self) -> Option<io::Result<()>> {
        let name = self.state.lock().doomed.pop_front()?;
        let deleted = self.far.delete(&name);
        if deleted.is_err() {
            self.state.lock().doomed.push_back(name);
        }
        Some(deleted)
    }

    /// Whether objects wait to be deleted.
    pub(in super::super) fn has_doomed(&self) -> bool {
        !self.state.lock().doomed.is_empty()
    }

    /// Deletes the segments that `known` does not know, and those of former stores at this place, if they are older than
    /// `age`; how many. Whatever has another name is not ours.
    pub(in super::super) fn collect_orphans(
        &self,
        known: &dyn Fn(u32) -> bool,
        age: Duration,
    ) -> io::Result<u64> {
        let own = self.far.uuid.get().copied();
        let mut orphans = 0;
        for Listed { name, age: found } in self.far.list()? {
            let Some((uuid, segment)) = parse_object_name(&name) else {
                continue;
            };
            if found >= age && !(Some(uuid) == own && known(segment)) {
                self.far.delete(&name)?;
                self.far.figures.orphans.fetch_add(1, Relaxed);
                orphans += 1;
            }
        }
        Ok(orphans)
    }

    /// A small object's content; see [`Remote::get`].
    pub(in super::super) fn get(&self, name: &str) -> io::Result<Option<(Vec<u8>, Tag)>> {
        self.far.get(name)
    }

    /// Replaces a small object; see [`Remote::replace`].
    pub(in super::super) fn replace(
        &self,
        name: &str,
        bytes: Vec<u8>,
        before: Option<&Tag>,
    ) -> io::Result<Option<Tag>> {
        self.far.replace(name, bytes, before)
    }

    /// Whether the store fails at the moment.
    pub(in super::super) fn is_degraded(&self) -> bool {
        self.far.degraded.load(Relaxed)
    }

    /// A moment's figures.
    pub(in super::super) fn stats(&self) -> RemoteStats {
        let figures = &self.far.figures;
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        let state = self.state.lock();
        RemoteStats {
            puts: count(&figures.puts),
            put_bytes: count(&figures.put_bytes),
            gets: count(&figures.gets),
            get_bytes: count(&figures.get_bytes),
            lists: count(&figures.lists),
            deletes: count(&figures.deletes),
            errors: count(&figures.errors),
            orphans: count(&figures.orphans),
            recent_hits: count(&figures.recent_hits),
            backlog_segments: state.local.len() as u64,
            backlog_bytes: self.backlog(&state),
            degraded: self.is_degraded(),
        }
    }

    fn file(&self, segment: u32, source: Source) -> Arc<SpoolFile> {
        Arc::new(SpoolFile {
            segment,
            far: Arc::clone(&self.far),
            source: RwLock::new(source),
            confirmed: AtomicBool::new(false),
        })
    }
}

impl SegmentStore for Spool {
    fn create(&self, segment: u32) -> io::Result<Arc<dyn SegmentFile>> {
        let file = self.file(segment, Source::Local(self.local.create(segment)?));
        self.state.lock().local.insert(segment, Arc::clone(&file));
        Ok(file)
    }

    fn open(&self, segment: u32) -> io::Result<Arc<dyn SegmentFile>> {
        match Kept::open(&self.folder, segment) {
            Ok(Some(kept)) => {
                // It may have stayed behind when the process died right after the upload.
                self.local.delete(segment)?;
                return Ok(self.file(segment, Source::Far(Arc::new(kept))));
            }
            Ok(None) => {
                tracing::warn!(
                    segment,
                    "the rows of a remote segment are damaged: it is lost"
                );
                return Ok(self.file(segment, Source::Lost));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = self.file(segment, Source::Local(self.local.open(segment)?));
        self.state.lock().local.insert(segment, Arc::clone(&file));
        Ok(file)
    }

    fn delete(&self, segment: u32) -> io::Result<()> {
        let mut state = self.state.lock();
        // A local one that is being uploaded goes when the upload has ended; an interrupted one's
        // object is an orphan.
        if state.local.remove(&segment).is_none() {
            state.doomed.push_back(self.far.name(segment));
        }
        self.folder.remove(&kept::file_name(segment))?;
        self.local.delete(segment)
    }

    fn list(&self) -> io::Result<Vec<u32>> {
        let mut segments = self.local.list()?;
        let names = self.folder.list()?;
        segments.extend(names.iter().filter_map(|name| kept::segment_of(name)));
        segments.sort_unstable();
        segments.dedup();
        Ok(segments)
    }
}

/// A segment, wherever it is now.
struct SpoolFile {
    segment: u32,
    far: Arc<Far>,
    source: RwLock<Source>,
    /// This run has uploaded it.
    confirmed: AtomicBool,
}

#[derive(Clone)]
enum Source {
    Local(Arc<dyn SegmentFile>),
    Far(Arc<Kept>),
    Lost,
}

impl SpoolFile {
    fn source(&self) -> Source {
        self.source.read().clone()
    }
}

/// As many of `out`'s bytes as an object of that size has from `at` on.
fn within(out: &mut [u8], at: u64, bytes: u64) -> &mut [u8] {
    let rest = bytes.saturating_sub(at).min(out.len() as u64) as usize;
    &mut out[..rest]
}

impl SegmentFile for SpoolFile {
    fn append(&self, at: u64, bytes: &[u8]) -> io::Result<usize> {
        match self.source() {
            Source::Local(file) => file.append(at, bytes),
            Source::Far(_) | Source::Lost => Err(io::Error::other("the segment is complete")),
        }
    }

    fn read_range(&self, at: u64, out: &mut [u8]) -> io::Result<usize> {
        let kept = match self.source() {
            Source::Local(file) => return file.read_range(at, out),
            Source::Lost => return Ok(0),
            Source::Far(kept) => kept,
        };
        let out = within(out, at, kept.bytes());
        if !out.is_empty() && !self.far.read_recent(self.segment, at, out) && !kept.read(at, out)? {
            self.far.read(self.segment, at, out)?;
        }
        Ok(out.len())
    }

    fn read_cached(&self, at: u64, out: &mut [u8]) -> io::Result<Option<usize>> {
        let kept = match self.source() {
            Source::Local(file) => return file.read_cached(at, out),
            Source::Lost => return Ok(Some(0)),
            Source::Far(kept) => kept,
        };
        let out = within(out, at, kept.bytes());
        let found = out.is_empty() || self.far.read_recent(self.segment, at, out);
        Ok(found.then_some(out.len()))
    }

    fn prefetch(&self, at: u64, bytes: usize) -> io::Result<()> {
        let Source::Far(kept) = self.source() else {
            return Ok(());
        };
        let rest = kept.bytes().saturating_sub(at);
        let bytes = bytes.min(SPAN_BYTES_MAX).min(rest as usize);
        if bytes > 0 && !self.far.recent.holds(self.segment, at, bytes) {
            let mut span = vec![0; bytes];
            self.far.read(self.segment, at, &mut span)?;
            self.far.recent.insert(self.segment, at, span.into());
        }
        Ok(())
    }

    fn may_differ(&self, at: u64) -> bool {
        self.far.recent.forget(self.segment, at);
        matches!(self.source(), Source::Far(_))
    }

    fn sync(&self) -> io::Result<()> {
        match self.source() {
            Source::Local(file) => file.sync(),
            Source::Far(_) | Source::Lost => Ok(()),
        }
    }

    fn bytes(&self) -> io::Result<u64> {
        match self.source() {
            Source::Local(file) => file.bytes(),
            Source::Far(kept) => Ok(kept.bytes()),
            Source::Lost => Ok(0),
        }
    }
}

/// The name of a segment's object: numbers alone, and another store's are others, so that an object is never written
/// over.
fn object_name(uuid: u64, segment: u32) -> String {
    format!("{uuid:016x}-{segment:09}")
}

/// The store and the segment that an object's name tells; none if it is not one that [`object_name`] gives.
fn parse_object_name(name: &str) -> Option<(u64, u32)> {
    let (uuid, segment) = name.split_once('-')?;
    let found = (u64::from_str_radix(uuid, 16).ok()?, segment.parse().ok()?);
    (object_name(found.0, found.1) == name).then_some(found)
}

impl Far {
    fn name(&self, segment: u32) -> String {
        object_name(*self.uuid.get().expect("begun before any segment"), segment)
    }

    fn put(&self, segment: u32, file: &std::path::Path, bytes: u64) -> io::Result<()> {
        self.figures.puts.fetch_add(1, Relaxed);
        self.watch(self.remote.put(&self.name(segment), file, bytes))?;
        self.figures.put_bytes.fetch_add(bytes, Relaxed);
        Ok(())
    }

    fn read(&self, segment: u32, at: u64, out: &mut [u8]) -> io::Result<()> {
        // Else each key of a multi-get would wait for the deadline, one after the other.
        if self.serving.load(Relaxed) && self.degraded.load(Relaxed) {
            return Err(io::Error::other("the store does not answer"));
        }
        self.figures.gets.fetch_add(1, Relaxed);
        self.watch(self.remote.read(&self.name(segment), at, out))?;
        self.figures.get_bytes.fetch_add(out.len() as u64, Relaxed);
        Ok(())
    }

    fn read_recent(&self, segment: u32, at: u64, out: &mut [u8]) -> bool {
        let found = self.recent.read(segment, at, out);
        self.figures
            .recent_hits
            .fetch_add(u64::from(found), Relaxed);
        found
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        self.figures.deletes.fetch_add(1, Relaxed);
        self.watch(self.remote.delete(name))
    }

    fn list(&self) -> io::Result<Vec<Listed>> {
        self.figures.lists.fetch_add(1, Relaxed);
        self.watch(self.remote.list())
    }

    fn get(&self, name: &str) -> io::Result<Option<(Vec<u8>, Tag)>> {
        self.figures.gets.fetch_add(1, Relaxed);
        let got = self.watch(self.remote.get(name))?;
        let bytes = got.as_ref().map_or(0, |(bytes, _)| bytes.len());
        self.figures.get_bytes.fetch_add(bytes as u64, Relaxed);
        Ok(got)
    }

    fn replace(&self, name: &str, bytes: Vec<u8>, before: Option<&Tag>) -> io::Result<Option<Tag>> {
        self.figures.puts.fetch_add(1, Relaxed);
        self.figures
            .put_bytes
            .fetch_add(bytes.len() as u64, Relaxed);
        self.watch(self.remote.replace(name, bytes, before))
    }

    /// Notes how a call ended. That an object is missing is an answer, not a failure.
    fn watch<T>(&self, ended: io::Result<T>) -> io::Result<T> {
        match &ended {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                self.figures.errors.fetch_add(1, Relaxed);
                let in_row = self.errors_in_row.fetch_add(1, Relaxed) + 1;
                if in_row >= DEGRADED_AFTER && !self.degraded.swap(true, Relaxed) {
                    let place = self.remote.place();
                    tracing::warn!(place, %error, "the remote store fails: the dry tier is degraded");
                }
            }
            _ => {
                self.errors_in_row.store(0, Relaxed);
                if self.degraded.swap(false, Relaxed) {
                    let place = self.remote.place();
                    tracing::info!(place, "the remote store answers again");
                }
            }
        }
        ended
    }
}

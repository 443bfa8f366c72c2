//! Starting on a folder: is what it holds trusted, and if so, which records live.
//!
//! ```text
//! open   lock ─ format ─ state ─ which restart was it? ─┬─ trusted: read the journal, mark in use,
//!                                                       │           fold the kills, drop freed segments
//!                                                       └─ not: set aside, new state
//! load   rows of every segment − killed − expired − flushed ─▶ the caller's index
//! ```
//! The mark "in use" is on the device before anything else changes: whatever happens next, a later start
//! does not take this run's traces for those of a clean stop.

use std::io::{self, Read as _};
use std::sync::Arc;

use super::config::{DryConfig, Durability, SEGMENT_BYTES_MIN, SEGMENTS_MIN};
use super::core::{Core, Limits, Parts};
use super::dead::{self, Dead};
use super::device::Device;
use super::error::DryError;
use super::face::{Place, SEGMENT_BITS, Start};
use super::folder::{self, Folder, Sync, disk_is_full};
use super::journal::{self, Journal};
use super::keeper;
use super::manifest::{self, Manifest, Whose};
use super::segment::{Segment, SegmentTable};
use super::state::{Boot, Fields, State};
use super::store::kept;
use super::store::remote::{Remote, Tag};
use super::store::{LocalStore, SegmentStore, Spool};
use crate::clock::{Clock, UnixSeconds};
use crate::fault::{self, Point};

/// How far the wall clock may be behind the last run's before times are no longer believed.
const CLOCK_SLACK_S: UnixSeconds = 5;
/// Of the disk's free space one in so many bytes is left to others.
const DISK_SPARE_PART: u64 = 20;
/// File descriptors left to everything else when the limit is raised.
const OTHER_FILES: u64 = 1024;

/// Puts another store in front of the local one, in tests.
pub(super) type WrapStore<'a> = &'a dyn Fn(Arc<dyn SegmentStore>) -> Arc<dyn SegmentStore>;

/// What a tier runs on.
pub(super) struct Machine<'a> {
    /// The machine's present run.
    pub(super) boot: Boot,
    /// Makes changes to files.
    pub(super) device: Device,
    /// What comes before the store.
    pub(super) wrap: WrapStore<'a>,
    /// The remote store of the segments.
    pub(super) remote: Option<Arc<dyn Remote>>,
    /// Bytes of the smallest segment.
    pub(super) segment_bytes_min: u64,
}

impl Machine<'_> {
    /// This one.
    pub(super) fn current() -> Machine<'static> {
        Machine {
            boot: Boot::current(),
            device: Device::default(),
            wrap: &|store| store,
            remote: None,
            segment_bytes_min: SEGMENT_BYTES_MIN,
        }
    }
}

/// What the folder turned out to be.
enum Found {
    New,
    Trusted(Fields, Vec<Place>),
    NotTrusted(Option<Fields>, String),
    /// A remote store that its last user left cleanly.
    Left(Box<Manifest>),
}

/// What the manifest of a remote store was, to be replaced by this run's.
enum Before {
    /// There was none.
    Nothing,
    /// This one, with the claim that it makes.
    Claimed(Tag, u32),
    /// The store did not answer: the upload threads go on asking.
    Unknown,
}

impl Before {
    fn claim(&self) -> u32 {
        match self {
            Before::Claimed(_, claim) => *claim,
            Before::Nothing | Before::Unknown => 0,
        }
    }
}

/// Opens a folder; see [`super::Dry::open`].
pub(super) fn open(
    config: &DryConfig,
    clock: Arc<Clock>,
    machine: &Machine<'_>,
) -> Result<(Core, Start), DryError> {
    let boot = machine.boot;
    let folder = Arc::new(Folder::open_on(&config.folder, machine.device.clone())?);
    let remote = machine.remote.clone();
    let spool = remote.map(|remote| Arc::new(Spool::new(Arc::clone(&folder), remote, config)));
    let mut limits = limits(config, machine.segment_bytes_min);
    let failed = |tried: &'static str| {
        let folder = Arc::clone(&folder);
        move |error: io::Error| DryError::io(tried, folder.path(), error)
    };
    let found = find(&folder, config, &boot).map_err(failed("read state of"))?;
    let (found, before) = match &spool {
        Some(spool) => ask_manifest(spool, found, config)?,
        None => (found, Before::Nothing),
    };
    let mut adopted = Vec::new();
    let (mut fields, kills, start) = match found {
        Found::New => (
            fresh(None).map_err(failed("make a seed for"))?,
            Vec::new(),
            Start::New,
        ),
        Found::NotTrusted(old, why) => {
            tracing::warn!(folder = %folder.path().display(), why, "the dry tier starts empty, its content is set aside");
            folder
                .set_aside()
                .map_err(failed("set aside the content of"))?;
            (
                fresh(old).map_err(failed("make a seed for"))?,
                Vec::new(),
                Start::SetAside(why),
            )
        }
        Found::Trusted(fields, kills) => {
            let start = if fields.clean {
                Start::Clean
            } else {
                Start::Recovered
            };
            (fields, kills, start)
        }
        Found::Left(manifest) => {
            folder
                .set_aside()
                .map_err(failed("set aside the content of"))?;
            adopted = manifest.segments;
            (manifest.fields, Vec::new(), Start::Adopted)
        }
    };
    let store = match &spool {
        Some(spool) => {
            spool.begin(fields.uuid);
            (machine.wrap)(Arc::clone(spool) as Arc<dyn SegmentStore>)
        }
        None => (machine.wrap)(Arc::new(LocalStore::new(Arc::clone(&folder)))),
    };
    if let Some(spool) = &spool {
        manifest::adopt(spool, &folder, &fields, &adopted)
            .map_err(failed("write what is known of remote segments to"))?;
    }
    let names = folder.list().map_err(failed("list"))?;
    let mut ids = store.list().map_err(failed("list"))?;
    ids.retain(|id| (1..1 << SEGMENT_BITS).contains(id));
    ids.sort_unstable();
    let dead_ids: Vec<u32> = names
        .iter()
        .filter_map(|name| dead::segment_of(name))
        .collect();
    if limits.power && !fields.power && !fields.clean {
        // That run only had them in the page cache, and this one will be believed after a loss of power.
        sync_content(&folder, &names).map_err(failed("sync the content of"))?;
    }
    let used = ids
        .iter()
        .chain(&dead_ids)
        .copied()
        .chain(kills.iter().map(|kill| kill.segment))
        .max();
    fields.next_segment = fields.next_segment.max(used.map_or(1, |id| id + 1));
    take_over(&mut fields, boot, limits.power, &clock);
    fields.astray |= match (&spool, &before) {
        // If a remote store knows the folder.
        (None, _) => fields.claim != 0,
        (Some(_), before) => matches!(before, Before::Unknown),
    };
    if spool.is_some() {
        let [random] = random_words().map_err(failed("draw a number for"))?;
        // Zero is what older runs say.
        fields.claim = (random as u32).max(1);
        fields.claim_before = before.claim();
    }
    let state = State::start(&folder, fields).map_err(failed("write state of"))?;
    let claimed = match &spool {
        Some(spool) => claim(spool, &fields, before)?,
        None => None,
    };
    if claimed.is_some() && fields.astray {
        let found_again = state.update(Sync::Device, |fields| fields.astray = false);
        found_again.map_err(failed("write state of"))?;
    }

    Point::StartMarked.pass();
    let mut gone: Vec<u32> = ids
        .iter()
        .copied()
        .filter(|id| *id < fields.flush_segment)
        .collect();
    let sync = Sync::of(limits.power);
    for kills in kills.chunk_by(|one, other| one.segment == other.segment) {
        let segment = kills[0].segment;
        let (offsets, freed) = keeper::split(kills);
        if freed {
            gone.push(segment);
        } else if ids.binary_search(&segment).is_ok() {
            match Dead::merge(&folder, segment, &offsets, false, sync) {
                // Without room for its kills the segment itself makes room.
                Err(error) if disk_is_full(&error) => gone.push(segment),
                merged => merged.map_err(failed("fold kills in"))?,
            }
        }
    }
    for segment in &gone {
        store
            .delete(*segment)
            .map_err(failed("delete a freed segment in"))?;
    }
    ids.retain(|id| !gone.contains(id));
    folder.sync().map_err(failed("sync"))?;
    let orphans = dead_ids
        .iter()
        .filter(|id| ids.binary_search(id).is_err())
        .map(|id| dead::file_name(*id));
    let temporary = names
        .iter()
        .filter(|name| folder::is_content(name) && name.ends_with(".tmp"))
        .cloned();
    // This run kills nothing in segments that it does not see: with a remote store again, none of them
    // may come back.
    let unseen = names
        .iter()
        .filter(|name| spool.is_none() && kept::segment_of(name).is_some())
        .cloned();
    for name in orphans.chain(temporary).chain(unseen) {
        folder.remove(&name).map_err(failed("clean up"))?;
    }
    Point::StartFolded.pass();
    let journal_bytes = fault::journal_bytes(config.journal_size.0);
    let journal = Journal::start(&folder, fields.uuid, journal_bytes, limits.power)
        .map_err(failed("make the kill journal in"))?;

    let expected = (limits.size / limits.segment_bytes) as usize + ids.len();
    raise_file_limit(expected as u64);
    let table = SegmentTable::new(expected, &ids);
    for id in ids {
        let file = store.open(id).map_err(failed("open a segment in"))?;
        let bytes = file.bytes().map_err(failed("open a segment in"))?;
        if bytes == 0 || !table.insert(Arc::new(Segment::found(id, file, bytes))) {
            store.delete(id).map_err(failed("delete a segment in"))?;
        }
    }
    if spool.is_none() {
        let available = folder
            .available_bytes()
            .map_err(failed("ask for the free space of"))?;
        fit_to_disk(&mut limits, table.bytes(), available);
    }
    Ok((
        Core::new(Parts {
            limits,
            clock,
            folder,
            store,
            spool,
            claimed,
            state,
            journal,
            table,
        }),
        start,
    ))
}

/// What the manifest of a remote store makes of what was found in its spool.
fn ask_manifest(
    spool: &Spool,
    found: Found,
    config: &DryConfig,
) -> Result<(Found, Before), DryError> {
    // One that is not trusted is no better than none: what was left cleanly still is.
    let own = match &found {
        Found::Trusted(fields, _) => Some(*fields),
        _ => None,
    };
    let cold = |found, why: &str| match found {
        Found::Trusted(fields, _) => Found::NotTrusted(Some(fields), why.to_owned()),
        found => found,
    };
    let read = match manifest::read(spool) {
        Ok(read) => read,
        Err(error) if config.optional => {
            let place = spool.place();
            tracing::warn!(place, %error, "the remote store does not answer: the dry tier starts degraded and cold");
            let why = "the remote store does not answer, so that nobody knows whose its content is";
            return Ok((cold(found, why), Before::Unknown));
        }
        Err(error) => return Err(spool.error(&error)),
    };
    let Some((manifest, tag)) = read else {
        let why = "the remote store has no manifest: its content is gone or never was";
        return Ok((cold(found, why), Before::Nothing));
    };
    let last = manifest
        .as_ref()
        .map_or(Fields::default(), |manifest| manifest.fields);
    let found = match (manifest::whose(own.as_ref(), manifest), found) {
        (Whose::Mine, Found::Trusted(fields, kills)) => {
            let fields = Fields {
                incarnation: last.incarnation,
                ..fields
            };
            Found::Trusted(fields, kills)
        }
        (Whose::Left(_), found) if is_astray(&found) => cold(
            found,
            "a run on this spool did without the remote store, which may hold what is older",
        ),
        // Before a lost spool there may have been a run that did without the store.
        (Whose::Left(_), found) if config.optional && matches!(found, Found::New) => {
            let why = "with dry.optional and without a spool nobody knows whether the remote store is up to date";
            Found::NotTrusted(None, why.to_owned())
        }
        (Whose::Left(manifest), _) if !config.reset => {
            let segments = manifest.segments.len();
            tracing::info!(
                place = spool.place(),
                segments,
                "the remote store was left cleanly: its content is taken over"
            );
            Found::Left(manifest)
        }
        (Whose::Others, found) => {
            let why = "another process uses the remote store, or did and has not stopped cleanly";
            match found {
                Found::New => Found::NotTrusted(None, why.to_owned()),
                found => cold(found, why),
            }
        }
        (_, found) => found,
    };
    Ok((found, Before::Claimed(tag, last.claim)))
}

/// Whether a run on this spool did without the store.
fn is_astray(found: &Found) -> bool {
    match found {
        Found::Trusted(fields, _) | Found::NotTrusted(Some(fields), _) => fields.astray,
        _ => false,
    }
}

/// Makes the remote store this run's.
fn claim(spool: &Spool, fields: &Fields, before: Before) -> Result<Option<Tag>, DryError> {
    let before = match &before {
        Before::Nothing => None,
        Before::Claimed(tag, _) => Some(tag),
        Before::Unknown => return Ok(None),
    };
    let claimed = manifest::claim(spool, fields, before).map_err(|error| spool.error(&error))?;
    let lost = || io::Error::other("another process began to use it at the same moment");
    claimed.map(Some).ok_or_else(|| spool.error(&lost()))
}

/// Takes less than was configured where the disk does not have it, and says so.
fn fit_to_disk(limits: &mut Limits, used_bytes: u64, available_bytes: u64) {
    let room = used_bytes.saturating_add(available_bytes - available_bytes / DISK_SPARE_PART);
    if limits.size > room {
        let size = room.max(SEGMENTS_MIN * limits.segment_bytes);
        tracing::warn!(
            configured = limits.size,
            size,
            "the disk has no room for the dry tier's size: it takes what fits"
        );
        limits.size = size.min(limits.size);
    }
}

fn limits(config: &DryConfig, segment_bytes_min: u64) -> Limits {
    let segment_bytes = config.segment_bytes_from(segment_bytes_min);
    Limits {
        size: config.size.0.max(SEGMENTS_MIN * segment_bytes),
        segment_bytes,
        ttl_s: u32::try_from(config.ttl.0.as_secs()).unwrap_or(u32::MAX),
        queue_bytes: config.queue_bytes,
        power: config.durability == Durability::Power,
        upload_timeout: config.close_timeout.0,
        orphan_age: config.orphan_age.0,
    }
}

fn find(folder: &Folder, config: &DryConfig, boot: &Boot) -> io::Result<Found> {
    let fields = State::read(folder)?;
    let Some(fields) = fields else {
        let empty = !folder.list()?.iter().any(|name| folder::is_content(name));
        return Ok(if empty {
            Found::New
        } else {
            Found::NotTrusted(None, "its state is missing or damaged".into())
        });
    };
    if config.reset {
        return Ok(Found::NotTrusted(
            Some(fields),
            "a reset was asked for".into(),
        ));
    }
    if let Err(why) = fields.judge(boot) {
        return Ok(Found::NotTrusted(Some(fields), why.into()));
    }
    Ok(match journal::recover(folder, fields.uuid)? {
        Ok(kills) => Found::Trusted(fields, kills),
        Err(journal::Damaged(why)) => Found::NotTrusted(
            Some(fields),
            format!("its kill journal cannot be believed: {why}"),
        ),
    })
}

/// A new store. Versions go on from the old one, so that no client sees a CAS unique twice.
fn fresh(old: Option<Fields>) -> io::Result<Fields> {
    let [uuid, seed @ ..] = random_words::<3>()?;
    let old = old.unwrap_or_default();
    Ok(Fields {
        uuid,
        seed,
        incarnation: old.incarnation,
        wall: old.wall,
        astray: old.astray,
        claim: old.claim,
        versions_reserved: old.versions_reserved.max(old.flush_version),
        // A flush that is due empties an empty folder, and one that is not must still come.
        flush_deadline: old.flush_deadline,
        clean: true,
        ..Fields::default()
    })
}

/// Numbers that nobody can guess.
fn random_words<const COUNT: usize>() -> io::Result<[u64; COUNT]> {
    let mut urandom = std::fs::File::open("/dev/urandom")?;
    let mut words = [0; COUNT];
    for word in &mut words {
        let mut bytes = [0; 8];
        urandom.read_exact(&mut bytes)?;
        *word = u64::from_le_bytes(bytes);
    }
    Ok(words)
}

/// Makes the numbers those of this run.
fn take_over(fields: &mut Fields, boot: Boot, power: bool, clock: &Clock) {
    let now = clock.now();
    let went_back = now.saturating_add(CLOCK_SLACK_S) < fields.wall;
    let deadline = fields.flush_deadline;
    // At most, when the clock was last read.
    let left = deadline.saturating_sub(fields.wall);
    if went_back {
        tracing::warn!(
            behind_s = fields.wall - now,
            "the clock went back: dry items with an exptime are dropped"
        );
        fields.untimed_segment = fields.next_segment;
        fields.wall = now;
    }
    fields.wall = fields.wall.max(now);
    // By a clock that went back nobody knows how long ago it came due.
    if deadline != 0 && (went_back || deadline <= fields.wall) {
        tracing::info!(
            "a delayed flush_all may have come due while the tier was down: everything is flushed"
        );
        fields.flush_version = fields
            .flush_version
            .max(fields.versions_reserved)
            .max(clock.now_us());
        fields.flush_segment = fields.next_segment;
        // What is stored until it would have come due, had no time passed, is flushed then.
        fields.flush_deadline = match left {
            1.. if went_back => now.saturating_add(left),
            _ => 0,
        };
    }
    fields.boot = boot;
    fields.power = power;
    fields.clean = false;
    fields.incarnation += 1;
}

/// Writes all of the folder's content to the device.
pub(super) fn sync_content(folder: &Folder, names: &[String]) -> io::Result<()> {
    for name in names.iter().filter(|name| folder::is_content(name)) {
        match folder.open_file(name) {
            Ok(file) => folder.device().sync(&file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {} // Freed in between.
            Err(error) => return Err(error),
        }
    }
    folder.sync()
}

/// Every segment keeps its file open: raises the process's soft limit as far as it may.
fn raise_file_limit(segments: u64) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = segments + OTHER_FILES;
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(limit.maximum.map_or(wanted, |maximum| maximum.min(wanted)));
        if setrlimit(Resource::Nofile, limit).is_err() || limit.current < Some(wanted) {
            tracing::warn!(
                wanted,
                "the limit of open files may be too low for this dry tier"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::ByteSize;

    #[test]
    fn the_size_fits_the_disk() {
        let fit = |used: u64, available: u64| {
            let config = DryConfig {
                size: ByteSize::gib(1),
                ..DryConfig::default()
            };
            let mut limits = limits(&config, SEGMENT_BYTES_MIN);
            fit_to_disk(&mut limits, used << 20, available << 20);
            limits.size >> 20
        };
        assert_eq!(fit(0, 2000), 1024);
        assert_eq!(fit(0, 1000), 950);
        assert_eq!(fit(600, 1000), 1024);
        assert_eq!(fit(0, 0), 8 * 32, "the least it can work with");
    }
}

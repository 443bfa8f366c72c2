//! Tests of the whole tier through its face, with a small index of the caller's in front of it.

mod claims;
mod cuts;
mod damage;
mod errors;
mod kill_loop;
mod limits;
mod remote;
mod remote_cuts;
mod restart;
mod rot;
pub(super) mod tape;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::SeqCst};

use tempfile::TempDir;

use super::recovery::WrapStore;
use super::state::Boot;
use super::store::{SegmentFile, SegmentStore};
use super::*;
use crate::entry::{Facts, hash_key};
use crate::units::ByteSize;

/// The time in all tests.
const NOW: UnixSeconds = 2_000_000_000;

fn boot() -> Boot {
    Boot {
        id: [1, 2],
        time_us: 1000,
    }
}

fn config(folder: &Path) -> DryConfig {
    DryConfig {
        folder: folder.to_owned(),
        size: ByteSize::mib(8),
        segment_size: Some(ByteSize::mib(1)),
        journal_size: ByteSize(4096),
        ..DryConfig::default()
    }
}

/// Opens a tier in a given run of the machine and on a given store.
fn open_as(
    config: &DryConfig,
    clock: Arc<Clock>,
    boot: Boot,
    wrap: WrapStore<'_>,
) -> Result<Dry, DryError> {
    let machine = Machine {
        boot,
        wrap,
        ..Machine::current()
    };
    Dry::open_on(config, clock, &machine)
}

type Slots = HashMap<u64, (Place, u32)>;

/// A caller: an index over one tier, as simple as can be.
struct Caller {
    dry: Arc<Dry>,
    slots: Arc<Mutex<Slots>>,
    version: AtomicU64,
    report: LoadReport,
}

/// What a load hands over, row by row.
fn by_row(each: impl Fn(&Row)) -> impl Fn(&[Row]) {
    move |rows| rows.iter().for_each(&each)
}

impl Caller {
    fn open(config: &DryConfig) -> Caller {
        Caller::over(open_as(config, Arc::new(Clock::manual(NOW)), boot(), &|store| store).unwrap())
    }

    fn over(dry: Dry) -> Caller {
        let dry = Arc::new(dry);
        let slots: Arc<Mutex<Slots>> = Arc::default();
        let owner = (Arc::downgrade(&dry), Arc::clone(&slots));
        dry.set_owner(Box::new(move |leaving| {
            leave(&owner.0.upgrade(), &owner.1, leaving)
        }));
        let report = dry.load(
            2,
            &by_row(|row| {
                assert!(
                    slots
                        .lock()
                        .insert(row.hash, (row.place, row.bytes))
                        .is_none()
                )
            }),
            &|_, _, _| {},
        );
        let version = AtomicU64::new(dry.first_version());
        Caller {
            report: report.unwrap(),
            slots,
            version,
            dry,
        }
    }

    fn hash(&self, key: &str) -> u64 {
        hash_key(self.dry.seed(), key.as_bytes())
    }

    fn set(&self, key: &str, value: &str) -> Append {
        self.set_until(key, value, 0)
    }

    fn set_until(&self, key: &str, value: &str, exptime: UnixSeconds) -> Append {
        self.delete(key);
        let version = self.version.fetch_add(1, SeqCst);
        let facts = Facts {
            version,
            exptime,
            last_access: NOW,
            flags: 7,
            ..Facts::default()
        };
        append(
            &self.dry,
            &self.slots,
            self.hash(key),
            &facts,
            key.as_bytes(),
            value.as_bytes(),
            None,
        )
    }

    fn delete(&self, key: &str) {
        if let Some((place, _)) = self.slots.lock().remove(&self.hash(key)) {
            self.dry.kill(place);
        }
    }

    fn get(&self, key: &str) -> Option<String> {
        let (place, bytes) = *self.slots.lock().get(&self.hash(key))?;
        let mut buffer = Vec::new();
        match self.dry.read(
            place,
            bytes as usize,
            key.as_bytes(),
            ReadMode::Blocking,
            &mut buffer,
        ) {
            Read::Hit { facts, value, .. } => {
                assert_eq!(facts.flags, 7);
                Some(String::from_utf8(buffer[value].to_vec()).unwrap())
            }
            Read::OtherKey | Read::Corrupt | Read::Gone | Read::Error(_) => None,
            Read::WouldBlock => panic!("a blocking read would block"),
        }
    }

    /// Everything appended so far is in the files.
    fn written(&self) {
        self.dry.flush_buffers();
        wait_until(|| self.dry.queue_bytes() == 0);
    }
}

fn append(
    dry: &Dry,
    slots: &Mutex<Slots>,
    hash: u64,
    facts: &Facts,
    key: &[u8],
    value: &[u8],
    instead_of: Option<Place>,
) -> Append {
    let record = NewRecord {
        hash,
        facts,
        hits: u8::from(key.starts_with(b"keep")),
        key_bytes: key.len(),
        value_bytes: value.len(),
        created: NOW - 10,
    };
    let fill = |bytes: &mut [u8]| {
        let (for_key, for_value) = bytes.split_at_mut(key.len());
        for_key.copy_from_slice(key);
        for_value.copy_from_slice(value);
    };
    dry.append(&record, fill, |place, bytes| {
        let mut slots = slots.lock();
        if slots.get(&hash).map(|slot| slot.0) != instead_of {
            return false;
        }
        slots.insert(hash, (place, bytes));
        true
    })
}

/// Keeps what leaves if it was hit.
fn leave(dry: &Option<Arc<Dry>>, slots: &Mutex<Slots>, leaving: &Leaving<'_>) {
    let row = leaving.row;
    let wanted = row.hits > 0 && slots.lock().get(&row.hash).map(|slot| slot.0) == Some(row.place);
    let mut buffer = Vec::new();
    if let (true, Some(dry)) = (wanted, dry)
        && let Some(record) = leaving.record(&mut buffer)
        && let Append::Done(_) = append(
            dry,
            slots,
            row.hash,
            &record.facts,
            record.key,
            record.value,
            Some(row.place),
        )
    {
        return;
    }
    slots.lock().retain(|_, slot| slot.0 != row.place);
}

/// xorshift64*
pub(super) struct Random(u64);

impl Random {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }
}

/// The folder as a reader of the page cache sees it now: what `kill -9` leaves.
fn crash(folder: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in folder.read_dir().unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            match std::fs::copy(entry.path(), copy.path().join(entry.file_name())) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {} // Just freed.
                copied => drop(copied.unwrap()),
            }
        }
    }
    copy
}

fn wait_until(mut done: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("waited in vain");
}

fn value(number: usize) -> String {
    format!("value {number} ").repeat(1 + number % 70)
}

/// What a store does on writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Fault {
    None,
    DiskFull,
    Error,
}

/// A store in front of another one whose writes can be made to fail.
struct FaultyStore {
    store: Arc<dyn SegmentStore>,
    fault: Arc<AtomicU8>,
}

struct FaultyFile {
    file: Arc<dyn SegmentFile>,
    fault: Arc<AtomicU8>,
}

impl FaultyStore {
    fn file(&self, file: Arc<dyn SegmentFile>) -> Arc<dyn SegmentFile> {
        Arc::new(FaultyFile {
            file,
            fault: Arc::clone(&self.fault),
        })
    }
}

impl SegmentStore for FaultyStore {
    fn create(&self, segment: u32) -> io::Result<Arc<dyn SegmentFile>> {
        self.store.create(segment).map(|file| self.file(file))
    }

    fn open(&self, segment: u32) -> io::Result<Arc<dyn SegmentFile>> {
        self.store.open(segment).map(|file| self.file(file))
    }

    fn delete(&self, segment: u32) -> io::Result<()> {
        self.store.delete(segment)
    }

    fn list(&self) -> io::Result<Vec<u32>> {
        self.store.list()
    }
}

impl SegmentFile for FaultyFile {
    fn append(&self, at: u64, bytes: &[u8]) -> io::Result<usize> {
        match self.fault.load(SeqCst) {
            fault if fault == Fault::DiskFull as u8 => Err(io::ErrorKind::StorageFull.into()),
            fault if fault == Fault::Error as u8 => Err(io::Error::other("the device is broken")),
            _ => self.file.append(at, &bytes[..bytes.len().min(1000)]),
        }
    }

    fn read_range(&self, at: u64, out: &mut [u8]) -> io::Result<usize> {
        self.file.read_range(at, out)
    }

    fn read_cached(&self, at: u64, out: &mut [u8]) -> io::Result<Option<usize>> {
        self.file.read_cached(at, out)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn bytes(&self) -> io::Result<u64> {
        self.file.bytes()
    }
}

/// A caller over a store whose faults can be chosen.
fn faulty(config: &DryConfig) -> (Caller, Arc<AtomicU8>) {
    let fault = Arc::new(AtomicU8::new(Fault::None as u8));
    let wrap = |store| -> Arc<dyn SegmentStore> {
        Arc::new(FaultyStore {
            store,
            fault: Arc::clone(&fault),
        })
    };
    let dry = open_as(config, Arc::new(Clock::manual(NOW)), boot(), &wrap).unwrap();
    (Caller::over(dry), fault)
}

fn file_names(folder: &Path, end: &str) -> Vec<PathBuf> {
    let entries = folder
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut names: Vec<PathBuf> = entries
        .filter(|path| path.to_string_lossy().ends_with(end))
        .collect();
    names.sort();
    names
}

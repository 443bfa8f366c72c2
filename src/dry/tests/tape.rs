//! A tape of all changes to a folder's files: it numbers them, fails chosen ones, and tells what a crash between any
//! two of them leaves on the device.
//!
//! The death of a process leaves the page cache: every change so far, and of a write under way any part. A loss of
//! power leaves what was synced, and of the rest anything: each sector, each length and each name in any state that it
//! had since.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use parking_lot::{Mutex, MutexGuard};

use super::super::device::{Change, Kind};
use super::Random;

/// What a device writes at once or not at all.
const SECTOR_BYTES: usize = 512;
/// Stores of this many bytes are atomic in the page cache.
const WORD_BYTES: usize = 8;

/// A recorded change. Files are known by numbers that are never reused.
#[derive(Debug, Clone)]
pub(in super::super) enum Entry {
    Create {
        name: String,
        file: usize,
    },
    Write {
        file: usize,
        at: u64,
        bytes: Vec<u8>,
    },
    Length {
        file: usize,
        bytes: u64,
    },
    Sync {
        file: usize,
    },
    SyncFolder,
    Rename {
        from: String,
        to: String,
    },
    Remove {
        name: String,
    },
}

/// Which change is to fail.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Failure {
    pub(in super::super) kind: Kind,
    /// The first one to fail, counted from 1; all later ones of the kind fail as well.
    pub(in super::super) from: u64,
    pub(in super::super) error: rustix::io::Errno,
}

#[derive(Debug, Default)]
struct Inner {
    entries: Vec<Entry>,
    /// The number of the file that has an inode now.
    files: HashMap<u64, usize>,
    failure: Option<Failure>,
    passed: u64,
    failed: u64,
}

/// Records the changes to one folder.
#[derive(Debug, Default)]
pub(in super::super) struct Tape {
    inner: Mutex<Inner>,
}

impl Tape {
    /// How many changes there were.
    pub(in super::super) fn len(&self) -> usize {
        self.inner.lock().entries.len()
    }

    /// All changes.
    pub(in super::super) fn take(&self) -> Vec<Entry> {
        std::mem::take(&mut self.inner.lock().entries)
    }

    /// Has changes fail from now on, or none.
    pub(in super::super) fn fail(&self, failure: Option<Failure>) {
        let mut inner = self.inner.lock();
        (inner.failure, inner.passed) = (failure, 0);
    }

    /// How many changes were made to fail.
    pub(in super::super) fn failed(&self) -> u64 {
        self.inner.lock().failed
    }
}

/// A change under way: no other one begins before it is done.
pub(in super::super) struct Step<'a>(Option<MutexGuard<'a, Inner>>);

impl<'a> Step<'a> {
    pub(in super::super) fn begin(tape: Option<&'a Tape>, kind: Kind) -> io::Result<Step<'a>> {
        let mut inner = tape.map(|tape| tape.inner.lock());
        if let Some(inner) = &mut inner
            && let Some(failure) = inner.failure.filter(|failure| failure.kind == kind)
        {
            inner.passed += 1;
            if inner.passed >= failure.from {
                inner.failed += 1;
                return Err(failure.error.into());
            }
        }
        Ok(Step(inner))
    }

    pub(in super::super) fn done(self, change: Change<'_>) {
        let Some(mut inner) = self.0 else {
            return;
        };
        let inode =
            |file: &std::fs::File| file.metadata().expect("an open file has metadata").ino();
        let entry = match change {
            Change::Create { name, file } => {
                let number = inner.entries.len();
                inner.files.insert(inode(file), number);
                Entry::Create {
                    name: name.to_owned(),
                    file: number,
                }
            }
            Change::Write { file, at, bytes } => Entry::Write {
                file: inner.files[&inode(file)],
                at,
                bytes: bytes.to_vec(),
            },
            Change::Store { file, word, value } => Entry::Write {
                file: inner.files[&inode(file)],
                at: (word * WORD_BYTES) as u64,
                bytes: value.to_le_bytes().to_vec(),
            },
            Change::Allocate { file, bytes } => Entry::Length {
                file: inner.files[&inode(file)],
                bytes,
            },
            Change::Sync { file } => Entry::Sync {
                file: inner.files[&inode(file)],
            },
            Change::SyncFolder => Entry::SyncFolder,
            Change::Rename { from, to } => Entry::Rename {
                from: from.to_owned(),
                to: to.to_owned(),
            },
            Change::Remove { name } => Entry::Remove {
                name: name.to_owned(),
            },
        };
        inner.entries.push(entry);
    }
}

/// Files by name, as a start would find them.
pub(in super::super) type Image = BTreeMap<String, Vec<u8>>;

/// Writes an image to an empty folder.
pub(in super::super) fn write_image(image: &Image, folder: &Path) {
    for (name, bytes) in image {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}

#[derive(Debug, Default)]
struct File {
    /// As the page cache has it.
    bytes: Vec<u8>,
    /// Lengths since the last sync, that one's first.
    lengths: Vec<usize>,
    /// Contents of sectors since the last sync, that one's first.
    sectors: BTreeMap<usize, Vec<[u8; SECTOR_BYTES]>>,
}

impl File {
    fn sector(&self, number: usize) -> [u8; SECTOR_BYTES] {
        let mut sector = [0; SECTOR_BYTES];
        let start = number * SECTOR_BYTES;
        let bytes =
            &self.bytes[start.min(self.bytes.len())..self.bytes.len().min(start + SECTOR_BYTES)];
        sector[..bytes.len()].copy_from_slice(bytes);
        sector
    }

    fn set_length(&mut self, bytes: usize) {
        if self.lengths.is_empty() {
            self.lengths.push(0);
        }
        self.bytes.resize(bytes.max(self.bytes.len()), 0);
        self.lengths.push(self.bytes.len());
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        let touched = at / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES);
        for number in touched.clone() {
            let before = self.sector(number);
            self.sectors.entry(number).or_insert_with(|| vec![before]);
        }
        if end > self.bytes.len() {
            self.set_length(end);
        }
        self.bytes[at..end].copy_from_slice(bytes);
        for number in touched {
            let after = self.sector(number);
            self.sectors.entry(number).or_default().push(after);
        }
    }

    fn sync(&mut self) {
        self.sectors.clear();
        self.lengths = vec![self.bytes.len()];
    }

    fn after_power_loss(&self, random: &mut Random, taste: Taste) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for (number, versions) in &self.sectors {
            let start = number * SECTOR_BYTES;
            let version = versions[taste.pick(random, versions.len())];
            let end = bytes.len().min(start + SECTOR_BYTES);
            bytes[start..end].copy_from_slice(&version[..end - start]);
        }
        let length = if self.lengths.is_empty() {
            0
        } else {
            self.lengths[taste.pick(random, self.lengths.len())]
        };
        bytes.truncate(length);
        bytes
    }
}

/// How much of what was not synced a loss of power leaves.
#[derive(Debug, Clone, Copy)]
enum Taste {
    Nothing,
    Everything,
    Anything,
}

impl Taste {
    fn any(random: &mut Random) -> Taste {
        [
            Taste::Nothing,
            Taste::Everything,
            Taste::Anything,
            Taste::Anything,
        ][random.below(4)]
    }

    fn pick(self, random: &mut Random, count: usize) -> usize {
        match self {
            Taste::Nothing => 0,
            Taste::Everything => count - 1,
            Taste::Anything => random.below(count),
        }
    }
}

type Names = BTreeMap<String, usize>;

/// A disk that a tape is played to, change by change.
#[derive(Debug, Default)]
pub(in super::super) struct Disk {
    files: BTreeMap<usize, File>,
    names: Names,
    synced_names: Names,
    /// Changes of names since the folder was synced.
    name_changes: Vec<Entry>,
}

impl Disk {
    /// Carries out one change.
    pub(in super::super) fn play(&mut self, entry: &Entry) {
        match entry {
            Entry::Create { file, .. } => {
                self.files.insert(*file, File::default());
                self.rename(entry);
            }
            Entry::Write { file, at, bytes } => self.file(*file).write(*at as usize, bytes),
            Entry::Length { file, bytes } => self.file(*file).set_length(*bytes as usize),
            Entry::Sync { file } => self.file(*file).sync(),
            Entry::SyncFolder => {
                self.synced_names = self.names.clone();
                self.name_changes.clear();
                let kept: Vec<usize> = self.names.values().copied().collect();
                self.files.retain(|number, _| kept.contains(number));
            }
            Entry::Rename { .. } | Entry::Remove { .. } => self.rename(entry),
        }
    }

    fn file(&mut self, number: usize) -> &mut File {
        self.files.entry(number).or_default()
    }

    fn rename(&mut self, entry: &Entry) {
        change_name(&mut self.names, entry);
        self.name_changes.push(entry.clone());
    }

    /// What the death of the process leaves while `next` is under way.
    pub(in super::super) fn after_death(&self, next: Option<&Entry>, random: &mut Random) -> Image {
        let mut image: Image = self
            .names
            .iter()
            .map(|(name, file)| (name.clone(), self.files[file].bytes.clone()))
            .collect();
        if let Some(Entry::Write { file, at, bytes }) = next
            && bytes.len() > WORD_BYTES
            && let Some((name, _)) = self.names.iter().find(|(_, number)| *number == file)
            && let Some(old) = image.get_mut(name)
        {
            let (at, part) = (*at as usize, random.below(bytes.len()));
            old.resize(old.len().max(at + part), 0);
            old[at..at + part].copy_from_slice(&bytes[..part]);
        }
        image
    }

    /// What a loss of power leaves now.
    pub(in super::super) fn after_power_loss(&self, random: &mut Random) -> Image {
        let mut names = self.synced_names.clone();
        let taste = Taste::any(random);
        for change in &self.name_changes {
            if taste.pick(random, 2) == 1 {
                change_name(&mut names, change);
            }
        }
        let taste = Taste::any(random);
        let content = |file: &usize| {
            self.files
                .get(file)
                .map(|file| file.after_power_loss(random, taste))
        };
        let mut content = content;
        names
            .iter()
            .filter_map(|(name, file)| Some((name.clone(), content(file)?)))
            .collect()
    }
}

fn change_name(names: &mut Names, entry: &Entry) {
    match entry {
        Entry::Create { name, file } => drop(names.insert(name.clone(), *file)),
        Entry::Rename { from, to } => {
            if let Some(file) = names.remove(from)
                // What is set aside is nobody's business any more.
                && !to.contains('/')
            {
                names.insert(to.clone(), file);
            }
        }
        Entry::Remove { name } => drop(names.remove(name)),
        _ => {}
    }
}

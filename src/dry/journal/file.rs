//! One file of the journal's ring: made, read back, emptied.
//!
//! ```text
//! magic u64 | store's uuid u64 | ACTIVE or BLANK u64 | bytes u64 | zeros up to 4096 | slots
//! ```

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst, fence};

use super::super::device::Device;
use super::super::face::Place;
use super::super::folder::{Folder, Sync, disk_is_full};
use super::{FILES, slot};
use crate::fault::Point;
use crate::memory::{WORD_BYTES, Words};

const HEADER_BYTES: usize = 4096;
const HEADER_WORDS: usize = HEADER_BYTES / WORD_BYTES;
const MAGIC: u64 = u64::from_le_bytes(*b"tierkill");
const ACTIVE: u64 = u64::from_le_bytes(*b"kills_in");
const BLANK: u64 = u64::from_le_bytes(*b"NO KILLS");

/// Why a journal cannot be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Damaged(pub(in super::super) String);

/// A mapped file of the ring.
#[derive(Debug)]
pub(super) struct JournalFile {
    words: Words,
    file: File,
    device: Device,
}

impl JournalFile {
    /// The words that hold kills.
    #[inline]
    pub(super) fn slots(&self) -> &[AtomicU64] {
        &self.words[HEADER_WORDS..]
    }

    /// Stores a kill in a slot.
    #[inline]
    pub(super) fn store(&self, slot: usize, kill: u64) {
        self.store_word(HEADER_WORDS + slot, kill);
    }

    #[inline]
    fn store_word(&self, word: usize, value: u64) {
        self.device.store(&self.file, &self.words, word, value);
    }

    /// Waits until all that was stored is on the device.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.device.sync(&self.file)
    }
}

/// All kills found in a folder's journal, sorted.
pub(in super::super) fn recover(
    folder: &Folder,
    uuid: u64,
) -> io::Result<Result<Vec<Place>, Damaged>> {
    let mut places = Vec::new();
    for number in 0..FILES {
        let name = file_name(number);
        let bytes = match folder.read(&name) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Err(Damaged(format!("{name} is missing"))));
            }
            Err(error) => return Err(error),
        };
        if let Err(damaged) = kills_in(&name, &bytes, uuid, &mut places) {
            return Ok(Err(damaged));
        }
    }
    places.sort_unstable();
    places.dedup();
    Ok(Ok(places))
}

/// Adds the kills that a file of the journal holds to `places`.
pub(super) fn kills_in(
    name: &str,
    bytes: &[u8],
    uuid: u64,
    places: &mut Vec<Place>,
) -> Result<(), Damaged> {
    let mut words = bytes
        .chunks_exact(WORD_BYTES)
        .map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")));
    let header: Vec<u64> = words.by_ref().take(HEADER_WORDS).collect();
    if header.len() < HEADER_WORDS
        || header[..2] != [MAGIC, uuid]
        || bytes.len() as u64 != header[3]
    {
        return Err(Damaged(format!("{name} has a damaged header")));
    }
    match header[2] {
        BLANK => return Ok(()),
        ACTIVE => {}
        _ => return Err(Damaged(format!("{name} has a damaged header"))),
    }
    for (number, word) in words.enumerate() {
        match slot::decode(word) {
            _ if word == 0 => {}
            Some(place) => places.push(place),
            None => return Err(Damaged(format!("slot {number} of {name} is damaged"))),
        }
    }
    Ok(())
}

/// Reads a file of these bytes, as it is and with its header put right.
#[cfg(fuzzing)]
pub(in super::super) fn fuzz(bytes: &[u8], uuid: u64) {
    let _ = kills_in("journal", bytes, uuid, &mut Vec::new());
    let mut file = vec![0; HEADER_BYTES];
    file.extend_from_slice(bytes);
    let header = [MAGIC, uuid, ACTIVE, file.len() as u64];
    for (word, at) in header.into_iter().zip((0..).step_by(WORD_BYTES)) {
        file[at..at + WORD_BYTES].copy_from_slice(&word.to_le_bytes());
    }
    let mut places = Vec::new();
    if kills_in("journal", &file, uuid, &mut places).is_ok() {
        let slots = bytes.chunks_exact(WORD_BYTES);
        let stored: Vec<u64> = slots
            .map(|slot| u64::from_le_bytes(slot.try_into().expect("8 bytes")))
            .filter(|word| *word != 0)
            .collect();
        let again: Vec<u64> = places.into_iter().map(slot::encode).collect();
        assert_eq!(
            again, stored,
            "a slot that is believed is one that was stored"
        );
    }
}

fn file_name(number: usize) -> String {
    format!("journal-{number}")
}

/// Empties a file: marked blank first, so that a half-zeroed one is never read.
pub(super) fn blank(file: &JournalFile, sync: Sync) -> io::Result<()> {
    let sync = || {
        if sync == Sync::Device {
            file.sync()
        } else {
            Ok(())
        }
    };
    file.store_word(2, BLANK);
    fence(SeqCst);
    sync()?;
    Point::Blanked.pass();
    for (slot, word) in file.slots().iter().enumerate() {
        if word.load(Relaxed) != 0 {
            file.store(slot, 0);
        }
    }
    fence(SeqCst);
    sync()?;
    file.store_word(2, ACTIVE);
    sync()
}

/// Opens the ring's file of that number, empty.
pub(super) fn start(
    folder: &Folder,
    number: usize,
    uuid: u64,
    slots: usize,
    sync: Sync,
) -> io::Result<JournalFile> {
    let (name, bytes) = (&file_name(number), HEADER_BYTES + slots * WORD_BYTES);
    // A new file rather than the old one emptied: that would make all of its pages resident.
    match make_file(folder, name, uuid, bytes, sync) {
        Err(error) if disk_is_full(&error) => {
            let file = folder.open_file(name)?;
            let old = JournalFile {
                words: Words::map_file(&file, bytes)?,
                file,
                device: folder.device().clone(),
            };
            let is_ours = old.words[0].load(Relaxed) == MAGIC
                && old.words[1].load(Relaxed) == uuid
                && old.words[3].load(Relaxed) == bytes as u64;
            if !is_ours {
                return Err(error);
            }
            blank(&old, sync)?;
            Ok(old)
        }
        made => made,
    }
}

/// Makes a file beside and renames it: one of that name always has its blocks and its header.
fn make_file(
    folder: &Folder,
    name: &str,
    uuid: u64,
    bytes: usize,
    sync: Sync,
) -> io::Result<JournalFile> {
    let temporary = format!("{name}.tmp");
    folder.remove(&temporary)?;
    let file = folder.create_file(&temporary)?;
    let device = folder.device().clone();
    if let Err(error) = device.allocate(&file, bytes as u64) {
        folder.remove(&temporary)?;
        return Err(error);
    }
    let header = [MAGIC, uuid, ACTIVE, bytes as u64].map(u64::to_le_bytes);
    device.write_all(&file, 0, &header.concat())?;
    if sync == Sync::Device {
        device.sync(&file)?;
    }
    folder.rename(&temporary, name)?;
    Ok(JournalFile {
        words: Words::map_file(&file, bytes)?,
        file,
        device,
    })
}

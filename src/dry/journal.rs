//! The kill journal: one atomic 8-byte store per kill, in a page cache that outlives the process.
//!
//! ```text
//! journal-0   [header | slot slot slot ...]   full, being folded into seg-N.dead
//! journal-1   [header | slot slot 0 0 0 ...]  in use: ticket.fetch_add picks the slot
//! journal-2   [header | 0 0 0 ...]            ready
//! journal-3   [header | 0 0 0 ...]            ready
//! slot        segment 28 | offset 23 | CRC-13 of both; offset all ones: the whole segment is freed
//! ```
//! The files are a ring that is mapped once: no allocation, no lock and no disk space is ever needed
//! for a kill. A zero slot is an operation that never became visible; a slot whose check fails
//! may be a lost kill, so then the folder is not trusted.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::face::{OFFSET_BITS, Place};
use super::folder::{Folder, Sync, disk_is_full};
use crate::memory::{WORD_BYTES, Words};

/// Files of the ring: one in use, one being folded, two ready.
pub(super) const FILES: usize = 4;
/// An offset that no record has: says that the whole segment is freed.
pub(super) const FREE_OFFSET: u32 = (1 << OFFSET_BITS) - 1;
/// How long a kill waits for a ready file before the tier fails instead.
const KILL_WAIT_MAX: Duration = Duration::from_secs(5);

const HEADER_BYTES: usize = 4096;
const HEADER_WORDS: usize = HEADER_BYTES / WORD_BYTES;
const MAGIC: u64 = u64::from_le_bytes(*b"tierkill");
const ACTIVE: u64 = u64::from_le_bytes(*b"kills_in");
const BLANK: u64 = u64::from_le_bytes(*b"NO KILLS");

/// Why a journal cannot be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Damaged(pub(super) String);

#[derive(Debug)]
struct JournalFile {
    words: Words,
    file: File,
}

/// The journal of a running tier.
#[derive(Debug)]
pub(super) struct Journal {
    files: [JournalFile; FILES],
    slot_bits: u32,
    power: bool,
    /// Slots handed out: the low bits are a slot, the others its generation; file = generation % FILES.
    ticket: AtomicU64,
    /// Generations up to this one have a file ready.
    ready: AtomicU64,
    /// Generations below this one are folded.
    folded: AtomicU64,
    waiting: Mutex<()>,
    made_ready: Condvar,
    commits: Mutex<Commits>,
    committed: Condvar,
}

/// Group commit: whoever finds no sync running starts one for all who wait.
#[derive(Debug, Default)]
struct Commits {
    running: bool,
    started: u64,
    done: u64,
    /// A sync failed: nothing is known about what reached the device.
    failed: bool,
}

/// What became of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Stored {
    /// It is in the page cache.
    Yes,
    /// It is, as the first one of a new file: an old one can be folded.
    NewFile,
    /// No file became ready in time: the kill is lost and the tier must fail.
    No,
}

/// All kills found in a folder's journal, sorted.
pub(super) fn recover(folder: &Folder, uuid: u64) -> io::Result<Result<Vec<Place>, Damaged>> {
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
        let mut words =
            bytes.chunks_exact(WORD_BYTES).map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")));
        let header: Vec<u64> = words.by_ref().take(HEADER_WORDS).collect();
        if header.len() < HEADER_WORDS || header[..2] != [MAGIC, uuid] || bytes.len() as u64 != header[3] {
            return Ok(Err(Damaged(format!("{name} has a damaged header"))));
        }
        match header[2] {
            BLANK => continue,
            ACTIVE => {}
            _ => return Ok(Err(Damaged(format!("{name} has a damaged header")))),
        }
        for (slot, word) in words.enumerate() {
            match decode(word) {
                _ if word == 0 => {}
                Some(place) => places.push(place),
                None => return Ok(Err(Damaged(format!("slot {slot} of {name} is damaged")))),
            }
        }
    }
    places.sort_unstable();
    places.dedup();
    Ok(Ok(places))
}

fn file_name(number: usize) -> String {
    format!("journal-{number}")
}

impl Journal {
    /// Makes the ring empty, of four files with at least `bytes` of slots each. What it held must be
    /// folded already.
    pub(super) fn start(folder: &Folder, uuid: u64, bytes: u64, power: bool) -> io::Result<Journal> {
        let slots = (bytes / WORD_BYTES as u64).max(2).next_power_of_two();
        let mut files = Vec::with_capacity(FILES);
        for number in 0..FILES {
            files.push(start_file(folder, &file_name(number), uuid, slots as usize, Sync::of(power))?);
        }
        folder.sync()?;
        Ok(Journal {
            files: files.try_into().expect("as many as asked for"),
            slot_bits: slots.trailing_zeros(),
            power,
            ticket: AtomicU64::new(0),
            ready: AtomicU64::new(FILES as u64 - 1),
            folded: AtomicU64::new(0),
            waiting: Mutex::new(()),
            made_ready: Condvar::new(),
            commits: Mutex::default(),
            committed: Condvar::new(),
        })
    }

    /// Stores the kill of one record.
    #[inline]
    pub(super) fn kill(&self, place: Place) -> Stored {
        self.store(encode(place))
    }

    /// Stores that a whole segment is freed.
    pub(super) fn free(&self, segment: u32) -> Stored {
        self.store(encode(Place { segment, offset: FREE_OFFSET }))
    }

    #[inline]
    fn store(&self, word: u64) -> Stored {
        let ticket = self.ticket.fetch_add(1, Relaxed);
        let generation = ticket >> self.slot_bits;
        if generation > self.ready.load(Acquire) && !self.wait_until_ready(generation) {
            return Stored::No;
        }
        let slot = (ticket & ((1 << self.slot_bits) - 1)) as usize;
        let file = &self.files[generation as usize % FILES];
        file.words[HEADER_WORDS + slot].store(word, Release);
        if slot == 0 { Stored::NewFile } else { Stored::Yes }
    }

    #[cold]
    fn wait_until_ready(&self, generation: u64) -> bool {
        let deadline = Instant::now() + KILL_WAIT_MAX;
        let mut waiting = self.waiting.lock();
        while generation > self.ready.load(Acquire) {
            if self.made_ready.wait_until(&mut waiting, deadline).timed_out() {
                return generation <= self.ready.load(Acquire);
            }
        }
        true
    }

    /// Waits until everything that was stored before the call is on the device. One sync serves all
    /// who wait.
    pub(super) fn commit(&self) -> io::Result<()> {
        let mut commits = self.commits.lock();
        // A sync that runs already may have passed our slot.
        let needed = commits.started + 1;
        while commits.done < needed && !commits.failed {
            if commits.running {
                self.committed.wait(&mut commits);
                continue;
            }
            commits.running = true;
            commits.started += 1;
            let number = commits.started;
            let synced = parking_lot::MutexGuard::unlocked(&mut commits, || self.sync());
            commits.running = false;
            commits.done = number;
            commits.failed |= synced.is_err();
            self.committed.notify_all();
            synced?;
        }
        if commits.failed { Err(io::Error::other("the kill journal could not be synced")) } else { Ok(()) }
    }

    /// Writes every file that may hold unfolded kills to the device.
    pub(super) fn sync(&self) -> io::Result<()> {
        let (first, last) = (self.folded.load(Acquire), self.ticket.load(Acquire) >> self.slot_bits);
        for generation in first..=last.min(first + FILES as u64 - 1) {
            self.files[generation as usize % FILES].file.sync_data()?;
        }
        Ok(())
    }

    /// Whether the oldest file is full (its last kills may be between two instructions).
    pub(super) fn fold_is_due(&self) -> bool {
        self.ticket.load(Acquire) >> self.slot_bits > self.folded.load(Acquire)
    }

    /// The kills of the oldest file, sorted, if it is full. [`Journal::folded`] must follow.
    pub(super) fn full(&self) -> Option<Vec<Place>> {
        if !self.fold_is_due() {
            return None;
        }
        let generation = self.folded.load(Acquire);
        let words = &self.files[generation as usize % FILES].words[HEADER_WORDS..];
        let mut places = Vec::with_capacity(words.len());
        for word in words {
            match word.load(Acquire) {
                0 => return None,
                word => places.push(decode(word).expect("stored by this process")),
            }
        }
        places.sort_unstable();
        Some(places)
    }

    /// Makes the oldest file ready again, after its kills are folded (and on the device, in power mode).
    pub(super) fn folded(&self) -> io::Result<()> {
        let generation = self.folded.load(Acquire);
        let file = &self.files[generation as usize % FILES];
        blank(file, Sync::of(self.power))?;
        self.folded.store(generation + 1, Release);
        let waiting = self.waiting.lock();
        self.ready.store(generation + FILES as u64, Release);
        drop(waiting);
        self.made_ready.notify_all();
        Ok(())
    }

    /// Kills stored since start.
    pub(super) fn kills(&self) -> u64 {
        self.ticket.load(Relaxed)
    }

    /// Bytes of slots in use.
    pub(super) fn used_bytes(&self) -> u64 {
        let folded = self.folded.load(Relaxed) << self.slot_bits;
        self.ticket.load(Relaxed).saturating_sub(folded) * WORD_BYTES as u64
    }
}

/// Empties a file: marked blank first, so that a half-zeroed one is never read.
fn blank(file: &JournalFile, sync: Sync) -> io::Result<()> {
    let sync = |file: &JournalFile| if sync == Sync::Device { file.file.sync_data() } else { Ok(()) };
    file.words[2].store(BLANK, Release);
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    sync(file)?;
    for word in &file.words[HEADER_WORDS..] {
        if word.load(Relaxed) != 0 {
            word.store(0, Relaxed);
        }
    }
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    sync(file)?;
    file.words[2].store(ACTIVE, Release);
    sync(file)
}

fn start_file(folder: &Folder, name: &str, uuid: u64, slots: usize, sync: Sync) -> io::Result<JournalFile> {
    let bytes = HEADER_BYTES + slots * WORD_BYTES;
    // A new file rather than the old one emptied: that would make all of its pages resident.
    match make_file(folder, name, uuid, bytes, sync) {
        Err(error) if disk_is_full(&error) => {
            let file = folder.open_file(name)?;
            let old = JournalFile { words: Words::map_file(&file, bytes)?, file };
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
fn make_file(folder: &Folder, name: &str, uuid: u64, bytes: usize, sync: Sync) -> io::Result<JournalFile> {
    let temporary = format!("{name}.tmp");
    folder.remove(&temporary)?;
    let file = folder.create_file(&temporary)?;
    // With its blocks allocated a store can never meet a full disk. File systems without fallocate
    // get their blocks by being written to.
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes as u64) {
        Ok(()) => {}
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            let zeros = vec![0; 64 << 10];
            for at in (0..bytes).step_by(zeros.len()) {
                file.write_all_at(&zeros[..zeros.len().min(bytes - at)], at as u64)?;
            }
        }
        Err(error) => {
            folder.remove(&temporary)?;
            return Err(error.into());
        }
    }
    for (word, value) in [MAGIC, uuid, ACTIVE, bytes as u64].into_iter().enumerate() {
        file.write_all_at(&value.to_le_bytes(), (word * WORD_BYTES) as u64)?;
    }
    if sync == Sync::Device {
        file.sync_all()?;
    }
    folder.rename(&temporary, name)?;
    Ok(JournalFile { words: Words::map_file(&file, bytes)?, file })
}

const CHECK_BITS: u32 = 13;
const CHECK_MASK: u32 = (1 << CHECK_BITS) - 1;

/// CRC-13 (polynomial 0x1CF5): finds every flip of up to three bits of a slot.
const CHECKS: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u32) << (CHECK_BITS - 8);
        let mut bit = 0;
        while bit < 8 {
            let carry = crc & (1 << (CHECK_BITS - 1)) != 0;
            crc = (crc << 1) & CHECK_MASK;
            if carry {
                crc ^= 0x1CF5;
            }
            bit += 1;
        }
        table[byte] = crc as u16;
        byte += 1;
    }
    table
};

#[inline]
fn check(payload: u64) -> u64 {
    let mut crc = 0;
    for byte in payload.to_be_bytes().into_iter().skip(1) {
        let index = (crc >> (CHECK_BITS - 8)) as u8 ^ byte;
        crc = (crc << 8 & CHECK_MASK) ^ u32::from(CHECKS[usize::from(index)]);
    }
    u64::from(crc)
}

#[inline]
fn encode(place: Place) -> u64 {
    let payload = place.to_bits();
    payload << CHECK_BITS | check(payload)
}

fn decode(word: u64) -> Option<Place> {
    let payload = word >> CHECK_BITS;
    (check(payload) == word & u64::from(CHECK_MASK)).then(|| Place::from_bits(payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: u64 = 77;

    fn place(number: u32) -> Place {
        Place { segment: 1 + number / 1000, offset: number % 1000 }
    }

    fn journal(folder: &Folder, slots: u64) -> Journal {
        Journal::start(folder, UUID, slots * 8, false).unwrap()
    }

    fn recovered(folder: &Folder) -> Result<Vec<Place>, Damaged> {
        recover(folder, UUID).unwrap()
    }

    // What a kill stored is found by a reader of the file at once, as after kill -9.
    #[test]
    fn stored_kills_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        assert!(recovered(&folder).is_err(), "missing files may have held kills");
        let journal = journal(&folder, 64);
        assert_eq!(journal.kill(place(5)), Stored::NewFile);
        assert_eq!(journal.kill(place(4)), Stored::Yes);
        assert_eq!(journal.free(9), Stored::Yes);
        journal.commit().unwrap();
        assert_eq!(recovered(&folder).unwrap(), [place(4), place(5), Place { segment: 9, offset: FREE_OFFSET }]);
        assert!(recover(&folder, UUID + 1).unwrap().is_err());
    }

    #[test]
    fn the_ring_turns() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let journal = journal(&folder, 8);
        let mut expected: Vec<Place> = Vec::new();
        for number in 0..100 {
            let stored = journal.kill(place(number));
            assert_eq!(stored == Stored::NewFile, number % 8 == 0);
            expected.push(place(number));
            if let Some(full) = journal.full() {
                assert_eq!(full, expected[..8]);
                expected.drain(..8);
                journal.folded().unwrap();
            }
            assert_eq!(recovered(&folder).unwrap(), expected);
            assert_eq!(journal.used_bytes(), expected.len() as u64 * 8);
        }
    }

    // A flipped bit of a used slot or of a header word is never read as other kills.
    #[test]
    fn damage_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let journal = journal(&folder, 8);
        for number in 0..5 {
            let _ = journal.kill(place(1 << number));
        }
        let file = folder.open_file("journal-0").unwrap();
        let mut byte = [0];
        for at in (0..32).chain(4096..4096 + 40) {
            for bit in 0..8 {
                file.read_exact_at(&mut byte, at).unwrap();
                file.write_all_at(&[byte[0] ^ 1 << bit], at).unwrap();
                assert!(recovered(&folder).is_err(), "byte {at}, bit {bit}");
                file.write_all_at(&byte, at).unwrap();
            }
        }
        for bytes in [0, 31, 4096, 4100] {
            file.set_len(bytes).unwrap();
            assert!(recovered(&folder).is_err());
        }
    }

    // Threads fill all files but lose nothing, while another one folds.
    #[test]
    fn no_kill_is_lost_between_threads() {
        const KILLS: u32 = 5000;
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let journal = journal(&folder, 64);
        let mut seen = Vec::new();
        std::thread::scope(|scope| {
            let threads = [0, 1, 2].map(|thread| {
                let journal = &journal;
                scope.spawn(move || {
                    for number in 0..KILLS {
                        assert_ne!(journal.kill(place(thread * KILLS + number)), Stored::No);
                    }
                })
            });
            while !threads.iter().all(|thread| thread.is_finished()) {
                match journal.full() {
                    Some(places) => {
                        seen.extend(places);
                        journal.folded().unwrap();
                    }
                    None => std::thread::yield_now(),
                }
            }
        });
        seen.extend(recovered(&folder).unwrap());
        seen.sort_unstable();
        assert_eq!(seen, (0..3 * KILLS).map(place).collect::<Vec<_>>());
    }
}

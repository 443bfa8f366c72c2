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

mod file;
#[cfg(all(test, feature = "model"))]
mod models;
mod slot;

use std::io;
use std::time::{Duration, Instant};

use super::face::{OFFSET_BITS, Place};
use super::folder::{Folder, Sync};
use crate::fault::Point;
use crate::memory::WORD_BYTES;
use crate::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use crate::sync::{Condvar, Mutex, MutexGuard};

use file::JournalFile;
#[cfg(fuzzing)]
pub(super) use file::fuzz;
pub(super) use file::{Damaged, recover};

/// Files of the ring: one in use, one being folded, two ready.
pub(super) const FILES: usize = 4;
/// An offset that no record has: says that the whole segment is freed.
pub(super) const FREE_OFFSET: u32 = (1 << OFFSET_BITS) - 1;
/// How long a kill waits for a ready file before the tier fails instead.
const KILL_WAIT_MAX: Duration = Duration::from_secs(5);

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

impl Journal {
    /// Makes the ring empty, of four files with at least `bytes` of slots each. What it held must be
    /// folded already.
    pub(super) fn start(
        folder: &Folder,
        uuid: u64,
        bytes: u64,
        power: bool,
    ) -> io::Result<Journal> {
        let slots = (bytes / WORD_BYTES as u64).max(2).next_power_of_two();
        let mut files = Vec::with_capacity(FILES);
        for number in 0..FILES {
            files.push(file::start(
                folder,
                number,
                uuid,
                slots as usize,
                Sync::of(power),
            )?);
            Point::StartJournal.pass();
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
        self.store(slot::encode(place))
    }

    /// Stores that a whole segment is freed.
    pub(super) fn free(&self, segment: u32) -> Stored {
        self.store(slot::encode(Place {
            segment,
            offset: FREE_OFFSET,
        }))
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
        file.store(slot, word);
        if slot == 0 {
            Stored::NewFile
        } else {
            Stored::Yes
        }
    }

    #[cold]
    fn wait_until_ready(&self, generation: u64) -> bool {
        let deadline = Instant::now() + KILL_WAIT_MAX;
        let mut waiting = self.waiting.lock();
        while generation > self.ready.load(Acquire) {
            if self
                .made_ready
                .wait_until(&mut waiting, deadline)
                .timed_out()
            {
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
            let synced = MutexGuard::unlocked(&mut commits, || self.sync());
            commits.running = false;
            commits.done = number;
            commits.failed |= synced.is_err();
            self.committed.notify_all();
            synced?;
        }
        if commits.failed {
            Err(io::Error::other("the kill journal could not be synced"))
        } else {
            Ok(())
        }
    }

    /// Writes every file that may hold unfolded kills to the device.
    pub(super) fn sync(&self) -> io::Result<()> {
        let (first, last) = (
            self.folded.load(Acquire),
            self.ticket.load(Acquire) >> self.slot_bits,
        );
        for generation in first..=last.min(first + FILES as u64 - 1) {
            self.files[generation as usize % FILES].sync()?;
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
        let words = self.files[generation as usize % FILES].slots();
        let mut places = Vec::with_capacity(words.len());
        for word in words {
            match word.load(Acquire) {
                0 => return None,
                word => places.push(slot::decode(word).expect("stored by this process")),
            }
        }
        places.sort_unstable();
        Some(places)
    }

    /// Makes the oldest file ready again, after its kills are folded (and on the device, in power mode).
    pub(super) fn folded(&self) -> io::Result<()> {
        let generation = self.folded.load(Acquire);
        let file = &self.files[generation as usize % FILES];
        file::blank(file, Sync::of(self.power))?;
        self.folded.store(generation + 1, Release);
        self.make_ready(generation + FILES as u64);
        Ok(())
    }

    /// Nobody will read the journal again: kills go on without waiting for anything.
    pub(super) fn abandon(&self) {
        self.make_ready(u64::MAX);
    }

    fn make_ready(&self, generation: u64) {
        let waiting = self.waiting.lock();
        self.ready.fetch_max(generation, Release);
        drop(waiting);
        self.made_ready.notify_all();
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    const UUID: u64 = 77;

    fn place(number: u32) -> Place {
        Place {
            segment: 1 + number / 1000,
            offset: number % 1000,
        }
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
        assert!(
            recovered(&folder).is_err(),
            "missing files may have held kills"
        );
        let journal = journal(&folder, 64);
        assert_eq!(journal.kill(place(5)), Stored::NewFile);
        assert_eq!(journal.kill(place(4)), Stored::Yes);
        assert_eq!(journal.free(9), Stored::Yes);
        journal.commit().unwrap();
        assert_eq!(
            recovered(&folder).unwrap(),
            [
                place(4),
                place(5),
                Place {
                    segment: 9,
                    offset: FREE_OFFSET
                }
            ]
        );
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

    // Whoever commits finds its own kill in the file, whoever ran the sync.
    #[test]
    fn commits_are_shared() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let journal = journal(&folder, 1024);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (journal, folder) = (&journal, &folder);
                scope.spawn(move || {
                    for number in 0..20 {
                        let place = place(thread * 100 + number);
                        assert_ne!(journal.kill(place), Stored::No);
                        journal.commit().unwrap();
                        assert!(recovered(folder).unwrap().contains(&place));
                    }
                });
            }
        });
        let commits = journal.commits.lock();
        assert!(commits.started == commits.done && commits.done <= 80 && !commits.running);
    }
}

//! The tier's persisted numbers: a mapped page with two copies, each with its checksum.
//!
//! Every change writes copy A, then copy B. A crash in between leaves at least one sound copy that is
//! either the new state or the one before a call that had not returned; a rotten copy is replaced
//! by its twin, which says the same. Both unreadable: the folder is set aside.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::device::Device;
use super::folder::{Folder, STATE_FILE, Sync};
use crate::clock::{self, UnixSeconds};
use crate::fault::{self, Mutant, Point};
use crate::memory::Words;

const STATE_BYTES: usize = 4096;
/// Words of the encoded numbers.
pub(super) const FIELDS_WORDS: usize = 18;
/// The copies are in different sectors of the device.
const COPIES: [usize; 2] = [0, 256];
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"tiercdry");
/// How far apart two readings of one boot's time may lie.
const BOOT_TIME_SLACK_US: u64 = 5_000_000;

const CLEAN: u64 = 1;
const FAILED: u64 = 2;
const POWER: u64 = 4;
const ASTRAY: u64 = 8;

/// Which run of the machine this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Boot {
    /// The kernel's random id of it; zero where it could not be read.
    pub(super) id: [u64; 2],
    /// When it began by the wall clock, in microseconds: tells a restored snapshot of a running machine.
    pub(super) time_us: u64,
}

impl Boot {
    /// The present one.
    pub(super) fn current() -> Boot {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        let id = u128::from_str_radix(&hex, 16).unwrap_or(0);
        Boot {
            id: [(id >> 64) as u64, fault::boot().unwrap_or(id as u64)],
            time_us: clock::wall_us().saturating_sub(clock::boot_us()),
        }
    }

    /// Whether the page cache of that boot is still the present one.
    fn same(&self, other: &Boot) -> bool {
        self.id != [0; 2]
            && self.id == other.id
            && self.time_us.abs_diff(other.time_us) <= BOOT_TIME_SLACK_US
    }
}

/// What is persisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Fields {
    /// Which store this is; also mixed into the checksums of its records.
    pub(super) uuid: u64,
    /// Seed of all hashes.
    pub(super) seed: [u64; 2],
    /// The machine's run in which the folder was last used.
    pub(super) boot: Boot,
    /// Counts the starts.
    pub(super) incarnation: u64,
    /// The last run ended with everything on the device.
    pub(super) clean: bool,
    /// Nothing here may be trusted.
    pub(super) failed: bool,
    /// The last run committed kills to the device.
    pub(super) power: bool,
    /// A run has served from this folder without the remote store, whose manifest does not know of it: what that tells
    /// may be older than what this run's clients were told.
    pub(super) astray: bool,
    /// The latest time known; items that had expired by then stay so.
    pub(super) wall: UnixSeconds,
    /// Records with this version or a lower one are flushed.
    pub(super) flush_version: u64,
    /// Records in segments below this one are flushed.
    pub(super) flush_segment: u32,
    /// A flush is due then; 0 for none.
    pub(super) flush_deadline: UnixSeconds,
    /// A later run begins with versions from here on.
    pub(super) versions_reserved: u64,
    /// Segment ids from here on are unused.
    pub(super) next_segment: u32,
    /// Records with an exptime in segments below this one are dead: the clock had gone back.
    pub(super) untimed_segment: u32,
    /// Drawn at random by each start on a remote store, whose manifest says it too; 0 of older runs.
    pub(super) claim: u32,
    /// The manifest's claim that this run's takes the place of.
    pub(super) claim_before: u32,
}

impl Fields {
    pub(super) fn encode(&self) -> [u64; FIELDS_WORDS] {
        let bit = |on: bool, bit: u64| if on { bit } else { 0 };
        let marks = bit(self.clean, CLEAN)
            | bit(self.failed, FAILED)
            | bit(self.power, POWER)
            | bit(self.astray, ASTRAY);
        let mut words = [
            MAGIC,
            self.uuid,
            self.seed[0],
            self.seed[1],
            self.boot.id[0],
            self.boot.id[1],
            self.boot.time_us,
            self.incarnation,
            marks,
            u64::from(self.wall),
            self.flush_version,
            u64::from(self.flush_segment),
            u64::from(self.flush_deadline),
            self.versions_reserved,
            u64::from(self.next_segment),
            u64::from(self.untimed_segment),
            u64::from(self.claim) | u64::from(self.claim_before) << 32,
            0,
        ];
        words[FIELDS_WORDS - 1] = checksum(&words);
        words
    }

    pub(super) fn decode(words: &[u64; FIELDS_WORDS]) -> Option<Fields> {
        if words[0] != MAGIC || words[FIELDS_WORDS - 1] != checksum(words) {
            return None;
        }
        Some(Fields {
            uuid: words[1],
            seed: [words[2], words[3]],
            boot: Boot {
                id: [words[4], words[5]],
                time_us: words[6],
            },
            incarnation: words[7],
            clean: words[8] & CLEAN != 0,
            failed: words[8] & FAILED != 0,
            power: words[8] & POWER != 0,
            astray: words[8] & ASTRAY != 0,
            wall: words[9] as u32,
            flush_version: words[10],
            flush_segment: words[11] as u32,
            flush_deadline: words[12] as u32,
            versions_reserved: words[13],
            next_segment: words[14] as u32,
            untimed_segment: words[15] as u32,
            claim: words[16] as u32,
            claim_before: (words[16] >> 32) as u32,
        })
    }

    /// Whether the folder's content can be trusted now, else why not.
    pub(super) fn judge(&self, boot: &Boot) -> Result<(), &'static str> {
        if self.failed {
            Err("the tier had failed")
        } else if self.clean
            || self.power
            || self.boot.same(boot)
            || Mutant::TrustAnotherBoot.is_on()
        {
            Ok(())
        } else {
            Err(
                "the machine was restarted without a clean stop of tiercache (durability = process)",
            )
        }
    }
}

pub(super) fn checksum(words: &[u64; FIELDS_WORDS]) -> u64 {
    let mut hasher = crc32fast::Hasher::new();
    for word in &words[..FIELDS_WORDS - 1] {
        hasher.update(&word.to_le_bytes());
    }
    // The upper half makes a page of zeros unsound.
    u64::from(hasher.finalize()) | 0x7363_6162 << 32
}

/// The persisted numbers of a running tier.
#[derive(Debug)]
pub(super) struct State {
    words: Words,
    file: File,
    device: Device,
    fields: Mutex<Fields>,
    /// Copies that are read without the lock.
    flush_version: AtomicU64,
    flush_segment: AtomicU64,
}

impl State {
    /// What a folder's state file says; `Ok(None)` where it is missing or unsound.
    pub(super) fn read(folder: &Folder) -> io::Result<Option<Fields>> {
        let bytes = match folder.read(STATE_FILE) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if bytes.len() != STATE_BYTES {
            return Ok(None);
        }
        // Copy A is written first: where both are sound it is the newer one.
        Ok(COPIES.iter().find_map(|start| {
            let words = std::array::from_fn(|word| {
                let at = (start + word) * 8;
                u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
            });
            Fields::decode(&words)
        }))
    }

    /// Opens (or makes) the state file and gives it this content, on the device when it returns.
    pub(super) fn start(folder: &Folder, fields: Fields) -> io::Result<State> {
        let file = match folder.open_file(STATE_FILE) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(folder)?,
            Err(error) => return Err(error),
        };
        let state = State {
            words: Words::map_file(&file, STATE_BYTES)?,
            file,
            device: folder.device().clone(),
            fields: Mutex::new(fields),
            flush_version: AtomicU64::new(fields.flush_version),
            flush_segment: AtomicU64::new(u64::from(fields.flush_segment)),
        };
        state.update(Sync::Device, |_| {})?;
        folder.sync()?;
        Ok(state)
    }

    /// Changes the numbers, durably as `sync` says when it returns. Takes effect in the page cache
    /// even where the device answers with an error.
    pub(super) fn update(&self, sync: Sync, change: impl FnOnce(&mut Fields)) -> io::Result<()> {
        let mut fields = self.fields.lock();
        change(&mut fields);
        let encoded = fields.encode();
        let mut synced = Ok(());
        for start in COPIES {
            for (word, value) in (start..).zip(encoded) {
                self.device.store(&self.file, &self.words, word, value);
            }
            // The first copy is whole before the second one is touched.
            Point::StateTorn.pass();
            std::sync::atomic::fence(Ordering::SeqCst);
            if sync == Sync::Device {
                synced = synced.and(self.device.sync(&self.file));
            }
        }
        self.flush_segment
            .store(u64::from(fields.flush_segment), Ordering::Release);
        self.flush_version
            .store(fields.flush_version, Ordering::Release);
        synced
    }

    /// The numbers as they are now.
    pub(super) fn fields(&self) -> Fields {
        *self.fields.lock()
    }

    /// [`Fields::flush_version`].
    pub(super) fn flush_version(&self) -> u64 {
        self.flush_version.load(Ordering::Acquire)
    }

    /// [`Fields::flush_segment`].
    pub(super) fn flush_segment(&self) -> u32 {
        self.flush_segment.load(Ordering::Acquire) as u32
    }
}

fn make(folder: &Folder) -> io::Result<File> {
    folder.replace(STATE_FILE, &[0; STATE_BYTES], Sync::Device)?;
    folder.open_file(STATE_FILE)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    fn some() -> Fields {
        Fields {
            uuid: 1,
            seed: [2, 3],
            boot: Boot {
                id: [4, 5],
                time_us: 6,
            },
            incarnation: 7,
            power: true,
            astray: true,
            wall: 8,
            flush_version: 9,
            flush_segment: 10,
            flush_deadline: 11,
            versions_reserved: 12,
            next_segment: 13,
            untimed_segment: 14,
            claim: 15,
            claim_before: 16,
            ..Fields::default()
        }
    }

    // Whatever single bit rots, the state reads back as it was.
    #[test]
    fn one_rotten_bit_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        assert_eq!(State::read(&folder).unwrap(), None);
        drop(State::start(&folder, some()).unwrap());
        let file = folder.open_file(STATE_FILE).unwrap();
        let mut byte = [0];
        for at in 0..STATE_BYTES as u64 {
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 16], at).unwrap();
            assert_eq!(State::read(&folder).unwrap(), Some(some()), "byte {at}");
            file.write_all_at(&byte, at).unwrap();
        }
        // Cut at any length it is not a state.
        for bytes in [0, 100, 4095] {
            file.set_len(bytes).unwrap();
            assert_eq!(State::read(&folder).unwrap(), None);
        }
    }

    // A crash after any word of an update leaves the old state or the new one.
    #[test]
    fn a_torn_update_is_the_old_or_the_new_state() {
        let (old, new) = (
            some(),
            Fields {
                flush_version: 99,
                incarnation: 8,
                ..some()
            },
        );
        let mut words = [old.encode(), old.encode()];
        for word in 0..2 * FIELDS_WORDS {
            words[word / FIELDS_WORDS][word % FIELDS_WORDS] = new.encode()[word % FIELDS_WORDS];
            let read = words.iter().find_map(Fields::decode).unwrap();
            assert!(read == old || read == new, "word {word}");
        }
    }

    #[test]
    fn only_an_intact_page_cache_or_a_clean_stop_is_trusted() {
        let boot = Boot {
            id: [4, 5],
            time_us: 1_000_000_000,
        };
        let dirty = Fields {
            boot,
            ..Fields::default()
        };
        assert!(dirty.judge(&boot).is_ok());
        assert!(
            dirty
                .judge(&Boot {
                    time_us: boot.time_us + 4_000_000,
                    ..boot
                })
                .is_ok()
        );
        assert!(
            dirty
                .judge(&Boot {
                    time_us: boot.time_us + 6_000_000,
                    ..boot
                })
                .is_err()
        );
        let other = Boot { id: [4, 6], ..boot };
        assert!(dirty.judge(&other).is_err());
        assert!(
            Fields {
                clean: true,
                ..dirty
            }
            .judge(&other)
            .is_ok()
        );
        assert!(
            Fields {
                power: true,
                ..dirty
            }
            .judge(&other)
            .is_ok()
        );
        assert!(
            Fields {
                clean: true,
                failed: true,
                ..dirty
            }
            .judge(&boot)
            .is_err()
        );
        assert!(
            Fields::default().judge(&Boot::default()).is_err(),
            "unreadable ids never match"
        );
        assert_ne!(Boot::current().id, [0; 2]);
    }
}

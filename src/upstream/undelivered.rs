//! Deletes that a server did not acknowledge, in a file, until it does.
//!
//! A server that comes back may still have what a client was told is gone, or was told may be
//! gone. Until the delete has reached it, nobody reads that key from it, not even after a restart.
//!
//! The file is a list of records: length of the key (2 bytes, little-endian), the key, CRC-32 of
//! both. An empty key stands for all keys. A record that is not whole ends the list: the process died while it wrote it, and nobody
//! had its answer.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::entry::KEY_BYTES_MAX;

/// Keys that are remembered one by one. Beyond it the server is flushed before it is used again.
const KEYS_MAX: usize = 100_000;

/// The key of no item, which stands for all of them.
const EVERYTHING: &[u8] = b"";

/// The deletes that one server missed.
#[derive(Debug)]
pub(super) struct Undelivered {
    path: PathBuf,
    count: AtomicUsize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    keys: HashSet<Box<[u8]>>,
    /// Too many keys, or the file could not be written: everything has to go.
    overflow: bool,
    file: Option<File>,
}

/// What a server has to be told before it is used again.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Missed {
    /// Delete these.
    Keys(Vec<Box<[u8]>>),
    /// Forget everything.
    Everything,
}

impl Undelivered {
    /// Reads what the file holds; a file that is not there holds nothing.
    pub(super) fn open(path: PathBuf) -> io::Result<Undelivered> {
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let keys: HashSet<Box<[u8]>> = records(&bytes).map(Box::from).collect();
        let overflow = keys.len() > KEYS_MAX || keys.contains(EVERYTHING);
        Ok(Undelivered {
            path,
            count: AtomicUsize::new(keys.len()),
            kept: Mutex::new(Kept {
                keys,
                overflow,
                file: None,
            }),
        })
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.count.load(Relaxed)
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    pub(super) fn has(&self, key: &[u8]) -> bool {
        !self.is_empty() && {
            let kept = self.kept.lock();
            kept.overflow || kept.keys.contains(key)
        }
    }

    /// Keeps a flush.
    pub(super) fn add_everything(&self) {
        self.add(EVERYTHING);
    }

    /// Keeps a delete.
    pub(super) fn add(&self, key: &[u8]) {
        let mut kept = self.kept.lock();
        if kept.overflow || !kept.keys.insert(Box::from(key)) {
            return;
        }
        if kept.keys.len() > KEYS_MAX || key == EVERYTHING {
            kept.overflow = true;
        }
        self.count.store(kept.keys.len(), Relaxed);
        if let Err(error) = append(&mut kept.file, &self.path, key) {
            // Remembered until the process ends; then only a flush is safe, which nobody would know.
            tracing::error!(%error, path = %self.path.display(), "keep an undelivered delete");
        }
    }

    /// What is to be delivered now; nothing if there is none.
    pub(super) fn missed(&self) -> Option<Missed> {
        let kept = self.kept.lock();
        if kept.overflow {
            return Some(Missed::Everything);
        }
        let keys: Vec<Box<[u8]>> = kept.keys.iter().cloned().collect();
        (!keys.is_empty()).then_some(Missed::Keys(keys))
    }

    /// Forgets what was delivered.
    pub(super) fn delivered(&self, what: &Missed) {
        let mut kept = self.kept.lock();
        match what {
            Missed::Everything => *kept = Kept::default(),
            Missed::Keys(keys) => {
                for key in keys {
                    kept.keys.remove(key);
                }
            }
        }
        self.count.store(kept.keys.len(), Relaxed);
        if kept.keys.is_empty() {
            kept.file = None;
            // A file that stays only costs another round of deletes after a restart.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn append(file: &mut Option<File>, path: &Path, key: &[u8]) -> io::Result<()> {
    let file = match file {
        Some(file) => file,
        None => file.insert(
            OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(path)?,
        ),
    };
    let mut record = Vec::with_capacity(2 + key.len() + 4);
    record.extend_from_slice(&(key.len() as u16).to_le_bytes());
    record.extend_from_slice(key);
    record.extend_from_slice(&crc32fast::hash(&record).to_le_bytes());
    // One write: a killed process leaves the whole record or an end that does not check.
    file.write_all(&record)
}

fn records(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, _) = bytes.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_le_bytes(*length));
        if length > KEY_BYTES_MAX {
            return None;
        }
        let (record, rest) = bytes.split_at_checked(2 + length)?;
        let (check, rest) = rest.split_first_chunk::<4>()?;
        if crc32fast::hash(record) != u32::from_le_bytes(*check) {
            return None;
        }
        bytes = rest;
        Some(&record[2..])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deletes_outlive_the_process_until_they_are_delivered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server");
        let kept = Undelivered::open(path.clone()).unwrap();
        assert!(kept.is_empty() && !kept.has(b"a"));
        kept.add(b"a");
        kept.add(b"b\n");
        kept.add(b"a");
        drop(kept);
        let kept = Undelivered::open(path.clone()).unwrap();
        assert!(kept.has(b"a") && kept.has(b"b\n") && !kept.has(b"c"));
        let missed = kept.missed().unwrap();
        kept.add(b"c");
        kept.delivered(&missed);
        assert_eq!(
            kept.missed(),
            Some(Missed::Keys(vec![Box::from(&b"c"[..])]))
        );
        kept.delivered(&Missed::Keys(vec![Box::from(&b"c"[..])]));
        assert!(kept.missed().is_none() && !path.exists());
    }

    #[test]
    fn a_torn_record_ends_the_list() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server");
        let kept = Undelivered::open(path.clone()).unwrap();
        kept.add(b"whole");
        kept.add(b"torn");
        let bytes = fs::read(&path).unwrap();
        for cut in 11..bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            let kept = Undelivered::open(path.clone()).unwrap();
            assert!(kept.has(b"whole") && !kept.has(b"torn"), "{cut}");
        }
    }
}

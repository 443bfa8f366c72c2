//! Deletes that a server did not acknowledge, in a file, until it does.
//!
//! A server that comes back may still have what a client was told is gone, or was told may be
//! gone. Until the delete has reached it, nobody reads that key from it, not even after a restart.
//!
//! The file is a list of records: length of the key (2 bytes, little-endian), the key, CRC-32 of
//! both. An empty key stands for all keys. A record that is not whole ends the list: the process died while it wrote it, and nobody
//! had its answer.

use std::collections::HashMap;
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
    /// The keys, each with the number of the last delete of it that was missed.
    keys: HashMap<Box<[u8]>, u64>,
    /// Too many keys, or the file could not be written: everything has to go.
    overflow: bool,
    /// Deletes that were missed so far.
    count: u64,
    file: Option<File>,
}

/// What a server has to be told before it is used again.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missed {
    pub(super) what: What,
    /// Deletes that were missed until then. What comes later is not delivered with it.
    until: u64,
}

/// What was missed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum What {
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
        let keys: HashMap<Box<[u8]>, u64> =
            records(&bytes).map(|key| (Box::from(key), 0)).collect();
        let overflow = keys.len() > KEYS_MAX || keys.contains_key(EVERYTHING);
        Ok(Undelivered {
            path,
            count: AtomicUsize::new(keys.len()),
            kept: Mutex::new(Kept {
                keys,
                overflow,
                count: 0,
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
            kept.overflow || kept.keys.contains_key(key)
        }
    }

    /// Keeps a flush.
    pub(super) fn add_everything(&self) {
        self.add(EVERYTHING);
    }

    /// Keeps a delete.
    pub(super) fn add(&self, key: &[u8]) {
        let kept = &mut *self.kept.lock();
        kept.count += 1;
        if kept.overflow || kept.keys.insert(Box::from(key), kept.count).is_some() {
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
        let what = if kept.overflow {
            What::Everything
        } else if kept.keys.is_empty() {
            return None;
        } else {
            What::Keys(kept.keys.keys().cloned().collect())
        };
        let until = kept.count;
        Some(Missed { what, until })
    }

    /// Forgets what was delivered, but for what was missed again meanwhile.
    pub(super) fn delivered(&self, missed: &Missed) {
        let kept = &mut *self.kept.lock();
        match &missed.what {
            What::Everything if kept.count > missed.until => return,
            What::Everything => {
                *kept = Kept {
                    count: kept.count,
                    ..Kept::default()
                };
            }
            What::Keys(keys) => {
                for key in keys {
                    if kept
                        .keys
                        .get(key)
                        .is_some_and(|number| *number <= missed.until)
                    {
                        kept.keys.remove(key);
                    }
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
        assert_eq!(keys(&kept), [Box::from(&b"c"[..])]);
        kept.delivered(&kept.missed().unwrap());
        assert!(kept.missed().is_none() && !path.exists());
    }

    fn keys(kept: &Undelivered) -> Vec<Box<[u8]>> {
        match kept.missed().unwrap().what {
            What::Keys(keys) => keys,
            What::Everything => panic!("everything was missed"),
        }
    }

    // The story of a delete that was never delivered: while one was under way to a server, the key was stored again and
    // deleted again, and the server missed that delete too. The answer to the first one was taken for both.
    #[test]
    fn what_is_missed_again_during_a_delivery_is_delivered_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server");
        let kept = Undelivered::open(path.clone()).unwrap();
        kept.add(b"a");
        let missed = kept.missed().unwrap();
        kept.add(b"a");
        kept.delivered(&missed);
        assert_eq!(keys(&kept), [Box::from(&b"a"[..])]);
        assert!(path.exists());
        kept.add_everything();
        let missed = kept.missed().unwrap();
        kept.add(b"b");
        kept.delivered(&missed);
        assert!(kept.has(b"any"));
        kept.delivered(&kept.missed().unwrap());
        assert!(kept.is_empty() && !path.exists());
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

//! A list of keys in a file, which outlives the process from the moment that it is written.
//!
//! ```text
//! file    record, record, …
//! record  length of the key, its complement (2 bytes each, little-endian), the key, CRC-32 of all before it
//! ```
//! An empty key stands for all keys. A record that ends before it is whole ends the list: the process died while it wrote
//! it, and nobody was told that the key is kept. Any other damage means that nobody knows which keys were behind it: the
//! list is of all keys then.
//!
//! What is written is in the page cache: it survives the process, not a loss of power.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use crate::entry::KEY_BYTES_MAX;

/// The key of no item, which stands for all of them.
pub(super) const EVERYTHING: &[u8] = b"";

/// Bytes of a record before its key.
const HEAD_BYTES: usize = 4;
/// Bytes of a record behind its key.
const CHECK_BYTES: usize = 4;
/// Keys that could not be written and are tried again one by one. Beyond it all keys are written instead, as one.
const UNWRITTEN_MAX: usize = 1024;

/// The list, and what of it is not in its file yet.
#[derive(Debug)]
pub(super) struct List {
    path: PathBuf,
    /// Opened with the first write.
    file: Option<File>,
    /// Bytes of whole records at the beginning of the file.
    whole_bytes: u64,
    /// Records in these bytes.
    records: usize,
    records_max: usize,
    /// Whether something else may be behind them, which has to go before the next record.
    is_torn: bool,
    /// Whether the next start takes the file for a list of all keys, whatever else is in it.
    is_of_everything: bool,
    /// Keys that are not in the file, because it could not be written.
    unwritten: Vec<Box<[u8]>>,
    is_failing: bool,
}

impl List {
    /// Reads the list, and changes nothing; a file that is not there is an empty one. With more than `records_max` records
    /// it becomes a list of all keys.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn open(path: PathBuf, records_max: usize) -> io::Result<(List, Vec<Box<[u8]>>)> {
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let (mut keys, mut whole_bytes, mut damaged) = (Vec::new(), 0, false);
        loop {
            match first_record(&bytes[whole_bytes..]) {
                Record::Whole { key, bytes } => {
                    keys.push(Box::from(key));
                    whole_bytes += bytes;
                }
                Record::Torn => break,
                Record::Damaged => {
                    damaged = true;
                    break;
                }
            }
        }
        let records = keys.len();
        if damaged {
            tracing::error!(path = %path.display(), "damaged, so the server is told to forget everything");
            keys.push(Box::from(EVERYTHING));
        }
        let list = List {
            path,
            file: None,
            whole_bytes: whole_bytes as u64,
            records,
            records_max,
            is_torn: whole_bytes < bytes.len(),
            is_of_everything: keys.iter().any(|key| **key == *EVERYTHING),
            unwritten: Vec::new(),
            is_failing: false,
        };
        Ok((list, keys))
    }

    /// Adds a key. Whether it and all before it outlive the process, [`List::write`] tells.
    pub(super) fn push(&mut self, key: &[u8]) {
        if self.is_of_everything {
            return;
        }
        let written = self.records + self.unwritten.len();
        if key == EVERYTHING || self.unwritten.len() >= UNWRITTEN_MAX || written >= self.records_max
        {
            self.unwritten.clear();
            self.unwritten.push(Box::from(EVERYTHING));
        } else {
            self.unwritten.push(Box::from(key));
        }
    }

    /// Writes what is not written yet; true if now the whole list outlives the process. A later call tries again what
    /// failed.
    pub(super) fn write(&mut self) -> bool {
        if self.unwritten.is_empty() {
            return true;
        }
        let appended = self.append();
        // Told once for all that fail in a row.
        if let (Err(error), false) = (&appended, self.is_failing) {
            tracing::error!(%error, path = %self.path.display(), "keep an undelivered delete");
        }
        self.is_failing = appended.is_err();
        appended.is_ok()
    }

    fn append(&mut self) -> io::Result<()> {
        let mut records = Vec::new();
        for key in &self.unwritten {
            write_record(&mut records, key);
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(
                OpenOptions::new()
                    .create(true)
                    .append(true)
                    .mode(0o600)
                    .open(&self.path)?,
            ),
        };
        if self.is_torn {
            file.set_len(self.whole_bytes)?;
        }
        self.is_torn = true;
        // One write: a killed process leaves whole records and perhaps a torn one.
        file.write_all(&records)?;
        self.is_torn = false;
        self.whole_bytes += records.len() as u64;
        self.records += self.unwritten.len();
        self.is_of_everything = self.unwritten.iter().any(|key| **key == *EVERYTHING);
        self.unwritten.clear();
        Ok(())
    }

    /// Forgets keys that could not be written and are not to be `kept` any more.
    pub(super) fn keep_only(&mut self, kept: impl Fn(&[u8]) -> bool) {
        self.unwritten
            .retain(|key| **key == *EVERYTHING || kept(key));
    }

    /// Empties the list.
    pub(super) fn clear(&mut self) {
        self.unwritten.clear();
        self.file = None;
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                // A file that stays only costs another round of deletes after a restart.
                tracing::warn!(%error, path = %self.path.display(), "remove the deletes that were delivered");
            }
            _ => {
                (self.whole_bytes, self.records) = (0, 0);
                (self.is_torn, self.is_of_everything) = (false, false);
            }
        }
    }
}

fn write_record(out: &mut Vec<u8>, key: &[u8]) {
    let begin = out.len();
    let length = key.len() as u16;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
    out.extend_from_slice(key);
    let check = crc32fast::hash(&out[begin..]);
    out.extend_from_slice(&check.to_le_bytes());
}

/// What bytes begin with.
enum Record<'a> {
    Whole {
        key: &'a [u8],
        /// Of the record.
        bytes: usize,
    },
    /// Nothing, or the beginning of a record.
    Torn,
    /// No record.
    Damaged,
}

fn first_record(bytes: &[u8]) -> Record<'_> {
    let Some((&[low, high, not_low, not_high], rest)) = bytes.split_first_chunk::<HEAD_BYTES>()
    else {
        return Record::Torn;
    };
    let length = u16::from_le_bytes([low, high]);
    let complement = u16::from_le_bytes([not_low, not_high]);
    // Without it, damage to a length would look like a torn record and hide all behind it.
    if length != !complement || usize::from(length) > KEY_BYTES_MAX {
        return Record::Damaged;
    }
    let length = usize::from(length);
    if rest.len() < length + CHECK_BYTES {
        return Record::Torn;
    }
    let (record, rest) = bytes.split_at(HEAD_BYTES + length);
    let check = crc32fast::hash(record).to_le_bytes();
    if !rest.starts_with(&check) {
        return Record::Damaged;
    }
    Record::Whole {
        key: &record[HEAD_BYTES..],
        bytes: record.len() + CHECK_BYTES,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;

    const KEYS: [&[u8]; 3] = [b"first", b"", b"third"];
    const RECORDS_MAX: usize = 10;

    fn open(path: &Path) -> (List, Vec<Box<[u8]>>) {
        List::open(path.to_owned(), RECORDS_MAX).unwrap()
    }

    fn add(list: &mut List, key: &[u8]) -> bool {
        list.push(key);
        list.write()
    }

    /// A file with the records of these keys, and where each begins and the last ends.
    fn with(keys: &[&[u8]]) -> (TempDir, PathBuf, Vec<usize>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server");
        let mut bytes = Vec::new();
        let mut bounds = vec![0];
        for key in keys {
            write_record(&mut bytes, key);
            bounds.push(bytes.len());
        }
        fs::write(&path, bytes).unwrap();
        (folder, path, bounds)
    }

    fn is_everything(keys: &[Box<[u8]>]) -> bool {
        keys.iter().any(|key| key.is_empty())
    }

    // The story of a delete that was forgotten: a record was torn by a kill, the next process appended behind it, and the
    // one after that read nothing of what was there.
    #[test]
    fn what_is_added_behind_a_torn_record_is_found() {
        let (_folder, path, bounds) = with(&[b"first", b"second", b"third"]);
        let bytes = fs::read(&path).unwrap();
        for cut in 0..=bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            let whole = bounds[1..].iter().filter(|bound| **bound <= cut).count();
            let (mut list, keys) = open(&path);
            assert_eq!(keys.len(), whole, "{cut}");
            // Whoever only looks changes nothing.
            assert_eq!(fs::read(&path).unwrap(), bytes[..cut], "{cut}");
            assert!(add(&mut list, b"later"), "{cut}");
            let (_, again) = open(&path);
            assert_eq!(again[..whole], keys, "{cut}");
            assert_eq!(again[whole..], [Box::from(&b"later"[..])], "{cut}");
        }
    }

    // Nobody knows which keys were behind the damage.
    #[test]
    fn a_damaged_record_stands_for_everything() {
        for keys in [[&b"first"[..], b"second", b"third"], KEYS] {
            let (_folder, path, _) = with(&keys);
            let bytes = fs::read(&path).unwrap();
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                fs::write(&path, &flipped).unwrap();
                let (mut list, keys) = open(&path);
                assert!(is_everything(&keys), "bit {bit}");
                assert!(add(&mut list, b"later"), "bit {bit}");
                assert!(is_everything(&open(&path).1), "bit {bit}");
                list.clear();
                assert!(add(&mut list, b"later"), "bit {bit}");
                assert_eq!(open(&path).1, [Box::from(&b"later"[..])], "bit {bit}");
            }
        }
    }

    // A file of another format or of nulls, as a loss of power may leave.
    #[test]
    fn other_bytes_stand_for_everything() {
        let (_folder, path, _) = with(&[]);
        for bytes in [&[0; 64][..], b"\x01\x00a0000", b"tiercache"] {
            fs::write(&path, bytes).unwrap();
            assert!(is_everything(&open(&path).1), "{bytes:?}");
        }
    }

    // A disk that is full for a while: what could not be written is tried again, behind the last whole record.
    #[test]
    fn what_could_not_be_written_is_written_later() {
        let (_folder, path, _) = with(&[b"first"]);
        let (mut list, _) = open(&path);
        // A descriptor that cannot be written to, and half a record of an earlier attempt.
        list.file = Some(File::open(&path).unwrap());
        assert!(!add(&mut list, b"second"));
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend_from_slice(&6_u16.to_le_bytes());
        fs::write(&path, bytes).unwrap();
        assert!(!add(&mut list, b"third") && !list.write());
        list.file = None;
        assert!(list.write());
        let keys: Vec<Vec<u8>> = open(&path).1.into_iter().map(Vec::from).collect();
        assert_eq!(keys, [&b"first"[..], b"second", b"third"]);
    }

    // Neither the file nor what waits for it grows without bound.
    #[test]
    fn too_many_keys_become_everything() {
        let (_folder, path, _) = with(&[]);
        let (mut list, _) = open(&path);
        for _ in 0..RECORDS_MAX {
            assert!(add(&mut list, b"key"));
        }
        assert!(!is_everything(&open(&path).1));
        assert!(add(&mut list, b"key"));
        let size = fs::metadata(&path).unwrap().len();
        assert!(add(&mut list, b"key") && is_everything(&open(&path).1));
        assert_eq!(fs::metadata(&path).unwrap().len(), size);

        let (_folder, path, _) = with(&[]);
        let (mut list, _) = List::open(path.clone(), usize::MAX).unwrap();
        list.file = Some(File::open(&path).unwrap());
        for _ in 0..=UNWRITTEN_MAX {
            assert!(!add(&mut list, b"key"));
        }
        assert_eq!(list.unwritten.len(), 1);
        list.file = None;
        assert!(list.write() && is_everything(&open(&path).1));
    }
}

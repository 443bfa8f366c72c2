//! Deletes that a server did not acknowledge, in a file, until it does.
//!
//! A server that comes back may still have what a client was told is gone, or was told may be
//! gone. Until the delete has reached it, nobody reads that key from it, not even after a restart.

mod list;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use list::{EVERYTHING, List};

/// Keys that are remembered one by one. Beyond it the server is flushed before it is used again.
const KEYS_MAX: usize = 100_000;

/// The deletes that one server missed.
#[derive(Debug)]
pub(super) struct Undelivered {
    count: AtomicUsize,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    /// The keys, each with the number of the last delete of it that was missed.
    keys: HashMap<Box<[u8]>, u64>,
    /// Too many keys, or nobody knows which: everything has to go.
    overflow: bool,
    /// Deletes that were missed so far.
    count: u64,
    list: List,
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
        let (list, keys) = List::open(path, KEYS_MAX)?;
        let keys: HashMap<Box<[u8]>, u64> = keys.into_iter().map(|key| (key, 0)).collect();
        let overflow = keys.len() > KEYS_MAX || keys.contains_key(EVERYTHING);
        Ok(Undelivered {
            count: AtomicUsize::new(keys.len()),
            kept: Mutex::new(Kept {
                keys,
                overflow,
                count: 0,
                list,
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

    /// Keeps a flush; true if it outlives the process.
    pub(super) fn add_everything(&self) -> bool {
        self.add(EVERYTHING)
    }

    /// Keeps a delete; true if it outlives the process. If not, it is remembered until the process ends, and written with
    /// a later one if possible.
    pub(super) fn add(&self, key: &[u8]) -> bool {
        let kept = &mut *self.kept.lock();
        kept.count += 1;
        if !kept.overflow && kept.keys.insert(Box::from(key), kept.count).is_none() {
            kept.overflow = kept.keys.len() > KEYS_MAX || key == EVERYTHING;
            kept.list.push(if kept.overflow { EVERYTHING } else { key });
            self.count.store(kept.keys.len(), Relaxed);
        }
        kept.list.write()
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
                kept.keys.clear();
                kept.overflow = false;
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
            kept.list.clear();
        } else {
            let Kept { keys, list, .. } = kept;
            list.keep_only(|key| keys.contains_key(key));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

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

    // The server has to be told everything, is not used before, and what is missed from then on is kept as well.
    #[test]
    fn a_damaged_file_stands_for_everything_until_it_is_delivered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server");
        fs::write(&path, "damaged").unwrap();
        let kept = Undelivered::open(path.clone()).unwrap();
        assert!(kept.has(b"any") && !kept.is_empty() && kept.add(b"a"));
        let missed = kept.missed().unwrap();
        assert_eq!(missed.what, What::Everything);
        kept.delivered(&missed);
        assert!(kept.is_empty() && kept.add(b"b"));
        let kept = Undelivered::open(path).unwrap();
        assert_eq!(keys(&kept), [Box::from(&b"b"[..])]);
    }

    // Who is told that a delete is kept can rely on it; who is not told so may still find it kept.
    #[test]
    fn a_delete_that_cannot_be_written_is_written_with_a_later_one() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        let path = missing.join("server");
        let kept = Undelivered::open(path.clone()).unwrap();
        assert!(!kept.add(b"a") && !kept.add(b"a") && !kept.add(b"b") && kept.has(b"a"));
        let missed = kept.missed().unwrap();
        assert!(!kept.add(b"b") && !kept.add(b"c"));
        kept.delivered(&missed);
        fs::create_dir(&missing).unwrap();
        // It is in the list already, but not in the file.
        assert!(kept.add(b"b"));
        let mut written = keys(&Undelivered::open(path.clone()).unwrap());
        written.sort();
        assert_eq!(written, [Box::from(&b"b"[..]), Box::from(&b"c"[..])]);

        let kept = Undelivered::open(missing.join("other")).unwrap();
        fs::remove_dir_all(&missing).unwrap();
        assert!(!kept.add_everything() && !kept.add(b"a"));
        fs::create_dir(&missing).unwrap();
        assert!(kept.add(b"a"));
        assert!(
            Undelivered::open(missing.join("other"))
                .unwrap()
                .has(b"any")
        );
    }
}

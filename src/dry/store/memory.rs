//! A remote store in memory, with faults to order, for tests.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::remote::{Listed, Remote, Tag};

/// Objects in memory. Shared by several tiers it is what several machines see.
#[derive(Debug, Default)]
pub(in super::super) struct MemoryRemote {
    objects: Mutex<HashMap<String, Object>>,
    writes: AtomicU64,
    /// Reads that were served.
    pub(in super::super) reads: AtomicU64,
    /// All calls fail.
    pub(in super::super) down: AtomicBool,
    /// The next put takes effect and answers with an error all the same.
    pub(in super::super) ambiguous_put: AtomicBool,
    /// The next read returns one wrong bit.
    pub(in super::super) flip_bit: AtomicBool,
    /// So many of the next small objects come with a wrong bit.
    pub(in super::super) damaged_gets: AtomicU64,
    /// Objects cannot be put.
    pub(in super::super) unwritable: AtomicBool,
    /// Small objects cannot be replaced.
    pub(in super::super) frozen: AtomicBool,
}

#[derive(Debug)]
struct Object {
    bytes: Vec<u8>,
    tag: Tag,
    written: Instant,
}

impl MemoryRemote {
    /// A store with these objects.
    pub(in super::super) fn with(objects: &BTreeMap<String, Vec<u8>>) -> MemoryRemote {
        let remote = MemoryRemote::default();
        for (name, bytes) in objects {
            remote.write(name, bytes.clone());
        }
        remote
    }

    /// The names of all objects, sorted.
    pub(in super::super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.objects.lock().keys().cloned().collect();
        names.sort();
        names
    }

    fn up(&self) -> io::Result<()> {
        if self.down.load(SeqCst) {
            return Err(io::Error::other("the store is down"));
        }
        Ok(())
    }

    fn write(&self, name: &str, bytes: Vec<u8>) -> Tag {
        let tag = Tag(self.writes.fetch_add(1, SeqCst).to_string());
        let object = Object {
            bytes,
            tag: tag.clone(),
            written: Instant::now(),
        };
        self.objects.lock().insert(name.to_owned(), object);
        tag
    }
}

impl Remote for MemoryRemote {
    fn place(&self) -> &str {
        "memory"
    }

    fn put(&self, name: &str, file: &Path, bytes: u64) -> io::Result<()> {
        self.up()?;
        if self.unwritable.load(SeqCst) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let content = std::fs::read(file)?;
        assert_eq!(content.len() as u64, bytes, "the file is complete");
        self.write(name, content);
        if self.ambiguous_put.swap(false, SeqCst) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }

    fn read(&self, name: &str, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.up()?;
        let objects = self.objects.lock();
        let object = objects.get(name).ok_or(io::ErrorKind::NotFound)?;
        let range = at as usize..at as usize + out.len();
        let bytes = object
            .bytes
            .get(range)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        self.reads.fetch_add(1, SeqCst);
        if self.flip_bit.swap(false, SeqCst) {
            let middle = out.len() / 2;
            out[middle] ^= 4;
        }
        Ok(())
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        self.up()?;
        self.objects.lock().remove(name);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<Listed>> {
        self.up()?;
        let objects = self.objects.lock();
        Ok(objects
            .iter()
            .map(|(name, object)| Listed {
                name: name.clone(),
                age: object.written.elapsed().max(Duration::from_nanos(1)),
            })
            .collect())
    }

    fn get(&self, name: &str) -> io::Result<Option<(Vec<u8>, Tag)>> {
        self.up()?;
        let objects = self.objects.lock();
        let found = objects.get(name);
        let mut found = found.map(|object| (object.bytes.clone(), object.tag.clone()));
        let take_one = |left: u64| left.checked_sub(1);
        if let Some((bytes, _)) = &mut found
            && self
                .damaged_gets
                .fetch_update(SeqCst, SeqCst, take_one)
                .is_ok()
        {
            bytes[20] ^= 1;
        }
        Ok(found)
    }

    fn replace(&self, name: &str, bytes: Vec<u8>, before: Option<&Tag>) -> io::Result<Option<Tag>> {
        self.up()?;
        if self.frozen.load(SeqCst) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        if self.objects.lock().get(name).map(|object| &object.tag) != before {
            return Ok(None);
        }
        Ok(Some(self.write(name, bytes)))
    }
}

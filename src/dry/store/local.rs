//! Segments as files `seg-N.data` of the dry folder.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::fs::Advice;
use rustix::io::{Errno, ReadWriteFlags};

use super::super::device::Device;
use super::super::folder::Folder;
use super::{SegmentFile, SegmentStore};

/// Segments in a folder of this machine.
pub(in super::super) struct LocalStore {
    folder: Arc<Folder>,
}

struct LocalFile {
    file: File,
    device: Device,
    /// The file system cannot tell whether a read would wait.
    no_cached_reads: AtomicBool,
}

impl LocalStore {
    pub(in super::super) fn new(folder: Arc<Folder>) -> LocalStore {
        LocalStore { folder }
    }
}

pub(super) fn file_name(segment: u32) -> String {
    format!("seg-{segment}.data")
}

fn segment_of(name: &str) -> Option<u32> {
    name.strip_prefix("seg-")?
        .strip_suffix(".data")?
        .parse()
        .ok()
}

impl LocalStore {
    fn opened(&self, file: File) -> Arc<dyn SegmentFile> {
        // Records are read one by one from anywhere: reading ahead would only fill the page cache.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::Random);
        Arc::new(LocalFile {
            file,
            device: self.folder.device().clone(),
            no_cached_reads: AtomicBool::new(false),
        })
    }
}

impl SegmentStore for LocalStore {
    fn create(&self, segment: u32) -> io::Result<Arc<dyn SegmentFile>> {
        let file = self.folder.create_file(&file_name(segment))?;
        Ok(self.opened(file))
    }

    fn open(&self, segment: u32) -> io::Result<Arc<dyn SegmentFile>> {
        let file = self.folder.open_file(&file_name(segment))?;
        Ok(self.opened(file))
    }

    fn delete(&self, segment: u32) -> io::Result<()> {
        self.folder.remove(&file_name(segment))
    }

    fn list(&self) -> io::Result<Vec<u32>> {
        Ok(self
            .folder
            .list()?
            .iter()
            .filter_map(|name| segment_of(name))
            .collect())
    }
}

impl SegmentFile for LocalFile {
    fn append(&self, at: u64, bytes: &[u8]) -> io::Result<usize> {
        self.device.write(&self.file, at, bytes)
    }

    fn read_range(&self, at: u64, out: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < out.len() {
            match self.file.read_at(&mut out[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn read_cached(&self, at: u64, out: &mut [u8]) -> io::Result<Option<usize>> {
        if self.no_cached_reads.load(Relaxed) {
            return Ok(None);
        }
        let mut filled = 0;
        while filled < out.len() {
            let rest = &mut [IoSliceMut::new(&mut out[filled..])];
            match rustix::io::preadv2(&self.file, rest, at + filled as u64, ReadWriteFlags::NOWAIT)
            {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                    self.no_cached_reads.store(true, Relaxed);
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(filled))
    }

    fn sync(&self) -> io::Result<()> {
        self.device.sync(&self.file)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_appended_read_and_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::new(Arc::new(Folder::open(dir.path()).unwrap()));
        let segment = store.create(7).unwrap();
        assert!(store.create(7).is_err(), "numbers are never overwritten");
        assert_eq!(segment.append(0, b"hello ").unwrap(), 6);
        assert_eq!(segment.append(6, b"there").unwrap(), 5);
        segment.sync().unwrap();
        let mut out = [0; 8];
        assert_eq!(store.open(7).unwrap().read_range(4, &mut out).unwrap(), 7);
        assert_eq!(&out[..7], b"o there");
        // None where this file system cannot tell.
        assert!(matches!(
            segment.read_cached(6, &mut out[..5]),
            Ok(Some(5) | None)
        ));
        assert_eq!(
            (segment.bytes().unwrap(), store.list().unwrap()),
            (11, vec![7])
        );
        store.delete(7).unwrap();
        store.delete(7).unwrap();
        assert_eq!(
            segment.read_range(0, &mut out).unwrap(),
            8,
            "whoever has it open reads on"
        );
        assert!(store.open(7).is_err() && store.list().unwrap().is_empty());
    }
}

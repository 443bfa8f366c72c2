//! A remote segment while it is taken over: what is read of it brings its neighbourhood along and stays.
//!
//! Its tables and footer are looked at first, to know where they lie and that they are sound, and then
//! kept; each of them should cost one request.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::SegmentFile;

/// Bytes that one request fetches at least: a table of 4096 rows with keys of a usual length.
const AHEAD_BYTES: usize = 512 << 10;

/// A segment, and what was read of it so far: a few ranges, which live as long as its takeover.
pub(super) struct Ahead {
    file: Arc<dyn SegmentFile>,
    bytes: u64,
    fetched: Mutex<Vec<(u64, Vec<u8>)>>,
}

impl Ahead {
    /// A segment of so many bytes.
    pub(super) fn new(file: Arc<dyn SegmentFile>, bytes: u64) -> Ahead {
        Ahead {
            file,
            bytes,
            fetched: Mutex::default(),
        }
    }

    /// Fills `out` if one range has all of it.
    fn recall(&self, at: u64, out: &mut [u8]) -> bool {
        let fetched = self.fetched.lock();
        let found = fetched.iter().find_map(|(start, bytes)| {
            let skip = at.checked_sub(*start)? as usize;
            bytes.get(skip..)?.get(..out.len())
        });
        if let Some(bytes) = found {
            out.copy_from_slice(bytes);
        }
        found.is_some()
    }
}

impl SegmentFile for Ahead {
    fn append(&self, at: u64, bytes: &[u8]) -> io::Result<usize> {
        self.file.append(at, bytes)
    }

    fn read_range(&self, at: u64, out: &mut [u8]) -> io::Result<usize> {
        let wanted = self.bytes.saturating_sub(at).min(out.len() as u64) as usize;
        let out = &mut out[..wanted];
        if wanted == 0 || self.recall(at, out) {
            return Ok(wanted);
        }
        // At the end of the segment the neighbourhood lies before.
        let length = (wanted.max(AHEAD_BYTES) as u64).min(self.bytes);
        let start = at.min(self.bytes - length);
        let mut range = vec![0; length as usize];
        let filled = self.file.read_range(start, &mut range)?;
        range.truncate(filled);
        self.fetched.lock().push((start, range));
        if self.recall(at, out) {
            Ok(wanted)
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    fn read_cached(&self, at: u64, out: &mut [u8]) -> io::Result<Option<usize>> {
        Ok(self.recall(at, out).then_some(out.len()))
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::folder::Folder;
    use super::super::{LocalStore, SegmentStore as _};
    use super::*;

    #[test]
    fn reads_answer_as_the_segment_itself() {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::new(Arc::new(Folder::open(dir.path()).unwrap()));
        let segment = store.create(7).unwrap();
        let content: Vec<u8> = (0..3 * AHEAD_BYTES as u32 + 5)
            .map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        segment.append_rest(0, &content, &mut 0).unwrap();
        let ahead = Ahead::new(Arc::clone(&segment), content.len() as u64);
        let end = content.len();
        for (at, bytes) in [
            (end - 1, 1),
            (end - 100, 300),
            (end, 1),
            (end + 7, 1),
            (0, 10),
            (AHEAD_BYTES - 1, 2),
            (1, end),
        ] {
            let (mut one, mut other) = (vec![0; bytes], vec![0; bytes]);
            let filled = ahead.read_range(at as u64, &mut one).unwrap();
            assert_eq!(segment.read_range(at as u64, &mut other).unwrap(), filled);
            assert!(one == other, "{bytes} at {at}");
        }
    }
}

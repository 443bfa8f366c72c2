//! `seg-N.rows`: what stays here of a segment whose object is in a remote store.
//!
//! ```text
//! magic u32 | crc32 of the rest of the header | object bytes u64 | ranges u32 | 0 | (at u64, bytes u64)... | bytes
//! ```
//! The ranges are the segment's row tables and its footer, so that a start needs no request. The bytes
//! carry checksums of their own; a header that does not read back whole means that the segment is lost.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use super::super::folder::{Folder, Sync};
use super::SegmentFile;

const MAGIC: u32 = u32::from_le_bytes(*b"tcdr");
const HEADER_BYTES: usize = 24;
const RANGE_BYTES: usize = 16;
/// Tables of a segment, and its footer: far above what one of 64 MiB has.
const RANGES_MAX: usize = 1 << 16;

/// The kept ranges of one segment.
#[derive(Debug)]
pub(super) struct Kept {
    /// None where nothing is kept.
    file: Option<File>,
    /// Bytes of the whole object.
    bytes: u64,
    /// Ranges of the object and where each begins in the file, in order.
    ranges: Vec<(Range<u64>, u64)>,
}

pub(super) fn file_name(segment: u32) -> String {
    format!("seg-{segment}.rows")
}

pub(in super::super) fn segment_of(name: &str) -> Option<u32> {
    name.strip_prefix("seg-")?
        .strip_suffix(".rows")?
        .parse()
        .ok()
}

impl Kept {
    /// Writes a segment's ranges, which are in order and do not overlap, and opens them.
    pub(super) fn write(
        folder: &Folder,
        segment: u32,
        bytes: u64,
        ranges: &[Range<u64>],
        from: &dyn SegmentFile,
        sync: Sync,
    ) -> io::Result<Kept> {
        let mut out = Vec::new();
        for word in [MAGIC, 0] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&bytes.to_le_bytes());
        out.extend_from_slice(&(ranges.len() as u64).to_le_bytes());
        for range in ranges {
            out.extend_from_slice(&range.start.to_le_bytes());
            out.extend_from_slice(&(range.end - range.start).to_le_bytes());
        }
        let crc = crc32fast::hash(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        for range in ranges {
            let start = out.len();
            out.resize(start + (range.end - range.start) as usize, 0);
            if from.read_range(range.start, &mut out[start..])? < out.len() - start {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        folder.replace(&file_name(segment), &out, sync)?;
        Kept::open(folder, segment)?.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Opens a segment's ranges; `Ok(None)` where the header is damaged.
    pub(super) fn open(folder: &Folder, segment: u32) -> io::Result<Option<Kept>> {
        let file = folder.open_file(&file_name(segment))?;
        Ok(decode(&file)?.map(|(bytes, ranges)| Kept {
            file: Some(file),
            bytes,
            ranges,
        }))
    }

    /// Nothing of an object of that size.
    pub(super) fn nothing(bytes: u64) -> Kept {
        Kept {
            file: None,
            bytes,
            ranges: Vec::new(),
        }
    }

    /// Bytes of the whole object.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Fills `out` with the object's bytes from `at` on if all of them were kept.
    pub(super) fn read(&self, at: u64, out: &mut [u8]) -> io::Result<bool> {
        let found = self.ranges.partition_point(|(range, _)| range.end <= at);
        let (Some(file), Some((range, start))) = (&self.file, self.ranges.get(found)) else {
            return Ok(false);
        };
        if at < range.start || at + out.len() as u64 > range.end {
            return Ok(false);
        }
        file.read_exact_at(out, start + at - range.start)
            .map(|()| true)
    }
}

type Ranges = Vec<(Range<u64>, u64)>;

fn decode(file: &File) -> io::Result<Option<(u64, Ranges)>> {
    let size = file.metadata()?.len();
    let mut header = [0; HEADER_BYTES];
    if size < HEADER_BYTES as u64 {
        return Ok(None);
    }
    file.read_exact_at(&mut header, 0)?;
    let word = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("8 bytes"));
    let (magic, crc) = (word(0) as u32, (word(0) >> 32) as u32);
    let (bytes, count) = (word(8), word(16));
    if magic != MAGIC || count > RANGES_MAX as u64 {
        return Ok(None);
    }
    let table_end = HEADER_BYTES + count as usize * RANGE_BYTES;
    if size < table_end as u64 {
        return Ok(None);
    }
    let mut table = vec![0; table_end - HEADER_BYTES];
    file.read_exact_at(&mut table, HEADER_BYTES as u64)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[8..]);
    hasher.update(&table);
    if hasher.finalize() != crc {
        return Ok(None);
    }
    let mut start = table_end as u64;
    let mut ranges = Vec::with_capacity(count as usize);
    for entry in table.chunks_exact(RANGE_BYTES) {
        let word = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().expect("8 bytes"));
        let (at, length) = (word(0), word(8));
        ranges.push((at..at + length, start));
        start += length;
    }
    Ok((start <= size).then_some((bytes, ranges)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{LocalStore, SegmentStore};
    use super::*;

    #[test]
    fn kept_ranges_read_back_and_damage_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::open(dir.path()).unwrap());
        let segment = LocalStore::new(Arc::clone(&folder)).create(7).unwrap();
        let content: Vec<u8> = (0..=255).collect();
        segment.append(0, &content).unwrap();
        let ranges = [10..20, 200..256];
        let kept = Kept::write(&folder, 7, 256, &ranges, &*segment, Sync::PageCache).unwrap();
        let read = |at: u64, bytes: usize| {
            let mut out = vec![0; bytes];
            kept.read(at, &mut out).unwrap().then_some(out)
        };
        assert_eq!(kept.bytes(), 256);
        assert_eq!(read(12, 8).as_deref(), Some(&content[12..20]));
        assert_eq!(read(200, 56).as_deref(), Some(&content[200..]));
        for (at, bytes) in [(9, 2), (12, 9), (100, 1), (256, 1)] {
            assert_eq!(read(at, bytes), None, "{at}");
        }
        assert_eq!(segment_of(&file_name(7)), Some(7));

        let name = file_name(7);
        let whole = folder.read(&name).unwrap();
        for at in 0..HEADER_BYTES + 2 * RANGE_BYTES {
            let mut rotten = whole.clone();
            rotten[at] ^= 1;
            folder.replace(&name, &rotten, Sync::PageCache).unwrap();
            assert!(Kept::open(&folder, 7).unwrap().is_none(), "byte {at}");
            folder
                .replace(&name, &whole[..at], Sync::PageCache)
                .unwrap();
            assert!(Kept::open(&folder, 7).unwrap().is_none(), "length {at}");
        }
    }
}

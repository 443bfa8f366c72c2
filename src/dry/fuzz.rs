//! What the fuzz targets drive: the readers of every file of a dry folder, over any bytes.
//!
//! A checksum would keep all but the bytes it was made for away from what lies behind it, so
//! [`repaired_segment`] and [`repaired_state`] put the checksums right first.

use std::io;
use std::sync::{Arc, LazyLock};

use super::dead::Dead;
use super::face::{OFFSET_UNIT_BYTES, Place};
use super::footer::{self, Footer};
use super::journal;
use super::record::{Header, checksum};
use super::rows::Visitor;
use super::segment::Segment;
use super::state::{self, Fields};
use super::store::SegmentFile;

const SALT: u32 = 7;
const SEGMENT: u32 = 3;
const UUID: u64 = 77;

/// A segment in memory.
struct Bytes(Vec<u8>);

impl SegmentFile for Bytes {
    fn append(&self, _: u64, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read_range(&self, at: u64, out: &mut [u8]) -> io::Result<usize> {
        let rest = self.0.get(at as usize..).unwrap_or_default();
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn read_cached(&self, at: u64, out: &mut [u8]) -> io::Result<Option<usize>> {
        self.read_range(at, out).map(Some)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}

/// Visits the rows of a segment of these bytes, with their keys and without, and counts them.
pub fn segment(bytes: &[u8]) -> u64 {
    let segment = Segment::found(SEGMENT, Arc::new(Bytes(bytes.to_vec())), bytes.len() as u64);
    let mut visitor = Visitor::new(SALT, [1, 2]);
    let mut count = 0;
    let mut visit = |_: &super::Row, key: &[u8]| count += 1 + u64::from(key.len() > 255);
    let visited = visitor.rows_and_keys(&segment, &mut visit);
    assert!(visited.is_ok(), "memory is always readable");
    let mut rows = 0;
    let visited = visitor.rows(&segment, &mut |_| rows += 1);
    assert_eq!(
        visited.expect("memory is always readable").summary.rows,
        rows
    );
    count
}

/// [`segment`] with all checksums put right.
pub fn repaired_segment(bytes: &[u8]) -> u64 {
    let mut bytes = bytes.to_vec();
    let unit = u64::from(OFFSET_UNIT_BYTES) as usize;
    for at in (0..bytes.len()).step_by(unit) {
        let place = Place {
            segment: SEGMENT,
            offset: (at / unit) as u32,
        };
        let whole = &mut bytes[at..];
        if let Some(header) = Header::parse(whole) {
            repair(whole, header.value().end, place);
        } else if let Some(table) = footer::table_bytes_of(whole) {
            let rows = footer::rows_bytes(u32_at(whole, 8));
            if let Some(keys) = whole.get(rows..table) {
                let keys = crc32fast::hash(keys);
                whole[16..20].copy_from_slice(&keys.to_le_bytes());
            }
            repair(whole, rows, place);
        } else if footer::is_footer(whole) {
            let end = whole.len();
            if end >= 12 {
                whole[8..12].copy_from_slice(&SEGMENT.to_le_bytes());
            }
            repair(whole, end, place);
            let _ = Footer::decode(whole, SALT, SEGMENT, at as u64);
        }
    }
    segment(&bytes)
}

fn repair(bytes: &mut [u8], end: usize, place: Place) {
    let Some(body) = bytes.get(8..end) else {
        return;
    };
    let mut hasher = checksum(SALT, place);
    hasher.update(body);
    bytes[4..8].copy_from_slice(&hasher.finalize().to_le_bytes());
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |word| {
        u32::from_le_bytes(word.try_into().expect("4 bytes"))
    })
}

/// Reads a file of the kill journal.
pub fn journal(bytes: &[u8]) {
    journal::fuzz(bytes, UUID);
}

/// Reads the file of a segment's folded kills, as it is and with its checksum put right.
pub fn dead(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    let _ = Dead::decode(SEGMENT, &bytes);
    let Some(body) = bytes.len().checked_sub(4) else {
        return;
    };
    let check = crc32fast::hash(&bytes[..body]);
    bytes[body..].copy_from_slice(&check.to_le_bytes());
    if let Some(dead) = Dead::decode(SEGMENT, &bytes) {
        let again = Dead::decode(SEGMENT, &dead.encode(SEGMENT));
        assert_eq!(again, Some(dead), "what was read is written the same");
    }
}

/// Reads a copy of the state, with its checksum put right.
pub fn repaired_state(bytes: &[u8]) {
    let mut words = [0; state::FIELDS_WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
    }
    let _ = Fields::decode(&words);
    words[0] = state::MAGIC;
    words[state::FIELDS_WORDS - 1] = state::checksum(&words);
    let fields = Fields::decode(&words).expect("magic and checksum are right");
    // Asking the kernel takes longer than everything else here.
    static BOOT: LazyLock<state::Boot> = LazyLock::new(state::Boot::current);
    let _ = fields.judge(&BOOT);
    assert_eq!(Fields::decode(&fields.encode()), Some(fields));
}

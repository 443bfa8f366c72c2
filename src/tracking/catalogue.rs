//! What the catalogue says about a segment, and the totals per tier; both as checked bytes.

use super::varint::{self, Reader};
use crate::clock::UnixSeconds;

/// First byte of each value; a later format takes another.
const FORMAT: u8 = 1;

/// Longest name of a total in bytes.
pub const TOTAL_NAME_BYTES_MAX: usize = 250;

/// Most totals that are kept; what is beyond is dropped.
pub const TOTALS_MAX: usize = 1024;

/// One sealed segment of the dry tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SegmentEntry {
    /// Its id, never reused within a store.
    pub segment: u32,
    /// Its size on disk.
    pub bytes: u64,
    /// Records in it when it was sealed.
    pub records: u32,
    /// Rows that the mirror keeps for them: as many, or none without rows.
    pub rows: u32,
    /// When it was sealed.
    pub sealed: UnixSeconds,
}

/// How much something holds, and how often it answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Total {
    /// `hot`, `cold`, `dry`; later also tags.
    pub name: String,
    /// Items in it.
    pub items: u64,
    /// Bytes of those items.
    pub bytes: u64,
    /// Hits it answered since the process started.
    pub hits: u64,
}

/// All totals of one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    /// That moment.
    pub at: UnixSeconds,
    /// In the order in which to show them.
    pub entries: Vec<Total>,
}

impl SegmentEntry {
    /// The entry as a value; the segment's id is in the key.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = begin();
        varint::put(&mut out, self.bytes);
        varint::put(&mut out, u64::from(self.records));
        varint::put(&mut out, u64::from(self.rows));
        varint::put(&mut out, u64::from(self.sealed));
        finish(out)
    }

    /// Reads an entry; `None` if it is damaged.
    pub fn from_bytes(segment: u32, value: &[u8]) -> Option<SegmentEntry> {
        let mut reader = checked(value)?;
        let entry = SegmentEntry {
            segment,
            bytes: reader.number()?,
            records: reader.number_u32()?,
            rows: reader.number_u32()?,
            sealed: reader.number_u32()?,
        };
        reader.0.is_empty().then_some(entry)
    }
}

impl Totals {
    /// The totals as a value.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = begin();
        varint::put(&mut out, u64::from(self.at));
        for total in self.entries.iter().take(TOTALS_MAX) {
            let name = &total.name[..total.name.floor_char_boundary(TOTAL_NAME_BYTES_MAX)];
            varint::put(&mut out, name.len() as u64);
            out.extend_from_slice(name.as_bytes());
            varint::put(&mut out, total.items);
            varint::put(&mut out, total.bytes);
            varint::put(&mut out, total.hits);
        }
        finish(out)
    }

    /// Reads totals; `None` if they are damaged.
    pub fn from_bytes(value: &[u8]) -> Option<Totals> {
        let mut reader = checked(value)?;
        let mut totals = Totals {
            at: reader.number_u32()?,
            entries: Vec::new(),
        };
        while !reader.0.is_empty() {
            let name_bytes = usize::try_from(reader.number()?).ok()?;
            let name = std::str::from_utf8(reader.bytes(name_bytes)?)
                .ok()?
                .to_owned();
            let (items, bytes, hits) = (reader.number()?, reader.number()?, reader.number()?);
            totals.entries.push(Total {
                name,
                items,
                bytes,
                hits,
            });
        }
        Some(totals)
    }
}

/// A value that has room for its checksum and carries the format.
fn begin() -> Vec<u8> {
    vec![0, 0, 0, 0, FORMAT]
}

/// Fills in the checksum.
fn finish(mut out: Vec<u8>) -> Vec<u8> {
    let check = crc32fast::hash(&out[4..]);
    out[..4].copy_from_slice(&check.to_le_bytes());
    out
}

/// What follows checksum and format, if both are right.
fn checked(value: &[u8]) -> Option<Reader<'_>> {
    let mut reader = Reader(value);
    let check = u32::from_le_bytes(reader.array()?);
    let right = check == crc32fast::hash(reader.0) && reader.byte()? == FORMAT;
    right.then_some(reader)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> SegmentEntry {
        SegmentEntry {
            segment: 7,
            bytes: 64 << 20,
            records: 65_536,
            rows: 65_535,
            sealed: 1_790_000_000,
        }
    }

    fn totals() -> Totals {
        let total = |name: &str, items| Total {
            name: name.to_owned(),
            items,
            bytes: 9,
            hits: 0,
        };
        Totals {
            at: 5,
            entries: vec![total("hot", 1), total("dry", u64::MAX)],
        }
    }

    #[test]
    fn values_read_back() {
        assert_eq!(
            SegmentEntry::from_bytes(7, &entry().to_bytes()),
            Some(entry())
        );
        assert_eq!(Totals::from_bytes(&totals().to_bytes()), Some(totals()));
    }

    // A flipped bit or a missing end is noticed, whatever it hits.
    #[test]
    fn damage_is_noticed() {
        for value in [entry().to_bytes(), totals().to_bytes()] {
            for bit in 0..value.len() * 8 {
                let mut damaged = value.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(SegmentEntry::from_bytes(7, &damaged), None);
                assert_eq!(Totals::from_bytes(&damaged), None);
            }
            for end in 0..value.len() {
                assert_eq!(Totals::from_bytes(&value[..end]), None);
            }
        }
    }

    #[test]
    fn a_long_name_is_cut() {
        let name = "é".repeat(TOTAL_NAME_BYTES_MAX);
        let long = Totals {
            at: 1,
            entries: vec![Total {
                name,
                ..Total::default()
            }],
        };
        let kept = Totals::from_bytes(&long.to_bytes()).unwrap();
        assert_eq!(kept.entries[0].name.len(), TOTAL_NAME_BYTES_MAX);
    }
}

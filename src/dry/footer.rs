//! Row tables and the footer: what a segment holds, readable without reading its records.
//!
//! ```text
//! segment   record record ... TABLE record record ... TABLE FOOTER
//! TABLE     magic u32 | crc32 of header and rows | rows u32 | key bytes u32 | crc32 of keys | 0 | rows | keys
//! row       hash u64 | version u64 | offset/8 u32 | bytes u32 | exptime u32 | created u32 | last access u32
//!           | hits u8 | key bytes u8 | rule u8 | marks u8
//! FOOTER    magic u32 | crc32 | segment u32 | tables u32 | rows u64 | record bytes u64 | newest access u32 | 0
//!           | per table: offset/8 u32, rows u32 | footer bytes u32 | end magic u32
//! ```
//! A table describes the records between it and the table before it, so an open segment keeps few
//! rows in memory, and recovery reads a table with one call. Keys are there for inspection.

use super::face::{Place, Row};
use super::record::checksum;
use crate::clock::UnixSeconds;

/// Rows of a full table.
pub(super) const TABLE_ROWS_MAX: usize = 4096;
/// A table is also full when its keys have reached this many bytes.
pub(super) const TABLE_KEY_BYTES_MAX: usize = 128 << 10;
/// Bytes of a row.
pub(super) const ROW_BYTES: usize = 40;
/// Bytes of a table before its rows.
pub(super) const TABLE_HEADER_BYTES: usize = 24;
/// A footer with at most 500 tables lies wholly in this many bytes at the end of its segment.
pub(super) const TAIL_BYTES: usize = 4096;

const TABLE_MAGIC: u32 = u32::from_le_bytes(*b"tcdt");
const FOOTER_MAGIC: u32 = u32::from_le_bytes(*b"tcdf");
const END_MAGIC: u32 = u32::from_le_bytes(*b"tcde");
const FOOTER_HEADER_BYTES: usize = 40;
const ENTRY_BYTES: usize = 8;
const END_BYTES: usize = 8;

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

impl Row {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        let mut bytes = [0; ROW_BYTES];
        bytes[0..8].copy_from_slice(&self.hash.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.version.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.place.offset.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.bytes.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.exptime.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.created.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.last_access.to_le_bytes());
        bytes[36..40].copy_from_slice(&[self.hits, self.key_bytes, self.rule, self.marks]);
        out.extend_from_slice(&bytes);
    }

    #[inline]
    fn decode(segment: u32, bytes: &[u8; ROW_BYTES]) -> Row {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        Row {
            hash: u64_at(0),
            version: u64_at(8),
            place: Place {
                segment,
                offset: u32_at(16),
            },
            bytes: u32_at(20),
            exptime: u32_at(24),
            created: u32_at(28),
            last_access: u32_at(32),
            hits: bytes[36],
            key_bytes: bytes[37],
            rule: bytes[38],
            marks: bytes[39],
        }
    }
}

/// The rows that are not yet in a table, and the tables and sums so far, of an open segment.
#[derive(Debug, Default)]
pub(super) struct FooterBuilder {
    rows: Vec<u8>,
    keys: Vec<u8>,
    tables: Vec<(u32, u32)>,
    summary: Summary,
}

impl FooterBuilder {
    /// Bytes of the table and the footer if one more record with such a key came.
    #[inline]
    pub(super) fn bytes_with(&self, key_bytes: usize) -> usize {
        table_bytes(self.rows.len() + ROW_BYTES, self.keys.len() + key_bytes)
            + footer_bytes(self.tables.len() + 1)
    }

    /// Bytes of table and footer of a segment with one record.
    pub(super) fn bytes_for_one(key_bytes: usize) -> usize {
        table_bytes(ROW_BYTES, key_bytes) + footer_bytes(1)
    }

    /// Adds a record's row.
    #[inline]
    pub(super) fn push(&mut self, row: &Row, key: &[u8]) {
        row.encode(&mut self.rows);
        self.keys.extend_from_slice(key);
        self.summary.count(row);
    }

    /// Whether the rows should become a table now.
    #[inline]
    pub(super) fn table_is_due(&self) -> bool {
        self.rows.len() >= TABLE_ROWS_MAX * ROW_BYTES || self.keys.len() >= TABLE_KEY_BYTES_MAX
    }

    /// The rows so far as a table that will lie at `place`; `None` where there are none.
    pub(super) fn table(&mut self, salt: u32, place: Place) -> Option<Vec<u8>> {
        let rows = self.rows.len() / ROW_BYTES;
        if rows == 0 {
            return None;
        }
        let bytes = table_bytes(self.rows.len(), self.keys.len());
        let mut out = Vec::with_capacity(bytes);
        let keys_crc = crc32fast::hash(&self.keys);
        for word in [
            TABLE_MAGIC,
            0,
            rows as u32,
            self.keys.len() as u32,
            keys_crc,
            0,
        ] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.append(&mut self.rows);
        let mut hasher = checksum(salt, place);
        hasher.update(&out[8..]);
        out[4..8].copy_from_slice(&hasher.finalize().to_le_bytes());
        out.append(&mut self.keys);
        out.resize(bytes, 0);
        self.tables.push((place.offset, rows as u32));
        Some(out)
    }

    /// The footer that will lie at `place`; the builder is empty afterwards.
    pub(super) fn finish(&mut self, salt: u32, place: Place) -> Vec<u8> {
        let built = std::mem::take(self);
        let bytes = footer_bytes(built.tables.len());
        let mut out = Vec::with_capacity(bytes);
        for word in [FOOTER_MAGIC, 0, place.segment, built.tables.len() as u32] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&built.summary.rows.to_le_bytes());
        out.extend_from_slice(&built.summary.record_bytes.to_le_bytes());
        out.extend_from_slice(&built.summary.newest_access.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for (offset, rows) in &built.tables {
            out.extend_from_slice(&offset.to_le_bytes());
            out.extend_from_slice(&rows.to_le_bytes());
        }
        out.extend_from_slice(&(bytes as u32).to_le_bytes());
        out.extend_from_slice(&END_MAGIC.to_le_bytes());
        let mut hasher = checksum(salt, place);
        hasher.update(&out[8..]);
        out[4..8].copy_from_slice(&hasher.finalize().to_le_bytes());
        out
    }
}

fn table_bytes(rows: usize, keys: usize) -> usize {
    (TABLE_HEADER_BYTES + rows + keys).next_multiple_of(8)
}

fn footer_bytes(tables: usize) -> usize {
    FOOTER_HEADER_BYTES + tables * ENTRY_BYTES + END_BYTES
}

/// Sums over a segment's records, dead ones included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Summary {
    /// How many there are.
    pub(super) rows: u64,
    /// Their bytes.
    pub(super) record_bytes: u64,
    /// The latest last access of any of them.
    pub(super) newest_access: UnixSeconds,
}

impl Summary {
    /// Adds a record.
    #[inline]
    pub(super) fn count(&mut self, row: &Row) {
        self.rows += 1;
        self.record_bytes += u64::from(row.bytes);
        self.newest_access = self.newest_access.max(row.last_access);
    }
}

/// A footer that was read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) summary: Summary,
    /// Where the tables lie, with their numbers of rows.
    pub(super) tables: Vec<(Place, u32)>,
}

impl Footer {
    /// Bytes of the footer itself.
    pub(super) fn bytes_on_disk(&self) -> usize {
        footer_bytes(self.tables.len())
    }

    /// Bytes of the footer at the end of a segment, by its last 8 bytes.
    pub(super) fn bytes(end: &[u8]) -> Option<usize> {
        let at = end.len().checked_sub(END_BYTES)?;
        (u32_at(end, at + 4)? == END_MAGIC).then_some(u32_at(end, at)? as usize)
    }

    /// Reads a footer that begins at byte `at` of a segment; its tables lie before it, in order.
    pub(super) fn decode(bytes: &[u8], salt: u32, segment: u32, at: u64) -> Option<Footer> {
        let place = Place {
            segment,
            offset: u32::try_from(at / 8).ok()?,
        };
        let mut hasher = checksum(salt, place);
        hasher.update(bytes.get(8..)?);
        let tables = u32_at(bytes, 12)? as usize;
        let sound = u32_at(bytes, 0)? == FOOTER_MAGIC
            && u32_at(bytes, 4)? == hasher.finalize()
            && u32_at(bytes, 8)? == segment
            && bytes.len() == footer_bytes(tables);
        if !sound {
            return None;
        }
        let entries = bytes[FOOTER_HEADER_BYTES..bytes.len() - END_BYTES].chunks_exact(ENTRY_BYTES);
        let tables = entries
            .map(|entry| {
                let word =
                    |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().expect("4 bytes"));
                (
                    Place {
                        segment,
                        offset: word(0),
                    },
                    word(4),
                )
            })
            .collect::<Vec<(Place, u32)>>();
        // One elsewhere would have all the room up to it searched for records.
        let in_order = tables.is_sorted_by(|one, next| one.0.offset < next.0.offset)
            && tables
                .last()
                .is_none_or(|last| last.0.offset < place.offset);
        if !in_order {
            return None;
        }
        let summary = Summary {
            rows: u64_at(bytes, 16)?,
            record_bytes: u64_at(bytes, 24)?,
            newest_access: u32_at(bytes, 32)?,
        };
        Some(Footer { summary, tables })
    }
}

/// Bytes to read of a table to have its rows.
pub(super) fn rows_bytes(rows: u32) -> usize {
    TABLE_HEADER_BYTES + rows as usize * ROW_BYTES
}

/// Bytes of a table that seems to begin here, by its unverified header.
pub(super) fn table_bytes_of(bytes: &[u8]) -> Option<usize> {
    if u32_at(bytes, 0)? != TABLE_MAGIC {
        return None;
    }
    Some(table_bytes(
        u32_at(bytes, 8)? as usize * ROW_BYTES,
        u32_at(bytes, 12)? as usize,
    ))
}

/// Whether a footer seems to begin here.
pub(super) fn is_footer(bytes: &[u8]) -> bool {
    u32_at(bytes, 0) == Some(FOOTER_MAGIC)
}

/// A table that was read back, at least up to its last row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table<'a> {
    segment: u32,
    rows: &'a [u8],
    key_bytes: usize,
    keys_crc: u32,
}

impl<'a> Table<'a> {
    /// Reads the table at `place`; `bytes` may end after its rows.
    pub(super) fn decode(bytes: &'a [u8], salt: u32, place: Place) -> Option<Table<'a>> {
        if u32_at(bytes, 0)? != TABLE_MAGIC {
            return None;
        }
        let end = rows_bytes(u32_at(bytes, 8)?);
        let mut hasher = checksum(salt, place);
        hasher.update(bytes.get(8..end)?);
        (hasher.finalize() == u32_at(bytes, 4)?).then_some(Table {
            segment: place.segment,
            rows: &bytes[TABLE_HEADER_BYTES..end],
            key_bytes: u32_at(bytes, 12)? as usize,
            keys_crc: u32_at(bytes, 16)?,
        })
    }

    /// Bytes of the whole table.
    pub(super) fn bytes(&self) -> usize {
        table_bytes(self.rows.len(), self.key_bytes)
    }

    /// The rows, in the order of their offsets.
    #[inline]
    pub(super) fn rows(&self) -> impl ExactSizeIterator<Item = Row> + use<'a> {
        let segment = self.segment;
        let rows = self.rows.chunks_exact(ROW_BYTES);
        rows.map(move |bytes| {
            Row::decode(segment, bytes.try_into().expect("chunks have that size"))
        })
    }

    /// Takes the keys out of the whole table's bytes: as many as the rows say.
    pub(super) fn keys<'b>(&self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let start = TABLE_HEADER_BYTES + self.rows.len();
        let keys = bytes.get(start..start + self.key_bytes)?;
        let expected: usize = self.rows().map(|row| usize::from(row.key_bytes)).sum();
        (crc32fast::hash(keys) == self.keys_crc && expected == keys.len()).then_some(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: u32 = 5;

    fn row(number: u32) -> Row {
        Row {
            place: Place {
                segment: 9,
                offset: number * 10,
            },
            bytes: 80,
            hash: u64::from(number) << 40 | 1,
            version: u64::from(number) + 1000,
            exptime: number,
            created: number + 1,
            last_access: number + 2,
            hits: number as u8,
            rule: 1,
            marks: 4,
            key_bytes: 3,
        }
    }

    fn place(offset: u32) -> Place {
        Place { segment: 9, offset }
    }

    #[test]
    fn tables_and_footer_read_back() {
        let mut builder = FooterBuilder::default();
        assert_eq!(builder.table(SALT, place(0)), None);
        for number in 0..5 {
            let bytes_before = builder.bytes_with(3);
            builder.push(&row(number), b"key");
            assert!(builder.bytes_with(0) <= bytes_before + ROW_BYTES);
        }
        let table = builder.table(SALT, place(100)).unwrap();
        assert_eq!(table.len() % 8, 0);
        let read = Table::decode(&table[..rows_bytes(5)], SALT, place(100)).unwrap();
        assert_eq!(
            read.rows().collect::<Vec<_>>(),
            (0..5).map(row).collect::<Vec<_>>()
        );
        assert_eq!(read.bytes(), table.len());
        assert_eq!(read.keys(&table).unwrap(), b"keykeykeykeykey");
        assert!(Table::decode(&table, SALT, place(101)).is_none());

        let footer = builder.finish(SALT, place(200));
        let summary = Summary {
            rows: 5,
            record_bytes: 400,
            newest_access: 6,
        };
        assert_eq!(Footer::bytes(&footer), Some(footer.len()));
        let read = Footer::decode(&footer, SALT, 9, 1600).unwrap();
        assert_eq!(
            read,
            Footer {
                summary,
                tables: vec![(place(100), 5)]
            }
        );
    }

    #[test]
    fn damage_is_found() {
        let mut builder = FooterBuilder::default();
        builder.push(&row(1), b"key");
        let table = builder.table(SALT, place(0)).unwrap();
        let footer = builder.finish(SALT, place(20));
        let read = |bytes: &[u8]| {
            let table = Table::decode(bytes, SALT, place(0))?;
            table.keys(bytes).map(<[u8]>::to_vec)
        };
        assert!(read(&table).is_some());
        for at in 0..rows_bytes(1) + 3 {
            let mut rotten = table.clone();
            rotten[at] ^= 8;
            // The reserved word is covered too.
            assert_eq!(read(&rotten), None, "byte {at}");
            assert_eq!(read(&table[..at]), None);
        }
        for at in 0..footer.len() {
            let mut rotten = footer.clone();
            rotten[at] ^= 8;
            assert_eq!(Footer::decode(&rotten, SALT, 9, 160), None, "byte {at}");
            assert_eq!(Footer::decode(&footer[..at], SALT, 9, 160), None);
        }
    }
}

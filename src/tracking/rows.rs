//! Packed rows: one value of at most 16 KiB tells about some hundred consecutive records.
//!
//! ```text
//! chunk  crc32 of what follows (4, little endian) | format (1) | rows until the end
//! row    which fields differ from what is expected (1) | those fields | shared key bytes (1) | key bytes (1) | key
//! ```
//!
//! A row states only what the row before it does not tell: records lie one after the other, are
//! created in the same second and often have the same size. Numbers are variable-length
//! differences. A row of a 16-byte key takes about 20 bytes.

#[cfg(test)]
pub(super) mod tests;

use super::OFFSET_UNIT_BYTES;
use super::varint::{self, Reader, VARINT_BYTES_MAX};
use crate::clock::UnixSeconds;
use crate::entry::{KEY_BYTES_MAX, NEVER};

/// Longest chunk in bytes.
pub const CHUNK_BYTES_MAX: usize = 16 << 10;

/// No row is longer: five fields of a number each, hits, three single bytes and the key.
const ROW_BYTES_MAX: usize = 6 * VARINT_BYTES_MAX + 4 + KEY_BYTES_MAX;

/// A later format takes another number.
const FORMAT: u8 = 1;

/// What is known about one dried record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TrackedRow<'a> {
    /// Its key, at most [`KEY_BYTES_MAX`] bytes.
    pub key: &'a [u8],
    /// Where it begins in its segment, in units of [`OFFSET_UNIT_BYTES`].
    pub offset: u32,
    /// Its size on disk.
    pub bytes: u32,
    /// Orders the writes of a key; the CAS unique.
    pub version: u64,
    /// When it was dried.
    pub created: UnixSeconds,
    /// When a client last stored or fetched it.
    pub last_access: UnixSeconds,
    /// Not served from then on; [`NEVER`] for no limit.
    pub exptime: UnixSeconds,
    /// How often it was fetched, up to 255.
    pub hits: u8,
}

/// The packed rows of consecutive records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chunk {
    /// Where the first of them begins; it names the chunk within its segment.
    pub first_offset: u32,
    /// The rows.
    pub bytes: Vec<u8>,
}

/// All packed rows of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PackedRows {
    /// By ascending offset.
    pub chunks: Vec<Chunk>,
    /// How many rows they hold.
    pub rows: u32,
}

/// Why rows could not be packed or unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RowsError {
    /// The row is not after the one before it, or its key is too long: a bug of the caller.
    #[error("row out of order or with an impossible key")]
    Refused,
    /// The chunk holds bytes that nobody packed.
    #[error("chunk of rows is damaged")]
    Damaged,
}

/// Packs rows, in the order of their offsets.
///
/// ```text
/// let mut packer = RowPacker::default();
/// for (row, key) in segment { packer.push(&TrackedRow { key, .. })?; }
/// handle.sealed(entry, packer.finish());
/// ```
#[derive(Debug, Default)]
pub struct RowPacker {
    packed: PackedRows,
    open: Vec<u8>,
    open_first_offset: u32,
    before: Before,
}

/// The row before, from which the next one is told.
#[derive(Debug, Default)]
struct Before {
    /// First offset after the record.
    end: u32,
    bytes: u32,
    version: u64,
    created: UnixSeconds,
    key: Vec<u8>,
}

/// Bits of a row's first byte: which fields follow.
mod has {
    pub(super) const GAP: u8 = 1;
    pub(super) const BYTES: u8 = 2;
    pub(super) const VERSION: u8 = 4;
    pub(super) const CREATED: u8 = 8;
    pub(super) const LAST_ACCESS: u8 = 16;
    pub(super) const EXPTIME: u8 = 32;
    pub(super) const HITS: u8 = 64;
    pub(super) const UNKNOWN: u8 = 128;
}

impl RowPacker {
    /// Packs one more row.
    ///
    /// # Errors
    /// [`RowsError::Refused`] if it begins before the end of the row before it, or if its key is
    /// longer than [`KEY_BYTES_MAX`]. The row is then left out.
    pub fn push(&mut self, row: &TrackedRow) -> Result<(), RowsError> {
        // `before` is emptied with each chunk, so the order across chunks is checked first.
        let end = self.before.end;
        if row.offset < end || row.key.len() > KEY_BYTES_MAX {
            return Err(RowsError::Refused);
        }
        if self.open.len() + ROW_BYTES_MAX > CHUNK_BYTES_MAX {
            self.seal_chunk();
        }
        if self.open.is_empty() {
            self.open.extend_from_slice(&[0, 0, 0, 0, FORMAT]);
            self.open_first_offset = row.offset;
            self.before = Before {
                end: row.offset,
                ..Before::default()
            };
        }
        put_row(&mut self.open, &self.before, row);
        self.before.follow(row);
        self.packed.rows += 1;
        Ok(())
    }

    /// All rows that were packed.
    pub fn finish(mut self) -> PackedRows {
        self.seal_chunk();
        self.packed
    }

    fn seal_chunk(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let check = crc32fast::hash(&self.open[4..]);
        self.open[..4].copy_from_slice(&check.to_le_bytes());
        let bytes = self.open.as_slice().to_vec();
        self.open.clear();
        self.packed.chunks.push(Chunk {
            first_offset: self.open_first_offset,
            bytes,
        });
    }
}

impl PackedRows {
    /// Memory that the chunks take.
    pub fn bytes(&self) -> usize {
        self.chunks
            .iter()
            .map(|chunk| chunk.bytes.len() + size_of::<Chunk>())
            .sum()
    }
}

impl Chunk {
    /// Visits the rows in their order.
    ///
    /// # Errors
    /// [`RowsError::Damaged`] if the checksum is wrong, then nothing was visited; or if a later or
    /// faulty writer made rows that cannot be.
    pub fn each(&self, visit: &mut dyn FnMut(&TrackedRow)) -> Result<(), RowsError> {
        self.unpack(visit).ok_or(RowsError::Damaged)
    }

    fn unpack(&self, visit: &mut dyn FnMut(&TrackedRow)) -> Option<()> {
        let mut reader = Reader(&self.bytes);
        let check = u32::from_le_bytes(reader.array()?);
        if check != crc32fast::hash(reader.0) || reader.byte()? != FORMAT {
            return None;
        }
        let mut before = Before {
            end: self.first_offset,
            ..Before::default()
        };
        while !reader.0.is_empty() {
            let row = take_row(&mut reader, &mut before)?;
            let row = TrackedRow {
                key: &before.key,
                ..row
            };
            visit(&row);
            before.follow_numbers(&row.without_key());
        }
        Some(())
    }
}

impl TrackedRow<'_> {
    /// Where the record begins in its segment, in bytes.
    pub fn offset_bytes(&self) -> u64 {
        u64::from(self.offset) * OFFSET_UNIT_BYTES
    }

    /// The row's numbers, free of the key's lifetime.
    fn without_key(&self) -> TrackedRow<'static> {
        TrackedRow { key: &[], ..*self }
    }
}

impl Before {
    fn follow(&mut self, row: &TrackedRow) {
        self.key.clear();
        self.key.extend_from_slice(row.key);
        self.follow_numbers(&row.without_key());
    }

    fn follow_numbers(&mut self, row: &TrackedRow<'static>) {
        let units = row.bytes.div_ceil(OFFSET_UNIT_BYTES as u32);
        self.end = row.offset.saturating_add(units);
        (self.bytes, self.version, self.created) = (row.bytes, row.version, row.created);
    }
}

/// Appends a row as it differs from the one before.
fn put_row(out: &mut Vec<u8>, before: &Before, row: &TrackedRow) {
    let at = out.len();
    out.push(0);
    let mut bits = 0;
    if row.offset != before.end {
        bits |= has::GAP;
        varint::put(out, u64::from(row.offset - before.end));
    }
    if row.bytes != before.bytes {
        bits |= has::BYTES;
        varint::put(out, u64::from(row.bytes));
    }
    if row.version != before.version.wrapping_add(1) {
        bits |= has::VERSION;
        varint::put_difference(out, before.version, row.version);
    }
    if row.created != before.created {
        bits |= has::CREATED;
        varint::put_difference(out, u64::from(before.created), u64::from(row.created));
    }
    if row.last_access != row.created {
        bits |= has::LAST_ACCESS;
        varint::put_difference(out, u64::from(row.created), u64::from(row.last_access));
    }
    if row.exptime != NEVER {
        bits |= has::EXPTIME;
        varint::put_difference(out, u64::from(row.created), u64::from(row.exptime));
    }
    if row.hits != 0 {
        bits |= has::HITS;
        out.push(row.hits);
    }
    out[at] = bits;
    let shared = before
        .key
        .iter()
        .zip(row.key)
        .take_while(|(a, b)| a == b)
        .count();
    let rest = &row.key[shared..];
    // Both fit a byte: `push` refused longer keys.
    out.push(shared as u8);
    out.push(rest.len() as u8);
    out.extend_from_slice(rest);
}

/// Takes the numbers of the next row, and its key into `before.key`.
fn take_row(reader: &mut Reader, before: &mut Before) -> Option<TrackedRow<'static>> {
    let bits = reader.byte()?;
    if bits & has::UNKNOWN != 0 {
        return None;
    }
    let mut row = TrackedRow {
        offset: before.end,
        bytes: before.bytes,
        version: before.version.wrapping_add(1),
        created: before.created,
        ..TrackedRow::default()
    };
    if bits & has::GAP != 0 {
        row.offset = before.end.checked_add(reader.number_u32()?)?;
    }
    if bits & has::BYTES != 0 {
        row.bytes = reader.number_u32()?;
    }
    if bits & has::VERSION != 0 {
        row.version = reader.difference(before.version)?;
    }
    if bits & has::CREATED != 0 {
        row.created = reader.difference_u32(before.created)?;
    }
    row.last_access = row.created;
    if bits & has::LAST_ACCESS != 0 {
        row.last_access = reader.difference_u32(row.created)?;
    }
    if bits & has::EXPTIME != 0 {
        row.exptime = reader.difference_u32(row.created)?;
    }
    if bits & has::HITS != 0 {
        row.hits = reader.byte()?;
    }
    let (shared, rest) = (usize::from(reader.byte()?), usize::from(reader.byte()?));
    if shared > before.key.len() || shared + rest > KEY_BYTES_MAX {
        return None;
    }
    before.key.truncate(shared);
    before.key.extend_from_slice(reader.bytes(rest)?);
    Some(row)
}

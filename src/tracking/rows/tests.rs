//! Rows through packing and back, and damaged chunks.

use proptest::prelude::*;

use super::*;

/// A row that owns its key.
pub(in crate::tracking) type OwnedRow = (Vec<u8>, TrackedRow<'static>);

pub(in crate::tracking) fn pack(rows: &[OwnedRow]) -> PackedRows {
    let mut packer = RowPacker::default();
    for (key, row) in rows {
        packer.push(&TrackedRow { key, ..*row }).unwrap();
    }
    packer.finish()
}

pub(in crate::tracking) fn unpack(chunks: &[Chunk]) -> Vec<OwnedRow> {
    let mut rows = Vec::new();
    for chunk in chunks {
        chunk
            .each(&mut |row| rows.push((row.key.to_vec(), row.without_key())))
            .unwrap();
    }
    rows
}

/// Records as a segment holds them: one after the other, with gaps now and then.
pub(in crate::tracking) fn typical(count: u32) -> Vec<OwnedRow> {
    let mut end = 2;
    (0..count)
        .map(|i| {
            let offset = end + i % 3;
            let bytes = 160 + i % 7;
            end = offset + bytes.div_ceil(8);
            let row = TrackedRow {
                offset,
                bytes,
                version: 1_790_000_000_000_000 + u64::from(i * 7 % 64),
                created: 1_790_000_000 + i / 100,
                last_access: 1_790_000_000 - i % 60,
                exptime: if i % 4 == 0 { 1_790_003_600 } else { NEVER },
                hits: (i % 5) as u8,
                key: &[],
            };
            (format!("key-{:012}", i * 7).into_bytes(), row)
        })
        .collect()
}

fn any_rows() -> impl Strategy<Value = Vec<OwnedRow>> {
    let key = prop::collection::vec(any::<u8>(), 0..=KEY_BYTES_MAX);
    let numbers = (any::<u64>(), any::<[u32; 3]>(), any::<u8>());
    let place = (0u32..1000, prop_oneof![0u32..4096, 0u32..1 << 26]);
    let rows = prop::collection::vec((key, numbers, place), 0..150);
    rows.prop_map(|rows| {
        let mut end = 0u32;
        let place = |(key, (version, times, hits), (gap, bytes))| {
            let [created, last_access, exptime] = times;
            let offset = end + gap;
            end = offset + u32::div_ceil(bytes, 8);
            let key_less = TrackedRow {
                key: &[],
                offset,
                bytes,
                version,
                created,
                last_access,
                exptime,
                hits,
            };
            (key, key_less)
        };
        rows.into_iter().map(place).collect()
    })
}

proptest! {
    #[test]
    fn rows_read_back(rows in any_rows()) {
        let packed = pack(&rows);
        prop_assert_eq!(packed.rows as usize, rows.len());
        prop_assert!(packed.chunks.iter().all(|c| c.bytes.len() <= CHUNK_BYTES_MAX));
        prop_assert_eq!(unpack(&packed.chunks), rows);
    }

    #[test]
    fn any_bytes_are_refused_or_read(mut bytes in prop::collection::vec(any::<u8>(), 5..400)) {
        // With a right checksum in front, so that the rows themselves are read.
        bytes[4] = FORMAT;
        let check = crc32fast::hash(&bytes[4..]);
        bytes[..4].copy_from_slice(&check.to_le_bytes());
        let _ = Chunk { first_offset: u32::MAX - 9, bytes }.each(&mut |_| ());
    }
}

#[test]
fn typical_rows_are_small() {
    let packed = pack(&typical(10_000));
    let bytes: usize = packed.chunks.iter().map(|chunk| chunk.bytes.len()).sum();
    assert!(bytes < 10_000 * 24, "{bytes}");
}

// Each flipped bit and each missing end is noticed before a row is shown.
#[test]
fn damage_is_noticed() {
    let chunk = pack(&typical(5)).chunks.remove(0);
    let refused = |bytes: &[u8]| {
        let damaged = Chunk {
            first_offset: chunk.first_offset,
            bytes: bytes.to_vec(),
        };
        let result = damaged.each(&mut |_| panic!("a row of a damaged chunk was shown"));
        assert_eq!(result, Err(RowsError::Damaged));
    };
    for bit in 0..chunk.bytes.len() * 8 {
        let mut bytes = chunk.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        refused(&bytes);
    }
    (0..chunk.bytes.len()).for_each(|end| refused(&chunk.bytes[..end]));
}

#[test]
fn rows_out_of_order_and_long_keys_are_left_out() {
    let mut packer = RowPacker::default();
    let row = |offset, key| TrackedRow {
        key,
        offset,
        bytes: 16,
        ..TrackedRow::default()
    };
    assert_eq!(packer.push(&row(4, b"a")), Ok(()));
    assert_eq!(
        packer.push(&row(5, b"inside the first")),
        Err(RowsError::Refused)
    );
    assert_eq!(
        packer.push(&row(9, &[b'k'; KEY_BYTES_MAX + 1])),
        Err(RowsError::Refused)
    );
    assert_eq!(packer.push(&row(6, &[b'k'; KEY_BYTES_MAX])), Ok(()));
    assert_eq!(packer.finish().rows, 2);
}

//! Any bytes as packed tracking rows; what reads back is packed to the same rows.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tiercache::tracking::{Chunk, RowPacker, TrackedRow};

fuzz_target!(|input: (u32, &[u8])| {
    let (first_offset, rows) = input;
    // The checksum in front of the rows is right, so that what is behind it is read.
    let mut bytes = crc32fast::hash(rows).to_le_bytes().to_vec();
    bytes.extend_from_slice(rows);
    let chunk = Chunk {
        first_offset,
        bytes,
    };
    let mut packer = RowPacker::default();
    let mut first = Vec::new();
    let read = chunk.each(&mut |row| {
        if packer.push(row).is_ok() {
            first.push(owned(row));
        }
    });
    if read.is_err() {
        return;
    }
    let mut second = Vec::new();
    for chunk in packer.finish().chunks {
        chunk
            .each(&mut |row| second.push(owned(row)))
            .expect("packed rows read back");
    }
    assert_eq!(first, second);
});

fn owned(row: &TrackedRow) -> (Vec<u8>, String) {
    (row.key.to_vec(), format!("{row:?}"))
}

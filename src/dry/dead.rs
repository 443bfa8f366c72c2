//! `seg-N.dead`: the kills of one segment that were folded out of the journal.
//!
//! ```text
//! magic u32 | segment u32 | flags u32 (1 = the whole segment is freed) | count u32 | offsets u32... | crc32 u32
//! ```
//! Offsets are sorted. A file that does not read back whole may have lost a kill, so its segment
//! counts as freed.

use std::io;

use super::folder::{Folder, Sync};

const MAGIC: u32 = u32::from_le_bytes(*b"tcdd");
const HEADER_BYTES: usize = 16;
const FREED: u32 = 1;

/// What of a segment is dead.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Dead {
    /// Everything.
    pub(super) freed: bool,
    /// The records at these offsets, in units of 8 bytes, sorted.
    pub(super) offsets: Vec<u32>,
}

/// The file's name.
pub(super) fn file_name(segment: u32) -> String {
    format!("seg-{segment}.dead")
}

/// The segment of a file with that name.
pub(super) fn segment_of(name: &str) -> Option<u32> {
    name.strip_prefix("seg-")?
        .strip_suffix(".dead")?
        .parse()
        .ok()
}

impl Dead {
    /// Reads a segment's file; none is nothing dead.
    pub(super) fn read(folder: &Folder, segment: u32) -> io::Result<Dead> {
        match folder.read(&file_name(segment)) {
            Ok(bytes) => Ok(Dead::decode(segment, &bytes).unwrap_or(Dead {
                freed: true,
                offsets: Vec::new(),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Dead::default()),
            Err(error) => Err(error),
        }
    }

    /// Adds kills to a segment's file.
    pub(super) fn merge(
        folder: &Folder,
        segment: u32,
        offsets: &[u32],
        freed: bool,
        sync: Sync,
    ) -> io::Result<()> {
        let mut dead = Dead::read(folder, segment)?;
        dead.freed |= freed;
        dead.offsets.extend_from_slice(offsets);
        dead.offsets.sort_unstable();
        dead.offsets.dedup();
        folder.replace(&file_name(segment), &dead.encode(segment), sync)
    }

    pub(super) fn encode(&self, segment: u32) -> Vec<u8> {
        let flags = if self.freed { FREED } else { 0 };
        let mut bytes = Vec::with_capacity(HEADER_BYTES + 4 * self.offsets.len() + 4);
        for word in [MAGIC, segment, flags, self.offsets.len() as u32]
            .iter()
            .chain(&self.offsets)
        {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    pub(super) fn decode(segment: u32, bytes: &[u8]) -> Option<Dead> {
        let (body, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        if crc != crc32fast::hash(body).to_le_bytes() {
            return None;
        }
        let mut words = body
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes(word.try_into().expect("4 bytes")));
        let header = (words.next()?, words.next()?);
        let (flags, count) = (words.next()?, words.next()?);
        if header != (MAGIC, segment) || body.len() != HEADER_BYTES + 4 * count as usize {
            return None;
        }
        Some(Dead {
            freed: flags & FREED != 0,
            offsets: words.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_accumulate_sorted() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        assert_eq!(Dead::read(&folder, 7).unwrap(), Dead::default());
        Dead::merge(&folder, 7, &[9, 3], false, Sync::PageCache).unwrap();
        Dead::merge(&folder, 7, &[5, 3], false, Sync::Device).unwrap();
        assert_eq!(
            Dead::read(&folder, 7).unwrap(),
            Dead {
                freed: false,
                offsets: vec![3, 5, 9]
            }
        );
        Dead::merge(&folder, 7, &[], true, Sync::PageCache).unwrap();
        assert!(Dead::read(&folder, 7).unwrap().freed);
    }

    // A flipped bit or a cut anywhere frees the whole segment: no kill is lost.
    #[test]
    fn damage_frees_the_segment() {
        let bytes = Dead {
            freed: false,
            offsets: (0..50).map(|n| n * 13).collect(),
        }
        .encode(4);
        assert!(Dead::decode(4, &bytes).is_some());
        assert_eq!(Dead::decode(5, &bytes), None);
        for at in 0..bytes.len() {
            let mut rotten = bytes.clone();
            rotten[at] ^= 1 << (at % 8);
            assert_eq!(Dead::decode(4, &rotten), None);
            assert_eq!(Dead::decode(4, &bytes[..at]), None);
        }
    }
}

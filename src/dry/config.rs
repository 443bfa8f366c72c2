//! What can be set about the dry tier, with its defaults.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::units::{ByteSize, Span};

/// Largest segment: a place counts in units of 8 bytes with 23 bits.
pub const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// Smallest segment.
pub const SEGMENT_BYTES_MIN: u64 = 1 << 20;
/// Segments that the size limit is divided into where nothing else is said.
const SEGMENTS: u64 = 32;
/// Fewest segments that the size limit is divided into: reclaim keeps some of them free.
pub(super) const SEGMENTS_MIN: u64 = 8;

/// What a restart must survive with its warmth kept. Nothing stale is ever served with either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Death of the process. After a reboot without a clean stop the tier starts empty.
    #[default]
    Process,
    /// Loss of power too: kills are on the device before the new value is visible.
    Power,
}

/// The dry tier's options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DryConfig {
    /// Folder that belongs to this tier alone; made when missing.
    pub folder: PathBuf,
    /// Bytes of segments on disk. Default 100g. The kill journal (4 x `journal_size`) comes on top.
    pub size: ByteSize,
    /// Residence time since the last access. Default 7d.
    pub ttl: Span,
    /// Bytes of a segment, at most an eighth of `size`. Default min(64m, size/32), at least 1m.
    pub segment_size: Option<ByteSize>,
    /// Which loss is survived warm. Default `process`.
    pub durability: Durability,
    /// Set what the folder holds aside and start empty.
    pub reset: bool,
    /// Bytes of records that may wait for the device. Default 64m; the tier sets min(64m, m/8).
    pub queue_bytes: usize,
    /// Bytes of one of the four kill journal files. Default 4m.
    pub journal_size: ByteSize,
}

impl Default for DryConfig {
    fn default() -> DryConfig {
        DryConfig {
            folder: PathBuf::new(),
            size: ByteSize::gib(100),
            ttl: Span(Duration::from_secs(7 * 86_400)),
            segment_size: None,
            durability: Durability::Process,
            reset: false,
            queue_bytes: 64 << 20,
            journal_size: ByteSize::mib(4),
        }
    }
}

impl DryConfig {
    /// Bytes of a segment: as set or derived from the size, within the format's limits and a
    /// multiple of 4096.
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes_from(SEGMENT_BYTES_MIN)
    }

    /// [`DryConfig::segment_bytes`] with another least one.
    pub(super) fn segment_bytes_from(&self, least: u64) -> u64 {
        let wanted = self
            .segment_size
            .map_or(self.size.0 / SEGMENTS, |size| size.0);
        wanted
            .min(self.size.0 / SEGMENTS_MIN)
            .clamp(least, SEGMENT_BYTES_MAX)
            / 4096
            * 4096
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_follow_the_size() {
        let with = |size: u64, segment: Option<u64>| {
            let config = DryConfig {
                size: ByteSize(size),
                segment_size: segment.map(ByteSize),
                ..DryConfig::default()
            };
            config.segment_bytes()
        };
        assert_eq!(with(100 << 30, None), 64 << 20);
        assert_eq!(with(1 << 30, None), 32 << 20);
        assert_eq!(with(1 << 20, None), 1 << 20);
        assert_eq!(with(1 << 30, Some((2 << 20) + 5)), 2 << 20);
        assert_eq!(with(32 << 20, Some(8 << 20)), 4 << 20);
        assert_eq!(with(1 << 30, Some(1 << 40)), 64 << 20);
    }
}

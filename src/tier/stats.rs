//! A moment's figures of the tiers.

use super::cache::Cache;
use crate::dry::DryStats;
use crate::ram::SegmentKind;

/// What the tiers hold.
#[derive(Debug, Clone, Copy, Default)]
pub struct TierStats {
    /// Items in hot.
    pub hot_items: u64,
    /// Bytes of live items in hot.
    pub hot_bytes: u64,
    /// Items in cold.
    pub cold_items: u64,
    /// Bytes of live items in cold.
    pub cold_bytes: u64,
    /// Records in dry, those with a copy in RAM included.
    pub dry_items: u64,
    /// Items in RAM that have a copy in dry.
    pub clean_items: u64,
    /// Segments of RAM in use.
    pub ram_segments: u64,
    /// Bytes of the index.
    pub index_bytes: u64,
    /// The part of the index that dry items take.
    pub dry_index_bytes: u64,
    /// The dry tier's own figures, if there is one.
    pub dry: Option<DryStats>,
    /// `ok`, `degraded` or `failed`.
    pub tier_state: &'static str,
}

impl Cache {
    /// The figures of this moment.
    pub fn stats(&self) -> TierStats {
        let usage = self.index.usage();
        let counts = usage.counts;
        let mut stats = TierStats {
            hot_items: counts.hot,
            cold_items: counts.cold,
            dry_items: counts.dry,
            clean_items: counts.clean,
            index_bytes: usage.bytes as u64,
            dry_index_bytes: usage.dry_bytes() as u64,
            dry: self.dry.as_ref().map(|dry| dry.stats()),
            tier_state: self
                .dry
                .as_ref()
                .map_or("ok", |dry| dry.tier_state().name()),
            ..TierStats::default()
        };
        for segment in self
            .arena
            .segments()
            .iter()
            .filter(|segment| segment.in_use())
        {
            stats.ram_segments += u64::from(segment.span());
            let bytes = u64::from(segment.live_words()) * 8;
            match segment.kind() {
                SegmentKind::Hot => stats.hot_bytes += bytes,
                SegmentKind::Cold => stats.cold_bytes += bytes,
            }
        }
        stats
    }
}

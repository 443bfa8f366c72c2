//! Which items stay in RAM: pure functions, no state, no I/O.
//!
//! Most policies ask what an item is worth ([`worth`]). The shape of [`Policy::Fifo`] is S3-FIFO's
//! (Yang et al., SOSP '23): a small first-come queue (hot), a main queue with reinsertion (cold).
//! Items that were never hit leave hot for good (to dry, where there is one); items that were hit
//! move to cold, and stay there as long as they are hit between two visits.

pub mod admission;
pub mod worth;

use super::config::Policy;
use crate::ram::SegmentKind;

/// What becomes of a live item when its segment is visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It stays in RAM, in this tier, with this many hits.
    Keep(SegmentKind, u8),
    /// It leaves RAM.
    Leave,
}

/// How hard room is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pressure {
    /// Items that were hit stay.
    Normal,
    /// Visits so far have freed nothing: everything leaves.
    High,
}

/// Words copied for items that stay, in segments, after which the pressure is high.
pub const KEPT_SEGMENTS_MAX: usize = 8;

/// Most hits that [`fifo_fate`] looks at: visits that an item survives without a hit.
const FIFO_HITS_MAX: u8 = 3;

/// The fate of an item that is worth more than what has to leave, or not, under a policy other
/// than [`Policy::Fifo`]. What stays goes to cold with all that is known of it.
pub fn worth_fate(due: u64, floor: u64, hits: u8, pressure: Pressure) -> Fate {
    match pressure {
        Pressure::Normal if due > floor => Fate::Keep(SegmentKind::Cold, hits),
        _ => Fate::Leave,
    }
}

/// The fate of an item with `hits` in a segment of `kind` under [`Policy::Fifo`].
pub fn fifo_fate(kind: SegmentKind, hits: u8, pressure: Pressure) -> Fate {
    match (pressure, kind, hits) {
        (Pressure::High, _, _) | (_, _, 0) => Fate::Leave,
        (_, SegmentKind::Hot, _) => Fate::Keep(SegmentKind::Cold, 0),
        (_, SegmentKind::Cold, hits) => Fate::Keep(SegmentKind::Cold, hits.min(FIFO_HITS_MAX) - 1),
    }
}

/// Which tier gives up its oldest segment, from the segments that each uses.
pub fn victim(hot_segments: usize, cold_segments: usize, hot_share: f64) -> SegmentKind {
    let hot_quota = (hot_segments + cold_segments) as f64 * hot_share;
    if cold_segments == 0 || hot_segments as f64 > hot_quota {
        SegmentKind::Hot
    } else {
        SegmentKind::Cold
    }
}

/// Words that a visit to a segment of `segment_words` may keep without the pressure growing.
pub fn kept_words_usual(policy: Policy, segment_words: usize) -> usize {
    match policy {
        Policy::Fifo => segment_words / 8,
        // Somewhat more than what is not due of a ripe segment, because ripeness is an estimate.
        _ => segment_words / 4 * 3,
    }
}

/// Whether a segment with this many live of `used` words is compacted before anything live leaves.
pub fn worth_compacting(live_words: u32, used_words: u32) -> bool {
    live_words <= used_words / 2
}

/// Which tier a new item of `words` goes to: large ones would sweep hot empty.
pub fn admit(words: usize, hot_words: usize) -> SegmentKind {
    if words > hot_words / 4 {
        SegmentKind::Cold
    } else {
        SegmentKind::Hot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hit_items_stay() {
        assert_eq!(
            fifo_fate(SegmentKind::Hot, 0, Pressure::Normal),
            Fate::Leave
        );
        assert_eq!(
            fifo_fate(SegmentKind::Hot, 2, Pressure::Normal),
            Fate::Keep(SegmentKind::Cold, 0)
        );
        assert_eq!(
            fifo_fate(SegmentKind::Cold, 2, Pressure::Normal),
            Fate::Keep(SegmentKind::Cold, 1)
        );
        assert_eq!(fifo_fate(SegmentKind::Cold, 3, Pressure::High), Fate::Leave);
        // However often it was hit, it survives as many visits.
        assert_eq!(
            fifo_fate(SegmentKind::Cold, 15, Pressure::Normal),
            Fate::Keep(SegmentKind::Cold, 2)
        );
    }

    #[test]
    fn what_is_due_leaves() {
        assert_eq!(worth_fate(7, 7, 3, Pressure::Normal), Fate::Leave);
        assert_eq!(
            worth_fate(8, 7, 3, Pressure::Normal),
            Fate::Keep(SegmentKind::Cold, 3)
        );
        assert_eq!(worth_fate(8, 7, 3, Pressure::High), Fate::Leave);
    }

    #[test]
    fn the_tier_over_its_quota_gives_way() {
        assert_eq!(victim(20, 80, 1.0 / 6.0), SegmentKind::Hot);
        assert_eq!(victim(10, 90, 1.0 / 6.0), SegmentKind::Cold);
        assert_eq!(victim(10, 0, 0.5), SegmentKind::Hot);
    }
}

//! Which items stay in RAM: pure functions, no state, no I/O.
//!
//! The shape is S3-FIFO's (Yang et al., SOSP '23): a small first-come queue (hot), a main queue with
//! reinsertion (cold). Items that were never hit leave hot for good (to dry, where there is one);
//! items that were hit move to cold, and stay there as long as they are hit between two visits.

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

/// The fate of an item with `hits` in a segment of `kind`.
pub fn fate(kind: SegmentKind, hits: u8, pressure: Pressure) -> Fate {
    match (pressure, kind, hits) {
        (Pressure::High, _, _) | (_, _, 0) => Fate::Leave,
        (_, SegmentKind::Hot, _) => Fate::Keep(SegmentKind::Cold, 0),
        (_, SegmentKind::Cold, hits) => Fate::Keep(SegmentKind::Cold, hits - 1),
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
        assert_eq!(fate(SegmentKind::Hot, 0, Pressure::Normal), Fate::Leave);
        assert_eq!(
            fate(SegmentKind::Hot, 2, Pressure::Normal),
            Fate::Keep(SegmentKind::Cold, 0)
        );
        assert_eq!(
            fate(SegmentKind::Cold, 2, Pressure::Normal),
            Fate::Keep(SegmentKind::Cold, 1)
        );
        assert_eq!(fate(SegmentKind::Cold, 3, Pressure::High), Fate::Leave);
    }

    #[test]
    fn the_tier_over_its_quota_gives_way() {
        assert_eq!(victim(20, 80, 1.0 / 6.0), SegmentKind::Hot);
        assert_eq!(victim(10, 90, 1.0 / 6.0), SegmentKind::Cold);
        assert_eq!(victim(10, 0, 0.5), SegmentKind::Hot);
    }
}

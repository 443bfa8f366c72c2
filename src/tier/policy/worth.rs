//! What an item is worth: how long it may stay without a hit, from its hits and its size.
//!
//! The shape is GreedyDual-Size-Frequency's (Cherkasova, 1998). RAM has a clock of its own, the
//! *floor*, which moves only when room is made. An item that is stored or hit gets credit: it is
//! *due* when the floor has moved by so many ticks. What is due leaves first. The floor therefore
//! runs fast where much comes and goes, and an item that was hit often long ago is due all the same.
//!
//! Segments are visited whole, so the question is which segment to visit: the one that is *ripe*
//! first, that is whose due items will soonest make up half of it. The floor moves to that point;
//! the items that are due leave, the others move together. Nothing here has state.

use crate::tier::config::Policy;

/// Bits of a stamp: the low bits of the floor when an item was last stored or hit.
pub const STAMP_BITS: u32 = 11;
const STAMP_MASK: u64 = (1 << STAMP_BITS) - 1;
/// Ticks of credit for a hit of an item of mean size.
const CREDIT_MEAN: f64 = 16.0;
/// Most ticks of credit: half of what a stamp can tell apart, so that an item can be overdue for as
/// long before its stamp means something else, which only keeps it once more.
const CREDIT_MAX: f64 = (1 << (STAMP_BITS - 1)) as f64;
/// A segment is ripe when this part of it is due: what stays of it is copied, so a lower one would
/// choose better but copy more. At 0.6, simulated hit ratios were up to 0.7 points lower.
pub const RIPE_PART: f64 = 0.5;

/// The stamp of an item that is used while the floor is here.
#[inline]
pub fn stamp(floor: u64) -> u16 {
    (floor & STAMP_MASK) as u16
}

/// What an item's worth follows from, apart from the item.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// How much size counts.
    pub policy: Policy,
    /// The mean size of items in RAM.
    pub mean_words: f64,
    /// Where the floor is.
    pub floor: u64,
}

impl Measure {
    /// Where the floor is when an item of this size, with these hits, is due.
    pub fn due(&self, stamp: u16, hits: u8, words: usize) -> u64 {
        let age = self.floor.wrapping_sub(u64::from(stamp)) & STAMP_MASK;
        self.floor + self.credit(hits, words).saturating_sub(age)
    }

    fn credit(&self, hits: u8, words: usize) -> u64 {
        let size = words.max(1) as f64 / self.mean_words.max(1.0);
        let per_hit = match self.policy {
            Policy::Fifo => 0.0,
            Policy::Frequency => 1.0,
            Policy::Balanced => size.sqrt().recip(),
            Policy::Density => size.recip(),
        };
        // Storing it counts as its first use.
        let credit = f64::from(hits + 1) * per_hit * CREDIT_MEAN;
        credit.round().clamp(1.0, CREDIT_MAX) as u64
    }
}

/// Where the floor is when [`RIPE_PART`] of a segment is due, from samples of equal weight. Dead
/// words are samples that are due at 0.
pub fn ripe(samples: &mut [u64]) -> u64 {
    if samples.is_empty() {
        return 0;
    }
    let part = (samples.len() as f64 * RIPE_PART).ceil() as usize;
    let (_, due, _) = samples.select_nth_unstable(part.clamp(1, samples.len()) - 1);
    *due
}

/// The hits that an item begins with when it returns, from those it left with: half of them, and one
/// for the return.
pub fn returning_hits(policy: Policy, hits: u8) -> u8 {
    match policy {
        Policy::Fifo => 0,
        _ => hits / 2 + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(policy: Policy) -> Measure {
        Measure {
            policy,
            mean_words: 64.0,
            floor: 10_000,
        }
    }

    // More hits and less size keep an item longer, as far as the policy looks at size.
    #[test]
    fn hits_and_size_make_worth() {
        for (policy, quarter) in [
            (Policy::Frequency, 16),
            (Policy::Balanced, 32),
            (Policy::Density, 64),
        ] {
            let measure = measure(policy);
            let due = |hits, words| measure.due(stamp(measure.floor), hits, words) - measure.floor;
            assert_eq!(due(0, 64), 16);
            assert_eq!(due(0, 16), quarter);
            assert_eq!(due(2, 64), 48);
            assert_eq!(
                due(15, 1),
                if policy == Policy::Frequency {
                    256
                } else {
                    1024
                }
            );
            assert!(due(0, 1 << 20) >= 1);
        }
    }

    // The floor's progress since the last use counts, also where the stamp has wrapped.
    #[test]
    fn unused_items_become_due() {
        let later = measure(Policy::Frequency);
        for (age, left) in [(0, 16), (10, 6), (16, 0), (500, 0)] {
            assert_eq!(
                later.due(stamp(later.floor - age), 0, 64),
                later.floor + left
            );
        }
        let wrapped = Measure {
            floor: 2050,
            ..later
        };
        assert_eq!(wrapped.due(stamp(2040), 0, 64), 2056);
    }

    #[test]
    fn a_segment_is_ripe_when_half_of_it_is_due() {
        assert_eq!(ripe(&mut [9, 1, 5, 3]), 3);
        assert_eq!(ripe(&mut [9, 0, 0, 7, 5]), 5);
        assert_eq!(ripe(&mut [4]), 4);
        assert_eq!(ripe(&mut []), 0);
    }

    #[test]
    fn what_returns_has_half_its_hits_and_one() {
        assert_eq!(returning_hits(Policy::Fifo, 9), 0);
        assert_eq!(
            [0, 1, 2, 15].map(|hits| returning_hits(Policy::Density, hits)),
            [1, 1, 2, 8]
        );
    }
}

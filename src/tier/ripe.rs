//! Choosing the segment that gives way by what its items are worth.
//!
//! Each sealed segment has a rank: where the floor was to be when it is ripe, as far as its last
//! look knew. Hits since then have only moved it up, so the lowest rank is looked at again, and
//! gives way if it is still the lowest. So most segments are not looked at for most evictions.

use std::sync::atomic::Ordering::Relaxed;

use super::cache::Cache;
use super::policy::worth::{self, Measure};
use super::slot::{Location, Slot};
use crate::ram::{Address, Item, Segment};

/// Segments of the lowest ranks that one pass over all segments yields.
const CANDIDATES: usize = 8;
/// Passes after which the best candidate so far gives way.
const PASSES_MAX: usize = 8;
/// Places of a segment whose items are asked how long they are to stay. With four times as many,
/// hit ratios are the same.
const SAMPLES: usize = 16;

/// A segment that may give way, the one that should first in front: its rank, its place in the
/// order of age, its number.
type Candidate = (u64, u64, u32);

/// The candidates of the lowest ranks, of those that were offered.
#[derive(Debug, Default)]
pub(super) struct Lowest {
    candidates: Vec<Candidate>,
}

impl Lowest {
    /// Keeps a sealed segment if it is among the lowest.
    pub(super) fn offer(&mut self, segment: &Segment, number: u32) {
        let candidate = (segment.rank(), segment.sequence(), number);
        let full = self.candidates.len() == CANDIDATES;
        if full && self.candidates.last().is_some_and(|last| *last < candidate) {
            return;
        }
        let at = self.candidates.partition_point(|other| *other < candidate);
        self.candidates.truncate(CANDIDATES - 1);
        self.candidates.insert(at, candidate);
    }
}

impl Cache {
    /// The segment that is ripe first, and where the floor is then, to begin with of these.
    pub(super) fn choose_ripe(&self, mut lowest: Lowest) -> Option<(u32, u64)> {
        let measure = self.measure();
        let mut best: Option<(u64, u32)> = None;
        for pass in 0..PASSES_MAX {
            if pass > 0 {
                lowest = self.lowest_ranks();
            }
            let candidates = &lowest.candidates;
            for (at, &(rank, _, number)) in candidates.iter().enumerate() {
                let Some(ripe) = self.look_at(number, &measure) else {
                    continue;
                };
                let next = candidates.get(at + 1).map_or(rank, |next| next.0);
                if ripe <= next.max(measure.floor) {
                    return Some((number, ripe));
                }
                if best.is_none_or(|(least, _)| ripe < least) {
                    best = Some((ripe, number));
                }
            }
            if candidates.is_empty() {
                break;
            }
        }
        best.map(|(ripe, number)| (number, ripe))
    }

    /// How long items are to stay as things are.
    pub(super) fn measure(&self) -> Measure {
        Measure {
            policy: self.config.policy,
            mean_words: self.live_words.load(Relaxed) as f64 / f64::from(self.ghost.items().max(1)),
            floor: self.floor.load(Relaxed),
        }
    }

    /// Moves the floor up.
    pub(super) fn raise_floor(&self, floor: u64) {
        self.floor.fetch_max(floor, Relaxed);
    }

    /// The stamp of an item that is used now.
    #[inline]
    pub(super) fn stamp(&self) -> u16 {
        worth::stamp(self.floor.load(Relaxed))
    }

    fn lowest_ranks(&self) -> Lowest {
        let mut lowest = Lowest::default();
        for (number, segment) in self.arena.segments().iter().enumerate() {
            if segment.is_sealed() {
                lowest.offer(segment, number as u32);
            }
        }
        lowest
    }

    /// Ranks a segment anew; `None` if it cannot be claimed or has just been freed.
    fn look_at(&self, number: u32, measure: &Measure) -> Option<u64> {
        if !self.arena.claim(number) {
            return None;
        }
        let segment = self.arena.segment(number);
        let used = segment.used_words() as usize;
        let mut samples = [0; SAMPLES];
        let mut taken = 0;
        for (address, item) in self.arena.items(number) {
            let end = address.word as usize + item.words();
            // The places are spread evenly over the words, so items count by their size.
            let upto = (end * SAMPLES / used.max(1)).min(SAMPLES);
            if upto > taken {
                samples[taken..upto].fill(self.due(address, item, measure));
                taken = upto;
            }
        }
        let ripe = worth::ripe(&mut samples[..taken]);
        segment.set_rank(ripe);
        self.arena.unclaim(number);
        Some(ripe)
    }

    /// When an item in a claimed segment is due; 0 if it is dead.
    fn due(&self, address: Address, item: Item<'_>, measure: &Measure) -> u64 {
        let mut key = [0; 255];
        let hash = self.hash(item.copy_key(&mut key));
        let location = Location::ram(self.arena.segment(address.segment).kind(), address);
        let shard = self.index.lock(hash);
        match shard.at_location(hash.tag(), location) {
            Some((_, slot)) if self.is_live(item, slot.exptime, self.clock.recent()) => {
                drop(shard);
                due_of(slot, item, measure)
            }
            _ => 0,
        }
    }
}

/// When an item with this slot is due.
pub(super) fn due_of(slot: Slot, item: Item<'_>, measure: &Measure) -> u64 {
    measure.due(slot.stamp, slot.hits, item.words())
}

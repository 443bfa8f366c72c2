//! The memory of what left RAM, and how hot's share follows from it.
//!
//! An item that is wanted again soon after it left hot shows that hot is too small; one that left
//! cold shows that cold is. As in ARC (Megiddo and Modha, FAST '03) each such return moves the
//! border between the two a little, weighted by how rare its kind is. Scans and loops so end with a
//! small hot tier, recency-bound loads with a large one.
//!
//! An item that returns is also told how many hits it had.
//!
//! Direct-mapped: an entry is a fingerprint, the tier, the hits and the count of departures at the
//! time, and a newer departure simply takes its place. An entry counts for as many departures as RAM has items.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::index::KeyHash;
use super::slot::HITS_MAX;
use crate::ram::SegmentKind;

/// One entry per this many bytes of RAM: 8 bytes in 2048.
const BYTES_PER_ENTRY: usize = 2048;
/// Bits of an entry that count departures; above them are the hits.
const COUNT_BITS: u32 = 28;
const COUNT_MASK: u32 = (1 << COUNT_BITS) - 1;
const _: () = assert!(HITS_MAX as u32 == u32::MAX >> COUNT_BITS);
/// Bounds of hot's share of RAM, in parts of [`WHOLE`].
const SHARE_MIN: u32 = WHOLE / 50;
const SHARE_MAX: u32 = WHOLE / 100 * 95;
/// The whole of RAM.
const WHOLE: u32 = 1 << 24;
/// A return moves the border by this many times the item's size…
const STEP: f64 = 1.0;
/// …times the ratio of the departures, at most this.
const WEIGHT_MAX: f64 = 4.0;

/// Departures from RAM, remembered for a while, and the share they ask for.
#[derive(Debug)]
pub(super) struct Ghost {
    entries: Box<[AtomicU64]>,
    departures: AtomicU32,
    /// Departures by tier, halved now and then.
    from: [AtomicU32; 2],
    /// Items in RAM: for how many departures an entry counts.
    window: AtomicU32,
    hot_share: AtomicU32,
}

impl Ghost {
    /// For RAM of this many bytes, `hot_share` of which is hot to begin with.
    pub(super) fn new(memory_bytes: usize, hot_share: f64) -> Ghost {
        let entries = (memory_bytes / BYTES_PER_ENTRY).next_power_of_two();
        Ghost {
            entries: (0..entries).map(|_| AtomicU64::new(0)).collect(),
            departures: AtomicU32::new(0),
            from: Default::default(),
            window: AtomicU32::new(u32::MAX),
            hot_share: AtomicU32::new((hot_share * f64::from(WHOLE)) as u32),
        }
    }

    /// Bytes of memory that the entries take.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.entries)
    }

    /// Hot's present share of RAM.
    pub(super) fn hot_share(&self) -> f64 {
        f64::from(self.hot_share.load(Relaxed)) / f64::from(WHOLE)
    }

    /// Notes how many items RAM holds.
    pub(super) fn set_items(&self, items: u64) {
        self.window
            .store(u32::try_from(items).unwrap_or(u32::MAX), Relaxed);
    }

    /// How many items RAM holds, as far as was noted.
    pub(super) fn items(&self) -> u32 {
        self.window.load(Relaxed)
    }

    /// An item with so many hits leaves RAM from a tier.
    pub(super) fn departs(&self, hash: KeyHash, kind: SegmentKind, hits: u8) {
        let count = self.departures.fetch_add(1, Relaxed);
        let from = &self.from[kind as usize];
        if from.fetch_add(1, Relaxed) > 1 << 16 {
            for from in &self.from {
                from.store(from.load(Relaxed) / 2, Relaxed);
            }
        }
        let entry = u64::from(fingerprint(hash, kind)) << 32
            | u64::from(hits) << COUNT_BITS
            | u64::from(count & COUNT_MASK);
        self.entry(hash).store(entry, Relaxed);
    }

    /// Whether an item left lately, or was noted as if it had.
    pub(super) fn knows(&self, hash: KeyHash) -> bool {
        let entry = self.entry(hash).load(Relaxed);
        self.is_recent(entry) && (entry >> 33) as u32 == fingerprint(hash, SegmentKind::Hot) >> 1
    }

    /// Whether an entry is of one of the last departures that count.
    fn is_recent(&self, entry: u64) -> bool {
        let age = self.departures.load(Relaxed).wrapping_sub(entry as u32) & COUNT_MASK;
        entry != 0 && age <= self.window.load(Relaxed)
    }

    /// An item of `share` of RAM is stored that was not there: moves the border if it left lately,
    /// and tells its hits.
    pub(super) fn returns(&self, hash: KeyHash, share: f64) -> Option<u8> {
        let entry = self.entry(hash).load(Relaxed);
        if !self.is_recent(entry) {
            return None;
        }
        let [hot, cold] =
            [&self.from[0], &self.from[1]].map(|from| f64::from(from.load(Relaxed).max(1)));
        let found = (entry >> 32) as u32;
        let change = if found == fingerprint(hash, SegmentKind::Hot) {
            (cold / hot).clamp(1.0, WEIGHT_MAX)
        } else if found == fingerprint(hash, SegmentKind::Cold) {
            -(hot / cold).clamp(1.0, WEIGHT_MAX)
        } else {
            return None;
        };
        self.entry(hash).store(0, Relaxed);
        let change = (change * STEP * share * f64::from(WHOLE)) as i64;
        let share = i64::from(self.hot_share.load(Relaxed)) + change;
        let share = share.clamp(i64::from(SHARE_MIN), i64::from(SHARE_MAX));
        // Racing returns may overwrite each other: the border is an estimate anyway.
        self.hot_share.store(share as u32, Relaxed);
        Some((entry as u32 >> COUNT_BITS) as u8)
    }

    fn entry(&self, hash: KeyHash) -> &AtomicU64 {
        &self.entries[(hash.0 >> 20) as usize & (self.entries.len() - 1)]
    }
}

/// The low bits of the hash and the tier.
fn fingerprint(hash: KeyHash, kind: SegmentKind) -> u32 {
    (hash.0 as u32) << 1 | kind as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u64) -> KeyHash {
        KeyHash(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    // What comes back to where it left moves the border and is known; strangers and old acquaintances do not.
    #[test]
    fn returns_move_the_border() {
        let ghost = Ghost::new(1 << 20, 0.5);
        ghost.set_items(10);
        ghost.departs(hash(1), SegmentKind::Hot, 5);
        assert_eq!(ghost.returns(hash(2), 0.01), None);
        assert_eq!(ghost.hot_share(), 0.5);
        assert_eq!(ghost.returns(hash(1), 0.01), Some(5));
        let larger = ghost.hot_share();
        assert!(larger > 0.505);
        ghost.departs(hash(3), SegmentKind::Cold, 5);
        ghost.returns(hash(3), 0.01);
        assert!(ghost.hot_share() < larger);

        let before = ghost.hot_share();
        ghost.departs(hash(4), SegmentKind::Hot, 5);
        for number in 100..200 {
            ghost.departs(hash(number), SegmentKind::Cold, 5);
        }
        ghost.returns(hash(4), 0.01);
        assert_eq!(ghost.hot_share(), before);
    }

    #[test]
    fn the_share_keeps_its_bounds() {
        let ghost = Ghost::new(1 << 20, 0.5);
        for number in 0..1000 {
            ghost.departs(hash(number), SegmentKind::Hot, 5);
            ghost.returns(hash(number), 0.1);
        }
        assert!(ghost.hot_share() <= 0.951);
        for number in 0..1000 {
            ghost.departs(hash(number), SegmentKind::Cold, 5);
            ghost.returns(hash(number), 0.1);
        }
        assert!(ghost.hot_share() >= 0.019);
    }
}

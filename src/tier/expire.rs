//! What time does to items: reclaiming expired ones, moving down what nobody asked for.

use std::sync::atomic::Ordering::Relaxed;

use super::cache::Cache;
use super::evict::Evicted;
use crate::dry::Place;
use crate::entry::expired;
use crate::ram::SegmentKind;

/// Ticks of the mover for one pass over all shards: about ten seconds.
const PASS_TICKS: usize = 100;

impl Cache {
    /// Looks at the next few shards and reclaims what has expired there: the slots alone tell.
    pub(super) fn expire_slice(&self) {
        let shards = self.index.shards();
        let count = if self.expire_all.swap(false, Relaxed) {
            shards
        } else {
            shards.div_ceil(PASS_TICKS)
        };
        for _ in 0..count {
            self.expire_shard(self.next_expiry_shard.fetch_add(1, Relaxed) % shards);
        }
    }

    /// Has everything that is expired now reclaimed, without waiting for it.
    pub fn expire_soon(&self) {
        self.expire_all.store(true, Relaxed);
        self.wake.notify();
    }

    pub(super) fn expire_shard(&self, number: usize) {
        let now = self.clock.recent();
        let flushed_below = self.flush_segment.load(Relaxed);
        let mut shard = self.index.lock_shard(number);
        let mut place = 0;
        while let Some(found) = shard.table().next_from(place) {
            let slot;
            (place, slot) = found;
            let flushed = |at: Place| at.segment < flushed_below;
            // What is removed here lets the slots behind move up: the place is looked at again.
            match (slot.location.address(), slot.location.place()) {
                // The flush is persisted and covers the whole segment: no kill is needed.
                (_, Some((at, _))) if flushed(at) => shard.remove(place, slot),
                (Some(address), _) if expired(slot.exptime, now) => {
                    self.count_reclaimed(self.arena.item(address));
                    shard.remove(place, slot);
                    self.kill_item(slot.location);
                }
                // A copy below dies like any other: by a kill. In power mode that would have to be
                // committed; there it waits for its segment to be reclaimed.
                (None, Some((at, _))) if expired(slot.exptime, now) && !self.commit_kills => {
                    if let Some(dry) = &self.dry {
                        dry.kill(at);
                    }
                    shard.remove(place, slot);
                }
                _ => place += 1,
            }
        }
        shard.shrink();
    }

    /// Visits the oldest segments of a tier when their items have been there for the residence
    /// time: those that nobody fetched for that long move down, the others stay. Without a dry
    /// tier nothing ages out: the items would have nowhere to go.
    pub(super) fn age_out(&self) {
        if self.dry.is_none() {
            return;
        }
        let now = u64::from(self.clock.recent());
        for kind in [SegmentKind::Hot, SegmentKind::Cold] {
            let ttl = self.residence_seconds(kind);
            let aged = self
                .arena
                .segments()
                .iter()
                .enumerate()
                .filter(|(_, segment)| {
                    segment.is_sealed()
                        && segment.kind() == kind
                        && u64::from(segment.opened()) + ttl <= now
                });
            let Some((number, _)) = aged.min_by_key(|(_, segment)| segment.sequence()) else {
                continue;
            };
            if self.age_segment(&mut self.mover.lock(), number as u32) == Evicted::Busy {
                return;
            }
        }
    }

    /// How long an item stays in a tier without a hit.
    pub(super) fn residence_seconds(&self, kind: SegmentKind) -> u64 {
        match kind {
            SegmentKind::Hot => self.config.hot_ttl.0.as_secs(),
            SegmentKind::Cold => self.config.cold_ttl.0.as_secs(),
        }
    }
}

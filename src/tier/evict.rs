//! Making room: a segment is chosen, its live items stay or [leave](super::leave), the segment is
//! free. Every move is copy first, then swap the location if it is unchanged.

use std::sync::atomic::Ordering::Relaxed;

use super::cache::{Cache, Patience};
use super::config::Policy;
use super::leave::{Live, Moved};
use super::mover::Mover;
use super::policy::worth::Measure;
use super::policy::{self, Fate, Pressure};
use super::ripe::{Lowest, due_of};
use super::slot::{Location, Slot, Tier};
use crate::ram::SegmentKind;

/// How the eviction of one segment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Evicted {
    /// A segment is free, or items moved together.
    Room,
    /// Dry has no time for the items.
    Busy,
    /// There is nothing to evict, or nothing may be.
    Nothing,
}

impl Cache {
    /// Compacts a mostly dead segment, or evicts the oldest one.
    pub(super) fn evict_segment(&self, mover: &mut Mover, patience: Patience) -> Evicted {
        let Some(victim) = self.choose(mover) else {
            return Evicted::Nothing;
        };
        let compact = matches!(victim, Victim::Compact(_));
        let (Victim::Compact(number) | Victim::Evict(number) | Victim::Ripe(number, _)) = victim;
        if !compact && !self.may_evict() && !self.dry_takes() {
            return Evicted::Nothing;
        }
        if !self.arena.claim(number) {
            return Evicted::Room;
        }
        if let Victim::Ripe(_, floor) = victim {
            self.raise_floor(floor);
        }
        let end = self.empty_segment(mover, number, compact, patience);
        self.arena.unclaim(number);
        if end == Evicted::Room {
            let engine = &self.metrics.engine;
            if compact {
                &engine.segments_compacted
            } else {
                &engine.segments_evicted
            }
            .add_shared(1);
        }
        end
    }

    /// Whether dry is there to take items, now or after a wait.
    fn dry_takes(&self) -> bool {
        self.dry
            .as_ref()
            .is_some_and(|dry| dry.tier_state().takes_writes())
    }

    /// The segment that gives way. One pass over all segments; there are few of them.
    fn choose(&self, mover: &Mover) -> Option<Victim> {
        let mut used = [0usize; 2];
        let mut oldest: [Option<(u64, u32)>; 2] = [None; 2];
        let mut deadest: Option<(u32, u32)> = None;
        let (mut live_words, mut lowest) = (0, Lowest::default());
        for (number, segment) in self.arena.segments().iter().enumerate() {
            if !segment.in_use() {
                continue;
            }
            let kind = segment.kind();
            let live = segment.live_words();
            used[kind as usize] += segment.span() as usize;
            live_words += u64::from(live);
            if !segment.is_sealed() {
                continue;
            }
            let number = number as u32;
            let sequence = segment.sequence();
            if oldest[kind as usize].is_none_or(|(older, _)| sequence < older) {
                oldest[kind as usize] = Some((sequence, number));
            }
            if self.config.policy != Policy::Fifo {
                lowest.offer(segment, number);
            }
            if segment.span() == 1
                && policy::worth_compacting(live, self.arena.segment_words() as u32)
                && deadest.is_none_or(|(least, _)| live < least)
            {
                deadest = Some((live, number));
            }
        }
        self.live_words.store(live_words, Relaxed);
        if let Some((_, number)) = deadest.filter(|_| mover.pressure() == Pressure::Normal) {
            return Some(Victim::Compact(number));
        }
        if self.config.policy != Policy::Fifo {
            return self
                .choose_ripe(lowest)
                .map(|(number, floor)| Victim::Ripe(number, floor));
        }
        let [hot, cold] = [SegmentKind::Hot as usize, SegmentKind::Cold as usize];
        let (first, second) = match policy::victim(used[hot], used[cold], self.hot_share()) {
            SegmentKind::Hot => (hot, cold),
            SegmentKind::Cold => (cold, hot),
        };
        oldest[first]
            .or(oldest[second])
            .map(|(_, number)| Victim::Evict(number))
    }

    fn empty_segment(
        &self,
        mover: &mut Mover,
        number: u32,
        compact: bool,
        patience: Patience,
    ) -> Evicted {
        let kind = self.arena.segment(number).kind();
        let measure = self.measure();
        let mut key = [0; 255];
        for (address, item, hash) in self.walk(number) {
            let Some(live) = self.live_in(address, item, hash, &mut key, kind) else {
                continue;
            };
            let moved = if compact {
                self.keep(mover, &live, kind, live.slot.hits, Some(number), patience)
            } else {
                match self.fate(&live, kind, &measure, mover.pressure()) {
                    Fate::Keep(kind, hits) => self.keep(mover, &live, kind, hits, None, patience),
                    Fate::Leave => self.leave(&live, patience),
                }
            };
            if moved == Moved::Busy {
                return Evicted::Busy;
            }
        }
        let segment_words = self.arena.segment_words();
        let usual = policy::kept_words_usual(self.config.policy, segment_words);
        mover.visited(segment_words, usual);
        Evicted::Room
    }

    fn fate(
        &self,
        live: &Live<'_>,
        kind: SegmentKind,
        measure: &Measure,
        pressure: Pressure,
    ) -> Fate {
        let hits = live.slot.hits;
        match self.config.policy {
            Policy::Fifo => policy::fifo_fate(kind, hits, pressure),
            _ => {
                let due = due_of(live.slot, live.item, measure);
                policy::worth_fate(due, measure.floor, hits, pressure)
            }
        }
    }

    /// Visits a segment whose items have been in its tier for the residence time.
    pub(super) fn age_segment(&self, mover: &mut Mover, number: u32) -> Evicted {
        if !self.arena.claim(number) {
            return Evicted::Room;
        }
        let kind = self.arena.segment(number).kind();
        let ttl = self.residence_seconds(kind);
        let now = u64::from(self.clock.recent());
        let mut key = [0; 255];
        let mut end = Evicted::Room;
        for (address, item, hash) in self.walk(number) {
            let Some(live) = self.live_in(address, item, hash, &mut key, kind) else {
                continue;
            };
            let recent = u64::from(item.last_access()) + ttl > now;
            let moved = match kind {
                kind if recent => {
                    self.keep(mover, &live, kind, live.slot.hits, None, Patience::Wait)
                }
                SegmentKind::Hot => {
                    self.keep(mover, &live, SegmentKind::Cold, 0, None, Patience::Wait)
                }
                SegmentKind::Cold => self.leave(&live, Patience::Wait),
            };
            if moved == Moved::Busy {
                end = Evicted::Busy;
                break;
            }
        }
        self.arena.unclaim(number);
        end
    }

    /// Makes a segment of hot one of cold.
    pub(super) fn hand_over(&self, number: u32) {
        if !self.arena.claim(number) {
            return;
        }
        self.arena.segment(number).set_kind(SegmentKind::Cold);
        for (address, _, hash) in self.walk(number) {
            let mut shard = self.index.lock_and_hint(hash);
            let hot = Location::ram(SegmentKind::Hot, address);
            if let Some((place, slot)) = shard.at_location(hash.tag(), hot) {
                let location = Location::ram(SegmentKind::Cold, address);
                shard.replace(place, slot, Slot { location, ..slot });
                self.metrics.engine.demotions.add_shared(1);
                self.metrics.engine.hot_evictions.add_shared(1);
            }
        }
        self.arena.unclaim(number);
    }

    /// Copies an item to the mover's segment of a tier; leaves where that has no room.
    fn keep(
        &self,
        mover: &mut Mover,
        live: &Live<'_>,
        kind: SegmentKind,
        hits: u8,
        compacted: Option<u32>,
        patience: Patience,
    ) -> Moved {
        if self.arena.segment(live.address.segment).span() > 1 {
            return self.leave(live, patience);
        }
        let words = live.item.words();
        let Some(number) = mover.room(&self.arena, kind, words, compacted, self.clock.recent())
        else {
            return self.leave(live, patience);
        };
        let mut shard = self.index.lock(live.hash);
        let Some((place, slot)) = shard.at_location(live.hash.tag(), live.slot.location) else {
            return Moved::Done;
        };
        let address = self.arena.append(number, words as u32);
        live.item.copy_to(self.arena.words_from(address));
        shard.replace(
            place,
            slot,
            Slot {
                location: Location::ram(kind, address),
                hits,
                ..slot
            },
        );
        self.kill_item(slot.location);
        drop(shard);
        if compacted.is_none() {
            mover.kept(words);
            if slot.location.tier() == Tier::Hot && kind == SegmentKind::Cold {
                self.metrics.engine.demotions.add_shared(1);
                self.metrics.engine.hot_evictions.add_shared(1);
            }
        }
        Moved::Done
    }
}

/// A chosen segment.
#[derive(Debug, Clone, Copy)]
enum Victim {
    /// Mostly dead: its live items stay.
    Compact(u32),
    /// The oldest.
    Evict(u32),
    /// The one that is ripe first; the floor moves there.
    Ripe(u32, u64),
}

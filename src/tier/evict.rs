//! Making room: a segment is chosen, its live items stay or leave, the segment is free.
//!
//! Items that leave go to dry where there is one. A clean item (one with a copy in dry) only loses
//! its slot in RAM. Every move is copy first, then swap the location if it is unchanged.

use std::sync::atomic::Ordering::Relaxed;

use super::cache::Cache;
use super::cache::Patience;
use super::config::Policy;
use super::index::KeyHash;
use super::mover::Mover;
use super::policy::admission::{Candidate, admits};
use super::policy::worth::Measure;
use super::policy::{self, Fate, Pressure};
use super::ripe::{Lowest, due_of};
use super::sketch::Sketch;
use super::slot::{Location, Slot, Tier};
use crate::dry::{Append, NewRecord};
use crate::entry::{Marks, NEVER};
use crate::fault::Mutant;
use crate::metrics::Count;
use crate::ram::{Address, Item, SegmentKind};
use crate::watch::{Event, Kinds, Removal};

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

/// What became of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moved {
    Done,
    Busy,
}

/// A live item in a claimed segment.
struct Live<'a> {
    item: Item<'a>,
    address: Address,
    key: &'a [u8],
    hash: KeyHash,
    slot: Slot,
    /// Whether dry holds a copy.
    clean: bool,
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

    /// The live item at an address, or `None` if it is dead. Expired and flushed items die here.
    fn live_in<'a>(
        &self,
        address: Address,
        item: Item<'a>,
        hash: KeyHash,
        key: &'a mut [u8; 255],
        kind: SegmentKind,
    ) -> Option<Live<'a>> {
        let key = item.copy_key(key);
        let location = Location::ram(kind, address);
        let mut shard = self.index.lock_and_hint(hash);
        let (place, slot) = shard.at_location(hash.tag(), location)?;
        if !self.is_live(item, slot.exptime, self.clock.recent()) {
            shard.remove(place, slot);
            self.kill_item(location);
            self.count_reclaimed(item);
            return None;
        }
        let clean = shard.dry(hash.tag()).is_some();
        drop(shard);
        Some(Live {
            item,
            address,
            key,
            hash,
            slot,
            clean,
        })
    }

    pub(super) fn count_reclaimed(&self, item: Item<'_>) {
        self.metrics.engine.reclaimed.add_shared(1);
        if !item.marks().has(Marks::FETCHED) {
            self.metrics.engine.expired_unfetched.add_shared(1);
        }
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

    /// Moves an item out of RAM: to dry where it can go there, else to nowhere.
    fn leave(&self, live: &Live<'_>, patience: Patience) -> Moved {
        let engine = &self.metrics.engine;
        let lost: Option<&Count> = if live.clean {
            None
        } else if self.dry.is_some() && !self.dry_admits(live) {
            Some(&engine.demote_dropped_admission)
        } else {
            match self.dry_item(live, Copy::Move) {
                Append::Done(_) => {
                    engine.demotions.add_shared(1);
                    self.count_evicted(live);
                    return Moved::Done;
                }
                Append::Rejected => return Moved::Done,
                Append::Busy | Append::Behind if patience == Patience::Wait => {
                    return Moved::Busy;
                }
                Append::Busy => Some(&engine.demote_dropped_busy),
                Append::Behind => Some(&engine.demote_dropped_behind),
                Append::Paused => Some(&engine.demote_dropped_paused),
                Append::TooLarge => Some(&engine.demote_dropped_size),
                Append::Failed if self.dry.is_some() => Some(&engine.demote_dropped_failed),
                Append::Failed => Some(&engine.evictions_lost),
            }
        };
        if lost.is_some() && !self.may_evict() {
            return Moved::Busy;
        }
        let mut shard = self.index.lock(live.hash);
        if live.clean && shard.dry(live.hash.tag()).is_none() {
            // The copy died meanwhile: the next visit dries the item.
            return Moved::Done;
        }
        if let Some((place, slot)) = shard.at_location(live.hash.tag(), live.slot.location) {
            shard.remove(place, slot);
            self.kill_item(slot.location);
            drop(shard);
            self.count_evicted(live);
            if let Some(reason) = lost {
                reason.add_shared(1);
                self.tell_left(live, Left::Lost);
            }
        }
        Moved::Done
    }

    fn count_evicted(&self, live: &Live<'_>) {
        let kind = self.arena.segment(live.address.segment).kind();
        self.ghost.departs(live.hash, kind, live.slot.hits);
        if let Some(sketch) = &self.sketch {
            sketch.add(live.hash, live.slot.hits + 1);
        }
        let engine = &self.metrics.engine;
        engine.evictions.add_shared(1);
        if live.slot.location.tier() == Tier::Hot {
            &engine.hot_evictions
        } else {
            &engine.cold_evictions
        }
        .add_shared(1);
        if !live.item.marks().has(Marks::FETCHED) {
            engine.evicted_unfetched.add_shared(1);
        }
    }

    /// Whether an item is worth a place in dry. With `-M` nothing is dropped, so all are.
    fn dry_admits(&self, live: &Live<'_>) -> bool {
        let uses = |sketch: &Sketch| (sketch.uses(live.hash), sketch.rival_uses());
        let (uses, rival_uses) = self.sketch.as_ref().map_or((0, 0.0), uses);
        let candidate = Candidate {
            hits: live.slot.hits,
            uses: u32::from(uses) + u32::from(live.slot.hits) + 1,
            rival_uses,
        };
        !self.may_evict() || admits(self.config.dry_admission, candidate)
    }

    /// Appends an item to dry and points the index at it: in place of the slot in RAM, or beside it.
    fn dry_item(&self, live: &Live<'_>, copy: Copy) -> Append {
        let Some(dry) = &self.dry else {
            return Append::Failed;
        };
        let facts = live.item.facts(if Mutant::LoseExptime.is_on() {
            NEVER
        } else {
            live.slot.exptime
        });
        let record = NewRecord {
            hash: live.hash.0,
            facts: &facts,
            hits: live.slot.hits,
            key_bytes: live.key.len(),
            value_bytes: live.item.value_bytes(),
            created: self.arena.segment(live.address.segment).opened(),
        };
        let fill = |bytes: &mut [u8]| live.item.copy_key_value(bytes);
        let appended = dry.append(&record, fill, |place, bytes| {
            let mut shard = self.index.lock(live.hash);
            let tag = live.hash.tag();
            let Some((at, slot)) = shard.at_location(tag, live.slot.location) else {
                return false;
            };
            // The record was made from these; in RAM they can change under the shard lock.
            if slot.exptime != live.slot.exptime
                || live.item.marks() != facts.marks
                || shard.dry(tag).is_some()
                || !self.is_live(live.item, slot.exptime, self.clock.recent())
            {
                return false;
            }
            let location = Location::dry(place, bytes);
            match copy {
                Copy::Move => {
                    shard.replace(
                        at,
                        slot,
                        Slot {
                            location,
                            hits: 0,
                            ..slot
                        },
                    );
                    self.kill_item(slot.location);
                    true
                }
                Copy::Keep => shard
                    .insert(Slot {
                        location,
                        hits: 0,
                        ..slot
                    })
                    .is_ok(),
            }
        });
        if let Append::Done(_) = appended {
            self.tell_left(live, Left::Dried);
        }
        appended
    }

    /// Tells who watches evictions. The item's segment is claimed, so its bytes are still there.
    fn tell_left(&self, live: &Live<'_>, left: Left) {
        let Some(watch) = self
            .watch
            .get()
            .filter(|watch| watch.wants(Kinds::EVICTIONS))
        else {
            return;
        };
        let (now, exptime) = (self.clock.recent(), live.slot.exptime);
        watch.tell(&Event::Left(Removal {
            key: live.key,
            dried: left == Left::Dried,
            fetched: live.item.marks().has(Marks::FETCHED),
            ttl: (exptime != NEVER).then(|| exptime.saturating_sub(now)),
            idle: now.saturating_sub(live.item.last_access()),
            class: live.slot.location.tier().class(),
            bytes: live.item.value_bytes(),
        }));
    }

    /// Copies a claimed segment's items to dry, all or those that it admits; they stay in RAM as
    /// clean.
    pub(super) fn dry_segment(&self, number: u32, offered: Offered) -> Dried {
        let kind = self.arena.segment(number).kind();
        let mut key = [0; 255];
        let mut dried = Dried::default();
        for (address, item, hash) in self.walk(number) {
            let Some(live) = self
                .live_in(address, item, hash, &mut key, kind)
                .filter(|live| !live.clean)
                .filter(|live| offered == Offered::All || self.dry_admits(live))
            else {
                continue;
            };
            match self.dry_item(&live, Copy::Keep) {
                Append::Done(_) => {
                    dried.copied_bytes += (live.item.words() * 8) as u64;
                    self.metrics.engine.dried_ahead.add_shared(1);
                }
                Append::Rejected => {}
                Append::TooLarge => dried.too_large += 1,
                Append::Busy | Append::Behind | Append::Paused | Append::Failed => return dried,
            }
        }
        dried.complete = true;
        dried
    }
}

/// Whether the item stays in RAM when it is dried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copy {
    Move,
    Keep,
}

/// What became of a segment's items that were to be dried.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Dried {
    pub(super) copied_bytes: u64,
    /// Items that no dry segment has room for.
    pub(super) too_large: u64,
    /// Whether all were offered to dry.
    pub(super) complete: bool,
}

/// Which items of a segment are dried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offered {
    /// All: what is not dried now is lost.
    All,
    /// Those that dry admits.
    Admitted,
}

/// Where an item went that watchers are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Dried,
    Lost,
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

//! What becomes of an item that is to leave RAM: a record in dry, or nothing.
//!
//! A clean item (one with a copy in dry) only loses its slot in RAM. Every move is copy first, then
//! swap the location if it is unchanged.

use super::cache::{Cache, Patience};
use super::index::KeyHash;
use super::policy::admission::{Candidate, admits};
use super::sketch::Sketch;
use super::slot::{Location, Slot, Tier};
use crate::dry::{Append, NewRecord};
use crate::entry::{Marks, NEVER};
use crate::fault::Mutant;
use crate::metrics::Count;
use crate::ram::{Address, Item, SegmentKind};
use crate::watch::{Event, Kinds, Removal};

/// What became of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    Done,
    Busy,
}

/// A live item in a claimed segment.
pub(super) struct Live<'a> {
    pub(super) item: Item<'a>,
    pub(super) address: Address,
    pub(super) key: &'a [u8],
    pub(super) hash: KeyHash,
    pub(super) slot: Slot,
    /// Whether dry holds a copy.
    pub(super) clean: bool,
}

impl Cache {
    /// The live item at an address, or `None` if it is dead. Expired and flushed items die here.
    pub(super) fn live_in<'a>(
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

    /// Moves an item out of RAM: to dry where it can go there, else to nowhere.
    pub(super) fn leave(&self, live: &Live<'_>, patience: Patience) -> Moved {
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
            // Larger items take the room of many small ones faster than a pass over all shards comes by.
            shard.shrink();
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

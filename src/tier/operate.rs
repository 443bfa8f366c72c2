//! The two operations every command is made of: read a key, and decide on a key.
//!
//! Both are one critical section under the key's shard lock, over items of every tier. What they
//! cannot do at once they answer as [`Blocked`]; the caller waits and runs the operation again
//! from its start.

use super::cache::{Cache, Head, Local, NoRoom, Patience};
use super::fetch::{Attempt, Blocked};
use super::index::{KeyHash, Shard};
use super::slot::{Location, Slot, Tier};
use super::view::{Current, Decision, Lookup, Outcome, Value, View};
use crate::clock::UnixSeconds;
use crate::entry::{Facts, expired};
use crate::fault::{self, Mutant};
use crate::ram::{Item, item};

/// The slots of a key.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Found {
    /// The item in RAM, expired or not.
    pub(super) ram: Option<(usize, Slot)>,
    /// The copy (or the only one) in dry, by the tag alone.
    pub(super) dry: Option<(usize, Slot)>,
}

impl Cache {
    /// The slots of a key in its locked shard.
    #[inline]
    pub(super) fn find(&self, shard: &Shard, hash: KeyHash, key: &[u8]) -> Found {
        let mut found = Found::default();
        for (place, slot) in shard.table().of_tag(hash.tag()) {
            match slot.location.address() {
                None => found.dry = Some((place, slot)),
                Some(address) if self.arena.item(address).has_key(key) => {
                    found.ram = Some((place, slot));
                }
                // Of another key with this tag.
                Some(_) => {}
            }
        }
        found
    }

    /// The slot of a key's item in RAM, expired or not.
    #[inline]
    pub(super) fn find_ram(
        &self,
        shard: &Shard,
        hash: KeyHash,
        key: &[u8],
    ) -> Option<(usize, Slot)> {
        shard.table().find_first(hash.tag(), |slot| {
            slot.location
                .address()
                .is_some_and(|address| self.arena.item(address).has_key(key))
        })
    }

    /// Whether an item in RAM may be served.
    #[inline]
    pub(super) fn is_live(&self, item: Item<'_>, exptime: UnixSeconds, now: UnixSeconds) -> bool {
        !expired(exptime, now)
            && item.version()
                > self
                    .flush_version
                    .load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Whether a record in dry may be served.
    pub(super) fn is_live_below(&self, slot: Slot, now: UnixSeconds) -> bool {
        let flushed_below = self
            .flush_segment
            .load(std::sync::atomic::Ordering::Relaxed);
        !expired(slot.exptime, now)
            && slot
                .location
                .place()
                .is_some_and(|(place, _)| place.segment >= flushed_below)
    }

    /// Reads an item and counts the access. `serve` runs under the shard lock and sees the item as
    /// it was before this access; if it answers `None` the access does not count.
    #[inline]
    pub fn read<R>(
        &self,
        local: &mut Local,
        attempt: &mut Attempt,
        key: &[u8],
        serve: impl FnMut(View<'_>) -> Option<R>,
    ) -> Outcome<Lookup<R>> {
        self.read_hashed(local, attempt, key, self.hash(key), serve)
    }

    /// [`read`](Self::read) for a key whose [`hash`](Self::hash) is known.
    #[inline]
    pub fn read_hashed<R>(
        &self,
        local: &mut Local,
        attempt: &mut Attempt,
        key: &[u8],
        hash: KeyHash,
        mut serve: impl FnMut(View<'_>) -> Option<R>,
    ) -> Outcome<Lookup<R>> {
        let now = self.clock.recent();
        loop {
            let mut shard = self.index.lock(hash);
            if let Some((place, slot)) = self.find_ram(&shard, hash, key)
                && let Some(address) = slot.location.address()
            {
                let item = self.arena.item(address);
                if self.is_live(item, slot.exptime, now) {
                    let tier = if attempt.brought_up {
                        Tier::Dry
                    } else {
                        slot.location.tier()
                    };
                    let view = View {
                        item,
                        exptime: slot.exptime,
                        tier,
                    };
                    let result = match serve(view) {
                        Some(served) => {
                            touch_item(&mut shard, place, item, now, self.stamp());
                            Lookup::Hit(served)
                        }
                        None => Lookup::Declined,
                    };
                    return Outcome::Done { result, cas: 0 };
                }
                if expired(slot.exptime, now) {
                    local.counters.get_expired.bump();
                } else {
                    local.counters.get_flushed.bump();
                }
                return Outcome::Done {
                    result: Lookup::Miss,
                    cas: 0,
                };
            }
            let below = shard
                .dry(hash.tag())
                .filter(|(_, slot)| !attempt.ignore_below && self.is_live_below(*slot, now));
            drop(shard);
            let Some((_, slot)) = below else {
                return Outcome::Done {
                    result: Lookup::Miss,
                    cas: 0,
                };
            };
            if attempt.fetches == 0
                && let Some(result) = self.read_through(local, hash, key, slot, &mut serve)
            {
                return Outcome::Done { result, cas: 0 };
            }
            if let Some(blocked) = self.bring_up(local, attempt, hash, key, slot.location) {
                return Outcome::Blocked(blocked);
            }
        }
    }

    /// Decides on a key: `decide` sees what is there and says what becomes of it, atomically.
    ///
    /// `value_bytes` is a good guess of the new value's length, `None` where nothing will be
    /// stored. `decide` may run several times; only the last run counts.
    pub fn update<'v, R>(
        &self,
        local: &mut Local,
        attempt: &mut Attempt,
        key: &[u8],
        value_bytes: Option<usize>,
        mut decide: impl FnMut(Current<'_>) -> Decision<'v, R>,
    ) -> Outcome<R> {
        let hash = self.hash(key);
        let now = self.clock.recent();
        let mut words = value_bytes.map(|bytes| {
            item::item_words(
                &Facts {
                    flags: 1,
                    ..Facts::default()
                },
                key.len(),
                bytes,
            )
        });
        loop {
            let mut head = words.is_some().then(|| self.lock_head(local.head));
            if let (Some(head), Some(words)) = (&mut head, words)
                && let Err(no_room) = self.ensure_room(head, words, attempt.patience())
            {
                return self.without_room(local, attempt, no_room);
            }
            let mut shard = self.index.lock(hash);
            let found = self.find(&shard, hash, key);
            let present = found.ram.and_then(|(place, slot)| {
                let item = self.arena.item(slot.location.address()?);
                self.is_live(item, slot.exptime, now)
                    .then_some((place, slot, item))
            });
            let current = match (present, found.dry) {
                (Some((_, slot, item)), _) => {
                    let tier = if attempt.brought_up {
                        Tier::Dry
                    } else {
                        slot.location.tier()
                    };
                    Current::Present(View {
                        item,
                        exptime: slot.exptime,
                        tier,
                    })
                }
                // An expired or flushed item in RAM is newer than any copy below it.
                (None, Some((_, slot)))
                    if found.ram.is_none()
                        && !attempt.ignore_below
                        && self.is_live_below(slot, now) =>
                {
                    Current::Below
                }
                _ => Current::Absent,
            };
            match decide(current) {
                Decision::Keep(result) => return Outcome::Done { result, cas: 0 },
                Decision::Fetch => {
                    drop(shard);
                    drop(head);
                    let Some((_, slot)) = found.dry else {
                        attempt.ignore_below = true;
                        continue;
                    };
                    if let Some(blocked) = self.bring_up(local, attempt, hash, key, slot.location) {
                        return Outcome::Blocked(blocked);
                    }
                }
                Decision::Remove(result) => {
                    if let Some(blocked) = self.kill_below(&mut shard, hash, found.dry) {
                        return Outcome::Blocked(blocked);
                    }
                    self.remove_ram(&mut shard, hash, found.ram);
                    return Outcome::Done { result, cas: 0 };
                }
                Decision::Change(result, change) => {
                    let Some((_, slot, item)) = present else {
                        return Outcome::Done { result, cas: 0 };
                    };
                    let exptime = change.exptime.unwrap_or(slot.exptime);
                    let marks = change.marks.unwrap_or(item.marks());
                    if exptime != slot.exptime || marks != item.marks() {
                        if let Some(blocked) = self.kill_below(&mut shard, hash, found.dry) {
                            return Outcome::Blocked(blocked);
                        }
                        item.set_marks(marks);
                    }
                    if let Some((place, slot)) = shard.at_location(hash.tag(), slot.location) {
                        let changed = Slot { exptime, ..slot };
                        shard.replace(place, slot, changed);
                        if change.access {
                            touch_item(&mut shard, place, item, now, self.stamp());
                        }
                    }
                    return Outcome::Done { result, cas: 0 };
                }
                Decision::Store(result, new) => {
                    let present_hits = present.map(|(_, slot, _)| slot.hits);
                    let present = present.map(|(_, _, item)| item);
                    let value_len = new.value.len(present.map_or(0, |item| item.value_bytes()));
                    let mut facts = Facts {
                        version: 0,
                        own_cas: new.own_cas,
                        flags: new.flags,
                        exptime: new.exptime,
                        last_access: now,
                        rule: 0,
                        marks: new.marks,
                    };
                    let needed = item::item_words(&facts, key.len(), value_len);
                    let prepared = words.is_some_and(|words| {
                        needed <= words && self.needs_run(needed) == self.needs_run(words)
                    });
                    let Some(head) = head.as_mut().filter(|_| prepared) else {
                        words = Some(needed);
                        continue;
                    };
                    if let Some(blocked) = self.kill_below(&mut shard, hash, found.dry) {
                        return Outcome::Blocked(blocked);
                    }
                    // Where the slot lies once a copy below it was removed.
                    let old = match found.dry {
                        Some(_) => found
                            .ram
                            .and_then(|(_, slot)| shard.at_location(hash.tag(), slot.location)),
                        None => found.ram,
                    };
                    let hits = match present_hits {
                        Some(hits) => hits,
                        None => self.arrives(hash, needed),
                    };
                    facts.version = self.next_version();
                    return match self.install(
                        head,
                        &mut shard,
                        hash,
                        key,
                        &facts,
                        value_len,
                        needed,
                        |writer| match new.value {
                            Value::Bytes(bytes) => writer.push(bytes),
                            Value::Present => push_present(writer, present),
                            Value::PresentThen(bytes) => {
                                push_present(writer, present);
                                writer.push(bytes);
                            }
                            Value::ThenPresent(bytes) => {
                                writer.push(bytes);
                                push_present(writer, present);
                            }
                        },
                        old,
                        hits,
                    ) {
                        Ok(()) => Outcome::Done {
                            result,
                            cas: facts.cas(),
                        },
                        Err(_) => Outcome::NoMemory,
                    };
                }
            }
        }
    }

    /// Writes an item to the head and makes it visible, in place of `old` or as a new slot.
    #[allow(clippy::too_many_arguments)] // One step of `update`, apart for the fetcher's sake.
    #[inline]
    pub(super) fn install(
        &self,
        head: &mut Head,
        shard: &mut Shard,
        hash: KeyHash,
        key: &[u8],
        facts: &Facts,
        value_len: usize,
        words: usize,
        push_value: impl FnOnce(&mut crate::words::Writer<'_>),
        old: Option<(usize, Slot)>,
        hits: u8,
    ) -> std::io::Result<()> {
        let appended = self.append(head, words);
        let mut writer = item::write_item(
            self.arena.words_from(appended.address),
            facts,
            key,
            value_len,
        );
        push_value(&mut writer);
        writer.finish();
        let slot = Slot {
            tag: hash.tag(),
            exptime: facts.exptime,
            location: Location::ram(appended.kind, appended.address),
            hits,
            stamp: self.stamp(),
        };
        let placed = match old {
            Some((place, old)) => {
                shard.replace(place, old, slot);
                self.kill_item(old.location);
                Ok(())
            }
            None => shard.insert(slot),
        };
        if placed.is_err() {
            self.kill_item(slot.location);
        }
        self.appended(appended);
        placed
    }

    /// Counts the item at a RAM location as dead.
    #[inline]
    pub(super) fn kill_item(&self, location: Location) {
        if let Some(address) = location.address() {
            self.arena
                .kill(address, self.arena.item(address).words() as u32);
        }
    }

    /// Removes an item's slot in RAM.
    pub(super) fn remove_ram(&self, shard: &mut Shard, hash: KeyHash, ram: Option<(usize, Slot)>) {
        if let Some((place, slot)) =
            ram.and_then(|(_, slot)| shard.at_location(hash.tag(), slot.location))
        {
            shard.remove(place, slot);
            self.kill_item(slot.location);
        }
    }

    /// Kills the copy below before the new state can be read. Under `power` durability the kill
    /// has to be on the device first: the operation waits for that and runs again.
    #[inline]
    pub(super) fn kill_below(
        &self,
        shard: &mut Shard,
        hash: KeyHash,
        dry_slot: Option<(usize, Slot)>,
    ) -> Option<Blocked> {
        let (_, slot) = dry_slot?;
        let (place, _) = slot.location.place()?;
        let dry = self.dry.as_ref()?;
        if self.commit_kills {
            return Some(Blocked::Commit {
                hash: hash.0,
                location: slot.location,
            });
        }
        if Mutant::KillAfterVisible.is_on() {
            let dry = std::sync::Arc::clone(dry);
            fault::later(move || dry.kill(place));
        } else {
            dry.kill(place);
        }
        if let Some((place, slot)) = shard.at_location(hash.tag(), slot.location) {
            shard.remove(place, slot);
        }
        None
    }

    #[cold]
    fn without_room<R>(
        &self,
        local: &mut Local,
        attempt: &mut Attempt,
        no_room: NoRoom,
    ) -> Outcome<R> {
        match no_room {
            NoRoom::Wait if attempt.patience() == Patience::Wait => {
                if attempt.begin_wait_for_room() {
                    local.counters.store_waits.bump();
                }
                Outcome::Blocked(Blocked::Room)
            }
            _ => {
                local.counters.store_no_memory.bump();
                Outcome::NoMemory
            }
        }
    }
}

fn push_present(writer: &mut crate::words::Writer<'_>, present: Option<Item<'_>>) {
    if let Some(item) = present {
        item.push_value(writer);
    }
}

/// Counts an access: hits and stamp in the slot, time and the fetched mark in the item.
#[inline]
pub(super) fn touch_item(
    shard: &mut Shard,
    place: usize,
    item: Item<'_>,
    now: UnixSeconds,
    stamp: u16,
) {
    shard.touch(place, stamp);
    item.set_access(now);
}

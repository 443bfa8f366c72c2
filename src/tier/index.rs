//! The index: hash to location, over RAM and dry, in independently locked shards.
//!
//! A key's hash picks its shard (high bits) and its tag (low 39 bits). The RAM slots of a tag are
//! told apart by the keys of their items. Of dry slots a tag has **at most one** at any time: a
//! second key with that tag kills the first one's copy. So whoever writes a key finds, by the tag
//! alone and without I/O, everything below that it must kill; the price is that about one in
//! 2^47 pairs of keys shares a copy's fate, which is a miss, never a wrong value.

use std::io;

use super::slot::{Slot, Tag, Tier};
use super::table::{SLOT_BYTES, Table, home};
use crate::entry::{HashSeed, hash_key};
use crate::memory;
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use crate::sync::{Mutex, MutexGuard};

/// A shard: its slots and how many of them each tier has.
#[derive(Debug)]
#[repr(align(128))]
struct Aligned {
    shard: Mutex<Shard>,
    hint: Hint,
}

/// Where a shard's slots lay when somebody who held its lock last noted it.
#[derive(Debug, Default)]
struct Hint {
    address: AtomicUsize,
    homes: AtomicUsize,
}

/// The slots of one shard and their counts.
#[derive(Debug)]
pub struct Shard {
    table: Table,
    counts: TierCounts,
}

/// Slots by tier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TierCounts {
    /// Items in hot.
    pub hot: u64,
    /// Items in cold.
    pub cold: u64,
    /// Records in dry, those with a copy in RAM included.
    pub dry: u64,
    /// Items in RAM that have a copy in dry.
    pub clean: u64,
}

impl TierCounts {
    fn of(&mut self, tier: Tier) -> &mut u64 {
        match tier {
            Tier::Hot => &mut self.hot,
            Tier::Cold => &mut self.cold,
            Tier::Dry => &mut self.dry,
        }
    }
}

impl Shard {
    /// The table, to look at.
    #[inline]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Adds a slot.
    ///
    /// # Errors
    /// When there is no memory for it.
    #[inline]
    pub fn insert(&mut self, slot: Slot) -> io::Result<()> {
        self.table.insert(slot)?;
        self.count(slot);
        Ok(())
    }

    /// Replaces a slot by one with the same tag.
    #[inline]
    pub fn replace(&mut self, place: usize, old: Slot, new: Slot) {
        let (old_tier, new_tier) = (old.location.tier(), new.location.tier());
        if old_tier == new_tier {
            return self.table.replace(place, new);
        }
        self.forget(old);
        self.table.replace(place, new);
        self.count(new);
    }

    /// Counts a hit of the slot in RAM at a place, at this stamp.
    #[inline]
    pub fn touch(&mut self, place: usize, stamp: u16) {
        self.table.touch(place, stamp);
    }

    /// Removes a slot.
    #[inline]
    pub fn remove(&mut self, place: usize, old: Slot) {
        self.forget(old);
        self.table.remove(place);
    }

    /// Counts a slot that is in the table now.
    #[inline]
    fn count(&mut self, slot: Slot) {
        *self.counts.of(slot.location.tier()) += 1;
        self.counts.clean += self.opposite(slot);
    }

    /// Counts a slot no more that is in the table still.
    #[inline]
    fn forget(&mut self, slot: Slot) {
        self.counts.clean -= self.opposite(slot);
        *self.counts.of(slot.location.tier()) -= 1;
    }

    /// How many slots of the same tag lie on the other side: in dry of one in RAM, in RAM of one in
    /// dry. So many items are clean with a slot and not without it, as a tag has one slot in dry.
    #[inline]
    fn opposite(&self, slot: Slot) -> u64 {
        if self.counts.dry == 0 {
            return 0;
        }
        let in_dry = slot.location.is_dry();
        let others = self.table.of_tag(slot.tag);
        others
            .filter(|(_, other)| other.location.is_dry() != in_dry)
            .count() as u64
    }

    /// Gives back memory that many removals have left unused. Slots move: no place holds any more.
    #[inline]
    pub fn shrink(&mut self) {
        self.table.shrink();
    }

    /// The place of the slot with this tag and location.
    #[inline]
    pub fn at_location(&self, tag: Tag, location: super::slot::Location) -> Option<(usize, Slot)> {
        self.table.find_first(tag, |slot| slot.location == location)
    }

    /// The dry slot of a tag.
    #[inline]
    pub fn dry(&self, tag: Tag) -> Option<(usize, Slot)> {
        self.table.find_first(tag, |slot| slot.location.is_dry())
    }
}

/// A key's hash, as the index uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash(pub u64);

impl KeyHash {
    /// The part that tells keys of one shard apart.
    #[inline]
    pub fn tag(self) -> Tag {
        Tag::of_hash(self.0)
    }
}

/// All shards.
#[derive(Debug)]
pub struct Index {
    seed: HashSeed,
    shards: Box<[Aligned]>,
    shift: u32,
}

impl Index {
    /// An empty index with 2^`shard_bits` shards.
    ///
    /// # Errors
    /// When the kernel has no memory for it.
    pub fn new(seed: HashSeed, shard_bits: u32) -> io::Result<Index> {
        let shards = (0..1usize << shard_bits)
            .map(|_| {
                let shard = Shard {
                    table: Table::new()?,
                    counts: TierCounts::default(),
                };
                Ok(Aligned {
                    shard: Mutex::new(shard),
                    hint: Hint::default(),
                })
            })
            .collect::<io::Result<_>>()?;
        Ok(Index {
            seed,
            shards,
            shift: 64 - shard_bits,
        })
    }

    /// The hash of a key.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> KeyHash {
        KeyHash(hash_key(self.seed, key))
    }

    /// Locks the shard of a hash.
    #[inline]
    pub fn lock(&self, hash: KeyHash) -> MutexGuard<'_, Shard> {
        self.aligned(hash).shard.lock()
    }

    #[inline]
    fn aligned(&self, hash: KeyHash) -> &Aligned {
        &self.shards[self.shard_of(hash)]
    }

    /// Has the slots that a hash is looked up in brought to the processor's cache, without the
    /// lock: where they were when [`lock_and_hint`](Self::lock_and_hint) looked last.
    #[inline]
    pub fn prefetch_slot(&self, hash: KeyHash) {
        let hint = &self.aligned(hash).hint;
        let home = home(hash.tag().high(), hint.homes.load(Relaxed));
        memory::prefetch(hint.address.load(Relaxed) + home * SLOT_BYTES);
    }

    /// Locks the shard of a hash and notes where its slots are.
    #[inline]
    pub fn lock_and_hint(&self, hash: KeyHash) -> MutexGuard<'_, Shard> {
        let aligned = self.aligned(hash);
        let shard = aligned.shard.lock();
        let (address, homes) = shard.table.position();
        if aligned.hint.address.load(Relaxed) != address {
            aligned.hint.address.store(address, Relaxed);
            aligned.hint.homes.store(homes, Relaxed);
        }
        shard
    }

    /// The number of a hash's shard.
    #[inline]
    pub fn shard_of(&self, hash: KeyHash) -> usize {
        (hash.0 >> self.shift) as usize
    }

    /// Makes room for so many slots in all, which hashes spread evenly over the shards. Without memory for that the
    /// index grows as it fills.
    pub fn reserve(&self, slots: u64) {
        let slots = usize::try_from(slots).unwrap_or(usize::MAX) / self.shards.len();
        for aligned in &self.shards {
            aligned.shard.lock().table.reserve(slots);
        }
    }

    /// Gives back memory that was made room in and not used.
    pub fn shrink(&self) {
        for aligned in &self.shards {
            aligned.shard.lock().shrink();
        }
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Locks a shard by number.
    pub fn lock_shard(&self, number: usize) -> MutexGuard<'_, Shard> {
        self.shards[number].shard.lock()
    }

    /// What all shards hold and take, in one pass.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for shard in &self.shards {
            let shard = shard.shard.lock();
            usage.counts.hot += shard.counts.hot;
            usage.counts.cold += shard.counts.cold;
            usage.counts.dry += shard.counts.dry;
            usage.counts.clean += shard.counts.clean;
            usage.bytes += shard.table.bytes();
        }
        usage
    }
}

/// What an index holds and takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Slots by tier.
    pub counts: TierCounts,
    /// Bytes of memory that the slots take.
    pub bytes: usize,
}

impl Usage {
    /// The part of the bytes that dry items take.
    pub fn dry_bytes(&self) -> usize {
        let counts = &self.counts;
        let all = u128::from(counts.hot + counts.cold + counts.dry).max(1);
        (self.bytes as u128 * u128::from(counts.dry) / all) as usize
    }
}

//! Looking ahead: slots and items of the next keys are on their way into the processor's caches
//! while the keys before them are answered.
//!
//! An item that is not in those caches costs a lookup two waits, for its slot and for its bytes. Of
//! a window of keys all slots are asked for first, then all items, so the waits overlap. What was
//! found on the way is kept: when a key's turn comes its slot is most likely still where it was, and
//! nothing is searched again.

use super::cache::Cache;
use super::index::{KeyHash, Shard};
use super::operate::touch_item;
use super::slot::{Slot, Tier};
use super::view::View;
use crate::ram::{Address, Item};

/// Keys looked at together.
pub const WINDOW_KEYS: usize = 16;

/// Items of a segment whose slots are asked for before their turn.
const WALK_ITEMS: usize = 8;

/// A key that is looked up soon.
#[derive(Debug, Clone, Copy)]
pub struct Near {
    /// Its hash.
    pub hash: KeyHash,
    /// Where in its shard's table a slot of its tag was seen in RAM, if it was looked for.
    place: usize,
    /// That slot's second word.
    second: u64,
}

/// The second word of no slot.
const UNSEEN: u64 = u64::MAX;

/// What RAM alone answers to a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NearRead {
    /// An item of this tier, served.
    Hit(Tier),
    /// There is none, nor may there be one below.
    Miss,
    /// RAM cannot tell, or not without counting more than a hit or a miss: ask [`Cache::read`].
    Unknown,
}

impl Default for Near {
    fn default() -> Near {
        Near::new(KeyHash(0))
    }
}

impl AsMut<Near> for Near {
    fn as_mut(&mut self) -> &mut Near {
        self
    }
}

impl Near {
    /// A key that nothing is known of but its hash.
    #[inline]
    pub fn new(hash: KeyHash) -> Near {
        Near {
            hash,
            place: 0,
            second: UNSEEN,
        }
    }
}

impl Cache {
    /// Has what these hashes are about to be looked up for brought to the processor's caches; at
    /// most [`WINDOW_KEYS`] of them are worth it.
    #[inline]
    pub fn bring_near<K: AsMut<Near>>(&self, window: &mut [K]) {
        for key in &mut *window {
            self.index.prefetch_slot(key.as_mut().hash);
        }
        for key in window {
            let near = key.as_mut();
            let shard = self.index.lock_and_hint(near.hash);
            if let Some((place, second)) = shard.table().seek(near.hash.tag()) {
                (near.place, near.second) = (place, second);
                if let Some(address) = Slot::ram_location(second).address() {
                    self.arena.prefetch(address);
                }
            }
        }
    }

    /// Reads an item that lies in RAM and counts the access, as [`Cache::read`] does.
    #[inline]
    pub fn read_near(&self, near: Near, key: &[u8], serve: impl FnOnce(View<'_>)) -> NearRead {
        let now = self.clock.recent();
        let mut shard = self.index.lock(near.hash);
        let seen = match near.second {
            UNSEEN => shard.table().seek(near.hash.tag()),
            second => Some((near.place, second)),
        };
        let Some((place, (exptime, second))) =
            seen.and_then(|(place, second)| Some((place, shard.table().seen_at(place, second)?)))
        else {
            return self.unseen(&shard, near.hash, key);
        };
        let location = Slot::ram_location(second);
        let Some(item) = location
            .address()
            .map(|address| self.arena.item(address))
            .filter(|item| item.has_key(key) && self.is_live(*item, exptime, now))
        else {
            return NearRead::Unknown;
        };
        let tier = location.tier();
        serve(View {
            item,
            exptime,
            tier,
        });
        touch_item(&mut shard, place, item, now, self.stamp());
        NearRead::Hit(tier)
    }

    /// The items of a claimed segment, dead ones too, with the hashes of their keys. While one is looked at, the
    /// slots of the next ones are on their way.
    pub(super) fn walk(&self, number: u32) -> impl Iterator<Item = (Address, Item<'_>, KeyHash)> {
        let mut key = [0; 255];
        let mut items = self.arena.items(number).map(move |(address, item)| {
            let hash = self.hash(item.copy_key(&mut key));
            self.index.prefetch_slot(hash);
            (address, item, hash)
        });
        let mut window: [_; WALK_ITEMS] = std::array::from_fn(|_| items.next());
        let mut turn = 0;
        std::iter::from_fn(move || {
            let next = std::mem::replace(&mut window[turn], items.next());
            turn = (turn + 1) % WALK_ITEMS;
            next
        })
    }

    /// What a read answers that did not find its slot.
    #[cold]
    fn unseen(&self, shard: &Shard, hash: KeyHash, key: &[u8]) -> NearRead {
        let found = self.find(shard, hash, key);
        match (found.ram, found.dry) {
            (None, None) => NearRead::Miss,
            // It has moved meanwhile, or lies below.
            _ => NearRead::Unknown,
        }
    }
}

/// Keys with what is known of them, from any number of keys.
pub struct Ahead<'a, I> {
    keys: I,
    window: [&'a [u8]; WINDOW_KEYS],
    near: [Near; WINDOW_KEYS],
    next: usize,
    end: usize,
}

impl<'a, I: Iterator<Item = &'a [u8]>> Ahead<'a, I> {
    /// Looks ahead in `keys`.
    pub fn new(keys: I) -> Ahead<'a, I> {
        Ahead {
            keys,
            window: [&[]; WINDOW_KEYS],
            near: [Near::new(KeyHash(0)); WINDOW_KEYS],
            next: 0,
            end: 0,
        }
    }

    /// The next key and what is known of it.
    #[inline]
    pub fn next(&mut self, cache: &Cache) -> Option<(&'a [u8], Near)> {
        if self.next == self.end {
            self.fill(cache);
        }
        let key = *self.window[..self.end].get(self.next)?;
        let near = self.near[self.next];
        self.next += 1;
        Some((key, near))
    }

    /// The keys behind those that `next` has given.
    pub fn rest(self) -> impl Iterator<Item = &'a [u8]> {
        let window = self.window.into_iter().take(self.end).skip(self.next);
        window.chain(self.keys)
    }

    fn fill(&mut self, cache: &Cache) {
        (self.next, self.end) = (0, 0);
        for (place, key) in self.window.iter_mut().zip(&mut self.keys) {
            *place = key;
            self.near[self.end] = Near::new(cache.hash(key));
            self.end += 1;
        }
        cache.bring_near(&mut self.near[..self.end]);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Clock;
    use crate::entry::Marks;
    use crate::metrics::Metrics;
    use crate::tier::{Attempt, Decision, Local, NewItem, TierConfig, Value};
    use crate::units::ByteSize;

    fn store(cache: &Cache, local: &mut Local, key: &[u8], value: &[u8]) {
        let mut attempt = Attempt::default();
        let _ = cache.update(local, &mut attempt, key, Some(value.len()), |_| {
            let item = NewItem {
                flags: 0,
                exptime: 0,
                own_cas: None,
                marks: Marks::default(),
                value: Value::Bytes(value),
            };
            Decision::Store((), item)
        });
    }

    // Between the look ahead and the answer a key may be overwritten or deleted, its neighbours in the
    // table may come and go, and another item may lie where its own lay.
    #[test]
    fn what_was_seen_may_be_gone() {
        let config = TierConfig {
            hot_size: ByteSize::mib(2),
            cold_size: ByteSize::mib(6),
            ..TierConfig::default()
        };
        let clock = Arc::new(Clock::manual(1000));
        let metrics = Arc::new(Metrics::starting_at(1000));
        let cache = Cache::build(config, clock, metrics, None, 1).unwrap();
        let mut local = cache.local(0);
        let keys = [&b"kept"[..], b"overwritten", b"deleted", b"absent", b"new"];
        for key in &keys[..3] {
            store(&cache, &mut local, key, b"old");
        }
        let mut window = keys.map(|key| Near::new(cache.hash(key)));
        cache.bring_near(&mut window);

        for number in 0..10_000 {
            store(
                &cache,
                &mut local,
                format!("other {number}").as_bytes(),
                b"other",
            );
        }
        store(&cache, &mut local, b"overwritten", b"changed");
        store(&cache, &mut local, b"new", b"value");
        let mut attempt = Attempt::default();
        let _ = cache.update(&mut local, &mut attempt, b"deleted", None, |_| {
            Decision::Remove(())
        });

        for ahead in [true, false] {
            for ((key, near), expected) in keys.iter().zip(window).zip([
                Some(&b"old"[..]),
                Some(b"changed"),
                None,
                None,
                Some(b"value"),
            ]) {
                let near = if ahead { near } else { Near::new(near.hash) };
                let mut value = Vec::new();
                let read = cache.read_near(near, key, |view| view.append_value(&mut value));
                match (read, expected) {
                    (NearRead::Hit(Tier::Hot), Some(expected)) => assert_eq!(value, expected),
                    (NearRead::Miss, None) => {}
                    // The look ahead is out of date.
                    (NearRead::Unknown, Some(_)) if ahead => assert!(value.is_empty()),
                    other => panic!("{}: {other:?}", key.escape_ascii()),
                }
            }
        }
    }
}

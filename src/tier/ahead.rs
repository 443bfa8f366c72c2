//! Looking ahead: slots and items of the next keys are on their way into the processor's caches
//! while the keys before them are answered.
//!
//! An item that is not in those caches costs a lookup two waits, for its slot and for its bytes. Of
//! a window of keys all slots are asked for first, then all items, so the waits overlap.

use super::cache::Cache;
use super::index::KeyHash;

/// Keys looked at together.
pub const WINDOW_KEYS: usize = 16;

/// Keys with their hashes, from any number of keys.
pub struct Ahead<'a, I> {
    keys: I,
    window: [(&'a [u8], KeyHash); WINDOW_KEYS],
    next: usize,
    end: usize,
}

impl<'a, I: Iterator<Item = &'a [u8]>> Ahead<'a, I> {
    /// Looks ahead in `keys`.
    pub fn new(keys: I) -> Ahead<'a, I> {
        Ahead {
            keys,
            window: [(&[], KeyHash(0)); WINDOW_KEYS],
            next: 0,
            end: 0,
        }
    }

    /// The next key and its hash.
    #[inline]
    pub fn next(&mut self, cache: &Cache) -> Option<(&'a [u8], KeyHash)> {
        if self.next == self.end {
            self.fill(cache);
        }
        let next = self.window[..self.end].get(self.next).copied();
        self.next += 1;
        next
    }

    /// The keys behind those that `next` has given.
    pub fn rest(self) -> impl Iterator<Item = &'a [u8]> {
        let window = self.window.into_iter().take(self.end).skip(self.next);
        window.map(|(key, _)| key).chain(self.keys)
    }

    fn fill(&mut self, cache: &Cache) {
        (self.next, self.end) = (0, 0);
        for (place, key) in self.window.iter_mut().zip(&mut self.keys) {
            *place = (key, cache.hash(key));
            self.end += 1;
        }
        cache.bring_near(self.window[..self.end].iter().map(|(_, hash)| *hash));
    }
}

impl Cache {
    /// Has what these hashes are about to be looked up for brought to the processor's caches; at
    /// most [`WINDOW_KEYS`] of them are worth it.
    #[inline]
    pub fn bring_near(&self, hashes: impl Iterator<Item = KeyHash> + Clone) {
        for hash in hashes.clone() {
            self.index.prefetch_slot(hash);
        }
        for hash in hashes {
            if let Some(address) = self.index.lock_and_hint(hash).address_of(hash.tag()) {
                self.arena.prefetch(address);
            }
        }
    }
}

//! Looking ahead in a multi-get: slots and items of the next keys are on their way into the
//! processor's caches while the keys before them are answered.
//!
//! An item that is not in those caches costs a lookup two waits, for its slot and for its bytes. Of
//! a window of keys all slots are asked for first, then all items, so the waits overlap.

use super::cache::Cache;
use super::index::KeyHash;

/// Keys looked at together.
const WINDOW_KEYS: usize = 16;

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
            let hash = cache.hash(key);
            cache.index.prefetch_slot(hash);
            *place = (key, hash);
            self.end += 1;
        }
        for (_, hash) in &self.window[..self.end] {
            if let Some(address) = cache.index.lock_and_hint(*hash).address_of(hash.tag()) {
                cache.arena.prefetch(address);
            }
        }
    }
}

//! Copies of what an upstream pool has: when one may be kept, and for how long it may be served.
//!
//! The pool is the register; RAM only holds copies of its items. A *fence* keeps an answer that is
//! on its way from becoming a copy after somebody else's write has been answered:
//!
//! ```text
//!   read    note the fence ───▶ pool ───▶ keep the copy if the fence stands as noted
//!   write   raise it, drop the copy ───▶ pool ───▶ raise it again
//! ```
//!
//! So while a write is under way there is no copy of its key, and none that was asked for before
//! the write's end is kept after it. Of two copies that were read at once the one with the greater
//! CAS unique stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};

use super::cache::{Cache, Local};
use super::fetch::Attempt;
use super::view::{Current, Decision, NewItem, Value};
use crate::clock::UnixSeconds;
use crate::entry::{Marks, NEVER, expired};

/// Fences, each for the keys of one hash. Two writes of one fence at a time only cost copies.
const FENCES: usize = 1 << 14;
/// Low bits of a fence: the writes under way. More than any number of workers may have in flight.
const UNDER_WAY_BITS: u32 = 24;
const UNDER_WAY: u64 = (1 << UNDER_WAY_BITS) - 1;
/// Added to a fence when a write begins: it is one more under way.
const BEGIN: u64 = (1 << UNDER_WAY_BITS) + 1;
/// Added to a fence when a write ends: it is one less under way, and one more was there.
const END: u64 = (1 << UNDER_WAY_BITS) - 1;

/// The copies that a process keeps of its pools' items.
pub struct Copies {
    cache: Arc<Cache>,
    fences: Box<[AtomicU64]>,
    flushes: AtomicU64,
    /// The last second in which a delayed flush may come to the pool, and in the upper half the first.
    flush_expected: AtomicU64,
    max_age_s: Option<u32>,
}

/// A read or write of the pool that is under way.
#[derive(Debug, Clone, Copy)]
pub struct Fence {
    place: usize,
    seen: u64,
    flushes: u64,
    began: UnixSeconds,
}

/// What the pool gave or took.
#[derive(Debug, Clone, Copy)]
pub struct Copied<'v> {
    /// The client's flags.
    pub flags: u32,
    /// The pool's CAS unique; 0 if it tells none.
    pub cas: u64,
    /// When it expires; 0 for never.
    pub exptime: UnixSeconds,
    /// The value.
    pub value: &'v [u8],
}

impl Copies {
    /// Copies in `cache`, of which none is served more than `max_age_s` seconds after the pool gave
    /// or took it; none for as long as the item lives.
    pub fn new(cache: Arc<Cache>, max_age_s: Option<u32>) -> Copies {
        Copies {
            cache,
            fences: (0..FENCES).map(|_| AtomicU64::new(0)).collect(),
            flushes: AtomicU64::new(0),
            flush_expected: AtomicU64::new(0),
            max_age_s,
        }
    }

    /// Before the pool is asked for an item.
    #[inline]
    pub fn begin_read(&self, key: &[u8]) -> Fence {
        let place = self.cache.hash(key).0 as usize % FENCES;
        Fence {
            place,
            seen: self.fences[place].load(Acquire),
            flushes: self.flushes.load(Acquire),
            began: self.cache.clock.recent(),
        }
    }

    /// After the pool gave an item: keeps a copy, unless the key was written in between.
    pub fn end_read(&self, local: &mut Local, key: &[u8], fence: Fence, copied: &Copied<'_>) {
        // With a write under way the fence may still stand as it was noted.
        if fence.seen & UNDER_WAY == 0 {
            self.keep(local, key, fence, copied);
        }
    }

    /// Before the pool is told to change an item: drops the copy.
    pub fn begin_write(&self, local: &mut Local, key: &[u8]) -> Fence {
        let mut fence = self.begin_read(key);
        fence.seen = self.fences[fence.place]
            .fetch_add(BEGIN, AcqRel)
            .wrapping_add(BEGIN);
        self.drop_copy(local, key);
        fence
    }

    /// After the pool has answered a write, or has not: keeps a copy of what it took, unless the key
    /// was written by others meanwhile.
    pub fn end_write(
        &self,
        local: &mut Local,
        key: &[u8],
        fence: Fence,
        taken: Option<&Copied<'_>>,
    ) {
        if let Some(copied) = taken.filter(|_| fence.seen & UNDER_WAY == 1) {
            self.keep(local, key, fence, copied);
        }
        self.fences[fence.place].fetch_add(END, AcqRel);
    }

    /// Before and after the pools are flushed: drops all copies, and those that are on their way.
    pub fn flush(&self) {
        self.flushes.fetch_add(1, AcqRel);
        // Who still found the old number is within a critical section: once each lock was free, its copy has a version
        // that the flush covers.
        for shard in 0..self.cache.index.shards() {
            drop(self.cache.index.lock_shard(shard));
        }
        self.cache.flush(None);
    }

    /// Before the pools are told to flush at `at`, which they do by clocks of their own at most `late_s` seconds later:
    /// what they give in between is not kept.
    pub fn flush_at(&self, at: UnixSeconds, late_s: u32) {
        let now = self.cache.clock.recent();
        let first = at.saturating_sub(1);
        let last = at.max(now).saturating_add(late_s);
        self.flush_expected
            .store(u64::from(first) << 32 | u64::from(last), Release);
        self.cache.flush(Some(at));
    }

    fn expects_flush(&self, now: UnixSeconds) -> bool {
        let expected = self.flush_expected.load(Acquire);
        (expected >> 32..=expected & 0xffff_ffff).contains(&u64::from(now))
    }

    /// Seconds after which a copy must not be served any more.
    pub fn max_age_s(&self) -> Option<u32> {
        self.max_age_s
    }

    fn keep(&self, local: &mut Local, key: &[u8], fence: Fence, copied: &Copied<'_>) {
        // A server without CAS (memcached's `-C`) tells 0 of every value: no copy could be told from a newer one.
        if copied.cas == 0 {
            return;
        }
        let latest = self.max_age_s.map(|age| fence.began.saturating_add(age));
        let exptime = match (copied.exptime, latest) {
            (NEVER, latest) => latest.unwrap_or(NEVER),
            (exptime, Some(latest)) => exptime.min(latest),
            (exptime, None) => exptime,
        };
        let now = self.cache.clock.recent();
        let lives = !expired(exptime, now) && !self.expects_flush(now);
        let word = &self.fences[fence.place];
        // A copy that finds no room is not kept; nobody waits for one.
        let _ = self.cache.update(
            local,
            &mut Attempt::default(),
            key,
            Some(copied.value.len()),
            |current| {
                let (present, older) = match current {
                    Current::Present(view) => (true, view.facts().cas() < copied.cas),
                    Current::Absent | Current::Below => (false, true),
                };
                let stands =
                    word.load(Acquire) == fence.seen && self.flushes.load(Acquire) == fence.flushes;
                match (older, lives && stands) {
                    (true, true) => {}
                    // The pool has a newer one than the copy, which somebody is about to be told.
                    (true, false) if present => return Decision::Remove(()),
                    _ => return Decision::Keep(()),
                }
                Decision::Store(
                    (),
                    NewItem {
                        flags: copied.flags,
                        exptime,
                        own_cas: Some(copied.cas),
                        marks: Marks::default(),
                        value: Value::Bytes(copied.value),
                    },
                )
            },
        );
    }

    fn drop_copy(&self, local: &mut Local, key: &[u8]) {
        // Without a dry tier below, a removal neither waits nor needs room.
        let _ = self.cache.update(
            local,
            &mut Attempt::default(),
            key,
            None,
            |current| match current {
                Current::Absent => Decision::Keep(()),
                Current::Below | Current::Present(_) => Decision::Remove(()),
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::TierConfig;
    use super::*;
    use crate::clock::Clock;
    use crate::metrics::Metrics;
    use crate::tier::{Lookup, Outcome};
    use crate::units::ByteSize;

    struct Pool {
        clock: Arc<Clock>,
        cache: Arc<Cache>,
        copies: Copies,
        local: Local,
    }

    impl Pool {
        fn new(max_age_s: Option<u32>) -> Pool {
            let clock = Arc::new(Clock::manual(1_000_000));
            let config = TierConfig {
                hot_size: ByteSize::mib(2),
                cold_size: ByteSize::mib(6),
                ..TierConfig::default()
            };
            let metrics = Arc::new(Metrics::default());
            let cache = Cache::build(config, Arc::clone(&clock), metrics, None, 1).unwrap();
            let cache = Arc::new(cache);
            Pool {
                clock,
                local: cache.local(0),
                copies: Copies::new(Arc::clone(&cache), max_age_s),
                cache,
            }
        }

        fn read(&mut self, fence: Fence, cas: u64, value: &str) {
            let copied = copied(cas, value);
            self.copies.end_read(&mut self.local, b"k", fence, &copied);
        }

        fn served(&mut self) -> Option<String> {
            let mut value = Vec::new();
            let read = self
                .cache
                .read(&mut self.local, &mut Attempt::default(), b"k", |view| {
                    view.append_value(&mut value);
                    Some(())
                });
            let hit = matches!(
                read,
                Outcome::Done {
                    result: Lookup::Hit(()),
                    ..
                }
            );
            hit.then(|| String::from_utf8(value).unwrap())
        }
    }

    fn copied(cas: u64, value: &str) -> Copied<'_> {
        Copied {
            flags: 0,
            cas,
            exptime: NEVER,
            value: value.as_bytes(),
        }
    }

    #[test]
    fn a_copy_is_served_until_it_is_too_old() {
        let mut pool = Pool::new(Some(10));
        let fence = pool.copies.begin_read(b"k");
        pool.clock.set(1_000_004);
        pool.read(fence, 1, "v");
        for (time, served) in [(1_000_009, true), (1_000_010, false)] {
            pool.clock.set(time);
            assert_eq!(pool.served().is_some(), served, "{time}");
        }
    }

    #[test]
    fn an_answer_from_before_a_write_is_not_kept_after_it() {
        let mut pool = Pool::new(None);
        let before = pool.copies.begin_read(b"k");
        let write = pool.copies.begin_write(&mut pool.local, b"k");
        let during = pool.copies.begin_read(b"k");
        pool.read(before, 1, "old");
        assert_eq!(pool.served(), None);
        pool.copies.end_write(&mut pool.local, b"k", write, None);
        pool.read(before, 1, "old");
        pool.read(during, 1, "old");
        assert_eq!(pool.served(), None);
        let after = pool.copies.begin_read(b"k");
        pool.read(after, 2, "new");
        assert_eq!(pool.served().as_deref(), Some("new"));
    }

    #[test]
    fn of_two_writes_at_once_neither_is_kept() {
        let mut pool = Pool::new(None);
        let first = pool.copies.begin_write(&mut pool.local, b"k");
        let second = pool.copies.begin_write(&mut pool.local, b"k");
        let (local, copies) = (&mut pool.local, &pool.copies);
        copies.end_write(local, b"k", second, Some(&copied(2, "second")));
        copies.end_write(local, b"k", first, Some(&copied(1, "first")));
        assert_eq!(pool.served(), None);
        let alone = pool.copies.begin_write(&mut pool.local, b"k");
        let taken = copied(3, "third");
        pool.copies
            .end_write(&mut pool.local, b"k", alone, Some(&taken));
        assert_eq!(pool.served().as_deref(), Some("third"));
    }

    #[test]
    fn the_greater_cas_unique_stays() {
        let mut pool = Pool::new(None);
        let (one, other) = (pool.copies.begin_read(b"k"), pool.copies.begin_read(b"k"));
        pool.read(other, 6, "newer");
        pool.read(one, 5, "older");
        assert_eq!(pool.served().as_deref(), Some("newer"));
    }

    // The story of a value that went back: the pool gave a newer item than the copy while a write of another key with
    // the same fence was under way, so the newer one was not kept, and the older copy was served again.
    #[test]
    fn an_older_copy_goes_although_the_newer_one_is_not_kept() {
        let mut pool = Pool::new(None);
        let before = pool.copies.begin_read(b"k");
        pool.read(before, 1, "old");
        let read = pool.copies.begin_read(b"k");
        // Another key of this fence, by its number alone.
        pool.copies.fences[read.place].fetch_add(BEGIN, AcqRel);
        pool.read(read, 2, "new");
        assert_eq!(pool.served(), None);
    }

    // The pool's clock is not ours: until it has flushed for certain, what it gives may be flushed a moment later.
    #[test]
    fn nothing_is_kept_around_a_delayed_flush() {
        let mut pool = Pool::new(None);
        pool.copies.flush_at(1_000_010, 3);
        for (time, kept) in [
            (1_000_008, true),
            (1_000_009, false),
            (1_000_013, false),
            (1_000_014, true),
        ] {
            pool.clock.set(time);
            pool.cache.apply_due_flush();
            let fence = pool.copies.begin_read(b"k");
            pool.read(fence, u64::from(time), "v");
            assert_eq!(pool.served().is_some(), kept, "{time}");
            pool.copies.drop_copy(&mut pool.local, b"k");
        }
    }

    #[test]
    fn a_flush_drops_what_is_on_its_way() {
        let mut pool = Pool::new(None);
        let fence = pool.copies.begin_read(b"k");
        pool.copies.flush();
        pool.read(fence, 1, "flushed");
        assert_eq!(pool.served(), None);
    }
}

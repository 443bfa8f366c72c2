//! Every order of storing, deleting, moving and flushing one key that the model checker tries.
//!
//! The cache is the real one without its threads: the models run the mover's steps themselves.

use std::sync::Arc;

use shuttle::thread;

use super::cache::{Cache, Patience};
use super::config::TierConfig;
use super::mover::Mover;
use super::view::{Current, Decision, Lookup, NewItem, Outcome, Value};
use super::{Attempt, Local};
use crate::clock::Clock;
use crate::entry::Marks;
use crate::metrics::Metrics;
use crate::sync::atomic::{AtomicU64, Ordering::SeqCst};
use crate::sync::run_model;
use crate::units::ByteSize;

const KEY: &[u8] = b"key";

fn cache() -> Arc<Cache> {
    let config = TierConfig {
        hot_size: ByteSize(512 << 10),
        cold_size: ByteSize(512 << 10),
        ..TierConfig::default()
    };
    let clock = Arc::new(Clock::system());
    let metrics = Arc::new(Metrics::starting_at(clock.now()));
    Arc::new(Cache::build(config, clock, metrics, None, 3).unwrap())
}

/// One worker's way to the cache.
struct Client {
    cache: Arc<Cache>,
    local: Local,
}

impl Client {
    fn new(cache: &Arc<Cache>, worker: usize) -> Client {
        Client {
            cache: Arc::clone(cache),
            local: cache.local(worker),
        }
    }

    fn set(&mut self, number: u64) {
        let value = number.to_le_bytes();
        self.decide(Some(8), |_| Decision::Store((), item(&value)));
    }

    fn delete(&mut self) {
        self.decide(None, |_| Decision::Remove(()));
    }

    /// Adds one to the number that is there; false if there is none.
    fn increment(&mut self) -> bool {
        while let Some(before) = self.get() {
            let sum = (before + 1).to_le_bytes();
            let mut stored = false;
            self.decide(Some(8), |current| {
                stored = number(&current) == Some(before);
                if stored {
                    Decision::Store((), item(&sum))
                } else {
                    Decision::Keep(())
                }
            });
            if stored {
                return true;
            }
        }
        false
    }

    fn decide<'v>(
        &mut self,
        value_bytes: Option<usize>,
        decide: impl FnMut(Current<'_>) -> Decision<'v, ()>,
    ) {
        let outcome = self.cache.update(
            &mut self.local,
            &mut Attempt::default(),
            KEY,
            value_bytes,
            decide,
        );
        assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    }

    fn get(&mut self) -> Option<u64> {
        let outcome = self
            .cache
            .read(&mut self.local, &mut Attempt::default(), KEY, |view| {
                let mut bytes = Vec::new();
                view.append_value(&mut bytes);
                Some(u64::from_le_bytes(bytes.try_into().unwrap()))
            });
        match outcome {
            Outcome::Done {
                result: Lookup::Hit(number),
                ..
            } => Some(number),
            Outcome::Done { .. } => None,
            other => panic!("{other:?}"),
        }
    }
}

fn item(value: &[u8]) -> NewItem<'_> {
    NewItem {
        flags: 0,
        exptime: 0,
        own_cas: None,
        marks: Marks::default(),
        value: Value::Bytes(value),
    }
}

fn number(current: &Current<'_>) -> Option<u64> {
    let Current::Present(view) = current else {
        return None;
    };
    let mut bytes = Vec::new();
    view.append_value(&mut bytes);
    Some(u64::from_le_bytes(bytes.try_into().unwrap()))
}

/// The mover's turn: hot becomes cold, then a segment gives way.
fn move_items(cache: &Cache) {
    let mut mover = Mover::default();
    for number in 0..2 {
        cache.hand_over(number);
    }
    cache.evict_segment(&mut mover, Patience::Drop);
    mover.seal(&cache.arena);
}

/// What the index says and what the arena counts agree.
fn check_counts(cache: &Cache) {
    let mut words = 0;
    let counts = cache.index.usage().counts;
    for number in 0..cache.index.shards() {
        let shard = cache.index.lock_shard(number);
        let mut place = 0;
        while let Some((found, slot)) = shard.table().next_from(place) {
            let address = slot.location.address().expect("there is no dry tier");
            words += cache.arena.item(address).words() as u64;
            place = found + 1;
        }
    }
    let live: u64 = cache
        .arena
        .segments()
        .iter()
        .map(|segment| u64::from(segment.live_words()))
        .sum();
    assert_eq!(live, words, "live words of {counts:?}");
}

// A store and a delete run against the mover, and a reader never goes back in time: what it sees after
// an acknowledged write is that write's or a later one's, or a miss.
#[test]
fn a_move_never_brings_an_older_value_back() {
    run_model(|| {
        let cache = cache();
        let mut first = Client::new(&cache, 0);
        first.set(1);
        // A hit keeps the item through the first eviction.
        assert_eq!(first.get(), Some(1));
        cache.seal_heads();
        // The number of the newest write that was acknowledged; deletes count.
        let acknowledged = Arc::new(AtomicU64::new(1));
        let writer = {
            let (acknowledged, mut client) = (Arc::clone(&acknowledged), first);
            thread::spawn(move || {
                client.set(2);
                acknowledged.store(2, SeqCst);
                client.delete();
                acknowledged.store(3, SeqCst);
                client.set(4);
                acknowledged.store(4, SeqCst);
            })
        };
        let mover = {
            let cache = Arc::clone(&cache);
            thread::spawn(move || {
                move_items(&cache);
                move_items(&cache);
            })
        };
        let reader = {
            let mut client = Client::new(&cache, 1);
            thread::spawn(move || {
                let mut newest = 0;
                for _ in 0..3 {
                    let floor = acknowledged.load(SeqCst);
                    if let Some(number) = client.get() {
                        assert!(number >= floor, "{number} after {floor}");
                        assert!(number >= newest, "{number} after {newest}");
                        newest = number;
                    }
                }
            })
        };
        for thread in [writer, mover, reader] {
            thread.join().unwrap();
        }
        assert!(matches!(Client::new(&cache, 2).get(), None | Some(4)));
        check_counts(&cache);
    });
}

// Two clients count up while the mover moves the number: no step is lost.
#[test]
fn a_move_loses_no_increment() {
    run_model(|| {
        let cache = cache();
        let mut first = Client::new(&cache, 0);
        first.set(0);
        assert_eq!((first.get(), first.get()), (Some(0), Some(0)));
        cache.seal_heads();
        let counters: Vec<_> = (0..2)
            .map(|worker| {
                let mut client = Client::new(&cache, worker);
                thread::spawn(move || client.increment())
            })
            .collect();
        let mover = {
            let cache = Arc::clone(&cache);
            thread::spawn(move || move_items(&cache))
        };
        let done: Vec<bool> = counters
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        mover.join().unwrap();
        // An eviction in between is a miss for those who come later.
        if let Some(sum) = first.get() {
            assert_eq!(done, [true, true]);
            assert_eq!(sum, 2);
        }
        check_counts(&cache);
    });
}

// What was stored before a flush is never seen after it; what is stored after it stays, however the
// mover runs against both.
#[test]
fn a_flush_takes_what_was_before_and_nothing_after() {
    run_model(|| {
        let cache = cache();
        let mut first = Client::new(&cache, 0);
        first.set(1);
        assert_eq!(first.get(), Some(1));
        cache.seal_heads();
        let flushed = Arc::new(AtomicU64::new(0));
        let flusher = {
            let (cache, flushed) = (Arc::clone(&cache), Arc::clone(&flushed));
            thread::spawn(move || {
                cache.flush(None);
                flushed.store(1, SeqCst);
                first.set(2);
                assert_eq!(first.get(), Some(2));
            })
        };
        let mover = {
            let cache = Arc::clone(&cache);
            thread::spawn(move || move_items(&cache))
        };
        let reader = {
            let mut client = Client::new(&cache, 1);
            thread::spawn(move || {
                for _ in 0..3 {
                    let floor = flushed.load(SeqCst);
                    if let Some(number) = client.get() {
                        assert!(number > floor, "{number} after the flush");
                    }
                }
            })
        };
        for thread in [flusher, mover, reader] {
            thread.join().unwrap();
        }
        assert_eq!(Client::new(&cache, 2).get(), Some(2));
        check_counts(&cache);
    });
}

//! The tiers as one cache, through its Rust face: against a plain map, under churn, over the limit.

use std::collections::HashMap;
use std::sync::Arc;

use tiercache::clock::Clock;
use tiercache::entry::Marks;
use tiercache::metrics::Metrics;
use tiercache::tier::config::{DryAhead, Evict};
use tiercache::tier::{
    Attempt, Cache, Current, Decision, Local, Lookup, NewItem, Outcome, TierConfig, Value,
};
use tiercache::units::ByteSize;

fn config(bytes: u64) -> TierConfig {
    TierConfig {
        hot_size: ByteSize(bytes / 6),
        cold_size: ByteSize(bytes - bytes / 6),
        dry_ahead: DryAhead::Off,
        ..TierConfig::default()
    }
}

fn start(config: TierConfig) -> (Arc<Cache>, Local, Arc<Clock>) {
    let clock = Arc::new(Clock::manual(1_000_000));
    let metrics = Arc::new(Metrics::default());
    let (cache, _) =
        Cache::start(config, Arc::clone(&clock), metrics, None, 1, &|_, _, _| {}).unwrap();
    let local = cache.local(0);
    (cache, local, clock)
}

fn set(cache: &Cache, local: &mut Local, key: &[u8], value: &[u8], exptime: u32) -> bool {
    let item = NewItem {
        flags: 0,
        exptime,
        own_cas: None,
        marks: Marks::default(),
        value: Value::Bytes(value),
    };
    let outcome = cache.update(
        local,
        &mut Attempt::default(),
        key,
        Some(value.len()),
        |_| Decision::Store((), item),
    );
    matches!(outcome, Outcome::Done { .. })
}

fn get(cache: &Cache, local: &mut Local, key: &[u8]) -> Option<Vec<u8>> {
    let outcome = cache.read(local, &mut Attempt::default(), key, |view| {
        let mut value = Vec::new();
        view.append_value(&mut value);
        Some(value)
    });
    match outcome {
        Outcome::Done {
            result: Lookup::Hit(value),
            ..
        } => Some(value),
        Outcome::Done { .. } => None,
        other => panic!("{other:?}"),
    }
}

fn delete(cache: &Cache, local: &mut Local, key: &[u8]) -> bool {
    let outcome = cache.update(
        local,
        &mut Attempt::default(),
        key,
        None,
        |current| match current {
            Current::Absent => Decision::Keep(false),
            _ => Decision::Remove(true),
        },
    );
    matches!(outcome, Outcome::Done { result: true, .. })
}

/// A small deterministic generator; the seed is printed by who uses it.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn value_of(key: u64, version: u64, length: usize) -> Vec<u8> {
    let mut value = format!("{key}:{version}:").into_bytes();
    value.resize(value.len().max(length), b'a' + (version % 26) as u8);
    value
}

// Whatever is evicted, a key never shows another key's value, an older one, or one that was deleted.
#[test]
fn a_hit_is_the_newest_value() {
    let seed = 0x5eed_0001;
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    for memory in [2 << 20, 8 << 20] {
        let (cache, mut local, _clock) = start(config(memory));
        let mut model: HashMap<u64, Vec<u8>> = HashMap::new();
        let mut hits = 0;
        for version in 0..200_000 {
            let key = random.below(20_000);
            let name = format!("key-{key}");
            match random.below(10) {
                0..4 => {
                    let length = match random.below(100) {
                        0 => random.below(200_000) as usize,
                        1..10 => random.below(8_000) as usize,
                        _ => random.below(300) as usize,
                    };
                    let value = value_of(key, version, length);
                    assert!(set(&cache, &mut local, name.as_bytes(), &value, 0));
                    model.insert(key, value);
                }
                4 => {
                    if delete(&cache, &mut local, name.as_bytes()) {
                        assert!(model.contains_key(&key));
                    }
                    model.remove(&key);
                }
                _ => {
                    if let Some(value) = get(&cache, &mut local, name.as_bytes()) {
                        assert_eq!(Some(&value), model.get(&key), "{name}");
                        hits += 1;
                    }
                }
            }
        }
        assert!(hits > 1_000, "{hits} hits");
        let stats = cache.stats();
        assert!(stats.hot_bytes + stats.cold_bytes <= memory, "{stats:?}");
        cache.stop();
    }
}

// Without eviction everything that fits stays; what does not fit is refused and nothing is lost.
#[test]
fn without_eviction_a_full_cache_refuses() {
    let (cache, mut local, _clock) = start(TierConfig {
        evict: Evict::No,
        ..config(4 << 20)
    });
    let value = vec![b'x'; 1000];
    let mut stored = 0;
    while stored < 100_000
        && set(
            &cache,
            &mut local,
            format!("k{stored}").as_bytes(),
            &value,
            0,
        )
    {
        stored += 1;
    }
    assert!((2_500..4_200).contains(&stored), "{stored} items");
    for number in 0..stored {
        assert_eq!(
            get(&cache, &mut local, format!("k{number}").as_bytes()).as_ref(),
            Some(&value)
        );
    }
    for number in 0..stored / 2 {
        assert!(delete(&cache, &mut local, format!("k{number}").as_bytes()));
    }
    assert!(set(&cache, &mut local, b"again", &value, 0));
    cache.stop();
}

// Expired items are not served, and their space is found again without anybody asking for them.
#[test]
fn expired_items_vanish() {
    let (cache, mut local, clock) = start(config(8 << 20));
    for number in 0..1000 {
        assert!(set(
            &cache,
            &mut local,
            format!("k{number}").as_bytes(),
            b"v",
            1_000_010
        ));
    }
    clock.set(1_000_009);
    assert!(get(&cache, &mut local, b"k1").is_some());
    clock.set(1_000_010);
    assert!(get(&cache, &mut local, b"k1").is_none());
    while cache.stats().hot_items > 0 {
        std::thread::yield_now();
    }
    cache.stop();
}

// Items larger than a segment lie in runs; they come and go without losing memory.
#[test]
fn large_items_come_and_go() {
    let (cache, mut local, _clock) = start(config(16 << 20));
    for round in 0..200u64 {
        let value = value_of(round, round, 100_000 + (round as usize * 7919) % 1_000_000);
        let key = format!("large-{}", round % 20);
        assert!(set(&cache, &mut local, key.as_bytes(), &value, 0));
        assert_eq!(get(&cache, &mut local, key.as_bytes()), Some(value));
    }
    cache.flush(None);
    assert_eq!(get(&cache, &mut local, b"large-1"), None);
    cache.stop();
}

// A large item that is refused after all had its segments opened already. They went to the next
// large item with the wrong tier's name, could never be emptied, and stores failed for good.
#[test]
fn a_refused_large_item_leaves_nothing_behind() {
    let (cache, mut local, _clock) = start(config(8 << 20));
    assert!(set(&cache, &mut local, b"here", b"x", 0));
    for _ in 0..50 {
        let refused = cache.update(
            &mut local,
            &mut Attempt::default(),
            b"here",
            Some(900_000),
            |_| Decision::<()>::Keep(()),
        );
        assert!(matches!(refused, Outcome::Done { .. }));
        assert!(set(&cache, &mut local, b"large", &vec![b'l'; 60_000], 0));
    }
    for number in 0..20_000 {
        let key = format!("k{number}");
        assert!(
            set(&cache, &mut local, key.as_bytes(), &[b'x'; 500], 0),
            "{key}"
        );
    }
    let stats = cache.stats();
    assert!(stats.hot_bytes + stats.cold_bytes > 6 << 20, "{stats:?}");
    cache.stop();
}

// The index keeps its memory when items go; charged in full to the few that are left it once left
// no room for any.
#[test]
fn a_lower_limit_leaves_a_working_cache() {
    let (cache, mut local, _clock) = start(config(64 << 20));
    for number in 0..500_000 {
        assert!(set(
            &cache,
            &mut local,
            format!("k{number}").as_bytes(),
            b"v",
            0
        ));
    }
    for megabytes in [8, 24] {
        assert!(cache.set_memory_limit(megabytes << 20));
        for number in 0..2_000 {
            assert!(set(
                &cache,
                &mut local,
                format!("n{number}").as_bytes(),
                b"v",
                0
            ));
        }
        let stats = cache.stats();
        assert!(stats.hot_items + stats.cold_items >= 2_000, "{stats:?}");
        while cache.stats().ram_segments > 512 * megabytes as u64 / 64 {
            std::thread::yield_now();
        }
    }
    cache.stop();
}

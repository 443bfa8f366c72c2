//! Hit ratios of the policies on traces of real caches, in process: no socket, no time of day.
//!
//! `TRACES=FOLDER cargo bench --bench policy -- [POLICY]...`; without `TRACES` it says so and does nothing. Memory is
//! 5, 10 and 20 % of a trace's footprint. To compare with another server see `scripts/hitratio`.

use std::sync::Arc;
use std::time::Instant;

use tiercache::clock::Clock;
use tiercache::entry::Marks;
use tiercache::metrics::Metrics;
use tiercache::tier::config::Policy;
use tiercache::tier::{
    Attempt, Cache, Decision, Local, Lookup, NewItem, Outcome, TierConfig, Value,
};
use tiercache::units::ByteSize;
use tiercache_integration::trace::Trace;

const POLICIES: [(&str, Policy); 4] = [
    ("fifo", Policy::Fifo),
    ("frequency", Policy::Frequency),
    ("balanced", Policy::Balanced),
    ("density", Policy::Density),
];
const PERCENTS: [u64; 3] = [5, 10, 20];
const NOW: u32 = 1_000_000_000;

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let Some(files) = Trace::files().expect("the folder TRACES can be read") else {
        println!("TRACES is not set: nothing to replay");
        return;
    };
    println!("| trace | memory | policy | hits | bytes hit | segments visited | seconds |");
    println!("|---|---|---|---|---|---|---|");
    for file in &files {
        let trace = Trace::read(file).expect("a trace can be read");
        for percent in PERCENTS {
            for (name, policy) in POLICIES {
                if wanted.is_empty() || wanted.iter().any(|word| word == name) {
                    replay(&trace, percent, name, policy);
                }
            }
        }
    }
}

fn replay(trace: &Trace, percent: u64, name: &str, policy: Policy) {
    let limit = ByteSize::mib(trace.megabytes(percent));
    let config = TierConfig {
        hot_size: ByteSize(limit.0 / 6),
        cold_size: ByteSize(limit.0 - limit.0 / 6),
        policy,
        ..TierConfig::default()
    };
    let clock = Arc::new(Clock::manual(NOW));
    let metrics = Arc::new(Metrics::default());
    let (cache, _) = Cache::start(config, clock, Arc::clone(&metrics), None, 1, &|_, _, _| {})
        .expect("the cache starts");
    let mut local = cache.local(0);
    let value = vec![0x5a; 1 << 20];
    let (mut gets, mut hits, mut bytes, mut bytes_hit) = (0u64, 0u64, 0u64, 0u64);
    let mut key = Vec::new();
    let start = Instant::now();
    for access in &trace.accesses {
        for copy in 0..trace.copies {
            key.clear();
            trace.push_key(access.key, copy, &mut key);
            gets += 1;
            bytes += u64::from(access.value_bytes);
            if get(&cache, &mut local, &key) {
                hits += 1;
                bytes_hit += u64::from(access.value_bytes);
            } else {
                set(
                    &cache,
                    &mut local,
                    &key,
                    &value[..access.value_bytes as usize],
                );
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    cache.stop();
    let part = |part: u64, whole: u64| part as f64 * 100.0 / whole.max(1) as f64;
    println!(
        "| {} | {percent} %, {} | {name} | {:.2} | {:.2} | {} | {seconds:.1} |",
        trace.name,
        limit,
        part(hits, gets),
        part(bytes_hit, bytes),
        metrics.engine.segments_evicted.value(),
    );
}

fn get(cache: &Cache, local: &mut Local, key: &[u8]) -> bool {
    let outcome = cache.read(local, &mut Attempt::default(), key, |_| Some(()));
    matches!(
        outcome,
        Outcome::Done {
            result: Lookup::Hit(()),
            ..
        }
    )
}

fn set(cache: &Cache, local: &mut Local, key: &[u8], value: &[u8]) {
    let item = NewItem {
        flags: 0,
        exptime: 0,
        own_cas: None,
        marks: Marks::default(),
        value: Value::Bytes(value),
    };
    // An item that finds no room is one that is not cached.
    let _ = cache.update(
        local,
        &mut Attempt::default(),
        key,
        Some(value.len()),
        |_| Decision::Store((), item),
    );
}

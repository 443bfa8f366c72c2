//! A hot get in process: nanoseconds and allocations of `Cache::read` through the library.
//!
//! `cargo bench --bench hot_get`; `GETS=N` changes how many. Items have 16-byte keys and 100-byte
//! values; the few fit the processor's caches, the many do not. The value is copied into a buffer
//! that is kept, as a caller that gets often would.
#![allow(unsafe_code)] // A global allocator cannot be had without.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use tiercache::clock::Clock;
use tiercache::entry::Marks;
use tiercache::metrics::Metrics;
use tiercache::tier::{
    Attempt, Cache, Decision, Local, Lookup, NewItem, Outcome, TierConfig, Value,
};
use tiercache::units::ByteSize;

const GETS_DEFAULT: u64 = 2_000_000;
/// What a hot get may take at most.
const NANOSECONDS_MAX: f64 = 300.0;
const VALUE_BYTES: usize = 100;

/// The system's allocator, which counts.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is the system allocator's own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the system allocator's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gets = std::env::var("GETS")
        .ok()
        .and_then(|text| text.parse().ok());
    let gets = gets.unwrap_or(GETS_DEFAULT);
    let config = TierConfig {
        hot_size: ByteSize::mib(256),
        cold_size: ByteSize::mib(256),
        ..TierConfig::default()
    };
    let clock = Arc::new(Clock::system());
    let metrics = Arc::new(Metrics::starting_at(clock.now()));
    let (cache, _) = Cache::start(config, clock, metrics, None, 1, &|_, _, _| {})?;
    let mut slow = false;
    for (name, items) in [("1,000 items", 1_000), ("100,000 items", 100_000)] {
        let (nanoseconds, allocations) = measure(&cache, items, gets);
        println!("{name}: {nanoseconds:.0} ns and {allocations:.3} allocations per get");
        slow |= nanoseconds > NANOSECONDS_MAX || allocations > 0.0;
    }
    cache.stop();
    if slow {
        return Err("a hot get takes too long, or allocates".into());
    }
    Ok(())
}

fn key(number: u64) -> [u8; 16] {
    let mut key = *b"key:000000000000";
    let mut left = number;
    for digit in key.iter_mut().rev().take(12) {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
    }
    key
}

fn store(cache: &Cache, local: &mut Local, key: &[u8]) {
    let value = [b'x'; VALUE_BYTES];
    let stored = cache.update(
        local,
        &mut Attempt::default(),
        key,
        Some(VALUE_BYTES),
        |_| {
            let item = NewItem {
                flags: 0,
                exptime: 0,
                own_cas: None,
                marks: Marks::default(),
                value: Value::Bytes(&value),
            };
            Decision::Store((), item)
        },
    );
    assert!(matches!(stored, Outcome::Done { .. }), "there is room");
}

/// Nanoseconds and allocations per get.
fn measure(cache: &Cache, items: u64, gets: u64) -> (f64, f64) {
    let mut local = cache.local(0);
    let keys: Vec<[u8; 16]> = (0..items).map(key).collect();
    for key in &keys {
        store(cache, &mut local, key);
    }
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut value = Vec::with_capacity(VALUE_BYTES);
    let mut bytes = 0;
    let mut run = |gets: u64| {
        for _ in 0..gets {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let key = &keys[(random % items) as usize];
            value.clear();
            let outcome = cache.read(&mut local, &mut Attempt::default(), key, |view| {
                view.append_value(&mut value);
                Some(view.flags())
            });
            let Outcome::Done {
                result: Lookup::Hit(flags),
                ..
            } = outcome
            else {
                panic!("the item is there");
            };
            bytes += black_box(&value).len() + flags as usize;
        }
    };
    run(gets / 10);
    let allocations = ALLOCATIONS.load(Relaxed);
    let begin = Instant::now();
    run(gets);
    let nanoseconds = begin.elapsed().as_nanos() as f64 / gets as f64;
    let allocations = (ALLOCATIONS.load(Relaxed) - allocations) as f64 / gets as f64;
    assert_eq!(
        black_box(bytes) as u64,
        (gets + gets / 10) * VALUE_BYTES as u64
    );
    (nanoseconds, allocations)
}

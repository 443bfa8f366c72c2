//! A hot get in process: nanoseconds and allocations of `Cache::read` through the library.
//!
//! `cargo bench --bench hot_get`; `GETS=N` changes how many. Items have 16-byte keys and 100-byte
//! values; the few fit the processor's caches, the many do not. The value is copied into a buffer
//! that is kept, as a caller that gets often would.
#![allow(unsafe_code)] // A global allocator cannot be had without.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use common::{VALUE_BYTES, cache, key, number_from_env, store};
use tiercache::tier::{Attempt, Cache, Lookup, Outcome};

const GETS_DEFAULT: u64 = 2_000_000;
/// What a hot get may take at most.
const NANOSECONDS_MAX: f64 = 300.0;

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
    let gets = number_from_env("GETS", GETS_DEFAULT);
    let cache = cache()?;
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

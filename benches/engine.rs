//! Nanoseconds of the engine's parts, without a framework: index, arena, storing, dry's writer.
//!
//! `cargo bench --bench engine [NAME]`; `ROUNDS=N` changes how often each runs, so that two runs
//! under an instruction counter tell the instructions of one.

mod common;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{cache, key, number_from_env, store};
use tiercache::clock::Clock;
use tiercache::dry::{Append, Close, Dry, DryConfig, NewRecord};
use tiercache::entry::{Facts, hash_key};
use tiercache::ram::{Arena, SegmentKind};
use tiercache::tier::Attempt;
use tiercache::units::ByteSize;

const ROUNDS_DEFAULT: u64 = 500_000;
const ITEMS: u64 = 100_000;
/// Of the records that the writer packs.
const RECORD_VALUE_BYTES: usize = 1024;
/// A writer that is behind its device is waited for so long.
const ROOM_WAIT: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rounds = number_from_env("ROUNDS", ROUNDS_DEFAULT);
    let filter = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let wanted = |name: &str| filter.as_ref().is_none_or(|filter| filter == name);
    if wanted("hash") {
        report("hash", rounds, |round| {
            black_box(hash_key([1, 2], &key(black_box(round % ITEMS))));
        });
    }
    if wanted("arena") {
        arena(rounds)?;
    }
    if ["hit", "miss", "store"].into_iter().any(wanted) {
        index(rounds, &wanted)?;
    }
    if wanted("writer") {
        writer(rounds.min(ITEMS))?;
    }
    Ok(())
}

fn report(name: &str, rounds: u64, mut run: impl FnMut(u64)) {
    let begin = Instant::now();
    for round in 0..rounds {
        run(round);
    }
    let nanoseconds = begin.elapsed().as_nanos() as f64 / rounds as f64;
    println!("{name:8} {nanoseconds:8.1} ns");
}

/// Room for an item taken and given back.
fn arena(rounds: u64) -> Result<(), Box<dyn std::error::Error>> {
    const WORDS: u32 = 17;
    let arena = Arena::new(16 << 20)?;
    let mut open = arena.open(SegmentKind::Hot, 0, 1).ok_or("no segment")?;
    report("arena", rounds, |_| {
        if arena.room(open) < WORDS as usize {
            arena.seal(open);
            open = arena
                .open(SegmentKind::Hot, 0, 1)
                .expect("sealed ones are dead, so free");
        }
        let address = arena.append(open, WORDS);
        arena.kill(black_box(address), WORDS);
    });
    Ok(())
}

/// Look-ups and stores of a cache in RAM.
fn index(rounds: u64, wanted: &dyn Fn(&str) -> bool) -> Result<(), Box<dyn std::error::Error>> {
    let cache = cache()?;
    let mut local = cache.local(0);
    for number in 0..ITEMS {
        store(&cache, &mut local, &key(number));
    }
    for (name, first) in [("hit", 0), ("miss", ITEMS)] {
        if wanted(name) {
            report(name, rounds, |round| {
                let key = key(first + scattered(round));
                let found = cache.read(&mut local, &mut Attempt::default(), &key, |view| {
                    Some(view.value_bytes())
                });
                black_box(found);
            });
        }
    }
    if wanted("store") {
        report("store", rounds, |round| {
            store(&cache, &mut local, &key(scattered(round)));
        });
    }
    cache.stop();
    Ok(())
}

/// A number below [`ITEMS`], far from the one of the round before.
fn scattered(round: u64) -> u64 {
    round.wrapping_mul(0x9e37_79b9_7f4a_7c15) % ITEMS
}

/// Records into segments, the waits for the device left out.
fn writer(rounds: u64) -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let config = DryConfig {
        folder: folder.path().join("dry"),
        size: ByteSize::gib(1),
        ..DryConfig::default()
    };
    let dry = Dry::open(&config, Arc::new(Clock::system()))?;
    let value = [b'x'; RECORD_VALUE_BYTES];
    let mut waited = Duration::ZERO;
    let begin = Instant::now();
    for round in 0..rounds {
        let key = key(round);
        let facts = Facts {
            version: round + 1,
            ..Facts::default()
        };
        let record = NewRecord {
            hash: hash_key(dry.seed(), &key),
            facts: &facts,
            hits: 0,
            key_bytes: key.len(),
            value_bytes: value.len(),
            created: 1,
        };
        loop {
            let fill = |bytes: &mut [u8]| {
                let (to_key, to_value) = bytes.split_at_mut(key.len());
                to_key.copy_from_slice(&key);
                to_value.copy_from_slice(&value);
            };
            match dry.append(&record, fill, |_, _| true) {
                Append::Done(_) => break,
                Append::Busy => {
                    let began = Instant::now();
                    assert!(dry.wait_for_room(ROOM_WAIT), "the device is stuck");
                    waited += began.elapsed();
                }
                other => return Err(format!("append: {other:?}").into()),
            }
        }
    }
    let spent = begin.elapsed() - waited;
    let nanoseconds = spent.as_nanos() as f64 / rounds as f64;
    println!("writer   {nanoseconds:8.1} ns, waited {waited:.1?} for the device");
    dry.close(Close::Dirty)?;
    Ok(())
}

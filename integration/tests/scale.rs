//! The largest sizes that a machine has room for: how soon a server serves them again after a crash, what they cost in
//! memory, and what a stop makes of them.
//!
//! CI's sizes are small and say that it works. The figures are those of `scripts/reliability start drain`: no test
//! judges them but the memory of an item, which no other program can make larger.

use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tiercache_integration::load::{Found, Items};
use tiercache_integration::server::Server;
use tiercache_integration::tiers::{figures, wait_until_at_rest};
use tiercache_integration::{number_from_env, process};

const MIB: u64 = 1024 * 1024;
/// Connections that store or read at once.
const CLIENTS: u64 = 2;
/// RAM of a dried item: its slot in the index.
const BYTES_PER_DRY_ITEM_MAX: u64 = 24;
/// Items from which on the rest of the process is little beside them.
const JUDGED_ITEMS: u64 = 1_000_000;
/// Beyond the value, an item in RAM and one in dry take less than this.
const OVERHEAD_BYTES: u64 = 100;
/// A stop may take this long here; the server's own limit is shorter.
const STOP_LIMIT: Duration = Duration::from_secs(120);

// kill -9, and everything that dry held is served again, for the memory of one slot per item.
#[test]
fn a_start_after_a_crash_serves_all_that_dry_held() {
    let count = number_from_env("TIERCACHE_TEST_DRY_ITEMS", 50_000);
    let items = Items {
        value_bytes: number_from_env("TIERCACHE_TEST_DRY_VALUE_BYTES", 1024) as usize,
    };
    let megabytes = (count / 15_625).clamp(8, 256).to_string();
    let dry_megabytes = count * (items.value_bytes as u64 + OVERHEAD_BYTES) / MIB * 3 / 2 + 100;
    let (dry_size, index_size) = (
        format!("{dry_megabytes}m"),
        format!("{}m", count * 30 / MIB + 32),
    );
    let folder = TempDir::new().expect("a temporary folder can be made");
    let dry = folder.path().join("dry").display().to_string();
    let arguments = [
        "-m",
        &megabytes,
        "--dry",
        &dry,
        "--dry-size",
        &dry_size,
        "--dry-index",
        &index_size,
        "--dry-wait",
        "5s",
        "--tracking-rows",
        "off",
    ];
    let mut server = Server::tiercache(&arguments);
    let empty = process::resident_bytes(server.pid());
    let stored = Instant::now();
    in_parts(count, |range| {
        let stored = items.store(&mut server.connect(), range, 0);
        stored.expect("every item is stored");
        Found::default()
    });
    let stored = stored.elapsed();
    let dry_items = wait_until_at_rest(&server);
    assert!(
        dry_items >= count / 2,
        "RAM holds most of it: {}",
        figures(&server.stats())
    );
    server.kill9();

    let started = Instant::now();
    server.start();
    let started = started.elapsed();
    let resident = process::resident_bytes(server.pid());
    let per_item = resident.saturating_sub(empty) / dry_items;
    println!(
        "{dry_items} of {count} items of {} bytes in dry (stored in {stored:.1?}): \
         served again {started:.2?} after kill -9, {per_item} bytes of RAM each",
        items.value_bytes
    );
    let found = in_parts(count, |range| {
        let found = items.read(&mut server.connect(), range, |_| Some(0));
        found.expect("the server answers every get")
    });
    assert_eq!(found.wrong, [""; 0]);
    assert!(
        found.hits >= dry_items,
        "{found:?}, {}",
        figures(&server.stats())
    );
    if dry_items >= JUDGED_ITEMS {
        assert!(
            per_item <= BYTES_PER_DRY_ITEM_MAX,
            "{per_item} bytes per item"
        );
    }
}

// All of RAM is full and nothing of it dried ahead: what a stop keeps is there afterwards, what it cannot keep is logged
// with its number, and none of it is old.
#[test]
fn a_drain_of_all_of_ram_keeps_or_counts_every_item() {
    let megabytes = number_from_env("TIERCACHE_TEST_DRAIN_MB", 128);
    let items = Items { value_bytes: 4096 };
    // Nineteen of twenty parts of what fits with the deleted ones, so that little leaves RAM before the stop.
    let count = megabytes * MIB * 19 / 20 / (items.value_bytes as u64 + OVERHEAD_BYTES);
    let (ram, dry_size) = (megabytes.to_string(), format!("{}m", 2 * megabytes + 100));
    let folder = TempDir::new().expect("a temporary folder can be made");
    let dry = folder.path().join("dry").display().to_string();
    let mut server = Server::tiercache(&[
        "-m",
        &ram,
        "--dry",
        &dry,
        "--dry-size",
        &dry_size,
        "--dry-ahead",
        "off",
    ]);
    in_parts(count, |range| {
        let client = &mut server.connect();
        let of = |version| {
            range
                .clone()
                .filter(move |number| newest(*number) == version)
        };
        // Those that are overwritten or deleted first: their dead copies make room for the others.
        items
            .store(client, of(Some(1)), 0)
            .and_then(|()| items.store(client, of(None), 0))
            .and_then(|()| Items::delete(client, of(None)))
            .and_then(|()| items.store(client, of(Some(1)), 1))
            .and_then(|()| items.store(client, of(Some(0)), 0))
            .expect("every item is stored");
        Found::default()
    });
    let deleted = (0..count)
        .filter(|number| newest(*number).is_none())
        .count() as u64;
    let before = server.stats();
    let held = before.number("bytes");
    assert!(
        before.number("curr_items") + deleted == count,
        "{}",
        figures(&before)
    );

    let stopped = Instant::now();
    let status = server.terminate(STOP_LIMIT);
    let stopped = stopped.elapsed();
    assert!(status.success(), "{status}: {}", server.log_tail());
    let left = items_left(&server.log());
    server.start();
    let found = in_parts(count, |range| {
        let found = items.read(&mut server.connect(), range, newest);
        found.expect("the server answers every get")
    });
    println!(
        "{} of {megabytes} MiB drained in {stopped:.1?}: {left} of {} items left behind, {} found again",
        held / MIB,
        count - deleted,
        found.hits
    );
    assert_eq!(found.wrong, [""; 0]);
    assert_eq!(
        found.hits + left + deleted,
        count,
        "{}",
        figures(&server.stats())
    );
}

/// The second version of every item whose number ends in 1, and no item whose number ends in 0.
fn newest(number: u64) -> Option<u64> {
    (!number.is_multiple_of(10)).then_some(u64::from(number % 10 == 1))
}

/// How many items the last stop had no time for, as its log says.
fn items_left(log: &str) -> u64 {
    let (_, line) = log
        .rsplit_once("drained RAM to the dry tier")
        .expect("the drain is logged");
    let line = line.lines().next().unwrap_or_default();
    line.split_once("items_left=")
        .and_then(|(_, number)| number.split_whitespace().next()?.parse().ok())
        .unwrap_or_else(|| panic!("no number of items in {line:?}"))
}

/// Runs `run` on as many parts of `0..count` as there are clients, at once, and adds up what they found.
fn in_parts(count: u64, run: impl Fn(Range<u64>) -> Found + Sync) -> Found {
    thread::scope(|scope| {
        let parts: Vec<_> = (0..CLIENTS)
            .map(|part| {
                let (run, range) = (&run, count * part / CLIENTS..count * (part + 1) / CLIENTS);
                scope.spawn(move || run(range))
            })
            .collect();
        let mut all = Found::default();
        for part in parts {
            all.add(part.join().expect("a client is served to its end"));
        }
        all
    })
}

//! The dry tier in MongoDB's GridFS: everything stays readable, also after a clean restart and a crash.

use std::time::{Duration, Instant};

use tiercache_integration::load::Items;
use tiercache_integration::mongodb::MongoServer;
use tiercache_integration::number_from_env;
use tiercache_integration::remote::Tiered;
use tiercache_integration::tiers::{figures, wait_until_at_rest};

const ITEMS: Items = Items { value_bytes: 1024 };
/// From so many items on the server is as large as in the run of 100,000.
const LARGE: u64 = 100_000;
/// A clean stop may take this long here: it uploads what waits.
const STOP_LIMIT: Duration = Duration::from_secs(90);

#[test]
fn a_working_set_larger_than_ram_survives_in_gridfs() {
    let count = number_from_env("TIERCACHE_TEST_GRIDFS_ITEMS", 20_000);
    let (megabytes, segment) = if count < LARGE {
        ("8", "1m")
    } else {
        ("64", "16m")
    };
    let store = MongoServer::start();
    let mut tiered = Tiered::start(
        &store.place("cache", store.address()),
        &[
            "-m",
            megabytes,
            "--dry-wait",
            "1s",
            "--dry-deadline",
            "30s",
            "--segment-size",
            segment,
        ],
    );
    let started = Instant::now();
    ITEMS
        .store(&mut tiered.server.connect(), 0..count, 0)
        .expect("every item is stored");
    let stored = started.elapsed();
    tiered.uploaded();
    println!(
        "{count} items stored in {stored:?}, uploaded after {:?}",
        started.elapsed()
    );
    let started = Instant::now();
    let found = tiered.read(ITEMS, count, |_| Some(0));
    let stats = tiered.server.stats();
    println!(
        "read in {:?} with {} reads of GridFS",
        started.elapsed(),
        stats.number("remote_gets")
    );
    assert_eq!(
        (found.hits, found.wrong),
        (count, vec![]),
        "{}",
        figures(&stats)
    );
    let gets = stats.number("remote_gets");
    assert!(gets <= count * 60_000 / 1_000_000, "{gets} reads");

    let status = tiered.server.terminate(STOP_LIMIT);
    assert!(status.success(), "SIGTERM ended with {status}");
    tiered.server.start();
    let started = Instant::now();
    let found = tiered.read(ITEMS, count, |_| Some(0));
    println!("after SIGTERM read in {:?}", started.elapsed());
    assert_eq!((found.hits, found.wrong), (count, vec![]), "after SIGTERM");

    let newest = |number: u64| (!number.is_multiple_of(10)).then_some(number % 2);
    let mut client = tiered.server.connect();
    ITEMS
        .store(&mut client, (1..count).step_by(2), 1)
        .expect("every second item is overwritten");
    Items::delete(&mut client, (0..count).step_by(10)).expect("every tenth item is deleted");
    let dry_items = wait_until_at_rest(&tiered.server);
    tiered.server.kill9();
    tiered.server.start();
    let found = tiered.read(ITEMS, count, newest);
    println!("{dry_items} items in dry at the kill, after it {found:?}");
    assert_eq!(found.wrong, [""; 0]);
    assert!(
        found.hits >= dry_items,
        "{}",
        figures(&tiered.server.stats())
    );
}

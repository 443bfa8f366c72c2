//! The dry tier in an S3 bucket: what it costs in requests, restarts, and another machine.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use tiercache_integration::load::Items;
use tiercache_integration::remote::Tiered;
use tiercache_integration::s3::S3Server;
use tiercache_integration::tiers::{figures, wait_until_at_rest};
use tiercache_integration::{number_from_env, seed};

const ITEMS: Items = Items { value_bytes: 1024 };
/// A clean stop may take this long here: it uploads what waits.
const STOP_LIMIT: Duration = Duration::from_secs(90);

// The main promise with a bucket instead of a disk, and its price.
#[test]
fn a_working_set_larger_than_ram_survives_in_a_bucket() {
    let count = number_from_env("TIERCACHE_TEST_ITEMS", 50_000);
    let store = S3Server::start(seed());
    let megabytes = (count / 15_625).clamp(8, 64).to_string();
    let segment = if count < 500_000 { "1m" } else { "16m" };
    let mut tiered = Tiered::start(
        &store.place("cache", store.address()),
        &[
            "-m",
            &megabytes,
            "--dry-wait",
            "1s",
            "--dry-deadline",
            "30s",
            "--segment-size",
            segment,
        ],
    );
    let started = Instant::now();
    let mut client = tiered.server.connect();
    ITEMS
        .store(&mut client, 0..count, 0)
        .expect("every item is stored");
    println!("{count} items stored in {:?}", started.elapsed());
    tiered.uploaded();
    let started = Instant::now();
    let found = tiered.read(ITEMS, count, |_| Some(0));
    let stats = tiered.server.stats();
    assert_eq!(
        (found.hits, found.wrong),
        (count, vec![]),
        "{}",
        figures(&stats)
    );
    let log = store.log();
    let (puts, gets) = (log.puts.load(SeqCst), log.range_gets.load(SeqCst));
    println!(
        "read in {:?}: {puts} PUTs, {gets} range GETs",
        started.elapsed()
    );
    // Per million items 200 PUTs of 16 MiB, 60,000 GETs; smaller segments for fewer items.
    assert!(gets <= count * 60_000 / 1_000_000, "{gets} range GETs");
    assert!(puts <= (count / 700).max(200), "{puts} PUTs");

    let status = tiered.server.terminate(STOP_LIMIT);
    assert!(status.success(), "SIGTERM ended with {status}");
    let started = Instant::now();
    tiered.server.start();
    println!("started in {:?}", started.elapsed());
    let found = tiered.read(ITEMS, count, |_| Some(0));
    assert_eq!(
        (found.hits, found.wrong),
        (count, vec![]),
        "after SIGTERM: {}",
        figures(&tiered.server.stats())
    );

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

// After a clean stop another machine is warm; after none it is cold, because nobody knows what the other one did.
#[test]
fn another_machine_is_warm_only_after_a_clean_stop() {
    let store = S3Server::start(seed());
    let count = 20_000;
    let more = [
        "-m",
        "8",
        "--dry-wait",
        "1s",
        "--segment-size",
        "1m",
        "--dry-deadline",
        "30s",
    ];
    let place = store.place("cache", store.address());
    let mut first = Tiered::start(&place, &more);
    ITEMS
        .store(&mut first.server.connect(), 0..count, 0)
        .expect("every item is stored");
    Items::delete(&mut first.server.connect(), 0..100).expect("items are deleted");
    let status = first.server.terminate(STOP_LIMIT);
    assert!(status.success(), "{}", first.server.log_tail());

    let mut second = Tiered::start(&place, &more);
    let found = second.read(ITEMS, count, |number| (number >= 100).then_some(0));
    assert_eq!((found.hits, found.wrong), (count - 100, vec![]));
    ITEMS
        .store(&mut second.server.connect(), 0..count, 1)
        .expect("every item is overwritten");
    second.server.kill9();

    // The first machine's spool is out of date now, and the second one's last words are not known.
    first.server.start();
    let found = first.read(ITEMS, count, |_| Some(1));
    assert_eq!((found.hits, found.wrong), (0, vec![]));
    assert!(
        first.server.log().contains("not stopped cleanly"),
        "{}",
        first.server.log_tail()
    );
}

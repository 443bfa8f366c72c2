//! A working set of many times the RAM: all of it still hits, also after a clean restart, and nothing old after a crash.

use std::ops::Range;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tiercache_integration::client::Stats;
use tiercache_integration::load::{Found, Items};
use tiercache_integration::server::Server;
use tiercache_integration::tiers::{figures, wait_until_at_rest};
use tiercache_integration::{number_from_env, process};

const ITEMS: Items = Items { value_bytes: 1024 };
/// A clean stop may take this long here; the server's own limit is shorter.
const STOP_LIMIT: Duration = Duration::from_secs(60);

// The promise of the dry tier, from the first write to the restart after a crash.
#[test]
fn a_working_set_larger_than_ram_survives() {
    let count = number_from_env("TIERCACHE_TEST_ITEMS", 50_000);
    // A sixteenth of the data fits into RAM, as 1,000,000 items of 1 KiB do into 64 MiB.
    let megabytes = (count / 15_625).clamp(8, 64).to_string();
    let folder = TempDir::new().expect("a temporary folder can be made");
    let dry = folder.path().join("dry").display().to_string();
    let mut server = Server::tiercache(&["-m", &megabytes, "--dry", &dry, "--dry-wait", "1s"]);

    let started = Instant::now();
    store_with_favourites(&server, count);
    println!(
        "{count} items stored through -m {megabytes} in {:?}",
        started.elapsed()
    );
    let before = server.stats();
    let found = read_by_popularity(&server, count);
    let after = server.stats();
    assert_eq!(
        (found.hits, found.wrong),
        (count, vec![]),
        "{}",
        figures(&after)
    );
    check_tiers(&before, &after, count);
    println!(
        "resident {} MiB",
        process::resident_bytes(server.pid()) >> 20
    );

    let started = Instant::now();
    let status = server.terminate(STOP_LIMIT);
    assert!(status.success(), "SIGTERM ended with {status}");
    println!("stopped in {:?}", started.elapsed());
    let started = Instant::now();
    server.start();
    println!("started in {:?}", started.elapsed());
    let found = read(&server, count, |_| Some(0));
    assert_eq!(
        (found.hits, found.wrong),
        (count, vec![]),
        "after SIGTERM: {}",
        figures(&server.stats())
    );

    overwrite_and_delete(&server, count);
    let dry_items = wait_until_at_rest(&server);
    server.kill9();
    let started = Instant::now();
    server.start();
    println!("started after kill -9 in {:?}", started.elapsed());
    let found = read(&server, count, newest);
    println!("{dry_items} items in dry at the kill, after it {found:?}");
    assert_eq!(found.wrong, [""; 0]);
    assert!(found.hits >= dry_items, "{}", figures(&server.stats()));
}

// Of a full RAM nothing is displaced by what is wanted once; what is wanted again soon comes up.
#[test]
fn the_second_hit_brings_an_item_up() {
    const READ: Range<u64> = 1000..1500;
    let folder = TempDir::new().expect("a temporary folder can be made");
    let dry = folder.path().join("dry").display().to_string();
    let server = Server::tiercache(&["-m", "8", "--dry", &dry, "--dry-wait", "1s"]);
    let mut client = server.connect();
    ITEMS
        .store(&mut client, 0..30_000, 0)
        .expect("every item is stored");
    wait_until_at_rest(&server);
    let mut last = server.stats();
    let mut rounds = Vec::new();
    for _ in 0..3 {
        let found = ITEMS.read(&mut client, READ, |_| Some(0));
        let found = found.expect("the server answers every get");
        assert_eq!((found.hits, found.wrong), (500, vec![]));
        let now = server.stats();
        let by = |name: &str| now.number(name) - last.number(name);
        rounds.push(["dry_read_through", "promotions", "dry_hits"].map(by));
        last = now;
    }
    println!("answered in place, brought up, hits of dry: {rounds:?}");
    let [first, second, third] = rounds[..] else {
        panic!("three rounds");
    };
    // What the page cache has lost meanwhile is read by a thread that brings it up.
    assert_eq!([first[0] + first[1], first[2]], [500, 500]);
    assert!(first[0] == 0 || first[0] >= 450, "{first:?}");
    // The memory of what was wanted is small: a few are forgotten for others.
    assert!(second[1] + first[1] >= 300, "{second:?}");
    assert!(third[2] <= 200, "{third:?}");
}

/// The items that are read again and again while the others are stored: they earn a place in cold.
fn favourites(count: u64) -> Range<u64> {
    0..count / 200
}

fn store_with_favourites(server: &Server, count: u64) {
    let mut client = server.connect();
    let step = count / 64;
    for from in (0..count).step_by(step as usize) {
        let to = count.min(from + step);
        ITEMS
            .store(&mut client, from..to, 0)
            .expect("every item is stored");
        let found = ITEMS.read(&mut client, favourites(count), |_| Some(0));
        let found = found.expect("the server answers every get");
        assert_eq!((found.misses, found.wrong), (0, vec![]));
    }
}

/// Reads every item once: favourites, then the newest, then those that RAM gave up long ago.
fn read_by_popularity(server: &Server, count: u64) -> Found {
    let mut client = server.connect();
    let newest = count - count / 100..count;
    let others = favourites(count).end..newest.start;
    let mut all = Found::default();
    for range in [favourites(count), newest, others] {
        let found = ITEMS.read(&mut client, range, |_| Some(0));
        all.add(found.expect("the server answers every get"));
    }
    all
}

fn read(server: &Server, count: u64, newest: impl Fn(u64) -> Option<u64>) -> Found {
    ITEMS
        .read(&mut server.connect(), 0..count, newest)
        .expect("the server answers every get")
}

/// Every hit was counted for one tier, each tier had some, and nothing was dropped on the way.
fn check_tiers(before: &Stats, after: &Stats, count: u64) {
    let tiers = ["hot_hits", "cold_hits", "dry_hits"].map(|name| after.growth(before, name));
    println!("hits by hot, cold and dry: {tiers:?}");
    assert_eq!(after.growth(before, "get_hits"), count);
    assert_eq!(tiers.iter().sum::<u64>(), count, "{tiers:?}");
    assert!(tiers.iter().all(|&hits| hits > 0), "{tiers:?}");
    for (name, value) in after
        .iter()
        .filter(|(name, _)| name.starts_with("demote_dropped_"))
    {
        assert_eq!(value, "0", "{name}");
    }
}

/// The second version of every odd item, and no item whose number ends in 0.
fn newest(number: u64) -> Option<u64> {
    (!number.is_multiple_of(10)).then_some(number % 2)
}

fn overwrite_and_delete(server: &Server, count: u64) {
    let mut client = server.connect();
    ITEMS
        .store(&mut client, (1..count).step_by(2), 1)
        .expect("every second item is overwritten");
    Items::delete(&mut client, (0..count).step_by(10)).expect("every tenth item is deleted");
    let found = read(server, count, newest);
    assert_eq!(
        (found.hits, found.wrong),
        (count - count.div_ceil(10), vec![])
    );
}

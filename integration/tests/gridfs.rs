//! The dry tier in MongoDB's GridFS: everything stays readable, also after a clean restart and a crash.

use std::time::{Duration, Instant};

use tempfile::TempDir;
use tiercache_integration::load::Items;
use tiercache_integration::mongodb::MongoServer;
use tiercache_integration::server::Server;
use tiercache_integration::tiers::{figures, wait_until_at_rest};
use tiercache_integration::{eventually, number_from_env};

const ITEMS: Items = Items { value_bytes: 1024 };
const KEYS_PER_GET: u64 = 100;
/// A clean stop may take this long here: it uploads what waits.
const STOP_LIMIT: Duration = Duration::from_secs(90);

#[test]
fn a_working_set_larger_than_ram_survives_in_gridfs() {
    let count = number_from_env("TIERCACHE_TEST_GRIDFS_ITEMS", 20_000);
    let store = MongoServer::start();
    let dry = format!("{}/{}", store.uri(), store.database());
    let folder = TempDir::new().expect("a temporary folder can be made");
    let spool = folder.path().join("spool").display().to_string();
    let mut server = Server::tiercache(&[
        "-m",
        "8",
        "--dry",
        &dry,
        "--dry-spool",
        &spool,
        "--dry-wait",
        "1s",
        "--dry-deadline",
        "30s",
        "--segment-size",
        "1m",
    ]);
    let started = Instant::now();
    ITEMS
        .store(&mut server.connect(), 0..count, 0)
        .expect("every item is stored");
    let uploaded = eventually(Duration::from_secs(120), || {
        server.stats().number("spool_segments") <= 1
    });
    assert!(uploaded, "{}", figures(&server.stats()));
    println!(
        "{count} items stored and uploaded in {:?}",
        started.elapsed()
    );
    let read = |server: &Server, newest: &dyn Fn(u64) -> Option<u64>| {
        let mut client = server.connect();
        let found = ITEMS.read_by(&mut client, 0..count, KEYS_PER_GET, newest);
        found.expect("the server answers every get")
    };
    let started = Instant::now();
    let found = read(&server, &|_| Some(0));
    let gets = server.stats().number("remote_gets");
    println!(
        "read in {:?} with {gets} reads of GridFS",
        started.elapsed()
    );
    assert_eq!(
        (found.hits, found.wrong),
        (count, vec![]),
        "{}",
        figures(&server.stats())
    );
    assert!(gets <= count * 60_000 / 1_000_000, "{gets} reads");

    let status = server.terminate(STOP_LIMIT);
    assert!(status.success(), "SIGTERM ended with {status}");
    server.start();
    let found = read(&server, &|_| Some(0));
    assert_eq!((found.hits, found.wrong), (count, vec![]), "after SIGTERM");

    ITEMS
        .store(&mut server.connect(), (1..count).step_by(2), 1)
        .expect("every second item is overwritten");
    let dry_items = wait_until_at_rest(&server);
    server.kill9();
    server.start();
    let found = read(&server, &|number| Some(number % 2));
    assert_eq!(found.wrong, [""; 0]);
    assert!(found.hits >= dry_items, "{}", figures(&server.stats()));
}

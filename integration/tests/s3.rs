//! The dry tier in an S3 bucket: what it costs in requests, restarts, another machine, and a store that fails.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tiercache_integration::client::set_request;
use tiercache_integration::load::{Found, Items};
use tiercache_integration::random::Random;
use tiercache_integration::s3::{BUCKET, Faults, S3Server};
use tiercache_integration::server::{Server, tiercache_binary};
use tiercache_integration::tiers::{figures, wait_until_at_rest};
use tiercache_integration::{eventually, number_from_env, seed};

const ITEMS: Items = Items { value_bytes: 1024 };
/// Connections that read, and keys of each of their gets.
const READERS: u64 = 4;
const KEYS_PER_GET: u64 = 100;
/// Gets of one hot item that a percentile is taken of.
const HOT_GETS: usize = 5000;
/// A clean stop may take this long here: it uploads what waits.
const STOP_LIMIT: Duration = Duration::from_secs(90);

/// A tiercache whose dry tier is in `store`, with a spool of its own.
struct Tiered {
    server: Server,
    // Removed when the test ends.
    _spool: TempDir,
}

fn arguments(store: &S3Server, spool: &TempDir, more: &[&str]) -> Vec<String> {
    let dry = format!("s3://{BUCKET}/cache");
    let spool = spool.path().join("spool").display().to_string();
    let endpoint = store.endpoint();
    let mut all = vec![
        "--dry",
        &dry,
        "--dry-spool",
        &spool,
        "--s3-endpoint",
        &endpoint,
    ];
    all.push("--s3-path-style");
    all.extend(more);
    all.into_iter().map(str::to_owned).collect()
}

impl Tiered {
    fn start(store: &S3Server, more: &[&str]) -> Tiered {
        let spool = TempDir::new().expect("a temporary folder can be made");
        let all = arguments(store, &spool, more);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let mut server = Server::stopped(&[], &tiercache_binary(), &all);
        let environment = S3Server::environment().map(|(name, value)| (name.into(), value.into()));
        server.set_environment(environment.into());
        server.start();
        Tiered {
            server,
            _spool: spool,
        }
    }

    /// Everything but the open segment is in the bucket.
    fn uploaded(&self) {
        let done = eventually(Duration::from_secs(120), || {
            self.server.stats().number("spool_segments") <= 1
        });
        assert!(done, "{}", figures(&self.server.stats()));
    }

    /// The 99th percentile of how long gets of one hot item take.
    fn hot_p99(&self) -> Duration {
        let mut client = self.server.connect();
        let request = set_request(b"hot", b"value");
        client.send(&request).expect("the server reads");
        assert_eq!(client.line().expect("an answer"), b"STORED");
        let mut times: Vec<Duration> = (0..HOT_GETS)
            .map(|_| {
                let started = Instant::now();
                client.send(b"get hot\r\n").expect("the server reads");
                let hits = client.hits().expect("an answer");
                assert_eq!(hits.len(), 1, "what is hot stays");
                started.elapsed()
            })
            .collect();
        times.sort();
        times[times.len() * 99 / 100]
    }

    /// Reads all items in the order of their sets, over several connections at once.
    fn read(&self, count: u64, newest: impl Fn(u64) -> Option<u64> + Copy + Send) -> Found {
        let part = count.div_ceil(READERS);
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..READERS)
                .map(|reader| {
                    let range = reader * part..count.min((reader + 1) * part);
                    scope.spawn(move || {
                        let mut client = self.server.connect();
                        let found = ITEMS.read_by(&mut client, range, KEYS_PER_GET, newest);
                        found.expect("the server answers every get")
                    })
                })
                .collect();
            let mut all = Found::default();
            for reader in readers {
                all.add(reader.join().expect("a reader does not panic"));
            }
            all
        })
    }
}

// The main promise with a bucket instead of a disk, and its price.
#[test]
fn a_working_set_larger_than_ram_survives_in_a_bucket() {
    let count = number_from_env("TIERCACHE_TEST_ITEMS", 50_000);
    let store = S3Server::start(seed());
    let megabytes = (count / 15_625).clamp(8, 64).to_string();
    let segment = if count < 500_000 { "1m" } else { "16m" };
    let mut tiered = Tiered::start(
        &store,
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
    let found = tiered.read(count, |_| Some(0));
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
    let found = tiered.read(count, |_| Some(0));
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
    let found = tiered.read(count, newest);
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
    let mut first = Tiered::start(&store, &more);
    ITEMS
        .store(&mut first.server.connect(), 0..count, 0)
        .expect("every item is stored");
    Items::delete(&mut first.server.connect(), 0..100).expect("items are deleted");
    let status = first.server.terminate(STOP_LIMIT);
    assert!(status.success(), "{}", first.server.log_tail());

    let mut second = Tiered::start(&store, &more);
    let found = second.read(count, |number| (number >= 100).then_some(0));
    assert_eq!((found.hits, found.wrong), (count - 100, vec![]));
    ITEMS
        .store(&mut second.server.connect(), 0..count, 1)
        .expect("every item is overwritten");
    second.server.kill9();

    // The first machine's spool is out of date now, and the second one's last words are not known.
    first.server.start();
    let found = first.read(count, |_| Some(1));
    assert_eq!((found.hits, found.wrong), (0, vec![]));
    assert!(
        first.server.log().contains("not stopped cleanly"),
        "{}",
        first.server.log_tail()
    );
}

// 30 % errors, 10 % timeouts, 5 % resets, 1 % flipped bits: nothing wrong is ever served, and nothing is left behind.
#[test]
fn a_bucket_full_of_faults_costs_misses_alone() {
    let seed = seed();
    let mut random = Random::new(seed);
    let store = S3Server::start(seed);
    let count = 20_000;
    let more = [
        "-m",
        "8",
        "--dry-wait",
        "1s",
        "--segment-size",
        "1m",
        "--dry-deadline",
        "500ms",
        "--dry-orphan-age",
        "5s",
    ];
    let mut tiered = Tiered::start(&store, &more);
    ITEMS
        .store(&mut tiered.server.connect(), 0..count, 0)
        .expect("every item is stored");
    tiered.uploaded();
    let calm = tiered.hot_p99();
    store.order(Faults {
        errors: 300,
        timeouts: 100,
        timeout: Duration::from_secs(2),
        resets: 50,
        flips: 10,
    });
    let limit = Duration::from_secs(number_from_env("TIERCACHE_TEST_SECONDS", 20));
    let until = Instant::now() + limit;
    let versions: Vec<AtomicU64> = (0..count).map(|_| AtomicU64::new(0)).collect();
    let newest = |number: u64| Some(versions[number as usize].load(SeqCst));
    let (mut found, mut slowest) = (Found::default(), Duration::ZERO);
    let mut stormy = Vec::new();
    while Instant::now() < until {
        let mut client = tiered.server.connect();
        let number = random.below(count);
        let started = Instant::now();
        let one = ITEMS.read_by(&mut client, number..number + 1, 1, newest);
        slowest = slowest.max(started.elapsed());
        found.add(one.expect("the server answers every get"));
        // Old copies of these are in the bucket, or on their way there.
        let number = random.below(count);
        let version = 1 - newest(number).unwrap_or(0);
        ITEMS
            .store(&mut client, number..number + 1, version)
            .expect("every item is stored");
        versions[number as usize].store(version, SeqCst);
        if stormy.len() < 5 {
            stormy.push(tiered.hot_p99());
        }
    }
    assert_eq!(found.wrong, [""; 0]);
    stormy.sort();
    println!(
        "{} hits, {} misses, the slowest took {slowest:?}; hot p99 {calm:?}, with faults {:?}; {} faults",
        found.hits,
        found.misses,
        stormy[stormy.len() / 2],
        store.log().faults.load(SeqCst)
    );
    assert!(found.hits > 0 && store.log().faults.load(SeqCst) > 0);
    store.order(Faults::default());
    tiered.uploaded();
    let found = tiered.read(count, newest);
    assert_eq!(found.wrong, [""; 0]);
    println!("afterwards {} of {count} are there", found.hits);
    // Objects of attempts that were not confirmed go; those that are named stay.
    let clean = eventually(Duration::from_secs(60), || {
        let segments = tiered.server.stats().number("segments");
        let waiting = tiered.server.stats().number("spool_segments");
        store.objects("cache").len() as u64 == segments - waiting + 1
    });
    assert!(
        clean,
        "{:?} {}",
        store.objects("cache"),
        figures(&tiered.server.stats())
    );
    assert!(tiered.server.terminate(STOP_LIMIT).success());
}

// What is wrong with a store is said at start, with what was tried.
#[test]
fn a_store_that_cannot_be_used_is_a_clear_error_at_start() {
    let store = S3Server::start(seed());
    let spool = TempDir::new().expect("a temporary folder can be made");
    let start = |bucket: &str, endpoint: &str, key: &str| {
        let output = Command::new(tiercache_binary())
            .args([
                "-l",
                "127.0.0.1",
                "-p",
                "-1",
                "-u",
                "root",
                "--s3-path-style",
            ])
            .args([
                "--dry",
                &format!("s3://{bucket}/cache"),
                "--s3-endpoint",
                endpoint,
            ])
            .arg("--dry-spool")
            .arg(spool.path().join("spool"))
            .env("AWS_ACCESS_KEY_ID", key)
            .env("AWS_SECRET_ACCESS_KEY", "wrong")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .output()
            .expect("the binary can be started");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for (bucket, endpoint, expected) in [
        (BUCKET, store.endpoint().as_str(), "SignatureDoesNotMatch"),
        (BUCKET, "http://127.0.0.1:9", "http://127.0.0.1:9"),
    ] {
        let said = start(bucket, endpoint, tiercache_integration::s3::ACCESS_KEY);
        assert!(said.contains(expected) && said.contains("s3://"), "{said}");
        assert!(!said.contains("wrong"), "no secret: {said}");
    }
}

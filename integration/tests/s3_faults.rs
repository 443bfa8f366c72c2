//! A bucket full of faults, beside the same bucket without: nothing wrong is ever served, hot items do not notice, and
//! nothing is left behind.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use tiercache_integration::client::set_request;
use tiercache_integration::load::{Found, Items};
use tiercache_integration::random::Random;
use tiercache_integration::remote::Tiered;
use tiercache_integration::s3::{Faults, S3Server};
use tiercache_integration::tiers::figures;
use tiercache_integration::times::Times;
use tiercache_integration::{eventually, number_from_env, seed};

const ITEMS: Items = Items { value_bytes: 1024 };
const COUNT: u64 = 20_000;
/// Clients that read and overwrite dried items.
const CLIENTS: u64 = 4;
/// A client begins an operation this often, so that a miss at once, which a fault makes of a slow read, brings no more load
/// than what the store answers in time.
const PACE: Duration = Duration::from_millis(5);
/// Of so many operations of a client one is an overwrite.
const OVERWRITE_EVERY: u64 = 4;
/// Times without faults and with them, in turn.
const ROUNDS: u64 = 3;
/// Per mille of requests.
const STORM: Faults = Faults {
    errors: 300,
    timeouts: 100,
    timeout: Duration::from_secs(2),
    resets: 50,
    flips: 10,
    cuts: 10,
};
/// After faults end, what is half done is done at most this long afterwards.
const AFTERMATH_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(90);

/// Gets of dried items without faults and with them.
#[derive(Default)]
struct Dried {
    found: Found,
    calm: Times,
    stormy: Times,
}

impl Dried {
    fn add(&mut self, other: Dried) {
        self.found.add(other.found);
        self.calm.add(other.calm);
        self.stormy.add(other.stormy);
    }
}

#[test]
fn a_bucket_full_of_faults_costs_misses_alone() {
    let seed = seed();
    let store = S3Server::start(seed);
    let mut tiered = Tiered::start(
        &store.place("cache", store.address()),
        &[
            "-m",
            "8",
            "--dry-wait",
            "1s",
            "--segment-size",
            "1m",
            "--dry-orphan-age",
            "5s",
            "--dry-deadline",
            "500ms",
        ],
    );
    ITEMS
        .store(&mut tiered.server.connect(), 0..COUNT, 0)
        .expect("every item is stored");
    tiered.uploaded();

    let length = Duration::from_secs(number_from_env("TIERCACHE_TEST_SECONDS", 18)) / ROUNDS as u32;
    let (storm, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let (mut calm, mut stormy) = (Times::default(), Times::default());
    let mut dried = Dried::default();
    let mut versions: Vec<u64> = vec![0; COUNT as usize];
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (storm, over, tiered) = (&storm, &over, &tiered);
                let random = Random::new(seed.wrapping_add(client));
                scope.spawn(move || read_and_overwrite(tiered, client, random, storm, over))
            })
            .collect();
        for _ in 0..ROUNDS {
            store.order(Faults::default());
            storm.store(false, SeqCst);
            hot_gets(&tiered, length, &mut calm);
            storm.store(true, SeqCst);
            store.order(STORM);
            hot_gets(&tiered, length, &mut stormy);
        }
        store.order(Faults::default());
        over.store(true, SeqCst);
        for (client, ended) in clients.into_iter().enumerate() {
            let (own, newest) = ended.join().expect("a client does not panic");
            dried.add(own);
            for (number, version) in (client..).step_by(CLIENTS as usize).zip(newest) {
                versions[number] = version;
            }
        }
    });
    println!(
        "hot gets: {} without faults, p99 {:?}; {} with, p99 {:?}",
        calm.count(),
        calm.per_mille(990),
        stormy.count(),
        stormy.per_mille(990),
    );
    println!(
        "dried gets, deadline 500 ms: {} without faults, p99.9 {:?}; {} with, p99.9 {:?}, the slowest {:?}; {} hits, {} misses",
        dried.calm.count(),
        dried.calm.per_mille(999),
        dried.stormy.count(),
        dried.stormy.per_mille(999),
        dried.stormy.per_mille(1000),
        dried.found.hits,
        dried.found.misses,
    );
    println!("{:?}", store.log());
    assert_eq!(dried.found.wrong, [""; 0]);
    assert!(dried.found.hits > 0 && store.log().faults.load(SeqCst) > 0);

    tiered.uploaded();
    let found = tiered.read(ITEMS, COUNT, |number| Some(versions[number as usize]));
    assert_eq!(found.wrong, [""; 0]);
    println!("afterwards {} of {COUNT} are there", found.hits);
    println!("{}", figures(&tiered.server.stats()));
    // Objects of attempts that were not confirmed go; those that are named stay.
    let clean = eventually(AFTERMATH_LIMIT, || {
        let stats = tiered.server.stats();
        let named = stats.number("segments") - stats.number("spool_segments");
        store.objects("cache").len() as u64 == named + 1
    });
    let figures = figures(&tiered.server.stats());
    assert!(clean, "{:?} {figures}", store.objects("cache"));
    assert!(tiered.server.terminate(STOP_LIMIT).success());
    let mut named = store.named_by_manifest("cache");
    println!("{} objects are there and named", named.len());
    named.push("manifest".to_owned());
    assert_eq!(store.objects("cache"), named);
}

/// Gets of one hot item for a while, one after the other.
fn hot_gets(tiered: &Tiered, length: Duration, times: &mut Times) {
    let mut client = tiered.server.connect();
    let request = set_request(b"hot", b"value");
    client.send(&request).expect("the server reads");
    assert_eq!(client.line().expect("an answer"), b"STORED");
    let until = Instant::now() + length;
    while Instant::now() < until {
        let started = Instant::now();
        client.send(b"get hot\r\n").expect("the server reads");
        let hits = client.hits().expect("an answer");
        assert_eq!(hits.len(), 1, "what is hot stays");
        times.push(started.elapsed());
    }
}

/// Reads and overwrites every fourth item, in no order and at a pace; what was found, and the newest version of each.
fn read_and_overwrite(
    tiered: &Tiered,
    client: u64,
    mut random: Random,
    storm: &AtomicBool,
    over: &AtomicBool,
) -> (Dried, Vec<u64>) {
    let mut versions = vec![0; (COUNT / CLIENTS) as usize];
    let mut connection = tiered.server.connect();
    let mut dried = Dried::default();
    let mut due = Instant::now();
    while !over.load(SeqCst) {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // What is late is not made up for.
        due = Instant::now() + PACE;
        let index = random.below(COUNT / CLIENTS);
        let number = index * CLIENTS + client;
        let version = &mut versions[index as usize];
        if random.below(OVERWRITE_EVERY) == 0 {
            // Old copies are in the bucket, or on their way there.
            *version = 1 - *version;
            ITEMS
                .store(&mut connection, number..number + 1, *version)
                .expect("every item is stored");
            continue;
        }
        let stormy = storm.load(SeqCst);
        let started = Instant::now();
        let one = ITEMS.read_by(&mut connection, number..number + 1, 1, |_| Some(*version));
        let times = if stormy {
            &mut dried.stormy
        } else {
            &mut dried.calm
        };
        times.push(started.elapsed());
        dried.found.add(one.expect("the server answers every get"));
    }
    (dried, versions)
}

//! Several proxies in front of one pool, some of them cut off from a server at times: goal R11.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tiercache_integration::faulty::Fault;
use tiercache_integration::pool::Pool;
use tiercache_integration::random::Random;
use tiercache_integration::server::Server;
use tiercache_integration::{eventually, number_from_env, seed};

use super::NOTICED;
use super::fleet::Proxy;
use super::load::{Commands, Seen, Shared, Worker, server_of};

/// Proxies that share the pool, and clients of each.
const PROXIES: usize = 3;
const CLIENTS: usize = 2;
/// How old a copy may be with `through`.
const FRESH: Duration = Duration::from_secs(2);
/// The longest staleness that is looked for.
const STALENESS_MAX: Duration = Duration::from_secs(60);
const TIMEOUTS: &str = "request_timeout = \"100ms\"\nconnect_timeout = \"100ms\"\n";

/// Partitions of a test, and how long each lasts and as long each time between two of them: commands of one client, and
/// time.
struct Partitions {
    count: u64,
    commands: u64,
    time: Duration,
}

impl Partitions {
    fn from_env() -> Partitions {
        Partitions {
            count: number_from_env("TIERCACHE_TEST_PARTITIONS", 3),
            commands: 300,
            time: Duration::from_secs(number_from_env("TIERCACHE_TEST_PARTITION_SECONDS", 0)),
        }
    }
}

/// Runs clients through several proxies while links are cut, and gathers what they saw.
fn run(pool: &Pool, arguments: &[&str], commands: Commands) -> Seen {
    let mut random = Random::new(seed());
    let partitions = Partitions::from_env();
    let proxies: Vec<Proxy> = (0..PROXIES)
        .map(|_| Proxy::start(&pool.servers, "cold", TIMEOUTS, arguments, random.bits()))
        .collect();
    let shared = Shared::new();
    let mut seen = Seen::default();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut conductor = None;
        let mut clients = Vec::new();
        for proxy in &proxies {
            for _ in 0..CLIENTS {
                let worker = Worker::new(&shared, proxy.server.connect(), random.bits(), commands);
                if conductor.is_none() {
                    conductor = Some(worker);
                    continue;
                }
                let over = &over;
                clients.push(scope.spawn(move || {
                    let mut worker = worker;
                    while !over.load(Ordering::Relaxed) {
                        worker.step().expect("the proxy answers");
                    }
                    worker.seen
                }));
            }
        }
        let mut conductor = conductor.expect("there are clients");
        for _ in 0..partitions.count {
            let link =
                &proxies[random.below(PROXIES as u64) as usize].links[random.below(3) as usize];
            for fault in [Fault::BlackHole, Fault::None] {
                let errors = shared.errors();
                link.set(fault);
                let begun = Instant::now();
                let ran = conductor.run(partitions.commands, partitions.time);
                ran.expect("the proxy answers");
                // Until somebody has noticed.
                let noticed = eventually(NOTICED, || {
                    conductor.step().expect("the proxy answers");
                    fault == Fault::None || shared.errors() > errors
                });
                assert!(noticed, "nobody was cut off");
                println!("{fault:?} for {:?}", begun.elapsed());
            }
        }
        over.store(true, Ordering::Relaxed);
        seen.add(conductor.seen);
        for client in clients {
            seen.add(client.join().expect("the client ends by itself"));
        }
    });
    let hot: u64 = proxies
        .iter()
        .map(|proxy| proxy.server.stats().number("hot_hits"))
        .sum();
    println!(
        "{} operations, {} hits, {hot} of them by copies, {} misses, {} errors",
        seen.operations, seen.hits, seen.misses, seen.errors
    );
    assert!(hot > 0, "no copy answers");
    seen
}

#[test]
fn strict_is_never_stale_whoever_is_cut_off() {
    // Servers that compare CAS uniques: a memcached that does is told by TIERCACHE_TEST_MEMCACHED.
    let probe = Server::memcached(&[]);
    let compares = probe.version() >= (1, 6, 41);
    drop(probe);
    let pool = if compares {
        Pool::of_memcached(&[1, 1, 1])
    } else {
        Pool::of(&[1, 1, 1], |port| {
            Server::tiercache(&["-p", port, "-m", "256"])
        })
    };
    println!(
        "servers: {}",
        if compares { "memcached" } else { "tiercache" }
    );
    let seen = run(
        &pool,
        &["-m", "256", "--cold-sharing", "strict"],
        Commands::All,
    );
    assert_eq!(seen.violations(0), [""; 0]);
}

#[test]
fn through_is_behind_by_no_more_than_it_says() {
    let pool = Pool::of_memcached(&[1, 1, 1]);
    let fresh = format!("{}s", FRESH.as_secs());
    let through = [
        "-m",
        "256",
        "--cold-sharing",
        "through",
        "--cold-fresh",
        fresh.as_str(),
    ];
    let seen = run(&pool, &through, Commands::Plain);
    let staleness = seen.staleness(STALENESS_MAX);
    println!("staleness {staleness:?}, {FRESH:?} are allowed");
    // The measure would notice: without any age the copies of others are stale.
    assert!(!staleness.is_zero(), "no read was ever behind");
    assert!(
        staleness <= FRESH,
        "{:?}",
        seen.violations(FRESH.as_nanos() as u64).first()
    );
    assert!((0..3).all(|server| {
        seen.records
            .iter()
            .any(|record| server_of(record.key) == server)
    }));
}

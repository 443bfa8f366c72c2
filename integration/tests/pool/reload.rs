//! Pools that change by SIGHUP: nothing old comes back with a server, a change of manners is no change of places, and
//! nobody notices who does not lose a key by it.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tiercache_integration::client::Client;
use tiercache_integration::pool::Pool;
use tiercache_integration::random::Random;
use tiercache_integration::server::Server;
use tiercache_integration::{eventually, number_from_env, seed};

use super::NOTICED;
use super::load::{Commands, Seen, Shared, Worker};
use super::sharing::RELOADED;

/// Clients of the proxy that is reloaded under load.
const CLIENTS: usize = 12;
/// Commands of a client between two looks at whether it is to end.
const STEPS: u64 = 10;

/// A proxy whose configuration file can be changed.
struct Reloaded {
    server: Server,
    folder: TempDir,
    tier: &'static str,
}

impl Reloaded {
    fn start(servers: &[String], request_timeout: &str) -> Reloaded {
        Reloaded::start_as("hot", servers, request_timeout, &[])
    }

    fn start_as(
        tier: &'static str,
        servers: &[String],
        request_timeout: &str,
        arguments: &[&str],
    ) -> Reloaded {
        let folder = TempDir::new().expect("a temporary folder can be made");
        write(&folder, tier, servers, &[], request_timeout);
        let file = folder.path().join("c.toml").display().to_string();
        Reloaded {
            server: Server::tiercache(&[&["--config", file.as_str()], arguments].concat()),
            folder,
            tier,
        }
    }

    fn reload(&self, servers: &[String], request_timeout: &str) {
        self.reload_from(servers, &[], request_timeout);
    }

    fn reload_from(&self, servers: &[String], from: &[String], request_timeout: &str) {
        write(&self.folder, self.tier, servers, from, request_timeout);
        let pid = Pid::from_raw(self.server.pid().cast_signed()).expect("it has a process id");
        kill_process(pid, Signal::HUP).expect("an own child can be signalled");
    }
}

fn write(folder: &TempDir, tier: &str, servers: &[String], from: &[String], request_timeout: &str) {
    let from = match from {
        [] => String::new(),
        from => format!("migrate_from = {from:?}\n"),
    };
    let text = format!(
        "[{tier}]\nbackend = \"memcached\"\n[memcached]\nservers = {servers:?}\n{from}\
         request_timeout = \"{request_timeout}\"\nconnect_timeout = \"10s\"\nstate = {:?}\n",
        folder.path().join("state")
    );
    fs::write(folder.path().join("c.toml"), text).expect("it can be written");
}

fn get(client: &mut Client, key: &str) -> Option<Vec<u8>> {
    client.get(key.as_bytes()).expect("it answers")
}

// The story of a value that went back: its server left the pool, another one came and got the key, and two reloads later
// the first one was there again, with what it had.
#[test]
fn what_a_server_had_three_reloads_ago_does_not_come_back_with_it() {
    let pool = Pool::of_memcached(&[1, 1, 1]);
    let names = pool.names();
    let with = |numbers: &[usize]| -> Vec<String> {
        numbers
            .iter()
            .map(|number| names[*number].clone())
            .collect()
    };
    let proxy = Reloaded::start(&with(&[0, 1]), "10s");
    let mut client = proxy.server.connect();
    let (mut second, mut third) = (pool.servers[1].connect(), pool.servers[2].connect());
    let keys: Vec<String> = (0..200).map(|number| format!("key{number}")).collect();
    for key in &keys {
        assert_eq!(
            client.set(key.as_bytes(), b"old").expect("it answers"),
            b"STORED"
        );
    }
    let on_second: Vec<&String> = keys
        .iter()
        .filter(|key| get(&mut second, key).is_some())
        .collect();

    proxy.reload(&with(&[0]), "10s");
    let left = eventually(NOTICED, || get(&mut client, on_second[0]).is_none());
    assert!(left, "the server never leaves");

    proxy.reload(&with(&[0, 2]), "10s");
    // Stored on the first server until the third is there.
    let came = eventually(NOTICED, || {
        for key in &on_second {
            assert_eq!(
                client.set(key.as_bytes(), b"new").expect("it answers"),
                b"STORED"
            );
        }
        on_second.iter().any(|key| get(&mut third, key).is_some())
    });
    assert!(came, "the server never comes");
    for key in &on_second {
        assert_eq!(
            client.set(key.as_bytes(), b"new").expect("it answers"),
            b"STORED"
        );
    }
    let moved = on_second.iter().find(|key| get(&mut third, key).is_some());
    let moved = moved.expect("one is there");

    proxy.reload(&with(&[0, 1]), "10s");
    let back = eventually(NOTICED, || {
        let found = get(&mut client, moved);
        assert_ne!(found.as_deref(), Some(&b"old"[..]));
        found.is_none()
    });
    assert!(back, "the server is never back");
    for key in &on_second {
        assert_eq!(get(&mut client, key), None, "{key}");
    }
}

// The story of a pool that lost all it was given: with other timeouts, its servers were taken for others, and a key's former
// server was told to delete it.
#[test]
fn another_timeout_makes_no_server_a_former_one() {
    let pool = Pool::of_memcached(&[1]);
    let proxy = Reloaded::start(&pool.names(), "10s");
    let mut client = proxy.server.connect();
    let requests = |client: &mut Client| {
        let stats = client.stats("upstream").expect("it answers");
        stats.number(&format!("{}:requests", pool.servers[0].address()))
    };
    for _ in 0..50 {
        assert_eq!(client.set(b"k", b"v").expect("it answers"), b"STORED");
    }
    proxy.reload(&pool.names(), "9s");
    // Figures begin anew with it.
    let taken = eventually(NOTICED, || requests(&mut client) < 50);
    assert!(taken, "the reload has no effect");
    for _ in 0..50 {
        assert_eq!(client.set(b"k", b"v").expect("it answers"), b"STORED");
        assert_eq!(get(&mut client, "k").as_deref(), Some(&b"v"[..]));
    }
    let stats = pool.servers[0].stats();
    assert_eq!(
        stats.number("delete_hits") + stats.number("delete_misses"),
        0
    );
}

// Servers come and go, with their keys left behind or brought along, while many requests are on their way: no connection is
// dropped, nothing fails, and nobody reads what was changed.
#[test]
fn reloads_under_load_fail_nothing() {
    let mut random = Random::new(seed());
    for (tier, arguments) in [
        ("hot", &["-t", "3"][..]),
        (
            "cold",
            &["-t", "3", "-m", "64", "--cold-sharing", "private"],
        ),
    ] {
        let pool = Pool::of_memcached(&[1, 1, 1]);
        let names = pool.names();
        let (both, third) = (&names[..2], &names[2..]);
        let proxy = Reloaded::start_as(tier, both, "10s", arguments);
        let shared = Shared::new();
        let mut workers: Vec<Worker> = (0..CLIENTS)
            .map(|_| {
                let client = proxy.server.connect();
                Worker::new(&shared, client, random.bits(), Commands::All)
            })
            .collect();
        workers[0].fill().expect("the proxy answers");
        let stop = AtomicBool::new(false);
        let rounds = number_from_env("TIERCACHE_TEST_RELOADS", 4);
        thread::scope(|scope| {
            for worker in &mut workers {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let ran = worker.run(STEPS, Duration::ZERO);
                        ran.expect("the proxy answers and drops nobody");
                    }
                });
            }
            let mut reloads = 0;
            for _ in 0..rounds {
                for (servers, from) in [(&names[..], &[][..]), (both, third), (both, &[])] {
                    proxy.reload_from(servers, from, "10s");
                    reloads += 1;
                    let stored = || pool.servers[2].stats().number("cmd_set");
                    let mut before = None;
                    let done = eventually(NOTICED, || {
                        if proxy.server.log().matches(RELOADED).count() < reloads {
                            return false;
                        }
                        servers.len() < 3 || stored() > *before.get_or_insert_with(stored)
                    });
                    if !done {
                        stop.store(true, Ordering::Relaxed);
                    }
                    assert!(done, "{tier}: a reload has no effect");
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        let brought = proxy.server.stats().number("migration_backfills");
        let mut seen = Seen::default();
        workers.into_iter().for_each(|worker| seen.add(worker.seen));
        println!(
            "{tier}: {} operations, {} hits, {} errors, {brought} items brought in {} reloads",
            seen.operations,
            seen.hits,
            seen.errors,
            3 * rounds
        );
        assert!(brought > 0, "{tier}: nothing was brought");
        assert_eq!(seen.errors, 0, "{tier}");
        assert_eq!(seen.violations(0), [""; 0], "{tier}");
    }
}

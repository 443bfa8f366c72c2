//! A server under load for a long time: right answers throughout, and neither memory nor files creep up.
//!
//! Short in CI; by hand `TIERCACHE_TEST_SOAK_SECONDS=1200` says something about creeping.

use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use tiercache_integration::client::Client;
use tiercache_integration::load::{Found, Items};
use tiercache_integration::random::Random;
use tiercache_integration::server::Server;
use tiercache_integration::{number_from_env, process, seed};

const MIB: u64 = 1024 * 1024;
const CLIENTS: u64 = 2;
/// Items of each client; all of them are twice what RAM holds.
const ITEMS: u64 = 100_000;
const VALUE_BYTES: usize = 600;
/// Items of one step.
const STEP_ITEMS: u64 = 256;
/// Steps until a client connects anew.
const STEPS_PER_CONNECTION: u64 = 50;
/// Time between two looks at the process.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// From so many seconds on the growth is judged: in less the tiers are not full for long.
const JUDGED_SECONDS: u64 = 300;
/// What the last quarter may take more than the one before it.
const GROWTH_BYTES_MAX: u64 = 2 * MIB;

#[derive(Debug, Clone, Copy)]
struct Look {
    resident: u64,
    files: u64,
}

#[test]
fn nothing_creeps_up_under_load() {
    let seconds = number_from_env("TIERCACHE_TEST_SOAK_SECONDS", 5);
    let seed = seed();
    let dry = tempfile::tempdir().expect("a temporary folder can be made");
    let path = dry.path().to_str().expect("it has a plain name");
    let server = Server::tiercache(&["-m", "64", "--dry", path, "--dry-size", "256m"]);
    let until = Instant::now() + Duration::from_secs(seconds);
    let (found, looks) = thread::scope(|scope| {
        let server = &server;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| scope.spawn(move || load(server, client, seed, until)))
            .collect();
        let mut looks = Vec::new();
        while Instant::now() < until {
            looks.push(look(server.pid()));
            thread::sleep(LOOK_INTERVAL);
        }
        let mut found = Found::default();
        for client in clients {
            found.add(client.join().expect("every request is answered"));
        }
        (found, looks)
    });
    println!(
        "{} hits, {} misses in {seconds} s",
        found.hits, found.misses
    );
    assert_eq!(found.wrong, Vec::<String>::new());
    assert!(found.hits > 0, "nothing was ever hit");
    assert_eq!(server.stats().number("connection_panics"), 0);

    let quarter = looks.len() / 4;
    let middle = |looks: &[Look], figure: fn(&Look) -> u64| {
        let mut figures: Vec<u64> = looks.iter().map(figure).collect();
        figures.sort_unstable();
        figures.get(figures.len() / 2).copied().unwrap_or_default()
    };
    let (before, last) = looks[2 * quarter..].split_at(quarter);
    let [before, last] = [before, last].map(|looks| {
        [
            middle(looks, |look| look.resident),
            middle(looks, |look| look.files),
        ]
    });
    println!(
        "resident {:.1} then {:.1} MiB, files {} then {}",
        before[0] as f64 / MIB as f64,
        last[0] as f64 / MIB as f64,
        before[1],
        last[1]
    );
    if seconds >= JUDGED_SECONDS {
        assert!(
            last[0] <= before[0] + GROWTH_BYTES_MAX,
            "resident memory creeps up"
        );
        assert!(last[1] <= before[1] + 4, "open files creep up");
    }
}

/// A client with items of its own.
struct Load {
    items: Items,
    client: Client,
    random: Random,
    first: u64,
    /// The newest version of each item; none before it is stored and once it is deleted.
    newest: Vec<Option<u64>>,
    found: Found,
}

/// Stores, deletes and reads items until the time is over; every answer is checked.
fn load(server: &Server, client: u64, seed: u64, until: Instant) -> Found {
    let mut load = Load {
        items: Items {
            value_bytes: VALUE_BYTES,
        },
        client: server.connect(),
        random: Random::new(seed ^ client),
        first: client * ITEMS,
        newest: vec![None; ITEMS as usize],
        found: Found::default(),
    };
    let mut steps = 0u64;
    while Instant::now() < until {
        load.step().expect("the server answers");
        steps += 1;
        if steps.is_multiple_of(STEPS_PER_CONNECTION) {
            load.client = server.connect();
        }
    }
    load.found
}

impl Load {
    fn step(&mut self) -> io::Result<()> {
        let start = self.random.below(ITEMS - STEP_ITEMS);
        let own = start as usize..(start + STEP_ITEMS) as usize;
        let numbers = self.first + start..self.first + start + STEP_ITEMS;
        match self.random.below(10) {
            0..3 => {
                let version = self.random.below(2);
                self.items.store(&mut self.client, numbers, version)?;
                self.newest[own].fill(Some(version));
            }
            3 => {
                Items::delete(&mut self.client, numbers)?;
                self.newest[own].fill(None);
            }
            _ => {
                let newest = |number: u64| self.newest[(number - self.first) as usize];
                let found = self.items.read(&mut self.client, numbers, newest)?;
                self.found.add(found);
            }
        }
        Ok(())
    }
}

fn look(pid: u32) -> Look {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).expect("the server runs");
    Look {
        resident: process::resident_bytes(pid),
        files: files.count() as u64,
    }
}

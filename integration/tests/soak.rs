//! A server under load and faults for a long time: right answers throughout, and neither memory nor files creep up.
//!
//! Short in CI; `scripts/reliability soak` runs it for the twenty minutes that say something about creeping.

mod faults;

use std::fs;
use std::io;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use tiercache_integration::client::Client;
use tiercache_integration::load::{Found, Items};
use tiercache_integration::random::Random;
use tiercache_integration::server::Server;
use tiercache_integration::{number_from_env, process, seed};

const MIB: f64 = (1024 * 1024) as f64;
const CLIENTS: u64 = 2;
/// Items of each client; all of them are four times what RAM holds.
const ITEMS: u64 = 400_000;
const VALUE_BYTES: usize = 250;
/// Items of one step.
const STEP_ITEMS: u64 = 256;
/// Steps until a client connects anew.
const STEPS_PER_CONNECTION: u64 = 200;
/// Time between two looks at the process.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two looks at a server that nobody asks anything.
const REST_INTERVAL: Duration = Duration::from_secs(60);
/// A server at rest gives memory back, in rounds of ten seconds: it has come to rest after so many looks without less.
const SETTLED_LOOKS: u32 = 12;
/// Looks at a server at rest, at most.
const REST_LOOKS_MAX: u32 = 40;
/// From so many seconds on the growth is judged: in less the tiers are not full for long.
const JUDGED_SECONDS: u64 = 600;
/// What resident memory may grow by in ten minutes once it is warm.
const GROWTH_BYTES_MAX: f64 = MIB;

/// What all clients share.
#[derive(Debug, Default)]
struct Shared {
    /// Flushes so far. Clients hold it while they take a step and faults while one is injected. Whoever flushes holds it
    /// alone, so everybody knows what a flush has taken; and whoever wants to see the server at rest.
    flushes: RwLock<u64>,
    /// Items stored, deleted or asked for.
    operations: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    seconds: f64,
    resident: f64,
    files: u64,
}

#[test]
fn nothing_creeps_up_under_load() {
    let seconds = number_from_env("TIERCACHE_TEST_SOAK_SECONDS", 5);
    let seed = seed();
    let dry = tempfile::tempdir().expect("a temporary folder can be made");
    let path = dry.path().to_str().expect("it has a plain name");
    let server = Server::tiercache(&["-m", "64", "--dry", path, "--dry-size", "256m"]);
    let began = Instant::now();
    let until = began + Duration::from_secs(seconds);
    let shared = Shared::default();
    let (found, faults, looks, rests) = thread::scope(|scope| {
        let (server, shared) = (&server, &shared);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| scope.spawn(move || load(server, shared, client, seed, until)))
            .collect();
        let faults = scope.spawn(move || faults::inject(server, &shared.flushes, seed, until));
        let (mut looks, mut rests) = (Vec::new(), Vec::new());
        while Instant::now() < until {
            looks.push(look(server.pid(), began));
            thread::sleep(LOOK_INTERVAL);
            if began.elapsed() >= REST_INTERVAL * (rests.len() as u32 + 1) {
                rests.push(look_at_rest(server, shared, began));
            }
        }
        let mut found = Found::default();
        for client in clients {
            found.add(client.join().expect("every request is answered"));
        }
        let faults = faults.join().expect("every fault is survived");
        (found, faults, looks, rests)
    });
    let operations = shared.operations.into_inner();
    println!(
        "{operations} operations in {seconds} s: {} hits, {} misses; faults: {faults:?}",
        found.hits, found.misses
    );
    assert_eq!(found.wrong, Vec::<String>::new());
    assert!(found.hits > 0, "nothing was ever hit");
    assert_eq!(server.stats().number("connection_panics"), 0);

    // The first half warms up: tiers, caches and the allocator come to their size. Under load, a flush, less memory for a
    // moment and half-sent values move resident memory by tens of MiB; what creeps is there at rest too.
    let warm = &looks[looks.len() / 2..];
    let growth = slope(&rests[rests.len() / 2..]) * 600.0;
    for rest in &rests {
        let resident = rest.resident / MIB;
        println!("at rest after {:4.0} s: {resident:.1} MiB", rest.seconds);
    }
    for minute in looks_of_minutes(&looks) {
        println!("{}", minute_line(minute));
    }
    let files = |looks: &[Look]| {
        let mut files: Vec<u64> = looks.iter().map(|look| look.files).collect();
        files.sort_unstable();
        files.get(files.len() / 2).copied().unwrap_or_default()
    };
    let (before, after) = warm.split_at(warm.len() / 2);
    println!(
        "resident {:.1} MiB at the end, {:+.2} MiB in ten minutes, files {} then {}",
        warm.last().map_or(0.0, |look| look.resident) / MIB,
        growth / MIB,
        files(before),
        files(after)
    );
    if seconds >= JUDGED_SECONDS {
        assert!(growth <= GROWTH_BYTES_MAX, "resident memory creeps up");
        assert!(files(after) <= files(before) + 4, "open files creep up");
    }
}

/// The looks, a minute each.
fn looks_of_minutes(looks: &[Look]) -> impl Iterator<Item = &[Look]> {
    looks.chunk_by(|one, next| (one.seconds / 60.0) as u64 == (next.seconds / 60.0) as u64)
}

/// How resident memory was within a minute.
fn minute_line(minute: &[Look]) -> String {
    let mut resident: Vec<f64> = minute.iter().map(|look| look.resident / MIB).collect();
    resident.sort_unstable_by(f64::total_cmp);
    let at = |share: usize| resident[(resident.len() - 1) * share / 100];
    format!(
        "from {:4.0} s on: resident {:.1} MiB at least, {:.1} half of the time, {:.1} at most",
        minute[0].seconds,
        at(0),
        at(50),
        at(100)
    )
}

/// The growth of resident memory in bytes per second: the straight line nearest to all looks.
fn slope(looks: &[Look]) -> f64 {
    let count = looks.len().max(1) as f64;
    let mean = |value: fn(&Look) -> f64| looks.iter().map(value).sum::<f64>() / count;
    let (seconds, resident) = (mean(|look| look.seconds), mean(|look| look.resident));
    let (mut both, mut square) = (0.0, 0.0);
    for look in looks {
        both += (look.seconds - seconds) * (look.resident - resident);
        square += (look.seconds - seconds).powi(2);
    }
    if square > 0.0 { both / square } else { 0.0 }
}

/// A client with items of its own.
struct Load<'a> {
    shared: &'a Shared,
    items: Items,
    client: Client,
    random: Random,
    first: u64,
    /// The newest version of each item; none before it is stored and once it is deleted or flushed.
    newest: Vec<Option<u64>>,
    flushes: u64,
    found: Found,
}

/// Stores, deletes and reads items until the time is over; every answer is checked.
fn load(server: &Server, shared: &Shared, client: u64, seed: u64, until: Instant) -> Found {
    let mut load = Load {
        shared,
        items: Items {
            value_bytes: VALUE_BYTES,
        },
        client: server.connect(),
        random: Random::new(seed ^ client),
        first: client * ITEMS,
        newest: vec![None; ITEMS as usize],
        flushes: 0,
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

impl Load<'_> {
    fn step(&mut self) -> io::Result<()> {
        let flushes = self.shared.flushes.read().expect("nobody panicked");
        if *flushes > self.flushes {
            self.flushes = *flushes;
            self.newest.fill(None);
        }
        let start = self.random.below(ITEMS - STEP_ITEMS);
        let own = start as usize..(start + STEP_ITEMS) as usize;
        let numbers = self.first + start..self.first + start + STEP_ITEMS;
        match self.random.below(20) {
            0..5 => {
                let version = self.random.below(2);
                self.items.store(&mut self.client, numbers, version)?;
                self.newest[own].fill(Some(version));
            }
            5 => {
                Items::delete(&mut self.client, numbers)?;
                self.newest[own].fill(None);
            }
            _ => {
                let newest = |number: u64| self.newest[(number - self.first) as usize];
                let found = self.items.read(&mut self.client, numbers, newest)?;
                self.found.add(found);
            }
        }
        self.shared.operations.fetch_add(STEP_ITEMS, Relaxed);
        Ok(())
    }
}

fn look(pid: u32, began: Instant) -> Look {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).expect("the server runs");
    Look {
        seconds: began.elapsed().as_secs_f64(),
        resident: process::resident_bytes(pid) as f64,
        files: files.count() as u64,
    }
}

/// Stops clients and faults until the server holds nothing for them any more.
fn look_at_rest(server: &Server, shared: &Shared, began: Instant) -> Look {
    let _alone = shared.flushes.write().expect("nobody panicked");
    let mut least = look(server.pid(), began);
    let mut settled = 0;
    for _ in 0..REST_LOOKS_MAX {
        thread::sleep(LOOK_INTERVAL);
        let next = look(server.pid(), began);
        settled = if next.resident < least.resident {
            least = next;
            0
        } else {
            settled + 1
        };
        if settled == SETTLED_LOOKS {
            break;
        }
    }
    least
}

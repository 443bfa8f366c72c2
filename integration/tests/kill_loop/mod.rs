//! Kills the server under load again and again, and proves from what the clients saw that no value ever went back.
//!
//! Every cycle must be worth something: a fifth of the hits come from dry, and hundreds of dried keys are overwritten
//! or deleted before the kill, so that an old copy is on disk for each of them.

mod worker;

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use tiercache_integration::history::{Event, Histories, Record};
use tiercache_integration::random::Random;
use tiercache_integration::server::Server;
use tiercache_integration::{number_from_env, seed};

use worker::{KEYS, Outcome, Shared, Worker};

const CLIENTS: usize = 4;
/// Overwrites and deletes of dried keys per cycle, over all clients.
const DRIED_REPLACED_MIN: u64 = 500;
/// Keys stored at the start of each cycle: more than RAM holds.
const REFILL: u64 = 10_000;
/// Share of hits that dry must answer in each cycle.
const DRY_PERCENT_MIN: u64 = 20;
/// Mixed load before the kill, in milliseconds.
const LOAD_MS: (u64, u64) = (50, 500);

// A value that was overwritten or deleted never comes back, however the process ends.
#[test]
fn nothing_goes_back_to_an_older_value_after_kill_9() {
    let cycles = number_from_env("TIERCACHE_TEST_CYCLES", 30);
    let mut random = Random::new(seed());
    let folder = TempDir::new().expect("a temporary folder can be made");
    let dry = folder.path().join("dry");
    let mut server = Server::tiercache(&[
        "-m",
        "8",
        "--dry",
        &dry.display().to_string(),
        "--dry-wait",
        "1s",
    ]);
    let shared = Shared::new();
    let mut histories = Histories::new(KEYS);

    fill(&server, &shared, &mut random, &mut histories);
    server.kill9();
    for cycle in 1..=cycles {
        server.start();
        shared.server_restarted();
        let report = cycle_of_load(&mut server, &shared, &mut random, &mut histories);
        println!(
            "cycle {cycle}: {} hits, {} % of them by dry, {} misses, {} dried keys replaced, {} operations checked",
            report.hits,
            report.dry_percent,
            report.misses,
            report.dried_replaced,
            histories.operations()
        );
        assert_eq!(report.corrupt, [""; 0], "corrupt values in cycle {cycle}");
        assert_eq!(histories.check(), [""; 0], "stale values in cycle {cycle}");
        assert!(
            report.dried_replaced >= DRIED_REPLACED_MIN,
            "dry is not warm after the kill"
        );
        assert!(
            report.dry_percent >= DRY_PERCENT_MIN,
            "dry answers too few reads"
        );
        // Half way a flush: from then on everything written before it is gone for good.
        if cycle == cycles / 2 {
            server.start();
            shared.server_restarted();
            flush(&server, &shared, &mut histories);
            server.kill9();
            server.start();
            fill(&server, &shared, &mut random, &mut histories);
            assert_eq!(
                histories.check(),
                [""; 0],
                "values came back after flush_all"
            );
            server.kill9();
        }
    }
    // What is left is read once more by a server that nobody disturbs.
    server.start();
    let mut reader = worker(&server, &shared, &mut random);
    reader
        .replace_dried(DRIED_REPLACED_MIN)
        .expect("the server answers");
    histories.add(reader.outcome.records);
    assert_eq!(histories.check(), [""; 0], "stale values at the end");
    assert_eq!(reader.outcome.corrupt, [""; 0], "corrupt values at the end");
}

struct Report {
    hits: u64,
    misses: u64,
    dry_percent: u64,
    dried_replaced: u64,
    corrupt: Vec<String>,
}

/// Runs all clients on a server that just started, and kills it under their hands.
fn cycle_of_load(
    server: &mut Server,
    shared: &Shared,
    random: &mut Random,
    histories: &mut Histories,
) -> Report {
    let workers: Vec<Worker> = (0..CLIENTS)
        .map(|_| worker(server, shared, random))
        .collect();
    let load = Duration::from_millis(random.between(LOAD_MS.0, LOAD_MS.1));
    let replaced = Barrier::new(CLIENTS + 1);
    let (outcomes, stats) = thread::scope(|scope| {
        let clients: Vec<_> = workers
            .into_iter()
            .map(|mut worker| {
                let replaced = &replaced;
                scope.spawn(move || {
                    let done = worker.refill(REFILL / CLIENTS as u64).and_then(|()| {
                        worker.replace_dried(DRIED_REPLACED_MIN / CLIENTS as u64 + 1)
                    });
                    replaced.wait();
                    done.expect("the server answers until it is killed");
                    // Ends with the error that the kill makes of the command under way.
                    let _ = worker.run();
                    worker.outcome
                })
            })
            .collect();
        replaced.wait();
        thread::sleep(load);
        let stats = server.stats();
        server.kill9();
        let outcomes: Vec<Outcome> = clients
            .into_iter()
            .map(|client| client.join().expect("a client does not panic"))
            .collect();
        (outcomes, stats)
    });
    let mut report = Report {
        hits: 0,
        misses: 0,
        dry_percent: stats.number("dry_hits") * 100 / stats.number("get_hits").max(1),
        dried_replaced: 0,
        corrupt: Vec::new(),
    };
    for outcome in outcomes {
        report.hits += outcome.hits;
        report.misses += outcome.misses;
        report.dried_replaced += outcome.dried_replaced;
        report.corrupt.extend(outcome.corrupt);
        histories.add(outcome.records);
    }
    report
}

fn worker<'a>(server: &Server, shared: &'a Shared, random: &mut Random) -> Worker<'a> {
    Worker {
        shared,
        random: Random::new(random.bits()),
        client: server.connect(),
        outcome: Outcome::default(),
    }
}

/// Stores every key once.
fn fill(server: &Server, shared: &Shared, random: &mut Random, histories: &mut Histories) {
    let mut filler = worker(server, shared, random);
    filler.fill(0..KEYS).expect("the server takes every key");
    histories.add(filler.outcome.records);
}

/// A flush is a delete of every key at once.
fn flush(server: &Server, shared: &Shared, histories: &mut Histories) {
    let start = shared.now();
    let reply = server
        .connect()
        .ask(b"flush_all\r\n")
        .expect("the server answers");
    assert_eq!(reply, b"OK");
    let finish = shared.now();
    histories.add((0..KEYS).map(|key| Record {
        key,
        event: Event::Delete,
        start,
        finish: Some(finish),
    }));
}

//! A server that is cut off, comes back, dies, or breaks off in the middle of values: goals R9 and R10.

use std::time::{Duration, Instant};

use tiercache_integration::faulty::{Fault, Link};
use tiercache_integration::pool::Pool;
use tiercache_integration::random::Random;
use tiercache_integration::{eventually, number_from_env, seed};

use super::NOTICED;
use super::fleet::Proxy;
use super::load::{Commands, Seen, Shared, Worker, quantiles, server_of};

/// Clients of one proxy.
const CLIENTS: usize = 4;
/// A server that is slow to answer is given up after this.
const TIMEOUTS: &str = "request_timeout = \"100ms\"\nconnect_timeout = \"100ms\"\n";
/// Commands of a client between two faults, and while bytes trickle.
const STEPS_PER_FAULT: u64 = 300;
const STEPS_PER_SLOW_FAULT: u64 = 20;

fn workers(proxy: &Proxy, shared: &Shared, random: &mut Random, commands: Commands) -> Vec<Worker> {
    (0..CLIENTS)
        .map(|_| Worker::new(shared, proxy.server.connect(), random.bits(), commands))
        .collect()
}

/// All clients at once, each for so many commands and so long; the times of their operations.
fn phase(workers: &mut [Worker], count: u64, seconds: u64) -> Vec<(usize, Duration)> {
    std::thread::scope(|scope| {
        for worker in workers.iter_mut() {
            scope.spawn(move || {
                let ran = worker.run(count, Duration::from_secs(seconds));
                ran.expect("the proxy answers");
            });
        }
    });
    workers
        .iter_mut()
        .flat_map(|worker| std::mem::take(&mut worker.seen.times))
        .collect()
}

// R9: one of three servers is cut off for a while. Its keys are misses and errors, those of the others are as before,
// and what was deleted meanwhile does not come back with it.
#[test]
fn a_server_that_is_cut_off_costs_its_own_keys_alone_and_brings_nothing_back() {
    let mut random = Random::new(seed());
    let seconds = number_from_env("TIERCACHE_TEST_OUTAGE_SECONDS", 0);
    let pool = Pool::of_memcached(&[1, 1, 1]);
    let private = ["-m", "256", "--cold-sharing", "private"];
    // On a machine that is busy with other tests, a server that is late is not cut off.
    let ms = number_from_env("TIERCACHE_TEST_TIMEOUT_MS", 1000);
    let timeouts = format!("request_timeout = \"{ms}ms\"\nconnect_timeout = \"{ms}ms\"\n");
    let proxy = Proxy::start(&pool.servers, "cold", &timeouts, &private, random.bits());
    let shared = Shared::new();
    let mut workers = workers(&proxy, &shared, &mut random, Commands::All);
    let errors = |workers: &[Worker]| workers.iter().map(|w| w.seen.errors).sum::<u64>();

    let before = phase(&mut workers, 1000, seconds / 4);
    assert_eq!(errors(&workers), 0, "nothing is wrong yet");
    println!("before, all servers: {}", quantiles(&before, |_| true));

    proxy.links[0].set(Fault::BlackHole);
    let cut_off = phase(&mut workers, 1000, seconds);
    println!(
        "cut off, its own keys: {}",
        quantiles(&cut_off, |server| server == 0)
    );
    println!(
        "cut off, the others': {}",
        quantiles(&cut_off, |server| server != 0)
    );
    assert!(errors(&workers) > 0, "writes to it fail");
    let failed_elsewhere = workers.iter().flat_map(|worker| &worker.seen.records);
    let failed_elsewhere = failed_elsewhere
        .filter(|record| record.finish.is_none() && server_of(record.key) != 0)
        .count();
    assert_eq!(failed_elsewhere, 0, "the others' keys are as before");
    assert!(proxy.figure(0, "ejections") >= 1, "it is left alone");
    assert!(
        proxy.figure(0, "undelivered") > 0,
        "deletes are kept for it"
    );

    proxy.links[0].set(Fault::None);
    let back = eventually(NOTICED, || {
        workers
            .iter_mut()
            .for_each(|worker| worker.step().expect("the proxy answers"));
        proxy.is_up(0)
    });
    assert!(back, "the deletes are never delivered");
    assert_eq!(proxy.figure(0, "undelivered"), 0);
    let errors_before = errors(&workers);
    let hits_before: u64 = workers.iter().map(|worker| worker.seen.hits).sum();
    let after = phase(&mut workers, 1000, seconds / 4);
    println!("after, all servers: {}", quantiles(&after, |_| true));
    assert_eq!(errors(&workers), errors_before, "it is back for good");
    assert!(workers.iter().map(|worker| worker.seen.hits).sum::<u64>() > hits_before);
    judge(workers);
}

fn judge(workers: Vec<Worker>) {
    let mut seen = Seen::default();
    workers.into_iter().for_each(|worker| seen.add(worker.seen));
    println!(
        "{} operations, {} hits, {} misses, {} errors",
        seen.operations, seen.hits, seen.misses, seen.errors
    );
    assert!(seen.hits > seen.operations / 10, "hardly anything was read");
    assert_eq!(seen.violations(0), [""; 0]);
}

// R10: connections to all servers break off in the middle of values and requests, bytes trickle or stand still, servers
// are killed and come back empty. No client gets another key's value or an older one.
#[test]
fn connections_that_break_off_anywhere_give_nobody_anothers_value() {
    let operations = number_from_env("TIERCACHE_TEST_POOL_OPERATIONS", 20_000);
    for (tier, arguments) in [
        ("cold", &["-m", "256", "--cold-sharing", "private"][..]),
        ("hot", &[]),
    ] {
        let mut random = Random::new(seed());
        let mut pool = Pool::of_memcached(&[1, 1, 1]);
        let proxy = Proxy::start(&pool.servers, tier, TIMEOUTS, arguments, random.bits());
        let shared = Shared::new();
        let mut workers = workers(&proxy, &shared, &mut random, Commands::Plain);
        let begun = Instant::now();
        let mut faults = 0;
        while workers
            .iter()
            .map(|worker| worker.seen.operations)
            .sum::<u64>()
            < operations
        {
            let kind = random.below(8);
            let (fault, steps) = match kind {
                0..5 => (Fault::Reset, STEPS_PER_FAULT),
                5 => (Fault::Trickle, STEPS_PER_SLOW_FAULT),
                6 => (Fault::BlackHole, STEPS_PER_SLOW_FAULT),
                _ => (Fault::None, STEPS_PER_FAULT),
            };
            let link: &Link = &proxy.links[random.below(3) as usize];
            link.set(fault);
            let killed = (random.below(10) == 0).then(|| random.below(3) as usize);
            if let Some(killed) = killed {
                pool.servers[killed].kill9();
            }
            let _ = phase(&mut workers, steps, 0);
            if let Some(killed) = killed {
                pool.servers[killed].start();
            }
            link.set(Fault::None);
            let _ = phase(&mut workers, STEPS_PER_SLOW_FAULT, 0);
            faults += 1;
        }
        let resets: u64 = proxy.links.iter().map(Link::resets).sum();
        assert!(resets > 0, "nothing was broken off");
        println!(
            "{tier}: {faults} faults, {resets} resets, {:?}",
            begun.elapsed()
        );
        judge(workers);
    }
}

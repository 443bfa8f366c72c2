//! Keys that move while servers of the old pool cannot be reached, or another proxy is about to bring them.

use std::thread;
use std::time::Duration;

use tiercache_integration::client::Client;
use tiercache_integration::faulty::{Fault, Link};
use tiercache_integration::pool::Pool;
use tiercache_integration::random::Random;
use tiercache_integration::server::Server;
use tiercache_integration::{eventually, number_from_env, seed};

use super::NOTICED;
use super::load::{Commands, Seen, Shared, Worker};
use super::migration::{Moving, ask};

const IMPATIENT: &str = "request_timeout = \"300ms\"\nconnect_timeout = \"300ms\"\n";
/// Clients of each proxy, and their commands while the old server has one fault.
const CLIENTS: usize = 3;
const STEPS: u64 = 40;

/// Clients that append to one key, and how often each does.
const APPENDERS: usize = 8;
const APPENDS: usize = 20;

fn link_to(server: &Server) -> Link {
    Link::to(server.address(), seed())
}

fn is_error(answer: &str) -> bool {
    answer.starts_with("SERVER_ERROR ")
}

// The story of a deleted item that another proxy brings back: the old server does not hear of the delete, the proxy keeps it
// for later, and the client is told that it is done.
#[test]
fn what_the_old_server_does_not_hear_of_is_an_error() {
    let (old, new) = (Pool::of_memcached(&[1]), Pool::of_memcached(&[1]));
    let link = link_to(&old.servers[0]);
    let moving = Moving::new("hot", &new).with_timeouts(IMPATIENT);
    moving.write(Some(&[link.address().to_string()]));
    let server = moving.start(&[]);
    let mut client = server.connect();
    let (mut at_old, mut at_new) = (old.servers[0].connect(), new.servers[0].connect());
    assert_eq!(ask(&mut at_old, "set k 0 0 1\r\n1\r\n"), "STORED");
    assert_eq!(ask(&mut at_new, "set both 0 0 1\r\n1\r\n"), "STORED");
    link.set(Fault::BlackHole);
    for write in [
        "set k 0 0 3\r\nnew\r\n",
        "add k 0 0 3\r\nnew\r\n",
        "append k 0 0 1\r\nx\r\n",
        "cas k 0 0 1 7\r\nx\r\n",
        "incr k 1\r\n",
        "touch k 100\r\n",
        "delete k\r\n",
        "delete both\r\n",
        "md k\r\n",
        "md k I T30\r\n",
        "flush_all\r\n",
    ] {
        let answer = ask(&mut client, write);
        assert!(is_error(&answer), "{write}: {answer}");
    }
    for read in ["gat 100 k\r\n", "gats 100 k both\r\n"] {
        assert_eq!(ask(&mut client, read), "END", "{read}");
    }
    assert_eq!(ask(&mut client, "mg k T30 v\r\n"), "EN");
    // Nothing was stored, and what can be deleted is.
    for key in [b"k".as_slice(), b"both"] {
        assert_eq!(at_new.get(key).expect("it answers"), None);
    }
    link.set(Fault::None);
    let back = eventually(NOTICED, || {
        ask(&mut client, "set k 0 0 3\r\nnew\r\n") == "STORED"
    });
    assert!(back, "it fails for ever");
    assert_eq!(at_old.get(b"k").expect("it answers"), None);
    assert_eq!(
        client.get(b"k").expect("it answers").as_deref(),
        Some(&b"new"[..])
    );
}

#[test]
fn what_the_old_server_does_not_hear_of_is_kept_where_nobody_else_reads_it() {
    let (mut old, new) = (Pool::of_memcached(&[1]), Pool::of_memcached(&[1]));
    let moving = Moving::new("cold", &new).with_timeouts(IMPATIENT);
    let link = link_to(&old.servers[0]);
    moving.write(Some(&[link.address().to_string()]));
    let arguments = ["-m", "64", "--cold-sharing", "private"];
    let mut at_old = old.servers[0].connect();
    for key in ["a", "b"] {
        assert_eq!(
            ask(&mut at_old, &format!("set {key} 0 0 3\r\nold\r\n")),
            "STORED"
        );
    }
    let mut server = moving.start(&arguments);
    let mut client = server.connect();
    link.set(Fault::BlackHole);
    assert_eq!(ask(&mut client, "set a 0 0 3\r\nnew\r\n"), "STORED");
    assert_eq!(ask(&mut client, "delete b\r\n"), "NOT_FOUND");
    // Not even after a death: what the old server has is not read before it has heard of it.
    server.kill9();
    server.start();
    ask(&mut new.servers[0].connect(), "delete a\r\n");
    link.set(Fault::None);
    let mut client = server.connect();
    let delivered = eventually(NOTICED, || {
        for key in [b"a".as_slice(), b"b"] {
            assert_eq!(client.get(key).expect("it answers"), None);
        }
        let mut left = |key: &[u8]| at_old.get(key).expect("it answers").is_some();
        !left(b"a") && !left(b"b")
    });
    assert!(delivered, "the old server never hears of it");
    old.servers[0].kill9();
}

/// Takes a lease as another proxy does, and tells its CAS unique.
fn lease(at_new: &mut Client) -> String {
    let line = ask(at_new, "mg k s t c N5\r\n");
    let words: Vec<&str> = line.split(' ').collect();
    assert!(words.contains(&"W"), "no lease: {line}");
    words[3].trim_start_matches('c').to_owned()
}

/// What a command is answered while another proxy has a lease on `k`.
fn while_leased(client: &mut Client, at_new: &mut Client, request: &str) -> String {
    loop {
        ask(at_new, "delete k\r\n");
        lease(at_new);
        let answer = ask(client, request);
        // On a busy machine it may have expired.
        if ask(at_new, "mg k s\r\n").starts_with("HD s0") {
            return answer;
        }
    }
}

#[test]
fn a_lease_is_taken_for_an_item_by_nobody() {
    let (old, new) = (Pool::of_memcached(&[1]), Pool::of_memcached(&[1]));
    let moving = Moving::new("hot", &new).with_timeouts(IMPATIENT);
    moving.write(Some(&old.names()));
    let server = moving.start(&[]);
    let (mut client, mut at_new) = (server.connect(), new.servers[0].connect());
    for (read, miss) in [
        ("get k\r\n", "END"),
        ("gets k\r\n", "END"),
        ("gat 100 k\r\n", "END"),
        ("mg k v c\r\n", "EN"),
        ("mg k\r\n", "EN"),
        ("mg k t f\r\n", "EN"),
    ] {
        let answer = while_leased(&mut client, &mut at_new, read);
        assert_eq!(answer, miss, "{read}");
    }
    for write in [
        "append k 0 0 1\r\nx\r\n",
        "replace k 0 0 1\r\nx\r\n",
        "incr k 1\r\n",
        "ma k N30 J5\r\n",
        "touch k 100\r\n",
        "add k 0 0 1\r\nx\r\n",
        "md k I T30\r\n",
    ] {
        let answer = while_leased(&mut client, &mut at_new, write);
        assert!(is_error(&answer), "{write}: {answer}");
    }
    // Without an item, the old pool's included, each is answered as by one server.
    ask(&mut at_new, "delete k\r\n");
    for (write, answer) in [
        ("append k 0 0 1\r\nx\r\n", "NOT_STORED"),
        ("replace k 0 0 1\r\nx\r\n", "NOT_STORED"),
        ("ms k 1 MA\r\nx\r\n", "NS"),
        ("cas k 0 0 1 7\r\nx\r\n", "NOT_FOUND"),
        ("incr k 1\r\n", "NOT_FOUND"),
        ("touch k 100\r\n", "NOT_FOUND"),
        ("md k I T30\r\n", "NF"),
        ("ma k N30 J5\r\n", "HD"),
        ("incr k 1\r\n", "6"),
        ("delete k\r\n", "DELETED"),
        ("add k 0 0 1\r\nx\r\n", "STORED"),
        ("add k 0 0 1\r\nx\r\n", "NOT_STORED"),
        ("append k 0 0 1\r\ny\r\n", "STORED"),
        ("prepend k 0 0 1\r\nw\r\n", "STORED"),
    ] {
        assert_eq!(ask(&mut client, write), answer, "{write}");
    }
    assert_eq!(
        client.get(b"k").expect("it answers").as_deref(),
        Some(&b"wxy"[..])
    );
    assert_eq!(ask(&mut client, "md k I T30\r\n"), "HD");
    // A client's own right to fill a key looks like a proxy's lease, and is the client's.
    let won = ask(&mut client, "mg own c N5\r\n");
    let unique = won
        .strip_prefix("HD c")
        .and_then(|rest| rest.strip_suffix(" W"));
    let unique = unique.unwrap_or_else(|| panic!("nothing is won: {won}"));
    assert_eq!(ask(&mut client, "mg own N5\r\n"), "HD Z");
    let filled = ask(&mut client, &format!("ms own 1 C{unique}\r\nx\r\n"));
    assert_eq!(filled, "HD");
    assert_eq!(ask(&mut client, "ms vivified 1 MA N30\r\nx\r\n"), "HD");
}

// Each append is made for the item as it was found: those that others were faster than are made again.
#[test]
fn clients_that_append_to_one_key_lose_nothing() {
    let (old, new) = (Pool::of_memcached(&[1]), Pool::of_memcached(&[1]));
    let moving = Moving::new("hot", &new);
    moving.write(Some(&old.names()));
    let server = moving.start(&["-t", "2"]);
    ask(&mut old.servers[0].connect(), "set k 0 0 0\r\n\r\n");
    thread::scope(|scope| {
        for _ in 0..APPENDERS {
            scope.spawn(|| {
                let mut client = server.connect();
                for _ in 0..APPENDS {
                    assert_eq!(ask(&mut client, "append k 0 0 1\r\nx\r\n"), "STORED");
                }
            });
        }
    });
    let value = server.connect().get(b"k").expect("it answers");
    assert_eq!(value, Some(vec![b'x'; APPENDERS * APPENDS]));
}

#[test]
fn what_depends_on_an_item_waits_until_another_proxy_has_brought_it() {
    let (old, new) = (Pool::of_memcached(&[1]), Pool::of_memcached(&[1]));
    let moving = Moving::new("hot", &new);
    moving.write(Some(&old.names()));
    let server = moving.start(&[]);
    let mut at_new = new.servers[0].connect();
    let looks = || new.servers[0].stats().number("get_hits");
    // Expires on a machine that is busy for seconds; then there is nothing to append to.
    let appended = (0..10).any(|_| {
        ask(&mut at_new, "delete k\r\n");
        let (unique, before) = (lease(&mut at_new), looks());
        thread::scope(|scope| {
            let appending = scope.spawn(|| ask(&mut server.connect(), "append k 0 0 1\r\nx\r\n"));
            // It has looked more than once, so it waits.
            let waits = eventually(NOTICED, || looks() > before + 1 || appending.is_finished());
            assert!(waits, "nobody looks at the key");
            let stored = ask(&mut at_new, &format!("ms k 3 C{unique}\r\nold\r\n"));
            let answer = appending.join().expect("it does not panic");
            stored == "HD" && answer == "STORED"
        })
    });
    assert!(appended, "ten leases expired");
    assert_eq!(
        server.connect().get(b"k").expect("it answers").as_deref(),
        Some(&b"oldx"[..])
    );
}

// As without faults, but the old server is cut off from one of the proxies again and again.
#[test]
fn whatever_the_old_server_misses_nobody_reads_what_was_changed() {
    let mut random = Random::new(seed());
    let (old, new) = (Pool::of_memcached(&[1]), Pool::of_memcached(&[1, 1]));
    let links: Vec<Link> = (0..2).map(|_| link_to(&old.servers[0])).collect();
    let fill = old.patient_proxy(&[]);
    let shared = Shared::new();
    let mut filler = Worker::new(&shared, fill.connect(), random.bits(), Commands::All);
    let (mut seen, mut brought) = (Seen::default(), 0);
    for round in 0..number_from_env("TIERCACHE_TEST_MIGRATIONS", 15) {
        // The new pool loses everything, which it may, and the old one has new values. No proxy runs meanwhile: a flush
        // passes over items that are in use.
        for server in &new.servers {
            assert_eq!(ask(&mut server.connect(), "flush_all\r\n"), "OK");
        }
        filler.fill().expect("the old pool stores");
        let proxies: Vec<(Moving, Server)> = links
            .iter()
            .map(|link| {
                let moving = Moving::new("hot", &new).with_timeouts(IMPATIENT);
                moving.write(Some(&[link.address().to_string()]));
                let server = moving.start(&["-t", "2"]);
                (moving, server)
            })
            .collect();
        let mut workers: Vec<Worker> = proxies
            .iter()
            .flat_map(|(_, server)| (0..CLIENTS).map(move |_| server))
            .map(|server| Worker::new(&shared, server.connect(), random.bits(), Commands::All))
            .collect();
        let link = &links[round as usize % 2];
        for fault in [Fault::None, Fault::Reset, Fault::None, Fault::BlackHole] {
            link.set(fault);
            thread::scope(|scope| {
                for worker in &mut workers {
                    scope.spawn(|| {
                        let ran = worker.run(STEPS, Duration::ZERO);
                        ran.expect("the proxy answers");
                    });
                }
            });
        }
        link.set(Fault::None);
        workers.into_iter().for_each(|worker| seen.add(worker.seen));
        for (_, mut server) in proxies {
            brought += server.stats().number("migration_backfills");
            server.kill9();
        }
    }
    seen.add(filler.seen);
    println!(
        "{} operations, {} hits, {} errors, {brought} items brought",
        seen.operations, seen.hits, seen.errors
    );
    assert!(brought > 0 && seen.hits > 0, "nothing was brought");
    assert!(seen.errors > 0, "nothing failed");
    assert_eq!(seen.violations(0), [""; 0]);
}

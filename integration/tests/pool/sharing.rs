//! What the sharing modes promise, with two proxies in front of one pool.

use std::cell::Cell;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tiercache_integration::client::Client;
use tiercache_integration::eventually;
use tiercache_integration::pool::Pool;
use tiercache_integration::server::Server;

use super::NOTICED;

fn get(client: &mut Client) -> Option<Vec<u8>> {
    client.get(b"k").expect("it answers")
}

fn set(client: &mut Client, value: &str) {
    assert_eq!(
        client.set(b"k", value.as_bytes()).expect("it answers"),
        b"STORED"
    );
}

/// A pool of servers that compare CAS uniques, which Debian's memcached does not.
fn comparing_pool(weights: &[u32]) -> Pool {
    Pool::of(weights, |port| Server::tiercache(&["-p", port, "-m", "64"]))
}

#[test]
fn a_proxy_reads_its_own_writes() {
    for sharing in ["private", "through", "strict"] {
        let pool = match sharing {
            "strict" => comparing_pool(&[1, 1, 1]),
            _ => Pool::of_memcached(&[1, 1, 1]),
        };
        let server = pool.patient_near_cache(&["--cold-sharing", sharing, "-t", "4"]);
        // Connections of different workers.
        let mut clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
        for round in 0..100 {
            let value = format!("{sharing}{round}");
            set(&mut clients[round % 4], &value);
            for client in &mut clients {
                assert_eq!(get(client).as_deref(), Some(value.as_bytes()), "{sharing}");
            }
            let deleter = &mut clients[(round + 1) % 4];
            assert_eq!(
                deleter.ask(b"delete k\r\n").expect("it answers"),
                b"DELETED"
            );
            for client in &mut clients {
                assert_eq!(get(client), None, "{sharing}");
            }
        }
    }
}

#[test]
fn a_copy_counts_as_hot_wherever_in_ram_it_lies() {
    // More than what `-m 16` calls hot, and less than all of it.
    const ITEMS: u64 = 50_000;
    let pool = Pool::of_memcached(&[1]);
    let near = ["--cold-sharing", "private", "-m", "16", "-t", "1"];
    let server = pool.patient_near_cache(&near);
    let mut client = server.connect();
    let value = [b'v'; 100];
    for item in 0..ITEMS {
        let stored = client.set(format!("key{item}").as_bytes(), &value);
        assert_eq!(stored.expect("it answers"), b"STORED");
    }
    let (before, before_pool) = (server.stats(), pool.servers[0].stats());
    for item in 0..ITEMS {
        let found = client.get(format!("key{item}").as_bytes());
        assert_eq!(found.expect("it answers").as_deref(), Some(&value[..]));
    }
    let (after, after_pool) = (server.stats(), pool.servers[0].stats());
    let by_copies = after.growth(&before, "hot_hits");
    let by_pool = after_pool.growth(&before_pool, "get_hits");
    assert_eq!(by_copies + by_pool, ITEMS);
    assert_eq!(after.growth(&before, "cold_hits"), by_pool);
    assert!(by_copies > ITEMS / 2, "{by_copies} by copies");
}

#[test]
fn through_serves_from_copies_and_sees_others_writes_in_time() {
    let pool = Pool::of_memcached(&[1]);
    let near = ["--cold-sharing", "through", "--cold-fresh", "2s"];
    let (one, other) = (
        pool.patient_near_cache(&near),
        pool.patient_near_cache(&near),
    );
    let (mut writer, mut reader) = (one.connect(), other.connect());
    set(&mut writer, "first");
    assert_eq!(get(&mut reader).as_deref(), Some(&b"first"[..]));
    for _ in 0..100 {
        get(&mut reader);
    }
    let stats = other.stats();
    assert!(stats.number("hot_hits") >= 50, "the copy answers");
    set(&mut writer, "second");
    assert_eq!(get(&mut writer).as_deref(), Some(&b"second"[..]));
    let seen = eventually(NOTICED, || get(&mut reader).as_deref() == Some(b"second"));
    assert!(seen, "the other proxy's write is never seen");
    // Once seen, it stays.
    for _ in 0..100 {
        assert_eq!(get(&mut reader).as_deref(), Some(&b"second"[..]));
    }
}

#[test]
fn strict_always_reads_the_newest_and_moves_no_value_for_it() {
    let pool = comparing_pool(&[1]);
    let near = ["--cold-sharing", "strict"];
    let (one, other) = (
        pool.patient_near_cache(&near),
        pool.patient_near_cache(&near),
    );
    let (mut writer, mut reader) = (one.connect(), other.connect());
    for round in 0..200 {
        let value = format!("value{round}");
        set(&mut writer, &value);
        for _ in 0..3 {
            assert_eq!(get(&mut reader).as_deref(), Some(value.as_bytes()));
        }
    }
    let stats = other.stats();
    // Of three reads one fetches the value, two have the copy confirmed.
    assert_eq!(stats.number("hot_hits"), 400);
    writer.ask(b"delete k\r\n").expect("it answers");
    assert_eq!(get(&mut reader), None);
}

// The story of a stale read: a server without CAS tells 0 of every value, and said of every copy that it is current.
#[test]
fn nothing_is_copied_of_servers_without_cas() {
    for sharing in ["through", "strict"] {
        let pool = Pool::of(&[1], |port| {
            Server::tiercache(&["-p", port, "-m", "64", "-C"])
        });
        let near = ["--cold-sharing", sharing];
        let (one, other) = (
            pool.patient_near_cache(&near),
            pool.patient_near_cache(&near),
        );
        let (mut writer, mut reader) = (one.connect(), other.connect());
        for value in ["first", "second", "third"] {
            set(&mut writer, value);
            for client in [&mut reader, &mut writer] {
                assert_eq!(get(client).as_deref(), Some(value.as_bytes()), "{sharing}");
            }
        }
        for server in [&one, &other] {
            assert_eq!(server.stats().number("hot_hits"), 0, "{sharing}");
        }
    }
}

// The story of a stale read: a server is started anew and counts its CAS uniques anew. Another client stores a key, which
// gets the unique that the copy has, and the server says that the copy is current.
#[test]
fn strict_does_not_take_a_new_server_for_the_one_that_the_copy_is_of() {
    let url = server_that_is_started_anew();
    let state = TempDir::new().expect("a temporary folder can be made");
    let state = state.path().display().to_string();
    let strict = ["-m", "16", "--cold-sharing", "strict", "--state", &state];
    let server = Server::tiercache(&[&strict[..], &["--cold", &url]].concat());
    let mut client = server.connect();
    assert_eq!(get(&mut client).as_deref(), Some(&b"old"[..]));
    for _ in 0..3 {
        assert_eq!(get(&mut client).as_deref(), Some(&b"new"[..]));
    }
    // A copy of the new one, once it is there.
    assert!(server.stats().number("hot_hits") > 0);
}

/// What a proxy sees of a server that ends after it has answered one `mg`, and comes back with another value of the same
/// CAS unique.
fn server_that_is_started_anew() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the kernel has a free port");
    let address = listener.local_addr().expect("it is bound");
    // Ends with the test's process.
    thread::spawn(move || {
        let mut has_answered = false;
        for stream in listener.incoming().flatten() {
            let mut to = stream.try_clone().expect("a socket can be cloned");
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let words: Vec<&str> = line.split(' ').collect();
                let opaque = words.iter().find(|word| word.starts_with('O'));
                let opaque = opaque.copied().unwrap_or_default();
                let is_read = words[0] == "mg" && words[1] == "k";
                let ends = is_read && !has_answered;
                let reply = match words[0] {
                    "mn" => String::from("MN\r\n"),
                    "version" => String::from("VERSION 1.6.45\r\n"),
                    _ if ends => format!("VA 3 kk f0 c7 t-1 {opaque}\r\nold\r\n"),
                    _ if is_read && words.contains(&"C7") => {
                        format!("HD kk f0 c7 t-1 {opaque}\r\n")
                    }
                    _ if is_read => format!("VA 3 kk f0 c7 t-1 {opaque}\r\nnew\r\n"),
                    _ => continue,
                };
                if to.write_all(reply.as_bytes()).is_err() || ends {
                    has_answered = true;
                    break;
                }
            }
        }
    });
    format!("memcached://{address}")
}

#[test]
fn a_copy_expires_with_its_item() {
    let pool = Pool::of_memcached(&[1]);
    let server = pool.patient_near_cache(&["--cold-sharing", "private"]);
    let mut client = server.connect();
    assert_eq!(
        client.ask(b"set k 0 2 1\r\nx\r\n").expect("it answers"),
        b"STORED"
    );
    assert!(get(&mut client).is_some());
    let gone = eventually(Duration::from_secs(20), || get(&mut client).is_none());
    assert!(gone, "the copy outlives the item");
}

#[test]
fn copies_go_with_a_flush() {
    let pool = Pool::of_memcached(&[1, 1]);
    let server = pool.patient_near_cache(&["--cold-sharing", "private"]);
    let mut client = server.connect();
    set(&mut client, "x");
    assert!(get(&mut client).is_some());
    assert_eq!(client.ask(b"flush_all\r\n").expect("it answers"), b"OK");
    assert_eq!(get(&mut client), None);
}

// Answers that come later keep the order of the requests, whichever server they come from.
#[test]
fn a_pipeline_over_many_servers_is_answered_in_order() {
    let pool = Pool::of_memcached(&[1, 1, 1]);
    for server in [pool.patient_proxy(&[]), pool.patient_near_cache(&[])] {
        let mut client = server.connect();
        let sets: String = (0..2000)
            .map(|n| format!("set key{n} 0 0 {}\r\nvalue{n}\r\n", 5 + n.to_string().len()))
            .collect();
        client.send(sets.as_bytes()).expect("it reads");
        for _ in 0..2000 {
            assert_eq!(client.line().expect("it answers"), b"STORED");
        }
        let gets: String = (0..2000)
            .map(|n| match n % 3 {
                0 => format!("get key{n}\r\n"),
                1 => format!("mg key{n} v O{n}\r\n"),
                _ => format!("get nothing{n} key{n}\r\nversion\r\n"),
            })
            .collect();
        client.send(gets.as_bytes()).expect("it reads");
        for n in 0..2000 {
            let value = format!("value{n}").into_bytes();
            if n % 3 == 1 {
                let head = format!("VA {} O{n}", value.len());
                assert_eq!(client.line().expect("it answers"), head.as_bytes());
                assert_eq!(client.line().expect("it answers"), value);
                continue;
            }
            let hits = client.hits().expect("it answers");
            assert_eq!(hits, [(format!("key{n}").into_bytes(), value)]);
            if n % 3 == 2 {
                let version = client.line().expect("it answers");
                assert!(version.starts_with(b"VERSION "));
            }
        }
    }
}

/// What the log says once a reload has its effect.
pub(super) const RELOADED: &str = "the memcached servers are read again";

// Membership changes by SIGHUP while clients go on: none is dropped, none gets an error, the new server has its share,
// and what a key had on its former server does not come back with it.
#[test]
fn a_reload_moves_keys_without_dropping_anybody() {
    let pool = Pool::of_memcached(&[1, 1, 1]);
    let names = pool.names();
    let folder = TempDir::new().expect("a temporary folder can be made");
    let file = folder.path().join("c.toml");
    let configure = |servers: &[String]| {
        let text = format!(
            "[cold]\nbackend = \"memcached\"\n[memcached]\nservers = {servers:?}\n\
             request_timeout = \"10s\"\nconnect_timeout = \"10s\"\nstate = {:?}\n",
            folder.path().join("state")
        );
        fs::write(&file, text).expect("it can be written");
    };
    configure(&names[..2]);
    let server = Server::tiercache(&["-m", "64", "--config", &file.display().to_string()]);
    let mut clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    let (mut round, reloads) = (0, Cell::new(0));
    let mut write_all = |clients: &mut [Client]| {
        round += 1;
        // A key that moves between its store and its read is a miss then.
        let log = server.log();
        let settled = log.matches(RELOADED).count() == reloads.get();
        for number in 0..300 {
            let (key, value) = (format!("key{number}"), format!("{round}"));
            let client = &mut clients[number % 4];
            let reply = client.set(key.as_bytes(), value.as_bytes());
            assert_eq!(reply.expect("it answers"), b"STORED");
            let found = clients[(number + 1) % 4]
                .get(key.as_bytes())
                .expect("it answers");
            if settled || found.is_some() {
                assert_eq!(found, Some(value.into_bytes()), "{key}");
            }
        }
        settled
    };
    let third = &pool.servers[2];
    let reload = || {
        let pid = Pid::from_raw(server.pid().cast_signed()).expect("a child has a process id");
        kill_process(pid, Signal::HUP).expect("an own child can be signalled");
        reloads.set(reloads.get() + 1);
    };
    assert!(write_all(&mut clients));
    assert_eq!(third.stats().number("curr_items"), 0);
    for servers in [&names[..], &names[..2], &names[..]] {
        configure(servers);
        let before = third.stats().number("cmd_set");
        reload();
        let moved = eventually(NOTICED, || {
            write_all(&mut clients);
            let after = third.stats().number("cmd_set");
            let settled = write_all(&mut clients);
            let used = third.stats().number("cmd_set") > after;
            assert!(before <= after);
            settled && used == (servers.len() == 3)
        });
        assert!(moved, "the reload has no effect");
    }
}

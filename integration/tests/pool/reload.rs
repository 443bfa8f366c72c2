//! Pools that change by SIGHUP: nothing old comes back with a server, and a change of manners is no change of places.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tiercache_integration::client::Client;
use tiercache_integration::eventually;
use tiercache_integration::pool::Pool;
use tiercache_integration::server::Server;

use super::NOTICED;

/// A proxy whose configuration file can be changed.
struct Reloaded {
    server: Server,
    folder: TempDir,
}

impl Reloaded {
    fn start(servers: &[String], request_timeout: &str) -> Reloaded {
        let folder = TempDir::new().expect("a temporary folder can be made");
        write(&folder, servers, request_timeout);
        let file = folder.path().join("c.toml").display().to_string();
        Reloaded {
            server: Server::tiercache(&["--config", &file]),
            folder,
        }
    }

    fn reload(&self, servers: &[String], request_timeout: &str) {
        write(&self.folder, servers, request_timeout);
        let pid = Pid::from_raw(self.server.pid().cast_signed()).expect("it has a process id");
        kill_process(pid, Signal::HUP).expect("an own child can be signalled");
    }
}

fn write(folder: &TempDir, servers: &[String], request_timeout: &str) {
    let text = format!(
        "[hot]\nbackend = \"memcached\"\n[memcached]\nservers = {servers:?}\n\
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

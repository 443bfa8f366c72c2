//! A `watch` session during a load: everything that happens is told, or said to be left out.

use std::collections::BTreeMap;

use tiercache_integration::load::Items;
use tiercache_integration::pool::Pool;
use tiercache_integration::server::Server;

const ITEMS: Items = Items { value_bytes: 1024 };
/// Several times the RAM.
const COUNT: u64 = 40_000;

/// Lines by their type, of a session of these kinds that begins before `COUNT` items are stored.
fn session(server: &Server, kinds: &str) -> BTreeMap<String, u64> {
    let mut watcher = server.connect();
    let began = watcher.ask(format!("watch {kinds}\r\n").as_bytes());
    assert_eq!(began.expect("the server answers"), b"OK");
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut client = server.connect();
            ITEMS
                .store(&mut client, 0..COUNT, 0)
                .expect("every item is stored");
            // What ends the session, however many lines before it are left out.
            loop {
                let reply = client.set(b"the-end", b"").expect("the server answers");
                assert_eq!(reply, b"STORED");
                if server.stats().number("log_watchers") == 0 {
                    return;
                }
            }
        });
        let mut lines = BTreeMap::new();
        loop {
            let line = watcher.line().expect("the session goes on");
            let line = String::from_utf8(line).expect("lines are text");
            if let Some(count) = line.strip_prefix("skipped=") {
                let count: u64 = count.parse().expect("skipped lines are counted");
                *lines.entry("skipped".to_owned()).or_default() += count;
                continue;
            }
            if line.contains(" key=the-end ") {
                break;
            }
            let kind = line
                .split(' ')
                .find_map(|field| field.strip_prefix("type="));
            let kind = kind.unwrap_or_else(|| panic!("{line:?} has no type"));
            *lines.entry(kind.to_owned()).or_default() += 1;
        }
        drop(watcher);
        load.join().expect("the load ends");
        lines
    })
}

// Without a dry tier what leaves RAM is evicted, and each store is told.
#[test]
fn a_session_during_a_load_tells_what_happened() {
    let server = Server::tiercache(&["-m", "8", "-o", "watcher_logbuf_size=65536"]);
    let lines = session(&server, "evictions mutations");
    println!("{lines:?}");
    assert_eq!(lines.get("item_store"), Some(&COUNT));
    assert_eq!(lines.get("skipped"), None);
    let evictions = lines["eviction"];
    assert!(evictions > COUNT / 2);
    // The stores that end the session may evict further ones.
    assert!(evictions <= server.stats().number("evictions"));
}

// With one, what leaves RAM goes to dry: memcached's word for that is a write to its own storage.
#[test]
fn what_is_dried_is_told_as_a_write_to_storage() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let dry = folder.path().join("dry").display().to_string();
    let server = Server::tiercache(&["-m", "8", "--dry", &dry, "-o", "watcher_logbuf_size=65536"]);
    let lines = session(&server, "evictions mutations");
    println!("{lines:?}");
    assert!(lines["extwrite"] > COUNT / 2);
}

// A small buffer overflows: the missing lines are counted, and those told and those missed are all.
#[test]
fn a_slow_watcher_is_told_how_many_lines_it_missed() {
    let server = Server::tiercache(&["-o", "watcher_logbuf_size=4"]);
    let lines = session(&server, "mutations");
    println!("{lines:?}");
    let told = lines["item_store"] + lines.get("skipped").copied().unwrap_or(0);
    assert!(told >= COUNT, "{lines:?}");
}

#[test]
fn prefixes_of_keys_of_a_pool_are_counted_once_that_is_on() {
    let pool = Pool::of_memcached(&[1]);
    for server in [pool.patient_near_cache(&[]), pool.proxy(&[])] {
        let mut client = server.connect();
        for (switch, counted) in [
            ("off", None),
            ("on", Some("PREFIX a get 3 hit 2 set 1 del 1")),
        ] {
            let switched = client.ask(format!("stats detail {switch}\r\n").as_bytes());
            assert_eq!(switched.expect("it answers"), b"OK");
            assert_eq!(client.set(b"a:1", b"v").expect("it answers"), b"STORED");
            for (key, found) in [(b"a:1", true), (b"a:2", false), (b"a:1", true)] {
                let value = client.get(key).expect("it answers");
                assert_eq!(value.is_some(), found);
            }
            let deleted = client.ask(b"delete a:1\r\n").expect("it answers");
            assert_eq!(deleted, b"DELETED");
            client.send(b"stats detail dump\r\n").expect("it reads");
            let mut lines = Vec::new();
            while lines.last().is_none_or(|line| line != "END") {
                let line = client.line().expect("it answers");
                lines.push(String::from_utf8(line).expect("lines are text"));
            }
            lines.pop();
            assert_eq!(lines, Vec::from_iter(counted));
        }
    }
}

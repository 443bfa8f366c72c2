//! What belongs to an item goes through: CAS unique, flags, time to live, any key; what is too large is an error of its
//! own and harms nobody else.

use tiercache_integration::client::Client;
use tiercache_integration::pool::Pool;
use tiercache_integration::server::Server;

/// A proxy and a near cache of each sharing mode that the pool's servers can have.
fn fronts(pool: &Pool) -> Vec<Server> {
    vec![
        pool.proxy(&[]),
        pool.near_cache(&["--cold-sharing", "private"]),
        pool.near_cache(&["--cold-sharing", "through"]),
    ]
}

fn ask(client: &mut Client, request: &str) -> String {
    let line = client.ask(request.as_bytes()).expect("it answers");
    String::from_utf8(line).expect("it answers text")
}

/// The words of a line with a value, which is read and returned too.
fn ask_value(client: &mut Client, request: &str, size: usize) -> (Vec<String>, Vec<u8>) {
    let line = ask(client, request);
    let value = client.exact(size + 2).expect("the value follows");
    let words = line.split(' ').map(str::to_owned).collect();
    (words, value[..size].to_vec())
}

// The pool's own CAS unique, told by it and by a copy alike, decides a `cas` on either side.
#[test]
fn the_cas_unique_is_the_pools() {
    let pool = Pool::of_memcached(&[1]);
    let mut direct = pool.servers[0].connect();
    for server in fronts(&pool) {
        let mut client = server.connect();
        assert_eq!(ask(&mut client, "set k 7 0 3\r\none\r\n"), "STORED");
        for _ in 0..3 {
            let (theirs, _) = ask_value(&mut direct, "gets k\r\n", 3);
            assert_eq!(direct.line().expect("END"), b"END");
            let (ours, value) = ask_value(&mut client, "gets k\r\n", 3);
            assert_eq!(client.line().expect("END"), b"END");
            assert_eq!(
                (ours.as_slice(), value.as_slice()),
                (&theirs[..], &b"one"[..])
            );
        }
        let (words, _) = ask_value(&mut client, "gets k\r\n", 3);
        assert_eq!(client.line().expect("END"), b"END");
        let cas = &words[4];
        assert_eq!(
            ask(&mut client, &format!("cas k 8 0 3 {cas}\r\ntwo\r\n")),
            "STORED"
        );
        assert_eq!(
            ask(&mut client, &format!("cas k 9 0 3 {cas}\r\nbad\r\n")),
            "EXISTS"
        );
        assert_eq!(
            ask(&mut direct, &format!("cas k 9 0 3 {cas}\r\nbad\r\n")),
            "EXISTS"
        );
        let (words, value) = ask_value(&mut client, "get k\r\n", 3);
        assert_eq!(client.line().expect("END"), b"END");
        assert_eq!((words[2].as_str(), value.as_slice()), ("8", &b"two"[..]));
        assert_eq!(
            ask(&mut client, "cas nothing 0 0 1 5\r\nx\r\n"),
            "NOT_FOUND"
        );
    }
}

#[test]
fn flags_and_times_to_live_go_both_ways() {
    let pool = Pool::of_memcached(&[1]);
    let mut direct = pool.servers[0].connect();
    for server in fronts(&pool) {
        let mut client = server.connect();
        for (flags, exptime) in [(0u32, 0u32), (1, 1000), (u32::MAX, 2_000_000)] {
            let store = format!("set k {flags} {exptime} 1\r\nx\r\n");
            for (writer, reader) in [(true, false), (false, true), (true, true)] {
                let to = if writer { &mut client } else { &mut direct };
                assert_eq!(ask(to, &store), "STORED");
                if !writer {
                    // What the other side wrote is not a copy's business here.
                    assert_eq!(ask(&mut client, "touch k 0\r\n"), "TOUCHED");
                    assert_eq!(
                        ask(&mut client, &format!("touch k {exptime}\r\n")),
                        "TOUCHED"
                    );
                }
                let from = if reader { &mut client } else { &mut direct };
                for _ in 0..2 {
                    let line = ask(from, "mg k f t\r\n");
                    let (told, ttl) = line
                        .strip_prefix("HD f")
                        .and_then(|line| line.split_once(" t"))
                        .expect("flags and a time");
                    assert_eq!(told, flags.to_string());
                    let ttl: i64 = ttl.parse().expect("a number");
                    let expected = if exptime == 0 { -1 } else { i64::from(exptime) };
                    // A second or two may have gone by.
                    assert!(
                        ttl == expected
                            || (expected > 0 && (expected - 60..expected).contains(&ttl)),
                        "{ttl} for {exptime}"
                    );
                }
            }
        }
    }
}

// Keys that no text line can carry go in base64, where every byte is the key's.
#[test]
fn keys_of_any_bytes_reach_the_pool() {
    let pool = Pool::of_memcached(&[1, 1]);
    for server in fronts(&pool) {
        let mut client = server.connect();
        // "a b\n" and "\0\xff".
        for (key, value) in [("YSBiCg==", "one"), ("AP8=", "two")] {
            let size = value.len();
            assert_eq!(
                ask(&mut client, &format!("ms {key} {size} b\r\n{value}\r\n")),
                "HD"
            );
            for _ in 0..2 {
                let (words, found) = ask_value(&mut client, &format!("mg {key} b v k\r\n"), size);
                assert_eq!(found, value.as_bytes());
                assert_eq!(words[0], "VA");
                assert!(words.contains(&format!("k{key}")), "{words:?}");
            }
            assert_eq!(ask(&mut client, &format!("md {key} b\r\n")), "HD");
            assert_eq!(ask(&mut client, &format!("mg {key} b v\r\n")), "EN");
        }
    }
}

// The server of the pool takes less than the proxy: its error is told, and the old value is gone as with the server itself.
#[test]
fn a_value_that_the_server_does_not_take_is_an_error_of_its_own() {
    let pool = Pool::of(&[1], |port| Server::memcached(&["-p", port, "-I", "512k"]));
    for server in fronts(&pool) {
        let mut client = server.connect();
        let mut other = server.connect();
        assert_eq!(other.set(b"other", b"v").expect("it answers"), b"STORED");
        for size in [524_288, 800_000] {
            assert_eq!(client.set(b"k", b"old").expect("it answers"), b"STORED");
            let value = vec![b'x'; size];
            let reply = client.set(b"k", &value).expect("it answers");
            assert_eq!(reply, b"SERVER_ERROR object too large for cache");
            assert_eq!(client.get(b"k").expect("it answers"), None);
            let head = format!("ms k {size}\r\n");
            let request = [head.as_bytes(), &value, b"\r\n"].concat();
            let reply = client.ask(&request).expect("it answers");
            assert_eq!(reply, b"SERVER_ERROR object too large for cache");
            let value = other.get(b"other").expect("it answers");
            assert_eq!(value.as_deref(), Some(&b"v"[..]));
        }
        let stats = client.stats("upstream").expect("it answers");
        for (name, value) in stats.iter() {
            if name.ends_with(":errors") || name.ends_with(":garbled") {
                assert_eq!(value, "0", "{name}");
            }
        }
    }
}

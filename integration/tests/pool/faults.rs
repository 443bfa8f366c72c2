//! Servers that are gone, silent, or answer what nobody asked for.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tiercache_integration::client::Client;
use tiercache_integration::eventually;
use tiercache_integration::pool::Pool;
use tiercache_integration::server::{Server, tiercache_binary};

use super::NOTICED;

/// A key for each server of a pool, found by asking the servers themselves.
fn keys(pool: &Pool, client: &mut Client) -> Vec<String> {
    let mut keys = vec![None; pool.servers.len()];
    for number in 0..1000 {
        let key = format!("key{number}");
        assert_eq!(
            client.set(key.as_bytes(), b"v").expect("it answers"),
            b"STORED"
        );
        let has = |server: &Server| {
            let value = server.connect().get(key.as_bytes()).expect("it answers");
            value.is_some()
        };
        let at = pool.servers.iter().position(has).expect("one has it");
        keys[at].get_or_insert(key);
        if let Some(keys) = keys.iter().cloned().collect() {
            return keys;
        }
    }
    panic!("a server has no keys");
}

fn signal(server: &Server, signal: Signal) {
    let pid = Pid::from_raw(server.pid().cast_signed()).expect("a child has a process id");
    kill_process(pid, signal).expect("an own child can be signalled");
}

/// Stops a server without ending it, and waits until all its threads stand still.
fn silence(server: &Server) {
    signal(server, Signal::STOP);
    let stopped = |task: fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| rest.starts_with(" T"))
    };
    let tasks = format!("/proc/{}/task", server.pid());
    let silent = eventually(NOTICED, || {
        let mut tasks = fs::read_dir(&tasks).expect("the server runs").flatten();
        tasks.all(stopped)
    });
    assert!(silent, "the server does not stop");
}

#[test]
fn a_dead_server_costs_its_own_keys_alone_until_it_is_back() {
    let mut pool = Pool::of_memcached(&[1, 1, 1]);
    let server = pool.proxy(&[]);
    let mut client = server.connect();
    let keys = keys(&pool, &mut client);
    pool.servers[0].kill9();
    for _ in 0..20 {
        assert_eq!(client.get(keys[0].as_bytes()).expect("it answers"), None);
        let reply = client.set(keys[0].as_bytes(), b"w").expect("it answers");
        assert!(
            reply.starts_with(b"SERVER_ERROR "),
            "{}",
            reply.escape_ascii()
        );
        for key in &keys[1..] {
            let value = client.get(key.as_bytes()).expect("it answers");
            assert_eq!(value.as_deref(), Some(&b"v"[..]));
        }
    }
    pool.servers[0].start();
    let back = eventually(NOTICED, || {
        client.set(keys[0].as_bytes(), b"w").expect("it answers") == b"STORED"
    });
    assert!(back, "the server is never used again");
}

// The story of a stale read: a delete does not reach a server that hangs, and the server comes back with the item.
#[test]
fn a_delete_that_a_silent_server_missed_is_delivered_before_it_is_read() {
    let pool = Pool::of_memcached(&[1, 1]);
    for arguments in [
        &["--cold-sharing", "private"][..],
        &["--cold-sharing", "through"],
    ] {
        let server = pool.near_cache(arguments);
        let mut client = server.connect();
        let keys = keys(&pool, &mut client);
        silence(&pool.servers[0]);
        let request = format!("delete {}\r\n", keys[0]);
        let reply = client.ask(request.as_bytes()).expect("it answers");
        assert!(
            reply.starts_with(b"SERVER_ERROR "),
            "{}",
            reply.escape_ascii()
        );
        assert_eq!(client.get(keys[0].as_bytes()).expect("it answers"), None);
        // The other server is not held up.
        assert!(
            client
                .get(keys[1].as_bytes())
                .expect("it answers")
                .is_some()
        );
        signal(&pool.servers[0], Signal::CONT);
        let mut direct = pool.servers[0].connect();
        let delivered = eventually(NOTICED, || {
            assert_eq!(client.get(keys[0].as_bytes()).expect("it answers"), None);
            // Nor do commands that change what is there show what should not be there.
            let touched = client.ask(format!("gat 0 {}\r\n", keys[0]).as_bytes());
            assert_eq!(touched.expect("it answers"), b"END");
            let request = format!("append {} 0 0 1\r\nx\r\n", keys[0]);
            let appended = client.ask(request.as_bytes()).expect("it answers");
            assert_ne!(appended, b"STORED");
            direct
                .get(keys[0].as_bytes())
                .expect("it answers")
                .is_none()
        });
        assert!(delivered, "the delete is never delivered");
        let back = eventually(NOTICED, || {
            client.set(keys[0].as_bytes(), b"w").expect("it answers") == b"STORED"
                && client
                    .get(keys[0].as_bytes())
                    .expect("it answers")
                    .is_some()
        });
        assert!(back, "the key is never read again");
    }
}

#[test]
fn a_missed_delete_outlives_the_proxy() {
    let pool = Pool::of_memcached(&[1]);
    let state = TempDir::new().expect("a temporary folder can be made");
    let (url, state) = (pool.url(), state.path().display().to_string());
    let arguments = ["--hot", url.as_str(), "--state", state.as_str()];
    let mut server = Server::tiercache(&arguments);
    let mut client = server.connect();
    assert_eq!(client.set(b"k", b"old").expect("it answers"), b"STORED");
    silence(&pool.servers[0]);
    let reply = client.ask(b"delete k\r\n").expect("it answers");
    assert!(reply.starts_with(b"SERVER_ERROR "));
    server.kill9();
    signal(&pool.servers[0], Signal::CONT);
    server.start();
    let mut client = server.connect();
    let mut direct = pool.servers[0].connect();
    let delivered = eventually(NOTICED, || {
        assert_eq!(client.get(b"k").expect("it answers"), None);
        direct.get(b"k").expect("it answers").is_none()
    });
    assert!(delivered, "the delete is never delivered");
}

// Two processes would remove each other's missed deletes. Whoever is refused is told why, and what to do.
#[test]
fn a_state_folder_is_for_one_proxy() {
    let pool = Pool::of_memcached(&[1]);
    let state = TempDir::new().expect("a temporary folder can be made");
    let (url, state) = (pool.url(), state.path().display().to_string());
    let arguments = ["--hot", url.as_str(), "--state", state.as_str()];
    let mut first = Server::tiercache(&arguments);
    let mut second = Server::stopped(&[], &tiercache_binary(), &arguments);
    second.try_start().expect_err("it must not start");
    let said = second.log();
    let told = format!(
        "{state}: it is in use by another process (pid {})",
        first.pid()
    );
    assert!(said.contains(&told) && said.contains("--state"), "{said}");
    first.kill9();
    second.start();
    assert_eq!(
        second.connect().set(b"k", b"v").expect("it answers"),
        b"STORED"
    );
}

// A connection that is not used is closed, which is no error of anybody, and made again for the next request.
#[test]
fn an_idle_connection_is_closed_and_made_again() {
    let pool = Pool::of_memcached(&[1]);
    let folder = TempDir::new().expect("a temporary folder can be made");
    let config = folder.path().join("c.toml");
    let timeouts =
        "connect_timeout = \"10s\"\nrequest_timeout = \"10s\"\nidle_timeout = \"50ms\"\n";
    fs::write(&config, format!("[memcached]\n{timeouts}")).expect("it can be written");
    let config = ["--config", &config.display().to_string()];
    for proxy in [pool.proxy(&config), pool.near_cache(&config)] {
        let mut client = proxy.connect();
        let mut direct = pool.servers[0].connect();
        let mut connections = |name: &str| direct.stats("").expect("it answers").number(name);
        for round in 0..3 {
            let made = connections("total_connections");
            assert_eq!(client.set(b"k", b"v").expect("it answers"), b"STORED");
            assert!(connections("total_connections") > made, "round {round}");
            // The one that asks stays.
            let closed = eventually(NOTICED, || connections("curr_connections") == 1);
            assert!(closed, "round {round}");
        }
        let stats = client.stats("upstream").expect("it answers");
        let address = pool.servers[0].address();
        assert_eq!(stats.number(&format!("{address}:errors")), 0);
        assert_eq!(stats.number(&format!("{address}:ejections")), 0);
        assert!(
            !proxy.log().contains("upstream connection"),
            "{}",
            proxy.log()
        );
    }
}

/// A server that answers the greeting, then each `mg` line with `answer`, given the line's key and opaque token.
fn liar(answer: impl Fn(&str, &str) -> Vec<u8> + Send + Sync + 'static) -> String {
    slow_liar(Duration::ZERO, answer)
}

/// The same, who takes his time to say which version he is.
fn slow_liar(
    pause: Duration,
    answer: impl Fn(&str, &str) -> Vec<u8> + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the kernel has a free port");
    let address = listener.local_addr().expect("it is bound");
    let answer = Arc::new(answer);
    // Ends with the test's process.
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            thread::spawn(move || lie(stream, pause, &*answer));
        }
    });
    format!("memcached://{address}")
}

fn lie(stream: TcpStream, pause: Duration, answer: &dyn Fn(&str, &str) -> Vec<u8>) {
    let mut to = stream.try_clone().expect("a socket can be cloned");
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let mut words = line.split(' ');
        let reply = match (words.next(), words.next()) {
            (Some("mn"), _) => b"MN\r\n".to_vec(),
            (Some("version"), _) => {
                thread::sleep(pause);
                b"VERSION 1\r\n".to_vec()
            }
            (Some("mg"), Some(key)) if key != "tiercache-probe" => {
                let opaque = words.find(|word| word.starts_with('O')).unwrap_or("O");
                answer(key, opaque)
            }
            _ => continue,
        };
        if to.write_all(&reply).is_err() {
            return;
        }
    }
}

// A request may be overdue by the time it can be sent: it is told so, and does not wait for a faster connection.
#[test]
fn a_request_that_is_overdue_once_it_is_connected_is_answered() {
    let folder = TempDir::new().expect("a temporary folder can be made");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let timeouts = "[memcached]\nconnect_timeout = \"10s\"\nrequest_timeout = \"100ms\"\n";
    fs::write(path("c.toml"), timeouts).expect("it can be written");
    let url = slow_liar(Duration::from_millis(300), |key, opaque| {
        format!("VA 4 k{key} f0 c1 t-1 {opaque}\r\ntrue\r\n").into()
    });
    for tier in ["--hot", "--cold"] {
        let (state, config) = (path("state"), path("c.toml"));
        let arguments = [
            "-m", "16", tier, &url, "--state", &state, "--config", &config,
        ];
        let server = Server::tiercache(&arguments);
        let mut client = server.connect();
        for _ in 0..3 {
            // It may be in time after all, if the timer is late.
            let value = client.get(b"k").expect("it answers");
            assert!(value.is_none_or(|value| value == b"true"));
        }
    }
}

#[test]
fn an_answer_to_something_else_is_never_a_value() {
    type Answer = fn(&str, &str) -> Vec<u8>;
    let lies: [(&str, Answer); 10] = [
        ("another key", |_, o| {
            format!("VA 3 kother f0 c1 t-1 {o}\r\nbad\r\n").into()
        }),
        ("another opaque", |k, _| {
            format!("VA 3 k{k} f0 c1 t-1 Offffffff\r\nbad\r\n").into()
        }),
        ("no opaque", |k, _| {
            format!("VA 3 k{k} f0 c1 t-1\r\nbad\r\n").into()
        }),
        ("another command's answer", |_, _| b"STORED\r\n".to_vec()),
        ("a classic value", |k, _| {
            format!("VALUE {k} 0 3\r\nbad\r\nEND\r\n").into()
        }),
        ("a value that is too long", |k, o| {
            format!("VA 3 k{k} f0 c1 t-1 {o}\r\nbadbad\r\n").into()
        }),
        ("an endless line", |_, _| vec![b'x'; 100_000]),
        ("garbage", |_, _| vec![0, 159, 146, 150, b'\r', b'\n']),
        ("a huge length", |k, o| {
            format!("VA 999999999 k{k} {o}\r\n").into()
        }),
        ("silence", |_, _| Vec::new()),
    ];
    let state = TempDir::new().expect("a temporary folder can be made");
    let state = state.path().display().to_string();
    for (lie, answer) in lies {
        for tier in ["--hot", "--cold"] {
            let url = liar(answer);
            let server = Server::tiercache(&["-m", "16", tier, &url, "--state", &state]);
            let mut client = server.connect();
            for _ in 0..3 {
                assert_eq!(client.get(b"k").expect("it answers"), None, "{lie}");
            }
        }
    }
}

#[test]
fn answers_behind_a_lie_are_not_believed_either() {
    let url = liar(|key, opaque| match key {
        "bad" => b"EN\r\nEN\r\n".to_vec(),
        _ => format!("VA {} k{key} f0 c1 t-1 {opaque}\r\n{key}\r\n", key.len()).into(),
    });
    let state = TempDir::new().expect("a temporary folder can be made");
    let state = state.path().display().to_string();
    let server = Server::tiercache(&["-m", "16", "--hot", &url, "--state", &state]);
    let mut client = server.connect();
    for round in 0..200 {
        client
            .send(b"get a\r\nget bad\r\nget b\r\nget c\r\n")
            .expect("it reads");
        for key in ["a", "bad", "b", "c"] {
            for (found, value) in client.hits().expect("it answers") {
                assert_eq!(
                    (found.as_slice(), value.as_slice()),
                    (key.as_bytes(), key.as_bytes()),
                    "{round}"
                );
            }
        }
    }
}

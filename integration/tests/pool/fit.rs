//! Servers that lack what is needed are refused at the start, by name; those that are only away are waited for.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tiercache_integration::eventually;
use tiercache_integration::pool::Pool;
use tiercache_integration::server::{Server, tiercache_binary};

use super::NOTICED;

/// A server that answers each line with what `answer` says; it ends with the test's process.
fn stand_in(answer: fn(&str) -> &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the kernel has a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream, answer));
        }
    });
    address
}

fn serve(stream: TcpStream, answer: fn(&str) -> &'static str) {
    let mut to = stream.try_clone().expect("a socket can be cloned");
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        if to.write_all(answer(&line).as_bytes()).is_err() {
            return;
        }
    }
}

fn before_meta(line: &str) -> &'static str {
    match line {
        "version" => "VERSION 1.4.15\r\n",
        _ => "ERROR\r\n",
    }
}

/// The meta commands of 1.5.19 to 1.6.9 are others.
fn early_meta(line: &str) -> &'static str {
    match line {
        "version" => "VERSION 1.6.9\r\n",
        "mn" => "MN\r\n",
        _ => "CLIENT_ERROR invalid flag\r\n",
    }
}

fn without_compare(line: &str) -> &'static str {
    match line {
        "version" => "VERSION 1.6.40\r\n",
        "mn" => "MN\r\n",
        _ => "CLIENT_ERROR invalid flag\r\n",
    }
}

fn full(line: &str) -> &'static str {
    match line {
        "version" => "ERROR Too many open connections\r\n",
        _ => "",
    }
}

/// A tiercache in front of `server`, not started.
fn in_front_of(server: SocketAddr, tier: &str, state: &TempDir, more: &[&str]) -> Server {
    let url = format!("memcached://{server}");
    let config = state.path().join("c.toml");
    // On a busy machine an answer may take longer than the default.
    fs::write(&config, "[memcached]\nconnect_timeout = \"20s\"\n").expect("it can be written");
    let (state, config) = (
        state.path().display().to_string(),
        config.display().to_string(),
    );
    let all = [
        tier, &url, "--state", &state, "--config", &config, "-m", "64",
    ];
    let arguments = [&all[..], more].concat();
    Server::stopped(&[], &tiercache_binary(), &arguments)
}

fn state() -> TempDir {
    TempDir::new().expect("a temporary folder can be made")
}

#[test]
fn servers_without_the_meta_commands_are_refused_by_name() {
    for (address, version) in [
        (stand_in(before_meta), "1.4.15"),
        (stand_in(early_meta), "1.6.9"),
    ] {
        let state = state();
        for tier in ["--hot", "--cold"] {
            let mut server = in_front_of(address, tier, &state, &[]);
            let status = server.try_start().expect_err("it must not start");
            assert!(!status.success());
            let said = server.log();
            let expected = format!(
                "memcached server {address}: the server (version \"{version}\") does not have the meta commands"
            );
            assert!(said.contains(&expected), "{said}");
        }
    }
}

#[test]
fn strict_needs_servers_that_compare() {
    let (address, state) = (stand_in(without_compare), state());
    let strict = ["--cold-sharing", "strict"];
    let mut server = in_front_of(address, "--cold", &state, &strict);
    server.try_start().expect_err("it must not start");
    let said = server.log();
    let expected =
        format!("memcached server {address}: sharing strict needs flag C of mg (memcached 1.6.41)");
    assert!(said.contains(&expected), "{said}");
    // The other modes do without.
    in_front_of(address, "--cold", &state, &[]).start();
}

// What the installed memcached is told by its version, and shows by its answers.
#[test]
fn a_real_memcached_is_judged_by_what_it_understands() {
    let pool = Pool::of_memcached(&[1]);
    let compares = pool.servers[0].version() >= (1, 6, 41);
    let (address, state) = (pool.servers[0].address(), state());
    let mut server = in_front_of(address, "--cold", &state, &["--cold-sharing", "strict"]);
    assert_eq!(server.try_start().is_ok(), compares, "{}", server.log());
    drop(server);
    let server = pool.near_cache(&[]);
    let stats = server.connect().stats("upstream").expect("it answers");
    let understands = if compares { "meta, compare" } else { "meta" };
    assert_eq!(
        stats.text(&format!("{address}:understands")),
        Some(understands)
    );
    let (major, minor, patch) = pool.servers[0].version();
    let version = format!("{major}.{minor}.{patch}");
    assert_eq!(
        stats.text(&format!("{address}:version")),
        Some(version.as_str())
    );
}

// A server that is away, or full, may be there in a moment; the start does not depend on it.
#[test]
fn a_server_that_is_away_is_waited_for() {
    let mut pool = Pool::of_memcached(&[1]);
    pool.servers[0].kill9();
    let server = pool.proxy(&[]);
    let mut client = server.connect();
    let reply = client.set(b"k", b"v").expect("it answers");
    assert!(reply.starts_with(b"SERVER_ERROR "));
    pool.servers[0].start();
    let back = eventually(NOTICED, || {
        client.set(b"k", b"v").expect("it answers") == b"STORED"
    });
    assert!(back, "the server is never used");
    in_front_of(stand_in(full), "--hot", &state(), &[]).start();
}

// An older server takes the place of the one that was there: its keys are misses, and nothing it says is taken for an
// answer.
#[test]
fn a_server_without_the_meta_commands_is_not_used_later_either() {
    let mut pool = Pool::of_memcached(&[1]);
    let server = pool.proxy(&[]);
    let mut client = server.connect();
    assert_eq!(client.set(b"k", b"v").expect("it answers"), b"STORED");
    let address = pool.servers[0].address();
    pool.servers[0].kill9();
    let listener = TcpListener::bind(address).expect("the port is free again");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream, before_meta));
        }
    });
    let seen = eventually(NOTICED, || {
        assert_eq!(client.get(b"k").expect("it answers"), None);
        let reply = client.set(b"k", b"w").expect("it answers");
        assert!(reply.starts_with(b"SERVER_ERROR "));
        let stats = client.stats("upstream").expect("it answers");
        let error = stats.text(&format!("{address}:last_error"));
        error.is_some_and(|error| error.contains("does not have the meta commands"))
    });
    assert!(seen, "nobody is told why");
}

#[test]
fn a_reload_with_an_unfit_server_changes_nothing() {
    let pool = Pool::of_memcached(&[1]);
    let folder = state();
    let file = folder.path().join("c.toml");
    let configure = |servers: &[String]| {
        let text = format!(
            "[hot]\nbackend = \"memcached\"\n[memcached]\nservers = {servers:?}\nstate = {:?}\n\
             connect_timeout = \"20s\"\n",
            folder.path().join("state")
        );
        fs::write(&file, text).expect("it can be written");
    };
    configure(&pool.names());
    let server = Server::tiercache(&["--config", &file.display().to_string()]);
    let mut client = server.connect();
    assert_eq!(client.set(b"k", b"v").expect("it answers"), b"STORED");
    let unfit = stand_in(before_meta);
    configure(&[unfit.to_string()]);
    let pid = Pid::from_raw(server.pid().cast_signed()).expect("a child has a process id");
    kill_process(pid, Signal::HUP).expect("an own child can be signalled");
    let refused = eventually(NOTICED, || {
        server.log().contains("the memcached servers stay")
    });
    assert!(refused, "{}", server.log());
    assert!(server.log().contains(&unfit.to_string()));
    let value = client.get(b"k").expect("it answers");
    assert_eq!(value.as_deref(), Some(&b"v"[..]));
}

//! `tiercache pool`: what operators ask all servers at once, over every way that leads to one.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;
use tiercache_integration::eventually;
use tiercache_integration::pool::Pool;
use tiercache_integration::server::{Server, memcached_binary, tiercache_binary};

use super::NOTICED;

/// A memcached at a unix socket.
struct AtSocket(Child);

impl AtSocket {
    fn start(path: &Path) -> AtSocket {
        let mut command = Command::new(memcached_binary());
        command.arg("-s").arg(path).stdin(Stdio::null());
        if rustix::process::geteuid().is_root() {
            command.args(["-u", "root"]);
        }
        let server = AtSocket(command.spawn().expect("memcached starts"));
        assert!(eventually(NOTICED, || path.exists()));
        server
    }
}

impl Drop for AtSocket {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ask(question: &str, arguments: &[&str]) -> Output {
    Command::new(tiercache_binary())
        .args(["pool", question])
        .args(arguments)
        .output()
        .expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

// Each row begins with the server it is of, as it is named in the configuration.
#[test]
fn all_servers_are_asked() {
    let mut pool = Pool::of_memcached(&[1, 2]);
    pool.servers.push(Server::tiercache(&["-m", "16"]));
    let folder = TempDir::new().expect("a temporary folder can be made");
    let path = folder.path().join("socket");
    let _at_socket = AtSocket::start(&path);
    let (path, state) = (path.display(), folder.path().display().to_string());
    let addresses: Vec<String> = pool
        .servers
        .iter()
        .map(|server| server.address().to_string())
        .collect();
    let url = format!("memcached://{},unix:{path}", addresses.join(","));
    let arguments = ["--hot", &url, "--state", &state];

    let answer = ask("version", &arguments);
    assert!(answer.status.success(), "{}", text(&answer.stderr));
    let versions = text(&answer.stdout);
    let rows: Vec<&str> = versions.lines().collect();
    assert_eq!(rows.len(), 4, "{versions}");
    for ((row, address), server) in rows.iter().zip(&addresses).zip(&pool.servers) {
        let (major, minor, patch) = server.version();
        assert_eq!(*row, format!("{address} {major}.{minor}.{patch}"));
    }
    assert!(rows[3].starts_with(&format!("{path} ")), "{versions}");

    for (number, server) in pool.servers.iter().enumerate() {
        for key in 0..=number {
            let key = format!("key{key}");
            let stored = server.connect().set(key.as_bytes(), b"v");
            assert_eq!(stored.expect("it answers"), b"STORED");
        }
    }
    let answer = ask("stats", &arguments);
    assert!(answer.status.success(), "{}", text(&answer.stderr));
    let stats = text(&answer.stdout);
    for (number, address) in addresses.iter().enumerate() {
        let row = format!("{address} curr_items {}\n", number + 1);
        assert!(stats.contains(&row), "{row} in {stats}");
    }
    assert!(stats.contains(&format!("{path} curr_items 0\n")));

    let answer = ask("flush_all", &arguments);
    assert!(answer.status.success(), "{}", text(&answer.stderr));
    let flushed = text(&answer.stdout);
    assert_eq!(flushed.lines().count(), 4);
    assert!(flushed.lines().all(|row| row.ends_with(" flushed")));
    for server in &pool.servers {
        let value = server.connect().get(b"key0").expect("it answers");
        assert_eq!(value, None);
    }
}

// Who does not answer is named, and the others' answers are told all the same.
#[test]
fn a_server_that_is_down_is_named() {
    let mut pool = Pool::of_memcached(&[1, 1]);
    let addresses: Vec<String> = pool
        .servers
        .iter()
        .map(|server| server.address().to_string())
        .collect();
    let (url, folder) = (
        pool.url(),
        TempDir::new().expect("a temporary folder can be made"),
    );
    let state = folder.path().display().to_string();
    pool.servers[0].kill9();
    let answer = ask("version", &["--hot", &url, "--state", &state]);
    assert_eq!(answer.status.code(), Some(1));
    let named = text(&answer.stderr);
    assert!(
        named.starts_with(&format!("tiercache: {}: ", addresses[0])),
        "{named}"
    );
    let rows = text(&answer.stdout);
    assert!(
        rows.starts_with(&format!("{} 1.", addresses[1])) && rows.lines().count() == 1,
        "{rows}"
    );
}

// There must be somebody to ask.
#[test]
fn a_configuration_without_servers_is_refused() {
    let answer = ask("stats", &[]);
    assert_eq!(answer.status.code(), Some(1));
    let reason = text(&answer.stderr);
    assert!(reason.contains("names no memcached servers"), "{reason}");
}

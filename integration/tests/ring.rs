//! Keys lie where other clients of the same pool put them: pylibmc and twemproxy are the judges.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use tempfile::TempDir;
use tiercache_integration::client::Client;
use tiercache_integration::eventually;
use tiercache_integration::pool::Pool;
use tiercache_integration::server::{Server, memcached_binary};
use tiercache_integration::twemproxy::Twemproxy;

use super::clients::installed;

/// Keys that each side sets and the other one finds.
const KEYS: usize = 50_000;
/// Keys that each side sets behind unix sockets.
const SOCKET_KEYS: usize = 10_000;
/// Keys that are compared with twemproxy.
const PROXY_KEYS: usize = 10_000;
/// Keys of one pipeline.
const PIPELINE: usize = 500;

#[test]
fn pylibmc_and_tiercache_find_each_others_keys() {
    for (weights, behavior) in [
        ([1, 1, 1], "ketama"),
        ([1, 1, 1], "ketama_weighted"),
        ([1, 2, 5], "ketama"),
        ([1, 2, 5], "ketama_weighted"),
    ] {
        let pool = Pool::of_memcached(&weights);
        let config = TempDir::new().expect("a temporary folder can be made");
        let file = config.path().join("c.toml");
        fs::write(&file, format!("[memcached]\nring = \"{behavior}\"\n"))
            .expect("it can be written");
        let file = file.display().to_string();
        let setter = pool.near_cache(&["--config", &file]);
        let getter = pool.near_cache(&["--config", &file]);
        assert_eq!(pylibmc(&pool, "set", behavior, 0, KEYS), KEYS);
        assert_eq!(found(&getter, 0, KEYS), KEYS, "{behavior} {weights:?}");
        store_at(setter.address(), KEYS, 2 * KEYS);
        let seen = pylibmc(&pool, "get", behavior, KEYS, 2 * KEYS);
        assert_eq!(seen, KEYS, "{behavior} {weights:?}");
    }
}

/// A memcached on a unix socket alone.
struct OnSocket {
    child: Child,
    path: String,
}

impl OnSocket {
    fn start(path: String) -> OnSocket {
        let mut command = Command::new(memcached_binary());
        command.args(["-s", &path, "-m", "64"]);
        if rustix::process::geteuid().is_root() {
            command.args(["-u", "root"]);
        }
        let child = command.spawn().expect("memcached starts");
        let server = OnSocket { child, path };
        let up = eventually(Duration::from_secs(20), || {
            UnixStream::connect(&server.path).is_ok()
        });
        assert!(up, "memcached does not listen on {}", server.path);
        server
    }
}

impl Drop for OnSocket {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// Unix sockets have a name of their own on libmemcached's rings.
#[test]
fn pylibmc_and_tiercache_find_each_others_keys_behind_sockets() {
    let folder = TempDir::new().expect("a temporary folder can be made");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let servers: Vec<OnSocket> = ["a", "b", "c"]
        .map(|name| OnSocket::start(path(name)))
        .into();
    let names: Vec<String> = servers.iter().map(|server| server.path.clone()).collect();
    let (url, state) = (
        format!("memcached://unix:{}", names.join(",unix:")),
        path("state"),
    );
    for behavior in ["ketama", "ketama_weighted"] {
        let file = path("c.toml");
        fs::write(&file, format!("[memcached]\nring = \"{behavior}\"\n"))
            .expect("it can be written");
        let server = Server::tiercache(&["--hot", &url, "--state", &state, "--config", &file]);
        let set = pylibmc_at(&names, "set", behavior, 0, SOCKET_KEYS);
        assert_eq!(set, SOCKET_KEYS, "{behavior}");
        assert_eq!(found(&server, 0, SOCKET_KEYS), SOCKET_KEYS, "{behavior}");
        store_at(server.address(), SOCKET_KEYS, 2 * SOCKET_KEYS);
        let seen = pylibmc_at(&names, "get", behavior, SOCKET_KEYS, 2 * SOCKET_KEYS);
        assert_eq!(seen, SOCKET_KEYS, "{behavior}");
    }
}

#[test]
fn twemproxy_and_tiercache_find_each_others_keys() {
    for (key_hash, hash_tag) in [
        ("md5", ""),
        ("fnv1a_64", ""),
        ("fnv1_64", "{}"),
        ("fnv1a_32", ""),
        ("one_at_a_time", ""),
    ] {
        let pool = Pool::of_memcached(&[1, 2, 5]);
        let config = TempDir::new().expect("a temporary folder can be made");
        let file = config.path().join("c.toml");
        let options =
            format!("[memcached]\nkey_hash = \"{key_hash}\"\nhash_tag = \"{hash_tag}\"\n");
        fs::write(&file, options).expect("it can be written");
        let tiercache = pool.proxy(&["--config", &file.display().to_string()]);
        let twemproxy = Twemproxy::start(&pool, key_hash, hash_tag);
        store_at(twemproxy.address(), 0, PROXY_KEYS);
        assert_eq!(found(&tiercache, 0, PROXY_KEYS), PROXY_KEYS, "{key_hash}");
    }
}

fn pylibmc(pool: &Pool, mode: &str, behavior: &str, from: usize, to: usize) -> usize {
    pylibmc_at(&pool.names(), mode, behavior, from, to)
}

fn pylibmc_at(servers: &[String], mode: &str, behavior: &str, from: usize, to: usize) -> usize {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/pylibmc_pool.py");
    let output = Command::new(installed().join("venv/bin/python"))
        .arg(script)
        .args([mode, behavior, &from.to_string(), &to.to_string()])
        .args(servers)
        .output()
        .expect("scripts/test installs the Python clients");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    text.trim()
        .parse()
        .unwrap_or_else(|_| panic!("{text}\n{errors}"))
}

/// Every third key has a part that a hash tag would choose.
fn key(number: usize) -> String {
    match number % 3 {
        0 => format!("key:{{{}}}:{number}", number / 3),
        _ => format!("key:{number}"),
    }
}

fn store_at(address: SocketAddr, from: usize, to: usize) {
    let mut client = Client::connect(address).expect("it listens");
    for start in (from..to).step_by(PIPELINE) {
        let numbers = start..(start + PIPELINE).min(to);
        let requests: String = numbers
            .clone()
            .map(|number| {
                let key = key(number);
                format!("set {key} 0 0 {}\r\n{key}\r\n", key.len())
            })
            .collect();
        client.send(requests.as_bytes()).expect("it reads");
        for _ in numbers {
            assert_eq!(client.line().expect("it answers"), b"STORED");
        }
    }
}

fn found(server: &Server, from: usize, to: usize) -> usize {
    let mut client = server.connect();
    let mut found = 0;
    for start in (from..to).step_by(PIPELINE) {
        let keys: Vec<String> = (start..(start + PIPELINE).min(to)).map(key).collect();
        let request = format!("get {}\r\n", keys.join(" "));
        client.send(request.as_bytes()).expect("it reads");
        let hits = client.hits().expect("it answers");
        found += hits.iter().filter(|(key, value)| key == value).count();
    }
    found
}

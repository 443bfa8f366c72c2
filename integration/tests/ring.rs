//! Keys lie where other clients of the same pool put them: pylibmc and twemproxy are the judges.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use tiercache_integration::client::Client;
use tiercache_integration::pool::Pool;
use tiercache_integration::server::Server;
use tiercache_integration::twemproxy::Twemproxy;

use super::clients::installed;

/// Keys that each side sets and the other one finds.
const KEYS: usize = 50_000;
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
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/pylibmc_pool.py");
    let output = Command::new(installed().join("venv/bin/python"))
        .arg(script)
        .args([mode, behavior, &from.to_string(), &to.to_string()])
        .args(pool.names())
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

//! Clients that people use, each with its own idea of the protocol: tiercache serves them unchanged.
//!
//! The Python and Node drivers are in `clients/`; `scripts/test` installs their packages under `target/clients`, another
//! place is named by `TIERCACHE_TEST_CLIENTS`. Every driver prints how many operations it checked.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use memcache::{Client, MemcacheError};
use tiercache_integration::eventually;
use tiercache_integration::server::Server;

/// Operations that each driver must check at least.
const OPERATIONS_MIN: usize = 15;

/// An item of one second is gone after at most this long.
const EXPIRY_LIMIT: Duration = Duration::from_secs(5);

// A pure Python client.
#[test]
fn pymemcache_works_unchanged() {
    run_driver(&python(), "pymemcache_driver.py", &[]);
}

// libmemcached under Python.
#[test]
fn pylibmc_works_unchanged() {
    run_driver(&python(), "pylibmc_driver.py", &["text"]);
}

// The same with `binary=True`.
#[test]
fn pylibmc_works_unchanged_in_binary() {
    run_driver(&python(), "pylibmc_driver.py", &["binary"]);
}

// A Python client that speaks nothing but the binary protocol.
#[test]
fn bmemcached_works_unchanged() {
    run_driver(&python(), "bmemcached_driver.py", &[]);
}

// The client of the Node world.
#[test]
fn node_memcached_works_unchanged() {
    run_driver(Path::new("node"), "node_driver.js", &[]);
}

// The Node client of Heroku and others, which speaks nothing but the binary protocol.
#[test]
fn memjs_works_unchanged() {
    run_driver(Path::new("node"), "memjs_driver.js", &[]);
}

/// The interpreter that has the Python clients.
pub fn python() -> PathBuf {
    installed().join("venv/bin/python")
}

/// Runs a driver against a server of its own.
fn run_driver(interpreter: &Path, driver: &str, arguments: &[&str]) {
    let server = Server::tiercache(&["-m", "128"]);
    drive(&server, interpreter, driver, arguments);
}

/// Runs a driver against `server`; `arguments` follow its host and port.
pub fn drive(server: &Server, interpreter: &Path, driver: &str, arguments: &[&str]) {
    let output = run_client(server, interpreter, driver, arguments);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{driver} failed\n{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let operations: usize = text
        .lines()
        .find_map(|line| line.strip_suffix(" operations")?.parse().ok())
        .unwrap_or_else(|| panic!("{driver} does not say how many operations it checked: {text}"));
    assert!(
        operations >= OPERATIONS_MIN,
        "{driver} checked {operations} operations"
    );
}

/// As [`drive`], and may fail.
pub fn run_client(server: &Server, interpreter: &Path, driver: &str, arguments: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("clients")
        .join(driver);
    Command::new(interpreter)
        .arg(script)
        .arg("127.0.0.1")
        .arg(server.address().port().to_string())
        .args(arguments)
        .env("NODE_PATH", installed().join("node_modules"))
        .output()
        .unwrap_or_else(|error| {
            panic!(
                "run {}: {error}; scripts/test installs it",
                interpreter.display()
            )
        })
}

/// Where the packages of the Python and Node clients are.
pub fn installed() -> PathBuf {
    if let Some(folder) = env::var_os("TIERCACHE_TEST_CLIENTS") {
        return PathBuf::from(folder);
    }
    let own = env::current_exe().expect("a process knows its own file");
    // target/PROFILE/deps/integration-HASH
    own.ancestors()
        .nth(3)
        .expect("a test binary is three folders deep in target")
        .join("clients")
}

// The blocking client of the Rust world, over its text protocol.
#[test]
fn rust_memcache_works_unchanged() {
    run_memcache("&protocol=ascii");
}

// The same as it is when nobody asks for text: it speaks the binary protocol.
#[test]
fn rust_memcache_works_unchanged_in_binary() {
    run_memcache("");
}

fn run_memcache(options: &str) {
    let server = Server::tiercache(&["-m", "128"]);
    let url = format!("memcache://{}?timeout=20{options}", server.address());
    let client = Client::connect(url).expect("the client connects");
    store_and_read(&client).expect("stores and reads work");
    count_and_change(&client).expect("arithmetic and changes work");
    let large = "x".repeat(1_000_000);
    client
        .set("large", large.as_str(), 0)
        .expect("a value of 1 MB is stored");
    assert_eq!(
        client
            .get::<String>("large")
            .expect("a large value is read"),
        Some(large)
    );

    client
        .set("short", "lived", 1)
        .expect("an item of one second is stored");
    let gone = eventually(EXPIRY_LIMIT, || {
        client
            .get::<String>("short")
            .expect("the client reads")
            .is_none()
    });
    assert!(gone, "an item of one second is still there");
    client.flush().expect("flush works");
    assert_eq!(
        client.get::<String>("large").expect("the client reads"),
        None
    );
    let versions = client.version().expect("version works");
    assert_eq!(versions.len(), 1);
    assert_eq!(client.stats().expect("stats works").len(), 1);
}

fn store_and_read(client: &Client) -> Result<(), MemcacheError> {
    client.set("a", "one", 0)?;
    assert_eq!(client.get::<String>("a")?, Some("one".into()));
    assert_eq!(client.get::<String>("nothing")?, None);
    client.add("b", "two", 0)?;
    // In text this client does not tell NOT_STORED from STORED, in binary it is an error; the value tells.
    let _ = client.add("b", "three", 0);
    assert_eq!(client.get::<String>("b")?, Some("two".into()));
    client.replace("b", "four", 0)?;
    let _ = client.replace("nothing", "five", 0);
    assert_eq!(client.get::<String>("nothing")?, None);
    let all = client.gets::<String>(&["a", "b", "nothing"])?;
    assert_eq!(
        (all.len(), all["a"].as_str(), all["b"].as_str()),
        (2, "one", "four")
    );

    // The third part of the answer is the CAS unique.
    let all = client.gets::<(Vec<u8>, u32, Option<u64>)>(&["a", "b"])?;
    let cas = all["a"].2.expect("gets tells the CAS unique");
    assert!(client.cas("a", "six", 0, cas)?);
    assert!(!client.cas("a", "seven", 0, cas)?);
    assert_eq!(client.get::<String>("a")?, Some("six".into()));
    Ok(())
}

fn count_and_change(client: &Client) -> Result<(), MemcacheError> {
    client.set("n", 41, 0)?;
    assert_eq!(client.increment("n", 1)?, 42);
    assert_eq!(client.decrement("n", 2)?, 40);
    assert_eq!(client.get::<u64>("n")?, Some(40));
    client.set("text", "b", 0)?;
    client.append("text", "c")?;
    client.prepend("text", "a")?;
    assert_eq!(client.get::<String>("text")?, Some("abc".into()));
    assert!(client.touch("text", 1000)?);
    assert!(!client.touch("nothing", 1000)?);
    assert!(client.delete("text")?);
    assert!(!client.delete("text")?);
    Ok(())
}

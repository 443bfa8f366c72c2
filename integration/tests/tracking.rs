//! What is where, told in two ways: a running server lists every key of every tier once, and after a clean stop the
//! records of tracking name every dried key.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use tiercache_integration::client::Client;
use tiercache_integration::load::Items;
use tiercache_integration::process::ThreadTimes;
use tiercache_integration::server::{Server, tiercache_binary};
use tiercache_integration::tiers::{figures, wait_until_at_rest};
use tiercache_integration::{eventually, number_from_env, process};

const ITEMS: Items = Items { value_bytes: 512 };
const MIB: u64 = 1024 * 1024;
/// A clean stop may take this long here; the server's own limit is shorter.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// No server that is watched lives longer.
const WATCH_LIMIT: Duration = Duration::from_secs(600);
/// Keys that are asked for one by one: each is a process and a look through all records.
const SHOWN: u64 = 20;
/// What tracking may add to the resident bytes.
const RESIDENT_BYTES_MAX: u64 = 64 * MIB;

// Overwritten, deleted and promoted items included: a key is listed where it lives, and nowhere else.
#[test]
fn a_running_server_lists_every_key_of_every_tier_once() {
    let count = count();
    let folder = TempDir::new().expect("a temporary folder can be made");
    let server = filled(&folder, count);
    let mut client = server.connect();
    let overwritten = (0..count).step_by(7);
    let stored = ITEMS.store(&mut client, overwritten, 1);
    stored.expect("every seventh item is overwritten");
    Items::delete(&mut client, (0..count).step_by(10)).expect("every tenth item is deleted");
    // These have a copy in RAM then beside the one in dry.
    let read = ITEMS.read(&mut client, count / 4..count / 4 + 1000, newest);
    assert_eq!(read.expect("the server answers every get").wrong, [""; 0]);
    wait_until_at_rest(&server);

    let (keys, by_tier) = listing(&mut client);
    println!("{} keys by tier: {by_tier:?}", keys.len());
    let stats = server.stats();
    assert_once(
        &keys,
        (0..count).filter(|number| !number.is_multiple_of(10)),
    );
    assert_eq!(
        keys.len() as u64,
        stats.number("curr_items"),
        "{}",
        figures(&stats)
    );
    assert_eq!(by_tier.len(), 3, "{}", figures(&stats));
}

/// The second version of every seventh item, and no item whose number ends in 0.
fn newest(number: u64) -> Option<u64> {
    (!number.is_multiple_of(10)).then_some(u64::from(number.is_multiple_of(7)))
}

// After a clean stop every item lies in dry, so every key must have its record.
#[test]
fn every_dried_key_has_its_record() {
    let count = count();
    let folder = TempDir::new().expect("a temporary folder can be made");
    let mut server = filled(&folder, count);
    let overwritten = (0..count).step_by(7);
    let stored = ITEMS.store(&mut server.connect(), overwritten, 1);
    stored.expect("every seventh item is overwritten");

    let refused = inspect(&["keys"], &folder);
    let reason = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "a server runs on the folder");
    assert!(reason.contains("in use"), "{reason}");

    let status = server.terminate(STOP_LIMIT);
    assert!(status.success(), "SIGTERM ended with {status}");
    let listed = inspect(&["keys"], &folder);
    let text = String::from_utf8_lossy(&listed.stdout);
    assert!(listed.status.success(), "{listed:?}");
    let keys: Vec<String> = text.lines().map(key_of_line).collect();
    assert_once(&keys, 0..count);
    for number in (0..count).step_by((count / SHOWN) as usize) {
        let key = String::from_utf8(Items::key(number)).expect("the key is text");
        let shown = inspect(&["show", &key], &folder);
        let text = String::from_utf8_lossy(&shown.stdout);
        let first = text.lines().next().map(str::split_whitespace);
        let words: Vec<&str> = first.into_iter().flatten().collect();
        assert!(shown.status.success(), "{key}: {shown:?}");
        assert_eq!(words, ["key", &listed_key(number)]);
        assert!(text.contains(" at byte "), "{text}");
    }
    let absent = inspect(&["show", "absent"], &folder);
    assert!(!absent.status.success() && absent.stdout.is_empty());
}

// The figures that count are those of a release build and 1,000,000 items.
#[test]
fn tracking_costs_little() {
    let count = count();
    let [off, on] = ["off", "sled"].map(|backend| cost(count, backend));
    println!(
        "{count} items: {:?} of CPU without tracking, {:?} with it",
        off.process, on.process
    );
    println!("threads: {:?}", on.threads);
    assert_eq!(off.tracking, Duration::ZERO);
    let growth = on.resident_bytes.saturating_sub(off.resident_bytes);
    println!(
        "tracking: {:?} of CPU, {} MiB resident at rest, {} MiB at the peak",
        on.tracking,
        growth / MIB,
        on.resident_bytes_peak
            .saturating_sub(off.resident_bytes_peak)
            / MIB
    );
    assert!(growth <= RESIDENT_BYTES_MAX, "{} MiB", growth / MIB);
}

/// What a server took from its start to the end of its clean stop.
#[derive(Debug)]
struct Cost {
    /// CPU time of the threads of tracking and of its backend, and of all threads.
    tracking: Duration,
    process: Duration,
    /// At rest, with all items in place; and the highest until then.
    resident_bytes: u64,
    resident_bytes_peak: u64,
    threads: BTreeSet<String>,
}

fn cost(count: u64, backend: &str) -> Cost {
    let folder = TempDir::new().expect("a temporary folder can be made");
    thread::scope(|scope| {
        // Within the scope, so that a failure ends the server and with it the watch.
        let mut server = start(&folder, count, &["--tracking", backend]);
        let pid = server.pid();
        let watch = scope.spawn(move || {
            let mut times = ThreadTimes::default();
            eventually(WATCH_LIMIT, || !times.look(pid));
            times
        });
        store(&server, count);
        wait_until_at_rest(&server);
        let resident_bytes = process::resident_bytes(pid);
        let resident_bytes_peak = process::resident_bytes_peak(pid);
        server.terminate(STOP_LIMIT);
        let times = watch.join().expect("watching does not fail");
        Cost {
            tracking: times.sum(is_of_tracking),
            process: times.sum(|_| true),
            resident_bytes,
            resident_bytes_peak,
            threads: times.names().map(String::from).collect(),
        }
    })
}

/// True for the server's own thread and those that sled starts.
fn is_of_tracking(thread: &str) -> bool {
    thread == "tracking" || thread == "log flusher" || thread.starts_with("sled-io")
}

fn count() -> u64 {
    number_from_env("TIERCACHE_TEST_ITEMS", 50_000)
}

/// A server that holds a small part of `count` items in RAM.
fn start(folder: &TempDir, count: u64, arguments: &[&str]) -> Server {
    let dry = folder.path().display().to_string();
    let megabytes = (count / 15_625).clamp(8, 64).to_string();
    let sizes = ["-m", &megabytes, "--dry", &dry, "--dry-wait", "1s"];
    Server::tiercache(&[&sizes, arguments].concat())
}

fn filled(folder: &TempDir, count: u64) -> Server {
    // Several segments also from the few items of CI.
    let server = start(folder, count, &["--segment-size", "4m"]);
    store(&server, count);
    server
}

fn store(server: &Server, count: u64) {
    let mut client = server.connect();
    let stored = ITEMS.store(&mut client, 0..count, 0);
    stored.expect("every item is stored");
}

/// The keys of `lru_crawler metadump all` as it spells them, and how many each class has: the tiers are the classes.
fn listing(client: &mut Client) -> (Vec<String>, BTreeMap<String, u64>) {
    let reply = client.ask(b"lru_crawler metadump all\r\n");
    assert_eq!(reply.expect("the server answers"), b"OK");
    let mut keys = Vec::new();
    let mut by_class = BTreeMap::new();
    loop {
        let line = client.line().expect("the listing ends with END");
        if line == b"END" {
            return (keys, by_class);
        }
        let line = String::from_utf8_lossy(&line);
        let class = line.split(' ').find(|word| word.starts_with("cls="));
        let class = class.unwrap_or_else(|| panic!("{line:?} has no class"));
        *by_class.entry(class.to_owned()).or_insert(0) += 1;
        keys.push(key_of_line(&line));
    }
}

/// The key at the beginning of a line of either listing.
fn key_of_line(line: &str) -> String {
    let key = line
        .strip_prefix("key=")
        .and_then(|rest| rest.split(' ').next());
    key.unwrap_or_else(|| panic!("{line:?} names no key"))
        .to_owned()
}

/// The key of an item as both listings spell it.
fn listed_key(number: u64) -> String {
    String::from_utf8_lossy(&Items::key(number)).replace(':', "%3A")
}

/// `listed` are the keys of the items `numbers`, each once.
fn assert_once(listed: &[String], numbers: impl Iterator<Item = u64>) {
    let mut times: BTreeMap<&str, u64> = BTreeMap::new();
    for key in listed {
        *times.entry(key).or_insert(0) += 1;
    }
    let expected: BTreeSet<String> = numbers.map(listed_key).collect();
    // Ten of each kind tell the story.
    let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    let missing: Vec<_> = expected
        .iter()
        .filter(|key| !times.contains_key(key.as_str()))
        .collect();
    let foreign: Vec<_> = times
        .keys()
        .filter(|key| !expected.contains(**key))
        .collect();
    assert!(
        twice.is_empty() && missing.is_empty() && foreign.is_empty(),
        "{} of {} keys listed; {} more than once, as {:?}; {} missing, as {:?}; {} that are not there, as {:?}",
        listed.len(),
        expected.len(),
        twice.len(),
        &twice[..twice.len().min(10)],
        missing.len(),
        &missing[..missing.len().min(10)],
        foreign.len(),
        &foreign[..foreign.len().min(10)],
    );
}

/// Runs `tiercache COMMAND DIR ARGUMENT...`.
fn inspect(command: &[&str], folder: &TempDir) -> Output {
    Command::new(tiercache_binary())
        .arg(command[0])
        .arg(folder.path())
        .args(&command[1..])
        .output()
        .expect("the binary can be run")
}

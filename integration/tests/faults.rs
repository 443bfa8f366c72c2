//! Devices that are slow or full, and what the server must do then: few reads, bounded queues, every loss counted.
//!
//! Slowness is that of a build with the feature `mutants`. The tests that are ignored take a minute, or want to mount a
//! file system: `scripts/reliability` runs them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tiercache_integration::client::{Client, Stats};
use tiercache_integration::load::Items;
use tiercache_integration::server::{Server, mutants_binary, tiercache_binary};
use tiercache_integration::tiers::{figures, wait_until_at_rest};
use tiercache_integration::times::Times;
use tiercache_integration::{eventually, number_from_env};

const ITEMS: Items = Items { value_bytes: 1024 };
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// Clients that ask for one key at once.
const HERD: usize = 1000;
/// Seconds after which an item in RAM should have a copy in dry, and some for the mover to do it.
const DRY_AHEAD: Duration = Duration::from_secs(60 + 15);

/// A server with a dry folder of its own.
struct Tiered {
    server: Server,
    _scratch: TempDir,
}

impl Tiered {
    fn new(binary: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let scratch = TempDir::new().expect("a temporary folder can be made");
        let dry = scratch.path().join("dry").display().to_string();
        let mut server = Server::stopped(&[], binary, &[&["--dry", &dry], arguments].concat());
        set(&mut server, environment);
        server.start();
        Self {
            server,
            _scratch: scratch,
        }
    }

    fn store(&self, numbers: std::ops::Range<u64>) {
        let stored = ITEMS.store(&mut self.server.connect(), numbers, 0);
        stored.expect("every item is stored");
    }
}

fn set(server: &mut Server, environment: &[(&str, &str)]) {
    server.set_environment(
        environment
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect(),
    );
}

fn sum(stats: &Stats, prefix: &str) -> u64 {
    stats
        .iter()
        .filter(|(name, _)| name.starts_with(prefix))
        .map(|(name, _)| stats.number(name))
        .sum()
}

// A thousand clients ask at once for a key that only dry has: one read of a slow device answers them all.
#[test]
fn one_read_answers_a_herd() {
    let mut tiered = Tiered::new(&mutants_binary(), &["-m", "16", "-c", "2000"], &[]);
    tiered.store(0..2000);
    assert!(tiered.server.terminate(STOP_LIMIT).success());
    // Long enough for all to ask meanwhile, however busy the machine is.
    let read_ms = number_from_env("TIERCACHE_TEST_READ_MS", 200);
    set(
        &mut tiered.server,
        &[("TIERCACHE_READ_MS", &read_ms.to_string())],
    );
    tiered.server.start();
    let mut herd: Vec<Client> = (0..HERD).map(|_| tiered.server.connect()).collect();
    let before = tiered.server.stats();
    let key = Items::key(7);
    let request = [b"get ".as_slice(), &key, b"\r\n"].concat();
    let asked = Instant::now();
    for client in &mut herd {
        client.send(&request).expect("the server reads");
    }
    for client in &mut herd {
        let hits = client.hits().expect("the server answers");
        assert_eq!(hits, [(key.clone(), ITEMS.value(7, 0))]);
    }
    println!(
        "{HERD} clients answered in {:?} by a device that takes {read_ms} ms",
        asked.elapsed()
    );
    let after = tiered.server.stats();
    assert_eq!(after.growth(&before, "dry_reads"), 1, "{}", figures(&after));
    assert_eq!(after.growth(&before, "get_hits"), HERD as u64);
}

// Dry takes a megabyte per second, a client stores many: the queue keeps its bound, every item is either there
// or counted as dropped, and hardly a set waits.
#[test]
fn what_a_slow_device_cannot_take_is_counted() {
    let count = number_from_env("TIERCACHE_TEST_FLOOD_ITEMS", 60_000);
    let mut without = Server::stopped(&[], &mutants_binary(), &["-m", "16"]);
    without.start();
    println!("without dry: {}", store_singly(&without, count, || {}));
    let write_ms = number_from_env("TIERCACHE_TEST_WRITE_MS", 250).to_string();
    let slow = [("TIERCACHE_WRITE_MS", write_ms.as_str())];
    let tiered = Tiered::new(&mutants_binary(), &["-m", "16"], &slow);
    let mut queue_max = 0;
    let times = store_singly(&tiered.server, count, || {
        queue_max = queue_max.max(tiered.server.stats().number("dry_queue_bytes"));
    });
    let stats = tiered.server.stats();
    let dropped = sum(&stats, "demote_dropped_");
    println!("with a slow one: {times}; {dropped} dropped, at most {queue_max} bytes queued");
    assert!(
        dropped > count / 10,
        "the device was not too slow: {}",
        figures(&stats)
    );
    // -m / 8, and the table and footer that may pass the bound.
    assert!(
        queue_max <= (16 << 20) / 8 + (300 << 10),
        "{queue_max} bytes queued"
    );
    let found = ITEMS
        .read(&mut tiered.server.connect(), 0..count, |_| Some(0))
        .expect("the server answers");
    let stats = tiered.server.stats();
    assert_eq!(found.wrong, [""; 0]);
    let gone = sum(&stats, "demote_dropped_") + stats.number("dry_evictions");
    assert_eq!(
        stats.number("curr_items") + gone,
        count,
        "{}",
        figures(&stats)
    );
}

/// Stores items one after the other and calls `look` now and then; how long the sets took.
fn store_singly(server: &Server, count: u64, mut look: impl FnMut()) -> String {
    let mut client = server.connect();
    let mut times = Times::default();
    let began = Instant::now();
    for number in 0..count {
        let (key, value) = (Items::key(number), ITEMS.value(number, 0));
        let asked = Instant::now();
        let answer = client.set(&key, &value).expect("the server answers");
        times.push(asked.elapsed());
        assert_eq!(answer, b"STORED");
        if number % 1000 == 999 {
            look();
        }
    }
    let took = began.elapsed();
    format!("sets in {took:.1?}: {}", times.summary())
}

// A stop that is cut short by a second signal is no clean one, and nothing older comes back.
#[test]
fn a_second_signal_ends_a_drain_and_nothing_is_stale() {
    const COUNT: u64 = 20_000;
    let mut tiered = Tiered::new(
        &mutants_binary(),
        &["-m", "64", "--drain-timeout", "60s"],
        &[],
    );
    tiered.store(0..COUNT);
    assert!(tiered.server.terminate(STOP_LIMIT).success());
    set(&mut tiered.server, &[("TIERCACHE_WRITE_MS", "500")]);
    tiered.server.start();
    let newer = ITEMS.store(&mut tiered.server.connect(), 0..COUNT, 1);
    newer.expect("every item is stored");
    tiered.server.signal_stop();
    // The log still tells of the first stop.
    let stops = |server: &Server| {
        server
            .log()
            .matches("a second signal stops at once")
            .count()
    };
    let heard = eventually(STOP_LIMIT, || stops(&tiered.server) == 2);
    assert!(heard, "{}", tiered.server.log_tail());
    let cut_short = Instant::now();
    let status = tiered.server.terminate(STOP_LIMIT);
    println!(
        "the second signal ended it in {:?} with {status}",
        cut_short.elapsed()
    );
    assert_eq!(status.code(), Some(1), "{}", tiered.server.log_tail());
    set(&mut tiered.server, &[]);
    tiered.server.start();
    assert!(
        tiered.server.log_tail().contains("recovered after a crash"),
        "{}",
        tiered.server.log_tail()
    );
    let found = ITEMS
        .read(&mut tiered.server.connect(), 0..COUNT, |_| Some(1))
        .expect("the server answers");
    println!("{found:?}");
    assert_eq!(found.wrong, [""; 0]);
}

// At a load that dry can take, a crash finds nine tenths of what is older than a minute on disk.
#[test]
#[ignore = "takes 80 seconds: scripts/reliability"]
fn most_of_ram_is_on_disk_after_a_minute() {
    const COUNT: u64 = 40_000;
    let mut tiered = Tiered::new(&tiercache_binary(), &["-m", "64"], &[]);
    tiered.store(0..COUNT);
    let target = COUNT * 9 / 10;
    let dried = eventually(DRY_AHEAD, || {
        tiered.server.stats().number("dry_items") >= target
    });
    assert!(dried, "{}", figures(&tiered.server.stats()));
    let items = wait_until_at_rest(&tiered.server);
    tiered.server.kill9();
    tiered.server.start();
    let found = ITEMS
        .read(&mut tiered.server.connect(), 0..COUNT, |_| Some(0))
        .expect("the server answers");
    println!(
        "{items} of {COUNT} items dried ahead, {} warm after kill -9",
        found.hits
    );
    assert_eq!(found.wrong, [""; 0]);
    assert!(found.hits >= target, "{found:?}");
}

/// A small file system in memory, mounted while it lives.
struct Mounted(PathBuf);

impl Mounted {
    fn new(at: &Path, size: &str) -> Self {
        std::fs::create_dir_all(at).expect("a folder can be made");
        let options = format!("size={size},mode=0700");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(at)
            .status();
        assert!(status.expect("mount runs").success(), "mounting needs root");
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

// Somebody else fills dry's disk: clients notice nothing, no value is old, and room brings dry back within seconds.
#[test]
#[ignore = "mounts a file system: scripts/reliability"]
fn a_full_disk_is_no_business_of_clients() {
    const COUNT: u64 = 20_000;
    let rounds = number_from_env("TIERCACHE_TEST_FULL_ROUNDS", 30);
    let scratch = TempDir::new().expect("a temporary folder can be made");
    let _disk = Mounted::new(scratch.path(), "64m");
    let (folder, ballast) = (scratch.path().join("dry"), scratch.path().join("ballast"));
    let dry = folder.display().to_string();
    let server = Server::at(
        &tiercache_binary(),
        &["-m", "8", "--dry", &dry, "--dry-size", "40m"],
    );
    let mut paused = 0;
    for round in 0..rounds {
        if round == rounds / 3 {
            fill(&ballast);
        }
        let stored = ITEMS.store(&mut server.connect(), 0..COUNT, round % 2);
        stored.expect("a full disk refuses no set");
        paused += u64::from(server.stats().text("tier_state") == Some("paused"));
        let newest = |_| Some(round % 2);
        let found = ITEMS
            .read(&mut server.connect(), 0..COUNT, newest)
            .expect("the server answers");
        assert_eq!(found.wrong, [""; 0], "round {round}");
    }
    let stats = server.stats();
    println!(
        "paused in {paused} of {rounds} rounds, {} items dropped",
        sum(&stats, "demote_dropped_")
    );
    assert!(paused > 0, "the disk was never full: {}", figures(&stats));
    std::fs::remove_file(&ballast).expect("the ballast can be removed");
    let freed = Instant::now();
    let back = eventually(Duration::from_secs(10), || {
        server.stats().text("tier_state") == Some("ok")
    });
    println!("back {:?} after there was room", freed.elapsed());
    assert!(back, "{}", figures(&server.stats()));
}

/// Writes a file until the disk is full.
fn fill(ballast: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(ballast).expect("a file can be made");
    let block = vec![1; 64 << 10];
    while file.write_all(&block).is_ok() {}
}

//! A process that works on a folder is killed with SIGKILL at a random moment, again and again.
//!
//! The child notes in a mapped file what is the newest visible state of each key, as RAM would hold it:
//! after the kill of the copy below and before anything reads it. Whatever the next start loads must
//! be exactly that state, or nothing.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::{Acquire, Release};

use super::*;
use crate::memory::Words;

const KEYS: usize = 3000;
/// The word after the keys': records with this version or a lower one are flushed.
const FLUSHED: usize = KEYS;
const TRUTH_BYTES: usize = (KEYS + 1) * 8;
const FOLDER_VARIABLE: &str = "TIERCACHE_TEST_DRY_CHILD";
const CYCLES_VARIABLE: &str = "TIERCACHE_TEST_DRY_CYCLES";
const SEED_VARIABLE: &str = "TIERCACHE_TEST_SEED";

fn small(folder: &Path) -> DryConfig {
    DryConfig {
        journal_size: ByteSize(2048),
        queue_bytes: 256 << 10,
        ..config(folder)
    }
}

fn truth(folder: &Path) -> Words {
    let path = folder.parent().unwrap().join("truth");
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap();
    file.set_len(TRUTH_BYTES as u64).unwrap();
    Words::map_file(&file, TRUTH_BYTES).unwrap()
}

/// A third of the keys is reinserted when its segment leaves.
fn key_name(key: usize) -> String {
    if key.is_multiple_of(3) {
        format!("keep {key}")
    } else {
        format!("key {key}")
    }
}

fn content(key: usize, version: u64) -> String {
    format!("{key} {version} ").repeat(1 + (version as usize * 7 + key) % 200)
}

/// Checks what a start found against the truth and says how many keys hit.
fn verify(caller: &Caller, truth: &Words) -> usize {
    let hit = |key: usize| {
        let name = key_name(key);
        let Some(value) = caller.get(&name) else {
            return false;
        };
        let version = truth[key].load(Acquire);
        assert!(version > truth[FLUSHED].load(Acquire), "{name} was flushed");
        assert_eq!(value, content(key, version), "{name} has version {version}");
        true
    };
    let hits = (0..KEYS).filter(|key| hit(*key)).count();
    let stats = caller.dry.stats();
    assert_eq!(stats.corrupt, 0);
    // Reclaim may have begun already.
    assert!(
        hits as u64 == caller.report.rows || stats.journal_kills > 0,
        "{hits} hits, {:?}, {stats:?}",
        caller.report
    );
    hits
}

/// The child: works until it is killed.
fn work(folder: &Path, seed: u64) -> ! {
    let dry = Dry::open(&small(folder), Arc::new(Clock::manual(NOW))).unwrap();
    assert!(
        matches!(dry.start(), Start::New | Start::Recovered),
        "{:?}",
        dry.start()
    );
    let caller = Caller::over(dry);
    let truth = truth(folder);
    let hits = verify(&caller, &truth);
    println!("loaded {hits}");
    let mut random = Random(seed | 1);
    loop {
        let key = random.below(KEYS);
        let name = key_name(key);
        let version = caller.version.fetch_add(1, SeqCst);
        match random.below(3000) {
            0 => {
                caller.dry.flush(version).unwrap();
                truth[FLUSHED].store(version, Release);
                caller.slots.lock().clear();
            }
            1..900 => {
                caller.delete(&name);
                truth[key].store(0, Release);
            }
            _ => {
                caller.delete(&name);
                truth[key].store(version, Release);
                let facts = Facts {
                    version,
                    last_access: NOW,
                    flags: 7,
                    ..Facts::default()
                };
                let text = content(key, version);
                let hash = caller.hash(&name);
                if append(
                    &caller.dry,
                    &caller.slots,
                    hash,
                    &facts,
                    name.as_bytes(),
                    text.as_bytes(),
                    None,
                ) == Append::Busy
                {
                    caller.dry.wait_for_room(Duration::from_millis(1));
                }
            }
        }
    }
}

#[test]
fn nothing_stale_after_kill_9() {
    let seed = std::env::var(SEED_VARIABLE)
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(clock_seed);
    if let Ok(folder) = std::env::var(FOLDER_VARIABLE) {
        work(Path::new(&folder), seed);
    }
    let cycles = std::env::var(CYCLES_VARIABLE)
        .ok()
        .and_then(|cycles| cycles.parse().ok())
        .unwrap_or(20);
    println!("{SEED_VARIABLE}={seed} {CYCLES_VARIABLE}={cycles}");
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("dry");
    let mut random = Random(seed | 1);
    let mut rows = 0;
    for cycle in 0..cycles {
        let name = "dry::tests::kill_loop::nothing_stale_after_kill_9";
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env(FOLDER_VARIABLE, &folder)
            .env(SEED_VARIABLE, random.below(usize::MAX).to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = io::BufReader::new(child.stdout.take().unwrap());
        let loaded = loop {
            let mut line = String::new();
            assert_ne!(
                io::BufRead::read_line(&mut output, &mut line).unwrap(),
                0,
                "cycle {cycle}: the child died"
            );
            if let Some(at) = line.find("loaded ") {
                break line[at..].to_owned();
            }
        };
        rows += loaded
            .trim()
            .rsplit(' ')
            .next()
            .and_then(|hits| hits.parse::<usize>().ok())
            .unwrap();
        // The moment of the kill is what is random here, so it is time that is slept.
        std::thread::sleep(Duration::from_micros(random.below(60_000) as u64));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }
    let last = Caller::over(Dry::open(&small(&folder), Arc::new(Clock::manual(NOW))).unwrap());
    verify(&last, &truth(&folder));
    assert!(
        rows > cycles * KEYS / 10,
        "only {rows} rows were brought back in {cycles} starts"
    );
}

fn clock_seed() -> u64 {
    crate::clock::wall_us()
}

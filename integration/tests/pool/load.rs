//! Clients of proxies: random commands, each recorded with its times, so that the checker can judge what they saw.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tiercache_integration::client::{Client, parse_value_line};
use tiercache_integration::history::{Event, Histories, Record};
use tiercache_integration::random::Random;
use tiercache_integration::times::Times;
use tiercache_integration::value;

/// Keys that the clients fight over, a third of them on each server.
pub const KEYS: usize = 300;
/// Sizes of values: many more than one read of a socket brings in, and small ones.
const VALUE_BYTES: (u64, u64) = (40, 6000);
/// Records per value after which it is set anew.
const RECORDS_MAX: usize = 3;

/// The servers' names in keys; [`super::fleet`] routes them.
pub const PREFIXES: [&str; 3] = ["a:", "b:", "c:"];

/// The number of the server that has a key.
pub fn server_of(key: usize) -> usize {
    key % PREFIXES.len()
}

fn name(key: usize) -> String {
    format!("{}{key:04}", PREFIXES[server_of(key)])
}

/// What the clients of one test share.
#[derive(Clone)]
pub struct Shared {
    clock: Instant,
    serial: Arc<AtomicU64>,
    errors: Arc<AtomicU64>,
}

impl Shared {
    pub fn new() -> Shared {
        Shared {
            clock: Instant::now(),
            serial: Arc::new(AtomicU64::new(1)),
            errors: Arc::default(),
        }
    }

    /// Errors that all clients were answered so far.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    fn now(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64
    }
}

/// Which commands besides `get`, `set`, `add` and `delete` a client sends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Commands {
    /// None: a server that is started anew counts CAS uniques anew, and one that is read late gives old ones.
    Plain,
    /// `cas` and `append` too.
    All,
}

/// One client and what it saw.
pub struct Worker {
    shared: Shared,
    client: Client,
    random: Random,
    commands: Commands,
    pub seen: Seen,
}

/// What clients saw.
#[derive(Default)]
pub struct Seen {
    pub records: Vec<Record>,
    /// Values that nobody wrote under their key, and answers that are none.
    pub wrong: Vec<String>,
    pub operations: u64,
    pub hits: u64,
    pub misses: u64,
    /// Answers that said that it could not be done.
    pub errors: u64,
    /// Server and time of each operation since they were last taken.
    pub times: Vec<(usize, Duration)>,
}

impl Seen {
    pub fn add(&mut self, other: Seen) {
        self.records.extend(other.records);
        self.wrong.extend(other.wrong);
        self.operations += other.operations;
        self.hits += other.hits;
        self.misses += other.misses;
        self.errors += other.errors;
        self.times.extend(other.times);
    }

    /// What is wrong if every read may be so much older than it should be, in nanoseconds.
    pub fn violations(&self, age: u64) -> Vec<String> {
        let mut histories = Histories::new(KEYS);
        histories.add(self.records.iter().cloned().map(|mut record| {
            if matches!(record.event, Event::Hit { .. }) {
                record.start = record.start.saturating_sub(age);
            }
            record
        }));
        [&self.wrong[..], &histories.check()].concat()
    }

    /// The age, to the millisecond, by which reads were behind at most.
    pub fn staleness(&self, at_most: Duration) -> Duration {
        let explains = |ms: u64| self.violations(ms * 1_000_000).is_empty();
        let (mut low, mut high) = (0, at_most.as_millis() as u64);
        while low < high {
            let middle = low.midpoint(high);
            if explains(middle) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Duration::from_millis(low)
    }
}

impl Worker {
    pub fn new(shared: &Shared, client: Client, seed: u64, commands: Commands) -> Worker {
        Worker {
            shared: shared.clone(),
            client,
            random: Random::new(seed),
            commands,
            seen: Seen::default(),
        }
    }

    /// Stores every key once.
    pub fn fill(&mut self) -> io::Result<()> {
        (0..KEYS).try_for_each(|key| self.store("set", key, "", None))
    }

    /// Sends commands until at least `count` are answered and `time` has passed.
    pub fn run(&mut self, count: u64, time: Duration) -> io::Result<()> {
        let begun = Instant::now();
        for done in 0.. {
            if done >= count && begun.elapsed() >= time {
                break;
            }
            self.step()?;
        }
        Ok(())
    }

    /// Sends one command, or one and another that depends on its answer.
    pub fn step(&mut self) -> io::Result<()> {
        let key = self.random.below(KEYS as u64) as usize;
        let begun = Instant::now();
        match self.random.below(100) {
            0..60 => {
                self.read("get", key)?;
            }
            60..80 => self.store("set", key, "", None)?,
            80..84 => self.store("add", key, "", None)?,
            84..88 if self.commands == Commands::All => self.compare_and_store(key)?,
            88..92 if self.commands == Commands::All => self.append(key)?,
            84..92 => {
                self.read("gets", key)?;
            }
            _ => self.delete(key)?,
        }
        self.seen.operations += 1;
        self.seen.times.push((server_of(key), begun.elapsed()));
        Ok(())
    }

    /// Ids of the records that a value is made of, and its CAS unique where that was asked for.
    fn read(&mut self, verb: &str, key: usize) -> io::Result<Option<(Vec<u64>, Option<String>)>> {
        let start = self.shared.now();
        let line = self
            .client
            .ask(format!("{verb} {}\r\n", name(key)).as_bytes())?;
        if line == b"END" {
            self.seen.misses += 1;
            return Ok(None);
        }
        let Some((found, length)) = parse_value_line(&line) else {
            return Err(self.garbled(&line));
        };
        let right_key = found == name(key).as_bytes();
        let bytes = self.client.exact(length + 2)?;
        let end = self.client.line()?;
        if end != b"END" || !right_key {
            return Err(self.garbled(&line));
        }
        let finish = self.shared.now();
        self.seen.hits += 1;
        let text = String::from_utf8_lossy(&line).into_owned();
        let unique = text.split(' ').nth(4).map(str::to_owned);
        match value::ids(name(key).as_bytes(), &bytes[..length]) {
            Ok(ids) => {
                self.record(key, Event::Hit { ids: ids.clone() }, start, Some(finish));
                Ok(Some((ids, unique)))
            }
            Err(reason) => {
                self.seen.wrong.push(format!("{}: {reason}", name(key)));
                Ok(None)
            }
        }
    }

    fn store(
        &mut self,
        verb: &str,
        key: usize,
        tail: &str,
        replaced: Option<u64>,
    ) -> io::Result<()> {
        let id = self.shared.serial.fetch_add(1, Ordering::Relaxed);
        let event = match verb {
            "append" => Event::Append { id },
            _ => Event::Store { id, replaced },
        };
        let length = self.random.between(VALUE_BYTES.0, VALUE_BYTES.1) as usize;
        let bytes = value::record(name(key).as_bytes(), id, length);
        let head = format!("{verb} {} 0 0 {}{tail}\r\n", name(key), bytes.len());
        let request = [head.as_bytes(), &bytes, b"\r\n"].concat();
        self.write(key, event, &request)
    }

    fn compare_and_store(&mut self, key: usize) -> io::Result<()> {
        match self.read("gets", key)? {
            Some((ids, Some(unique))) => {
                self.store("cas", key, &format!(" {unique}"), ids.last().copied())
            }
            _ => Ok(()),
        }
    }

    fn append(&mut self, key: usize) -> io::Result<()> {
        match self.read("get", key)? {
            Some((ids, _)) if ids.len() < RECORDS_MAX => self.store("append", key, "", None),
            _ => self.store("set", key, "", None),
        }
    }

    fn delete(&mut self, key: usize) -> io::Result<()> {
        let request = format!("delete {}\r\n", name(key));
        self.write(key, Event::Delete, request.as_bytes())
    }

    fn write(&mut self, key: usize, event: Event, request: &[u8]) -> io::Result<()> {
        let start = self.shared.now();
        let reply = self.client.ask(request)?;
        let finish = self.shared.now();
        match (&reply[..], &event) {
            (b"STORED", Event::Store { .. } | Event::Append { .. })
            | (b"DELETED" | b"NOT_FOUND", Event::Delete) => {
                self.record(key, event, start, Some(finish));
            }
            (b"NOT_STORED" | b"EXISTS" | b"NOT_FOUND", _) => {}
            // It may have taken effect, or may do so later.
            (error, _) if error.starts_with(b"SERVER_ERROR ") => {
                self.seen.errors += 1;
                self.shared.errors.fetch_add(1, Ordering::Relaxed);
                self.record(key, event, start, None);
            }
            _ => return Err(self.garbled(&reply)),
        }
        Ok(())
    }

    fn garbled(&mut self, line: &[u8]) -> io::Error {
        self.seen
            .wrong
            .push(format!("answered {}", line.escape_ascii()));
        io::ErrorKind::InvalidData.into()
    }

    fn record(&mut self, key: usize, event: Event, start: u64, finish: Option<u64>) {
        self.seen.records.push(Record {
            key,
            event,
            start,
            finish,
        });
    }
}

/// How long operations took; of those on the servers that `of` takes.
pub fn quantiles(times: &[(usize, Duration)], of: impl Fn(usize) -> bool) -> String {
    let chosen = times.iter().filter(|(server, _)| of(*server));
    Times::from_iter(chosen.map(|(_, time)| *time)).summary()
}

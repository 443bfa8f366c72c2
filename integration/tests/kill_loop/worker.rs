//! One client of the kill loop: random commands on random keys, every one of them recorded, until the server is gone.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tiercache_integration::client::{Client, parse_value_line};
use tiercache_integration::history::{Event, Record};
use tiercache_integration::random::Random;

use super::keys::{
    CONTENDED_KEYS, Class, STALE, Size, class, counts_down, fresh_value, grows_at_its_beginning,
    ids, name,
};

/// Records per value after which it is set anew.
const RECORDS_MAX: usize = 4;
/// Reads under way at once while every key is read.
const PIPELINE: usize = 64;
/// How long a value with an exptime lives, in seconds.
const TTL_SECONDS: (u64, u64) = (1, 2);
/// What an item may outlive its exptime by: the server counts whole seconds.
const TTL_SLACK: Duration = Duration::from_secs(1);
/// CAS uniques that a client remembers to try them again much later.
const OLD_UNIQUES_MAX: usize = 200;

/// What all clients of one test share.
pub struct Shared {
    clock: Instant,
    next_serial: AtomicU64,
    /// Keys that were written since the server was started: what they hold need not be in dry.
    written: Vec<AtomicBool>,
    size: Size,
}

impl Shared {
    pub fn new(size: Size) -> Self {
        Self {
            clock: Instant::now(),
            next_serial: AtomicU64::new(1),
            written: (0..size.keys).map(|_| AtomicBool::new(false)).collect(),
            size,
        }
    }

    /// Forgets which keys were written: after a `kill -9` whatever still hits comes from dry.
    pub fn server_restarted(&self) {
        for written in &self.written {
            written.store(false, Ordering::Relaxed);
        }
    }

    pub fn now(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64
    }

    fn serial(&self) -> u64 {
        self.next_serial.fetch_add(1, Ordering::Relaxed)
    }
}

/// What one client did and found.
#[derive(Default)]
pub struct Outcome {
    pub records: Vec<Record>,
    /// Values that no step of this test wrote.
    pub corrupt: Vec<String>,
    /// Overwrites and deletes of keys whose only copy was in dry.
    pub dried_replaced: u64,
    pub hits: u64,
    pub misses: u64,
    /// Uniques that were seen, with the key and value they belonged to.
    pub uniques: Vec<(usize, u64, u64)>,
}

/// A value that was read.
struct Found {
    /// Names the value; with [`STALE`] where it is marked so.
    id: u64,
    records: usize,
    unique: Option<u64>,
    won: bool,
}

pub struct Worker {
    pub shared: Arc<Shared>,
    pub random: Random,
    pub client: Client,
    pub outcome: Outcome,
}

impl Worker {
    /// Stores every key of `keys`.
    pub fn fill(&mut self, keys: impl Iterator<Item = usize>) -> io::Result<()> {
        for key in keys {
            self.set(key)?;
        }
        Ok(())
    }

    /// Stores `count` keys at random: what the kills cost is made up for, and RAM overflows into dry.
    pub fn refill(&mut self, count: u64) -> io::Result<()> {
        for _ in 0..count {
            let key = self.random.below(self.shared.size.keys as u64) as usize;
            // Some of what expires should be left alone until it has.
            if class(key) != Class::Expiring || self.random.chance(5) {
                self.set(key)?;
            }
        }
        Ok(())
    }

    /// Reads every key once: what a crash brought back is seen before it is written over.
    pub fn read_all(&mut self) -> io::Result<()> {
        let all = self.shared.size.keys;
        for first in (0..all).step_by(PIPELINE) {
            let keys = first..all.min(first + PIPELINE);
            let (leased, others): (Vec<usize>, Vec<usize>) =
                keys.partition(|key| class(*key) == Class::Leased);
            let keys = if self.shared.size.remote {
                self.read_together(&others)?;
                self.bring_up(&leased)?;
                leased
            } else {
                (first..all.min(first + PIPELINE)).collect()
            };
            let start = self.shared.now();
            let requests: String = keys.iter().copied().map(read_request).collect();
            self.client.send(requests.as_bytes())?;
            for key in keys {
                self.read_reply(key, start)?;
            }
        }
        Ok(())
    }

    /// Reads keys whose marks do not matter with one request.
    fn read_together(&mut self, keys: &[usize]) -> io::Result<()> {
        let names: String = keys.iter().map(|key| format!(" {}", name(*key))).collect();
        let start = self.shared.now();
        self.client.send(format!("gets{names}\r\n").as_bytes())?;
        self.outcome.misses += keys.len() as u64;
        loop {
            let line = self.client.line()?;
            if line == b"END" {
                return Ok(());
            }
            let found = parse_value_line(&line);
            let key = keys
                .iter()
                .find(|key| found.is_some_and(|(found, _)| found == name(**key).as_bytes()));
            let key = *key.ok_or(io::ErrorKind::InvalidData)?;
            self.outcome.misses -= 1;
            self.read_value(key, &line, start)?;
        }
    }

    /// Asks for keys together; what they hold is read right afterwards.
    fn bring_up(&mut self, keys: &[usize]) -> io::Result<()> {
        let names: String = keys.iter().map(|key| format!(" {}", name(*key))).collect();
        self.client.send(format!("get{names}\r\n").as_bytes())?;
        self.client.hits().map(drop)
    }

    /// Reads, replaces or deletes each of `keys`, which the other clients do at the same time.
    pub fn race(&mut self, keys: &[usize]) -> io::Result<()> {
        for &key in keys {
            match self.random.below(8) {
                0..5 => {
                    self.read(key)?;
                }
                5..7 => self.replace(key)?,
                _ => self.delete(key)?,
            }
        }
        Ok(())
    }

    /// Reads keys at random and replaces or deletes those that are there, until `count` dried ones were.
    pub fn replace_dried(&mut self, count: u64) -> io::Result<()> {
        // Every second key a miss would be a poor cache; ten times the count ends a test that finds nothing.
        for _ in 0..count * 10 {
            if self.outcome.dried_replaced >= count {
                break;
            }
            let key = self.random.below(self.shared.size.keys as u64) as usize;
            if self.read(key)?.is_none() {
                continue;
            }
            if self.random.chance(30) {
                self.delete(key)?;
            } else {
                self.replace(key)?;
            }
        }
        Ok(())
    }

    /// Mixed load until the connection breaks.
    pub fn run(&mut self) -> io::Result<()> {
        loop {
            let contended = self.random.chance(20);
            let keys = if contended {
                CONTENDED_KEYS
            } else {
                self.shared.size.keys as u64
            };
            let key = self.random.below(keys) as usize;
            match (self.random.below(100), class(key)) {
                (0..60, _) => {
                    let miss = self.read(key)?.is_none();
                    if miss && self.random.chance(50) {
                        self.set(key)?;
                    }
                }
                (60..72, _) => self.replace(key)?,
                (72..75, _) => self.add(key)?,
                (75..80, Class::Leased) => self.renew(key)?,
                (75..80, _) => self.compare_and_store(key)?,
                (80..89, Class::Counter) => self.count(key)?,
                (80..89, Class::Leased) => self.renew(key)?,
                (80..89, Class::Chain) => self.append(key)?,
                (80..94, _) => self.touch(key)?,
                _ => self.delete(key)?,
            }
        }
    }

    fn read(&mut self, key: usize) -> io::Result<Option<Found>> {
        let start = self.shared.now();
        self.client.send(read_request(key).as_bytes())?;
        self.read_reply(key, start)
    }

    fn read_reply(&mut self, key: usize, start: u64) -> io::Result<Option<Found>> {
        let line = self.client.line()?;
        if line == b"END" || line == b"EN" {
            self.outcome.misses += 1;
            return Ok(None);
        }
        let found = self.read_value(key, &line, start)?;
        if line.starts_with(b"VALUE") {
            self.client.line()?;
        }
        Ok(found)
    }

    /// The value that follows its line.
    fn read_value(&mut self, key: usize, line: &[u8], start: u64) -> io::Result<Option<Found>> {
        let text = String::from_utf8_lossy(line).into_owned();
        let mut words = text.split(' ').skip(2);
        let (length, unique, marks) = match parse_value_line(line) {
            Some((_, length)) => (Some(length), words.nth(2), Vec::new()),
            None => {
                let length = text
                    .strip_prefix("VA ")
                    .and_then(|rest| rest.split(' ').next()?.parse().ok());
                let unique = words.next().and_then(|word| word.strip_prefix('c'));
                (length, unique, words.collect())
            }
        };
        let length = length.ok_or(io::ErrorKind::InvalidData)?;
        let mut bytes = self.client.exact(length + 2)?;
        bytes.truncate(length);
        let finish = self.shared.now();
        self.outcome.hits += 1;
        let mut ids = match ids(key, &bytes) {
            Ok(ids) => ids,
            Err(reason) => {
                let shown = bytes[..bytes.len().min(80)].escape_ascii();
                self.outcome
                    .corrupt
                    .push(format!("{}: {reason}: {shown}", name(key)));
                return Ok(None);
            }
        };
        let records = ids.len();
        if marks.contains(&"X") {
            ids = ids.into_iter().map(|id| id | STALE).collect();
        }
        let found = Found {
            id: *ids.last().expect("a value has a record"),
            records,
            unique: unique.and_then(|word| word.parse().ok()),
            won: marks.contains(&"W"),
        };
        self.record(key, Event::Hit { ids }, start, Some(finish));
        if let Some(cas) = found.unique {
            self.record(
                key,
                Event::Unique { cas, id: found.id },
                start,
                Some(finish),
            );
        }
        if found.won {
            self.record(key, Event::Won { id: found.id }, start, Some(finish));
        }
        Ok(Some(found))
    }

    fn set(&mut self, key: usize) -> io::Result<()> {
        self.store("set", key, "", None).map(drop)
    }

    fn add(&mut self, key: usize) -> io::Result<()> {
        self.store("add", key, "", None).map(drop)
    }

    /// `set` or `replace`.
    fn replace(&mut self, key: usize) -> io::Result<()> {
        let verb = if self.random.chance(50) {
            "set"
        } else {
            "replace"
        };
        let untouched = !self.shared.written[key].load(Ordering::Relaxed);
        let stored = self.store(verb, key, "", None)?;
        self.outcome.dried_replaced += u64::from(untouched && stored);
        Ok(())
    }

    /// Reads a key and stores if nobody else did meanwhile, or tries a unique that it read long ago.
    fn compare_and_store(&mut self, key: usize) -> io::Result<()> {
        let old = self.outcome.uniques.len();
        if old == OLD_UNIQUES_MAX && self.random.chance(50) {
            let (key, unique, id) = self
                .outcome
                .uniques
                .swap_remove(self.random.below(old as u64) as usize);
            return self
                .store("cas", key, &format!(" {unique}"), Some(id))
                .map(drop);
        }
        let Some(Found {
            id,
            unique: Some(unique),
            ..
        }) = self.read(key)?
        else {
            return Ok(());
        };
        if old < OLD_UNIQUES_MAX {
            self.outcome.uniques.push((key, unique, id));
        }
        self.store("cas", key, &format!(" {unique}"), Some(id))
            .map(drop)
    }

    /// `append` or `prepend`, where the value is not too long for it.
    fn append(&mut self, key: usize) -> io::Result<()> {
        let verb = if grows_at_its_beginning(key) {
            "prepend"
        } else {
            "append"
        };
        match self.read(key)? {
            Some(found) if found.records < RECORDS_MAX => {
                let (id, bytes) = fresh_value(key, self.shared.serial(), &mut self.random);
                let mut request =
                    format!("{verb} {} 0 0 {}\r\n", name(key), bytes.len()).into_bytes();
                request.extend_from_slice(&bytes);
                request.extend_from_slice(b"\r\n");
                self.write(key, Event::Append { id }, &request, b"STORED")
                    .map(drop)
            }
            _ => self.set(key),
        }
    }

    /// Marks a fresh value as stale, or renews a stale one if the server says that it is ours to renew.
    fn renew(&mut self, key: usize) -> io::Result<()> {
        let Some(Found {
            id,
            unique: Some(unique),
            won,
            ..
        }) = self.read(key)?
        else {
            return Ok(());
        };
        if id & STALE == 0 {
            let request = format!("md {} I C{unique}\r\n", name(key));
            let event = Event::Store {
                id: id | STALE,
                replaced: Some(id),
            };
            return self.write(key, event, request.as_bytes(), b"HD").map(drop);
        }
        if !won {
            return Ok(());
        }
        let (fresh, bytes) = fresh_value(key, self.shared.serial(), &mut self.random);
        let mut request = format!("ms {} {} C{unique}\r\n", name(key), bytes.len()).into_bytes();
        request.extend_from_slice(&bytes);
        request.extend_from_slice(b"\r\n");
        let event = Event::Store {
            id: fresh,
            replaced: Some(id),
        };
        self.write(key, event, &request, b"HD").map(drop)
    }

    fn count(&mut self, key: usize) -> io::Result<()> {
        let (verb, down) = if counts_down(key) {
            ("decr", true)
        } else {
            ("incr", false)
        };
        let event = |result| {
            if down {
                Event::Decrement { result }
            } else {
                Event::Increment { result }
            }
        };
        let start = self.shared.now();
        self.mark_written(key);
        let reply = self
            .client
            .ask(format!("{verb} {} 1\r\n", name(key)).as_bytes());
        let finish = self.shared.now();
        match reply {
            Ok(reply) => {
                let text = std::str::from_utf8(&reply).ok();
                let result = text.and_then(|text| text.trim_end().parse().ok());
                if result.is_some() {
                    self.record(key, event(result), start, Some(finish));
                } else if reply != b"NOT_FOUND" {
                    self.outcome.corrupt.push(format!(
                        "{verb} {}: {}",
                        name(key),
                        reply.escape_ascii()
                    ));
                }
                Ok(())
            }
            Err(error) => {
                self.record(key, event(None), start, None);
                Err(error)
            }
        }
    }

    /// Changes only the exptime: of most keys to later than the test.
    fn touch(&mut self, key: usize) -> io::Result<()> {
        let seconds = self.exptime(key).unwrap_or(100_000);
        let start = self.shared.now();
        // `gat` does not tell whether a value is marked stale.
        let done = if class(key) != Class::Leased && self.random.chance(50) {
            let request = format!("gat {seconds} {}\r\n", name(key));
            let sent = self.client.send(request.as_bytes());
            sent.and_then(|()| self.read_reply(key, start).map(drop))
        } else {
            self.client
                .ask(format!("touch {} {seconds}\r\n", name(key)).as_bytes())
                .map(drop)
        };
        if class(key) == Class::Expiring {
            let until = self.until(seconds);
            self.record(key, Event::Lives { id: None, until }, start, None);
        }
        done
    }

    fn delete(&mut self, key: usize) -> io::Result<()> {
        let untouched = !self.shared.written[key].load(Ordering::Relaxed);
        let request = format!("delete {}\r\n", name(key));
        let deleted = self.write(key, Event::Delete, request.as_bytes(), b"DELETED")?;
        self.outcome.dried_replaced += u64::from(untouched && deleted);
        Ok(())
    }

    /// Stores a fresh value by `verb`; `tail` is what follows the length, `replaced` the value that it belongs to.
    fn store(
        &mut self,
        verb: &str,
        key: usize,
        tail: &str,
        replaced: Option<u64>,
    ) -> io::Result<bool> {
        let (id, bytes) = fresh_value(key, self.shared.serial(), &mut self.random);
        let exptime = self.exptime(key);
        let head = format!(
            "{verb} {} 0 {} {}{tail}\r\n",
            name(key),
            exptime.unwrap_or(0),
            bytes.len()
        );
        let request = [head.as_bytes(), &bytes, b"\r\n"].concat();
        let start = self.shared.now();
        let written = self.write(key, Event::Store { id, replaced }, &request, b"STORED");
        if let Some(seconds) = exptime {
            let until = self.until(seconds);
            self.record(
                key,
                Event::Lives {
                    id: Some(id),
                    until,
                },
                start,
                None,
            );
        }
        written
    }

    /// Sends a write and records it: done (then true), refused (then it did not happen), or without an answer.
    fn write(&mut self, key: usize, event: Event, request: &[u8], done: &[u8]) -> io::Result<bool> {
        self.mark_written(key);
        let start = self.shared.now();
        let reply = self.client.ask(request);
        let finish = self.shared.now();
        match &reply {
            Ok(reply) if reply == done => self.record(key, event, start, Some(finish)),
            // Nothing was there, which is what a delete is for.
            Ok(reply) if event == Event::Delete && reply == b"NOT_FOUND" => {
                self.record(key, event, start, Some(finish));
            }
            Ok(reply)
                if matches!(
                    &reply[..],
                    b"NOT_STORED" | b"EXISTS" | b"NOT_FOUND" | b"EX" | b"NF"
                ) => {}
            // An error says nothing about whether it took effect.
            Ok(_) | Err(_) => self.record(key, event, start, None),
        }
        reply.map(|reply| reply == done)
    }

    fn exptime(&mut self, key: usize) -> Option<u64> {
        let seconds = self.random.between(TTL_SECONDS.0, TTL_SECONDS.1);
        (class(key) == Class::Expiring).then_some(seconds)
    }

    /// Until when a value may be served that got an exptime of so many seconds before now.
    fn until(&self, seconds: u64) -> u64 {
        self.shared.now() + (Duration::from_secs(seconds) + TTL_SLACK).as_nanos() as u64
    }

    fn mark_written(&self, key: usize) {
        self.shared.written[key].store(true, Ordering::Relaxed);
    }

    fn record(&mut self, key: usize, event: Event, start: u64, finish: Option<u64>) {
        self.outcome.records.push(Record {
            key,
            event,
            start,
            finish,
        });
    }
}

/// Asks for a value and its CAS unique; the meta form for keys whose marks matter.
fn read_request(key: usize) -> String {
    if class(key) == Class::Leased {
        format!("mg {} c v\r\n", name(key))
    } else {
        format!("gets {}\r\n", name(key))
    }
}

//! One client of the kill loop: random commands on random keys, every one of them recorded, until the server is gone.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use tiercache_integration::client::{Client, parse_value_line, set_request};
use tiercache_integration::history::{Event, Record};
use tiercache_integration::random::Random;
use tiercache_integration::value;

/// Keys in all; at about 1 KiB each they are several times the RAM of the server.
pub const KEYS: usize = 24_000;
/// Keys that all clients fight over.
const CONTENDED_KEYS: u64 = 200;
/// One key in this many is a counter, the others hold chains of records.
const COUNTER_EVERY: usize = 8;
/// Low bits of a counter that its increments may use; the bits above name the `set` that began it.
const COUNTER_BITS: u32 = 20;
/// Records are this long, so that values grow to a few KiB by appends.
const RECORD_BYTES: (u64, u64) = (200, 1600);
/// Records per value after which it is set anew.
const RECORDS_MAX: usize = 4;

/// What all clients of one test share.
pub struct Shared {
    clock: Instant,
    next_id: AtomicU64,
    /// Keys that were written since the server was started: what they hold need not be in dry.
    written: Vec<AtomicBool>,
}

impl Shared {
    pub fn new() -> Self {
        Self {
            clock: Instant::now(),
            next_id: AtomicU64::new(1),
            written: (0..KEYS).map(|_| AtomicBool::new(false)).collect(),
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

    fn id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
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
}

pub struct Worker<'a> {
    pub shared: &'a Shared,
    pub random: Random,
    pub client: Client,
    pub outcome: Outcome,
}

impl Worker<'_> {
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
            let key = self.random.below(KEYS as u64) as usize;
            self.set(key)?;
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
            let key = self.random.below(KEYS as u64) as usize;
            let untouched = !self.shared.written[key].load(Ordering::Relaxed);
            if self.get(key, b"get")?.is_none() {
                continue;
            }
            if self.random.chance(30) {
                self.delete(key)?;
            } else {
                self.set(key)?;
            }
            self.outcome.dried_replaced += u64::from(untouched);
        }
        Ok(())
    }

    /// Mixed load until the connection breaks.
    pub fn run(&mut self) -> io::Result<()> {
        loop {
            let contended = self.random.chance(20);
            let key = self.random.below(if contended {
                CONTENDED_KEYS
            } else {
                KEYS as u64
            }) as usize;
            match self.random.below(100) {
                0..60 => {
                    let miss = self.get(key, b"get")?.is_none();
                    if miss && self.random.chance(50) {
                        self.set(key)?;
                    }
                }
                60..75 => self.set(key)?,
                75..78 => self.add(key)?,
                78..83 => self.compare_and_store(key)?,
                83..91 if is_counter(key) => self.increment(key)?,
                83..88 => self.append(key)?,
                88..91 => self.touch(key)?,
                91..94 => {
                    self.get(key, b"gat 100000")?;
                }
                _ => self.delete(key)?,
            }
        }
    }

    fn get(&mut self, key: usize, command: &[u8]) -> io::Result<Option<Vec<u64>>> {
        let mut request = command.to_vec();
        request.extend_from_slice(format!(" {}\r\n", name(key)).as_bytes());
        let start = self.shared.now();
        self.client.send(&request)?;
        let hit = self.client.hits()?.pop();
        let finish = self.shared.now();
        let Some((_, bytes)) = hit else {
            self.outcome.misses += 1;
            return Ok(None);
        };
        self.outcome.hits += 1;
        Ok(self.seen(key, &bytes, start, finish))
    }

    /// Records a value that was read; its ids unless it is damaged.
    fn seen(&mut self, key: usize, bytes: &[u8], start: u64, finish: u64) -> Option<Vec<u64>> {
        let ids = if is_counter(key) {
            let number = std::str::from_utf8(bytes)
                .ok()
                .and_then(|text| text.parse().ok());
            number
                .map(|number| vec![number])
                .ok_or_else(|| String::from("not a number"))
        } else {
            value::ids(name(key).as_bytes(), bytes)
        };
        match ids {
            Ok(ids) => {
                self.record(key, Event::Hit { ids: ids.clone() }, start, Some(finish));
                Some(ids)
            }
            Err(reason) => {
                let shown = bytes[..bytes.len().min(80)].escape_ascii();
                self.outcome
                    .corrupt
                    .push(format!("{}: {reason}: {shown}", name(key)));
                None
            }
        }
    }

    fn set(&mut self, key: usize) -> io::Result<()> {
        let (id, bytes) = self.fresh_value(key);
        let event = Event::Store { id, replaced: None };
        self.write(
            key,
            event,
            &set_request(name(key).as_bytes(), &bytes),
            b"STORED",
        )
    }

    fn add(&mut self, key: usize) -> io::Result<()> {
        let (id, bytes) = self.fresh_value(key);
        let mut request = set_request(name(key).as_bytes(), &bytes);
        request[..3].copy_from_slice(b"add");
        let event = Event::Store { id, replaced: None };
        self.write(key, event, &request, b"STORED")
    }

    fn compare_and_store(&mut self, key: usize) -> io::Result<()> {
        let start = self.shared.now();
        self.client
            .send(format!("gets {}\r\n", name(key)).as_bytes())?;
        let line = self.client.line()?;
        if line == b"END" {
            return Ok(());
        }
        let (_, length) = parse_value_line(&line).ok_or(io::ErrorKind::InvalidData)?;
        let cas = line
            .rsplit(|&byte| byte == b' ')
            .next()
            .unwrap_or_default()
            .to_vec();
        let mut bytes = self.client.exact(length + 2)?;
        bytes.truncate(length);
        self.client.line()?;
        let finish = self.shared.now();
        let Some(replaced) = self
            .seen(key, &bytes, start, finish)
            .and_then(|ids| ids.last().copied())
        else {
            return Ok(());
        };
        let (id, bytes) = self.fresh_value(key);
        let mut request = format!("cas {} 0 0 {} ", name(key), bytes.len()).into_bytes();
        request.extend_from_slice(&cas);
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(&bytes);
        request.extend_from_slice(b"\r\n");
        let event = Event::Store {
            id,
            replaced: Some(replaced),
        };
        self.write(key, event, &request, b"STORED")
    }

    fn append(&mut self, key: usize) -> io::Result<()> {
        let long = self
            .get(key, b"get")?
            .is_none_or(|ids| ids.len() >= RECORDS_MAX);
        if long {
            return self.set(key);
        }
        let (id, bytes) = self.fresh_value(key);
        let mut request = format!("append {} 0 0 {}\r\n", name(key), bytes.len()).into_bytes();
        request.extend_from_slice(&bytes);
        request.extend_from_slice(b"\r\n");
        self.write(key, Event::Append { id }, &request, b"STORED")
    }

    fn increment(&mut self, key: usize) -> io::Result<()> {
        let start = self.shared.now();
        self.mark_written(key);
        let reply = self
            .client
            .ask(format!("incr {} 1\r\n", name(key)).as_bytes());
        let finish = self.shared.now();
        match reply {
            Ok(reply) => {
                let number = std::str::from_utf8(&reply)
                    .ok()
                    .and_then(|text| text.parse().ok());
                if number.is_some() {
                    self.record(
                        key,
                        Event::Increment { result: number },
                        start,
                        Some(finish),
                    );
                } else if reply != b"NOT_FOUND" {
                    self.outcome.corrupt.push(format!(
                        "incr {}: {}",
                        name(key),
                        reply.escape_ascii()
                    ));
                }
                Ok(())
            }
            Err(error) => {
                self.record(key, Event::Increment { result: None }, start, None);
                Err(error)
            }
        }
    }

    /// Changes only the exptime, which is later than the test.
    fn touch(&mut self, key: usize) -> io::Result<()> {
        self.client
            .ask(format!("touch {} 100000\r\n", name(key)).as_bytes())?;
        Ok(())
    }

    fn delete(&mut self, key: usize) -> io::Result<()> {
        let request = format!("delete {}\r\n", name(key));
        self.write(key, Event::Delete, request.as_bytes(), b"DELETED")
    }

    /// Sends a write and records it: done, refused (then it did not happen), or without an answer.
    fn write(&mut self, key: usize, event: Event, request: &[u8], done: &[u8]) -> io::Result<()> {
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
            Ok(reply) if matches!(&reply[..], b"NOT_STORED" | b"EXISTS" | b"NOT_FOUND") => {}
            // An error says nothing about whether it took effect.
            Ok(_) | Err(_) => self.record(key, event, start, None),
        }
        reply.map(|_| ())
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

    /// A value that was never written before, and the id that names it.
    fn fresh_value(&mut self, key: usize) -> (u64, Vec<u8>) {
        let id = self.shared.id();
        if is_counter(key) {
            let number = id << COUNTER_BITS;
            return (number, number.to_string().into_bytes());
        }
        let length = self.random.between(RECORD_BYTES.0, RECORD_BYTES.1) as usize;
        (id, value::record(name(key).as_bytes(), id, length))
    }
}

fn is_counter(key: usize) -> bool {
    key.is_multiple_of(COUNTER_EVERY)
}

fn name(key: usize) -> String {
    format!("key:{key:08}")
}

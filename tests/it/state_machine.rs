//! Random commands of both text syntaxes over all tiers, with stops and crashes, against a plain map.
//!
//! The map knows what a key may hold. A miss is always allowed; a hit must be exactly what the map
//! holds: value, flags, CAS unique, a time to live that only falls. `TIERCACHE_TEST_SEED` repeats a run,
//! `TIERCACHE_TEST_CASES` makes it longer.

mod step;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use proptest::collection;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use self::step::Step;
use crate::support::Server;

/// Keys in play; with [`VALUE_BYTES_MAX`] about twice what RAM holds.
const KEYS: u8 = 150;
const VALUE_BYTES_MAX: usize = 50_000;
const STEPS: usize = 400;
const CASES: u32 = 4;
/// The longest time to live; none ends within a run.
const TTL_MAX: u32 = 100_000;

/// What a key may hold.
#[derive(Debug, Clone, Default)]
struct Item {
    value: Vec<u8>,
    flags: u32,
    /// Seconds, as they were set and when; `None` for ever.
    ttl: Option<(u32, Option<Instant>)>,
    /// The CAS unique, once it was seen.
    cas: Option<u64>,
    /// The largest CAS unique that was seen before this was stored.
    after: u64,
    /// Whether it is marked stale, where that is known.
    stale: Option<bool>,
}

struct Machine {
    server: Option<Server>,
    wire: BufReader<TcpStream>,
    dry: tempfile::TempDir,
    map: HashMap<u8, Item>,
    /// The largest CAS unique that was seen.
    cas: u64,
    hits: u64,
}

impl Machine {
    fn new() -> Machine {
        let dry = tempfile::tempdir().unwrap();
        let server = start(&dry);
        Machine {
            wire: BufReader::new(server.connect().0),
            server: Some(server),
            dry,
            map: HashMap::new(),
            cas: 0,
            hits: 0,
        }
    }

    fn send(&mut self, request: &[u8]) {
        self.wire.get_mut().write_all(request).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        self.wire.read_until(b'\n', &mut line).unwrap();
        assert!(line.ends_with(b"\r\n"), "half a line: {line:?}");
        line.truncate(line.len() - 2);
        String::from_utf8(line).unwrap()
    }

    fn ask(&mut self, request: &[u8]) -> String {
        self.send(request);
        self.line()
    }

    fn block(&mut self, bytes: usize) -> Vec<u8> {
        let mut value = vec![0; bytes + 2];
        self.wire.read_exact(&mut value).unwrap();
        assert_eq!(value.split_off(bytes), b"\r\n");
        value
    }

    /// A new item of these facts, later than all that was seen.
    fn item(&self, value: Vec<u8>, flags: u32, ttl: i32) -> Option<Item> {
        (ttl >= 0).then(|| Item {
            value,
            flags,
            ttl: (ttl > 0).then(|| (ttl as u32, Some(Instant::now()))),
            after: self.cas,
            stale: Some(false),
            ..Item::default()
        })
    }

    fn put(&mut self, key: u8, item: Option<Item>) {
        match item {
            Some(item) => self.map.insert(key, item),
            None => self.map.remove(&key),
        };
    }

    /// A store that was accepted in a mode.
    fn stored(&mut self, key: u8, mode: char, bytes: &[u8], flags: u32, ttl: i32) {
        let present = self.map.get(&key).cloned();
        let item = match mode {
            'A' | 'P' => {
                let mut item = present.expect("appended to what cannot be there");
                item.value = if mode == 'A' {
                    [&item.value, bytes].concat()
                } else {
                    [bytes, &item.value].concat()
                };
                (item.cas, item.after, item.stale) = (None, self.cas, None);
                Some(item)
            }
            'R' => {
                assert!(present.is_some(), "replaced what cannot be there");
                self.item(bytes.to_vec(), flags, ttl)
            }
            _ => self.item(bytes.to_vec(), flags, ttl),
        };
        self.put(key, item);
    }

    /// A store that was refused in a mode: what it was refused for must be possible.
    fn not_stored(&self, key: u8, mode: char) {
        assert!(mode != 'S', "a set was refused");
        assert!(
            mode != 'E' || self.map.contains_key(&key),
            "add met what cannot be there"
        );
    }

    fn check(&mut self, key: u8, value: &[u8], flags: u32, cas: Option<u64>) {
        let item = self.map.get_mut(&key);
        let item = item.unwrap_or_else(|| panic!("key {key} is back"));
        assert!(item.value == value, "key {key} has another value");
        assert_eq!(item.flags, flags, "flags of key {key}");
        if let Some(cas) = cas {
            assert_eq!(item.cas.unwrap_or(cas), cas, "CAS unique of key {key}");
            assert!(
                cas > item.after || item.cas.is_some(),
                "an older CAS unique"
            );
            item.cas = Some(cas);
            self.cas = self.cas.max(cas);
        }
        self.hits += 1;
    }

    /// Reads `VALUE` blocks up to `END`.
    fn check_values(&mut self, asked: &[u8]) {
        let mut left = asked.iter();
        loop {
            let line = self.line();
            if line == "END" {
                return;
            }
            let words: Vec<&str> = line.split(' ').collect();
            let key: u8 = words[1].trim_start_matches("key").parse().unwrap();
            assert!(
                left.any(|asked| *asked == key),
                "not asked for, or not in order"
            );
            let value = self.block(words[3].parse().unwrap());
            let cas = words.get(4).map(|cas| cas.parse().unwrap());
            self.check(key, &value, words[2].parse().unwrap(), cas);
        }
    }

    /// Reads the answer to `mg … v f c t`; true for a hit.
    fn check_meta(&mut self, key: u8, line: &str) -> bool {
        if line == "EN" {
            return false;
        }
        let mut words = line.split(' ');
        assert_eq!(words.next(), Some("VA"), "{line}");
        let value_bytes = words.next().unwrap().parse().unwrap();
        let value = self.block(value_bytes);
        let words: Vec<&str> = words.collect();
        let number = |letter: char| {
            let word = words.iter().find(|word| word.starts_with(letter));
            word.unwrap_or_else(|| panic!("no {letter} in {line}"))[1..]
                .parse::<i64>()
                .unwrap()
        };
        self.check(key, &value, number('f') as u32, Some(number('c') as u64));
        let item = &self.map[&key];
        if let Some(stale) = item.stale {
            assert_eq!(
                words.contains(&"X"),
                stale,
                "staleness of key {key}: {line}"
            );
        }
        match (item.ttl, number('t')) {
            (None, ttl) => assert_eq!(ttl, -1, "key {key} has a time to live"),
            (Some((most, since)), ttl) => {
                let passed = since.map_or(0, |since| since.elapsed().as_secs() as i64);
                // The server's seconds begin elsewhere; a slow machine only makes it less.
                assert!(
                    ttl <= i64::from(most) + 1 - passed.saturating_sub(1),
                    "{line} of {most}"
                );
                assert!(ttl > i64::from(most) - 600, "{line} of {most}");
            }
        }
        true
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Store {
                verb,
                key,
                flags,
                ttl,
                bytes,
                fill,
            } => {
                let mode = match verb {
                    "add" => 'E',
                    "replace" => 'R',
                    "append" => 'A',
                    "prepend" => 'P',
                    _ => 'S',
                };
                let value = vec![fill; bytes];
                let header = format!("{verb} key{key} {flags} {ttl} {bytes}\r\n");
                let reply = self.ask(&[header.as_bytes(), &value, b"\r\n"].concat());
                self.judge(
                    &reply,
                    ["STORED", "NOT_STORED"],
                    key,
                    mode,
                    &value,
                    flags,
                    ttl,
                );
            }
            Step::MetaStore {
                key,
                mode,
                ttl,
                bytes,
                fill,
            } => {
                let value = vec![fill; bytes];
                let header = format!("ms key{key} {bytes} M{mode} T{ttl} F7\r\n");
                let reply = self.ask(&[header.as_bytes(), &value, b"\r\n"].concat());
                self.judge(&reply, ["HD", "NS"], key, mode, &value, 7, ttl);
            }
            Step::StoreNumber { key, number } => {
                let text = number.to_string();
                let request = format!("set key{key} 1 0 {}\r\n{text}\r\n", text.len());
                assert_eq!(self.ask(request.as_bytes()), "STORED");
                self.stored(key, 'S', text.as_bytes(), 1, 0);
            }
            Step::Cas { key, right, fill } => {
                let known = self.map.get(&key).and_then(|item| item.cas);
                let cas = known.unwrap_or(0) + u64::from(!right);
                let request = format!(
                    "cas key{key} 3 0 1 {cas}\r\n{}\r\n",
                    char::from(fill % 26 + 97)
                );
                match self.ask(request.as_bytes()).as_str() {
                    "STORED" => {
                        assert!(right && known.is_some(), "a wrong CAS unique was taken");
                        self.stored(key, 'S', &[fill % 26 + 97], 3, 0);
                    }
                    "EXISTS" => {
                        assert!(self.map.contains_key(&key), "key {key} is back");
                        assert!(
                            !right || known.is_none(),
                            "the right CAS unique was refused"
                        );
                    }
                    other => assert_eq!(other, "NOT_FOUND"),
                }
            }
            Step::Get { keys } => {
                let names: Vec<String> = keys.iter().map(|key| format!("key{key}")).collect();
                self.send(format!("gets {}\r\n", names.join(" ")).as_bytes());
                self.check_values(&keys);
            }
            Step::MetaGet { key } => {
                let line = self.ask(format!("mg key{key} v f c t\r\n").as_bytes());
                self.check_meta(key, &line);
            }
            Step::Vivify { key } => {
                let line = self.ask(format!("mg key{key} N5000 v f c t\r\n").as_bytes());
                if line.starts_with("VA 0 ") && line.ends_with(" W") && !line.contains(" X") {
                    // Created, unless an empty stored item is won, which says the same.
                    let created = self.item(Vec::new(), 0, 5000);
                    self.put(key, created);
                }
                assert!(self.check_meta(key, &line), "{line}");
            }
            Step::Delete { key, meta } => {
                let request = if meta {
                    format!("md key{key}\r\n")
                } else {
                    format!("delete key{key}\r\n")
                };
                match self.ask(request.as_bytes()).as_str() {
                    "DELETED" | "HD" => assert!(self.map.contains_key(&key), "key {key} is back"),
                    other => assert!(matches!(other, "NOT_FOUND" | "NF"), "{other}"),
                }
                self.map.remove(&key);
            }
            Step::Invalidate { key } => {
                match self
                    .ask(format!("md key{key} I T30000\r\n").as_bytes())
                    .as_str()
                {
                    "HD" => {
                        let cas = self.cas;
                        let item = self
                            .map
                            .get_mut(&key)
                            .expect("an item that cannot be there");
                        item.stale = Some(true);
                        item.ttl = Some((30_000, Some(Instant::now())));
                        (item.cas, item.after) = (None, item.after.min(cas));
                    }
                    other => assert_eq!(other, "NF"),
                }
            }
            Step::Count {
                key,
                delta,
                down,
                meta,
            } => self.count(key, delta, down, meta),
            Step::Touch { key, ttl, get } => {
                if get {
                    self.send(format!("gat {ttl} key{key}\r\n").as_bytes());
                    let before = self.hits;
                    self.check_values(&[key]);
                    if self.hits == before {
                        return;
                    }
                } else {
                    match self
                        .ask(format!("touch key{key} {ttl}\r\n").as_bytes())
                        .as_str()
                    {
                        "TOUCHED" => {}
                        other => {
                            assert_eq!(other, "NOT_FOUND");
                            return;
                        }
                    }
                }
                let item = self
                    .map
                    .get_mut(&key)
                    .expect("touched what cannot be there");
                item.ttl = Some((ttl, Some(Instant::now())));
            }
            Step::Flush => {
                assert_eq!(self.ask(b"flush_all\r\n"), "OK");
                self.map.clear();
            }
            Step::Stop | Step::Crash => {
                let server = self.server.take().expect("it runs");
                if matches!(step, Step::Stop) {
                    assert_eq!(server.terminate().0, Some(0));
                } else {
                    // Dropping it is a kill -9.
                    drop(server);
                }
                let server = start(&self.dry);
                self.wire = BufReader::new(server.connect().0);
                self.server = Some(server);
            }
        }
    }

    #[allow(clippy::too_many_arguments)] // A store's parts, and the two words for how it ended.
    fn judge(
        &mut self,
        reply: &str,
        [yes, no]: [&str; 2],
        key: u8,
        mode: char,
        value: &[u8],
        flags: u32,
        ttl: i32,
    ) {
        if reply == yes {
            self.stored(key, mode, value, flags, ttl);
        } else if reply.starts_with("SERVER_ERROR object too large") {
            // What was there is gone, as after every store that failed; appends leave it.
            assert!(matches!(mode, 'A' | 'P'), "{reply}");
        } else {
            assert_eq!(reply, no);
            self.not_stored(key, mode);
        }
    }

    fn count(&mut self, key: u8, delta: u32, down: bool, meta: bool) {
        let request = match (meta, down) {
            (true, true) => format!("ma key{key} MD D{delta} v\r\n"),
            (true, false) => format!("ma key{key} D{delta} v\r\n"),
            (false, true) => format!("decr key{key} {delta}\r\n"),
            (false, false) => format!("incr key{key} {delta}\r\n"),
        };
        let mut reply = self.ask(request.as_bytes());
        if matches!(reply.as_str(), "NOT_FOUND" | "NF") {
            return;
        }
        let item = self.map.get(&key);
        let item = item.unwrap_or_else(|| panic!("key {key} is back: {reply}"));
        let text = String::from_utf8_lossy(&item.value).into_owned();
        let Ok(before) = text.trim_end().parse::<u64>() else {
            assert!(
                reply.starts_with("CLIENT_ERROR cannot increment"),
                "{reply}"
            );
            return;
        };
        if meta {
            let bytes = reply.trim_start_matches("VA ").parse().unwrap();
            reply = String::from_utf8(self.block(bytes)).unwrap();
        }
        let after = if down {
            before.saturating_sub(u64::from(delta))
        } else {
            before.wrapping_add(u64::from(delta))
        };
        assert_eq!(reply.trim_end().parse(), Ok(after), "{before} and {delta}");
        let seen = self.cas;
        let item = self.map.get_mut(&key).expect("it was there");
        let mut digits = after.to_string();
        // memcached keeps a number's length where the new one is shorter.
        if digits.len() < item.value.len() {
            digits = format!("{digits:<width$}", width = item.value.len());
        }
        item.value = digits.into_bytes();
        (item.cas, item.after, item.stale) = (None, seen, None);
    }
}

fn start(dry: &tempfile::TempDir) -> Server {
    let path = dry
        .path()
        .to_str()
        .expect("a temporary folder has a plain name");
    let arguments = [
        "-p -1 -l 127.0.0.1 -t 2 -m 2 -I 100k --dry-size 64m --tracking off --dry",
        path,
    ];
    let arguments: Vec<&str> = arguments.iter().flat_map(|text| text.split(' ')).collect();
    Server::start_in(tempfile::tempdir().unwrap(), &arguments)
}

#[test]
fn no_order_of_commands_gives_a_wrong_answer() {
    let seed = match std::env::var("TIERCACHE_TEST_SEED") {
        Ok(text) => text.parse().expect("TIERCACHE_TEST_SEED is a number"),
        Err(_) => SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_nanos() as u64,
    };
    let cases = match std::env::var("TIERCACHE_TEST_CASES") {
        Ok(text) => text.parse().expect("TIERCACHE_TEST_CASES is a number"),
        Err(_) => CASES,
    };
    println!("TIERCACHE_TEST_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases,
        failure_persistence: None,
        // Every attempt starts servers: a few make the story short enough.
        max_shrink_iters: 200,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let steps = collection::vec(step::step(), STEPS);
    let result = runner.run(&steps, |steps| {
        let mut machine = Machine::new();
        for step in steps {
            machine.run(step);
        }
        // A server that always misses would pass.
        assert!(machine.hits >= STEPS as u64 / 20, "{} hits", machine.hits);
        Ok(())
    });
    if let Err(error) = result {
        panic!("TIERCACHE_TEST_SEED={seed}: {error}");
    }
}

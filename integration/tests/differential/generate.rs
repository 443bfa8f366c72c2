//! Random requests: every command, flag and mode, hits and misses, right and wrong CAS values, and a good share of nonsense.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use tiercache_integration::random::Random;

use super::malformed;
use super::meta;
use super::script::{Cas, CasForm, Request};

/// Keys per epoch: few, so that most commands meet an item.
const KEYS_PER_EPOCH: u64 = 8;

/// A value just under the item size limit of both servers, and one that both refuse.
pub const LARGE_VALUE_BYTES: usize = 1024 * 1024 - 2048;
pub const TOO_LARGE_VALUE_BYTES: usize = 1024 * 1024 + 1;

/// Added to a CAS value it gives one that neither server has given out yet.
const CAS_FAR: i64 = 1 << 60;

/// What the memcached at the other side knows.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// The meta protocol of 1.6.45: E, md x, C on mg, O and k on misses, P and L. Debian's 1.6.18 lacks these.
    pub modern: bool,
}

pub struct Generator {
    pub random: Random,
    pub profile: Profile,
    pub epoch: String,
    flushed: bool,
    /// The newest CAS symbols seen of each key.
    cas_symbols: HashMap<Vec<u8>, Vec<usize>>,
}

impl Generator {
    pub fn new(random: Random, profile: Profile, epoch: String) -> Self {
        Self {
            random,
            profile,
            epoch,
            flushed: false,
            cas_symbols: HashMap::new(),
        }
    }

    /// Remembers that a reply told this CAS of `key`.
    pub fn learn(&mut self, key: &[u8], symbol: usize) {
        self.cas_symbols
            .entry(key.to_vec())
            .or_default()
            .push(symbol);
    }

    /// One request. `raw` says that it will not be followed by a mark of its own.
    pub fn request(&mut self) -> Request {
        let roll = self.random.below(1000);
        match roll {
            0..270 => malformed::request(self),
            270..640 => meta::request(self),
            640..643 => self.large(),
            643..645 => self.closing(),
            _ => self.text(),
        }
    }

    /// All keys of the epoch.
    pub fn keys(&self) -> impl Iterator<Item = String> {
        (0..KEYS_PER_EPOCH).map(|number| format!("{}:{number}", self.epoch))
    }

    pub fn key(&mut self) -> Vec<u8> {
        let number = self.random.below(KEYS_PER_EPOCH);
        format!("{}:{number}", self.epoch).into_bytes()
    }

    fn text(&mut self) -> Request {
        match self.random.below(20) {
            0..3 => self.retrieve("get"),
            3..5 => self.retrieve("gets"),
            5 => self.retrieve_and_touch("gat"),
            6 => self.retrieve_and_touch("gats"),
            7..9 => self.store("set"),
            9 => self.store("add"),
            10 => self.store("replace"),
            11 => self.store("append"),
            12 => self.store("prepend"),
            13 => self.store_cas(),
            14 => self.arithmetic("incr"),
            15 => self.arithmetic("decr"),
            16 => self.touch(),
            17 => self.delete(),
            _ => self.others(),
        }
    }

    fn retrieve(&mut self, command: &'static str) -> Request {
        let mut request = Request::new(command);
        request.push(command);
        let count = match self.random.below(10) {
            0 => self.random.between(20, 300),
            1..4 => self.random.between(2, 8),
            _ => 1,
        };
        for _ in 0..count {
            let key = self.key();
            request.push(" ").push(&key);
            request.key = (count == 1 && command == "gets").then_some(key);
        }
        if count > 1 {
            request.flag("many keys");
        }
        self.end_line(&mut request);
        request
    }

    fn retrieve_and_touch(&mut self, command: &'static str) -> Request {
        let mut request = Request::new(command);
        let exptime = self.exptime();
        request.push(format!("{command} {exptime}"));
        for _ in 0..self.random.pick(&[1, 1, 1, 2, 5]) {
            let key = self.key();
            request.push(" ").push(&key);
        }
        self.end_line(&mut request);
        request
    }

    fn store(&mut self, command: &'static str) -> Request {
        let mut request = Request::new(command);
        let (key, flags, exptime, value) = (
            self.key(),
            self.client_flags(),
            self.exptime(),
            self.value(),
        );
        request.push(command).push(" ").push(&key);
        request.push(format!(" {flags} {exptime} {}", value.len()));
        self.noreply(&mut request);
        self.end_line(&mut request);
        request.push(&value).push("\r\n");
        request
    }

    fn store_cas(&mut self) -> Request {
        let mut request = Request::new("cas");
        let (key, flags, exptime, value) = (
            self.key(),
            self.client_flags(),
            self.exptime(),
            self.value(),
        );
        request.push("cas ").push(&key);
        request.push(format!(" {flags} {exptime} {} ", value.len()));
        self.push_cas(&mut request, &key);
        self.noreply(&mut request);
        self.end_line(&mut request);
        request.push(&value).push("\r\n");
        request
    }

    fn arithmetic(&mut self, command: &'static str) -> Request {
        let mut request = Request::new(command);
        request.fresh = true;
        let (key, delta) = (self.key(), self.delta());
        request
            .push(command)
            .push(" ")
            .push(&key)
            .push(format!(" {delta}"));
        self.noreply(&mut request);
        self.end_line(&mut request);
        request
    }

    fn touch(&mut self) -> Request {
        let mut request = Request::new("touch");
        let (key, exptime) = (self.key(), self.exptime());
        request
            .push("touch ")
            .push(&key)
            .push(format!(" {exptime}"));
        self.noreply(&mut request);
        self.end_line(&mut request);
        request
    }

    fn delete(&mut self) -> Request {
        let mut request = Request::new("delete");
        let key = self.key();
        request.push("delete ").push(&key);
        if self.random.chance(10) {
            request.push(" 0").flag("0");
        }
        self.noreply(&mut request);
        self.end_line(&mut request);
        request
    }

    fn others(&mut self) -> Request {
        let lines: &[(&'static str, &str)] = &[
            ("flush_all", "flush_all"),
            ("flush_all", "flush_all 0"),
            ("flush_all", "flush_all noreply"),
            ("flush_all", "flush_all 90000"),
            ("flush_all", "flush_all 90000 noreply"),
            ("verbosity", "verbosity 1"),
            ("verbosity", "verbosity 1 noreply"),
            ("verbosity", "verbosity 0"),
            ("version", "version"),
            ("mn", "mn"),
            ("cache_memlimit", "cache_memlimit 1024"),
            ("cache_memlimit", "cache_memlimit 1"),
            ("cache_memlimit", "cache_memlimit 1024 noreply"),
            ("stats", "stats reset"),
            ("stats", "stats sizes"),
            ("stats", "stats nonsense"),
            ("stats", "stats detail off"),
            ("shutdown", "shutdown"),
            ("shutdown", "shutdown graceful"),
        ];
        // Flushes are thinned out: on a flushed cache everything else only misses.
        let mut chosen = self.random.pick(lines);
        if chosen.0 == "flush_all" && self.random.chance(80) {
            chosen = ("verbosity", "verbosity 1");
        }
        // In memcached a delayed flush takes back what an earlier one has not yet cleared away.
        if self.flushed && chosen.1.starts_with("flush_all 9") {
            chosen = ("verbosity", "verbosity 1");
        }
        if chosen.0 == "flush_all" {
            self.flush();
        }
        if chosen.0 == "mn" {
            // An answer like the mark would shift the attribution by one; meta.rs has quiet runs that end in marks.
            chosen = ("version", "version");
        }
        if !self.profile.modern && matches!(chosen.0, "version" | "shutdown") {
            // Their texts carry the version or changed with it.
            chosen = ("verbosity", "verbosity 1");
        }
        let mut request = Request::new(chosen.0);
        if let Some((_, rest)) = chosen.1.split_once(' ') {
            request.flag(rest);
        }
        request.push(chosen.1);
        self.end_line(&mut request);
        request
    }

    /// Values around the item size limit, on keys of their own.
    fn large(&mut self) -> Request {
        let mut request = Request::new("set");
        let too_large = self.random.chance(50);
        let length = if too_large {
            TOO_LARGE_VALUE_BYTES
        } else {
            LARGE_VALUE_BYTES
        };
        let epoch = &self.epoch;
        request.push(format!("set {epoch}:large 1 0 {length}"));
        request.flag(if too_large { "too large" } else { "large" });
        self.noreply(&mut request);
        self.end_line(&mut request);
        request.push(vec![b'x'; length]).push("\r\n");
        request.push(format!("get {}:large\r\n", self.epoch));
        request
    }

    /// Requests that end the connection.
    fn closing(&mut self) -> Request {
        let mut request = Request::new("close");
        // memcached throws unsent replies away when it closes, tiercache sends them: compared without any.
        request.fresh = true;
        match self.random.below(4) {
            0 => request.flag("quit").push("quit\r\n"),
            1 => request.flag("long line").push(vec![b'a'; 3000]),
            2 => request.flag("http get").push("GET / HTTP/1.1\r\n"),
            _ => request.flag("http post").push("POST / HTTP/1.1\r\n"),
        };
        request.ending = super::script::Ending::Closes;
        request
    }

    pub fn push_cas(&mut self, request: &mut Request, key: &[u8]) {
        let (cas, name) = self.cas(key);
        request.push_cas(cas, CasForm::Decimal).flag(name);
    }

    /// A right, wrong, old or foreign CAS value for `key`, and which of them it is.
    pub fn cas(&mut self, key: &[u8]) -> (Cas, &'static str) {
        let newest = self
            .cas_symbols
            .get(key)
            .and_then(|symbols| symbols.last().copied());
        let seen = |symbol, offset| Cas::Seen { symbol, offset };
        match (newest, self.random.below(10)) {
            (Some(newest), 0..6) => (seen(newest, 0), "cas"),
            (Some(newest), 6) => (seen(newest, CAS_FAR), "cas+1"),
            (Some(newest), 7..9) => {
                let symbols = &self.cas_symbols[key];
                let old = symbols[self.random.below(symbols.len() as u64) as usize];
                let symbol = if old == newest { symbols[0] } else { old };
                (seen(symbol, 0), "old cas")
            }
            _ => {
                let value = self.random.pick(&[1, 999, 0, u64::MAX]);
                (Cas::Foreign(value), "foreign cas")
            }
        }
    }

    /// Remembers a flush; true if there was one before in this epoch.
    pub fn flush(&mut self) -> bool {
        std::mem::replace(&mut self.flushed, true)
    }

    pub fn client_flags(&mut self) -> u32 {
        self.random.pick(&[0, 0, 1, 5, 65535, u32::MAX])
    }

    /// Never, expired, soon (yet much later than the epoch lasts), late, absolute: a tick of a clock decides nothing.
    pub fn exptime(&mut self) -> i64 {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| now.as_secs() as i64);
        match self.random.below(20) {
            0..9 => 0,
            9 => -1,
            10 => -5000,
            11..13 => self.random.between(30, 40) as i64,
            13..15 => self.random.between(90, 130) as i64,
            15 => 2_592_000,
            16 => 2_592_001,
            17 => now + 1000,
            18 => now - 100_000_000,
            _ => 2_147_483_647,
        }
    }

    pub fn value(&mut self) -> Vec<u8> {
        match self.random.below(20) {
            0..3 => self.random.below(1000).to_string().into_bytes(),
            3 => b"0".to_vec(),
            4 => self.number_max().to_string().into_bytes(),
            5 => (self.random.bits() & self.number_max())
                .to_string()
                .into_bytes(),
            6 => self
                .random
                .pick(&[
                    &b"12 "[..],
                    // Not "-1": a long number appended to it makes one below -2^63, a known difference.
                    b"-1x",
                    b"abc",
                    b"1a",
                    b" 1",
                    b"99999999999999999999",
                ])
                .to_vec(),
            7 => Vec::new(),
            8 => b"a\r\nb".to_vec(),
            9 => self.bytes(2048),
            _ => self.bytes(40),
        }
    }

    /// 1.6.18 takes a number above 63 bits for a negative one if a minus follows anywhere in memory.
    fn number_max(&self) -> u64 {
        if self.profile.modern {
            u64::MAX
        } else {
            (1 << 40) - 1
        }
    }

    fn bytes(&mut self, length_max: u64) -> Vec<u8> {
        let mut bytes = vec![0; self.random.below(length_max + 1) as usize];
        self.random.fill(&mut bytes);
        // Never like the start of a number, which memcached reads more generously: a known difference.
        if let Some(first) = bytes.first_mut() {
            *first |= 0x80;
        }
        bytes
    }

    pub fn delta(&mut self) -> String {
        match self.random.below(10) {
            0 => self.number_max().to_string(),
            1 => (self.random.bits() & self.number_max()).to_string(),
            2 => String::from("0"),
            _ => self.random.below(2000).to_string(),
        }
    }

    pub fn noreply(&mut self, request: &mut Request) {
        if self.random.chance(10) {
            request.push(" noreply").flag("noreply");
        }
    }

    pub fn end_line(&mut self, request: &mut Request) {
        request.push(if self.random.chance(5) { "\n" } else { "\r\n" });
    }
}

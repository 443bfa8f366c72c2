//! Plain gets in a row: pipelines and multi-gets whose items lie in RAM, answered in one pass over
//! their bytes.
//!
//! ```text
//!   up to 16 keys of whole lines ──▶ hash, ask for slots, ask for items ──▶ answer each ──┐
//!        ▲                                                                                │
//!        └────────────────────────────────────────────────────────────────────────────────┘
//!   ends before what is no plain get, or has to wait, or what others want to hear of
//! ```
//!
//! Nothing here is decided otherwise than by the requests' own way (`retrieve`), which takes over
//! wherever this ends; it is only shorter.

use std::num::NonZero;

use tiercache_protocol::{PlainGets, encode};

use super::Executor;
use super::value::write_plain_value;
use crate::tier::{Near, NearRead, Tier, WINDOW_KEYS};
use crate::watch::Kinds;

/// Bytes of answers after which no further key is answered here.
const ANSWER_BYTES_SOFT_MAX: usize = 64 << 10;

/// What the beginning of some input came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Answered {
    /// Bytes of the requests that are answered whole.
    pub consumed: usize,
    /// How many they are.
    pub requests: usize,
    /// Keys of the next request that are answered too.
    pub keys_done: usize,
    /// Bytes behind `consumed` whose keys were looked ahead for: they go the usual way.
    pub looked_at: usize,
}

/// A key of the window.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Key {
    near: Near,
    at: usize,
    len: usize,
    /// Where its line ends, if it is the last of it.
    line_end: Option<NonZero<usize>>,
}

impl AsMut<Near> for Key {
    #[inline]
    fn as_mut(&mut self) -> &mut Near {
        &mut self.near
    }
}

/// Keys of whole lines, looked up together. Kept from one run to the next for its memory alone.
pub(super) type Window = [Key; WINDOW_KEYS];

/// Hits and misses that are not in the counters yet.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    hot: u64,
    cold: u64,
    misses: u64,
}

impl Executor {
    /// Whether there are items in RAM that answer a get by themselves.
    #[inline]
    pub fn answers_plain(&self) -> bool {
        self.proxy
            .as_ref()
            .is_none_or(|proxy| proxy.has_current_copies())
    }

    /// Whether a get comes first, and nobody wants to hear of, refuse or redirect it.
    #[inline]
    pub(super) fn takes_plain(&self, input: &[u8]) -> bool {
        let kinds = Kinds::COMMANDS.with(Kinds::FETCHERS).with(Kinds::PREFIXES);
        input.starts_with(b"get ")
            && self.answers_plain()
            && self.shared.settings.strict.is_none()
            && !self.shared.watch.wants(kinds)
    }

    /// Answers the plain gets that `input`, the beginning of requests, begins with: at most
    /// `requests_max`, as far as RAM alone can.
    #[inline]
    pub fn answer_plain(
        &mut self,
        input: &[u8],
        requests_max: usize,
        out: &mut Vec<u8>,
    ) -> Answered {
        let mut answered = Answered::default();
        if !self.takes_plain(input) {
            return answered;
        }
        let mut tally = Tally::default();
        while answered.looked_at == 0
            && answered.requests < requests_max
            && out.len() < ANSWER_BYTES_SOFT_MAX
        {
            let rest = &input[answered.consumed..];
            let (count, bytes) = self.fill(rest, requests_max - answered.requests);
            if count == 0 {
                break;
            }
            if count > 1 {
                self.shared.cache.bring_near(&mut self.window[..count]);
            }
            let done = self.answer_window(rest, count, &mut answered, &mut tally, out);
            answered.consumed += done;
            answered.looked_at = bytes - done;
        }
        self.count_tally(tally);
        answered
    }

    /// Puts the keys of whole lines into the window. Tells how many, and how many bytes the lines
    /// have.
    #[inline]
    fn fill(&mut self, input: &[u8], lines_max: usize) -> (usize, usize) {
        let mut gets = PlainGets::new(input);
        let (mut count, mut whole, mut lines) = (0, 0, 0);
        for key in self.window.iter_mut() {
            let Some(get) = gets.next() else { break };
            *key = Key {
                near: Near::new(self.shared.cache.hash(get.key)),
                at: get.at,
                len: get.key.len(),
                line_end: NonZero::new(if get.last { get.end } else { 0 }),
            };
            count += 1;
            if get.last {
                whole = count;
                lines += 1;
                if lines == lines_max {
                    break;
                }
            }
        }
        (whole, gets.whole())
    }

    /// Answers the keys of the window up to the first that RAM alone cannot answer. Tells how many
    /// bytes of whole lines that is.
    #[inline]
    fn answer_window(
        &self,
        input: &[u8],
        count: usize,
        answered: &mut Answered,
        tally: &mut Tally,
        out: &mut Vec<u8>,
    ) -> usize {
        let cache = &self.shared.cache;
        let mut done = 0;
        for key in &self.window[..count] {
            if out.len() >= ANSWER_BYTES_SOFT_MAX {
                break;
            }
            let name = &input[key.at..key.at + key.len];
            match cache.read_near(key.near, name, |view| write_plain_value(out, name, &view)) {
                // Over a pool, wherever a copy lies it is hot that answers; the pool is cold.
                NearRead::Hit(Tier::Cold) if self.proxy.is_none() => tally.cold += 1,
                NearRead::Hit(_) => tally.hot += 1,
                // A pool may have what is not found here.
                NearRead::Miss if self.proxy.is_none() => tally.misses += 1,
                NearRead::Miss | NearRead::Unknown => break,
            }
            answered.keys_done += 1;
            if let Some(line_end) = key.line_end {
                encode::end(out);
                done = line_end.get();
                answered.keys_done = 0;
                answered.requests += 1;
            }
        }
        done
    }

    #[inline]
    fn count_tally(&self, tally: Tally) {
        let counters = &self.local.counters;
        let hits = tally.hot + tally.cold;
        counters.cmd_get.add(hits + tally.misses);
        counters.get_hits.add(hits);
        counters.hot_hits.add(tally.hot);
        counters.cold_hits.add(tally.cold);
        counters.get_misses.add(tally.misses);
    }
}

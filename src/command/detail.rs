//! `stats detail`: gets, hits, sets and deletes by key prefix. Whether it is switched on is a switch
//! of `watch`, so that one look tells whether anybody wants to hear of a key.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dashmap::DashMap;
use tiercache_protocol::encode;

use super::meta::is_printable;
use crate::escape::percent_encode;

/// Prefixes that are counted; keys with others go uncounted once the bound is reached.
const PREFIXES_MAX: usize = 1024;
/// Shards of the map of prefixes.
const SHARDS: usize = 64;

/// What happened to the keys of one prefix.
#[derive(Debug, Default)]
struct Counts {
    gets: AtomicU64,
    hits: AtomicU64,
    sets: AtomicU64,
    deletes: AtomicU64,
}

/// Something that happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Hit,
    Miss,
    Set,
    Delete,
}

/// The counts by prefix.
#[derive(Debug)]
pub struct Detail {
    delimiter: u8,
    prefixes: DashMap<Box<[u8]>, Counts>,
}

impl Detail {
    /// Counts by what stands before `delimiter` in a key (memcached's `-D`).
    pub fn new(delimiter: u8) -> Detail {
        Detail {
            delimiter,
            prefixes: DashMap::with_shard_amount(SHARDS),
        }
    }

    pub(super) fn clear(&self) {
        self.prefixes.clear();
    }

    pub(super) fn count(&self, key: &[u8], event: Event) {
        let Some(end) = memchr::memchr(self.delimiter, key) else {
            return;
        };
        let prefix = &key[..end];
        if !self.prefixes.contains_key(prefix) {
            if self.prefixes.len() >= PREFIXES_MAX {
                return;
            }
            self.prefixes.entry(prefix.into()).or_default();
        }
        let Some(counts) = self.prefixes.get(prefix) else {
            return;
        };
        match event {
            Event::Hit => {
                counts.gets.fetch_add(1, Relaxed);
                counts.hits.fetch_add(1, Relaxed);
            }
            Event::Miss => drop(counts.gets.fetch_add(1, Relaxed)),
            Event::Set => drop(counts.sets.fetch_add(1, Relaxed)),
            Event::Delete => drop(counts.deletes.fetch_add(1, Relaxed)),
        }
    }

    /// `PREFIX p get n hit n set n del n` for each prefix. One that no line can carry, which packets
    /// may bring in, is percent-encoded.
    pub(super) fn dump(&self, out: &mut Vec<u8>) {
        for entry in &self.prefixes {
            out.extend_from_slice(b"PREFIX ");
            if is_printable(entry.key()) {
                out.extend_from_slice(entry.key());
            } else {
                percent_encode(out, entry.key());
            }
            for (name, count) in [
                (&b" get "[..], &entry.gets),
                (b" hit ", &entry.hits),
                (b" set ", &entry.sets),
                (b" del ", &entry.deletes),
            ] {
                out.extend_from_slice(name);
                encode::number(out, count.load(Relaxed));
            }
            out.extend_from_slice(b"\r\n");
        }
        encode::end(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_counted_by_prefix() {
        let detail = Detail::new(b':');
        for event in [
            Event::Hit,
            Event::Miss,
            Event::Set,
            Event::Delete,
            Event::Delete,
        ] {
            detail.count(b"a:2", event);
        }
        detail.count(b"no prefix", Event::Hit);
        let mut out = Vec::new();
        detail.dump(&mut out);
        assert_eq!(out, b"PREFIX a get 2 hit 1 set 1 del 2\r\nEND\r\n");
    }

    // A packet's key may be any bytes.
    #[test]
    fn a_prefix_cannot_end_its_line() {
        let detail = Detail::new(b':');
        detail.count(b"a get 9\r\nEND\r\n:1", Event::Set);
        let mut out = Vec::new();
        detail.dump(&mut out);
        let line = b"PREFIX a%20get%209%0D%0AEND%0D%0A get 0 hit 0 set 1 del 0\r\nEND\r\n";
        assert_eq!(out, line);
    }
}

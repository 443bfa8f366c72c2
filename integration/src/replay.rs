//! Replays a trace against a server as a client that looks aside: get, and on a miss set.
//!
//! Requests are pipelined in batches of distinct keys, and a batch's misses are stored ahead of the next batch's gets,
//! so the outcome is that of one request at a time. What a hit holds is compared.

use std::collections::HashSet;
use std::io;

use crate::client::Client;
use crate::random::Random;
use crate::trace::{Access, Trace, VALUE_BYTES_MAX};

/// Gets in a batch.
const BATCH: usize = 64;
/// What the bytes of all values come from.
const SEED: u64 = 1;
/// Places in the pool where a value may begin.
const PLACES: usize = 1 << 16;
/// Longest ttl that is relative.
const TTL_MAX: u32 = 30 * 24 * 3600;

/// What a replay counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Keys asked for.
    pub gets: u64,
    /// Keys found.
    pub hits: u64,
    /// Bytes of values asked for.
    pub bytes: u64,
    /// Bytes of values found.
    pub bytes_hit: u64,
    /// Stores that were refused.
    pub refused: u64,
}

impl Replayed {
    /// Hits of gets in percent.
    pub fn hit_percent(&self) -> f64 {
        self.hits as f64 * 100.0 / self.gets.max(1) as f64
    }

    /// The same by bytes.
    pub fn byte_hit_percent(&self) -> f64 {
        self.bytes_hit as f64 * 100.0 / self.bytes.max(1) as f64
    }
}

/// Replays a trace.
///
/// # Errors
/// When the connection breaks, and `InvalidData` for a value that was not stored under its key.
pub fn replay(client: &mut Client, trace: &Trace) -> io::Result<Replayed> {
    let pool = pool();
    let mut replayed = Replayed::default();
    let mut missed: Vec<(Access, u32)> = Vec::new();
    let mut accesses = trace.accesses.as_slice();
    while !accesses.is_empty() {
        let batch = distinct(&mut accesses, (BATCH / trace.copies as usize).max(1));
        let mut requests = Vec::new();
        let stores = missed.len();
        for (access, copy) in missed.drain(..) {
            push_set(trace, access, copy, &pool, &mut requests);
        }
        let asked = batch
            .iter()
            .flat_map(|access| (0..trace.copies).map(|copy| (*access, copy)));
        for (access, copy) in asked.clone() {
            requests.extend_from_slice(b"get ");
            trace.push_key(access.key, copy, &mut requests);
            requests.extend_from_slice(b"\r\n");
        }
        client.send(&requests)?;
        for _ in 0..stores {
            replayed.refused += u64::from(client.line()? != b"STORED");
        }
        for (access, copy) in asked {
            let length = access.value_bytes as usize;
            replayed.gets += 1;
            replayed.bytes += length as u64;
            match client.hits()?.pop() {
                None => missed.push((access, copy)),
                Some((_, value)) if fits(&value, &pool[place(access.key, copy)..]) => {
                    replayed.hits += 1;
                    replayed.bytes_hit += length as u64;
                }
                Some((key, _)) => {
                    let key = String::from_utf8_lossy(&key).into_owned();
                    return Err(io::Error::new(io::ErrorKind::InvalidData, key));
                }
            }
        }
    }
    Ok(replayed)
}

/// The next accesses up to the first that repeats a key.
fn distinct<'a>(accesses: &mut &'a [Access], most: usize) -> &'a [Access] {
    let mut seen = HashSet::new();
    let count = accesses
        .iter()
        .take(most)
        .take_while(|access| seen.insert(access.key))
        .count();
    let (batch, rest) = accesses.split_at(count);
    *accesses = rest;
    batch
}

fn push_set(trace: &Trace, access: Access, copy: u32, pool: &[u8], out: &mut Vec<u8>) {
    let (ttl, length) = (access.ttl.min(TTL_MAX), access.value_bytes as usize);
    out.extend_from_slice(b"set ");
    trace.push_key(access.key, copy, out);
    out.extend_from_slice(format!(" 0 {ttl} {length}\r\n").as_bytes());
    let place = place(access.key, copy);
    out.extend_from_slice(&pool[place..place + length]);
    out.extend_from_slice(b"\r\n");
}

/// Sizes of a key may change within a trace, so a value has the length that it was stored with.
fn fits(value: &[u8], pool: &[u8]) -> bool {
    pool.starts_with(value)
}

/// Bytes that do not repeat: values are cuttings of them.
fn pool() -> Vec<u8> {
    let mut bytes = vec![0; PLACES + VALUE_BYTES_MAX];
    Random::new(SEED).fill(&mut bytes);
    bytes
}

fn place(key: u32, copy: u32) -> usize {
    let mixed = (u64::from(key) << 8 | u64::from(copy)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 48) as usize % PLACES
}

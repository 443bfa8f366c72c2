//! Stores and reads many numbered items through pipelines, and checks every answer.

use std::io;
use std::ops::Range;

use crate::client::{Client, set_request};
use crate::value;

/// Sets and deletes per pipeline; their answers fit any socket buffer, so that writing first and reading then cannot block.
const REQUESTS_PER_PIPELINE: usize = 64;
/// Keys per multi-get where nothing else is said.
const KEYS_PER_GET: u64 = 32;

/// Items `0..n` of one size, in up to two versions.
#[derive(Clone, Copy, Debug)]
pub struct Items {
    /// Length of every value; at least [`value::RECORD_BYTES_MIN`].
    pub value_bytes: usize,
}

/// What a full read found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Keys that had a value.
    pub hits: u64,
    /// Keys that had none.
    pub misses: u64,
    /// Hits by version.
    pub versions: [u64; 2],
    /// What was wrong with a value or its version, up to ten of them.
    pub wrong: Vec<String>,
}

impl Found {
    /// Adds what another read found.
    pub fn add(&mut self, other: Found) {
        self.hits += other.hits;
        self.misses += other.misses;
        for (sum, count) in self.versions.iter_mut().zip(other.versions) {
            *sum += count;
        }
        self.wrong.extend(other.wrong);
    }
}

impl Items {
    /// The key of item `number`: 16 bytes.
    pub fn key(number: u64) -> Vec<u8> {
        format!("key:{number:012}").into_bytes()
    }

    /// The value of item `number` in `version` 0 or 1.
    pub fn value(&self, number: u64, version: u64) -> Vec<u8> {
        value::record(&Self::key(number), number << 1 | version, self.value_bytes)
    }

    /// Stores the items that `numbers` yields; all of them must be stored.
    ///
    /// # Errors
    /// When the connection breaks, or `InvalidData` with the answer that was not `STORED`.
    pub fn store(
        &self,
        client: &mut Client,
        numbers: impl Iterator<Item = u64>,
        version: u64,
    ) -> io::Result<()> {
        let mut numbers = numbers.peekable();
        while numbers.peek().is_some() {
            let mut pipeline = Vec::new();
            let mut count = 0;
            for number in numbers.by_ref().take(REQUESTS_PER_PIPELINE) {
                pipeline.extend(set_request(
                    &Self::key(number),
                    &self.value(number, version),
                ));
                count += 1;
            }
            client.send(&pipeline)?;
            for _ in 0..count {
                expect(&client.line()?, b"STORED")?;
            }
        }
        Ok(())
    }

    /// Deletes the items that `numbers` yields; those that are not there count as deleted.
    ///
    /// # Errors
    /// When the connection breaks, or `InvalidData` with another answer.
    pub fn delete(client: &mut Client, numbers: impl Iterator<Item = u64>) -> io::Result<()> {
        let mut numbers = numbers.peekable();
        while numbers.peek().is_some() {
            let mut pipeline = Vec::new();
            let mut count = 0;
            for number in numbers.by_ref().take(REQUESTS_PER_PIPELINE) {
                pipeline.extend_from_slice(b"delete ");
                pipeline.extend(Self::key(number));
                pipeline.extend_from_slice(b"\r\n");
                count += 1;
            }
            client.send(&pipeline)?;
            for _ in 0..count {
                let reply = client.line()?;
                if reply != b"NOT_FOUND" {
                    expect(&reply, b"DELETED")?;
                }
            }
        }
        Ok(())
    }

    /// Reads all items of `numbers` once; `newest` names the version that an item must have, `None` if it was deleted.
    ///
    /// # Errors
    /// When the connection breaks or answers with anything but hits.
    pub fn read(
        &self,
        client: &mut Client,
        numbers: Range<u64>,
        newest: impl Fn(u64) -> Option<u64>,
    ) -> io::Result<Found> {
        self.read_by(client, numbers, KEYS_PER_GET, newest)
    }

    /// As [`Items::read`], in multi-gets of so many keys.
    ///
    /// # Errors
    /// As [`Items::read`].
    pub fn read_by(
        &self,
        client: &mut Client,
        numbers: Range<u64>,
        keys_per_get: u64,
        newest: impl Fn(u64) -> Option<u64>,
    ) -> io::Result<Found> {
        let mut found = Found::default();
        let mut from = numbers.start;
        while from < numbers.end {
            let to = numbers.end.min(from + keys_per_get);
            let mut request = b"get".to_vec();
            for number in from..to {
                request.push(b' ');
                request.extend(Self::key(number));
            }
            request.extend_from_slice(b"\r\n");
            client.send(&request)?;
            let hits = client.hits()?;
            found.hits += hits.len() as u64;
            found.misses += to - from - hits.len() as u64;
            for (key, bytes) in hits {
                match self.version(&key, &bytes, &newest) {
                    Ok(version) => found.versions[version as usize] += 1,
                    Err(reason) if found.wrong.len() < 10 => {
                        found
                            .wrong
                            .push(format!("{}: {reason}", key.escape_ascii()));
                    }
                    Err(_) => {}
                }
            }
            from = to;
        }
        Ok(found)
    }

    fn version(
        &self,
        key: &[u8],
        bytes: &[u8],
        newest: impl Fn(u64) -> Option<u64>,
    ) -> Result<u64, String> {
        let ids = value::ids(key, bytes)?;
        let [id] = ids[..] else {
            return Err(format!("{} records", ids.len()));
        };
        let (number, version) = (id >> 1, id & 1);
        if Self::key(number) != key {
            return Err(format!("value of item {number}"));
        }
        match newest(number) {
            Some(expected) if expected == version => Ok(version),
            Some(expected) => Err(format!("version {version}, the newest is {expected}")),
            None => Err(format!("version {version} of a deleted item")),
        }
    }
}

fn expect(reply: &[u8], expected: &[u8]) -> io::Result<()> {
    if reply == expected {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "{} instead of {}",
            reply.escape_ascii(),
            expected.escape_ascii()
        ),
    ))
}

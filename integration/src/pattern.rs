//! Load of a given shape: so many connections, values of one size, pipelines of one length; every get a hit.

use std::io;
use std::net::{SocketAddr, TcpStream};

use crate::load::Items;
use crate::prepared::{Prepared, Protocol, Stored, connect, send_in_turn};
use crate::random::Random;
use crate::sweep::Sweep;

/// One request in this many is a `set`, the others are hits.
const SET_EVERY: u64 = 11;
/// Bytes of all items together, so that a processor's caches do not hold them.
const STORED_BYTES: u64 = 32 << 20;
const ITEMS_MAX: u64 = 100_000;
/// Bytes of the requests that are prepared, and how many pipelines at most.
const PREPARED_BYTES: usize = 32 << 20;
const PREPARED_MAX: usize = 2000;
/// Answers on their way at once: a server need not take a client for one that does not read.
const ANSWER_BYTES_AT_ONCE: usize = 4 << 20;

/// Sets on their way at once before anything is measured.
const FILL_PIPELINE: usize = 16;

/// A shape of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Length of every value.
    pub value_bytes: usize,
    /// Requests that are sent before their answers are read.
    pub pipeline: usize,
}

/// Connections that are open, and what they are about to send.
#[derive(Debug)]
pub struct Load {
    pattern: Pattern,
    prepared: Vec<Prepared>,
    connections: Vec<TcpStream>,
    at_once: usize,
}

impl Pattern {
    fn stored(self) -> Stored {
        let count = STORED_BYTES / self.value_bytes.max(1) as u64;
        Stored {
            items: Items {
                value_bytes: self.value_bytes,
            },
            count: count.clamp(1, ITEMS_MAX),
        }
    }

    /// Stores what patterns with values of this size read.
    ///
    /// # Errors
    /// When the connection breaks, or `InvalidData` when an item is not stored.
    pub fn fill(self, address: SocketAddr) -> io::Result<()> {
        let mut sweep = Sweep::connect(address, 1, FILL_PIPELINE, self.value_bytes)?;
        let count = self.stored().count;
        let passed = sweep.store(0..count, |_| self.value_bytes)?;
        if passed.done == count {
            Ok(())
        } else {
            Err(io::ErrorKind::InvalidData.into())
        }
    }

    /// Opens the connections and prepares the requests.
    ///
    /// # Errors
    /// When the server does not accept all connections.
    pub fn load(self, address: SocketAddr, connections: usize) -> io::Result<Load> {
        let mut random = Random::new(1);
        let mut prepared = Vec::new();
        let mut bytes = 0;
        while prepared.len() < PREPARED_MAX && bytes < PREPARED_BYTES {
            let pipeline = self.prepare(&mut random);
            bytes += pipeline.request_bytes();
            prepared.push(pipeline);
        }
        let answers = prepared.iter().map(Prepared::reply_bytes).max();
        let at_once = ANSWER_BYTES_AT_ONCE / answers.unwrap_or(1).max(1);
        Ok(Load {
            pattern: self,
            prepared,
            connections: connect(address, connections)?,
            at_once: at_once.clamp(1, connections),
        })
    }

    /// Sets come first: while a server answers gets that nobody reads yet, it need not read a value.
    fn prepare(self, random: &mut Random) -> Prepared {
        let sets = (0..self.pipeline)
            .filter(|_| random.below(SET_EVERY) == 0)
            .count();
        let mut prepared = Prepared::new(Protocol::Text, self.stored());
        for number in 0..self.pipeline {
            if number < sets {
                prepared.set(random);
            } else {
                prepared.get(random, 1);
            }
        }
        prepared
    }
}

impl Load {
    /// Sends at least `operations`, each connection in its turn; how many it were.
    ///
    /// # Errors
    /// When a connection breaks, or `InvalidData` when a reply is not that of a hit or a stored item.
    pub fn run(&mut self, operations: u64) -> io::Result<u64> {
        let batch = self.pattern.pipeline as u64;
        let pipelines = operations.div_ceil(batch);
        let done = send_in_turn(
            &self.prepared,
            &mut self.connections,
            self.at_once,
            pipelines,
        )?;
        Ok(done * batch)
    }
}

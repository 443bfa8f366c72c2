//! The request patterns that benchmarks compare servers by: 16-byte keys, 100-byte values, every get a hit.

use std::io;
use std::net::SocketAddr;

use crate::client::Client;
use crate::load::Items;
pub use crate::prepared::Protocol;
use crate::prepared::{Prepared, Stored, connect, send_in_turn};
use crate::random::Random;

/// Items that are stored before anything is measured; larger than the caches of a processor.
pub const ITEMS_COUNT: u64 = 100_000;
/// The items themselves.
pub const ITEMS: Items = Items { value_bytes: 100 };
/// Connections that take turns, all from one thread.
const CONNECTIONS: usize = 16;
/// Different pipelines that are prepared; sending them in a circle keeps the client cheap.
const PREPARED: usize = 2000;
/// One request in this many is a `set`, the others are hits.
const SET_EVERY: u64 = 11;

/// A pattern of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Each connection waits for a reply before it sends the next request.
    OneAtATime,
    /// Each connection sends 16 requests and then reads 16 replies.
    Pipeline16,
    /// Each connection sends a `get` of 16 keys, which counts as one operation.
    Get16,
}

impl Workload {
    /// All of them, in the order of the tables.
    pub const ALL: [Workload; 3] = [Workload::OneAtATime, Workload::Pipeline16, Workload::Get16];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Workload::OneAtATime => "one request at a time",
            Workload::Pipeline16 => "pipeline of 16",
            Workload::Get16 => "16-key get",
        }
    }

    /// Operations per pipeline.
    fn batch(self) -> u64 {
        match self {
            Workload::OneAtATime | Workload::Get16 => 1,
            Workload::Pipeline16 => 16,
        }
    }

    /// Sends at least `operations` in `protocol` to a server that holds the items; how many it were.
    ///
    /// # Errors
    /// When the connection breaks, or `InvalidData` when a reply is not that of a hit or a stored item.
    pub fn run(self, protocol: Protocol, address: SocketAddr, operations: u64) -> io::Result<u64> {
        let prepared = self.prepare(protocol);
        let mut connections = connect(address, CONNECTIONS)?;
        let pipelines = operations.div_ceil(self.batch());
        let done = send_in_turn(&prepared, &mut connections, CONNECTIONS, pipelines)?;
        Ok(done * self.batch())
    }

    fn prepare(self, protocol: Protocol) -> Vec<Prepared> {
        let mut random = Random::new(1);
        let stored = Stored {
            items: ITEMS,
            count: ITEMS_COUNT,
        };
        (0..PREPARED)
            .map(|_| {
                let mut prepared = Prepared::new(protocol, stored);
                for _ in 0..self.batch() {
                    if self == Workload::Get16 {
                        prepared.get(&mut random, 16);
                    } else if random.below(SET_EVERY) == 0 {
                        prepared.set(&mut random);
                    } else {
                        prepared.get(&mut random, 1);
                    }
                }
                prepared
            })
            .collect()
    }
}

/// Stores the items that all workloads read.
///
/// # Errors
/// As [`Items::store`].
pub fn store_items(client: &mut Client, count: u64) -> io::Result<()> {
    ITEMS.store(client, 0..count, 0)
}

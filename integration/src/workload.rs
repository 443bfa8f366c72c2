//! The request patterns that benchmarks compare servers by: 16-byte keys, 100-byte values, every get a hit.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::binary::{HEADER_BYTES, Packet, opcode};
use crate::client::{Client, REPLY_TIMEOUT, set_request};
use crate::load::Items;
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
        let mut connections = (0..CONNECTIONS)
            .map(|_| connect(address))
            .collect::<io::Result<Vec<TcpStream>>>()?;
        let mut reply = Vec::new();
        let mut next = 0;
        let mut done = 0;
        while done < operations {
            let from = next;
            for connection in &mut connections {
                connection.write_all(&prepared[next % PREPARED].requests)?;
                next += 1;
            }
            for (index, connection) in connections.iter_mut().enumerate() {
                reply.resize(prepared[(from + index) % PREPARED].reply_bytes, 0);
                connection.read_exact(&mut reply)?;
                if !prepared[(from + index) % PREPARED].answered_by(&reply) {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                done += self.batch();
            }
        }
        Ok(done)
    }

    fn prepare(self, protocol: Protocol) -> Vec<Prepared> {
        let mut random = Random::new(1);
        (0..PREPARED)
            .map(|_| {
                let mut prepared = Prepared::new(protocol);
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

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The classic text commands.
    Text,
    /// memcached's binary protocol; a get of many keys is quiet gets with a `noop` behind them.
    Binary,
}

/// A pipeline and the length of its reply.
#[derive(Clone, Debug)]
struct Prepared {
    protocol: Protocol,
    requests: Vec<u8>,
    reply_bytes: usize,
    /// Where in the reply the last answer begins.
    last_at: usize,
}

impl Prepared {
    fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            requests: Vec::new(),
            reply_bytes: 0,
            last_at: 0,
        }
    }

    /// True when the pipeline was done to its end.
    fn answered_by(&self, reply: &[u8]) -> bool {
        match self.protocol {
            Protocol::Text => reply.ends_with(b"END\r\n") || reply.ends_with(b"STORED\r\n"),
            // The status.
            Protocol::Binary => reply[self.last_at + 6..self.last_at + 8] == [0, 0],
        }
    }

    fn get(&mut self, random: &mut Random, keys: usize) {
        match self.protocol {
            Protocol::Text => self.text_get(random, keys),
            Protocol::Binary => self.binary_get(random, keys),
        }
    }

    fn text_get(&mut self, random: &mut Random, keys: usize) {
        self.requests.extend_from_slice(b"get");
        for _ in 0..keys {
            self.requests.push(b' ');
            self.requests.extend(Items::key(random.below(ITEMS_COUNT)));
        }
        self.requests.extend_from_slice(b"\r\n");
        let hit = "VALUE key:000000000000 0 100\r\n".len() + ITEMS.value_bytes + 2;
        self.reply_bytes += keys * hit + "END\r\n".len();
    }

    fn binary_get(&mut self, random: &mut Random, keys: usize) {
        let hit = HEADER_BYTES + size_of::<u32>() + ITEMS.value_bytes;
        let code = if keys == 1 { opcode::GET } else { opcode::GETQ };
        for _ in 0..keys {
            let key = Items::key(random.below(ITEMS_COUNT));
            self.binary(&Packet::request(code, &[], &key, &[]), hit);
        }
        if keys > 1 {
            let noop = Packet::request(opcode::NOOP, &[], &[], &[]);
            self.binary(&noop, HEADER_BYTES);
        }
    }

    fn binary(&mut self, packet: &Packet, reply_bytes: usize) {
        self.requests.extend(packet.bytes());
        self.last_at = self.reply_bytes;
        self.reply_bytes += reply_bytes;
    }

    fn set(&mut self, random: &mut Random) {
        let number = random.below(ITEMS_COUNT);
        let (key, value) = (Items::key(number), ITEMS.value(number, 0));
        match self.protocol {
            Protocol::Text => {
                self.requests.extend(set_request(&key, &value));
                self.reply_bytes += "STORED\r\n".len();
            }
            Protocol::Binary => {
                let packet = Packet::request(opcode::SET, &[0; 8], &key, &value);
                self.binary(&packet, HEADER_BYTES);
            }
        }
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
    Ok(stream)
}

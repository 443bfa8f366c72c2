//! Requests of which a known share finds no copy in a near cache: they ask for an item for the first time, or store one.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use tiercache_integration::client::set_request;
use tiercache_integration::load::Items;
use tiercache_integration::random::Random;
use tiercache_integration::workload::{ITEMS, ITEMS_COUNT};

/// Connections that take turns, all from one thread.
const CONNECTIONS: usize = 16;
/// More unread items than scripts ask for, whatever chance does.
const UNREAD_SPARE: u64 = 2000;

/// What is sent, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Script {
    /// The name in tables.
    pub name: &'static str,
    /// One request in this many is a `set`.
    set_every: u64,
    /// One get in this many asks for an item that was not read before.
    unread_every: u64,
    /// Requests of a pipeline.
    batch: u64,
}

impl Script {
    /// Nine of ten gets find a copy, then nine of ten requests.
    pub const ALL: [Script; 4] = [
        Script {
            name: "9 of 10 gets by hot, one at a time",
            set_every: 11,
            unread_every: 10,
            batch: 1,
        },
        Script {
            name: "9 of 10 gets by hot, pipeline of 16",
            set_every: 11,
            unread_every: 10,
            batch: 16,
        },
        Script {
            name: "9 of 10 requests by hot, one at a time",
            set_every: 20,
            unread_every: 19,
            batch: 1,
        },
        Script {
            name: "9 of 10 requests by hot, pipeline of 16",
            set_every: 20,
            unread_every: 19,
            batch: 16,
        },
    ];

    /// Items beyond [`ITEMS_COUNT`] that all scripts together ask for once each, at most.
    pub fn unread_items(operations: u64) -> u64 {
        Script::ALL
            .iter()
            .map(|script| script.own_unread_items(operations))
            .sum()
    }

    /// Prepares a run of at least so many operations; `unread` is the first item that nobody has read.
    pub fn prepare(self, operations: u64, unread: &mut u64) -> Requests {
        let mut random = Random::new(self.batch);
        let pipelines = (0..operations.div_ceil(self.batch))
            .map(|_| {
                let mut pipeline = Pipeline::default();
                for _ in 0..self.batch {
                    if random.below(self.set_every) == 0 {
                        pipeline.set(random.below(ITEMS_COUNT));
                    } else if random.below(self.unread_every) == 0 {
                        pipeline.get(*unread);
                        *unread += 1;
                    } else {
                        pipeline.get(random.below(ITEMS_COUNT));
                    }
                }
                pipeline
            })
            .collect();
        Requests {
            pipelines,
            batch: self.batch,
        }
    }

    fn own_unread_items(self, operations: u64) -> u64 {
        operations / self.unread_every + UNREAD_SPARE
    }
}

/// A prepared run.
pub struct Requests {
    pipelines: Vec<Pipeline>,
    batch: u64,
}

#[derive(Default)]
struct Pipeline {
    requests: Vec<u8>,
    reply_bytes: usize,
}

impl Pipeline {
    fn set(&mut self, number: u64) {
        let request = set_request(&Items::key(number), &ITEMS.value(number, 0));
        self.requests.extend(request);
        self.reply_bytes += "STORED\r\n".len();
    }

    fn get(&mut self, number: u64) {
        self.requests.extend_from_slice(b"get ");
        self.requests.extend(Items::key(number));
        self.requests.extend_from_slice(b"\r\n");
        let header = format!("VALUE key:000000000000 0 {}\r\n", ITEMS.value_bytes);
        self.reply_bytes += header.len() + ITEMS.value_bytes + "\r\nEND\r\n".len();
    }
}

impl Requests {
    /// Sends everything once; how many operations it were.
    ///
    /// # Errors
    /// When a connection breaks, or `InvalidData` when a reply is not that of hits and stored items.
    pub fn run(&self, address: SocketAddr) -> io::Result<u64> {
        let mut connections = (0..CONNECTIONS)
            .map(|_| {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                Ok(stream)
            })
            .collect::<io::Result<Vec<TcpStream>>>()?;
        let mut reply = Vec::new();
        for group in self.pipelines.chunks(CONNECTIONS) {
            for (connection, pipeline) in connections.iter_mut().zip(group) {
                connection.write_all(&pipeline.requests)?;
            }
            for (connection, pipeline) in connections.iter_mut().zip(group) {
                reply.resize(pipeline.reply_bytes, 0);
                connection.read_exact(&mut reply)?;
                if !reply.ends_with(b"END\r\n") && !reply.ends_with(b"STORED\r\n") {
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
        }
        Ok(self.pipelines.len() as u64 * self.batch)
    }
}

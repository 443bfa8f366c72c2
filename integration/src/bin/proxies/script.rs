//! Requests of which a known share finds no copy in a near cache: one get in ten asks for an item for the first time.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use tiercache_integration::client::set_request;
use tiercache_integration::load::Items;
use tiercache_integration::random::Random;
use tiercache_integration::workload::{ITEMS, ITEMS_COUNT};

/// Connections that take turns, all from one thread.
const CONNECTIONS: usize = 16;
/// One request in this many is a `set`.
const SET_EVERY: u64 = 11;
/// One get in this many asks for an item that was not read before.
const UNREAD_EVERY: u64 = 10;
/// More unread items than scripts ask for, whatever chance does.
const UNREAD_SPARE: u64 = 2000;

/// How the requests are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    OneAtATime,
    Pipeline16,
}

impl Script {
    pub const ALL: [Script; 2] = [Script::OneAtATime, Script::Pipeline16];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Script::OneAtATime => "one get in ten of an item not read before, one at a time",
            Script::Pipeline16 => "the same in a pipeline of 16",
        }
    }

    fn batch(self) -> u64 {
        match self {
            Script::OneAtATime => 1,
            Script::Pipeline16 => 16,
        }
    }

    /// Items beyond [`ITEMS_COUNT`] that all scripts together ask for once each, at most.
    pub fn unread_items(operations: u64) -> u64 {
        Script::ALL.len() as u64 * unread_items_of_one(operations)
    }

    /// Prepares a run of at least so many operations.
    pub fn prepare(self, operations: u64) -> Requests {
        let mut random = Random::new(self.batch());
        let each = unread_items_of_one(operations);
        let mut unread = ITEMS_COUNT + each * u64::from(self == Script::Pipeline16);
        let pipelines = (0..operations.div_ceil(self.batch()))
            .map(|_| {
                let mut pipeline = Pipeline::default();
                for _ in 0..self.batch() {
                    if random.below(SET_EVERY) == 0 {
                        pipeline.set(random.below(ITEMS_COUNT));
                    } else if random.below(UNREAD_EVERY) == 0 {
                        pipeline.get(unread);
                        unread += 1;
                    } else {
                        pipeline.get(random.below(ITEMS_COUNT));
                    }
                }
                pipeline
            })
            .collect();
        Requests {
            pipelines,
            batch: self.batch(),
        }
    }
}

fn unread_items_of_one(operations: u64) -> u64 {
    operations / UNREAD_EVERY + UNREAD_SPARE
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

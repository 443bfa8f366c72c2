//! Pipelines that are made once and sent in a circle, so that the client costs little beside the server.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::binary::{HEADER_BYTES, Packet, opcode};
use crate::client::{REPLY_TIMEOUT, set_request};
use crate::load::Items;
use crate::random::Random;
use crate::value::RECORD_BYTES_MIN;

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The classic text commands.
    Text,
    /// memcached's binary protocol; a get of many keys is quiet gets with a `noop` behind them.
    Binary,
}

/// The items that pipelines ask for: all of them are there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored {
    pub(crate) items: Items,
    pub(crate) count: u64,
}

impl Stored {
    /// A value that items of this size may have; below a record's length it says nothing of its key.
    pub(crate) fn value(self, number: u64) -> Vec<u8> {
        if self.items.value_bytes < RECORD_BYTES_MIN {
            return vec![b'x'; self.items.value_bytes];
        }
        self.items.value(number, 0)
    }
}

/// A pipeline and the length of its reply.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    protocol: Protocol,
    stored: Stored,
    requests: Vec<u8>,
    reply_bytes: usize,
    /// Where in the reply the last answer begins.
    last_at: usize,
}

impl Prepared {
    pub(crate) fn new(protocol: Protocol, stored: Stored) -> Self {
        Self {
            protocol,
            stored,
            requests: Vec::new(),
            reply_bytes: 0,
            last_at: 0,
        }
    }

    /// Bytes of all answers together.
    pub(crate) fn reply_bytes(&self) -> usize {
        self.reply_bytes
    }

    /// Bytes of all requests together.
    pub(crate) fn request_bytes(&self) -> usize {
        self.requests.len()
    }

    /// True when the pipeline was done to its end.
    fn answered_by(&self, reply: &[u8]) -> bool {
        match self.protocol {
            Protocol::Text => reply.ends_with(b"END\r\n") || reply.ends_with(b"STORED\r\n"),
            // The status.
            Protocol::Binary => reply[self.last_at + 6..self.last_at + 8] == [0, 0],
        }
    }

    pub(crate) fn get(&mut self, random: &mut Random, keys: usize) {
        match self.protocol {
            Protocol::Text => self.text_get(random, keys),
            Protocol::Binary => self.binary_get(random, keys),
        }
    }

    fn text_get(&mut self, random: &mut Random, keys: usize) {
        self.requests.extend_from_slice(b"get");
        for _ in 0..keys {
            self.requests.push(b' ');
            self.requests
                .extend(Items::key(random.below(self.stored.count)));
        }
        self.requests.extend_from_slice(b"\r\n");
        let value_bytes = self.stored.items.value_bytes;
        let header = format!("VALUE key:000000000000 0 {value_bytes}\r\n");
        self.reply_bytes += keys * (header.len() + value_bytes + 2) + "END\r\n".len();
    }

    fn binary_get(&mut self, random: &mut Random, keys: usize) {
        let hit = HEADER_BYTES + size_of::<u32>() + self.stored.items.value_bytes;
        let code = if keys == 1 { opcode::GET } else { opcode::GETQ };
        for _ in 0..keys {
            let key = Items::key(random.below(self.stored.count));
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

    pub(crate) fn set(&mut self, random: &mut Random) {
        let number = random.below(self.stored.count);
        let (key, value) = (Items::key(number), self.stored.value(number));
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

/// Connections to one server, which take turns.
///
/// # Errors
/// When the server does not accept all of them.
pub(crate) fn connect(address: SocketAddr, count: usize) -> io::Result<Vec<TcpStream>> {
    (0..count)
        .map(|_| {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
            stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
            Ok(stream)
        })
        .collect()
}

/// Sends pipelines in a circle, on `at_once` connections before their answers are read, until at least `pipelines` are
/// done; how many it were.
///
/// # Errors
/// When a connection breaks, or `InvalidData` when a reply is not that of hits and stored items.
pub(crate) fn send_in_turn(
    prepared: &[Prepared],
    connections: &mut [TcpStream],
    at_once: usize,
    pipelines: u64,
) -> io::Result<u64> {
    let mut reply = Vec::new();
    let mut circle = prepared.iter().cycle();
    let mut sent = Vec::with_capacity(at_once);
    let mut done = 0;
    while done < pipelines {
        let group = &mut connections[..at_once];
        for connection in &mut *group {
            let pipeline = circle.next().expect("there are pipelines");
            connection.write_all(&pipeline.requests)?;
            sent.push(pipeline);
        }
        for (connection, pipeline) in group.iter_mut().zip(sent.drain(..)) {
            reply.resize(pipeline.reply_bytes, 0);
            connection.read_exact(&mut reply)?;
            if !pipeline.answered_by(&reply) {
                return Err(io::ErrorKind::InvalidData.into());
            }
            done += 1;
        }
        connections.rotate_left(at_once);
    }
    Ok(done)
}

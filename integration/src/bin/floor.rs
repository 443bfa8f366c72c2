//! The floor that benchmarks measure servers against: an epoll loop that looks at nothing but a request's first bytes
//! and answers what never changes. It knows the workloads' requests and no others.
//!
//! What a server takes beyond this is its own work; the rest is the kernel's and nobody can save it.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use tiercache_integration::workload::ITEMS;

const RECEIVE_BYTES: usize = 16 * 1024;
const EVENTS: usize = 64;
/// The number that stands for the listening socket.
const LISTENER: u64 = u64::MAX;

/// The requests and answers of the workloads.
struct Exchange {
    hit: Vec<u8>,
    hits: Vec<u8>,
    set_bytes: usize,
}

impl Exchange {
    fn new() -> Exchange {
        let header = format!("VALUE key:000000000000 0 {}\r\n", ITEMS.value_bytes);
        let value = vec![b'x'; ITEMS.value_bytes];
        let item = [header.as_bytes(), &value, b"\r\n"].concat();
        Exchange {
            hit: [&item[..], b"END\r\n"].concat(),
            hits: [item.repeat(16), b"END\r\n".to_vec()].concat(),
            set_bytes: format!("set key:000000000000 0 0 {}\r\n", ITEMS.value_bytes).len()
                + ITEMS.value_bytes
                + 2,
        }
    }

    /// Answers the whole requests at the front of `input`; how many bytes they are.
    fn answer(&self, input: &[u8], answers: &mut Vec<u8>) -> usize {
        const GET: usize = "get key:000000000000\r\n".len();
        const GET16: usize = "get".len() + 16 * " key:000000000000".len() + 2;
        let mut done = 0;
        loop {
            let rest = &input[done..];
            let (answer, bytes) = match rest {
                [b's', ..] => (&b"STORED\r\n"[..], self.set_bytes),
                [b'v', ..] => (&b"VERSION 0.0.0\r\n"[..], "version\r\n".len()),
                [b'g', ..] if rest.get(GET - 2) == Some(&b' ') => (&self.hits[..], GET16),
                [b'g', ..] => (&self.hit[..], GET),
                _ => return done,
            };
            if rest.len() < bytes {
                return done;
            }
            answers.extend_from_slice(answer);
            done += bytes;
        }
    }
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    filled: usize,
}

impl Connection {
    /// Receives once, answers once; whether the connection goes on.
    fn turn(&mut self, exchange: &Exchange, answers: &mut Vec<u8>) -> io::Result<bool> {
        let received = self.stream.read(&mut self.input[self.filled..])?;
        self.filled += received;
        answers.clear();
        let done = exchange.answer(&self.input[..self.filled], answers);
        self.input.copy_within(done..self.filled, 0);
        self.filled -= done;
        self.stream.write_all(answers)?;
        Ok(received > 0)
    }
}

fn main() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    if let Some(file) = std::env::var_os("MEMCACHED_PORT_FILENAME") {
        let port = listener.local_addr()?.port();
        fs::write(file, format!("TCP INET: {port}\n"))?;
    }
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let readable = EventFlags::IN;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), readable)?;
    let exchange = Exchange::new();
    let mut connections = HashMap::new();
    let mut answers = Vec::new();
    let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
    loop {
        events.clear();
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            let number = event.data.u64();
            if number == LISTENER {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                let number = stream.as_raw_fd() as u64;
                epoll::add(&epoll, &stream, EventData::new_u64(number), readable)?;
                let connection = Connection {
                    stream,
                    input: vec![0; RECEIVE_BYTES],
                    filled: 0,
                };
                connections.insert(number, connection);
            } else if let Some(connection) = connections.get_mut(&number)
                && !connection.turn(&exchange, &mut answers).unwrap_or(false)
            {
                connections.remove(&number);
            }
        }
    }
}

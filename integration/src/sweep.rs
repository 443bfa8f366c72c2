//! One pass over many numbered items, stored or read through pipelines on several connections from one thread. An item
//! that was refused or is gone is counted, not an error.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::load::Items;
use crate::prepared::connect;

/// Bytes that a connection's answers are read into at first.
const RECEIVE_BYTES: usize = 64 * 1024;

/// What a pass found or stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Items asked for.
    pub asked: u64,
    /// Items that were stored, or found.
    pub done: u64,
    /// Bytes of keys and values of items found.
    pub bytes: u64,
}

/// Connections for passes over the items of one server.
#[derive(Debug)]
pub struct Sweep {
    connections: Vec<Connection>,
    pipeline: usize,
    /// Time from one request to the next, zero for none.
    pause: Duration,
    /// What values are cut from.
    filling: Vec<u8>,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    requests: Vec<u8>,
    /// Answers that are still to come.
    waiting: usize,
    answers: Vec<u8>,
    filled: usize,
}

impl Sweep {
    /// Opens `connections`, each for pipelines of so many requests; no value is longer than `value_bytes_max`.
    ///
    /// # Errors
    /// When the server does not accept all connections.
    pub fn connect(
        address: SocketAddr,
        connections: usize,
        pipeline: usize,
        value_bytes_max: usize,
    ) -> io::Result<Sweep> {
        let connection = |stream| Connection {
            stream,
            requests: Vec::new(),
            waiting: 0,
            answers: vec![0; RECEIVE_BYTES],
            filled: 0,
        };
        let mut filling = vec![0; value_bytes_max];
        crate::random::Random::new(1).fill(&mut filling);
        Ok(Sweep {
            connections: connect(address, connections)?
                .into_iter()
                .map(connection)
                .collect(),
            pipeline,
            pause: Duration::ZERO,
            filling,
        })
    }

    /// Sends no more than so many requests per second from now on, on the average.
    pub fn pace(&mut self, requests_per_second: u32) {
        self.pause = Duration::from_secs(1) / requests_per_second;
    }

    /// Stores the items that `numbers` yields, with values as long as `value_bytes` says.
    ///
    /// # Errors
    /// When a connection breaks.
    pub fn store(
        &mut self,
        numbers: impl Iterator<Item = u64>,
        value_bytes: impl Fn(u64) -> usize,
    ) -> io::Result<Passed> {
        let filling = std::mem::take(&mut self.filling);
        let passed = self.pass(numbers, |number, requests| {
            let value = &filling[..value_bytes(number)];
            requests.extend_from_slice(b"set ");
            requests.extend(Items::key(number));
            // Writing to a Vec cannot fail.
            let _ = write!(requests, " 0 0 {}\r\n", value.len());
            requests.extend_from_slice(value);
            requests.extend_from_slice(b"\r\n");
        });
        self.filling = filling;
        passed
    }

    /// Reads the items that `numbers` yields, each with a `get` of its own.
    ///
    /// # Errors
    /// When a connection breaks, or `InvalidData` with an answer that is none to a `get`.
    pub fn read(&mut self, numbers: impl Iterator<Item = u64>) -> io::Result<Passed> {
        self.pass(numbers, |number, requests| {
            requests.extend_from_slice(b"get ");
            requests.extend(Items::key(number));
            requests.extend_from_slice(b"\r\n");
        })
    }

    fn pass(
        &mut self,
        numbers: impl Iterator<Item = u64>,
        request: impl Fn(u64, &mut Vec<u8>),
    ) -> io::Result<Passed> {
        let mut numbers = numbers.peekable();
        let mut passed = Passed::default();
        let started = Instant::now();
        while numbers.peek().is_some() {
            let due = self.pause * u32::try_from(passed.asked).unwrap_or(u32::MAX);
            std::thread::sleep(due.saturating_sub(started.elapsed()));
            for connection in &mut self.connections {
                connection.requests.clear();
                connection.waiting = 0;
                for number in numbers.by_ref().take(self.pipeline) {
                    request(number, &mut connection.requests);
                    connection.waiting += 1;
                }
                passed.asked += connection.waiting as u64;
                connection.stream.write_all(&connection.requests)?;
            }
            for connection in &mut self.connections {
                connection.receive(&mut passed)?;
            }
        }
        Ok(passed)
    }
}

impl Connection {
    /// Reads the answers of a pipeline.
    fn receive(&mut self, passed: &mut Passed) -> io::Result<()> {
        let mut read = 0;
        while self.waiting > 0 {
            match answer(&self.answers[read..self.filled])? {
                Some(answer) => {
                    read += answer.bytes;
                    self.waiting -= usize::from(answer.last);
                    passed.done += u64::from(answer.counts);
                    passed.bytes += answer.item_bytes as u64;
                }
                None => {
                    self.answers.copy_within(read..self.filled, 0);
                    self.filled -= read;
                    read = 0;
                    if self.filled == self.answers.len() {
                        self.answers.resize(2 * self.filled, 0);
                    }
                    match self.stream.read(&mut self.answers[self.filled..])? {
                        0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                        received => self.filled += received,
                    }
                }
            }
        }
        self.filled -= read;
        Ok(())
    }
}

/// One line of an answer, with the value behind it.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    bytes: usize,
    /// Its request is answered with it.
    last: bool,
    /// An item was stored or found.
    counts: bool,
    /// Of its key and value.
    item_bytes: usize,
}

/// The answer at the front of `bytes`, `None` if it is not whole.
fn answer(bytes: &[u8]) -> io::Result<Option<Answer>> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return Ok(None);
    };
    let line = bytes[..end].trim_ascii_end();
    let mut answer = Answer {
        bytes: end + 1,
        last: true,
        counts: line == b"STORED",
        item_bytes: 0,
    };
    if let Some(rest) = line.strip_prefix(b"VALUE ") {
        let text = String::from_utf8_lossy(rest);
        let mut words = text.split(' ');
        let key_bytes = words.next().map_or(0, str::len);
        let value_bytes: usize = words
            .nth(1)
            .and_then(|word| word.parse().ok())
            .ok_or(io::ErrorKind::InvalidData)?;
        answer = Answer {
            bytes: answer.bytes + value_bytes + 2,
            last: false,
            counts: true,
            item_bytes: key_bytes + value_bytes,
        };
    } else if !matches!(line, b"STORED" | b"END") && !line.starts_with(b"SERVER_ERROR ") {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok((answer.bytes <= bytes.len()).then_some(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Option<(usize, bool, bool, usize)> {
        answer(bytes)
            .unwrap()
            .map(|answer| (answer.bytes, answer.last, answer.counts, answer.item_bytes))
    }

    // Whole answers are told from half ones, items that are there from those that are not.
    #[test]
    fn answers_are_told_apart() {
        let hit = b"VALUE key:000000000007 0 3\r\nabc\r\n";
        assert_eq!(read(hit), Some((hit.len(), false, true, 19)));
        assert_eq!(read(&hit[..hit.len() - 1]), None);
        assert_eq!(read(b"END\r\nEND\r\n"), Some((5, true, false, 0)));
        assert_eq!(read(b"STORED\r\n"), Some((8, true, true, 0)));
        let refused = b"SERVER_ERROR out of memory storing object\r\n";
        assert_eq!(read(refused), Some((refused.len(), true, false, 0)));
        assert!(answer(b"ERROR\r\n").is_err());
        assert_eq!(read(b"STOR"), None);
    }
}

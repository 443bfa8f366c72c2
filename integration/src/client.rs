//! A blocking client that shows every byte: what a test sends is what the server gets.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Time that a reply may take before the client gives up.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(20);

/// One connection. Methods that return `io::Result` survive a killed server; the others are for servers that must answer.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<TcpStream>,
}

/// A key and its value as a `VALUE` block carried them.
pub type Hit = (Vec<u8>, Vec<u8>);

impl Client {
    /// Connects, with Nagle's delay off and [`REPLY_TIMEOUT`] on reads and writes.
    ///
    /// # Errors
    /// When nobody listens at `address`.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
        stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
        Ok(Self {
            reader: BufReader::with_capacity(64 * 1024, stream),
        })
    }

    /// The socket itself, for tests that half-send or never read.
    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// When the server closed the connection or does not read for [`REPLY_TIMEOUT`].
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// The next line without its line end.
    ///
    /// # Errors
    /// `UnexpectedEof` when the connection was closed before a whole line came.
    pub fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(line)
    }

    /// Exactly `count` bytes.
    ///
    /// # Errors
    /// `UnexpectedEof` when fewer came.
    pub fn exact(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Sends a request that is answered by one line, and returns that line.
    ///
    /// # Errors
    /// As [`Client::send`] and [`Client::line`].
    pub fn ask(&mut self, request: &[u8]) -> io::Result<Vec<u8>> {
        self.send(request)?;
        self.line()
    }

    /// Stores `value` for ever with a plain `set`; the reply line.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn set(&mut self, key: &[u8], value: &[u8]) -> io::Result<Vec<u8>> {
        self.send(&set_request(key, value))?;
        self.line()
    }

    /// The value of `key`, `None` on a miss.
    ///
    /// # Errors
    /// As [`Client::ask`], and `InvalidData` when the reply is not a `VALUE` block for `key`.
    pub fn get(&mut self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut request = b"get ".to_vec();
        request.extend_from_slice(key);
        request.extend_from_slice(b"\r\n");
        self.send(&request)?;
        let mut hits = self.hits()?;
        match hits.len() {
            0 => Ok(None),
            1 if hits[0].0 == key => Ok(hits.pop().map(|(_, value)| value)),
            _ => Err(unexpected(&hits[0].0)),
        }
    }

    /// Reads one reply to `get`: `VALUE` blocks up to `END`, in the order of their arrival.
    ///
    /// # Errors
    /// As [`Client::line`], and `InvalidData` on any other line.
    pub fn hits(&mut self) -> io::Result<Vec<Hit>> {
        let mut hits = Vec::new();
        loop {
            let line = self.line()?;
            if line == b"END" {
                return Ok(hits);
            }
            let (key, length) = parse_value_line(&line).ok_or_else(|| unexpected(&line))?;
            let key = key.to_vec();
            let mut value = self.exact(length + 2)?;
            if !value.ends_with(b"\r\n") {
                return Err(unexpected(&value));
            }
            value.truncate(length);
            hits.push((key, value));
        }
    }

    /// All lines of `stats KIND` (`""` for the plain one).
    ///
    /// # Errors
    /// As [`Client::line`], and `InvalidData` on a line that is no `STAT`.
    pub fn stats(&mut self, kind: &str) -> io::Result<Stats> {
        self.send(format!("stats {kind}\r\n").replace(" \r", "\r").as_bytes())?;
        let mut stats = Stats::default();
        loop {
            let line = self.line()?;
            if line == b"END" {
                return Ok(stats);
            }
            let text = String::from_utf8_lossy(&line);
            let (name, value) = text
                .strip_prefix("STAT ")
                .and_then(|rest| rest.split_once(' '))
                .ok_or_else(|| unexpected(&line))?;
            stats.lines.insert(name.to_owned(), value.to_owned());
        }
    }
}

/// `set KEY 0 0 LENGTH` and its data block.
pub fn set_request(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut request = Vec::with_capacity(key.len() + value.len() + 32);
    request.extend_from_slice(b"set ");
    request.extend_from_slice(key);
    request.extend_from_slice(format!(" 0 0 {}\r\n", value.len()).as_bytes());
    request.extend_from_slice(value);
    request.extend_from_slice(b"\r\n");
    request
}

/// Key and length of `VALUE key flags length[ cas]`.
pub fn parse_value_line(line: &[u8]) -> Option<(&[u8], usize)> {
    let mut words = line.strip_prefix(b"VALUE ")?.split(|&byte| byte == b' ');
    let key = words.next()?;
    let length = words.nth(1)?;
    let length = std::str::from_utf8(length).ok()?.parse().ok()?;
    Some((key, length))
}

fn unexpected(line: &[u8]) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("unexpected reply {:?}", String::from_utf8_lossy(line)),
    )
}

/// One answer to `stats`.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    lines: BTreeMap<String, String>,
}

impl Stats {
    /// The text of one line, if the server sent it.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.lines.get(name).map(String::as_str)
    }

    /// A counter or gauge.
    ///
    /// # Panics
    /// When the server does not send it or it is not a number: the names are part of what is tested.
    pub fn number(&self, name: &str) -> u64 {
        self.text(name)
            .unwrap_or_else(|| panic!("stats has no line {name}"))
            .parse()
            .unwrap_or_else(|_| panic!("stats {name} is not a number"))
    }

    /// How much a counter grew since `earlier`.
    pub fn growth(&self, earlier: &Stats, name: &str) -> u64 {
        self.number(name).saturating_sub(earlier.number(name))
    }

    /// Names and values, for messages.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.lines
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

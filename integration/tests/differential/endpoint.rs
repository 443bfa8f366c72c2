//! One server under comparison: a connection that is opened again when the server closed it.

use std::io;
use std::time::Duration;

use tiercache_integration::client::Client;
use tiercache_integration::server::Server;

use super::reply::{Reply, data_length};

/// Answer that nothing else produces: it marks the end of the replies to what was sent before it.
const MARK_REQUEST: &[u8] = b"mn\r\n";
const MARK_REPLY: &[u8] = b"MN";

/// Time without an answer after which a request counts as unanswered.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// What came back up to one mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub replies: Vec<Reply>,
    pub end: End,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The connection goes on.
    Open,
    /// The server closed the connection.
    Closed,
    /// Neither an answer nor a close within [`SILENCE_MAX`].
    Silent,
}

pub struct Endpoint<'a> {
    server: &'a Server,
    client: Client,
}

impl<'a> Endpoint<'a> {
    pub fn new(server: &'a Server) -> Self {
        Self {
            server,
            client: connect(server),
        }
    }

    /// Writes `bytes` in the pieces that `cuts` make of it. An error means that the server closed early, which the
    /// answer shows.
    pub fn send(&mut self, bytes: &[u8], cuts: &[usize]) {
        let mut from = 0;
        for &cut in cuts.iter().chain([&bytes.len()]) {
            let to = cut.clamp(from, bytes.len());
            if self.client.send(&bytes[from..to]).is_err() {
                return;
            }
            from = to;
        }
    }

    /// Reads up to the next mark.
    pub fn answer(&mut self) -> Answer {
        let mut replies = Vec::new();
        let end = loop {
            match self.reply() {
                Ok(reply) if reply.line == MARK_REPLY => break End::Open,
                Ok(reply) => replies.push(reply),
                Err(error) if is_timeout(&error) => break End::Silent,
                Err(_) => break End::Closed,
            }
        };
        if end != End::Open {
            self.reset();
        }
        Answer { replies, end }
    }

    /// Goes on with a new connection.
    pub fn reset(&mut self) {
        self.client = connect(self.server);
    }

    fn reply(&mut self) -> io::Result<Reply> {
        let line = self.client.line()?;
        let data = match data_length(&line) {
            Some(length) => Some(self.client.exact(length + 2)?),
            None => None,
        };
        Ok(Reply { line, data })
    }
}

/// A new connection, already known as a text connection: its first byte decides that.
fn connect(server: &Server) -> Client {
    let mut client = server.connect();
    client
        .stream()
        .set_read_timeout(Some(SILENCE_MAX))
        .expect("a socket takes a timeout");
    let reply = client.ask(MARK_REQUEST).expect("a new connection answers");
    assert_eq!(reply, MARK_REPLY);
    client
}

/// What [`Endpoint::answer`] waits for.
pub fn mark() -> &'static [u8] {
    MARK_REQUEST
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

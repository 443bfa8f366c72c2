//! One server under comparison: a connection that is opened again when the server closed it.

use std::io;
use std::marker::PhantomData;
use std::net::Shutdown;
use std::time::Duration;

use tiercache_integration::client::Client;
use tiercache_integration::server::Server;

use super::syntax::Syntax;

/// Time without an answer after which a request counts as unanswered.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// What came back up to one mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<R> {
    pub replies: Vec<R>,
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

pub struct Endpoint<'a, S> {
    server: &'a Server,
    client: Client,
    syntax: PhantomData<S>,
}

impl<'a, S: Syntax> Endpoint<'a, S> {
    pub fn new(server: &'a Server) -> Self {
        let mut endpoint = Self {
            server,
            client: server.connect(),
            syntax: PhantomData,
        };
        endpoint.open();
        endpoint
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

    /// Tells the server that nothing more comes, as a client does that ends in the middle of a request.
    pub fn finish(&mut self) {
        // An error means that the server closed first.
        let _ = self.client.stream().shutdown(Shutdown::Write);
    }

    /// Reads up to the next mark.
    pub fn answer(&mut self) -> Answer<S::Reply> {
        let mut replies = Vec::new();
        let end = loop {
            match S::read(&mut self.client) {
                Ok(reply) if S::is_mark(&reply) => break End::Open,
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
        self.client = self.server.connect();
        self.open();
    }

    /// Makes the first bytes of the connection those of the protocol: they decide which one it speaks.
    fn open(&mut self) {
        self.client
            .stream()
            .set_read_timeout(Some(SILENCE_MAX))
            .expect("a socket takes a timeout");
        self.client.send(S::MARK).expect("a new connection reads");
        let reply = S::read(&mut self.client).expect("a new connection answers");
        assert!(S::is_mark(&reply), "{reply:?}");
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

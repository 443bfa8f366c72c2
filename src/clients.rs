//! Who is connected: an entry for each open socket, for `stats conns` and for who logs or watches.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};

use parking_lot::Mutex;

/// One end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a unix socket, which stands for both ends.
    Unix(PathBuf),
}

impl fmt::Display for Peer {
    /// As `stats conns` shows it.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address @ SocketAddr::V4(_)) => write!(out, "tcp:{address}"),
            Peer::Tcp(address @ SocketAddr::V6(_)) => write!(out, "tcp6:{address}"),
            Peer::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

/// What a socket's connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Doing {
    /// Waiting for connections: a listener.
    Listening,
    /// Not encrypted or not authenticated yet.
    Entering,
    /// Nothing until its client sends.
    Receiving,
    /// Answering.
    Working,
    /// Nothing until its client reads.
    Sending,
    /// Streaming events to its client (`watch`).
    Watching,
}

impl Doing {
    const ALL: [Doing; 6] = [
        Doing::Listening,
        Doing::Entering,
        Doing::Receiving,
        Doing::Working,
        Doing::Sending,
        Doing::Watching,
    ];

    /// memcached's name of the state.
    pub fn name(self) -> &'static str {
        match self {
            Doing::Listening => "conn_listening",
            Doing::Entering | Doing::Receiving => "conn_read",
            Doing::Working => "conn_parse_cmd",
            Doing::Sending => "conn_mwrite",
            Doing::Watching => "conn_watch",
        }
    }
}

/// An open socket. Its own thread writes, any thread reads.
#[derive(Debug)]
pub struct Client {
    /// Unique over the process' life.
    pub id: u64,
    /// Number of the socket.
    pub fd: i32,
    /// The client; of a listener, where it listens.
    pub peer: Peer,
    /// Where it connected to; none for a listener.
    pub local: Option<Peer>,
    doing: AtomicU8,
    /// The second of [`Clients`] in which the client last sent or read something.
    progress_second: AtomicU32,
}

impl Client {
    /// What it is doing.
    #[inline]
    pub fn doing(&self) -> Doing {
        Doing::ALL[usize::from(self.doing.load(Relaxed)) % Doing::ALL.len()]
    }

    /// Notes what it is doing from now on.
    #[inline]
    pub fn set_doing(&self, doing: Doing) {
        self.doing.store(doing as u8, Relaxed);
    }

    /// Notes that the client sent or read something in this second.
    #[inline]
    pub fn progress(&self, second: u32) {
        self.progress_second.store(second, Relaxed);
    }

    /// The second in which the client last sent or read something.
    #[inline]
    pub fn progress_second(&self) -> u32 {
        self.progress_second.load(Relaxed)
    }
}

/// All open sockets.
#[derive(Debug, Default)]
pub struct Clients {
    by_socket: Mutex<BTreeMap<i32, Arc<Client>>>,
    /// Seconds that the server has counted.
    second: AtomicU32,
}

impl Clients {
    /// Enters a socket.
    pub fn enter(
        &self,
        id: u64,
        fd: i32,
        peer: Peer,
        local: Option<Peer>,
        doing: Doing,
    ) -> Arc<Client> {
        let client = Arc::new(Client {
            id,
            fd,
            peer,
            local,
            doing: AtomicU8::new(doing as u8),
            progress_second: AtomicU32::new(self.second()),
        });
        self.by_socket.lock().insert(fd, Arc::clone(&client));
        client
    }

    /// Removes a socket that is about to be closed.
    pub fn leave(&self, client: &Client) {
        let mut by_socket = self.by_socket.lock();
        // The number may be another connection's already.
        if by_socket
            .get(&client.fd)
            .is_some_and(|present| present.id == client.id)
        {
            by_socket.remove(&client.fd);
        }
    }

    /// The next sockets with numbers from `fd` on, at most `most`.
    pub fn from(&self, fd: i32, most: usize) -> Vec<Arc<Client>> {
        let by_socket = self.by_socket.lock();
        by_socket
            .range(fd..)
            .take(most)
            .map(|(_, client)| Arc::clone(client))
            .collect()
    }

    /// Counts a second.
    pub fn tick(&self) {
        self.second.fetch_add(1, Relaxed);
    }

    /// Seconds counted so far.
    #[inline]
    pub fn second(&self) -> u32 {
        self.second.load(Relaxed)
    }
}

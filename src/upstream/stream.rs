//! The bytes of a connection to a server, and the replies among those that came.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tiercache_protocol::ReplyDecoder;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::connection::End;
use super::link::Common;
use super::name::Way;
use super::server::Server;
use crate::socket::Watched;
use crate::tls::{self, ClientStream};

/// What one read brings in at most, unless a value is on its way.
const READ_BYTES: usize = 16 * 1024;
/// An empty buffer that grew beyond this is given back.
pub(super) const BUFFER_KEPT_BYTES_MAX: usize = 256 * 1024;

/// A socket of any kind.
pub(super) struct Stream {
    socket: Socket,
    pub(super) write_blocked: bool,
    /// Nothing more is sent: the server is elsewhere now.
    pub(super) leaving: bool,
    /// Where it is connected to, if that can become another place.
    at: Option<SocketAddr>,
    /// The addresses among which it was seen last.
    addresses_seen: u64,
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// One of these two, once the connection's home watches it.
    AtHome(Watched),
    // Boxed: few connections are encrypted, and its state is a kilobyte.
    Tls(Box<ClientStream>),
}

impl Stream {
    /// Connects to a server, encrypted if it wants that; a unix socket never is.
    pub(super) async fn connect(server: &Server) -> Result<Stream, End> {
        let (mut at, mut addresses_seen) = (None, 0);
        let socket = match &server.way {
            Way::Name(name) => {
                addresses_seen = name.generation();
                let stream = TcpStream::connect(&*name.addresses().await).await?;
                stream.set_nodelay(true)?;
                at = Some(stream.peer_addr()?);
                match &server.access.tls {
                    None => Socket::Tcp(stream),
                    Some(tls) => match tls.connect(name.host(), stream).await {
                        Ok(stream) => Socket::Tls(Box::new(stream)),
                        // Not certified, or not encrypted at all.
                        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                            return Err(End::Handshake(error.to_string()));
                        }
                        Err(error) => return Err(error.into()),
                    },
                }
            }
            Way::Unix(path) => Socket::Unix(UnixStream::connect(path).await?),
        };
        Ok(Stream {
            socket,
            write_blocked: false,
            leaving: false,
            at,
            addresses_seen,
        })
    }

    /// Has the home of the link's connections watch the socket, if they have one. Bytes that are not encrypted need
    /// the runtime no more then.
    pub(super) fn settle(self, link: &Common) -> io::Result<Stream> {
        let Some(home) = link.home() else {
            return Ok(self);
        };
        let at_home = |socket: OwnedFd| {
            let readiness = home.watch(socket.as_fd())?;
            io::Result::Ok(Socket::AtHome(Watched::new(socket, readiness)))
        };
        let socket = match self.socket {
            Socket::Tcp(stream) => at_home(stream.into_std()?.into())?,
            Socket::Unix(stream) => at_home(stream.into_std()?.into())?,
            Socket::Tls(stream) => {
                home.watch_for_runtime(tls::client_socket(&stream).as_fd())?;
                Socket::Tls(stream)
            }
            settled => settled,
        };
        Ok(Stream { socket, ..self })
    }

    /// Whether its home sees when more can be sent.
    pub(super) fn is_at_home(&self) -> bool {
        matches!(self.socket, Socket::AtHome(_))
    }

    /// Whether the server's name has come to mean another place.
    #[inline]
    pub(super) fn is_elsewhere(&mut self, server: &Server) -> bool {
        match (self.at, &server.way) {
            (Some(at), Way::Name(name)) => name.has_left(at, &mut self.addresses_seen),
            _ => false,
        }
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Socket::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Socket::AtHome(stream) => stream.poll_send(bytes),
            Socket::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    /// Sends on what was written and still waits to be encrypted or taken by the socket.
    #[inline]
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(_) | Socket::Unix(_) | Socket::AtHome(_) => Poll::Ready(Ok(())),
            Socket::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// Makes the close a reset, which discards what is not delivered yet.
    pub(super) fn reset_on_close(&self) {
        let stream = match &self.socket {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Tls(stream) => tls::client_socket(stream).as_fd(),
            Socket::AtHome(stream) => stream.as_fd(),
            Socket::Unix(_) => return,
        };
        // It fails on a socket that is gone already, which is as good; on a unix socket it changes nothing.
        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
}

/// Received and not yet decoded bytes.
pub(super) struct Replies {
    pub(super) bytes: Vec<u8>,
    pub(super) start: usize,
    /// Bytes of the whole reply at the front, where its header told.
    pub(super) total: Option<usize>,
    /// Bytes that are dropped when they arrive: of a value that is too large.
    dropping: usize,
    pub(super) decoder: ReplyDecoder,
}

impl Replies {
    pub(super) fn new(value_max: usize) -> Replies {
        Replies {
            bytes: Vec::new(),
            start: 0,
            total: None,
            dropping: 0,
            decoder: ReplyDecoder::new(value_max),
        }
    }

    /// Drops `size` bytes from the front, of which some may not have arrived.
    #[inline]
    pub(super) fn drop_front(&mut self, size: usize) {
        let here = size.min(self.bytes.len() - self.start);
        self.start += here;
        self.dropping = size - here;
    }

    /// Drops what has arrived of what is to be dropped; false if some of it has not.
    #[inline]
    pub(super) fn has_dropped(&mut self) -> bool {
        if self.dropping > 0 {
            self.total = None;
            self.drop_front(self.dropping);
        }
        self.dropping == 0
    }

    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
    ) -> Poll<io::Result<usize>> {
        self.bytes.drain(..self.start);
        self.start = 0;
        if self.bytes.is_empty() && self.bytes.capacity() > BUFFER_KEPT_BYTES_MAX {
            self.bytes = Vec::new();
        }
        // Room grows with what has arrived, never by what a header declares.
        let missing = self.total.unwrap_or(0).saturating_sub(self.bytes.len());
        self.bytes
            .reserve(READ_BYTES.max(missing.min(self.bytes.len())));
        match &mut stream.socket {
            Socket::Tcp(socket) => pin!(socket.read_buf(&mut self.bytes)).poll(cx),
            Socket::Unix(socket) => pin!(socket.read_buf(&mut self.bytes)).poll(cx),
            Socket::AtHome(socket) => socket.poll_receive(&mut self.bytes),
            Socket::Tls(socket) => pin!(socket.read_buf(&mut self.bytes)).poll(cx),
        }
    }
}

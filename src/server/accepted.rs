//! An accepted connection, on its way from the acceptor to its worker.

use std::io::{self, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

#[cfg(test)]
use super::worker::tests::Poison;
use crate::clients::Peer;
use crate::tls::ClientCertificate;

/// An accepted connection of either kind.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    /// Not encrypted yet.
    Tls(TcpStream, ClientCertificate),
    Unix(UnixStream),
    #[cfg(test)]
    Test(Poison),
}

impl Socket {
    /// Its number, its client's end and this one.
    pub(super) fn ends(&self) -> io::Result<(i32, Peer, Peer)> {
        Ok(match self {
            Socket::Tcp(stream) | Socket::Tls(stream, _) => (
                stream.as_raw_fd(),
                Peer::Tcp(stream.peer_addr()?),
                Peer::Tcp(stream.local_addr()?),
            ),
            Socket::Unix(stream) => {
                let path = stream.local_addr()?.as_pathname().map(Path::to_owned);
                let ends = Peer::Unix(path.unwrap_or_default());
                (stream.as_raw_fd(), ends.clone(), ends)
            }
            #[cfg(test)]
            Socket::Test(Poison(stream)) => (
                stream.as_raw_fd(),
                Peer::Unix("".into()),
                Peer::Unix("".into()),
            ),
        })
    }

    /// Sends a short text and closes. A new socket takes it at once, unless its client is gone.
    pub(super) fn dismiss(self, text: &[u8]) {
        let _ = match self {
            Socket::Tcp(mut stream) => stream.write(text),
            // It would not understand.
            Socket::Tls(..) => Ok(0),
            Socket::Unix(mut stream) => stream.write(text),
            #[cfg(test)]
            Socket::Test(_) => Ok(0),
        };
    }
}

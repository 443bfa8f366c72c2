//! A client's socket of either kind, watched by its worker.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BufMut;
use rustix::net::Shutdown;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::tasks::Vacancy;
use crate::socket::Watched;

/// What a connection receives from and sends to.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin {
    /// Receives once, behind what is in `buffer`; 0 bytes mean that the client has closed its side.
    /// There is room for something, and not much more than that is taken.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        let room = buffer.capacity() - buffer.len();
        std::pin::pin!(self.read_buf(&mut buffer.limit(room))).poll(cx)
    }

    /// Sends at once what the socket takes, where that is known to need nothing else; the others
    /// say none.
    fn send_now(&mut self, _: &[u8]) -> Option<usize> {
        None
    }

    /// Whether more may be received without waiting.
    fn may_have_more(&self) -> bool {
        true
    }
}

/// A socket.
#[derive(Debug)]
pub(super) struct Stream(Watched);

impl Stream {
    /// The socket of the task that fills `place`; it does not block.
    pub(super) fn watched(socket: OwnedFd, place: &Vacancy<'_>) -> io::Result<Stream> {
        let readiness = place.watch(&socket)?;
        Ok(Stream(Watched::new(socket, readiness)))
    }
}

impl Transport for Stream {
    #[inline]
    fn poll_receive(
        &mut self,
        _: &mut Context<'_>,
        buffer: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        self.0.poll_receive(buffer)
    }

    #[inline]
    fn send_now(&mut self, bytes: &[u8]) -> Option<usize> {
        match self.0.poll_send(bytes) {
            // What goes wrong here goes wrong again where it is handled.
            Poll::Ready(outcome) => outcome.ok(),
            Poll::Pending => None,
        }
    }

    #[inline]
    fn may_have_more(&self) -> bool {
        self.0.is_readable()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0
            .poll_receive_into(buffer.initialize_unfilled())
            .map_ok(|count| buffer.advance(count))
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_send(bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_send_pieces(pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        rustix::net::shutdown(&self.0, Shutdown::Write)?;
        Poll::Ready(Ok(()))
    }
}

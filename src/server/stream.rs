//! A connected socket of either kind, watched by its worker.
//!
//! Bytes that come and go touch it with one system call each and nothing else: whether there is
//! something to be had is known from the worker's last look at its sockets.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::BufMut;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::reactor::Readiness;
use super::tasks::Vacancy;

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
pub(super) struct Stream {
    socket: OwnedFd,
    readiness: Rc<Readiness>,
}

impl Stream {
    /// The socket of the task that fills `place`; it does not block.
    pub(super) fn watched(socket: OwnedFd, place: &Vacancy<'_>) -> io::Result<Stream> {
        let readiness = place.watch(&socket)?;
        Ok(Stream { socket, readiness })
    }

    /// What a `recv` into `room` bytes came to.
    #[inline]
    fn received(&self, outcome: rustix::io::Result<usize>, room: usize) -> Poll<io::Result<usize>> {
        match outcome {
            Ok(count) => {
                if count < room {
                    self.readiness.drained();
                }
                Poll::Ready(Ok(count))
            }
            Err(Errno::AGAIN) => {
                self.readiness.drained();
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }

    /// What a send came to.
    #[inline]
    fn sent(&self, outcome: rustix::io::Result<usize>) -> Poll<io::Result<usize>> {
        match outcome {
            Ok(count) => Poll::Ready(Ok(count)),
            Err(Errno::AGAIN) => {
                self.readiness.full();
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}

impl Transport for Stream {
    #[inline]
    fn poll_receive(
        &mut self,
        _: &mut Context<'_>,
        buffer: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        if !self.readiness.is_readable() {
            return Poll::Pending;
        }
        let room = buffer.capacity() - buffer.len();
        let outcome = rustix::net::recv(&self.socket, spare_capacity(buffer), RecvFlags::empty());
        self.received(outcome.map(|(count, _)| count), room)
    }

    #[inline]
    fn send_now(&mut self, bytes: &[u8]) -> Option<usize> {
        if !self.readiness.is_writable() {
            return None;
        }
        // What goes wrong here goes wrong again where it is handled.
        rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL).ok()
    }

    #[inline]
    fn may_have_more(&self) -> bool {
        self.readiness.is_readable()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.readiness.is_readable() {
            return Poll::Pending;
        }
        let unfilled = buffer.initialize_unfilled();
        let room = unfilled.len();
        let outcome = rustix::net::recv(&self.socket, unfilled, RecvFlags::empty());
        self.received(outcome.map(|(count, _)| count), room)
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
        if !self.readiness.is_writable() {
            return Poll::Pending;
        }
        self.sent(rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.readiness.is_writable() {
            return Poll::Pending;
        }
        self.sent(rustix::io::writev(&self.socket, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        rustix::net::shutdown(&self.socket, Shutdown::Write)?;
        Poll::Ready(Ok(()))
    }
}

//! A connected socket of which somebody else tells when it is ready.
//!
//! Bytes that come and go touch it with one system call each and nothing else: whether there is
//! something to be had is known from the last look at all sockets. Edge-triggered: what was not
//! drained is remembered here, the kernel tells of it once.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::Poll;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

/// What may be tried on a socket, as far as the kernel has told and nothing has shown otherwise.
#[derive(Debug)]
pub struct Readiness(Cell<EventFlags>);

impl Readiness {
    /// That of a socket of which nothing was told yet: trying shows what is true.
    pub fn assumed() -> Readiness {
        Readiness(Cell::new(EventFlags::IN | EventFlags::OUT))
    }

    /// Events that end a socket's incoming bytes, or the whole socket.
    const CLOSED: EventFlags = EventFlags::RDHUP
        .union(EventFlags::HUP)
        .union(EventFlags::ERR);
    const READABLE: EventFlags = EventFlags::IN.union(Readiness::CLOSED);
    const WRITABLE: EventFlags = EventFlags::OUT.union(Readiness::CLOSED);

    /// Adds what the kernel has told.
    #[inline]
    pub fn add(&self, told: EventFlags) {
        self.0.set(self.0.get() | told);
    }

    #[inline]
    fn is_readable(&self) -> bool {
        self.0.get().intersects(Readiness::READABLE)
    }

    #[inline]
    fn is_writable(&self) -> bool {
        self.0.get().intersects(Readiness::WRITABLE)
    }

    /// Notes that all that came was received: what comes next makes an event. Where the other side
    /// is closed none will come, so it stays readable to its end.
    #[inline]
    fn drained(&self) {
        self.0.set(self.0.get().difference(EventFlags::IN));
    }

    /// Notes that nothing more can be sent before an event.
    fn full(&self) {
        self.0.set(self.0.get().difference(EventFlags::OUT));
    }
}

impl Default for Readiness {
    fn default() -> Readiness {
        Readiness(Cell::new(EventFlags::empty()))
    }
}

/// A socket that does not block, and what is known of it. Who polls it in vain is polled again by
/// whoever tells of its readiness; no waker is kept.
#[derive(Debug)]
pub struct Watched {
    socket: OwnedFd,
    readiness: Rc<Readiness>,
}

impl Watched {
    /// A socket of which `readiness` tells.
    pub fn new(socket: OwnedFd, readiness: Rc<Readiness>) -> Watched {
        Watched { socket, readiness }
    }

    /// Whether something may be received.
    #[inline]
    pub fn is_readable(&self) -> bool {
        self.readiness.is_readable()
    }

    #[inline]
    fn is_writable(&self) -> bool {
        self.readiness.is_writable()
    }

    /// Receives once, behind what is in `buffer` and as much as there is room for; 0 bytes mean
    /// that the other side is closed.
    #[inline]
    pub fn poll_receive(&self, buffer: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        if !self.is_readable() {
            return Poll::Pending;
        }
        let room = buffer.capacity() - buffer.len();
        let outcome = rustix::net::recv(&self.socket, spare_capacity(buffer), RecvFlags::empty());
        self.received(outcome.map(|(count, _)| count), room)
    }

    /// The same into `bytes`, from their beginning.
    #[inline]
    pub fn poll_receive_into(&self, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        if !self.is_readable() {
            return Poll::Pending;
        }
        let room = bytes.len();
        let outcome = rustix::net::recv(&self.socket, bytes, RecvFlags::empty());
        self.received(outcome.map(|(count, _)| count), room)
    }

    /// Sends once.
    #[inline]
    pub fn poll_send(&self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.is_writable() {
            return Poll::Pending;
        }
        self.sent(rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL))
    }

    /// Sends several pieces once.
    pub fn poll_send_pieces(&self, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if !self.is_writable() {
            return Poll::Pending;
        }
        self.sent(rustix::io::writev(&self.socket, pieces))
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
            Err(Errno::AGAIN) => {
                self.readiness.full();
                Poll::Pending
            }
            outcome => Poll::Ready(outcome.map_err(io::Error::from)),
        }
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

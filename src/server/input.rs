//! The received and not yet consumed bytes of one connection.
//!
//! Between turns only a half received request is kept: copied to its exact size while it is small,
//! growing with what arrives once it is large, never by what its header declares.

use std::io;
use std::task::{Context, Poll};

use super::buffers::{Buffers, RECEIVE_BYTES};
use super::stream::Transport;

/// A half request up to this size is kept in memory of exactly its size, and the next bytes are
/// received behind a copy of it in a lent buffer.
const SMALL_BYTES: usize = 2 * 1024;

/// Room ahead of the bytes of a large request that have arrived.
const AHEAD_BYTES_MAX: usize = 64 * 1024;

/// Room beyond the end of a large request, so that the `recv` that completes it comes back short:
/// that tells that the socket is drained and saves the next `recv` from asking in vain.
const BEYOND_BYTES: usize = 64;

/// Received bytes; the first `start` of them are consumed.
#[derive(Debug, Default)]
pub(super) struct Input {
    bytes: Vec<u8>,
    start: usize,
    /// Bytes of the whole half received request, where its header told.
    total: Option<usize>,
}

impl Input {
    /// An input that begins with bytes received before.
    pub(super) fn holding(bytes: Vec<u8>) -> Input {
        Input {
            bytes,
            ..Input::default()
        }
    }

    /// An input of which some bytes are consumed already.
    pub(super) fn consumed_to(bytes: Vec<u8>, start: usize) -> Input {
        Input {
            bytes,
            start,
            total: None,
        }
    }

    /// What is not consumed.
    #[inline]
    pub(super) fn unconsumed(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    #[inline]
    pub(super) fn consume(&mut self, count: usize) {
        self.start += count;
    }

    /// The memory held between turns, if it is large enough to be accounted for.
    #[inline]
    pub(super) fn held_bytes(&self) -> Option<usize> {
        (self.bytes.capacity() > SMALL_BYTES).then_some(self.bytes.capacity())
    }

    /// Ends a turn: gives the buffer back unless a large half request is in it. `total` is that
    /// request's size where it is known.
    #[inline]
    pub(super) fn settle(&mut self, buffers: &Buffers, total: Option<usize>) {
        if self.start == self.bytes.len() {
            buffers.give_receive(std::mem::take(&mut self.bytes));
        } else {
            self.keep_half(buffers);
        }
        self.start = 0;
        self.total = total;
        if self.bytes.len() > SMALL_BYTES {
            // Now rather than with the next bytes, so that it is accounted for.
            self.bytes.reserve_exact(self.ahead());
        }
    }

    /// Bytes to make room for ahead of those that have arrived.
    fn ahead(&self) -> usize {
        match self.total {
            Some(total) => {
                (total.saturating_sub(self.bytes.len()) + BEYOND_BYTES).min(AHEAD_BYTES_MAX)
            }
            None => RECEIVE_BYTES,
        }
    }

    fn keep_half(&mut self, buffers: &Buffers) {
        if self.bytes.len() - self.start <= SMALL_BYTES {
            let half = self.bytes[self.start..].to_vec();
            buffers.give_receive(std::mem::replace(&mut self.bytes, half));
        } else {
            self.bytes.drain(..self.start);
        }
    }

    /// Receives once; 0 bytes mean that the client has closed its side.
    #[inline]
    pub(super) fn poll_receive<S: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        buffers: &Buffers,
    ) -> Poll<io::Result<usize>> {
        if self.bytes.len() > SMALL_BYTES {
            return self.poll_receive_large(cx, stream);
        }
        let mut lent = buffers.take_receive();
        lent.extend_from_slice(&self.bytes);
        let received = stream.poll_receive(cx, &mut lent);
        match received {
            Poll::Ready(_) => self.bytes = lent,
            Poll::Pending => buffers.give_receive(lent),
        }
        received
    }

    fn poll_receive_large<S: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<io::Result<usize>> {
        let ahead = self.ahead();
        self.bytes.reserve_exact(ahead);
        stream.poll_receive(cx, &mut self.bytes)
    }
}

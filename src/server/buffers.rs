//! A worker's buffers: lent to a connection for one turn, so that an idle one holds none.

use std::cell::{RefCell, RefMut};

/// Bytes of a receive buffer: what one `recv` brings in at most, unless a value is on its way.
pub(super) const RECEIVE_BYTES: usize = 16 * 1024;

/// An answer buffer that grew beyond this is not kept for others.
const ANSWER_BYTES_KEPT_MAX: usize = 128 * 1024;

/// Buffers of each kind that wait for the next turn. One is enough while no connection waits in
/// the midst of a turn.
const KEPT_MAX: usize = 8;

/// Free buffers.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    receive: RefCell<Vec<Vec<u8>>>,
    answer: RefCell<Vec<Vec<u8>>>,
    at_once: RefCell<AtOnce>,
}

/// Buffers for what is received and answered without a wait in between; nobody keeps them.
#[derive(Debug)]
pub(super) struct AtOnce {
    /// Has room for [`RECEIVE_BYTES`].
    pub(super) received: Vec<u8>,
    /// Empty between uses.
    pub(super) answers: Vec<u8>,
}

impl Default for AtOnce {
    fn default() -> AtOnce {
        AtOnce {
            received: Vec::with_capacity(RECEIVE_BYTES),
            answers: Vec::new(),
        }
    }
}

impl AtOnce {
    /// Ends a use whose answers are sent.
    #[inline]
    pub(super) fn clear(&mut self) {
        self.answers.clear();
        if self.answers.capacity() > ANSWER_BYTES_KEPT_MAX {
            self.answers = Vec::new();
        }
    }
}

impl Buffers {
    /// The buffers for what needs no wait.
    #[inline]
    pub(super) fn at_once(&self) -> RefMut<'_, AtOnce> {
        self.at_once.borrow_mut()
    }

    /// An empty buffer with room for [`RECEIVE_BYTES`].
    #[inline]
    pub(super) fn take_receive(&self) -> Vec<u8> {
        let kept = self.receive.borrow_mut().pop();
        kept.unwrap_or_else(|| Vec::with_capacity(RECEIVE_BYTES))
    }

    /// Takes a buffer back, of whatever size.
    #[inline]
    pub(super) fn give_receive(&self, mut buffer: Vec<u8>) {
        let mut kept = self.receive.borrow_mut();
        if buffer.capacity() == RECEIVE_BYTES && kept.len() < KEPT_MAX {
            buffer.clear();
            kept.push(buffer);
        }
    }

    /// An empty buffer for answers.
    #[inline]
    pub(super) fn take_answer(&self) -> Vec<u8> {
        self.answer.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes an answer buffer back.
    #[inline]
    pub(super) fn give_answer(&self, mut buffer: Vec<u8>) {
        let mut kept = self.answer.borrow_mut();
        if buffer.capacity() <= ANSWER_BYTES_KEPT_MAX && kept.len() < KEPT_MAX {
            buffer.clear();
            kept.push(buffer);
        }
    }
}

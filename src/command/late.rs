//! Answers of one connection that come later: holes in what it has to send, filled as they come.
//!
//! Requests behind one that asks a pool go on meanwhile, so that a whole pipeline is on its way at
//! once. The order of the answers is the order of the requests, whatever the order of filling.

use std::cell::RefCell;
use std::future::poll_fn;
use std::ops::Range;
use std::task::{Poll, Waker};

/// Holes of one connection. A request that would make more waits until these are filled.
const HOLES_MAX: usize = 256;
/// Bytes in filled holes after which further requests wait.
const FILLED_BYTES_SOFT_MAX: usize = 1 << 20;

/// The holes in a connection's answers.
#[derive(Debug, Default)]
pub struct Late(RefCell<Holes>);

#[derive(Debug, Default)]
struct Holes {
    /// Where each hole is in the answers, and which part of `filled` belongs there.
    holes: Vec<(usize, Range<usize>)>,
    filled: Vec<u8>,
    open: usize,
    waker: Option<Waker>,
}

/// A hole that has to be filled once.
#[derive(Debug)]
#[must_use]
pub(super) struct Hole(usize);

impl Late {
    /// Makes a hole at byte `at` of the answers, which grow only behind it from now on.
    pub(super) fn make_hole(&self, at: usize) -> Hole {
        let holes = &mut *self.0.borrow_mut();
        holes.holes.push((at, 0..0));
        holes.open += 1;
        Hole(holes.holes.len() - 1)
    }

    /// Fills a hole with what `write` appends.
    pub(super) fn fill(&self, hole: Hole, write: impl FnOnce(&mut Vec<u8>)) {
        let holes = &mut *self.0.borrow_mut();
        let start = holes.filled.len();
        write(&mut holes.filled);
        holes.holes[hole.0].1 = start..holes.filled.len();
        holes.open -= 1;
        if holes.open == 0
            && let Some(waker) = holes.waker.take()
        {
            waker.wake();
        }
    }

    /// Whether the holes have to be settled before further ones are made.
    pub fn is_full(&self) -> bool {
        let holes = self.0.borrow();
        holes.holes.len() >= HOLES_MAX || holes.filled.len() >= FILLED_BYTES_SOFT_MAX
    }

    /// Whether there are holes, filled or not.
    pub fn has_holes(&self) -> bool {
        !self.0.borrow().holes.is_empty()
    }

    /// Waits until all holes are filled, and puts what belongs there into `answers`.
    pub async fn settle(&self, answers: &mut Vec<u8>) {
        poll_fn(|cx| {
            let holes = &mut *self.0.borrow_mut();
            if holes.open == 0 {
                return Poll::Ready(());
            }
            holes.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        self.0.borrow_mut().put_into(answers);
    }
}

impl Holes {
    fn put_into(&mut self, answers: &mut Vec<u8>) {
        let in_order = self
            .holes
            .windows(2)
            .all(|pair| pair[0].1.end <= pair[1].1.start);
        if answers.is_empty() && in_order {
            std::mem::swap(answers, &mut self.filled);
        } else {
            let mut whole = Vec::with_capacity(answers.len() + self.filled.len());
            let mut done = 0;
            for (at, part) in &self.holes {
                whole.extend_from_slice(&answers[done..*at]);
                whole.extend_from_slice(&self.filled[part.clone()]);
                done = *at;
            }
            whole.extend_from_slice(&answers[done..]);
            *answers = whole;
        }
        self.holes.clear();
        self.filled.clear();
        if self.filled.capacity() > FILLED_BYTES_SOFT_MAX {
            self.filled = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_keep_the_order_of_the_requests() {
        let late = Late::default();
        let mut answers = b"a".to_vec();
        let (first, second) = (late.make_hole(1), late.make_hole(1));
        answers.extend_from_slice(b"d");
        let third = late.make_hole(2);
        for (hole, text) in [(third, "e"), (first, "b"), (second, "c")] {
            late.fill(hole, |out| out.extend_from_slice(text.as_bytes()));
        }
        late.0.borrow_mut().put_into(&mut answers);
        assert_eq!(answers, b"abcde");
        assert!(!late.has_holes());
    }
}

//! Answers of one connection that come later: holes in what it has to send, filled as they come.
//!
//! Requests behind one that asks a pool go on meanwhile, so that a whole pipeline is on its way at
//! once. The order of the answers is the order of the requests, whatever the order of filling.

use std::cell::RefCell;
use std::future::poll_fn;
use std::ops::Range;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Holes of one connection. A request that would make more waits until these are filled.
const HOLES_MAX: usize = 256;
/// Holes of a connection of which nobody knows yet how large its answers are.
const HOLES_AT_FIRST: usize = 32;
/// Bytes that the answers to holes of one connection may have together, were each as large as the largest item; one hole
/// is made in any case.
const LARGEST_BYTES_MAX: usize = 64 << 20;
/// Bytes in filled holes after which further requests wait.
const FILLED_BYTES_SOFT_MAX: usize = 1 << 20;

/// The holes in a connection's answers.
#[derive(Debug)]
pub struct Late(RefCell<Holes>);

#[derive(Debug)]
struct Holes {
    /// Holes that may be made before they are filled: as many as the answers so far, were they all as
    /// large as the largest of the last ones, fit within [`FILLED_BYTES_SOFT_MAX`].
    limit: usize,
    /// What `limit` may become, whatever the answers so far.
    limit_max: usize,
    /// Where each hole is in the answers, and which part of `filled` belongs there.
    holes: Vec<(usize, Range<usize>)>,
    filled: Vec<u8>,
    /// Holes that are not filled, and what else is waited for.
    open: usize,
    waker: Option<Waker>,
}

/// A hole that has to be filled once.
#[derive(Debug)]
#[must_use]
pub(super) struct Hole(usize);

/// What answers wait for besides their holes.
#[derive(Debug)]
pub(super) struct Held(Rc<Late>);

impl Late {
    /// No holes yet, in answers with items of at most `item_size_max` bytes.
    pub fn new(item_size_max: usize) -> Late {
        let limit_max = (LARGEST_BYTES_MAX / item_size_max.max(1)).clamp(1, HOLES_MAX);
        Late(RefCell::new(Holes {
            limit: HOLES_AT_FIRST.min(limit_max),
            limit_max,
            holes: Vec::new(),
            filled: Vec::new(),
            open: 0,
            waker: None,
        }))
    }

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
        holes.close();
    }

    /// Has all answers wait until this is dropped.
    pub(super) fn hold(self: &Rc<Late>) -> Held {
        self.0.borrow_mut().open += 1;
        Held(Rc::clone(self))
    }

    /// Whether the holes have to be settled before further ones are made.
    pub fn is_full(&self) -> bool {
        let holes = self.0.borrow();
        holes.holes.len() >= holes.limit || holes.filled.len() >= FILLED_BYTES_SOFT_MAX
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

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.borrow_mut().close();
    }
}

impl Holes {
    /// One less to wait for.
    fn close(&mut self) {
        self.open -= 1;
        if self.open == 0
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }

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
        let largest = self.holes.iter().map(|(_, part)| part.len()).max();
        let fitting = FILLED_BYTES_SOFT_MAX / largest.unwrap_or(0).max(1);
        self.limit = fitting.clamp(1, self.limit_max).min(self.limit * 2);
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
        let late = Late::new(1);
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

    /// Makes as many holes as may be, fills each with so many bytes, and tells how many there were.
    fn under_way(late: &Late, bytes: usize) -> usize {
        let mut holes = Vec::new();
        while !late.is_full() {
            holes.push(late.make_hole(0));
        }
        let count = holes.len();
        for hole in holes {
            late.fill(hole, |out| out.resize(out.len() + bytes, 0));
        }
        late.0.borrow_mut().put_into(&mut Vec::new());
        count
    }

    // A pipeline of gets of large values is not asked for at once: all answers would be held at the same time.
    #[test]
    fn the_larger_the_answers_the_fewer_are_under_way() {
        let late = Late::new(1);
        let under_way = |bytes: usize| under_way(&late, bytes);
        let small: Vec<usize> = (0..5).map(|_| under_way(100)).collect();
        assert_eq!(small, [32, 64, 128, 256, 256]);
        let large: Vec<usize> = (0..4).map(|_| under_way(256 << 10)).collect();
        assert_eq!(large, [256, 4, 4, 4]);
        assert_eq!(under_way(4 << 20), 4);
        assert_eq!(
            (under_way(4 << 20), under_way(100), under_way(100)),
            (1, 1, 2)
        );
    }

    // The story of a connection that held 256 MiB: its answers were small until all that were under way were of the largest
    // items.
    #[test]
    fn the_largest_items_have_room_whatever_the_answers_so_far() {
        for (item_size_max, counts) in [
            (1 << 10, [32, 64, 128, 256]),
            (256 << 10, [32, 64, 128, 256]),
            ((256 << 10) + 1, [32, 64, 128, 255]),
            (1 << 20, [32, 64, 64, 64]),
            (16 << 20, [4, 4, 4, 4]),
            (64 << 20, [1, 1, 1, 1]),
            (1 << 30, [1, 1, 1, 1]),
        ] {
            let late = Late::new(item_size_max);
            assert_eq!(counts.map(|_| under_way(&late, 1)), counts);
        }
    }
}

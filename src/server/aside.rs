//! Who stands aside: tasks that had a turn, have more to do, and let others go first.
//!
//! ```text
//!   a part of a turn, a few in a row ──▶ light ──┐ for ROUND_TIME,
//!   full turns, or many in a row ──────▶ heavy ──┴ one of each at least ──▶ the sockets are looked at again
//! ```
//!
//! A large value on its way takes several turns, one for each piece that is received, and must not wait between them for
//! hundreds of clients that are sent megabytes each.

use std::collections::VecDeque;
use std::time::Duration;

/// How long those who stand aside are polled between two looks at the sockets: by then a request that came
/// meanwhile has waited long enough. One turn may take as long by itself.
pub(super) const ROUND_TIME: Duration = Duration::from_micros(100);

/// With so many heavy ones each has shorter turns, see [`Aside::is_crowded`].
const CROWD: usize = 8;

/// Turns in a row from which on a task is heavy: a megabyte is received in fewer.
const LIGHT_TURNS_MAX: u32 = 64;

/// How much of a turn was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// Nothing: it has let others go first.
    Nothing,
    /// What one `recv` brought.
    Part,
    /// All that one may; or many requests came, of which nobody knows yet what they take.
    Full,
}

impl Share {
    /// What counts, with the turns that the task had in a row so far.
    pub(super) fn after(self, turns_in_a_row: &mut u32) -> Share {
        if self == Share::Nothing {
            return self;
        }
        *turns_in_a_row = turns_in_a_row.saturating_add(1);
        if *turns_in_a_row > LIGHT_TURNS_MAX {
            Share::Full
        } else {
            self
        }
    }
}

/// The numbers of those who stand aside, each in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Aside {
    light: VecDeque<usize>,
    heavy: VecDeque<usize>,
}

impl Aside {
    pub(super) fn is_empty(&self) -> bool {
        self.light.is_empty() && self.heavy.is_empty()
    }

    /// A task that used so much of its turn has stepped aside.
    pub(super) fn enter(&mut self, number: usize, share: Share) {
        match share {
            Share::Nothing | Share::Part => self.light.push_back(number),
            Share::Full => self.heavy.push_back(number),
        }
    }

    /// Whether so many are heavy that none should have long turns.
    pub(super) fn is_crowded(&self) -> bool {
        self.heavy.len() >= CROWD
    }

    /// How many there are of each kind.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.light.len(), self.heavy.len())
    }

    /// Who has waited for the longest time among the light ones.
    pub(super) fn next_light(&mut self) -> Option<usize> {
        self.light.pop_front()
    }

    /// The same among the heavy ones.
    pub(super) fn next_heavy(&mut self) -> Option<usize> {
        self.heavy.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_turns_in_a_row_are_heavy() {
        let mut turns = 0;
        for _ in 0..LIGHT_TURNS_MAX {
            assert_eq!(Share::Part.after(&mut turns), Share::Part);
        }
        assert_eq!(Share::Nothing.after(&mut turns), Share::Nothing);
        assert_eq!(Share::Part.after(&mut turns), Share::Full);
        assert_eq!(Share::Full.after(&mut 0), Share::Full);
    }
}

//! Bounds how often a place in the code writes to the log.

use parking_lot::Mutex;

use crate::clock::UnixSeconds;

/// Lets a number of lines pass each second, and counts the others.
#[derive(Debug)]
pub struct RateLimit {
    per_second: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    second: UnixSeconds,
    passed: u32,
    left_out: u64,
}

impl RateLimit {
    /// Lets so many lines pass each second.
    pub const fn new(per_second: u32) -> RateLimit {
        RateLimit {
            per_second,
            state: Mutex::new(State {
                second: 0,
                passed: 0,
                left_out: 0,
            }),
        }
    }

    /// Whether one more line may be written now; if so, how many were left out since the last one.
    pub fn pass(&self, now: UnixSeconds) -> Option<u64> {
        let mut state = self.state.lock();
        if state.second != now {
            state.second = now;
            state.passed = 0;
        }
        if state.passed >= self.per_second {
            state.left_out += 1;
            return None;
        }
        state.passed += 1;
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_counted() {
        let limit = RateLimit::new(2);
        let passed: Vec<_> = [7, 7, 7, 7, 8].map(|now| limit.pass(now)).into();
        assert_eq!(passed, [Some(0), Some(0), None, None, Some(2)]);
    }
}

//! Which segments are free, and which of those hold physical memory.
//!
//! Plain segments and runs live in separate ranges of the address space, so runs never have to
//! squeeze between plain segments. Both draw on one budget of physical segments: a segment is
//! *warm* from its first use until it is given back to the kernel, and at most `limit` are warm.

/// The free segments of an arena.
#[derive(Debug)]
pub(super) struct Pool {
    /// Segments below this number are plain, the others are for runs.
    plain_count: u32,
    limit: u32,
    in_use: u32,
    /// Warm segments, used or free.
    warm: u32,
    plain_warm: Vec<u32>,
    plain_cold: Vec<u32>,
    runs: Vec<RunState>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RunState {
    Cold,
    Warm,
    Used,
}

impl Pool {
    pub(super) fn new(plain_count: usize, count: usize, limit: usize) -> Pool {
        Pool {
            plain_count: plain_count as u32,
            limit: limit as u32,
            in_use: 0,
            warm: 0,
            plain_warm: Vec::new(),
            plain_cold: (0..plain_count as u32).rev().collect(),
            runs: vec![RunState::Cold; count - plain_count],
        }
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    pub(super) fn in_use(&self) -> u32 {
        self.in_use
    }

    /// Segments that can still be taken.
    pub(super) fn available(&self) -> u32 {
        self.limit.saturating_sub(self.in_use)
    }

    /// Changes the budget.
    pub(super) fn set_limit(&mut self, limit: u32, give_back: &mut dyn FnMut(u32)) {
        self.limit = limit.min(self.plain_count);
        self.cool_to(self.limit, give_back);
    }

    /// Takes `span` adjacent segments; the caller has checked that they are available.
    pub(super) fn take(&mut self, span: u32, give_back: &mut dyn FnMut(u32)) -> Option<u32> {
        let number = if span == 1 {
            self.take_plain(give_back)
        } else {
            self.take_run(span, give_back)
        }?;
        self.in_use += span;
        Some(number)
    }

    fn take_plain(&mut self, give_back: &mut dyn FnMut(u32)) -> Option<u32> {
        if let Some(number) = self.plain_warm.pop() {
            return Some(number);
        }
        let number = self.plain_cold.pop()?;
        self.cool_to(self.limit - 1, give_back);
        self.warm += 1;
        Some(number)
    }

    /// First fit; reuses the space of earlier runs first, which is warm.
    fn take_run(&mut self, span: u32, give_back: &mut dyn FnMut(u32)) -> Option<u32> {
        let span_len = span as usize;
        let mut free = 0;
        let start = self.runs.iter().position(|state| {
            free = if *state == RunState::Used {
                0
            } else {
                free + 1
            };
            free == span_len
        })? + 1
            - span_len;
        let run = start..start + span_len;
        let cold = self.runs[run.clone()]
            .iter()
            .filter(|state| **state == RunState::Cold)
            .count() as u32;
        self.runs[run].fill(RunState::Used);
        self.cool_to(self.limit.saturating_sub(cold), give_back);
        self.warm += cold;
        Some(self.plain_count + start as u32)
    }

    /// Takes a segment (or run) back.
    pub(super) fn put(&mut self, number: u32, span: u32, give_back: &mut dyn FnMut(u32)) {
        self.in_use -= span;
        if number < self.plain_count {
            self.plain_warm.push(number);
        } else {
            let start = (number - self.plain_count) as usize;
            self.runs[start..start + span as usize].fill(RunState::Warm);
        }
        self.cool_to(self.limit, give_back);
    }

    /// Gives free warm segments back until at most `most` are warm, or none is free.
    fn cool_to(&mut self, most: u32, give_back: &mut dyn FnMut(u32)) {
        while self.warm > most {
            let number = if let Some(number) = self.plain_warm.pop() {
                self.plain_cold.push(number);
                number
            } else if let Some(place) = self.runs.iter().rposition(|state| *state == RunState::Warm)
            {
                self.runs[place] = RunState::Cold;
                self.plain_count + place as u32
            } else {
                return;
            };
            give_back(number);
            self.warm -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // However segments and runs are taken and given back, no more than the limit is ever warm.
    #[test]
    fn the_budget_holds_over_runs_and_segments() {
        let mut pool = Pool::new(10, 30, 10);
        let mut cooled = Vec::new();
        let run = pool.take(4, &mut |n| cooled.push(n)).unwrap();
        assert_eq!((run, pool.available()), (10, 6));
        let plain: Vec<u32> = (0..6)
            .map(|_| pool.take(1, &mut |n| cooled.push(n)).unwrap())
            .collect();
        assert_eq!((plain[0], pool.available(), pool.warm), (0, 0, 10));

        pool.put(run, 4, &mut |n| cooled.push(n));
        assert_eq!((pool.available(), pool.warm), (4, 10));
        let more: Vec<u32> = (0..4)
            .map(|_| pool.take(1, &mut |n| cooled.push(n)).unwrap())
            .collect();
        assert_eq!(pool.warm, 10);
        assert_eq!(cooled.len(), 4);

        for number in more.into_iter().chain(plain) {
            pool.put(number, 1, &mut |n| cooled.push(n));
        }
        assert!(pool.take(10, &mut |n| cooled.push(n)).is_some());
        assert_eq!((pool.warm, pool.available()), (10, 0));
    }

    #[test]
    fn a_lower_limit_gives_free_memory_back() {
        let mut pool = Pool::new(8, 24, 8);
        let mut cooled = Vec::new();
        let taken: Vec<u32> = (0..8)
            .map(|_| pool.take(1, &mut |n| cooled.push(n)).unwrap())
            .collect();
        pool.set_limit(5, &mut |n| cooled.push(n));
        assert!(cooled.is_empty());
        for number in taken {
            pool.put(number, 1, &mut |n| cooled.push(n));
        }
        assert_eq!((cooled.len(), pool.available()), (3, 5));
    }
}

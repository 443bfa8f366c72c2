//! Decides exactly whether the recorded history of one key is that of a register in which a miss is always allowed.
//!
//! Every write writes a value of its own, so a value's *zone* says when it must have been the current one: from the
//! earliest end to the latest start among its write and its reads. Two values whose zones force each other apart
//! cannot be put in any order; if no two do, an order exists (Gibbons and Korach, 1997). Costs n log n.
//!
//! ```
//! use tiercache_integration::checker::{Operation, check};
//! let history = [
//!     Operation::write(1, 0, 10),
//!     Operation::write(2, 20, 30), // A delete is the write of a value that nobody reads.
//!     Operation::read(1, 40, 50),
//! ];
//! assert!(check(&history).is_err()); // 1 came back after 2 was acknowledged.
//! ```

use std::collections::{HashMap, HashSet};

/// The end of an operation that was never answered.
const NEVER: u64 = u64::MAX;

/// Whether an operation gave the register a value or saw one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Also a delete, a flush: the write of a fresh value.
    Write,
    /// A hit. Misses are not recorded: a cache may always miss.
    Read,
}

/// One operation on one key, with the times between which it took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Write or read.
    pub kind: Kind,
    /// The value, unique among the writes of this key.
    pub value: u64,
    /// When the request was sent; any unit, one clock for all clients.
    pub start: u64,
    /// When the answer came; meaningless without one.
    pub finish: u64,
    /// False for a write that was never answered: it may have taken effect, once, at any time after its start.
    pub answered: bool,
}

impl Operation {
    /// An acknowledged write.
    pub fn write(value: u64, start: u64, finish: u64) -> Self {
        Self {
            kind: Kind::Write,
            value,
            start,
            finish,
            answered: true,
        }
    }

    /// A write whose answer never came.
    pub fn unanswered_write(value: u64, start: u64) -> Self {
        Self {
            kind: Kind::Write,
            value,
            start,
            finish: NEVER,
            answered: false,
        }
    }

    /// A hit.
    pub fn read(value: u64, start: u64, finish: u64) -> Self {
        Self {
            kind: Kind::Read,
            value,
            start,
            finish,
            answered: true,
        }
    }
}

/// Why no order of the operations explains what the clients saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Two writes of the same value: the same step was acknowledged twice, or the test is wrong.
    WrittenTwice(u64),
    /// A read saw a value that nobody wrote to this key.
    NeverWritten(u64),
    /// A read ended before the write of its value began.
    ReadBeforeWrite(u64),
    /// Each of two values was current before and after the other.
    Interleaved(u64, u64),
    /// `hidden` was written, acknowledged and then undone: `value` was current both before and after it.
    Stale {
        /// The value that came back.
        value: u64,
        /// The newer one that it hides.
        hidden: u64,
    },
}

/// When a value must have been current.
#[derive(Clone, Copy, Debug)]
struct Zone {
    finish_min: u64,
    start_max: u64,
    value: u64,
}

/// Checks the operations of one key; their order in `history` does not matter.
///
/// # Errors
/// The first violation found; a history without one is linearizable.
pub fn check(history: &[Operation]) -> Result<(), Violation> {
    let zones = zones(history)?;
    // A forward zone is a span in which the value was current throughout; a backward zone is one in which it was at
    // some moment.
    let (mut forward, backward): (Vec<Zone>, Vec<Zone>) = zones
        .into_iter()
        .partition(|zone| zone.finish_min < zone.start_max);
    forward.sort_unstable_by_key(|zone| (zone.finish_min, zone.start_max, zone.value));

    for pair in forward.windows(2) {
        if pair[1].finish_min < pair[0].start_max {
            return Err(Violation::Interleaved(pair[0].value, pair[1].value));
        }
    }
    for zone in backward {
        let before = forward.partition_point(|other| other.finish_min < zone.start_max);
        let Some(around) = before.checked_sub(1).map(|index| forward[index]) else {
            continue;
        };
        if zone.finish_min < around.start_max {
            return Err(Violation::Stale {
                value: around.value,
                hidden: zone.value,
            });
        }
    }
    Ok(())
}

fn zones(history: &[Operation]) -> Result<Vec<Zone>, Violation> {
    let mut writes: HashMap<u64, &Operation> = HashMap::new();
    let mut read: HashSet<u64> = HashSet::new();
    for operation in history {
        match operation.kind {
            Kind::Read => {
                read.insert(operation.value);
            }
            Kind::Write => {
                if writes.insert(operation.value, operation).is_some() {
                    return Err(Violation::WrittenTwice(operation.value));
                }
            }
        }
    }
    // An unanswered write that nobody saw need not have happened.
    let mut zones: HashMap<u64, Zone> = writes
        .values()
        .filter(|write| write.answered || read.contains(&write.value))
        .map(|write| {
            let zone = Zone {
                finish_min: if write.answered { write.finish } else { NEVER },
                start_max: write.start,
                value: write.value,
            };
            (write.value, zone)
        })
        .collect();
    for operation in history
        .iter()
        .filter(|operation| operation.kind == Kind::Read)
    {
        let value = operation.value;
        let write = writes.get(&value).ok_or(Violation::NeverWritten(value))?;
        if operation.finish < write.start {
            return Err(Violation::ReadBeforeWrite(value));
        }
        let zone = zones.get_mut(&value).expect("a read value has a zone");
        zone.finish_min = zone.finish_min.min(operation.finish);
        zone.start_max = zone.start_max.max(operation.start);
    }
    Ok(zones.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn write(value: u64, start: u64, finish: u64) -> Operation {
        Operation::write(value, start, finish)
    }

    fn read(value: u64, start: u64, finish: u64) -> Operation {
        Operation::read(value, start, finish)
    }

    // One after the other, each read sees the last write.
    #[test]
    fn a_plain_sequence_is_fine() {
        let history = [write(1, 0, 1), read(1, 2, 3), write(2, 4, 5), read(2, 6, 7)];
        assert_eq!(check(&history), Ok(()));
    }

    // The case of the whole project: the old value is back after the new one was acknowledged.
    #[test]
    fn a_value_that_comes_back_is_stale() {
        let history = [write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)];
        let violation = Violation::Stale {
            value: 1,
            hidden: 2,
        };
        assert_eq!(check(&history), Err(violation));
    }

    // While a write is under way both values may be seen, but not new, then old by one who asked later.
    #[test]
    fn a_write_under_way_may_be_seen_or_not() {
        let seen = [
            write(1, 0, 1),
            write(2, 10, 20),
            read(2, 11, 12),
            read(2, 13, 14),
        ];
        assert_eq!(check(&seen), Ok(()));
        let not_seen = [
            write(1, 0, 1),
            write(2, 10, 20),
            read(1, 11, 12),
            read(2, 13, 14),
        ];
        assert_eq!(check(&not_seen), Ok(()));
        let back = [
            write(1, 0, 1),
            write(2, 10, 20),
            read(2, 11, 12),
            read(1, 13, 14),
        ];
        assert!(check(&back).is_err());
    }

    // A write without an answer may show up at any later time, or never, but not go away for the older value again.
    #[test]
    fn an_unanswered_write_counts_once_seen() {
        let lost = Operation::unanswered_write(2, 5);
        assert_eq!(check(&[write(1, 0, 1), lost, read(1, 90, 91)]), Ok(()));
        assert_eq!(
            check(&[write(1, 0, 1), lost, read(1, 50, 51), read(2, 90, 91)]),
            Ok(())
        );
        let undone = [write(1, 0, 1), lost, read(2, 50, 51), read(1, 90, 91)];
        assert!(check(&undone).is_err());
    }

    // Foreign values, values from the future and double writes are named as such.
    #[test]
    fn impossible_reads_are_named() {
        assert_eq!(check(&[read(9, 0, 1)]), Err(Violation::NeverWritten(9)));
        assert_eq!(
            check(&[read(1, 0, 1), write(1, 2, 3)]),
            Err(Violation::ReadBeforeWrite(1))
        );
        assert_eq!(
            check(&[write(1, 0, 1), write(1, 2, 3)]),
            Err(Violation::WrittenTwice(1))
        );
    }

    // Two values that alternate cannot both be registers' values written once.
    #[test]
    fn alternating_values_are_interleaved() {
        let history = [
            write(1, 0, 100),
            write(2, 0, 100),
            read(1, 10, 11),
            read(2, 20, 21),
            read(1, 30, 31),
            read(2, 40, 41),
        ];
        assert!(matches!(check(&history), Err(Violation::Interleaved(..))));
    }

    /// Tries every order: the definition itself, exponential.
    fn linearizable(pending: &mut Vec<Operation>, current: Option<u64>) -> bool {
        let done = |operation: &Operation| operation.kind == Kind::Write && !operation.answered;
        if pending.iter().all(done) {
            return true;
        }
        let end_min = pending
            .iter()
            .map(|operation| {
                if operation.answered {
                    operation.finish
                } else {
                    NEVER
                }
            })
            .min()
            .unwrap_or(NEVER);
        for index in 0..pending.len() {
            let operation = pending[index];
            // Only what began before everything pending has ended may come first.
            if operation.start > end_min {
                continue;
            }
            let next = match operation.kind {
                Kind::Write => Some(operation.value),
                Kind::Read if current == Some(operation.value) => current,
                Kind::Read => continue,
            };
            pending.swap_remove(index);
            let found = linearizable(pending, next);
            pending.push(operation);
            let last = pending.len() - 1;
            pending.swap(index, last);
            if found {
                return true;
            }
        }
        false
    }

    // The zones decide exactly as the search through all orders does, on small random histories.
    #[test]
    fn agrees_with_the_search_through_all_orders() {
        let mut random = Random::new(1);
        let (mut fine, mut broken) = (0, 0);
        for round in 0..30_000 {
            let writes = random.between(1, 3);
            let mut history = Vec::new();
            for value in 1..=writes {
                let start = random.below(30);
                history.push(if random.chance(20) {
                    Operation::unanswered_write(value, 2 * start)
                } else {
                    write(value, 2 * start, 2 * (start + random.between(0, 8)) + 1)
                });
            }
            for _ in 0..random.between(0, 4) {
                let start = random.below(40);
                let value = random.between(1, writes);
                history.push(read(
                    value,
                    2 * start,
                    2 * (start + random.between(0, 8)) + 1,
                ));
            }
            let expected = linearizable(&mut history.clone(), None);
            assert_eq!(
                check(&history).is_ok(),
                expected,
                "round {round}: {history:?}"
            );
            if expected { fine += 1 } else { broken += 1 }
        }
        assert!(fine > 1000 && broken > 1000, "{fine} fine, {broken} broken");
    }
}

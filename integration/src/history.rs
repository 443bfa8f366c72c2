//! Turns what clients did to many keys into histories that the checker understands.
//!
//! The checker knows only writes of unique values and reads. An `append` or `incr` is a write too, and also a read of
//! what it was applied to: that makes a lost or a stale read-modify-write visible. A delete is the write of a fresh value.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::checker::{Kind, Operation, check};

/// Values of deletes and flushes, which nobody can read; ids of written values stay below.
const FRESH_MIN: u64 = 1 << 63;

/// One thing that a client did to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// `set`, `add`, `replace` or `cas` that stored value `id`; a `cas` replaced the value that it names.
    Store {
        /// The value written.
        id: u64,
        /// The value that the CAS unique belonged to.
        replaced: Option<u64>,
    },
    /// `append` of record `id`.
    Append {
        /// The record, which from then on names the whole value.
        id: u64,
    },
    /// `incr` by one, with its result where one came.
    Increment {
        /// The number after the step.
        result: Option<u64>,
    },
    /// `decr` by one, with its result where one came. Of one key all steps are up or all are down.
    Decrement {
        /// The number after the step.
        result: Option<u64>,
    },
    /// `delete` or `flush_all`, whether or not there was something to delete.
    Delete,
    /// A hit: the ids of the records of the value, oldest first; for a counter the number alone.
    Hit {
        /// Ids of the records.
        ids: Vec<u64>,
    },
    /// The value `id`, or whatever there is, may be served until a time.
    Lives {
        /// The value; `None` for a touch of whatever is there.
        id: Option<u64>,
        /// Until when, in nanoseconds of the clock of [`Record::start`].
        until: u64,
    },
    /// A client was told that it alone may renew the stale value `id`.
    Won {
        /// The value.
        id: u64,
    },
    /// A value was seen with this CAS unique, which names one value of one key for ever.
    Unique {
        /// The CAS unique.
        cas: u64,
        /// The value.
        id: u64,
    },
}

/// An [`Event`] with its key and times.
#[derive(Clone, Debug)]
pub struct Record {
    /// Number of the key.
    pub key: usize,
    /// What was done.
    pub event: Event,
    /// When the request was sent, in nanoseconds of one clock.
    pub start: u64,
    /// When the answer came; `None` when none came.
    pub finish: Option<u64>,
}

/// The histories of all keys of a test.
#[derive(Debug)]
pub struct Histories {
    keys: Vec<KeyHistory>,
    touched: HashSet<usize>,
    /// The key and value that each CAS unique was seen with.
    uniques: HashMap<u64, (usize, u64)>,
    violations: Vec<String>,
}

impl Histories {
    /// Empty histories of `count` keys.
    pub fn new(count: usize) -> Self {
        Self {
            keys: (0..count).map(|_| KeyHistory::default()).collect(),
            touched: HashSet::new(),
            uniques: HashMap::new(),
            violations: Vec::new(),
        }
    }

    /// Adds what one client did; clients may be added in any order.
    pub fn add(&mut self, records: impl IntoIterator<Item = Record>) {
        for record in records {
            if let Event::Unique { cas, id } = record.event {
                let named = *self.uniques.entry(cas).or_insert((record.key, id));
                if named != (record.key, id) {
                    let key = record.key;
                    let was = format!(
                        "CAS unique {cas} names {named:x?} and then {:x?}",
                        (key, id)
                    );
                    self.violations.push(was);
                }
                continue;
            }
            self.touched.insert(record.key);
            self.keys[record.key].add(record);
        }
    }

    /// Checks every key that got records since the last check; what is wrong, one line each.
    pub fn check(&mut self) -> Vec<String> {
        let mut violations = std::mem::take(&mut self.violations);
        for key in self.touched.drain() {
            if let Err(violation) = self.keys[key].check() {
                violations.push(format!("key {key}: {violation}"));
            }
        }
        violations
    }

    /// Operations recorded over all keys.
    pub fn operations(&self) -> usize {
        self.keys.iter().map(|key| key.operations.len()).sum()
    }
}

#[derive(Debug, Default)]
struct KeyHistory {
    operations: Vec<Operation>,
    /// When each append was under way; the end only if it was answered.
    appends: HashMap<u64, (u64, Option<u64>)>,
    /// What each seen record was appended to, and the other way round.
    predecessors: BTreeMap<u64, u64>,
    successors: HashMap<u64, u64>,
    /// First records of seen values: these were stored, not appended.
    first_records: HashSet<u64>,
    counts_down: bool,
    /// Starts of unanswered steps whose result nobody has seen yet.
    increments_open: Vec<u64>,
    /// Until when values with an exptime may be served, and what touches did to any of them.
    lives: HashMap<u64, u64>,
    touches: Vec<(u64, u64)>,
    /// Operations whose exptimes were looked at.
    lives_checked: usize,
    won: HashSet<u64>,
    /// Where the unanswered writes are.
    unanswered: HashMap<u64, usize>,
    fresh_count: u64,
    broken: Option<String>,
}

impl KeyHistory {
    fn add(&mut self, record: Record) {
        let Record {
            event,
            start,
            finish,
            ..
        } = record;
        match event {
            Event::Store { id, replaced } => {
                self.write(id, start, finish);
                if let (Some(replaced), Some(finish)) = (replaced, finish) {
                    self.operations
                        .push(Operation::read(replaced, start, finish));
                }
            }
            Event::Append { id } => {
                self.write(id, start, finish);
                self.appends.insert(id, (start, finish));
            }
            Event::Increment {
                result: Some(result),
            } => {
                let finish = finish.expect("a result is an answer");
                self.write(result, start, Some(finish));
                self.operations
                    .push(Operation::read(result - 1, start, finish));
            }
            Event::Decrement {
                result: Some(result),
            } => {
                self.counts_down = true;
                let finish = finish.expect("a result is an answer");
                self.write(result, start, Some(finish));
                self.operations
                    .push(Operation::read(result + 1, start, finish));
            }
            Event::Increment { result: None } => self.increments_open.push(start),
            Event::Decrement { result: None } => {
                self.counts_down = true;
                self.increments_open.push(start);
            }
            Event::Delete => {
                // An unanswered delete need not have happened, and leaves nothing to be seen by.
                if finish.is_some() {
                    self.fresh_count += 1;
                    self.write(FRESH_MIN + self.fresh_count, start, finish);
                }
            }
            Event::Hit { ids } => {
                let finish = finish.expect("a hit is an answer");
                let last = *ids.last().expect("a value has a record");
                self.operations.push(Operation::read(last, start, finish));
                self.first_records.insert(ids[0]);
                for pair in ids.windows(2) {
                    self.follow(pair[0], pair[1]);
                }
            }
            Event::Lives {
                id: Some(id),
                until,
            } => {
                self.lives.insert(id, until);
            }
            Event::Lives { id: None, until } => self.touches.push((start, until)),
            Event::Won { id } => {
                if !self.won.insert(id) {
                    self.fail(format!("{id:x} was to be renewed by two clients"));
                }
            }
            Event::Unique { .. } => unreachable!("kept for all keys together"),
        }
    }

    fn write(&mut self, id: u64, start: u64, finish: Option<u64>) {
        let operation = match finish {
            Some(finish) => Operation::write(id, start, finish),
            None => Operation::unanswered_write(id, start),
        };
        // A step that is tried again was seen not to have happened: the first try did nothing.
        match self.unanswered.remove(&id) {
            Some(first_try) => self.operations[first_try] = operation,
            None => self.operations.push(operation),
        }
        if finish.is_none() {
            let place = self
                .operations
                .iter()
                .rposition(|other| *other == operation);
            self.unanswered.extend(place.map(|place| (id, place)));
        }
    }

    /// Notes that record `after` was seen behind record `before`.
    fn follow(&mut self, before: u64, after: u64) {
        match self.predecessors.insert(after, before) {
            None => {}
            Some(other) if other == before => return,
            Some(other) => self.fail(format!(
                "{after:x} was seen behind {before:x} and {other:x}"
            )),
        }
        if let Some(other) = self.successors.insert(before, after) {
            self.fail(format!(
                "lost append: {after:x} and {other:x} both follow {before:x}"
            ));
        }
    }

    fn fail(&mut self, message: String) {
        self.broken.get_or_insert(message);
    }

    /// A value is not served after its exptime, unless a touch that had begun by then may have moved it.
    fn check_lives(&mut self) {
        let from = std::mem::replace(&mut self.lives_checked, self.operations.len());
        let mut outlived = None;
        for read in self.operations[from..]
            .iter()
            .filter(|operation| operation.kind == Kind::Read)
        {
            let touched = self
                .touches
                .iter()
                .filter(|(start, _)| *start <= read.finish);
            let until = self
                .lives
                .get(&read.value)
                .map(|until| touched.map(|(_, until)| *until).fold(*until, u64::max));
            if until.is_some_and(|until| read.start > until) {
                outlived = Some(format!("{:x} was served after its exptime", read.value));
            }
        }
        if let Some(outlived) = outlived {
            self.fail(outlived);
        }
    }

    fn check(&mut self) -> Result<(), String> {
        self.close_increments();
        self.check_lives();
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        let mut operations = self.operations.clone();
        for (after, before) in &self.predecessors {
            match self.appends.get(after) {
                Some((start, Some(finish))) => {
                    operations.push(Operation::read(*before, *start, *finish))
                }
                Some((_, None)) => {}
                None => {
                    return Err(format!(
                        "{after:x} was seen behind {before:x} but never appended"
                    ));
                }
            }
        }
        if let Some(id) = self
            .first_records
            .iter()
            .find(|id| self.appends.contains_key(id))
        {
            return Err(format!(
                "{id:x} was appended but seen as the start of a value"
            ));
        }
        check(&operations).map_err(|violation| format!("{violation:x?}"))
    }

    /// Numbers that were seen but given to nobody are the results of unanswered increments, earliest first.
    fn close_increments(&mut self) {
        if self.increments_open.is_empty() {
            return;
        }
        let written: HashSet<u64> = self
            .operations
            .iter()
            .filter(|operation| operation.kind == Kind::Write)
            .map(|operation| operation.value)
            .collect();
        let mut unknown: Vec<u64> = self
            .operations
            .iter()
            .map(|operation| operation.value)
            .filter(|value| !written.contains(value))
            .collect();
        unknown.sort_unstable();
        unknown.dedup();
        if self.counts_down {
            unknown.reverse();
        }
        self.increments_open.sort_unstable();
        let count = unknown.len().min(self.increments_open.len());
        for (value, start) in unknown.into_iter().zip(self.increments_open.drain(..count)) {
            self.operations
                .push(Operation::unanswered_write(value, start));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(events: &[(Event, u64, Option<u64>)]) -> Vec<String> {
        let mut histories = Histories::new(1);
        histories.add(events.iter().map(|(event, start, finish)| Record {
            key: 0,
            event: event.clone(),
            start: *start,
            finish: *finish,
        }));
        histories.check()
    }

    fn store(id: u64) -> Event {
        Event::Store { id, replaced: None }
    }

    fn hit(ids: &[u64]) -> Event {
        Event::Hit { ids: ids.to_vec() }
    }

    // A deleted value may not come back; a delete that was never answered proves nothing.
    #[test]
    fn a_delete_counts_once_answered() {
        let back = [
            (store(1), 0, Some(1)),
            (Event::Delete, 2, Some(3)),
            (hit(&[1]), 4, Some(5)),
        ];
        assert_eq!(history(&back).len(), 1);
        let open = [
            (store(1), 0, Some(1)),
            (Event::Delete, 2, None),
            (hit(&[1]), 4, Some(5)),
        ];
        assert_eq!(history(&open), [""; 0]);
    }

    // Two appends to the same value lose one of them; one behind the other is as it should be.
    #[test]
    fn appends_build_one_chain() {
        let (first, second) = (Event::Append { id: 2 }, Event::Append { id: 3 });
        let fine = [
            (store(1), 0, Some(1)),
            (first.clone(), 2, Some(3)),
            (second.clone(), 4, Some(5)),
            (hit(&[1, 2, 3]), 6, Some(7)),
        ];
        assert_eq!(history(&fine), [""; 0]);
        // The second append was applied to a value that an acknowledged one had replaced.
        let stale = [
            (store(1), 0, Some(1)),
            (first, 2, Some(3)),
            (second, 4, Some(5)),
            (hit(&[1, 3]), 6, Some(7)),
        ];
        assert_eq!(history(&stale).len(), 1);
    }

    // A mark that was not answered and then made again was made once.
    #[test]
    fn a_step_may_be_tried_again() {
        let mark = || Event::Store {
            id: 2,
            replaced: Some(1),
        };
        let again = [
            (store(1), 0, Some(1)),
            (mark(), 2, None),
            (hit(&[1]), 4, Some(5)),
            (mark(), 6, Some(7)),
            (hit(&[2]), 8, Some(9)),
        ];
        assert_eq!(history(&again), [""; 0]);
        let twice = [
            (store(1), 0, Some(1)),
            (mark(), 2, Some(3)),
            (mark(), 6, Some(7)),
        ];
        assert_eq!(history(&twice).len(), 1);
    }

    // The same number given twice is a lost update; an unanswered step explains one unknown number, not two.
    #[test]
    fn increments_give_each_number_once() {
        let step = |result| Event::Increment { result };
        let twice = [
            (store(64), 0, Some(1)),
            (step(Some(65)), 2, Some(3)),
            (step(Some(65)), 4, Some(5)),
        ];
        assert_eq!(history(&twice).len(), 1);
        let explained = [
            (store(64), 0, Some(1)),
            (step(None), 2, None),
            (step(Some(66)), 4, Some(5)),
        ];
        assert_eq!(history(&explained), [""; 0]);
        let unexplained = [
            (store(64), 0, Some(1)),
            (step(None), 2, None),
            (hit(&[67]), 4, Some(5)),
            (hit(&[66]), 4, Some(5)),
        ];
        assert_eq!(history(&unexplained).len(), 1);
    }

    // An exptime ends a value, a touch moves its end; a token is given once, a CAS unique names one value.
    #[test]
    fn exptimes_tokens_and_uniques_are_checked() {
        let lives = |id, until| Event::Lives { id, until };
        let kept = [
            (store(1), 0, Some(1)),
            (lives(Some(1), 10), 0, Some(1)),
            (lives(None, 30), 8, Some(9)),
            (hit(&[1]), 20, Some(21)),
        ];
        assert_eq!(history(&kept), [""; 0]);
        let outlived = [kept[0].clone(), kept[1].clone(), kept[3].clone()];
        assert_eq!(history(&outlived).len(), 1);
        let won = [
            (store(1), 0, Some(1)),
            (Event::Won { id: 1 }, 2, Some(3)),
            (Event::Won { id: 1 }, 4, Some(5)),
        ];
        assert_eq!(history(&won).len(), 1);
        let unique = |cas, id| (Event::Unique { cas, id }, 0, Some(1));
        assert_eq!(
            history(&[unique(7, 1), unique(7, 1), unique(8, 2)]),
            [""; 0]
        );
        assert_eq!(history(&[unique(7, 1), unique(7, 2)]).len(), 1);
    }

    // A CAS that succeeded on a value that was no longer current is a lost update.
    #[test]
    fn a_cas_reads_what_it_replaces() {
        let stale = [
            (store(1), 0, Some(1)),
            (store(2), 2, Some(3)),
            (
                Event::Store {
                    id: 3,
                    replaced: Some(1),
                },
                4,
                Some(5),
            ),
        ];
        assert_eq!(history(&stale).len(), 1);
    }
}

//! Ranges of remote objects that were fetched a moment ago, in memory.
//!
//! One GET for several wanted records of a segment leaves them here, where each is then read. Objects
//! do not change, so nothing here is ever out of date.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

/// Ranges that are remembered at once, whatever their bytes: all are looked through for each read.
const RANGES_MAX: usize = 256;

/// The ranges, the oldest first.
#[derive(Debug)]
pub(super) struct Recent {
    ranges: Mutex<Ranges>,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Ranges {
    all: VecDeque<Fetched>,
    bytes: usize,
}

#[derive(Debug)]
struct Fetched {
    segment: u32,
    at: u64,
    bytes: Arc<[u8]>,
}

impl Recent {
    pub(super) fn new(bytes_max: usize) -> Recent {
        Recent {
            ranges: Mutex::default(),
            bytes_max,
        }
    }

    /// Remembers a range; one that is larger than all may be is not.
    pub(super) fn insert(&self, segment: u32, at: u64, bytes: Arc<[u8]>) {
        if bytes.len() > self.bytes_max {
            return;
        }
        let mut ranges = self.ranges.lock();
        ranges.bytes += bytes.len();
        ranges.all.push_back(Fetched { segment, at, bytes });
        while ranges.bytes > self.bytes_max || ranges.all.len() > RANGES_MAX {
            let Some(oldest) = ranges.all.pop_front() else {
                return;
            };
            ranges.bytes -= oldest.bytes.len();
        }
    }

    /// Fills `out` if one range has all of it.
    pub(super) fn read(&self, segment: u32, at: u64, out: &mut [u8]) -> bool {
        let found = self.find(segment, at, out.len());
        if let Some((bytes, skip)) = &found {
            out.copy_from_slice(&bytes[*skip..*skip + out.len()]);
        }
        found.is_some()
    }

    /// Whether one range has these bytes.
    pub(super) fn holds(&self, segment: u32, at: u64, bytes: usize) -> bool {
        self.find(segment, at, bytes).is_some()
    }

    /// Forgets what covers a byte; false where nothing did.
    pub(super) fn forget(&self, segment: u32, at: u64) -> bool {
        let mut ranges = self.ranges.lock();
        let before = ranges.all.len();
        let mut freed = 0;
        ranges.all.retain(|range| {
            let covers =
                range.segment == segment && at.wrapping_sub(range.at) < range.bytes.len() as u64;
            freed += if covers { range.bytes.len() } else { 0 };
            !covers
        });
        ranges.bytes -= freed;
        ranges.all.len() < before
    }

    fn find(&self, segment: u32, at: u64, bytes: usize) -> Option<(Arc<[u8]>, usize)> {
        let ranges = self.ranges.lock();
        // The latest first: whoever fetched a range reads it next.
        let found = ranges.all.iter().rev().find(|range| {
            range.segment == segment
                && range.at <= at
                && at + bytes as u64 <= range.at + range.bytes.len() as u64
        })?;
        Some((Arc::clone(&found.bytes), (at - found.at) as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_until_others_take_their_place() {
        let recent = Recent::new(10);
        recent.insert(1, 100, (*b"abcdef").into());
        let read = |segment, at, bytes: usize| {
            let mut out = vec![0; bytes];
            recent.read(segment, at, &mut out).then_some(out)
        };
        assert_eq!(read(1, 102, 4).as_deref(), Some(&b"cdef"[..]));
        for (segment, at, bytes) in [(2, 102, 4), (1, 99, 2), (1, 102, 5)] {
            assert_eq!(read(segment, at, bytes), None);
        }
        recent.insert(1, 200, (*b"ghij").into());
        assert!(recent.holds(1, 100, 6) && recent.holds(1, 200, 4));
        recent.insert(1, 300, (*b"k").into());
        assert!(!recent.holds(1, 100, 1), "the oldest goes");
        recent.insert(1, 400, (*b"larger than all").into());
        assert!(recent.holds(1, 200, 4) && !recent.holds(1, 400, 1));
        assert!(recent.forget(1, 203) && !recent.forget(1, 203));
        assert!(recent.holds(1, 300, 1) && !recent.holds(1, 200, 1));
    }
}

//! Which waiting fetches travel together: records of one segment that lie close to each other.
//!
//! A request of a remote store costs the same for one record and for a hundred, so those that are wanted
//! at once and lie within one span are fetched with one.

use std::ops::Range;

/// Bytes that are fetched for nobody between two wanted records, at most.
const GAP_BYTES_MAX: u64 = 64 << 10;
/// Bytes of one request.
const SPAN_BYTES_MAX: u64 = 1 << 20;
/// Fetches that one request serves: a thread ends them one after the other.
const FETCHES_MAX: usize = 128;

/// The span of `first` and those of `others` that go with it, and their numbers.
pub(super) fn gather(
    first: Range<u64>,
    mut others: Vec<(Range<u64>, usize)>,
) -> (Range<u64>, Vec<usize>) {
    others.sort_unstable_by_key(|(range, _)| range.start);
    let middle = others.partition_point(|(range, _)| range.start < first.start);
    let (before, after) = others.split_at(middle);
    let mut span = first;
    let mut taken = Vec::new();
    let join = |span: &Range<u64>, range: &Range<u64>| {
        let joined = span.start.min(range.start)..span.end.max(range.end);
        let gap = range
            .start
            .saturating_sub(span.end)
            .max(span.start.saturating_sub(range.end));
        let fits = gap <= GAP_BYTES_MAX && joined.end - joined.start <= SPAN_BYTES_MAX;
        fits.then_some(joined)
    };
    let mut extend = |others: &mut dyn Iterator<Item = &(Range<u64>, usize)>| {
        for (range, number) in others {
            match join(&span, range) {
                Some(joined) if taken.len() + 1 < FETCHES_MAX => {
                    span = joined;
                    taken.push(*number);
                }
                _ => return,
            }
        }
    };
    extend(&mut after.iter());
    extend(&mut before.iter().rev());
    (span, taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(first: u64, others: &[u64]) -> (Range<u64>, Vec<usize>) {
        let range = |kib: u64| kib << 10..(kib + 1) << 10;
        let others = others.iter().enumerate();
        let (span, mut taken) = gather(
            range(first),
            others.map(|(number, kib)| (range(*kib), number)).collect(),
        );
        taken.sort_unstable();
        (span.start >> 10..span.end >> 10, taken)
    }

    #[test]
    fn close_records_travel_together() {
        assert_eq!(gathered(100, &[]), (100..101, vec![]));
        assert_eq!(gathered(100, &[102, 99, 101]), (99..103, vec![0, 1, 2]));
        // 64 KiB lie between 100 and 165, one more before 166.
        assert_eq!(gathered(100, &[165]), (100..166, vec![0]));
        assert_eq!(gathered(100, &[166, 34]), (100..101, vec![]));
        // Each gap is small, the whole would be too large.
        let far: Vec<u64> = (0..40).map(|number| 50 * number).collect();
        let (span, taken) = gathered(0, &far[1..]);
        assert_eq!((span, taken.len()), (0..1001, 20));
        let many: Vec<u64> = (1..300).collect();
        assert_eq!(gathered(0, &many).1.len(), FETCHES_MAX - 1);
    }
}

//! Brings hits and last access of rows that were written long before up to date.

use std::collections::BTreeMap;

use super::{Chunk, RowPacker, RowsError, TrackError, TrackedRow, Tracker};
use crate::clock::UnixSeconds;

/// That a record was fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) segment: u32,
    pub(super) offset: u32,
    /// How often since the last report.
    pub(super) hits: u8,
    pub(super) last_access: UnixSeconds,
}

/// What is to be changed in a segment: offset to hits and last access.
type Changes = BTreeMap<u32, (u8, UnixSeconds)>;

/// Adds accesses to their rows. Those of unknown segments and rows are passed over.
pub(super) fn apply(tracker: &mut dyn Tracker, accesses: &[Access]) -> Result<(), TrackError> {
    let mut segments: BTreeMap<u32, Changes> = BTreeMap::new();
    for access in accesses {
        let changes = segments.entry(access.segment).or_default();
        let (hits, last_access) = changes.entry(access.offset).or_default();
        *hits = hits.saturating_add(access.hits);
        *last_access = access.last_access.max(*last_access);
    }
    for (segment, changes) in segments {
        apply_to_segment(tracker, segment, &changes)?;
    }
    Ok(())
}

/// Rewrites the chunks that hold changed rows, each once.
fn apply_to_segment(
    tracker: &mut dyn Tracker,
    segment: u32,
    changes: &Changes,
) -> Result<(), TrackError> {
    let mut next = changes.keys().next().copied();
    while let Some(offset) = next {
        let mut done_to = offset;
        if let Some(chunk) = tracker.chunk_at(segment, offset)? {
            let damaged = |_| TrackError::Damaged {
                doing: format!("update segment {segment}"),
            };
            let (chunks, last_offset) = change(&chunk, changes).map_err(damaged)?;
            tracker.put_chunks(segment, &chunks)?;
            done_to = done_to.max(last_offset);
        }
        next = changes
            .range(done_to..)
            .map(|(&offset, _)| offset)
            .find(|&next| next > done_to);
    }
    Ok(())
}

/// The chunk with the changes made, and the offset of its last row. Longer numbers may make two
/// chunks of a full one.
fn change(chunk: &Chunk, changes: &Changes) -> Result<(Vec<Chunk>, u32), RowsError> {
    let mut packer = RowPacker::default();
    let mut last_offset = chunk.first_offset;
    let mut refused = Ok(());
    chunk.each(&mut |row| {
        let mut row = *row;
        if let Some(&(hits, last_access)) = changes.get(&row.offset) {
            row.hits = row.hits.saturating_add(hits);
            row.last_access = row.last_access.max(last_access);
        }
        last_offset = row.offset;
        if let Err(error) = packer.push(&TrackedRow { ..row }) {
            refused = Err(error);
        }
    })?;
    refused?;
    Ok((packer.finish().chunks, last_offset))
}

#[cfg(test)]
mod tests {
    use super::super::SegmentEntry;
    use super::super::memory::MemoryTracker;
    use super::super::rows::CHUNK_BYTES_MAX;
    use super::super::rows::tests::{OwnedRow, pack, typical, unpack};
    use super::*;

    fn rows_of(tracker: &dyn Tracker, segment: u32) -> Vec<OwnedRow> {
        let mut chunks = Vec::new();
        tracker
            .chunks(segment, &mut |chunk| chunks.push(chunk.clone()))
            .unwrap();
        assert!(
            chunks
                .iter()
                .all(|chunk| chunk.bytes.len() <= CHUNK_BYTES_MAX)
        );
        unpack(&chunks)
    }

    // Every row of several chunks is changed; the longer rows still fit their bound, and nothing
    // else about them changes.
    #[test]
    fn accesses_reach_their_rows() {
        let mut rows = typical(3000);
        let mut tracker = MemoryTracker::default();
        let entry = SegmentEntry {
            segment: 4,
            ..SegmentEntry::default()
        };
        tracker.commit(&entry, &pack(&rows)).unwrap();
        let access = |offset| Access {
            segment: 4,
            offset,
            hits: 254,
            last_access: 1_800_000_000,
        };
        let all: Vec<Access> = rows.iter().map(|(_, row)| access(row.offset)).collect();
        apply(&mut tracker, &all).unwrap();
        for (_, row) in &mut rows {
            row.hits = row.hits.saturating_add(254);
            row.last_access = 1_800_000_000;
        }
        assert_eq!(rows_of(&tracker, 4), rows);
    }

    #[test]
    fn repeated_accesses_add_up_and_unknown_ones_are_passed_over() {
        let mut rows = typical(10);
        let mut tracker = MemoryTracker::default();
        tracker
            .commit(&SegmentEntry::default(), &pack(&rows))
            .unwrap();
        let offset = rows[7].1.offset;
        let at = |segment, offset, last_access| Access {
            segment,
            offset,
            hits: 1,
            last_access,
        };
        let late = 1_900_000_000;
        let accesses = [
            at(0, offset, late),
            at(0, offset, 5),
            at(0, offset + 1, late),
            at(9, offset, late),
        ];
        apply(&mut tracker, &accesses).unwrap();
        rows[7].1.hits += 2;
        rows[7].1.last_access = late;
        assert_eq!(rows_of(&tracker, 0), rows);
    }
}

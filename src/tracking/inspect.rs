//! Looks at the mirror offline: the keys in dry, one key, or an overview.
//!
//! It shows what the dry tier wrote, not what it killed since: a key that was overwritten or deleted
//! in RAM is shown until its segment is freed. A key that was dried more than once is shown at its
//! newest place. Records of the open segment are not here before it is sealed, as a clean stop does.

mod text;

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::Path;

use self::text::{UriEncoded, Utc, uri_decoded};
use super::sled::SledTracker;
use super::{Chunk, SegmentEntry, TrackError, TrackedRow, Tracker};
use crate::entry::NEVER;

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The mirror cannot be read.
    #[error(transparent)]
    Tracking(#[from] TrackError),
    /// What was found cannot be written out.
    #[error("write the listing")]
    Output(#[from] io::Error),
}

/// Writes one line per key, newest first, in the manner of memcached's metadump; returns how many.
/// `dir` is the tracking folder or the dry folder around it.
///
/// ```text
/// key=a%20key exp=-1 la=1790000000 cas=77 hits=3 size=160 created=1790000000 segment=4 offset=8192
/// ```
///
/// `exp` is -1 for never; `size` is the record's size on disk and `offset` its place, in bytes.
///
/// # Errors
/// [`TrackError::Locked`] while a server runs on the folder, [`TrackError::Absent`] where there is
/// no mirror; when it is damaged, or `out` takes no more.
pub fn keys(dir: &Path, out: &mut dyn Write) -> Result<u64, InspectError> {
    write_keys(&SledTracker::open_existing(dir)?, out)
}

/// Writes what is known about one key, for people. Tells whether there is such a key. It may be
/// written as [`keys`] prints it, unless there is a key that really is called so.
///
/// # Errors
/// As [`keys`].
pub fn show(dir: &Path, key: &[u8], out: &mut dyn Write) -> Result<bool, InspectError> {
    write_key_in_either_form(&SledTracker::open_existing(dir)?, key, out)
}

/// Writes a summary of the catalogue, and the totals per tier, for people.
///
/// # Errors
/// As [`keys`].
pub fn overview(dir: &Path, out: &mut dyn Write) -> Result<(), InspectError> {
    write_overview(&SledTracker::open_existing(dir)?, out)
}

fn write_keys(tracker: &dyn Tracker, out: &mut dyn Write) -> Result<u64, InspectError> {
    let hasher = RandomState::new();
    // A keyed 64-bit hash stands for the key: 10 million keys take some 150 MB, not gigabytes.
    let mut seen = HashSet::new();
    let mut lines = Vec::new();
    for entry in catalogue(tracker)?.iter().rev() {
        for chunk in packed_chunks(tracker, entry.segment)?.iter().rev() {
            let mut rows = Vec::new();
            unpack(entry.segment, chunk, &mut |row| {
                let mut line = Vec::new();
                put_line(&mut line, entry.segment, row);
                rows.push((hasher.hash_one(row.key), line));
            })?;
            // A segment is written front to back, so the last copy of a key is its newest.
            let newest = rows
                .into_iter()
                .rev()
                .filter(|(hash, _)| seen.insert(*hash));
            newest.for_each(|(_, line)| lines.extend_from_slice(&line));
            out.write_all(&lines)?;
            lines.clear();
        }
    }
    out.flush()?;
    Ok(seen.len() as u64)
}

fn write_key_in_either_form(
    tracker: &dyn Tracker,
    key: &[u8],
    out: &mut dyn Write,
) -> Result<bool, InspectError> {
    if write_key(tracker, key, out)? {
        return Ok(true);
    }
    match uri_decoded(key) {
        decoded if decoded != key => write_key(tracker, &decoded, out),
        _ => Ok(false),
    }
}

fn write_key(tracker: &dyn Tracker, key: &[u8], out: &mut dyn Write) -> Result<bool, InspectError> {
    let mut copies = 0u32;
    let mut newest = None;
    for entry in catalogue(tracker)? {
        for chunk in packed_chunks(tracker, entry.segment)? {
            unpack(entry.segment, &chunk, &mut |row| {
                if row.key == key {
                    copies += 1;
                    newest = Some((entry, TrackedRow { key: &[], ..*row }));
                }
            })?;
        }
    }
    let Some((entry, row)) = newest else {
        return Ok(false);
    };
    writeln!(out, "key          {}", UriEncoded(key))?;
    writeln!(
        out,
        "segment      {} at byte {}",
        entry.segment,
        row.offset_bytes()
    )?;
    writeln!(out, "size         {} bytes on disk", row.bytes)?;
    writeln!(out, "version      {}", row.version)?;
    writeln!(out, "created      {}", Utc(row.created))?;
    writeln!(out, "last access  {}", Utc(row.last_access))?;
    writeln!(out, "hits         {}", row.hits)?;
    match row.exptime {
        NEVER => writeln!(out, "expires      never")?,
        at => writeln!(out, "expires      {}", Utc(at))?,
    }
    writeln!(out, "older copies {}", copies - 1)?;
    out.flush()?;
    Ok(true)
}

fn write_overview(tracker: &dyn Tracker, out: &mut dyn Write) -> Result<(), InspectError> {
    let entries = catalogue(tracker)?;
    let bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
    let records: u64 = entries.iter().map(|entry| u64::from(entry.records)).sum();
    writeln!(out, "segments  {}", entries.len())?;
    writeln!(out, "bytes     {bytes}")?;
    writeln!(out, "records   {records}")?;
    if let (Some(first), Some(last)) = (
        entries.iter().map(|e| e.sealed).min(),
        entries.iter().map(|e| e.sealed).max(),
    ) {
        writeln!(out, "sealed    {} to {}", Utc(first), Utc(last))?;
    }
    if let Some(totals) = tracker.totals()? {
        writeln!(out, "\ntotals of {}", Utc(totals.at))?;
        writeln!(
            out,
            "{:<16} {:>14} {:>18} {:>14}",
            "", "items", "bytes", "hits"
        )?;
        for total in totals.entries {
            let name = UriEncoded(total.name.as_bytes()).to_string();
            writeln!(
                out,
                "{name:<16} {:>14} {:>18} {:>14}",
                total.items, total.bytes, total.hits
            )?;
        }
    }
    out.flush()?;
    Ok(())
}

/// All segments, by ascending id.
fn catalogue(tracker: &dyn Tracker) -> Result<Vec<SegmentEntry>, TrackError> {
    let mut entries = Vec::new();
    tracker.segments(&mut |entry| entries.push(entry))?;
    Ok(entries)
}

/// The chunks of one segment, still packed: some 20 bytes a row.
fn packed_chunks(tracker: &dyn Tracker, segment: u32) -> Result<Vec<Chunk>, TrackError> {
    let mut chunks = Vec::new();
    tracker.chunks(segment, &mut |chunk| chunks.push(chunk.clone()))?;
    Ok(chunks)
}

fn unpack(
    segment: u32,
    chunk: &Chunk,
    each: &mut dyn FnMut(&TrackedRow),
) -> Result<(), TrackError> {
    let damaged = |_| TrackError::Damaged {
        doing: format!("read rows of segment {segment} at {}", chunk.first_offset),
    };
    chunk.each(each).map_err(damaged)
}

fn put_line(out: &mut Vec<u8>, segment: u32, row: &TrackedRow) {
    let exp = match row.exptime {
        NEVER => -1,
        at => i64::from(at),
    };
    // Writing to a Vec does not fail.
    let _ = writeln!(
        out,
        "key={} exp={exp} la={} cas={} hits={} size={} created={} segment={segment} offset={}",
        UriEncoded(row.key),
        row.last_access,
        row.version,
        row.hits,
        row.bytes,
        row.created,
        row.offset_bytes(),
    );
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryTracker;
    use super::super::rows::tests::pack;
    use super::super::{Total, Totals};
    use super::*;

    /// Two segments; `twice` is in both, and twice in the second.
    fn tracker() -> MemoryTracker {
        let row = |key: &str, offset, version| {
            let row = TrackedRow {
                offset,
                bytes: 60,
                version,
                created: 1_790_000_000,
                last_access: 1_790_000_007,
                ..TrackedRow::default()
            };
            (key.as_bytes().to_vec(), row)
        };
        let mut limited = row("a key", 10, 2);
        limited.1.exptime = 1_790_003_600;
        limited.1.hits = 3;
        let mut tracker = MemoryTracker::default();
        let entry = |segment, records| SegmentEntry {
            segment,
            bytes: 4096,
            records,
            rows: records,
            sealed: 60,
        };
        tracker
            .commit(&entry(3, 2), &pack(&[row("twice", 1, 1), limited]))
            .unwrap();
        let again = [row("twice", 1, 5), row("twice", 9, 6), row("b\n", 20, 7)];
        tracker.commit(&entry(4, 3), &pack(&again)).unwrap();
        tracker
    }

    fn text(write: impl FnOnce(&dyn Tracker, &mut dyn Write)) -> String {
        let mut out = Vec::new();
        write(&tracker(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_key_has_one_line_at_its_newest_place() {
        let listing = text(|tracker, out| assert_eq!(write_keys(tracker, out).unwrap(), 3));
        assert_eq!(
            listing,
            "key=b%0A exp=-1 la=1790000007 cas=7 hits=0 size=60 created=1790000000 segment=4 offset=160\n\
             key=twice exp=-1 la=1790000007 cas=6 hits=0 size=60 created=1790000000 segment=4 offset=72\n\
             key=a%20key exp=1790003600 la=1790000007 cas=2 hits=3 size=60 created=1790000000 segment=3 offset=80\n"
        );
    }

    #[test]
    fn one_key_is_shown_for_people() {
        let shown = text(|tracker, out| assert!(write_key(tracker, b"twice", out).unwrap()));
        assert_eq!(
            shown,
            "key          twice\n\
             segment      4 at byte 72\n\
             size         60 bytes on disk\n\
             version      6\n\
             created      2026-09-21 14:13:20 UTC\n\
             last access  2026-09-21 14:13:27 UTC\n\
             hits         0\n\
             expires      never\n\
             older copies 2\n"
        );
        let none = text(|tracker, out| assert!(!write_key(tracker, b"twic", out).unwrap()));
        assert_eq!(none, "");
    }

    // A key can be copied from the listing, whatever bytes it has.
    #[test]
    fn a_key_is_found_as_it_is_listed() {
        for written in ["a key", "a%20key", "b\n", "b%0A", "b%0a"] {
            let found = text(|tracker, out| {
                assert!(write_key_in_either_form(tracker, written.as_bytes(), out).unwrap());
            });
            assert!(
                found.starts_with("key          a%20key\n") || found.contains("b%0A"),
                "{found}"
            );
        }
    }

    #[test]
    fn the_overview_sums_up() {
        let mut tracker = tracker();
        let total = Total {
            name: "dry".to_owned(),
            items: 5,
            bytes: 300,
            hits: 9,
        };
        tracker
            .put_totals(&Totals {
                at: 60,
                entries: vec![total],
            })
            .unwrap();
        let mut out = Vec::new();
        write_overview(&tracker, &mut out).unwrap();
        let shown = String::from_utf8(out).unwrap();
        assert!(
            shown.starts_with("segments  2\nbytes     8192\nrecords   5\n"),
            "{shown}"
        );
        let words: Vec<&str> = shown.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(words, ["dry", "5", "300", "9"]);
    }
}

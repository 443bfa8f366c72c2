//! Folders that are locked, newer, damaged or left half-written.

use super::super::rows::tests::{pack, typical, unpack};
use super::*;

fn entry(segment: u32) -> SegmentEntry {
    SegmentEntry {
        segment,
        ..SegmentEntry::default()
    }
}

fn ids(tracker: &SledTracker) -> Vec<u32> {
    let mut ids = Vec::new();
    tracker
        .segments(&mut |entry| ids.push(entry.segment))
        .unwrap();
    ids
}

/// A folder with two flushed segments.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut tracker = SledTracker::open_or_rebuild(folder.path()).unwrap();
    tracker.adopt(1).unwrap();
    tracker.commit(&entry(1), &pack(&typical(1000))).unwrap();
    tracker.commit(&entry(2), &pack(&typical(1000))).unwrap();
    tracker.flush().unwrap();
    folder
}

// A commit that was killed half-way leaves rows without an entry; they go at the next start.
#[test]
fn rows_without_an_entry_are_removed() {
    let folder = folder();
    let mut tracker = SledTracker::open_existing(folder.path()).unwrap();
    tracker.put_chunks(3, &pack(&typical(1000)).chunks).unwrap();
    tracker.put_chunks(0, &pack(&typical(10)).chunks).unwrap();
    tracker.segments.remove(1u32.to_be_bytes()).unwrap();
    tracker.flush().unwrap();
    drop(tracker);
    let tracker = SledTracker::open_existing(folder.path()).unwrap();
    assert_eq!(ids(&tracker), [2]);
    let keys: Vec<u32> = tracker
        .rows
        .iter()
        .keys()
        .map(|key| segment_of(&key.unwrap()).unwrap())
        .collect();
    assert!(
        !keys.is_empty() && keys.iter().all(|&segment| segment == 2),
        "{keys:?}"
    );
}

// A folder that another process uses is refused, and neither set aside nor damaged.
#[test]
fn a_locked_folder_is_refused() {
    let folder = folder();
    let tracker = SledTracker::open_existing(folder.path()).unwrap();
    for opened in [
        SledTracker::open_or_rebuild(folder.path()),
        SledTracker::open_existing(folder.path()),
    ] {
        let error = opened.unwrap_err();
        assert!(matches!(error, TrackError::Locked(_)), "{error}");
        assert!(
            error.to_string().contains("in use by another process"),
            "{error}"
        );
    }
    assert_eq!(ids(&tracker), [1, 2]);
}

#[test]
fn nothing_is_created_for_inspection() {
    let folder = tempfile::tempdir().unwrap();
    let error = SledTracker::open_existing(folder.path()).unwrap_err();
    assert!(matches!(error, TrackError::Absent(_)), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_place_that_is_no_folder_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "kept").unwrap();
    assert!(SledTracker::open_or_rebuild(&path).is_err());
    assert_eq!(fs::read(&path).unwrap(), b"kept");
}

// Inspection refuses a newer format; the server, which can tell it all again, begins anew.
#[test]
fn a_newer_format_is_refused_or_rebuilt() {
    let folder = folder();
    let tracker = SledTracker::open_existing(folder.path()).unwrap();
    tracker.put("format", &[FORMAT + 1]).unwrap();
    tracker.database.flush().unwrap();
    drop(tracker);
    let error = SledTracker::open_existing(folder.path()).unwrap_err();
    assert!(
        matches!(error, TrackError::Newer { found: 2, known: 1 }),
        "{error}"
    );
    assert_eq!(
        ids(&SledTracker::open_or_rebuild(folder.path()).unwrap()),
        [0u32; 0]
    );
}

// Whatever is written over the files, the server gets a tracker in the end, and rows that it
// shows are rows that were written.
#[test]
fn damage_is_set_aside() {
    for (file, at) in [
        ("db", 0),
        ("db", 700),
        ("db", 20_000),
        ("conf", 0),
        ("conf", 3),
    ] {
        let folder = folder();
        let path = folder.path().join(DATABASE_NAME).join(file);
        let mut bytes = fs::read(&path).unwrap();
        let end = bytes.len().min(at + 4096);
        bytes[at.min(end)..end]
            .iter_mut()
            .for_each(|byte| *byte = !*byte);
        fs::write(&path, bytes).unwrap();
        let tracker = SledTracker::open_or_rebuild(folder.path()).unwrap();
        for segment in ids(&tracker) {
            let mut chunks = Vec::new();
            tracker
                .chunks(segment, &mut |chunk| chunks.push(chunk.clone()))
                .unwrap();
            assert_eq!(unpack(&chunks), typical(1000), "{file} at {at}");
        }
        assert!(!folder.path().join(ASIDE_NAME).exists());
    }
}

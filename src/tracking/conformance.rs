//! What every backend has to do, whatever it keeps its rows in.

use super::access::{self, Access};
use super::memory::MemoryTracker;
use super::rows::tests::{OwnedRow, pack, typical, unpack};
use super::sled::SledTracker;
use super::{SegmentEntry, StoreId, Total, Totals, Tracker};

const STORE: StoreId = 7;

fn entry(segment: u32) -> SegmentEntry {
    SegmentEntry {
        segment,
        bytes: 1 << 20,
        records: 3000,
        rows: 2,
        sealed: 1_790_000_000 + segment,
    }
}

fn ids(tracker: &dyn Tracker) -> Vec<u32> {
    let mut ids = Vec::new();
    tracker
        .segments(&mut |found| {
            assert_eq!(found, entry(found.segment));
            ids.push(found.segment);
        })
        .unwrap();
    ids
}

fn rows(tracker: &dyn Tracker, segment: u32) -> Vec<OwnedRow> {
    let mut chunks = Vec::new();
    tracker
        .chunks(segment, &mut |chunk| chunks.push(chunk.clone()))
        .unwrap();
    unpack(&chunks)
}

/// Runs the whole check. `reopen` closes a backend and opens it again; it may keep nothing.
fn check(mut tracker: Box<dyn Tracker>, reopen: impl Fn(Box<dyn Tracker>) -> Box<dyn Tracker>) {
    let many = typical(3000);
    let few = typical(7);

    // An empty one has nothing, and nothing to forget.
    tracker.adopt(STORE).unwrap();
    assert_eq!((ids(&*tracker), tracker.totals().unwrap()), (vec![], None));
    tracker.forget(1).unwrap();

    // Segments are listed by number, whatever their order of arrival and their bytes.
    for segment in [256, 1, 0x0fff_ffff, 255] {
        tracker.commit(&entry(segment), &pack(&many)).unwrap();
    }
    tracker.commit(&entry(2), &pack(&[])).unwrap();
    assert_eq!(ids(&*tracker), [1, 2, 255, 256, 0x0fff_ffff]);
    assert_eq!(rows(&*tracker, 255), many);
    assert_eq!(rows(&*tracker, 2), []);

    // A second commit replaces the first, also when it has fewer chunks.
    tracker.commit(&entry(255), &pack(&few)).unwrap();
    assert_eq!(
        (rows(&*tracker, 255), rows(&*tracker, 256)),
        (few.clone(), many.clone())
    );

    // The chunk of an offset is the last that begins at or before it.
    let packed = pack(&many);
    let [first, second] = [&packed.chunks[0], &packed.chunks[1]];
    let at = |offset| tracker.chunk_at(1, offset).unwrap();
    assert_eq!(at(first.first_offset.wrapping_sub(1)), None);
    assert_eq!(at(first.first_offset).as_ref(), Some(first));
    assert_eq!(at(second.first_offset - 1).as_ref(), Some(first));
    assert_eq!(at(u32::MAX).as_ref(), packed.chunks.last());
    assert_eq!(
        tracker.chunk_at(2, 9).unwrap(),
        None,
        "a chunk of segment 1 answered for 2"
    );

    // Rows change in place.
    let hit = Access {
        segment: 1,
        offset: many[2500].1.offset,
        hits: 9,
        last_access: u32::MAX,
    };
    access::apply(&mut *tracker, &[hit]).unwrap();
    let changed = &rows(&*tracker, 1)[2500].1;
    assert_eq!(
        (changed.hits, changed.last_access),
        (many[2500].1.hits + 9, u32::MAX)
    );

    // Forgetting takes one segment only.
    tracker.forget(1).unwrap();
    assert_eq!(ids(&*tracker), [2, 255, 256, 0x0fff_ffff]);
    assert_eq!(
        (rows(&*tracker, 1), rows(&*tracker, 256)),
        (vec![], many.clone())
    );

    let totals = |at| Totals {
        at,
        entries: vec![Total {
            name: "hot".into(),
            ..Total::default()
        }],
    };
    tracker.put_totals(&totals(1)).unwrap();
    tracker.put_totals(&totals(2)).unwrap();
    assert_eq!(tracker.totals().unwrap(), Some(totals(2)));

    // What was flushed is there again, and stays for the same store.
    tracker.flush().unwrap();
    let mut tracker = reopen(tracker);
    tracker.adopt(STORE).unwrap();
    assert_eq!(ids(&*tracker), [2, 255, 256, 0x0fff_ffff]);
    assert_eq!(
        (rows(&*tracker, 255), tracker.totals().unwrap()),
        (few, Some(totals(2)))
    );

    // Another store's mirror is no use.
    tracker.adopt(8).unwrap();
    assert_eq!((ids(&*tracker), tracker.totals().unwrap()), (vec![], None));
    assert_eq!(rows(&*tracker, 256), []);
}

#[test]
fn memory_conforms() {
    check(Box::new(MemoryTracker::default()), |tracker| tracker);
}

#[test]
fn sled_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Box::new(SledTracker::open_or_rebuild(folder.path()).unwrap());
    check(open(), |tracker| {
        drop(tracker);
        open()
    });
}

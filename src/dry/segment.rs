//! The segments of a running tier, found by id without a lock.
//!
//! The table has a fixed number of slots, several times the segments that fit the size limit, and a
//! segment lives in slot `id % slots`. Ids whose slot is taken are skipped when a new one is given out.

use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed,
    Ordering::Release,
};
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;

use super::face::{Row, SEGMENT_BITS};
use super::footer::Summary;
use super::store::SegmentFile;

/// Slots that a table may grow to at start.
const SLOTS_MAX: usize = 1 << 22;

/// A segment: open (appended to), then sealed for the rest of its life.
pub(super) struct Segment {
    pub(super) id: u32,
    /// Set by the writer thread before its first write.
    file: OnceLock<Arc<dyn SegmentFile>>,
    /// Bytes that can be read from the file; the others are in write buffers.
    written: AtomicU64,
    /// Bytes that count towards the size limit: all of a segment's while it is open.
    bytes: AtomicU64,
    sealed: AtomicBool,
    rows: AtomicU64,
    record_bytes: AtomicU64,
    newest_access: AtomicU32,
}

impl Segment {
    /// An open segment that may grow to `bytes`.
    pub(super) fn open(id: u32, bytes: u64) -> Segment {
        Segment {
            id,
            file: OnceLock::new(),
            written: AtomicU64::new(0),
            bytes: AtomicU64::new(bytes),
            sealed: AtomicBool::new(false),
            rows: AtomicU64::new(0),
            record_bytes: AtomicU64::new(0),
            newest_access: AtomicU32::new(0),
        }
    }

    /// A segment found at start.
    pub(super) fn found(id: u32, file: Arc<dyn SegmentFile>, bytes: u64) -> Segment {
        let segment = Segment::open(id, bytes);
        let _ = segment.file.set(file);
        segment.written.store(bytes, Relaxed);
        segment.sealed.store(true, Release);
        segment
    }

    /// Its file, once something was written.
    #[inline]
    pub(super) fn file(&self) -> Option<&Arc<dyn SegmentFile>> {
        self.file.get()
    }

    pub(super) fn set_file(&self, file: Arc<dyn SegmentFile>) {
        let _ = self.file.set(file);
    }

    /// Bytes that can be read from the file.
    #[inline]
    pub(super) fn written(&self) -> u64 {
        self.written.load(Acquire)
    }

    pub(super) fn set_written(&self, bytes: u64) {
        self.written.store(bytes, Release);
    }

    /// Bytes that count towards the size limit.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Everything is written, and in power mode on the device.
    pub(super) fn seal(&self) {
        self.sealed.store(true, Release);
    }

    pub(super) fn sealed(&self) -> bool {
        self.sealed.load(Acquire)
    }

    /// Sums over what recovery found.
    pub(super) fn set_summary(&self, summary: Summary) {
        self.rows.store(summary.rows, Relaxed);
        self.record_bytes.store(summary.record_bytes, Relaxed);
        self.newest_access.store(summary.newest_access, Relaxed);
    }

    /// Counts a record that was appended; under the writer lock.
    #[inline]
    pub(super) fn count(&self, row: &Row) {
        let mut summary = self.summary();
        summary.count(row);
        self.set_summary(summary);
    }

    /// Sums over the records, dead ones included.
    #[inline]
    pub(super) fn summary(&self) -> Summary {
        Summary {
            rows: self.rows.load(Relaxed),
            record_bytes: self.record_bytes.load(Relaxed),
            newest_access: self.newest_access.load(Relaxed),
        }
    }
}

#[derive(Default)]
struct Slot {
    /// 0 for a free slot.
    id: AtomicU32,
    /// Records that are not killed. A kill may come before its record was counted.
    live_rows: AtomicI64,
    segment: RwLock<Option<Arc<Segment>>>,
}

/// All segments.
pub(super) struct SegmentTable {
    slots: Box<[Slot]>,
    /// Sum of [`Segment::bytes`].
    bytes: AtomicU64,
    count: AtomicU64,
}

impl SegmentTable {
    /// A table for `expected` segments that has room for all of `ids`, or for as many as it can.
    pub(super) fn new(expected: usize, ids: &[u32]) -> SegmentTable {
        let mut slots = (4 * (expected + ids.len()))
            .clamp(64, SLOTS_MAX)
            .next_power_of_two();
        let distinct = |slots: usize| {
            let mut places: Vec<usize> = ids.iter().map(|id| *id as usize & (slots - 1)).collect();
            places.sort_unstable();
            places.windows(2).all(|pair| pair[0] != pair[1])
        };
        while slots < SLOTS_MAX && !distinct(slots) {
            slots *= 2;
        }
        let slots = (0..slots).map(|_| Slot::default()).collect();
        SegmentTable {
            slots,
            bytes: AtomicU64::new(0),
            count: AtomicU64::new(0),
        }
    }

    #[inline]
    fn slot(&self, id: u32) -> &Slot {
        &self.slots[id as usize & (self.slots.len() - 1)]
    }

    /// Notes the bytes that a segment was completed with at start.
    pub(super) fn grow(&self, segment: &Segment, bytes: u64) {
        let before = segment.bytes.swap(bytes, Relaxed);
        self.bytes.fetch_add(bytes.saturating_sub(before), Relaxed);
    }

    /// Adds a segment; false where its slot is taken.
    pub(super) fn insert(&self, segment: Arc<Segment>) -> bool {
        let slot = self.slot(segment.id);
        let mut held = slot.segment.write();
        if held.is_some() {
            return false;
        }
        slot.live_rows.store(0, Relaxed);
        slot.id.store(segment.id, Release);
        self.bytes.fetch_add(segment.bytes(), Relaxed);
        self.count.fetch_add(1, Relaxed);
        *held = Some(segment);
        true
    }

    /// The first id from `from` on whose slot is free.
    pub(super) fn free_id(&self, from: u32) -> Option<u32> {
        (from..1 << SEGMENT_BITS)
            .take(self.slots.len())
            .find(|id| self.slot(*id).id.load(Relaxed) == 0)
    }

    /// Takes a segment out: its places are gone.
    pub(super) fn remove(&self, id: u32) -> Option<Arc<Segment>> {
        let slot = self.slot(id);
        let mut held = slot.segment.write();
        if held.as_ref()?.id != id {
            return None;
        }
        let segment = held.take()?;
        slot.id.store(0, Release);
        self.bytes.fetch_sub(segment.bytes(), Relaxed);
        self.count.fetch_sub(1, Relaxed);
        Some(segment)
    }

    /// The segment with that id.
    #[inline]
    pub(super) fn get(&self, id: u32) -> Option<Arc<Segment>> {
        let slot = self.slot(id);
        if id == 0 || slot.id.load(Acquire) != id {
            return None;
        }
        slot.segment
            .read()
            .as_ref()
            .filter(|segment| segment.id == id)
            .cloned()
    }

    /// Notes the bytes that an open segment ended up with.
    pub(super) fn shrink(&self, segment: &Segment, bytes: u64) {
        let before = segment.bytes.swap(bytes, Relaxed);
        self.bytes.fetch_sub(before.saturating_sub(bytes), Relaxed);
    }

    /// Counts records as live (or, negative, as dead) and returns how many are live now. A segment that
    /// is gone has none to count. Wait-free.
    #[inline]
    pub(super) fn add_live(&self, id: u32, rows: i64) -> i64 {
        let slot = self.slot(id);
        if slot.id.load(Relaxed) != id {
            return i64::MAX;
        }
        slot.live_rows.fetch_add(rows, Relaxed) + rows
    }

    /// Records in a segment that are not killed.
    pub(super) fn live_rows(&self, segment: &Segment) -> u64 {
        self.slot(segment.id).live_rows.load(Relaxed).max(0) as u64
    }

    /// About their bytes: whoever kills knows only roughly how large a record is, so the segment's mean
    /// stands for each.
    pub(super) fn live_bytes(&self, segment: &Segment) -> u64 {
        let Summary {
            rows, record_bytes, ..
        } = segment.summary();
        let live = u128::from(self.live_rows(segment)) * u128::from(record_bytes)
            / u128::from(rows.max(1));
        (live as u64).min(record_bytes)
    }

    /// All segments, lowest id (so oldest) first.
    pub(super) fn all(&self) -> Vec<Arc<Segment>> {
        let taken = self.slots.iter().filter(|slot| slot.id.load(Relaxed) != 0);
        let mut all: Vec<_> = taken
            .filter_map(|slot| slot.segment.read().clone())
            .collect();
        all.sort_unstable_by_key(|segment| segment.id);
        all
    }

    /// Bytes of all segments.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_and_go_but_never_mix() {
        let table = SegmentTable::new(1, &[]);
        assert!(table.insert(Arc::new(Segment::open(1, 100))));
        assert!(
            !table.insert(Arc::new(Segment::open(65, 100))),
            "the slot is taken"
        );
        assert_eq!((table.free_id(1), table.free_id(65)), (Some(2), Some(66)));
        assert_eq!((table.add_live(1, 4), table.add_live(1, -1)), (4, 3));
        assert_eq!(table.add_live(65, -1), i64::MAX);
        let segment = table.get(1).unwrap();
        segment.set_summary(Summary {
            rows: 4,
            record_bytes: 80,
            newest_access: 0,
        });
        assert_eq!(
            (
                table.bytes(),
                table.live_rows(&segment),
                table.live_bytes(&segment)
            ),
            (100, 3, 60)
        );
        assert!(table.get(65).is_none() && table.remove(65).is_none() && table.get(0).is_none());
        table.shrink(&segment, 40);
        assert_eq!(table.bytes(), 40);
        assert_eq!(table.remove(1).unwrap().id, 1);
        assert!(table.insert(Arc::new(Segment::open(65, 7))));
        assert!(table.get(1).is_none());
        assert_eq!(
            (
                table.bytes(),
                table.count(),
                table.live_rows(&table.get(65).unwrap())
            ),
            (7, 1, 0)
        );
    }

    #[test]
    fn the_table_grows_until_the_ids_fit() {
        let ids = [1, 65, 129, 1025];
        let table = SegmentTable::new(1, &ids);
        assert!(
            ids.iter()
                .all(|id| table.insert(Arc::new(Segment::open(*id, 1))))
        );
        assert_eq!(
            table
                .all()
                .iter()
                .map(|segment| segment.id)
                .collect::<Vec<_>>(),
            ids
        );
    }
}

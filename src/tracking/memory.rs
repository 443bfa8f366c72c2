//! A tracker that forgets at exit: for tests, and as the plainest form of the contract.

use std::collections::BTreeMap;

use super::{Chunk, PackedRows, SegmentEntry, StoreId, Totals, TrackError, Tracker};

/// Keeps everything in maps.
#[derive(Debug, Default)]
pub struct MemoryTracker {
    store: StoreId,
    segments: BTreeMap<u32, SegmentEntry>,
    chunks: BTreeMap<(u32, u32), Vec<u8>>,
    totals: Option<Totals>,
}

impl Tracker for MemoryTracker {
    fn adopt(&mut self, store: StoreId) -> Result<(), TrackError> {
        if self.store != store {
            *self = MemoryTracker {
                store,
                ..MemoryTracker::default()
            };
        }
        Ok(())
    }

    fn segments(&self, each: &mut dyn FnMut(SegmentEntry)) -> Result<(), TrackError> {
        self.segments.values().copied().for_each(each);
        Ok(())
    }

    fn commit(&mut self, segment: &SegmentEntry, rows: &PackedRows) -> Result<(), TrackError> {
        self.forget(segment.segment)?;
        self.put_chunks(segment.segment, &rows.chunks)?;
        self.segments.insert(segment.segment, *segment);
        Ok(())
    }

    fn forget(&mut self, segment: u32) -> Result<(), TrackError> {
        self.segments.remove(&segment);
        self.chunks.retain(|&(of, _), _| of != segment);
        Ok(())
    }

    fn chunks(&self, segment: u32, each: &mut dyn FnMut(&Chunk)) -> Result<(), TrackError> {
        for (&(_, first_offset), bytes) in self.chunks.range((segment, 0)..=(segment, u32::MAX)) {
            each(&Chunk {
                first_offset,
                bytes: bytes.clone(),
            });
        }
        Ok(())
    }

    fn chunk_at(&self, segment: u32, offset: u32) -> Result<Option<Chunk>, TrackError> {
        let last = self
            .chunks
            .range((segment, 0)..=(segment, offset))
            .next_back();
        Ok(last.map(|(&(_, first_offset), bytes)| Chunk {
            first_offset,
            bytes: bytes.clone(),
        }))
    }

    fn put_chunks(&mut self, segment: u32, chunks: &[Chunk]) -> Result<(), TrackError> {
        for chunk in chunks {
            self.chunks
                .insert((segment, chunk.first_offset), chunk.bytes.clone());
        }
        Ok(())
    }

    fn put_totals(&mut self, totals: &Totals) -> Result<(), TrackError> {
        self.totals = Some(totals.clone());
        Ok(())
    }

    fn totals(&self) -> Result<Option<Totals>, TrackError> {
        Ok(self.totals.clone())
    }

    fn flush(&mut self) -> Result<(), TrackError> {
        Ok(())
    }
}

//! What RAM is used for, and making room in it.

use std::sync::atomic::Ordering::Relaxed;

use super::cache::{Cache, MOVER_RESERVE, NoRoom, Patience};
use super::evict::Evicted;
use super::sketch::Sketch;
use crate::ram::SegmentKind;

/// The mover begins to make room when fewer segments than this share of all are free.
const LOW_WATER_SHARE: u32 = 64;
/// …but never for fewer than this many.
const LOW_WATER_MIN: u32 = 4;

/// Most bytes of index that one item in RAM is charged with: a slot of 16 bytes at two thirds load.
const SLOT_BYTES_MAX: usize = 24;
/// The index of an empty cache may take this much.
const INDEX_BYTES_MIN: usize = 1 << 20;

impl Cache {
    /// Segments that may be used, less what the index takes of the limit.
    ///
    /// Index slots of dry items are the dry index's own account (`--dry-index`), so only the RAM
    /// items' share of the slots counts here.
    pub(super) fn adjust_budget(&self) {
        let usage = self.index.usage();
        let ram_items = usage.counts.hot + usage.counts.cold;
        self.ghost.set_items(ram_items);
        // Slots that removals have left unused are given back by and by; until then they must not
        // starve the items that are there.
        let charge_max = INDEX_BYTES_MIN.max(ram_items as usize * SLOT_BYTES_MAX);
        let index_bytes = (usage.bytes - usage.dry_bytes()).min(charge_max);
        let sketch_bytes = self.sketch.as_ref().map_or(0, Sketch::bytes);
        self.arena.set_limit_bytes(
            self.memory_limit
                .load(Relaxed)
                .saturating_sub(index_bytes + self.ghost.bytes() + sketch_bytes),
        );
    }

    /// Segments below which the mover works ahead.
    pub(super) fn low_water(&self) -> u32 {
        if self.dry.is_none() {
            return 0;
        }
        let segments = (self.arena.limit_bytes() / self.arena.segment_bytes()) as u32;
        MOVER_RESERVE + (segments / LOW_WATER_SHARE).max(LOW_WATER_MIN.min(segments / 8))
    }

    /// Segments that the mover frees once fewer than the low water are free.
    pub(super) fn freed_ahead(&self) -> u32 {
        2 * self.low_water()
    }

    /// Opens a segment (or a run), making room for it where there is none.
    pub(super) fn open_segment(
        &self,
        kind: SegmentKind,
        span: u32,
        patience: Patience,
    ) -> Result<u32, NoRoom> {
        self.adjust_budget();
        let now = self.clock.recent();
        if self.arena.available() < self.low_water() + span {
            self.wake.notify();
        }
        if let Some(number) = self.arena.open_run(kind, span, MOVER_RESERVE, now) {
            return Ok(number);
        }
        // Whoever holds the mover is making room already.
        let mut mover = match patience {
            Patience::Wait if self.dry.is_some() => self.mover.try_lock().ok_or(NoRoom::Wait)?,
            _ => self.mover.lock(),
        };
        if (span + MOVER_RESERVE) as usize * self.arena.segment_bytes() > self.arena.limit_bytes() {
            // Nothing that could be evicted would make this fit.
            return Err(NoRoom::Full);
        }
        let mut tries = self.arena.segments().len();
        loop {
            if let Some(number) = self.arena.open_run(kind, span, MOVER_RESERVE, now) {
                return Ok(number);
            }
            tries = tries.checked_sub(1).ok_or(NoRoom::Full)?;
            match self.evict_segment(&mut mover, patience) {
                Evicted::Room => {}
                Evicted::Busy => return Err(NoRoom::Wait),
                Evicted::Nothing => return Err(NoRoom::Full),
            }
        }
    }

    /// Changes the RAM limit, as `cache_memlimit` does. The reservation made at start bounds it.
    /// False if that does not hold it.
    pub fn set_memory_limit(&self, bytes: usize) -> bool {
        if bytes > self.config.memory_limit().as_usize() {
            return false;
        }
        self.memory_limit.store(bytes, Relaxed);
        self.adjust_budget();
        self.wake.notify();
        true
    }

    /// The RAM limit in bytes.
    pub fn memory_limit(&self) -> usize {
        self.memory_limit.load(Relaxed)
    }
}

//! Filling the index from dry at start, and following what dry does by itself later.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::cache::{Cache, StartError};
use super::index::{KeyHash, Shard};
use super::slot::{Location, Slot};
use crate::dry::{Append, Leaving, NewRecord, Reason, Row};

/// Threads that load.
const LOAD_THREADS: usize = 2;

/// How often and how long a row that is to stay waits for room in the write queue.
const REINSERT_TRIES: u32 = 20;
const REINSERT_WAIT: Duration = Duration::from_millis(100);

/// What a start found in dry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecoverReport {
    /// Items that are warm again.
    pub items: u64,
    /// Segments they lie in.
    pub segments: u64,
    /// Records left out because they were killed, expired or flushed.
    pub dropped: u64,
    /// Corrupt records that were skipped.
    pub corrupt: u64,
}

impl Cache {
    /// Loads every live row of dry into the index.
    pub(super) fn recover(
        &self,
        progress: &(dyn Fn(u64, u64, u64) + Sync),
    ) -> Result<RecoverReport, StartError> {
        let Some(dry) = &self.dry else {
            return Ok(RecoverReport::default());
        };
        self.index.reserve(dry.rows_expected());
        let lost = AtomicU64::new(0);
        let load = dry
            .load(
                LOAD_THREADS,
                &|rows| {
                    lost.fetch_add(self.adopt_all(rows), Relaxed);
                },
                &|done, all, rows| progress(done as u64, all as u64, rows),
            )
            .map_err(StartError::Dry)?;
        self.index.shrink();
        let lost = lost.into_inner();
        Ok(RecoverReport {
            items: load.rows - lost,
            segments: load.segments as u64,
            dropped: load.killed + load.outdated + lost,
            corrupt: load.corrupt,
        })
    }

    /// Takes rows into the index; how many lost against others.
    ///
    /// A shard's rows are taken together: its slots are then in the processor's cache, where one row after the other
    /// would wait for memory each time.
    fn adopt_all(&self, rows: &[Row]) -> u64 {
        let mut lost = 0;
        let (order, ends) = self.by_shard(rows);
        let mut start = 0;
        for end in ends {
            if let [first, ..] = order[start..end] {
                let mut shard = self.index.lock(KeyHash(rows[first as usize].hash));
                for number in &order[start..end] {
                    lost += u64::from(!self.adopt(&mut shard, &rows[*number as usize]));
                }
            }
            start = end;
        }
        lost
    }

    /// The numbers of the rows, sorted by shard, and where each shard's end.
    fn by_shard(&self, rows: &[Row]) -> (Vec<u32>, Vec<usize>) {
        let shard_of = |row: &Row| self.index.shard_of(KeyHash(row.hash));
        let mut places = vec![0; self.index.shards()];
        for row in rows {
            places[shard_of(row)] += 1;
        }
        // From how many there are to where they begin; with each row that is placed, towards where they end.
        let mut sum = 0;
        for place in &mut places {
            sum += std::mem::replace(place, sum);
        }
        let mut order = vec![0; rows.len()];
        for (number, row) in rows.iter().enumerate() {
            let place = &mut places[shard_of(row)];
            // A segment has fewer rows than 2^32: its offsets fit 23 bits.
            order[*place] = number as u32;
            *place += 1;
        }
        (order, places)
    }

    /// Takes a row into its shard; false if it lost against another one.
    fn adopt(&self, shard: &mut Shard, row: &Row) -> bool {
        let Some(dry) = &self.dry else {
            return false;
        };
        let hash = KeyHash(row.hash);
        if let Some((place, other)) = shard.dry(hash.tag()) {
            // Two records of one tag: the older one dies for good, else it could come back later.
            let other_place = other.location.place();
            let other_version = other_place.and_then(|(place, _)| dry.record_version(place));
            if other_version.is_some_and(|version| version > row.version) {
                dry.kill(row.place);
                return false;
            }
            if let Some((place, _)) = other_place {
                dry.kill(place);
            }
            shard.remove(place, other);
            if other_version.is_none() {
                // Which of the two is newer cannot be told: both die.
                dry.kill(row.place);
                return false;
            }
        }
        let location = Location::dry(row.place, row.bytes);
        let slot = Slot {
            tag: hash.tag(),
            exptime: row.exptime,
            location,
            hits: 0,
            stamp: 0,
        };
        if shard.insert(slot).is_err() {
            dry.kill(row.place);
            return false;
        }
        true
    }

    /// Tells dry whom to ask about rows that leave with their segment.
    pub(super) fn own_dry(self: &Arc<Cache>) {
        let Some(dry) = &self.dry else {
            return;
        };
        let cache = Arc::downgrade(self);
        dry.set_owner(Box::new(move |leaving| {
            if let Some(cache) = cache.upgrade() {
                cache.row_leaves(leaving);
            }
        }));
        let cache = Arc::downgrade(self);
        dry.set_on_failed(Box::new(move || {
            if let Some(cache) = cache.upgrade() {
                cache.forget_dry();
            }
        }));
    }

    /// A row leaves with its segment: it moves to another one if it is wanted, else its slot goes.
    fn row_leaves(&self, leaving: &Leaving<'_>) {
        let row = leaving.row;
        let hash = KeyHash(row.hash);
        let location = Location::dry(row.place, row.bytes);
        let shard = self.index.lock(hash);
        let Some((_, slot)) = shard.at_location(hash.tag(), location) else {
            return;
        };
        drop(shard);
        let wanted = match leaving.reason {
            Reason::Compact => true,
            Reason::Size | Reason::Index | Reason::Ttl => slot.hits > 0,
        };
        if wanted && self.is_live_below(slot, self.clock.now()) && self.reinsert(leaving, location)
        {
            return;
        }
        if let (Some(sketch), Reason::Size | Reason::Index) = (&self.sketch, leaving.reason) {
            sketch.given_up(hash);
        }
        let mut shard = self.index.lock(hash);
        if let Some((place, slot)) = shard.at_location(hash.tag(), location) {
            shard.remove(place, slot);
            if self.is_live_below(slot, self.clock.now()) {
                self.metrics.engine.dry_evictions.add_shared(1);
            }
        }
    }

    fn reinsert(&self, leaving: &Leaving<'_>, location: Location) -> bool {
        let mut buffer = Vec::new();
        let (Some(dry), Some(found)) = (&self.dry, leaving.record(&mut buffer)) else {
            return false;
        };
        let row = leaving.row;
        let hash = KeyHash(row.hash);
        let mut facts = crate::entry::Facts {
            exptime: row.exptime,
            ..found.facts
        };
        if leaving.reason == Reason::Ttl {
            // It was wanted since it was dried; nobody noted when.
            facts.last_access = self.clock.now();
        }
        let record = NewRecord {
            hash: row.hash,
            facts: &facts,
            hits: row.hits,
            key_bytes: found.key.len(),
            value_bytes: found.value.len(),
            created: row.created,
        };
        let fill = |bytes: &mut [u8]| {
            let (key, value) = bytes.split_at_mut(found.key.len());
            key.copy_from_slice(found.key);
            value.copy_from_slice(found.value);
        };
        let publish = |place, bytes| {
            let mut shard = self.index.lock(hash);
            let Some((at, slot)) = shard.at_location(hash.tag(), location) else {
                return false;
            };
            // A flush may have raised its version but not yet named the segments it covers.
            if !self.is_live_below(slot, self.clock.recent())
                || found.facts.version <= self.flush_version.load(Relaxed)
            {
                return false;
            }
            // One hit less: who is never asked for again leaves the next time.
            let moved = Slot {
                location: Location::dry(place, bytes),
                hits: slot.hits.saturating_sub(1),
                ..slot
            };
            shard.replace(at, slot, moved);
            true
        };
        for _ in 0..REINSERT_TRIES {
            match dry.append(&record, fill, publish) {
                Append::Busy | Append::Behind => dry.wait_for_room(REINSERT_WAIT),
                end => return matches!(end, Append::Done(_)),
            };
        }
        false
    }

    /// Drops every slot that lies in dry: the tier has failed and nothing in it is trusted.
    fn forget_dry(&self) {
        for number in 0..self.index.shards() {
            let mut shard = self.index.lock_shard(number);
            let mut place = 0;
            while let Some((found, slot)) = shard.table().next_from(place) {
                place = found;
                if slot.location.is_dry() {
                    // The slots behind move up: the place is looked at again.
                    shard.remove(place, slot);
                } else {
                    place += 1;
                }
            }
            shard.shrink();
        }
    }
}

//! Listing what the tiers hold, a shard at a time: each key once, wherever it moves meanwhile.

use std::collections::BTreeMap;

use super::cache::Cache;
use super::slot::{Slot, Tier};
use crate::entry::Facts;

/// What sizes are rounded up to, as in memcached.
const SIZE_STEP_BYTES: u64 = 32;

/// One item of a listing.
#[derive(Debug, Clone)]
pub struct DumpRow {
    /// Its key.
    pub key: Vec<u8>,
    /// Everything but key and value.
    pub facts: Facts,
    /// Where it lies.
    pub tier: Tier,
    /// Bytes that it takes there.
    pub bytes: u64,
    /// Bytes of its value.
    pub value_bytes: u64,
}

/// Items that lie in dry alone: their keys have to be read, see [`Cache::dump_below`].
#[derive(Debug)]
pub struct Below(Vec<Slot>);

impl Cache {
    /// How many parts a listing has.
    pub fn dump_parts(&self) -> usize {
        self.index.shards()
    }

    /// Appends the items of one part that lie in RAM, and answers the others.
    pub fn dump_part(&self, part: usize, rows: &mut Vec<DumpRow>) -> Below {
        let now = self.clock.recent();
        let mut below = Vec::new();
        let mut key = [0; 255];
        let shard = self.index.lock_shard(part);
        let mut next = 0;
        while let Some((place, slot)) = shard.table().next_from(next) {
            next = place + 1;
            let Some(address) = slot.location.address() else {
                let in_ram = |other: &Slot| !other.location.is_dry();
                if self.is_live_below(slot, now)
                    && shard.table().find_first(slot.tag, in_ram).is_none()
                {
                    below.push(slot);
                }
                continue;
            };
            let item = self.arena.item(address);
            if self.is_live(item, slot.exptime, now) {
                rows.push(DumpRow {
                    key: item.copy_key(&mut key).to_vec(),
                    facts: item.facts(slot.exptime),
                    tier: slot.location.tier(),
                    bytes: (item.words() * 8) as u64,
                    value_bytes: item.value_bytes() as u64,
                });
            }
        }
        Below(below)
    }

    /// How many items in RAM there are of each size, rounded up to 32 bytes. Looks at every item.
    pub fn sizes(&self) -> BTreeMap<u64, u64> {
        let mut sizes = BTreeMap::new();
        let mut rows = Vec::new();
        for part in 0..self.dump_parts() {
            // Those in dry alone take no memory.
            let _ = self.dump_part(part, &mut rows);
            for row in rows.drain(..) {
                *sizes
                    .entry(row.bytes.next_multiple_of(SIZE_STEP_BYTES))
                    .or_insert(0) += 1;
            }
        }
        sizes
    }

    /// The items that lie in dry alone. Blocks on the device: a read per item, in the order of
    /// their places. What was reclaimed since the part was listed is left out.
    pub fn dump_below(&self, below: Below) -> Vec<DumpRow> {
        let Some(dry) = &self.dry else {
            return Vec::new();
        };
        let mut slots = below.0;
        slots.sort_unstable_by_key(|slot| slot.location.place().map(|(place, _)| place));
        let mut buffer = Vec::new();
        let row = |slot: Slot| {
            let (place, bytes) = slot.location.place()?;
            let record = dry.record(place, bytes as usize, &mut buffer)?;
            Some(DumpRow {
                key: record.key.to_vec(),
                facts: Facts {
                    exptime: slot.exptime,
                    ..record.facts
                },
                tier: Tier::Dry,
                bytes: (record.key.len() + record.value.len()) as u64,
                value_bytes: record.value.len() as u64,
            })
        };
        slots.into_iter().filter_map(row).collect()
    }
}

impl Below {
    /// Keeps at most so many of them.
    pub fn truncate(&mut self, most: usize) {
        self.0.truncate(most);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

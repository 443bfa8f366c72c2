//! Listing what the tiers hold, a shard at a time, so that no lock is held for long.

use std::time::{Duration, Instant};

use super::cache::Cache;
use super::index::KeyHash;
use super::slot::{Location, Tier};
use crate::entry::{Facts, Marks};

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
    /// Bytes of its value; 0 where only its record knows them.
    pub value_bytes: u64,
}

/// How long a listing waits for the newest records to reach the disk.
const QUEUE_WAIT: Duration = Duration::from_millis(500);

impl Cache {
    /// The dry segments that a listing has to visit beside its parts.
    pub fn dump_segments(&self) -> Vec<u32> {
        self.dry
            .as_ref()
            .map_or_else(Vec::new, |dry| dry.all_segments())
    }

    /// The items of a dry segment that have no copy in RAM. Blocks on the device.
    pub fn dump_segment(&self, segment: u32) -> Vec<DumpRow> {
        let mut rows = Vec::new();
        let Some(dry) = &self.dry else {
            return rows;
        };
        let deadline = Instant::now() + QUEUE_WAIT;
        while dry.queue_bytes() > 0 && Instant::now() < deadline {
            dry.flush_buffers();
            std::thread::sleep(QUEUE_WAIT / 100);
        }
        let visited = dry.visit(segment, &mut |row, key| {
            let hash = KeyHash(row.hash);
            let shard = self.index.lock(hash);
            let location = Location::dry(row.place, row.bytes);
            let Some((_, slot)) = shard.at_location(hash.tag(), location) else {
                return;
            };
            let listed = self.find(&shard, hash, key).ram.is_some();
            if !listed && self.is_live_below(slot, self.clock.recent()) {
                rows.push(DumpRow {
                    key: key.to_vec(),
                    facts: Facts {
                        version: row.version,
                        exptime: slot.exptime,
                        last_access: row.last_access,
                        marks: Marks::from_bits(row.marks),
                        ..Facts::default()
                    },
                    tier: Tier::Dry,
                    bytes: u64::from(row.bytes),
                    value_bytes: 0,
                });
            }
        });
        if let Err(error) = visited {
            tracing::warn!("cannot list segment {segment}: {error}");
        }
        rows
    }

    /// How many parts a listing has.
    pub fn dump_parts(&self) -> usize {
        self.index.shards()
    }

    /// Appends the items of one part.
    pub fn dump_part(&self, part: usize, rows: &mut Vec<DumpRow>) {
        let shard = self.index.lock_shard(part);
        let table = shard.table();
        let mut key = [0; 255];
        for slot in (0..table.slots()).filter_map(|place| table.get(place)) {
            let Some(address) = slot.location.address() else {
                continue;
            };
            let item = self.arena.item(address);
            if self.is_live(item, slot.exptime, self.clock.recent()) {
                rows.push(DumpRow {
                    key: item.copy_key(&mut key).to_vec(),
                    facts: item.facts(slot.exptime),
                    tier: slot.location.tier(),
                    bytes: (item.words() * 8) as u64,
                    value_bytes: item.value_bytes() as u64,
                });
            }
        }
    }
}

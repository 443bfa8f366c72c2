//! Listing what the tiers hold, a shard at a time, so that no lock is held for long.

use super::cache::Cache;
use super::slot::Tier;
use crate::entry::Facts;

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

impl Cache {
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

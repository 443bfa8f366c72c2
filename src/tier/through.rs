//! Hits that dry answers where the item lies, without bringing it up.
//!
//! Once RAM is full, what comes up pushes something else down. An item is worth that when it is wanted
//! again before RAM would have given it up, so the first hit is answered from the bytes that were
//! read and noted in the [memory of what left RAM](super::ghost); an item of which that knows comes up.
//! This is the rule of 2Q (Johnson and Shasha, VLDB '94), with dry as the place where those wait that
//! were wanted once.

use std::sync::atomic::AtomicU64;

use super::cache::{Cache, Local};
use super::index::KeyHash;
use super::slot::{HITS_MAX, Slot, Tier};
use super::view::{Lookup, View};
use crate::dry::{Read, ReadMode};
use crate::entry::Facts;
use crate::fault::{self, Mutant};
use crate::ram::{Item, SegmentKind, item};

/// Larger items come up: reading them a second time costs more than their place.
const VALUE_BYTES_MAX: usize = 64 << 10;

/// Segments beyond the mover's low water with which RAM counts as full still.
const FULL_SLACK_SEGMENTS: u32 = 2;

impl Cache {
    /// Answers a read from the slot of a key in dry, if that needs no waiting and the item is not worth
    /// a place in RAM. `serve` is as in [`Cache::read`]. `None`: bring the item up.
    pub(super) fn read_through<R>(
        &self,
        local: &mut Local,
        hash: KeyHash,
        key: &[u8],
        slot: Slot,
        serve: &mut impl FnMut(View<'_>) -> Option<R>,
    ) -> Option<Lookup<R>> {
        let dry = self.dry.as_ref().filter(|dry| !dry.is_remote())?;
        let (place, bytes) = slot.location.place()?;
        if bytes as usize > VALUE_BYTES_MAX || !self.is_full() || self.ghost.knows(hash) {
            return None;
        }
        let mode = ReadMode::Cached;
        let Read::Hit { facts, value, .. } =
            dry.read(place, bytes as usize, key, mode, &mut local.record)
        else {
            // Whatever else it is: who brings up sees it again and does what is to be done.
            return None;
        };
        if Mutant::InstallUncompared.is_on() {
            fault::linger();
        }
        let value = &local.record[value];
        let item = lay_out(&mut local.words, &facts, key, value);
        let mut shard = self.index.lock(hash);
        let slot = match shard.at_location(hash.tag(), slot.location) {
            Some((at, slot)) if self.is_live_below(slot, self.clock.recent()) => {
                let hits = (slot.hits + 1).min(HITS_MAX);
                // Remembered for the day its segment is reclaimed.
                shard.replace(at, slot, Slot { hits, ..slot });
                slot
            }
            // The bytes are out of date: they were read before the key changed.
            _ if !Mutant::InstallUncompared.is_on() => return None,
            _ => slot,
        };
        let served = serve(View {
            item,
            exptime: slot.exptime,
            tier: Tier::Dry,
        });
        drop(shard);
        let engine = &self.metrics.engine;
        engine.dry_reads.add_shared(1);
        let Some(served) = served else {
            return Some(Lookup::Declined);
        };
        engine.dry_read_through.add_shared(1);
        self.ghost.departs(hash, SegmentKind::Cold, 1);
        if let Some(hook) = self.on_access.get() {
            hook(place);
        }
        Some(Lookup::Hit(served))
    }

    /// Whether room for an item has to be made.
    fn is_full(&self) -> bool {
        self.arena.available() <= self.low_water() + FULL_SLACK_SEGMENTS
    }
}

/// An item as it would lie in RAM, in words that are kept for the next one.
fn lay_out<'a>(words: &'a mut Vec<AtomicU64>, facts: &Facts, key: &[u8], value: &[u8]) -> Item<'a> {
    let count = item::item_words(facts, key.len(), value.len());
    if words.len() < count {
        words.resize_with(count, AtomicU64::default);
    }
    let mut writer = item::write_item(words, facts, key, value.len());
    writer.push(value);
    writer.finish();
    Item::at(words)
}

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
use crate::entry::{Facts, Marks};
use crate::fault::{self, Mutant};
use crate::ram::{Item, SegmentKind, item};

/// Larger items come up: reading them a second time costs more than their place.
const VALUE_BYTES_MAX: usize = 64 << 10;

/// Segments beyond those that the mover frees ahead with which RAM counts as full still.
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
        let facts = facts_of(slot, &facts);
        let value = &local.record[value];
        let item = lay_out(&mut local.words, &facts, key, value);
        let now = self.clock.recent();
        let mut shard = self.index.lock(hash);
        let slot = match shard.at_location(hash.tag(), slot.location) {
            // By its version too: the flush of a record's segment is noted after that of its version.
            Some((at, slot))
                if self.is_live_below(slot, now) && self.is_live(item, slot.exptime, now) =>
            {
                let hits = (slot.hits + 1).min(HITS_MAX);
                // Remembered for the day its segment is reclaimed.
                shard.replace(at, slot, Slot { hits, ..slot });
                slot
            }
            // It is flushed, or the bytes were read before the key changed.
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
        self.arena.available() <= self.freed_ahead() + FULL_SLACK_SEGMENTS
    }
}

/// What travels with a record, as it is now: a hit in dry is remembered in the slot alone.
pub(super) fn facts_of(slot: Slot, record: &Facts) -> Facts {
    let fetched = if slot.hits > 0 {
        Marks::FETCHED
    } else {
        Marks::default()
    };
    Facts {
        exptime: slot.exptime,
        marks: record.marks.with(fetched),
        ..*record
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::clock::Clock;
    use crate::dry::{Dry, DryConfig};
    use crate::metrics::Metrics;
    use crate::tier::{Attempt, Decision, NewItem, Outcome, TierConfig, Value};
    use crate::units::ByteSize;

    const ITEMS: u32 = 20_000;

    fn key(number: u32) -> String {
        format!("key {number}")
    }

    /// A full cache over a folder.
    fn full(folder: &std::path::Path) -> (Arc<Cache>, Local) {
        let config = TierConfig {
            hot_size: ByteSize::mib(2),
            cold_size: ByteSize::mib(6),
            ..TierConfig::default()
        };
        let clock = Arc::new(Clock::system());
        let dry = DryConfig {
            folder: folder.join("dry"),
            size: ByteSize::mib(256),
            ..DryConfig::default()
        };
        let dry = Dry::open(&dry, Arc::clone(&clock)).unwrap();
        let metrics = Arc::new(Metrics::starting_at(clock.now()));
        let (cache, _) = Cache::start(
            config,
            clock,
            metrics,
            Some(Arc::new(dry)),
            1,
            &|_, _, _| {},
        )
        .unwrap();
        let mut local = cache.local(0);
        let value = [b'x'; 1000];
        for number in 0..ITEMS {
            let key = key(number);
            loop {
                let mut attempt = Attempt::default();
                let item = NewItem {
                    flags: 0,
                    exptime: 0,
                    own_cas: None,
                    marks: Marks::default(),
                    value: Value::Bytes(&value),
                };
                let stored = cache.update(
                    &mut local,
                    &mut attempt,
                    key.as_bytes(),
                    Some(value.len()),
                    |_| Decision::Store((), item),
                );
                match stored {
                    Outcome::Done { .. } => break,
                    // The mover makes room.
                    _ => std::thread::yield_now(),
                }
            }
        }
        (cache, local)
    }

    /// What a read answers from RAM and the page cache alone.
    fn get(cache: &Cache, local: &mut Local, number: u32) -> Option<Lookup<Tier>> {
        let key = key(number);
        let mut attempt = Attempt::default();
        match cache.read(local, &mut attempt, key.as_bytes(), |view| {
            Some(view.tier())
        }) {
            Outcome::Done { result, .. } => Some(result),
            _ => None,
        }
    }

    // A flush raises the version first and notes its segment later: in between nothing that it flushed is answered from
    // below either.
    #[test]
    fn a_flush_that_has_begun_hides_what_lies_below() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, mut local) = full(folder.path());
        let through = || cache.metrics.engine_totals().dry_read_through;
        let dried = (0..ITEMS)
            .filter(|number| get(&cache, &mut local, *number) == Some(Lookup::Hit(Tier::Dry)))
            .count();
        assert!(dried > 1000 && through() > 0, "{dried}");
        let before = through();
        cache.flush_version.store(u64::MAX, Relaxed);
        for number in 0..ITEMS {
            let found = get(&cache, &mut local, number);
            assert!(
                !matches!(found, Some(Lookup::Hit(_))),
                "{number}: {found:?}"
            );
        }
        assert_eq!(through(), before);
        cache.stop();
    }
}

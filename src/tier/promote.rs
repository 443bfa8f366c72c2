//! One fetch from its read to the item in RAM, and the kill of a copy that blocks a write.

use std::time::Instant;

use super::cache::{Cache, NoRoom, Patience};
use super::fetch::{Fetched, ROOM_PAUSE};
use super::index::KeyHash;
use super::slot::{HITS_MAX, Location, Slot};
use super::through::facts_of;
use crate::dry::{Read, ReadMode};
use crate::entry::Facts;
use crate::fault::{self, Mutant};
use crate::ram::item;
use crate::ratelimit::RateLimit;

/// Failed reads that are logged each second.
const LOGGED_PER_SECOND: u32 = 2;

static LOGGED: RateLimit = RateLimit::new(LOGGED_PER_SECOND);

impl Cache {
    /// Reads and installs on a thread that may block.
    pub(super) fn fetch_blocking(
        &self,
        head: usize,
        hash: KeyHash,
        key: &[u8],
        location: Location,
        record: &mut Vec<u8>,
    ) -> Fetched {
        let deadline = Instant::now() + self.config.dry_deadline.0;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let patience = if left.is_zero() {
                Patience::Drop
            } else {
                Patience::Wait
            };
            match self.try_fetch(
                head,
                hash,
                key,
                location,
                ReadMode::Blocking,
                patience,
                record,
            ) {
                Ok(end) => return end,
                Err(NotNow) if patience == Patience::Drop => return Fetched::Lost,
                Err(NotNow) => {
                    self.wake.notify();
                    std::thread::sleep(ROOM_PAUSE.min(left));
                }
            }
        }
    }

    /// Reads a record and installs it in RAM, if the index still names that location.
    #[allow(clippy::too_many_arguments)] // Who reads, what, how, and into which buffer.
    pub(super) fn try_fetch(
        &self,
        head: usize,
        hash: KeyHash,
        key: &[u8],
        location: Location,
        mode: ReadMode,
        patience: Patience,
        record: &mut Vec<u8>,
    ) -> Result<Fetched, NotNow> {
        let (Some(dry), Some((place, bytes))) = (&self.dry, location.place()) else {
            return Ok(Fetched::Lost);
        };
        let engine = &self.metrics.engine;
        let read = dry.read(place, bytes as usize, key, mode, record);
        if !matches!(read, Read::WouldBlock) {
            engine.dry_reads.add_shared(1);
        }
        if Mutant::InstallUncompared.is_on() {
            fault::linger();
        }
        match read {
            Read::Hit { facts, value, .. } => {
                self.promote(head, hash, key, location, &facts, &record[value], patience)
            }
            Read::WouldBlock => Err(NotNow),
            Read::OtherKey => {
                engine.dry_other_key.add_shared(1);
                Ok(Fetched::Lost)
            }
            Read::Corrupt => {
                engine.dry_corrupt.add_shared(1);
                self.commit_kill(hash, location);
                Ok(Fetched::Killed)
            }
            Read::Gone => {
                let mut shard = self.index.lock(hash);
                if let Some((place, slot)) = shard.at_location(hash.tag(), location) {
                    shard.remove(place, slot);
                }
                Ok(Fetched::Killed)
            }
            Read::Error(error) => {
                // A remote store that fails does so for everything that is asked for.
                if let Some(left_out) = LOGGED.pass(self.clock.recent()) {
                    let segment = place.segment;
                    tracing::warn!(segment, %error, left_out, "cannot read a dry segment");
                }
                engine.dry_read_errors.add_shared(1);
                Ok(Fetched::Lost)
            }
        }
    }

    /// Copies a record into RAM; its copy in dry stays.
    #[allow(clippy::too_many_arguments)] // The parts of one record.
    fn promote(
        &self,
        head: usize,
        hash: KeyHash,
        key: &[u8],
        location: Location,
        facts: &Facts,
        value: &[u8],
        patience: Patience,
    ) -> Result<Fetched, NotNow> {
        let words = item::item_words(facts, key.len(), value.len());
        let mut head = self.lock_head(head);
        match self.ensure_room(&mut head, words, patience) {
            Ok(()) => {}
            Err(NoRoom::Wait) => return Err(NotNow),
            Err(NoRoom::Full) => return Ok(Fetched::Lost),
        }
        let mut shard = self.index.lock(hash);
        let Some((place, slot)) = shard.at_location(hash.tag(), location) else {
            if Mutant::InstallUncompared.is_on() {
                let old = self.find(&shard, hash, key).ram;
                let push = |to: &mut crate::words::Writer<'_>| to.push(value);
                let (value_len, shard) = (value.len(), &mut shard);
                let _ = self.install(
                    &mut head, shard, hash, key, facts, value_len, words, push, old, 0,
                );
            }
            return Ok(Fetched::Killed);
        };
        if !self.is_live_below(slot, self.clock.recent()) {
            return Ok(Fetched::Lost);
        }
        if self.find(&shard, hash, key).ram.is_some() {
            return Ok(Fetched::Up);
        }
        let hits = self.arrives(hash, words);
        // Remembered for the day its segment is reclaimed.
        shard.replace(
            place,
            slot,
            Slot {
                hits: (slot.hits + 1).min(HITS_MAX),
                ..slot
            },
        );
        if Mutant::DropWithoutKill.is_on() {
            shard.remove(place, slot);
        }
        let facts = facts_of(slot, facts);
        match self.install(
            &mut head,
            &mut shard,
            hash,
            key,
            &facts,
            value.len(),
            words,
            |to| to.push(value),
            None,
            hits,
        ) {
            Ok(()) => {
                self.metrics.engine.promotions.add_shared(1);
                drop(shard);
                if let (Some(hook), Some((place, _))) = (self.on_access.get(), location.place()) {
                    hook(place);
                }
                Ok(Fetched::Up)
            }
            Err(_) => Ok(Fetched::Lost),
        }
    }

    /// Kills a copy below with no lock held, then forgets it.
    pub(super) fn commit_kill(&self, hash: KeyHash, location: Location) {
        let (Some(dry), Some((place, _))) = (&self.dry, location.place()) else {
            return;
        };
        // A place is killed once: dry counts.
        let known = self.index.lock(hash).at_location(hash.tag(), location);
        if known.is_none() {
            return;
        }
        if self.commit_kills
            && let Err(error) = dry.commit_kill(place)
        {
            tracing::error!("cannot commit a kill: {error}");
        }
        let mut shard = self.index.lock(hash);
        if let Some((slot_place, slot)) = shard.at_location(hash.tag(), location) {
            if !self.commit_kills {
                dry.kill(place);
            }
            shard.remove(slot_place, slot);
        }
    }
}

/// The fetch cannot be done on this thread now.
#[derive(Debug)]
pub(super) struct NotNow;

//! The object that says whose the segments of a remote store are, and after a clean stop what is in them.
//!
//! ```text
//! start   read ─┬─ mine: this spool wrote it last                      ─▶ the spool is the truth
//!               ├─ clean: whoever wrote it last has stopped            ─▶ adopted, another machine's too
//!               └─ neither, or none                                    ─▶ cold
//!         write "in use", if it still is what was read                 ─▶ else somebody else starts too
//! stop    write "clean" with the segments and their kills, if it still is mine
//! ```
//! A spool knows by the claim whether it is the last writer. Each start draws one at random and notes it
//! with the one that it found, in the spool first: a start that died between the two knows the old one
//! again, and if that is gone, somebody else has started. Counting the starts would not do: two copies of
//! a spool reach the same number. A restored copy of an old spool has an old claim and so is not mine.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::core::{Core, salt};
use super::dead::Dead;
use super::folder::{Folder, Sync};
use super::journal;
use super::rows::Visitor;
use super::segment::Segment;
use super::state::{FIELDS_WORDS, Fields};
use super::store::Spool;
use super::store::remote::Tag;

/// The manifest's name among the objects.
pub(super) const NAME: &str = "manifest";

const MAGIC: u64 = u64::from_le_bytes(*b"tiercman");
/// Segments whose rows are fetched at once when a store is taken over.
const ADOPTIONS_MAX: usize = 8;
/// Looks at a manifest, or at a segment to be taken over, that came damaged: it came over a network.
const READS_MAX: u32 = 3;

/// What the manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    /// The numbers of the store; `clean` among them says that its last user has stopped.
    pub(super) fields: Fields,
    /// What is in the store, after a clean stop.
    pub(super) segments: Vec<SegmentEntry>,
}

/// One segment in the remote store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentEntry {
    pub(super) id: u32,
    /// Bytes of its object.
    pub(super) bytes: u32,
    /// Offsets of its dead records, sorted.
    pub(super) dead: Vec<u32>,
}

/// Whose a remote store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Whose {
    /// This spool's: what the spool says holds.
    Mine,
    /// Anyone's who takes it: its last user stopped cleanly.
    Left(Box<Manifest>),
    /// Somebody's whose last words are not known.
    Others,
}

/// Decides by the spool's numbers, if it has any, and by the manifest, if that can be read.
pub(super) fn whose(spool: Option<&Fields>, manifest: Option<Manifest>) -> Whose {
    let Some(manifest) = manifest else {
        return Whose::Others;
    };
    let (last, next) = (
        manifest.fields.incarnation,
        manifest.fields.incarnation.wrapping_add(1),
    );
    let claim = manifest.fields.claim;
    let mine = spool.is_some_and(|spool| {
        spool.uuid == manifest.fields.uuid
            && (spool.claim == claim || spool.claim_before == claim)
            && (spool.incarnation == last || spool.incarnation == next)
    });
    match (mine, manifest.fields.clean) {
        (true, _) => Whose::Mine,
        (false, true) => Whose::Left(Box::new(manifest)),
        (false, false) => Whose::Others,
    }
}

impl Manifest {
    /// The bytes of the object.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&MAGIC.to_le_bytes());
        for word in self.fields.encode() {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        let mut push = |number: u32| bytes.extend_from_slice(&number.to_le_bytes());
        push(self.segments.len() as u32);
        for segment in &self.segments {
            push(segment.id);
            push(segment.bytes);
            push(segment.dead.len() as u32);
            segment.dead.iter().for_each(|offset| push(*offset));
        }
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// Reads the object; `None` where it is damaged or of another format.
    pub(super) fn decode(bytes: &[u8]) -> Option<Manifest> {
        let (body, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        if crc != crc32fast::hash(body).to_le_bytes() {
            return None;
        }
        let (magic, body) = body.split_first_chunk()?;
        let (numbers, body) = body.split_at_checked(8 * FIELDS_WORDS)?;
        if u64::from_le_bytes(*magic) != MAGIC {
            return None;
        }
        let mut words = [0; FIELDS_WORDS];
        for (word, bytes) in words.iter_mut().zip(numbers.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
        }
        let mut rest = body
            .chunks_exact(4)
            .map(|number| u32::from_le_bytes(number.try_into().expect("4 bytes")));
        let mut segments = Vec::new();
        for _ in 0..rest.next()? {
            let (id, bytes, dead) = (rest.next()?, rest.next()?, rest.next()? as usize);
            let dead: Vec<u32> = rest.by_ref().take(dead).collect();
            segments.push(SegmentEntry { id, bytes, dead });
        }
        Some(Manifest {
            fields: Fields::decode(&words)?,
            segments,
        })
    }
}

/// Reads the manifest of a store.
///
/// # Errors
/// The store's. A damaged manifest is one that says nothing: the store is another's.
pub(super) fn read(spool: &Spool) -> io::Result<Option<(Option<Manifest>, Tag)>> {
    let mut reads = 1;
    loop {
        let Some((bytes, tag)) = spool.get(NAME)? else {
            return Ok(None);
        };
        let manifest = Manifest::decode(&bytes);
        if manifest.is_some() || reads == READS_MAX {
            return Ok(Some((manifest, tag)));
        }
        reads += 1;
    }
}

/// Writes "in use" in place of what was read; the tag to replace it with later. `None` where somebody
/// else was faster.
pub(super) fn claim(
    spool: &Spool,
    fields: &Fields,
    before: Option<&Tag>,
) -> io::Result<Option<Tag>> {
    let manifest = Manifest {
        fields: Fields {
            clean: false,
            astray: false,
            ..*fields
        },
        segments: Vec::new(),
    };
    replace(spool, &manifest, before)
}

fn replace(spool: &Spool, manifest: &Manifest, before: Option<&Tag>) -> io::Result<Option<Tag>> {
    let bytes = manifest.encode();
    if let Some(tag) = spool.replace(NAME, bytes.clone(), before)? {
        return Ok(Some(tag));
    }
    // The first attempt may have taken effect without an answer.
    let now = spool.get(NAME)?;
    Ok(now.and_then(|(found, tag)| (found == bytes).then_some(tag)))
}

/// Writes what is known of a store's segments to the spool of whoever takes them over. A segment that
/// cannot be read is left out, and so is an orphan from then on.
pub(super) fn adopt(
    spool: &Spool,
    folder: &Folder,
    fields: &Fields,
    segments: &[SegmentEntry],
) -> io::Result<()> {
    let next = AtomicUsize::new(0);
    let adopt_some = || {
        let mut visitor = Visitor::new(salt(fields.uuid), fields.seed);
        while let Some(entry) = segments.get(next.fetch_add(1, Relaxed)) {
            let mut adopted = adopt_one(spool, &mut visitor, entry);
            for _ in 1..READS_MAX {
                if adopted.is_err() {
                    adopted = adopt_one(spool, &mut visitor, entry);
                }
            }
            if let Err(error) = adopted {
                tracing::warn!(segment = entry.id, %error, "a remote segment cannot be taken over");
                continue;
            }
            if !entry.dead.is_empty() {
                Dead::merge(folder, entry.id, &entry.dead, false, Sync::Device)?;
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..ADOPTIONS_MAX.min(segments.len()))
            .map(|_| scope.spawn(adopt_some))
            .collect();
        let ended = threads.into_iter().map(|thread| {
            let panicked = |_| io::Error::other("a thread panicked");
            thread.join().map_err(panicked).flatten()
        });
        ended.collect()
    })
}

fn adopt_one(spool: &Spool, visitor: &mut Visitor, entry: &SegmentEntry) -> io::Result<()> {
    let bytes = u64::from(entry.bytes);
    let file = spool.foreign(entry.id, bytes);
    let segment = Segment::found(entry.id, Arc::clone(&file), bytes);
    let ranges = visitor.kept_ranges(&segment)?;
    let ranges = ranges.ok_or_else(|| io::Error::other("its footer or a table is damaged"))?;
    spool.adopt(entry.id, bytes, &ranges, &*file)
}

impl Core {
    /// Takes the store over when it could not be asked at start: the tier began cold, so that whatever it
    /// holds may go.
    pub(super) fn claim_late(&self, spool: &Spool) -> io::Result<()> {
        // What a start makes in a new store that answers.
        spool.check()?;
        let before = read(spool)?.map(|(_, tag)| tag);
        let claimed = claim(spool, &self.state.fields(), before.as_ref())?;
        if claimed.is_some() {
            self.state
                .update(Sync::Device, |fields| fields.astray = false)?;
        }
        *self.claimed.lock() = claimed;
        Ok(())
    }

    /// Deletes what nothing names, if the store is still this run's.
    pub(super) fn collect_orphans(&self, spool: &Spool) -> io::Result<()> {
        if !self.holds_store(spool)? {
            return Ok(());
        }
        let known = |id| self.table.get(id).is_some();
        let orphans = spool.collect_orphans(&known, self.limits.orphan_age)?;
        if orphans > 0 {
            tracing::info!(
                orphans,
                "deleted objects of the remote store that nothing names"
            );
        }
        Ok(())
    }

    /// Whether the store still is this run's. Whoever else began to use it deletes what is here as
    /// orphans, so that the tier is given up.
    ///
    /// # Errors
    /// The store's, and a manifest that cannot be read: nothing is known then.
    pub(super) fn holds_store(&self, spool: &Spool) -> io::Result<bool> {
        let own = self.state.fields();
        let mut found = read(spool)?;
        if found.is_none() {
            // Somebody emptied the store, which does not make it another's.
            if let Some(tag) = claim(spool, &own, None)? {
                *self.claimed.lock() = Some(tag);
                return Ok(true);
            }
            found = read(spool)?;
        }
        match found {
            Some((Some(manifest), _))
                if manifest.fields.uuid == own.uuid && manifest.fields.claim == own.claim =>
            {
                return Ok(true);
            }
            Some((Some(_), _)) => {}
            Some((None, _)) => return Err(io::Error::other("the manifest is damaged")),
            None => {
                return Err(io::Error::other(
                    "the manifest goes as soon as it is written",
                ));
            }
        }
        let place = spool.place();
        self.fail(&format!(
            "another process has taken {place} over: each server needs a place of its own"
        ));
        Ok(false)
    }

    /// Tells whoever comes next, on this machine or another one, what is in the store.
    pub(super) fn release_store(&self, spool: &Spool) -> io::Result<()> {
        let Some(tag) = self.claimed.lock().take() else {
            return Ok(());
        };
        let fields = self.state.fields();
        let kills = match journal::recover(&self.folder, fields.uuid)? {
            Ok(kills) => kills,
            Err(journal::Damaged(why)) => return Err(io::Error::other(why)),
        };
        let waiting = spool.waiting();
        let mut segments = Vec::new();
        for segment in self.table.all() {
            if !segment.sealed() || waiting.contains(&segment.id) {
                continue;
            }
            let mut dead = Dead::read(&self.folder, segment.id)?;
            let from = kills.partition_point(|kill| kill.segment < segment.id);
            let own = kills[from..]
                .iter()
                .take_while(|kill| kill.segment == segment.id);
            for kill in own {
                dead.freed |= kill.offset == journal::FREE_OFFSET;
                dead.offsets.push(kill.offset);
            }
            dead.offsets.sort_unstable();
            dead.offsets.dedup();
            if !dead.freed {
                segments.push(SegmentEntry {
                    id: segment.id,
                    bytes: segment.bytes() as u32,
                    dead: dead.offsets,
                });
            }
        }
        let manifest = Manifest {
            fields: Fields {
                clean: true,
                ..fields
            },
            segments,
        };
        match replace(spool, &manifest, Some(&tag))? {
            Some(_) => Ok(()),
            None => Err(io::Error::other(
                "another process has taken the store over: it starts cold there and here",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(incarnation: u64, clean: bool) -> Manifest {
        Manifest {
            fields: Fields {
                uuid: 5,
                incarnation,
                clean,
                claim: 10 * incarnation as u32,
                ..Fields::default()
            },
            segments: vec![SegmentEntry {
                id: 3,
                bytes: 4096,
                dead: vec![1, 9],
            }],
        }
    }

    #[test]
    fn a_manifest_reads_back_and_damage_is_found() {
        let written = manifest(7, true);
        let bytes = written.encode();
        assert_eq!(Manifest::decode(&bytes), Some(written));
        for at in 0..bytes.len() {
            let mut rotten = bytes.clone();
            rotten[at] ^= 1;
            assert_eq!(Manifest::decode(&rotten), None, "byte {at}");
            assert_eq!(Manifest::decode(&bytes[..at]), None, "length {at}");
        }
    }

    // A spool is believed only if nobody wrote after it: neither another machine nor a later run of its own.
    #[test]
    fn only_the_last_writer_is_believed() {
        let spool = |uuid, incarnation, claim, claim_before| Fields {
            uuid,
            incarnation,
            claim,
            claim_before,
            ..Fields::default()
        };
        let judge = |spool: Option<Fields>, clean| whose(spool.as_ref(), Some(manifest(7, clean)));
        assert_eq!(
            whose(Some(&spool(5, 7, 70, 60)), None),
            Whose::Others,
            "what it says is not known"
        );
        for mine in [spool(5, 7, 70, 60), spool(5, 8, 80, 70)] {
            assert_eq!(judge(Some(mine), false), Whose::Mine);
        }
        for other in [
            Some(spool(5, 6, 60, 50)),
            // Copies, which started as often.
            Some(spool(5, 8, 81, 60)),
            Some(spool(5, 7, 71, 60)),
            Some(spool(5, 9, 70, 60)),
            Some(spool(4, 7, 70, 60)),
            None,
        ] {
            assert_eq!(judge(other, false), Whose::Others);
            assert!(matches!(judge(other, true), Whose::Left(_)));
        }
    }
}

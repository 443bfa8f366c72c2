//! The arena: one reservation of address space, cut into segments that are filled from the front.
//!
//! ```text
//!            ┌─────────── open (one writer appends) ──────────┐
//!   free ────┤                                                ├──▶ sealed ──▶ moving ──▶ free
//!            └─ run: one item larger than half a segment ─────┘       └── last item died ──▲
//! ```
//! A segment counts the words of its live items; when the last one dies it is free at once. Who
//! wants to read a segment's items without their shard locks (eviction, compaction, drying ahead)
//! claims it first: a segment in `Moving` is not freed under its reader.

use super::item::Item;
use super::pool::Pool;
use crate::clock::UnixSeconds;
use crate::memory::{self, WORD_BYTES, Words};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::io;

/// Smallest and largest segment.
const SEGMENT_BYTES_MIN: usize = 64 << 10;
const SEGMENT_BYTES_MAX: usize = 1 << 20;
/// Segments are this fraction of the limit, within the bounds above.
const SEGMENTS_PER_LIMIT: usize = 512;
/// Address space for runs, as a multiple of the limit: room enough that fragmentation of address
/// space never binds before memory does.
const RUN_SPACE_FACTOR: usize = 2;

/// Where an item lies: a segment (for a run its first) and the word in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address {
    /// Segment number.
    pub segment: u32,
    /// Word within the segment.
    pub word: u32,
}

impl Address {
    /// Bits that a segment number fits into.
    pub const SEGMENT_BITS: u32 = 22;
    /// Bits that a word number fits into.
    pub const WORD_BITS: u32 = 17;
}

/// What a segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SegmentKind {
    /// Items of the hot tier.
    Hot,
    /// Items of the cold tier.
    Cold,
}

/// A segment's life in one word, so that every transition is one atomic step:
/// words of its live items (32) | state (2) | how often it was freed (30).
#[derive(Debug)]
struct Status(AtomicU64);

/// Holds nothing.
const FREE: u64 = 0;
/// One writer appends to it.
const OPEN: u64 = 1;
/// Complete; freed when its last item dies.
const SEALED: u64 = 2;
/// Claimed by a reader.
const MOVING: u64 = 3;

const STATE_SHIFT: u32 = 32;
const GENERATION: u64 = 1 << 34;

#[inline]
fn state_of(status: u64) -> u64 {
    status >> STATE_SHIFT & 3
}

#[inline]
fn live_of(status: u64) -> u32 {
    status as u32
}

impl Status {
    #[inline]
    fn load(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Moves to a state, whatever the live count; answers the new status. The caller owns the
    /// transition: nobody else changes the state of an open or moving segment.
    fn set_state(&self, from: u64, to: u64) -> u64 {
        let change = (to << STATE_SHIFT).wrapping_sub(from << STATE_SHIFT);
        self.0
            .fetch_add(change, Ordering::AcqRel)
            .wrapping_add(change)
    }

    /// From sealed with nothing live to free; false if it is no longer exactly that.
    fn try_free(&self, seen: u64) -> bool {
        debug_assert!(state_of(seen) == SEALED && live_of(seen) == 0);
        let free = (seen & !(3 << STATE_SHIFT)).wrapping_add(GENERATION) | FREE << STATE_SHIFT;
        self.0
            .compare_exchange(seen, free, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }
}

/// What is known about a segment.
#[derive(Debug)]
pub struct Segment {
    status: Status,
    kind: AtomicU8,
    /// Whether every item was offered to dry since the segment was sealed.
    dried: AtomicU8,
    /// Segments that a run spans; 1 for others.
    span: AtomicU32,
    used_words: AtomicU32,
    /// Orders segments by the age of their items, lowest first.
    sequence: AtomicU64,
    /// What the owner of the segments orders them by.
    rank: AtomicU64,
    opened: AtomicU32,
}

impl Segment {
    fn new() -> Segment {
        Segment {
            status: Status(AtomicU64::new(FREE)),
            kind: AtomicU8::new(SegmentKind::Hot as u8),
            dried: AtomicU8::new(0),
            span: AtomicU32::new(1),
            used_words: AtomicU32::new(0),
            sequence: AtomicU64::new(0),
            rank: AtomicU64::new(0),
            opened: AtomicU32::new(0),
        }
    }

    /// Whether the segment can be claimed.
    pub fn is_sealed(&self) -> bool {
        state_of(self.status.load()) == SEALED
    }

    /// Whether the segment holds or is about to hold items.
    pub fn in_use(&self) -> bool {
        state_of(self.status.load()) != FREE
    }

    /// Which tier it belongs to.
    pub fn kind(&self) -> SegmentKind {
        if self.kind.load(Ordering::Relaxed) == SegmentKind::Cold as u8 {
            SegmentKind::Cold
        } else {
            SegmentKind::Hot
        }
    }

    /// Moves it to a tier. Only who has claimed it may, and has to change the slots of its items.
    pub fn set_kind(&self, kind: SegmentKind) {
        self.kind.store(kind as u8, Ordering::Relaxed);
    }

    /// Its place in the order of age.
    pub fn sequence(&self) -> u64 {
        self.sequence.load(Ordering::Relaxed)
    }

    /// What was stored as its rank since it was opened; 0 at first.
    pub fn rank(&self) -> u64 {
        self.rank.load(Ordering::Relaxed)
    }

    /// Stores a rank.
    pub fn set_rank(&self, rank: u64) {
        self.rank.store(rank, Ordering::Relaxed);
    }

    /// Words of its live items.
    pub fn live_words(&self) -> u32 {
        live_of(self.status.load())
    }

    /// Words handed out.
    pub fn used_words(&self) -> u32 {
        self.used_words.load(Ordering::Relaxed)
    }

    /// Segments that it spans.
    pub fn span(&self) -> u32 {
        self.span.load(Ordering::Relaxed)
    }

    /// When it was opened.
    pub fn opened(&self) -> UnixSeconds {
        self.opened.load(Ordering::Relaxed)
    }

    /// Whether every item was offered to dry.
    pub fn is_dried(&self) -> bool {
        self.dried.load(Ordering::Relaxed) != 0
    }

    /// Notes that every item was offered to dry.
    pub fn set_dried(&self) {
        self.dried.store(1, Ordering::Relaxed);
    }
}

/// Segments within a budget.
#[derive(Debug)]
pub struct Arena {
    words: Words,
    segment_words: usize,
    segments: Box<[Segment]>,
    pool: Mutex<Pool>,
    sequence: AtomicU64,
    /// The pool's count of segments that could be opened, for readers without its lock.
    available: AtomicU32,
}

impl Arena {
    /// An arena for at most `limit_bytes` of segments.
    ///
    /// # Errors
    /// When the kernel refuses the reservation of address space.
    pub fn new(limit_bytes: usize) -> io::Result<Arena> {
        let segment_bytes = (limit_bytes / SEGMENTS_PER_LIMIT)
            .next_power_of_two()
            .clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        let plain = (limit_bytes / segment_bytes).max(1);
        let count = (plain * (1 + RUN_SPACE_FACTOR)).min(1 << Address::SEGMENT_BITS);
        let pool = Pool::new(plain, count, plain);
        let words = Words::reserve(count * segment_bytes)?;
        // A model touches a few words of an arena and makes the next one: clearing large pages would be most of it.
        if cfg!(not(feature = "model")) {
            words.prefer_large_pages(0..plain * segment_bytes / WORD_BYTES);
        }
        let arena = Arena {
            words,
            segment_words: segment_bytes / WORD_BYTES,
            segments: (0..count).map(|_| Segment::new()).collect(),
            available: AtomicU32::new(pool.available()),
            pool: Mutex::new(pool),
            sequence: AtomicU64::new(1),
        };
        Ok(arena)
    }

    /// Words in a segment.
    pub fn segment_words(&self) -> usize {
        self.segment_words
    }

    /// Bytes in a segment.
    pub fn segment_bytes(&self) -> usize {
        self.segment_words * WORD_BYTES
    }

    /// All segments, in use or not.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// One segment.
    #[inline]
    pub fn segment(&self, number: u32) -> &Segment {
        &self.segments[number as usize]
    }

    /// The item at an address.
    #[inline]
    pub fn item(&self, address: Address) -> Item<'_> {
        Item::at(self.words_from(address))
    }

    /// The words from an address on, to write an item to.
    #[inline]
    pub fn words_from(&self, address: Address) -> &[std::sync::atomic::AtomicU64] {
        &self.words[address.segment as usize * self.segment_words + address.word as usize..]
    }

    /// Has the beginning of an item brought to the processor's cache: header, key, and what of the
    /// value fits two cache lines.
    #[inline]
    pub fn prefetch(&self, address: Address) {
        let first = self.words_from(address).as_ptr().addr();
        memory::prefetch(first);
        memory::prefetch(first + memory::CACHE_LINE_BYTES);
    }

    /// Segments that could be opened now.
    #[inline]
    pub fn available(&self) -> u32 {
        self.available.load(Ordering::Relaxed)
    }

    /// Bytes of segments that are in use.
    pub fn bytes_in_use(&self) -> usize {
        self.pool.lock().in_use() as usize * self.segment_bytes()
    }

    /// Changes the budget. Free segments beyond it go back to the kernel at once; used ones as
    /// they become free.
    pub fn set_limit_bytes(&self, limit_bytes: usize) {
        let segments = u32::try_from(limit_bytes / self.segment_bytes()).unwrap_or(u32::MAX);
        let mut pool = self.pool.lock();
        pool.set_limit(segments, &mut |number| self.give_back(number));
        self.available.store(pool.available(), Ordering::Relaxed);
    }

    /// The most segments that the reservation can ever hold at once.
    pub fn limit_bytes(&self) -> usize {
        self.pool.lock().limit() as usize * self.segment_bytes()
    }

    /// Opens a segment if more than `reserve` are available.
    pub fn open(&self, kind: SegmentKind, reserve: u32, now: UnixSeconds) -> Option<u32> {
        self.open_run(kind, 1, reserve, now)
    }

    /// Opens `span` adjacent segments as one if more than `reserve` others stay available.
    pub fn open_run(
        &self,
        kind: SegmentKind,
        span: u32,
        reserve: u32,
        now: UnixSeconds,
    ) -> Option<u32> {
        let mut pool = self.pool.lock();
        if pool.available() < span + reserve {
            return None;
        }
        let number = pool.take(span, &mut |number| self.give_back(number))?;
        self.available.store(pool.available(), Ordering::Relaxed);
        drop(pool);
        let segment = self.segment(number);
        segment.kind.store(kind as u8, Ordering::Relaxed);
        segment.dried.store(0, Ordering::Relaxed);
        segment.span.store(span, Ordering::Relaxed);
        segment.used_words.store(0, Ordering::Relaxed);
        segment.set_rank(0);
        segment.opened.store(now, Ordering::Relaxed);
        segment.sequence.store(
            self.sequence.fetch_add(1, Ordering::Relaxed),
            Ordering::Relaxed,
        );
        segment.status.set_state(FREE, OPEN);
        Some(number)
    }

    /// Gives a segment the place in the order of age that another one had.
    pub fn set_sequence(&self, number: u32, sequence: u64, opened: UnixSeconds) {
        self.segment(number)
            .sequence
            .store(sequence, Ordering::Relaxed);
        self.segment(number).opened.store(opened, Ordering::Relaxed);
    }

    /// Hands out the next `words` of an open segment, live. Only its one writer may call it.
    #[inline]
    pub fn append(&self, number: u32, words: u32) -> Address {
        let segment = self.segment(number);
        let word = segment.used_words.load(Ordering::Relaxed);
        segment
            .status
            .0
            .fetch_add(u64::from(words), Ordering::Relaxed);
        segment.used_words.store(word + words, Ordering::Release);
        Address {
            segment: number,
            word,
        }
    }

    /// Words left in an open segment.
    #[inline]
    pub fn room(&self, number: u32) -> usize {
        let segment = self.segment(number);
        self.segment_words * segment.span() as usize - segment.used_words() as usize
    }

    /// Completes an open segment.
    pub fn seal(&self, number: u32) {
        let status = self.segment(number).status.set_state(OPEN, SEALED);
        self.free_if_dead(number, status);
    }

    /// Counts an item of `words` as dead; frees the segment if it was the last one.
    #[inline]
    pub fn kill(&self, address: Address, words: u32) {
        let words = u64::from(words);
        let status = self
            .segment(address.segment)
            .status
            .0
            .fetch_sub(words, Ordering::AcqRel)
            - words;
        self.free_if_dead(address.segment, status);
    }

    /// Claims a sealed segment: it is not freed until [`Arena::unclaim`].
    pub fn claim(&self, number: u32) -> bool {
        let status = &self.segment(number).status.0;
        status
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |seen| {
                (state_of(seen) == SEALED).then(|| seen + ((MOVING - SEALED) << STATE_SHIFT))
            })
            .is_ok()
    }

    /// Ends a claim; frees the segment if nothing in it is live.
    pub fn unclaim(&self, number: u32) {
        let status = self.segment(number).status.set_state(MOVING, SEALED);
        self.free_if_dead(number, status);
    }

    /// The addresses of all items of a claimed segment, dead ones too.
    pub fn items(&self, number: u32) -> impl Iterator<Item = (Address, Item<'_>)> {
        let end = self.segment(number).used_words.load(Ordering::Acquire);
        let mut word = 0;
        std::iter::from_fn(move || {
            (word < end).then(|| {
                let address = Address {
                    segment: number,
                    word,
                };
                let item = self.item(address);
                word += item.words() as u32;
                (address, item)
            })
        })
    }

    /// Frees a segment whose status is sealed with nothing live; of several that try, one does.
    #[inline]
    fn free_if_dead(&self, number: u32, status: u64) {
        if live_of(status) == 0 && state_of(status) == SEALED {
            self.free(number, status);
        }
    }

    #[cold]
    fn free(&self, number: u32, status: u64) {
        let segment = self.segment(number);
        let span = segment.span();
        if segment.status.try_free(status) {
            let mut pool = self.pool.lock();
            pool.put(number, span, &mut |number| self.give_back(number));
            self.available.store(pool.available(), Ordering::Relaxed);
        }
    }

    fn give_back(&self, number: u32) {
        let start = number as usize * self.segment_words;
        self.words.release(start..start + self.segment_words);
    }
}

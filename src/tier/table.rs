//! A shard's slots: one flat array, sorted by tag, probed linearly.
//!
//! A tag's home is `tag * homes / 2^32`, which grows with the tag, so slots that are kept sorted
//! are also near their homes: a lookup walks from the home to the first larger tag, all slots of
//! one tag are neighbours, and growing by a sixteenth is one sequential copy. Sixteen bytes a
//! slot at 84 to 90 % load make 18 to 20 bytes per item.
//!
//! Linear probing with ordering: Amble and Knuth, "Ordered hash tables", 1974.

use std::io;
use std::sync::atomic::Ordering::Relaxed;

use super::slot::{Slot, Tag};
use crate::memory::{WORD_BYTES, Words};

/// Words in a slot.
const SLOT_WORDS: usize = 2;
/// Bytes in a slot.
pub const SLOT_BYTES: usize = SLOT_WORDS * WORD_BYTES;
/// Slots past the last home, for the last homes' overflow: this part of all, so that growing makes
/// room however the tags crowd…
const OVERFLOW_PART: usize = 32;
/// …and at least this many (a quarter of the smallest table).
const OVERFLOW_SLOTS_MIN: usize = SLOTS_MIN / 4;
/// Slots in the smallest table: one page.
const SLOTS_MIN: usize = 4096 / SLOT_BYTES;
/// A table grows by this part: each slot is copied about as many times while a table fills.
const GROWTH_PART: usize = 16;
/// Growth begins above this load, in tenths.
const LOAD_TENTHS_MAX: usize = 9;
/// A table that was made smaller is filled up to this, in tenths.
const SHRUNK_LOAD_TENTHS_MAX: usize = 8;

/// What is reserved beyond the slots asked for, as a part of them: what the load and the overflow leave unused, and two
/// in a hundred more, because hashes spread slots over shards only almost evenly.
const RESERVED_PART: usize = 6;

/// The place where the search for a tag begins, in a table with this many homes.
#[inline]
pub fn home(tag: u32, homes: usize) -> usize {
    ((u64::from(tag) * homes as u64) >> 32) as usize
}

/// How many slots of an array are some tag's home.
fn homes_of(slots: usize) -> usize {
    slots - (slots / OVERFLOW_PART).max(OVERFLOW_SLOTS_MIN)
}

/// The slots of one shard.
#[derive(Debug)]
pub struct Table {
    words: Words,
    /// Slots that are some tag's home; the array has more.
    homes: usize,
    len: usize,
}

impl Table {
    /// An empty table.
    ///
    /// # Errors
    /// When the kernel has no memory for it.
    pub fn new() -> io::Result<Table> {
        Table::with_slots(SLOTS_MIN)
    }

    fn with_slots(slots: usize) -> io::Result<Table> {
        let slots = slots.next_multiple_of(SLOTS_MIN);
        Ok(Table {
            words: Words::reserve(slots * SLOT_BYTES)?,
            homes: homes_of(slots),
            len: 0,
        })
    }

    /// Slots in use.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory that the table takes.
    pub fn bytes(&self) -> usize {
        self.words.len() * WORD_BYTES
    }

    /// Slots in the array; places are below it.
    pub fn slots(&self) -> usize {
        self.words.len() / SLOT_WORDS
    }

    #[inline]
    fn home(&self, tag: u32) -> usize {
        home(tag, self.homes)
    }

    /// The address of the first slot, and the number of homes.
    #[inline]
    pub fn position(&self) -> (usize, usize) {
        (self.words.as_ptr().addr(), self.homes)
    }

    #[inline]
    fn words_at(&self, place: usize) -> [u64; 2] {
        match self.words.get(place * SLOT_WORDS..place * SLOT_WORDS + 2) {
            Some([first, second]) => [first.load(Relaxed), second.load(Relaxed)],
            _ => [0, 0],
        }
    }

    #[inline]
    fn store(&mut self, place: usize, words: [u64; 2]) {
        self.words[place * SLOT_WORDS].store(words[0], Relaxed);
        self.words[place * SLOT_WORDS + 1].store(words[1], Relaxed);
    }

    /// The slot at a place, if one is in use there.
    #[inline]
    pub fn get(&self, place: usize) -> Option<Slot> {
        let words = self.words_at(place);
        (words[1] != 0).then(|| Slot::from_words(words))
    }

    /// The first slot of a tag in RAM: its place and its second word.
    #[inline]
    pub fn seek(&self, tag: Tag) -> Option<(usize, u64)> {
        let (slots, _) = self.words.as_chunks::<SLOT_WORDS>();
        let high = tag.high();
        let home = self.home(high);
        for (step, [first, second]) in slots.get(home..)?.iter().enumerate() {
            let first = first.load(Relaxed);
            let found = (first >> 32) as u32;
            if found < high && first != 0 {
                continue;
            }
            let second = second.load(Relaxed);
            if found > high || second == 0 {
                return None;
            }
            if found == high && Slot::is_in_ram(second, tag) {
                return Some((home + step, second));
            }
        }
        None
    }

    /// The exptime of the slot at a place and its second word now, if it lies where it did when that
    /// was `second`. The place of an item in RAM tells it from all others of the table.
    #[inline]
    pub fn seen_at(&self, place: usize, second: u64) -> Option<(u32, u64)> {
        let [first, now] = self.words_at(place);
        Slot::same_location(now, second).then_some((first as u32, now))
    }

    /// The first slot in use from a place on, and its place.
    pub fn next_from(&self, place: usize) -> Option<(usize, Slot)> {
        (place..self.slots()).find_map(|place| Some((place, self.get(place)?)))
    }

    /// Replaces the slot at a place by one with the same tag.
    #[inline]
    pub fn replace(&mut self, place: usize, slot: Slot) {
        debug_assert_eq!(self.get(place).map(|old| old.tag), Some(slot.tag));
        self.store(place, slot.to_words());
    }

    /// The slots of a tag, each with its place.
    #[inline]
    pub fn of_tag(&self, tag: Tag) -> impl Iterator<Item = (usize, Slot)> {
        let (slots, _) = self.words.as_chunks::<SLOT_WORDS>();
        let high = tag.high();
        let mut next = self.home(high);
        std::iter::from_fn(move || {
            loop {
                let [first, second] = slots.get(next)?;
                let place = next;
                next += 1;
                let first = first.load(Relaxed);
                let found = (first >> 32) as u32;
                if found < high {
                    // An empty slot has two zeros; most slots are told from it by their first word.
                    if first == 0 && second.load(Relaxed) == 0 {
                        return None;
                    }
                    continue;
                }
                let second = second.load(Relaxed);
                if found > high || second == 0 {
                    return None;
                }
                let slot = Slot::from_words([first, second]);
                if slot.tag == tag {
                    return Some((place, slot));
                }
            }
        })
    }

    /// The first slot of a tag that `wanted` accepts, and its place.
    #[inline]
    pub fn find_first(
        &self,
        tag: Tag,
        mut wanted: impl FnMut(&Slot) -> bool,
    ) -> Option<(usize, Slot)> {
        self.of_tag(tag).find(|(_, slot)| wanted(slot))
    }

    /// Counts a hit of the slot in RAM at a place, at this stamp.
    #[inline]
    pub fn touch(&mut self, place: usize, stamp: u16) {
        debug_assert!(self.get(place).is_some_and(|slot| !slot.location.is_dry()));
        if let Some(second) = self.words.get(place * SLOT_WORDS + 1) {
            let old = second.load(Relaxed);
            let touched = Slot::touched(old, stamp);
            if touched != old {
                second.store(touched, Relaxed);
            }
        }
    }

    /// Adds a slot, behind others of the same tag.
    ///
    /// # Errors
    /// When the table is full and there is no memory for a larger one; nothing was added.
    pub fn insert(&mut self, slot: Slot) -> io::Result<()> {
        if (self.len + 1) * 10 > self.homes * LOAD_TENTHS_MAX {
            self.grow()?;
        }
        while !self.try_insert(slot) {
            self.grow()?;
        }
        Ok(())
    }

    /// False if the array ends before an empty slot is found.
    fn try_insert(&mut self, slot: Slot) -> bool {
        let mut place = self.home(slot.tag.high());
        loop {
            let words = self.words_at(place);
            if words[1] == 0 || (words[0] >> 32) as u32 > slot.tag.high() {
                break;
            }
            place += 1;
        }
        let mut empty = place;
        while self.words_at(empty)[1] != 0 {
            empty += 1;
        }
        if empty >= self.slots() {
            return false;
        }
        while empty > place {
            let words = self.words_at(empty - 1);
            self.store(empty, words);
            empty -= 1;
        }
        self.store(place, slot.to_words());
        self.len += 1;
        true
    }

    /// Removes the slot at a place; the ones behind it move up.
    pub fn remove(&mut self, place: usize) {
        let mut hole = place;
        loop {
            let next = self.words_at(hole + 1);
            if next[1] == 0 || self.home((next[0] >> 32) as u32) > hole {
                break;
            }
            self.store(hole, next);
            hole += 1;
        }
        self.store(hole, [0, 0]);
        self.len -= 1;
    }

    /// Makes room for so many slots, as growing one by one would have come to. Without memory for the larger array
    /// the table stays as it is.
    pub fn reserve(&mut self, slots: usize) {
        let slots = slots + slots / RESERVED_PART;
        if slots > self.slots()
            && let Ok(larger) = self.copy_to(slots)
        {
            *self = larger;
        }
    }

    /// Gives memory back when less than two thirds of the homes are in use. Without memory for the
    /// smaller array the table stays as it is.
    #[inline]
    pub fn shrink(&mut self) {
        if self.len * 3 < self.homes * 2 && self.slots() > SLOTS_MIN {
            self.shrink_to_len();
        }
    }

    #[cold]
    fn shrink_to_len(&mut self) {
        let mut slots = (self.len + self.len / 4).next_multiple_of(SLOTS_MIN);
        // Not so far that it has to grow again soon.
        while self.len * 10 > homes_of(slots) * SHRUNK_LOAD_TENTHS_MAX {
            slots += SLOTS_MIN;
        }
        if slots < self.slots()
            && let Ok(smaller) = self.copy_to(slots)
        {
            *self = smaller;
        }
    }

    /// Moves all slots to an array that is a sixteenth larger.
    #[cold]
    fn grow(&mut self) -> io::Result<()> {
        *self = self.copy_to(self.slots() + self.slots() / GROWTH_PART)?;
        Ok(())
    }

    /// All slots in an array of at least this size: one sequential pass.
    fn copy_to(&self, mut slots: usize) -> io::Result<Table> {
        'larger: loop {
            let mut copy = Table::with_slots(slots)?;
            let mut next = 0;
            for place in 0..self.slots() {
                let words = self.words_at(place);
                if words[1] != 0 {
                    next = copy.home((words[0] >> 32) as u32).max(next);
                    if next >= copy.slots() {
                        slots += slots / GROWTH_PART;
                        continue 'larger;
                    }
                    copy.store(next, words);
                    next += 1;
                }
            }
            copy.len = self.len;
            return Ok(copy);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ram::{Address, SegmentKind};
    use crate::tier::slot::Location;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    // Room that was made beforehand holds a little more than was asked for before the slots move again.
    #[test]
    fn reserved_room_is_filled_without_growing() {
        const SLOTS: u32 = 40_000;
        let mut table = Table::new().unwrap();
        table.reserve(SLOTS as usize);
        let position = table.position();
        for number in 0..SLOTS + SLOTS / 100 {
            // Spread evenly, in no order.
            let high = number.wrapping_mul(0x9e37_79b1);
            table.insert(slot(tag(high, 0), number)).unwrap();
        }
        assert_eq!(table.position(), position);
        assert!(table.bytes() <= 19 * SLOTS as usize);
    }

    // Items that come and go in equal numbers move the slots hardly ever, however many they are.
    #[test]
    fn a_steady_table_stays_where_it_is() {
        let mut random = 1u32;
        let mut next = || {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            random
        };
        for len in (1..3000).step_by(7) {
            let mut table = Table::new().unwrap();
            let mut moves = 0;
            let mut number = 0;
            let mut insert = |table: &mut Table, high: u32| {
                number += 1;
                table.insert(slot(tag(high, 0), number)).unwrap();
            };
            for _ in 0..len {
                insert(&mut table, next());
            }
            for _ in 0..300 {
                let before = table.position();
                let from = next() as usize % table.slots();
                let found = table.next_from(from).or_else(|| table.next_from(0));
                table.remove(found.unwrap().0);
                table.shrink();
                insert(&mut table, next());
                moves += usize::from(table.position() != before);
            }
            assert!(moves <= 2, "{len} slots moved {moves} times");
        }
    }

    fn tag(high: u32, low: u64) -> Tag {
        Tag::of_hash(u64::from(high) << 7 | low)
    }

    fn slot(tag: Tag, number: u32) -> Slot {
        let location = Location::ram(
            SegmentKind::Hot,
            Address {
                segment: number,
                word: 1,
            },
        );
        Slot {
            tag,
            exptime: 0,
            location,
            hits: 0,
            stamp: 0,
        }
    }

    fn all(table: &Table) -> Vec<Slot> {
        (0..table.slots())
            .filter_map(|place| table.get(place))
            .collect()
    }

    proptest! {
        // Any mix of inserts and removals, with many equal tags and crowded ends, holds exactly
        // what a plain set holds, sorted.
        #[test]
        fn holds_what_was_inserted(ops in prop::collection::vec((any::<bool>(), 0u32..40, 0u64..2, any::<bool>()), 0..2000)) {
            let mut table = Table::new().unwrap();
            let mut model = BTreeSet::new();
            for (number, (insert, high, low, last)) in ops.into_iter().enumerate() {
                let tag = tag(if last { u32::MAX - high } else { high * 0x0100_0000 }, low);
                let found = table.find_first(tag, |_| true);
                if insert {
                    table.insert(slot(tag, number as u32)).unwrap();
                    model.insert((tag, number as u32));
                } else if let Some((place, found)) = found {
                    table.remove(place);
                    let address = found.location.address().unwrap();
                    prop_assert!(model.remove(&(tag, address.segment)));
                } else {
                    prop_assert!(!model.iter().any(|(other, _)| *other == tag));
                }
            }
            let mut slots: Vec<(Tag, u32)> =
                all(&table).iter().map(|slot| (slot.tag, slot.location.address().unwrap().segment)).collect();
            prop_assert!(slots.is_sorted_by_key(|slot| slot.0.high()));
            slots.sort_unstable();
            prop_assert_eq!(&slots, &model.into_iter().collect::<Vec<_>>());
            table.shrink();
            prop_assert_eq!(all(&table).len(), slots.len());
            prop_assert_eq!(table.len(), all(&table).len());
        }
    }

    #[test]
    fn a_full_table_takes_twenty_bytes_per_item() {
        let mut table = Table::new().unwrap();
        let mut high = 1u32;
        for number in 0..100_000 {
            high = high.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            table.insert(slot(tag(high, 0), number)).unwrap();
        }
        assert!(table.bytes() / table.len() <= 20, "{} bytes", table.bytes());
    }
}

//! The layout of an item in RAM: a 20-byte header, then client flags and CAS where there are any,
//! key, value.
//!
//! ```text
//! word 0   version
//! word 1   last access (32) | value length (32)
//! word 2   key length (8) | bits (8) | rule (8) | unused (8) | first 4 bytes of what follows:
//!          [client flags 4] [own CAS 8] key value, padded to whole words
//! ```
//! The exptime lives in the index slot alone. Bytes never change once the item is visible, but for
//! the last-access word and the marks, which the holder of the key's shard lock may store.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::clock::UnixSeconds;
use crate::entry::{Facts, Marks};
use crate::memory::{Tail, WORD_BYTES};
use crate::words::{self, Writer};

/// Bytes of the fixed header.
pub const HEADER_BYTES: usize = 20;

/// Largest value that the header's length field holds, with room to add to it.
pub const VALUE_BYTES_MAX: usize = 1 << 30;

const HAS_FLAGS: u8 = 1 << 4;
const HAS_CAS: u8 = 1 << 5;

/// Words that an item takes.
#[inline]
pub fn item_words(facts: &Facts, key_bytes: usize, value_bytes: usize) -> usize {
    let optional =
        if facts.flags != 0 { 4 } else { 0 } + if facts.own_cas.is_some() { 8 } else { 0 };
    (HEADER_BYTES + optional + key_bytes + value_bytes).div_ceil(WORD_BYTES)
}

/// Writes an item's header and key; the caller appends exactly `value_bytes` and finishes.
#[inline]
pub fn write_item<'a>(
    place: &'a [AtomicU64],
    facts: &Facts,
    key: &[u8],
    value_bytes: usize,
) -> Writer<'a> {
    let mut bits = facts.marks.bits();
    if facts.flags != 0 {
        bits |= HAS_FLAGS;
    }
    if facts.own_cas.is_some() {
        bits |= HAS_CAS;
    }
    let mut writer = Writer::new(place);
    writer.push_u64(facts.version);
    writer.push_u64(u64::from(facts.last_access) | (value_bytes as u64) << 32);
    writer.push_low(
        key.len() as u64 | u64::from(bits) << 8 | u64::from(facts.rule) << 16,
        4,
    );
    if facts.flags != 0 {
        writer.push_low(u64::from(facts.flags), 4);
    }
    if let Some(cas) = facts.own_cas {
        writer.push_u64(cas);
    }
    writer.push(key);
    writer
}

/// An item that lies in RAM. What never changes of its header is read once.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    words: &'a [AtomicU64],
    key_bytes: u8,
    /// The optional fields that it has; its marks are in the words.
    has: u8,
    key_offset: u8,
    value_bytes: u32,
}

impl<'a> Item<'a> {
    /// The item that begins at the first of `words`.
    #[inline]
    pub fn at(words: &'a [AtomicU64]) -> Item<'a> {
        let lengths = words[2].load(Relaxed);
        let has = (lengths >> 8) as u8;
        Item {
            words,
            key_bytes: lengths as u8,
            has,
            key_offset: HEADER_BYTES as u8
                + if has & HAS_FLAGS != 0 { 4 } else { 0 }
                + if has & HAS_CAS != 0 { 8 } else { 0 },
            value_bytes: (words[1].load(Relaxed) >> 32) as u32,
        }
    }

    #[inline]
    fn lengths_word(&self) -> u64 {
        self.words[2].load(Relaxed)
    }

    /// Key length in bytes.
    #[inline]
    pub fn key_bytes(&self) -> usize {
        usize::from(self.key_bytes)
    }

    /// Value length in bytes.
    #[inline]
    pub fn value_bytes(&self) -> usize {
        self.value_bytes as usize
    }

    /// Words that the item takes.
    #[inline]
    pub fn words(&self) -> usize {
        (self.value_offset() + self.value_bytes()).div_ceil(WORD_BYTES)
    }

    #[inline]
    fn key_offset(&self) -> usize {
        usize::from(self.key_offset)
    }

    #[inline]
    fn value_offset(&self) -> usize {
        self.key_offset() + self.key_bytes()
    }

    /// Whether this is the item of `key`.
    #[inline]
    pub fn has_key(&self, key: &[u8]) -> bool {
        self.key_bytes() == key.len() && words::equal(self.words, self.key_offset(), key)
    }

    /// Copies the key out.
    pub fn copy_key<'b>(&self, buffer: &'b mut [u8; 255]) -> &'b [u8] {
        let key = &mut buffer[..self.key_bytes()];
        words::copy_out(self.words, self.key_offset(), key);
        key
    }

    /// Appends the value to `out`.
    #[inline]
    pub fn append_value(&self, out: &mut Vec<u8>) {
        words::append_to(self.words, self.value_offset(), self.value_bytes(), out);
    }

    /// Writes the value to the end of a vector that has room for it.
    #[inline]
    pub fn write_value(&self, tail: &mut Tail<'_>) {
        words::push_to(self.words, self.value_offset(), self.value_bytes(), tail);
    }

    /// Fills `out`, as long as key and value together, with both.
    pub fn copy_key_value(&self, out: &mut [u8]) {
        words::copy_out(self.words, self.key_offset(), out);
    }

    /// Streams the value into another item.
    pub fn push_value(&self, writer: &mut Writer<'_>) {
        writer.push_words(self.words, self.value_offset(), self.value_bytes());
    }

    /// The value's version.
    #[inline]
    pub fn version(&self) -> u64 {
        self.words[0].load(Relaxed)
    }

    /// When a client last stored or fetched it.
    #[inline]
    pub fn last_access(&self) -> UnixSeconds {
        self.words[1].load(Relaxed) as u32
    }

    /// The residence rule.
    #[inline]
    pub fn rule(&self) -> u8 {
        (self.lengths_word() >> 16) as u8
    }

    /// The marks.
    #[inline]
    pub fn marks(&self) -> Marks {
        Marks::from_bits((self.lengths_word() >> 8) as u8)
    }

    /// The client's flags.
    #[inline]
    pub fn flags(&self) -> u32 {
        if self.has & HAS_FLAGS == 0 {
            0
        } else {
            (self.lengths_word() >> 32) as u32
        }
    }

    /// All facts, with the exptime that the index keeps.
    #[inline]
    pub fn facts(&self, exptime: UnixSeconds) -> Facts {
        let own_cas = (self.has & HAS_CAS != 0).then(|| {
            words::load_u64(
                self.words,
                HEADER_BYTES + if self.has & HAS_FLAGS != 0 { 4 } else { 0 },
            )
        });
        Facts {
            version: self.version(),
            own_cas,
            flags: self.flags(),
            exptime,
            last_access: self.last_access(),
            rule: self.rule(),
            marks: self.marks(),
        }
    }

    /// Stores the time of an access. Only the holder of the key's shard lock may.
    #[inline]
    pub fn set_last_access(&self, now: UnixSeconds) {
        let word = self.words[1].load(Relaxed);
        if word as u32 != now {
            self.words[1].store(word >> 32 << 32 | u64::from(now), Relaxed);
        }
    }

    /// Stores that a client fetched it now. Only the holder of the key's shard lock may.
    #[inline]
    pub fn set_access(&self, now: UnixSeconds) {
        const FETCHED: u64 = (Marks::FETCHED.bits() as u64) << 8;
        self.set_last_access(now);
        let word = self.words[2].load(Relaxed);
        if word & FETCHED == 0 {
            self.words[2].store(word | FETCHED, Relaxed);
        }
    }

    /// Stores the marks. Only the holder of the key's shard lock may.
    #[inline]
    pub fn set_marks(&self, marks: Marks) {
        let word = self.words[2].load(Relaxed);
        let changed = word & !(0xf << 8) | u64::from(marks.bits()) << 8;
        if changed != word {
            self.words[2].store(changed, Relaxed);
        }
    }

    /// Copies the whole item, word by word.
    pub fn copy_to(&self, target: &[AtomicU64]) {
        for (from, to) in self.words[..self.words()].iter().zip(target) {
            to.store(from.load(Relaxed), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // What is written is read back, with and without each optional field, and the size is exact.
    #[test]
    fn an_item_reads_back() {
        for (flags, own_cas) in [
            (0, None),
            (7, None),
            (0, Some(9)),
            (u32::MAX, Some(u64::MAX)),
        ] {
            for value in [&b""[..], b"x", b"0123456789abcdef"] {
                let facts = Facts {
                    version: 42,
                    own_cas,
                    flags,
                    exptime: 5,
                    last_access: 77,
                    rule: 3,
                    marks: Marks::STALE.with(Marks::KEY_BASE64),
                };
                let count = item_words(&facts, 5, value.len());
                let words: Vec<AtomicU64> = (0..count).map(|_| AtomicU64::new(0)).collect();
                let mut writer = write_item(&words, &facts, b"a key", value.len());
                writer.push(value);
                writer.finish();

                let item = Item::at(&words);
                assert_eq!(item.facts(5), facts);
                assert_eq!(item.words(), count);
                assert!(
                    item.has_key(b"a key") && !item.has_key(b"a kez") && !item.has_key(b"a ke")
                );
                let mut out = Vec::new();
                item.append_value(&mut out);
                assert_eq!(out, value);

                item.set_last_access(99);
                item.set_marks(item.marks().with(Marks::FETCHED));
                assert_eq!((item.last_access(), item.value_bytes()), (99, value.len()));
                assert!(item.has_key(b"a key") && item.marks().has(Marks::FETCHED));
                assert_eq!(item.flags(), flags);
            }
        }
    }
}

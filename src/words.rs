//! Byte ranges in atomic words: streaming bytes in, copying them out, comparing them.
//!
//! Words hold bytes in little-endian order: byte `n` of a range is byte `n % 8` of word `n / 8`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::memory::{Tail, WORD_BYTES};

/// Calls a function that is generic over a shift in bits with the constant that a variable holds:
/// by a constant, a shift over two words is one instruction.
macro_rules! with_shift {
    ($shift:expr, $function:ident($($argument:expr),*)) => {
        match $shift {
            8 => $function::<8>($($argument),*),
            16 => $function::<16>($($argument),*),
            24 => $function::<24>($($argument),*),
            32 => $function::<32>($($argument),*),
            40 => $function::<40>($($argument),*),
            48 => $function::<48>($($argument),*),
            _ => $function::<56>($($argument),*),
        }
    };
}

/// Streams bytes into words from the first one on, a whole word per store.
#[derive(Debug)]
pub struct Writer<'a> {
    words: &'a [AtomicU64],
    next: usize,
    /// Bytes that do not fill a word yet, in its low end.
    partial: u64,
    partial_bits: u32,
}

impl<'a> Writer<'a> {
    /// A writer that begins at the first of `words`.
    #[inline]
    pub fn new(words: &'a [AtomicU64]) -> Writer<'a> {
        Writer {
            words,
            next: 0,
            partial: 0,
            partial_bits: 0,
        }
    }

    /// Appends 8 bytes.
    #[inline]
    pub fn push_u64(&mut self, value: u64) {
        self.words[self.next].store(self.partial | (value << self.partial_bits), Relaxed);
        self.next += 1;
        self.partial = if self.partial_bits == 0 {
            0
        } else {
            value >> (64 - self.partial_bits)
        };
    }

    /// Appends the low `count` bytes of `value`, whose other bytes must be zero. `count` < 8.
    #[inline]
    pub fn push_low(&mut self, value: u64, count: u32) {
        debug_assert!(count < 8 && (value >> (8 * count)) == 0);
        let bits = self.partial_bits + 8 * count;
        if bits >= 64 {
            self.words[self.next].store(self.partial | (value << self.partial_bits), Relaxed);
            self.next += 1;
            self.partial = if self.partial_bits == 0 {
                0
            } else {
                value >> (64 - self.partial_bits)
            };
            self.partial_bits = bits - 64;
        } else {
            self.partial |= value << self.partial_bits;
            self.partial_bits = bits;
        }
    }

    /// Appends bytes.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if bytes.len() >= crate::memory::COPY_BYTES_MIN {
            return self.push_copied(bytes);
        }
        let (chunks, rest) = bytes.as_chunks::<WORD_BYTES>();
        if self.partial_bits == 0 {
            for (chunk, word) in chunks.iter().zip(&self.words[self.next..]) {
                word.store(u64::from_le_bytes(*chunk), Relaxed);
            }
            self.next += chunks.len();
        } else {
            let words = &self.words[self.next..];
            let partial = self.partial;
            self.partial = with_shift!(self.partial_bits, push_shifted(words, partial, chunks));
            self.next += chunks.len();
        }
        self.push_low(low_bytes(rest), rest.len() as u32);
    }

    /// Appends at least [`COPY_BYTES_MIN`](crate::memory::COPY_BYTES_MIN) bytes.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[inline]
    fn push_copied(&mut self, bytes: &[u8]) {
        if self.partial_bits > 0 {
            self.words[self.next].store(self.partial, Relaxed);
        }
        let offset = self.next * WORD_BYTES + (self.partial_bits / 8) as usize;
        crate::memory::store_bytes(self.words, offset, bytes);
        let end = offset + bytes.len();
        self.next = end / WORD_BYTES;
        self.partial_bits = 8 * (end % WORD_BYTES) as u32;
        // What does not fill a word yet are the last of these bytes; read from there, not from where they were
        // stored a moment ago in larger pieces.
        self.partial = match bytes.last_chunk() {
            Some(last) if self.partial_bits > 0 => {
                u64::from_le_bytes(*last) >> (64 - self.partial_bits)
            }
            _ => 0,
        };
    }

    /// Appends `len` bytes that start at byte `offset` of other words.
    pub fn push_words(&mut self, source: &[AtomicU64], offset: usize, len: usize) {
        let mut at = offset;
        let end = offset + len;
        while end - at >= WORD_BYTES {
            self.push_u64(load_u64(source, at));
            at += WORD_BYTES;
        }
        if at < end {
            let count = (end - at) as u32;
            self.push_low(load_u64(source, at) & ((1 << (8 * count)) - 1), count);
        }
    }

    /// Stores what does not fill a word, padded with zeros.
    #[inline]
    pub fn finish(self) {
        if self.partial_bits > 0 {
            self.words[self.next].store(self.partial, Relaxed);
        }
    }
}

/// At most 7 bytes as the low end of a word.
#[inline]
pub fn low_bytes(bytes: &[u8]) -> u64 {
    // Two looks that overlap, or three, instead of one at each.
    match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        (Some(first), Some(last)) => {
            let shift = 8 * (bytes.len() - 4);
            u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << shift
        }
        _ => match bytes {
            [] => 0,
            [first, ..] => {
                let (middle, last) = (bytes.len() / 2, bytes.len() - 1);
                u64::from(*first)
                    | u64::from(bytes[middle]) << (8 * middle)
                    | u64::from(bytes[last]) << (8 * last)
            }
        },
    }
}

/// The 8 bytes at byte `offset`; bytes past the last word read as zero.
#[inline]
pub fn load_u64(words: &[AtomicU64], offset: usize) -> u64 {
    let (word, shift) = (offset / WORD_BYTES, 8 * (offset % WORD_BYTES) as u32);
    let low = words[word].load(Relaxed) >> shift;
    if shift == 0 {
        return low;
    }
    let high = words.get(word + 1).map_or(0, |next| next.load(Relaxed));
    low | (high << (64 - shift))
}

/// Fills `out` with the bytes from byte `offset` on.
#[inline]
pub fn copy_out(words: &[AtomicU64], offset: usize, out: &mut [u8]) {
    let shift = 8 * (offset % WORD_BYTES) as u32;
    let words = &words[offset / WORD_BYTES..];
    let (chunks, rest) = out.as_chunks_mut::<WORD_BYTES>();
    let copied = chunks.len();
    if shift == 0 {
        for (chunk, word) in chunks.iter_mut().zip(words) {
            *chunk = word.load(Relaxed).to_le_bytes();
        }
    } else if copied > 0 {
        with_shift!(shift, copy_shifted(words, chunks));
    }
    if !rest.is_empty() {
        let mut tail = load_u64(words, copied * WORD_BYTES + (shift / 8) as usize);
        for byte in rest {
            *byte = tail as u8;
            tail >>= 8;
        }
    }
}

/// Whole words of `out` from `SHIFT` bits into the first of `words` on.
fn copy_shifted<const SHIFT: u32>(words: &[AtomicU64], out: &mut [[u8; WORD_BYTES]]) {
    let mut low = words[0].load(Relaxed) >> SHIFT;
    let copied = out.len();
    for (chunk, word) in out.iter_mut().zip(&words[1..=copied]) {
        let word = word.load(Relaxed);
        *chunk = (low | (word << (64 - SHIFT))).to_le_bytes();
        low = word >> SHIFT;
    }
}

/// Stores whole words `SHIFT` bits further on, behind `partial`; answers what is left over.
fn push_shifted<const SHIFT: u32>(
    words: &[AtomicU64],
    mut partial: u64,
    chunks: &[[u8; WORD_BYTES]],
) -> u64 {
    let pushed = chunks.len();
    for (chunk, word) in chunks.iter().zip(&words[..pushed]) {
        let value = u64::from_le_bytes(*chunk);
        word.store(partial | (value << SHIFT), Relaxed);
        partial = value >> (64 - SHIFT);
    }
    partial
}

/// Appends `len` bytes from byte `offset` on to `out`.
#[inline]
pub fn append_to(words: &[AtomicU64], offset: usize, len: usize, out: &mut Vec<u8>) {
    push_to(words, offset, len, &mut Tail::new(out, len));
}

/// Writes `len` bytes from byte `offset` on to the end of a vector that has room for them.
#[inline]
pub fn push_to(words: &[AtomicU64], offset: usize, len: usize, tail: &mut Tail<'_>) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if len >= crate::memory::COPY_BYTES_MIN {
        return tail.push_words(words, offset, len);
    }
    let end = offset + len;
    let mut at = offset;
    while end - at >= WORD_BYTES {
        tail.push(load_u64(words, at).to_le_bytes());
        at += WORD_BYTES;
    }
    for at in at..end {
        tail.push([load_u64(words, at) as u8]);
    }
}

/// Whether the bytes from byte `offset` on begin with `expected`.
#[inline(always)]
pub fn equal(words: &[AtomicU64], offset: usize, expected: &[u8]) -> bool {
    let Some(words) = words.get(offset / WORD_BYTES..) else {
        return expected.is_empty();
    };
    match offset % WORD_BYTES {
        0 => equal_whole(words, expected),
        // Half a word is what the header of an item leaves.
        4 => match (words, expected.split_first_chunk::<4>()) {
            ([first, words @ ..], Some((half, expected))) => {
                (first.load(Relaxed) >> 32) as u32 == u32::from_le_bytes(*half)
                    && equal_whole(words, expected)
            }
            _ => equal_shifted(words, 32, expected),
        },
        at => equal_shifted(words, 8 * at as u32, expected),
    }
}

/// Whether words begin with these bytes.
#[inline(always)]
fn equal_whole(words: &[AtomicU64], expected: &[u8]) -> bool {
    let (chunks, rest) = expected.as_chunks::<WORD_BYTES>();
    let Some((whole, behind)) = words.split_at_checked(chunks.len()) else {
        return false;
    };
    for (chunk, word) in chunks.iter().zip(whole) {
        if word.load(Relaxed) != u64::from_le_bytes(*chunk) {
            return false;
        }
    }
    rest.is_empty() || same_low(behind.first().map_or(0, |word| word.load(Relaxed)), rest)
}

/// Whether the bytes from `shift` bits into the first of `words` on are these.
#[cold]
fn equal_shifted(words: &[AtomicU64], shift: u32, expected: &[u8]) -> bool {
    let mut words = words.iter().map(|word| word.load(Relaxed));
    let (chunks, rest) = expected.as_chunks::<WORD_BYTES>();
    // What of the last word loaded is not compared yet.
    let mut left = words.next().unwrap_or(0) >> shift;
    for chunk in chunks {
        let word = words.next().unwrap_or(0);
        if left | (word << (64 - shift)) != u64::from_le_bytes(*chunk) {
            return false;
        }
        left = word >> shift;
    }
    rest.is_empty() || same_low(left | (words.next().unwrap_or(0) << (64 - shift)), rest)
}

/// Whether the low bytes of a word are those of `expected`, at most 7.
#[inline]
fn same_low(word: u64, expected: &[u8]) -> bool {
    word & ((1 << (8 * expected.len())) - 1) == low_bytes(expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(count: usize) -> Vec<AtomicU64> {
        (0..count).map(|_| AtomicU64::new(u64::MAX)).collect()
    }

    /// Short ones, and some that the processor copies as a string.
    fn piece() -> impl Strategy<Value = Vec<u8>> {
        let of = |bytes| prop::collection::vec(any::<u8>(), bytes);
        prop_oneof![4 => of(0..40), 1 => of(500..530)]
    }

    proptest! {
        // Pieces of any lengths come out as they went in, from any offset.
        #[test]
        fn bytes_survive(pieces in prop::collection::vec(piece(), 0..8), from in 0usize..40) {
            let all = pieces.concat();
            let store = words(all.len() / 8 + 1);
            let mut writer = Writer::new(&store);
            for piece in &pieces {
                writer.push(piece);
            }
            writer.finish();
            let from = from.min(all.len());
            let mut out = b"before".to_vec();
            append_to(&store, from, all.len() - from, &mut out);
            prop_assert_eq!(&out[6..], &all[from..]);
            prop_assert!(equal(&store, from, &all[from..]));
            if from < all.len() {
                let mut other = all[from..].to_vec();
                *other.last_mut().unwrap() ^= 1;
                prop_assert!(!equal(&store, from, &other));
            }

            let copy = words(all.len() / 8 + 2);
            let mut writer = Writer::new(&copy);
            writer.push(b"abc");
            writer.push_words(&store, from, all.len() - from);
            writer.finish();
            prop_assert!(equal(&copy, 0, b"abc"));
            prop_assert!(equal(&copy, 3, &all[from..]));
        }
    }
}

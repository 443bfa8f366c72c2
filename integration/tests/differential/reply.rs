//! Replies as lines and data blocks, and whether two servers' replies are the same.

use std::collections::HashMap;

use tiercache_integration::client::parse_value_line;

/// CAS values that a script may set itself; below them both servers' own numbers are renamed.
pub const EXPLICIT_CAS_MIN: u64 = 1 << 62;
/// Small CAS values that a script may set itself; both servers' own numbers are above.
pub const EXPLICIT_CAS_SMALL_MAX: u64 = 1000;

/// One line, with the data block that it announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub line: Vec<u8>,
    pub data: Option<Vec<u8>>,
}

/// Length of the data block that follows `line`, if one does.
pub fn data_length(line: &[u8]) -> Option<usize> {
    if let Some((_, length)) = parse_value_line(line) {
        return Some(length);
    }
    let size = line
        .strip_prefix(b"VA ")?
        .split(|&byte| byte == b' ')
        .next()?;
    std::str::from_utf8(size).ok()?.parse().ok()
}

/// Gives the CAS values of two servers common names, in the order in which they are first seen.
#[derive(Debug, Default)]
pub struct CasNames {
    symbols: [HashMap<u64, usize>; 2],
    values: [Vec<u64>; 2],
}

impl CasNames {
    /// The values that one server gave out, by symbol.
    pub fn values(&self, side: usize) -> &[u64] {
        &self.values[side]
    }

    /// True when both servers mean the same item state by `left` and `right`.
    pub fn same(&mut self, left: u64, right: u64) -> bool {
        let explicit = |value| !(EXPLICIT_CAS_SMALL_MAX + 1..EXPLICIT_CAS_MIN).contains(&value);
        if (explicit(left) || explicit(right)) && left != right {
            return false;
        }
        match (self.symbols[0].get(&left), self.symbols[1].get(&right)) {
            (Some(left), Some(right)) => left == right,
            (None, None) => {
                let symbol = self.values[0].len();
                self.symbols[0].insert(left, symbol);
                self.symbols[1].insert(right, symbol);
                self.values[0].push(left);
                self.values[1].push(right);
                true
            }
            _ => false,
        }
    }

    /// The symbol of a value that the left server gave out.
    pub fn symbol(&self, left: u64) -> Option<usize> {
        self.symbols[0].get(&left).copied()
    }
}

/// What a word of a reply line means for the comparison.
enum Word<'a> {
    /// Byte-equal.
    Exact(&'a [u8]),
    /// Equal after renaming.
    Cas(u64),
    /// Seconds: equal or one apart, the two clocks tick at different moments.
    Seconds(&'a [u8], i64),
    /// Not compared: slab class and item size have no meaning outside memcached's allocator.
    Ignored(&'a [u8]),
}

/// True when the replies are equal after renaming CAS values and allowing t, l, la and exp to be one second apart.
pub fn same(names: &mut CasNames, left: &Reply, right: &Reply) -> bool {
    if left.data != right.data {
        return false;
    }
    let (left_words, right_words) = (words(&left.line), words(&right.line));
    left_words.len() == right_words.len()
        && left_words.iter().zip(&right_words).all(|pair| match pair {
            (Word::Exact(left), Word::Exact(right)) => left == right,
            (Word::Cas(left), Word::Cas(right)) => names.same(*left, *right),
            (Word::Seconds(name, left), Word::Seconds(other, right)) => {
                // -1 means "never", which is not a time next to 0 or -2.
                let near = left.abs_diff(*right) <= 1 && *left != -1 && *right != -1;
                name == other && (left == right || near)
            }
            (Word::Ignored(left), Word::Ignored(right)) => left == right,
            _ => false,
        })
}

/// The CAS values that a line tells.
pub fn cas_values(line: &[u8]) -> Vec<u64> {
    words(line)
        .iter()
        .filter_map(|word| match word {
            Word::Cas(value) => Some(*value),
            _ => None,
        })
        .collect()
}

fn words(line: &[u8]) -> Vec<Word<'_>> {
    let split: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let first = split[0];
    split
        .iter()
        .enumerate()
        .map(|(index, &word)| match first {
            b"VALUE" if index == 4 => number(word).map_or(Word::Exact(word), Word::Cas),
            b"HD" | b"NS" | b"EX" | b"NF" | b"EN" if index >= 1 => meta_word(word),
            b"VA" if index >= 2 => meta_word(word),
            b"ME" if index >= 2 => debug_word(word),
            _ => Word::Exact(word),
        })
        .collect()
}

fn meta_word(word: &[u8]) -> Word<'_> {
    match word.split_first() {
        Some((b'c', rest)) => number(rest).map_or(Word::Exact(word), Word::Cas),
        Some((b't' | b'l', rest)) => seconds(word, 1, rest),
        _ => Word::Exact(word),
    }
}

fn debug_word(word: &[u8]) -> Word<'_> {
    let Some(equals) = word.iter().position(|&byte| byte == b'=') else {
        return Word::Exact(word);
    };
    let (name, value) = word.split_at(equals + 1);
    match name {
        b"cas=" => number(value).map_or(Word::Exact(word), Word::Cas),
        b"exp=" | b"la=" => seconds(word, name.len(), value),
        b"cls=" | b"size=" => Word::Ignored(name),
        _ => Word::Exact(word),
    }
}

fn seconds<'a>(word: &'a [u8], name_length: usize, value: &[u8]) -> Word<'a> {
    let parsed = std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok());
    parsed.map_or(Word::Exact(word), |seconds: i64| {
        // memcached prints the time since an expiry as an unsigned number: a known difference.
        let wrapped = seconds > i64::from(i32::MAX) && seconds <= i64::from(u32::MAX);
        Word::Seconds(&word[..name_length], if wrapped { 0 } else { seconds })
    })
}

fn number(word: &[u8]) -> Option<u64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

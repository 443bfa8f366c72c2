//! `get` and `set` as nearly all clients write them, found in one pass over their bytes.
//!
//! A server that has bytes of a connection between two requests may ask for gets here first, before
//! the decoder; sets the decoder asks for itself. What is found is what the general way would find;
//! what is not plain is left to it: other commands, a half request, more than one space, control
//! bytes, a key too long.

use crate::exptime::Exptime;
use crate::limits::KEY_MAX;
use crate::request::{Form, Store, StoreMode};

/// The keys of the plain `get` lines that some bytes begin with.
///
/// ```
/// use tiercache_protocol::PlainGets;
///
/// let mut gets = PlainGets::new(b"get a\r\nget b cd\r\nget e  f\r\n");
/// let keys: Vec<_> = gets.by_ref().map(|get| (get.key, get.last)).collect();
/// assert_eq!(keys, [(&b"a"[..], true), (b"b", false), (b"cd", true), (b"e", false)]);
/// // The last line is not plain: nothing of it counts.
/// assert_eq!(gets.whole(), b"get a\r\nget b cd\r\n".len());
/// ```
#[derive(Debug, Clone)]
pub struct PlainGets<'a> {
    input: &'a [u8],
    /// Where the next key or line begins.
    at: usize,
    in_line: bool,
    /// Bytes of the whole lines so far.
    whole: usize,
}

/// A key of a plain line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainKey<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Where it begins in the bytes.
    pub at: usize,
    /// Where what follows it and its space or line end begins.
    pub end: usize,
    /// Whether it is the last of its line. Without such a one behind it a key counts for nothing.
    pub last: bool,
}

impl<'a> PlainGets<'a> {
    /// The lines that `input` begins with, which are the first bytes of requests.
    #[inline]
    pub fn new(input: &'a [u8]) -> PlainGets<'a> {
        PlainGets {
            input,
            at: 0,
            in_line: false,
            whole: 0,
        }
    }

    /// Bytes of the lines whose last key was yielded.
    #[inline]
    pub fn whole(&self) -> usize {
        self.whole
    }
}

impl<'a> Iterator for PlainGets<'a> {
    type Item = PlainKey<'a>;

    #[inline]
    fn next(&mut self) -> Option<PlainKey<'a>> {
        let mut rest = self.input.get(self.at..)?;
        if !self.in_line {
            rest = rest.strip_prefix(b"get ")?;
        }
        let len = token_len(rest)?;
        if len == 0 || len > KEY_MAX {
            return None;
        }
        let (key, behind) = rest.split_at(len);
        let at = self.input.len() - rest.len();
        let (skipped, last) = match behind {
            [b' ', ..] => (1, false),
            [b'\r', b'\n', ..] => (2, true),
            [b'\n', ..] => (1, true),
            _ => return None,
        };
        self.at = at + len + skipped;
        self.in_line = !last;
        if last {
            self.whole = self.at;
        }
        Some(PlainKey {
            key,
            at,
            end: self.at,
            last,
        })
    }
}

/// Digits that fit 32 bits whatever they are.
const DIGITS_MAX: usize = 9;

/// A whole `set` that `buf` begins with, and its bytes.
#[inline]
pub(crate) fn plain_set(buf: &[u8]) -> Option<(Store<'_>, usize)> {
    let arguments = buf.strip_prefix(b"set ")?;
    let len = token_len(arguments)?;
    if len == 0 || len > KEY_MAX {
        return None;
    }
    let (key, rest) = arguments.split_at(len);
    let (flags, rest) = number(rest.strip_prefix(b" ")?)?;
    let (exptime, rest) = number(rest.strip_prefix(b" ")?)?;
    let (value_len, rest) = number(rest.strip_prefix(b" ")?)?;
    let (value, rest) = rest
        .strip_prefix(b"\r\n")?
        .split_at_checked(value_len as usize)?;
    let rest = rest.strip_prefix(b"\r\n")?;
    let store = Store {
        mode: StoreMode::Set,
        key,
        flags,
        exptime: Exptime::from_raw(i32::try_from(exptime).ok()?),
        value,
        compare: None,
        new_cas: None,
        invalidate: false,
        vivify: None,
        form: Form::TEXT,
    };
    Some((store, buf.len() - rest.len()))
}

/// The number of at most [`DIGITS_MAX`] digits that `text` begins with, and what is behind it.
#[inline]
fn number(text: &[u8]) -> Option<(u32, &[u8])> {
    let mut number = 0;
    for (count, byte) in text.iter().enumerate().take(DIGITS_MAX + 1) {
        match byte {
            b'0'..=b'9' if count < DIGITS_MAX => number = number * 10 + u32::from(byte - b'0'),
            _ if count > 0 => return Some((number, &text[count..])),
            _ => return None,
        }
    }
    None
}

/// Bytes before the first space or control byte; none if there is none of these.
#[inline]
fn token_len(bytes: &[u8]) -> Option<usize> {
    const STEP: usize = size_of::<u64>();
    let mut done = 0;
    while let Some((step, _)) = bytes.get(done..)?.split_first_chunk::<STEP>() {
        let ends = separators(u64::from_le_bytes(*step));
        if ends != 0 {
            return Some(done + ends.trailing_zeros() as usize / 8);
        }
        done += STEP;
    }
    let ends = match bytes.last_chunk::<STEP>() {
        // The last bytes again, without those that were looked at: fewer than a step are left.
        Some(last) => {
            let left = bytes.len() - done;
            if left == 0 {
                return None;
            }
            let seen_bits = 8 * (STEP - left) as u32;
            let ends = separators(u64::from_le_bytes(*last) | ((1 << seen_bits) - 1)) >> seen_bits;
            return (ends != 0).then(|| done + ends.trailing_zeros() as usize / 8);
        }
        None => bytes.iter().position(|byte| *byte <= b' ')?,
    };
    Some(ends)
}

/// The high bits of the bytes that are a space or a control byte; those behind the first may be
/// wrong.
#[inline]
fn separators(bytes: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    bytes.wrapping_sub(ONES * (b' ' as u64 + 1)) & !bytes & (ONES << 7)
}

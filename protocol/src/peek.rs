//! A look at requests to come: the keys of plain reads, before anything is decoded.

use std::iter;

use crate::key::Keys;
use crate::limits::LINE_MAX;

/// The first keys of the reads (`get KEY…`, `mg KEY …`) that `input` begins with, in order, each
/// with the bytes that its line takes. Ends before anything else, a half line included. What looks
/// like a read here may still be refused when it is decoded: good for a hint only.
///
/// ```
/// let input = b"get a\r\nmg b v\r\nset c 0 0 1\r\n";
/// let keys: Vec<_> = tiercache_protocol::peek_reads(input).collect();
/// assert_eq!(keys, [(&b"a"[..], 7), (b"b", 8)]);
/// ```
pub fn peek_reads(input: &[u8]) -> impl Iterator<Item = (&[u8], usize)> {
    let mut rest = input;
    iter::from_fn(move || {
        let start = match rest {
            [b'g', b'e', b't', b' ', ..] => 4,
            [b'm', b'g', b' ', ..] => 3,
            _ => return None,
        };
        let end = memchr::memchr(b'\n', &rest[..rest.len().min(LINE_MAX)])?;
        let line = &rest[start..end];
        rest = &rest[end + 1..];
        let key = Keys::new(line.strip_suffix(b"\r").unwrap_or(line)).next()?;
        Some((key, end + 1))
    })
}

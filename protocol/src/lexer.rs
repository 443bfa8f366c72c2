//! Tokens of a command line: what stands between spaces.
//!
//! Space is the only separator; every other byte may be part of a token, as in memcached.

use crate::limits::KEY_MAX;
use memchr::memrchr;
use nom::IResult;

/// What a line parser yields: the rest of the line and what was read.
pub(crate) type Lexed<'a, T> = IResult<&'a [u8], T, ()>;

#[inline]
fn is_space(byte: u8) -> bool {
    byte == b' '
}

/// The next token, without the spaces around it. A nom parser, written as two loops because it
/// reads every byte of almost every header.
#[inline]
pub(crate) fn token(line: &[u8]) -> Lexed<'_, &[u8]> {
    let mut line = line;
    while let [b' ', tail @ ..] = line {
        line = tail;
    }
    let len = line
        .iter()
        .position(|byte| is_space(*byte))
        .unwrap_or(line.len());
    if len == 0 {
        return Err(nom::Err::Error(()));
    }
    let (token, rest) = line.split_at(len);
    Ok((rest, token))
}

/// The line without spaces at both ends.
pub(crate) fn trimmed(line: &[u8]) -> &[u8] {
    let start = line
        .iter()
        .position(|byte| !is_space(*byte))
        .unwrap_or(line.len());
    trimmed_end(&line[start..])
}

#[inline]
fn trimmed_end(line: &[u8]) -> &[u8] {
    let end = line
        .iter()
        .rposition(|byte| !is_space(*byte))
        .map_or(0, |last| last + 1);
    &line[..end]
}

/// The last token; empty if there is none.
#[inline]
pub(crate) fn last_token(line: &[u8]) -> &[u8] {
    let line = trimmed_end(line);
    let start = line
        .iter()
        .rposition(|byte| is_space(*byte))
        .map_or(0, |space| space + 1);
    &line[start..]
}

/// Whether the line ends with the token `noreply`.
#[inline]
pub(crate) fn has_noreply(line: &[u8]) -> bool {
    match trimmed_end(line).strip_suffix(b"noreply") {
        Some(front) => front.last().is_none_or(|byte| is_space(*byte)),
        None => false,
    }
}

/// Whether all keys of a `get` line are short enough.
#[inline]
pub(crate) fn keys_fit(line: &[u8]) -> bool {
    let mut line = line;
    // What is no longer than one key cannot hold one that is too long; in more, a space must stand
    // among the first bytes, and the last such space is where to go on.
    while line.len() > KEY_MAX {
        match memrchr(b' ', &line[..=KEY_MAX]) {
            Some(space) => line = &line[space + 1..],
            None => return false,
        }
    }
    true
}

/// A part of a request by its place, for a header that is kept while the value arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// The place of `part` in `line`, of which it must be a piece.
    #[inline]
    pub(crate) fn of(line: &[u8], part: &[u8]) -> Self {
        let start = part.as_ptr().addr() - line.as_ptr().addr();
        // Command lines are far shorter than 4 GiB.
        Self {
            start: start as u32,
            end: (start + part.len()) as u32,
        }
    }

    #[inline]
    pub(crate) fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// The bytes at this place; empty if `buf` is not the one it was taken from.
    #[inline]
    pub(crate) fn get(self, buf: &[u8]) -> &[u8] {
        buf.get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Only spaces separate; the last token is found behind trailing ones.
    #[test]
    fn tokens_stand_between_spaces() {
        assert_eq!(token(b"  a\tb  c"), Ok((&b"  c"[..], &b"a\tb"[..])));
        assert!(token(b"   ").is_err());
        assert_eq!(trimmed(b"  a b "), b"a b");
        assert_eq!(trimmed(b"  "), b"");
        assert!(has_noreply(b"set a noreply  "));
        assert!(has_noreply(b"noreply"));
        assert!(!has_noreply(b"noreply a"));
        assert!(!has_noreply(b"set xnoreply"));
        assert_eq!(last_token(b""), b"");
    }

    // One byte decides.
    #[test]
    fn keys_fit_up_to_the_limit() {
        let line = |len| [b"a ".as_slice(), &vec![b'k'; len], b" b"].concat();
        assert!(keys_fit(&line(KEY_MAX)));
        assert!(!keys_fit(&line(KEY_MAX + 1)));
    }

    // A span survives the move of its buffer.
    #[test]
    fn spans_find_their_bytes_again() {
        let line = b"set key 1".to_vec();
        let span = Span::of(&line, &line[4..7]);
        assert_eq!(span.get(&line.clone()), b"key");
        assert_eq!(span.get(b"set"), b"");
    }
}

//! The keys of a request line.

use std::fmt;

/// The space-separated keys of a line, in order. Cheap to clone, so that a server can look at all
/// keys first (to prefetch them) and answer them later.
///
/// ```
/// use tiercache_protocol::Keys;
///
/// let keys = Keys::new(b"a  bc ");
/// assert_eq!(keys.clone().count(), 2);
/// assert_eq!(keys.collect::<Vec<_>>(), [&b"a"[..], b"bc"]);
/// ```
#[derive(Clone, Default)]
pub struct Keys<'a> {
    /// The keys to come; begins with one unless empty.
    rest: &'a [u8],
    /// Length of the first of them; 0 only if there is none.
    first_len: usize,
}

impl<'a> Keys<'a> {
    /// The keys in `line`, which holds no command word and no line end.
    #[inline]
    pub fn new(line: &'a [u8]) -> Self {
        let mut rest = line;
        while let [b' ', tail @ ..] = rest {
            rest = tail;
        }
        let first_len = find_space(rest).unwrap_or(rest.len());
        Self { rest, first_len }
    }

    /// One key, which holds no space.
    #[inline]
    pub(crate) fn one(key: &'a [u8]) -> Self {
        Self {
            rest: key,
            first_len: key.len(),
        }
    }

    /// Whether no key is left.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first_len == 0
    }
}

impl<'a> Iterator for Keys<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.first_len == 0 {
            return None;
        }
        let (key, rest) = self.rest.split_at_checked(self.first_len)?;
        *self = if rest.is_empty() {
            Self::default()
        } else {
            Self::new(rest)
        };
        Some(key)
    }
}

/// The first space. Keys are short: eight bytes a step, without a call, beats a search that is made
/// for long lines.
#[inline]
fn find_space(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const SPACES: u64 = u64::from_le_bytes([b' '; 8]);
    let (steps, rest) = bytes.as_chunks::<8>();
    for (number, step) in steps.iter().enumerate() {
        let differing = u64::from_le_bytes(*step) ^ SPACES;
        // The lowest bit set is the high bit of the first byte that is zero.
        let spaces = differing.wrapping_sub(ONES) & !differing & (ONES << 7);
        if spaces != 0 {
            return Some(number * 8 + spaces.trailing_zeros() as usize / 8);
        }
    }
    let at = rest.iter().position(|byte| *byte == b' ')?;
    Some(steps.len() * 8 + at)
}

impl std::iter::FusedIterator for Keys<'_> {}

impl PartialEq for Keys<'_> {
    /// Equal keys in equal order; how many spaces stood between them is no matter.
    fn eq(&self, other: &Self) -> bool {
        self.clone().eq(other.clone())
    }
}

impl Eq for Keys<'_> {}

impl fmt::Debug for Keys<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        for key in self.clone() {
            list.entry(&key.escape_ascii().to_string());
        }
        list.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::Keys;

    // Spaces before, between and after keys do not make empty keys.
    #[test]
    fn spaces_only_separate() {
        let all = |line| Keys::new(line).collect::<Vec<&[u8]>>();
        assert_eq!(all(b"a"), [b"a"]);
        assert_eq!(all(b"  a   bc\x01 "), [&b"a"[..], b"bc\x01"]);
        assert!(Keys::new(b"").is_empty());
        assert!(Keys::new(b"   ").is_empty());
        assert!(!Keys::new(b" a").is_empty());
        assert_eq!(Keys::new(b"a  b "), Keys::new(b"a b"));
        assert_ne!(Keys::new(b"ab"), Keys::new(b"a b"));
    }
}

//! Whole numbers in as few bytes as they need: LEB128, and zigzag for differences.

/// Longest form of a number in bytes.
pub(super) const VARINT_BYTES_MAX: usize = 10;

/// Appends `value`, seven bits a byte, low bits first.
pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends the difference from `base` to `value`; small ones either way are short.
pub(super) fn put_difference(out: &mut Vec<u8>, base: u64, value: u64) {
    let difference = value.wrapping_sub(base) as i64;
    put(out, ((difference << 1) ^ (difference >> 63)) as u64);
}

/// Takes numbers and bytes from the front of a slice; `None` when it ends early or a number does
/// not fit.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// One byte.
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// The next `count` bytes.
    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A fixed number of bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    /// A number of up to 64 bits.
    pub(super) fn number(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// A number of up to 32 bits.
    pub(super) fn number_u32(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    /// The number that lies a stored difference away from `base`.
    pub(super) fn difference(&mut self, base: u64) -> Option<u64> {
        let coded = self.number()?;
        let difference = (coded >> 1) as i64 ^ -((coded & 1) as i64);
        Some(base.wrapping_add(difference as u64))
    }

    /// As [`Reader::difference`], if the result fits 32 bits.
    pub(super) fn difference_u32(&mut self, base: u32) -> Option<u32> {
        u32::try_from(self.difference(u64::from(base))?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn numbers_read_back(value: u64, base: u64) {
            let mut out = Vec::new();
            put(&mut out, value);
            assert!(out.len() <= VARINT_BYTES_MAX);
            put_difference(&mut out, base, value);
            let mut reader = Reader(&out);
            assert_eq!(reader.number(), Some(value));
            assert_eq!(reader.difference(base), Some(value));
            assert!(reader.0.is_empty());
        }
    }

    // Neither an endless number nor one of 65 bits is taken for another number.
    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        assert_eq!(Reader(&[0x80; 11]).number(), None);
        assert_eq!(Reader(&[0xff; 3]).number(), None);
        let mut too_large = [0xff; 10];
        too_large[9] = 2;
        assert_eq!(Reader(&too_large).number(), None);
    }
}

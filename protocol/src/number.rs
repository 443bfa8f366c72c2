//! Decimal numbers as memcached reads and writes them.

/// Longest token taken as a 32-bit number, in bytes.
const U32_TOKEN_MAX: usize = 11;
/// Longest token taken as a 64-bit number, in bytes.
const U64_TOKEN_MAX: usize = 22;
/// Digits of the largest u64.
const U64_DIGITS_MAX: usize = 20;
/// Digits that a u64 holds whatever they are.
const U64_DIGITS_SAFE: usize = U64_DIGITS_MAX - 1;

#[inline]
fn digit(byte: u8) -> Option<u8> {
    let digit = byte.wrapping_sub(b'0');
    (digit <= 9).then_some(digit)
}

/// The digits of `token` as a number; 0 if there are none.
#[inline]
fn digits(token: &[u8]) -> Option<u64> {
    let mut sum = 0u64;
    let (safe, last) = token.split_at(token.len().min(U64_DIGITS_SAFE));
    for byte in safe {
        sum = sum * 10 + u64::from(digit(*byte)?);
    }
    for byte in last {
        sum = sum.checked_mul(10)?.checked_add(u64::from(digit(*byte)?))?;
    }
    Some(sum)
}

/// Digits only.
#[inline]
pub(crate) fn parse_u64(token: &[u8]) -> Option<u64> {
    if token.is_empty() || token.len() > U64_TOKEN_MAX {
        return None;
    }
    digits(token)
}

/// Digits only.
#[inline]
pub(crate) fn parse_u32(token: &[u8]) -> Option<u32> {
    if token.is_empty() || token.len() > U32_TOKEN_MAX {
        return None;
    }
    u32::try_from(digits(token)?).ok()
}

/// Digits with an optional minus sign; a bare sign is 0, as in memcached.
#[inline]
pub(crate) fn parse_i32(token: &[u8]) -> Option<i32> {
    if token.is_empty() || token.len() > U32_TOKEN_MAX {
        return None;
    }
    i32::try_from(signed(token)?).ok()
}

#[inline]
fn signed(token: &[u8]) -> Option<i64> {
    match token {
        // Digits end below 2^64, so that the sum cannot be lost before the range is checked.
        [b'-', tail @ ..] => 0i64.checked_sub_unsigned(digits(tail)?),
        _ => i64::try_from(digits(token)?).ok(),
    }
}

/// The exptime of the classic store commands: memcached reads 64 bits with an optional sign there
/// and keeps the low 32.
#[inline]
pub(crate) fn parse_exptime(token: &[u8]) -> Option<i32> {
    let token = without_plus(token)?;
    // The low 32 bits are meant.
    signed(token).map(|raw| raw as i32)
}

/// The client flags of the classic store commands: 32 bits with an optional sign. memcached takes
/// longer numbers and drops their high bits; to refuse them keeps what is read equal to what was
/// stored.
#[inline]
pub(crate) fn parse_client_flags(token: &[u8]) -> Option<u32> {
    let token = without_plus(token)?;
    u32::try_from(signed(token)?).ok()
}

/// Removes one plus sign; none if no digit is in `token`.
#[inline]
fn without_plus(token: &[u8]) -> Option<&[u8]> {
    let rest = match token {
        [b'+', digit, ..] if digit.is_ascii_digit() => &token[1..],
        _ => token,
    };
    rest.last()?.is_ascii_digit().then_some(rest)
}

/// Appends `number` in decimal.
pub(crate) fn push_u64(out: &mut Vec<u8>, number: u64) {
    let mut text = [0u8; U64_DIGITS_MAX];
    let len = put_u64(&mut text, number);
    out.extend_from_slice(&text[..len]);
}

/// Writes `number` in decimal to the front of `out` and tells how many bytes that took. Short numbers
/// are the rule: flags and lengths of values.
#[inline]
pub(crate) fn put_u64(out: &mut [u8], number: u64) -> usize {
    // Each remainder of 10 fits a byte.
    match (number, &mut *out) {
        (0..10, [ones, ..]) => {
            *ones = b'0' + number as u8;
            1
        }
        (10..100, [tens, ones, ..]) => {
            *tens = b'0' + (number / 10) as u8;
            *ones = b'0' + (number % 10) as u8;
            2
        }
        (100..1000, [hundreds, tens, ones, ..]) => {
            *hundreds = b'0' + (number / 100) as u8;
            *tens = b'0' + (number / 10 % 10) as u8;
            *ones = b'0' + (number % 10) as u8;
            3
        }
        _ => put_long(out, number),
    }
}

fn put_long(out: &mut [u8], mut number: u64) -> usize {
    let len = digit_count(number);
    for place in out[..len].iter_mut().rev() {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
    }
    len
}

/// How many decimal digits `number` has.
pub(crate) fn digit_count(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// Appends `number` in decimal.
pub(crate) fn push_i64(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
    push_u64(out, number.unsigned_abs());
}

#[cfg(test)]
mod tests {
    use super::*;

    // The borders are those of the type, and nothing but digits counts.
    #[test]
    fn unsigned_numbers_end_with_their_type() {
        assert_eq!(parse_u64(b"0"), Some(0));
        assert_eq!(parse_u64(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_u64(b"18446744073709551616"), None);
        assert_eq!(parse_u64(b"0018446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_u64(b"00018446744073709551615"), None);
        assert_eq!(parse_u32(b"4294967295"), Some(u32::MAX));
        assert_eq!(parse_u32(b"4294967296"), None);
        for bad in [&b""[..], b"-1", b"+1", b"1x", b" 1", b"1\t"] {
            assert_eq!(parse_u64(bad), None);
            assert_eq!(parse_u32(bad), None);
        }
    }

    // Signed numbers of meta flags, `touch` and `gat`.
    #[test]
    fn signed_numbers_take_a_minus_only() {
        assert_eq!(parse_i32(b"-1"), Some(-1));
        assert_eq!(parse_i32(b"-"), Some(0));
        assert_eq!(parse_i32(b"2147483647"), Some(i32::MAX));
        assert_eq!(parse_i32(b"2147483648"), None);
        assert_eq!(parse_i32(b"-2147483648"), Some(i32::MIN));
        assert_eq!(parse_i32(b"-2147483649"), None);
        for bad in [&b""[..], b"+1", b"--1", b"1-"] {
            assert_eq!(parse_i32(bad), None);
        }
    }

    // The classic store header is read by looser rules.
    #[test]
    fn classic_header_numbers_take_a_sign() {
        assert_eq!(parse_exptime(b"+5"), Some(5));
        assert_eq!(parse_exptime(b"-5"), Some(-5));
        assert_eq!(parse_exptime(b"2147483648"), Some(i32::MIN));
        assert_eq!(parse_exptime(b"4294967296"), Some(0));
        assert_eq!(parse_exptime(b"9223372036854775808"), None);
        assert_eq!(parse_client_flags(b"-0"), Some(0));
        assert_eq!(parse_client_flags(b"-1"), None);
        assert_eq!(parse_client_flags(b"4294967296"), None);
        for bad in [&b""[..], b"-", b"+", b"+-1", b"++1", b"1x"] {
            assert_eq!(parse_exptime(bad), None);
            assert_eq!(parse_client_flags(bad), None);
        }
    }

    // Written and counted as the standard library does.
    #[test]
    fn numbers_are_written_in_decimal() {
        for number in [0, 9, 10, 99, 100, 4_294_967_296, u64::MAX] {
            let mut out = Vec::new();
            push_u64(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
            assert_eq!(digit_count(number), out.len());
        }
        let mut out = Vec::new();
        push_i64(&mut out, -12);
        assert_eq!(out, b"-12");
    }
}

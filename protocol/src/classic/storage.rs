//! Headers of `set`, `add`, `replace`, `append`, `prepend` and `cas`.

use crate::error::Reject;
use crate::exptime::Exptime;
use crate::lexer::{Span, has_noreply, token};
use crate::limits::{KEY_MAX, VALUE_LEN_MAX};
use crate::number::{parse_client_flags, parse_exptime, parse_i32, parse_u64};
use crate::parsed::Parsed;
use crate::request::StoreMode;
use crate::store_header::{FormHeader, StoreHeader};
use memchr::memchr;
use nom::Parser;

/// Digits that fit 32 bits whatever they are.
const PLAIN_DIGITS_MAX: usize = 9;

/// Whether the header names a CAS unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cas {
    Yes,
    No,
}

/// `KEY FLAGS EXPTIME LENGTH [CAS] [noreply]`, which is `arguments`, the end of `line`.
///
/// The order of the checks is memcached's. While the length is unknown nothing can be swallowed and
/// `noreply` does not count; behind it every error swallows the body.
#[inline]
pub(super) fn parse<'a>(
    line: &'a [u8],
    arguments: &'a [u8],
    consumed: usize,
    mode: StoreMode,
    cas: Cas,
) -> Parsed<'a> {
    if cas == Cas::No
        && let Some(plain) = Plain::parse(arguments)
    {
        return Parsed::Store(StoreHeader {
            mode,
            key: Span::of(line, plain.key),
            flags: plain.flags,
            exptime: plain.exptime,
            compare: None,
            value_len: plain.value_len,
            header_len: consumed,
            form: FormHeader::Classic {
                noreply: plain.noreply,
            },
        });
    }
    let Ok((rest, (key, flags, exptime, value_len))) =
        (token, token, token, token).parse(arguments)
    else {
        return Parsed::reject(Reject::BadFormat);
    };
    let Some(value_len) = parse_value_len(value_len) else {
        return Parsed::reject(Reject::BadFormat);
    };
    let noreply = !rest.is_empty() && has_noreply(rest);
    let Some((flags, exptime, compare)) = numbers(key, flags, exptime, rest, cas) else {
        let reply = (!noreply).then_some(Reject::BadFormat);
        return Parsed::Reject {
            reply,
            swallow: value_len + 2,
        };
    };
    Parsed::Store(StoreHeader {
        mode,
        key: Span::of(line, key),
        flags,
        exptime,
        compare,
        value_len,
        header_len: consumed,
        form: FormHeader::Classic { noreply },
    })
}

/// A header as clients write it: single spaces, digits, and nothing behind the length but
/// `noreply`. Anything else, errors included, is left to the general parser.
struct Plain<'a> {
    key: &'a [u8],
    flags: u32,
    exptime: Exptime,
    value_len: usize,
    noreply: bool,
}

impl<'a> Plain<'a> {
    #[inline]
    fn parse(arguments: &'a [u8]) -> Option<Self> {
        let (key, rest) = token_and_space(arguments.strip_prefix(b" ")?)?;
        if key.is_empty() || key.len() > KEY_MAX {
            return None;
        }
        let (flags, rest) = plain_number(rest)?;
        let (exptime, rest) = plain_number(rest)?;
        let (value_len, rest) = plain_number(rest)?;
        let noreply = match rest {
            b"" => false,
            b"noreply" => true,
            _ => return None,
        };
        Some(Self {
            key,
            flags,
            exptime: Exptime::from_raw(i32::try_from(exptime).ok()?),
            value_len: value_len as usize,
            noreply,
        })
    }
}

/// What stands before the next space, and what behind it.
#[inline]
fn token_and_space(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = memchr(b' ', text)?;
    Some((&text[..space], &text[space + 1..]))
}

/// Up to [`PLAIN_DIGITS_MAX`] digits with one space or the end behind them.
#[inline]
fn plain_number(text: &[u8]) -> Option<(u32, &[u8])> {
    let mut number = 0;
    for (index, byte) in text.iter().enumerate() {
        match byte {
            b'0'..=b'9' if index < PLAIN_DIGITS_MAX => {
                number = number * 10 + u32::from(byte - b'0');
            }
            b' ' if index > 0 => return Some((number, &text[index + 1..])),
            _ => return None,
        }
    }
    (!text.is_empty()).then_some((number, b""))
}

/// Client flags, exptime and CAS unique; none if one of them or the key is not acceptable.
#[inline]
fn numbers(
    key: &[u8],
    flags: &[u8],
    exptime: &[u8],
    rest: &[u8],
    cas: Cas,
) -> Option<(u32, Exptime, Option<u64>)> {
    if key.len() > KEY_MAX {
        return None;
    }
    let flags = parse_client_flags(flags)?;
    let exptime = Exptime::from_raw(parse_exptime(exptime)?);
    let compare = match cas {
        Cas::No => None,
        Cas::Yes => Some(parse_u64(token(rest).ok()?.1)?),
    };
    Some((flags, exptime, compare))
}

/// A declared value length in bytes.
#[inline]
pub(crate) fn parse_value_len(token: &[u8]) -> Option<usize> {
    let len = usize::try_from(parse_i32(token)?).ok()?;
    (len <= VALUE_LEN_MAX).then_some(len)
}

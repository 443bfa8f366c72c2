//! Headers of `set`, `add`, `replace`, `append`, `prepend` and `cas`.

use crate::decoder::Parsed;
use crate::error::Reject;
use crate::exptime::Exptime;
use crate::lexer::{Span, has_noreply, token};
use crate::limits::{KEY_MAX, VALUE_LEN_MAX};
use crate::number::{parse_client_flags, parse_exptime, parse_i32, parse_u64};
use crate::request::StoreMode;
use crate::store_header::{FormHeader, StoreHeader};
use nom::Parser;

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

//! Command lines of the classic text protocol.

mod admin;
pub(crate) mod storage;

use crate::error::Reject;
use crate::exptime::Exptime;
use crate::key::Keys;
use crate::lexer::{has_noreply, keys_fit, last_token, token, trimmed};
use crate::limits::KEY_MAX;
use crate::number::{parse_i32, parse_u64};
use crate::parsed::Parsed;
use crate::request::{Admin, Arithmetic, Delete, Form, Get, Request, StoreMode, Touch};
use memchr::memchr;
use nom::Parser;
use storage::Cas;

/// Fewest bytes of a line, its end included, that are looked at.
pub(crate) const LINE_MIN: usize = 4;

/// What `line` says; `consumed` counts its end too.
pub(crate) fn parse(line: &[u8], consumed: usize) -> Parsed<'_> {
    let word_len = memchr(b' ', line).unwrap_or(line.len());
    let (word, arguments) = line.split_at(word_len);
    let storage = |mode, cas| storage::parse(line, arguments, consumed, mode, cas);
    match word {
        b"set" => storage(StoreMode::Set, Cas::No),
        b"add" => storage(StoreMode::Add, Cas::No),
        b"cas" => storage(StoreMode::Set, Cas::Yes),
        b"replace" => storage(StoreMode::Replace, Cas::No),
        b"append" => storage(StoreMode::Append, Cas::No),
        b"prepend" => storage(StoreMode::Prepend, Cas::No),
        b"get" | b"gets" | b"gat" | b"gats" => get(line),
        b"delete" => delete(line, arguments),
        b"incr" => arithmetic(line, arguments, false),
        b"decr" => arithmetic(line, arguments, true),
        b"touch" => touch(line, arguments),
        b"version" => Parsed::Request(Request::Admin(Admin::Version { form: Form::TEXT })),
        b"stats" => Parsed::Request(Request::Admin(Admin::Stats {
            arguments: trimmed(arguments),
            form: Form::TEXT,
        })),
        b"watch" => Parsed::Request(Request::Admin(Admin::Watch(trimmed(arguments)))),
        b"quit" => Parsed::Request(Request::Quit { form: Form::TEXT }),
        _ => admin::parse(line),
    }
}

/// The front of a `get`, `gets`, `gat` or `gats` line: what follows the exptime or the word, the
/// exptime, and whether the CAS unique is wanted.
///
/// # Errors
/// If the exptime is missing or no number.
pub(crate) fn parse_get_front(line: &[u8]) -> Result<(&[u8], Option<Exptime>, bool), Reject> {
    let word_len = memchr(b' ', line).unwrap_or(line.len());
    let (word, arguments) = line.split_at(word_len);
    let with_cas = word.ends_with(b"s");
    if !word.starts_with(b"gat") {
        return Ok((arguments, None, with_cas));
    }
    let (keys, exptime) = token(arguments).map_err(|_| Reject::BadFormat)?;
    if Keys::new(keys).is_empty() {
        return Err(Reject::BadFormat);
    }
    let raw = parse_i32(exptime).ok_or(Reject::InvalidExptime)?;
    Ok((keys, Some(Exptime::from_raw(raw)), with_cas))
}

/// A whole line of keys.
fn get(line: &[u8]) -> Parsed<'_> {
    match parse_get_front(line) {
        Err(reply) => Parsed::reject(reply),
        Ok((line, touch, with_cas)) => {
            let keys = Keys::new(line);
            if keys.is_empty() || !keys_fit(line) {
                return Parsed::reject(Reject::BadFormat);
            }
            Parsed::Request(Request::Get(Get {
                keys,
                touch,
                with_cas,
                last: true,
            }))
        }
    }
}

/// Refuses unless the client wants no answer.
fn reject_unless(noreply: bool, reply: Reject) -> Parsed<'static> {
    Parsed::Reject {
        reply: (!noreply).then_some(reply),
        swallow: 0,
    }
}

/// `delete KEY [0] [noreply]`: the 0 is a delay that old clients still send.
fn delete<'a>(line: &'a [u8], arguments: &'a [u8]) -> Parsed<'a> {
    let Ok((rest, key)) = token(arguments) else {
        return Parsed::reject(Reject::BadFormat);
    };
    let noreply = has_noreply(line);
    if key.len() > KEY_MAX {
        return reject_unless(noreply, Reject::BadFormat);
    }
    let behind_delay = match token(rest) {
        Ok((behind, b"0")) => behind,
        _ => rest,
    };
    if !matches!(trimmed(behind_delay), b"" | b"noreply") {
        return reject_unless(noreply, Reject::DeleteUsage);
    }
    Parsed::Request(Request::Delete(Delete {
        key,
        compare: None,
        new_cas: None,
        invalidate: false,
        touch: None,
        clear: false,
        form: Form::Classic { noreply },
    }))
}

/// `incr KEY DELTA [noreply]`, `decr` likewise.
fn arithmetic<'a>(line: &'a [u8], arguments: &'a [u8], decrement: bool) -> Parsed<'a> {
    let Ok((_, (key, delta))) = (token, token).parse(arguments) else {
        return Parsed::reject(Reject::BadFormat);
    };
    let noreply = has_noreply(line);
    if key.len() > KEY_MAX {
        return reject_unless(noreply, Reject::BadFormat);
    }
    let Some(delta) = parse_u64(delta) else {
        return reject_unless(noreply, Reject::InvalidDelta);
    };
    Parsed::Request(Request::Arithmetic(Arithmetic {
        key,
        decrement,
        delta,
        vivify: None,
        touch: None,
        compare: None,
        new_cas: None,
        form: Form::Classic { noreply },
    }))
}

/// `touch KEY EXPTIME [noreply]`.
fn touch<'a>(line: &'a [u8], arguments: &'a [u8]) -> Parsed<'a> {
    let Ok((_, (key, exptime))) = (token, token).parse(arguments) else {
        return Parsed::reject(Reject::BadFormat);
    };
    let noreply = has_noreply(line);
    if key.len() > KEY_MAX {
        return reject_unless(noreply, Reject::BadFormat);
    }
    let Some(raw) = parse_i32(exptime) else {
        return reject_unless(noreply, Reject::InvalidExptime);
    };
    let exptime = Exptime::from_raw(raw);
    Parsed::Request(Request::Touch(Touch {
        key,
        exptime,
        form: Form::Classic { noreply },
    }))
}

/// Whether the line is one that a browser was made to send: its last token names HTTP.
fn looks_like_http(line: &[u8]) -> bool {
    last_token(line).starts_with(b"HTTP/")
}

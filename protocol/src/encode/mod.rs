//! Answers to clients: functions that append one reply each to a buffer.
//!
//! The functions of this module take the [`Form`] a request came in and write what its syntax
//! answers for a logical outcome, or nothing where the client asked for no answer. Formatting
//! machinery is avoided: a reply is a few copies.

mod binary;
mod meta;
mod packet;
mod request;
mod statistics;

pub use binary::{
    binary_item_head, binary_miss, status as binary_status, success as binary_success,
};
pub use meta::{
    DebugFacts, ItemFacts, meta_debug, meta_get_line, meta_hit, meta_miss, meta_number, meta_status,
};
pub use request::encode_request;
pub use statistics::Statistics;

use crate::error::Reject;
use crate::number::{digit_count, push_u64, put_u64};
use crate::request::Form;

/// How a store ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreReply {
    /// It is stored.
    Stored,
    /// The key was there for an add, or not there for a replace, append or prepend.
    NotStored,
    /// The item has another CAS unique.
    Exists,
    /// There is no item to compare with.
    NotFound,
    /// The item is larger than the server stores.
    TooLarge,
    /// There is no memory for it.
    OutOfMemory,
}

/// What a meta store answers about the item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreFacts {
    /// The item's CAS unique; 0 if nothing was stored.
    pub cas: u64,
    /// Bytes of the item's value now or, if nothing was stored, of the value in the request.
    pub size: u32,
}

/// How a delete ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteReply {
    /// The item is gone, or marked, or emptied, as asked.
    Deleted,
    /// There was none.
    NotFound,
    /// The item has another CAS unique.
    Exists,
}

/// How counting up or down ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArithmeticReply {
    /// It counted, or created the item.
    Value {
        /// The new number.
        value: u64,
        /// The item's CAS unique.
        cas: u64,
        /// Seconds until the item expires; none if never.
        ttl: Option<u32>,
    },
    /// There was no item, and none was to be created.
    NotFound,
    /// The item has another CAS unique.
    Exists,
    /// The item could not be created.
    NotStored,
    /// The item holds no number.
    NonNumeric,
    /// There is no memory for the new number.
    OutOfMemory,
}

/// How a touch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TouchReply {
    /// The item has its new exptime.
    Touched {
        /// The client's flags.
        flags: u32,
        /// The item's CAS unique.
        cas: u64,
    },
    /// There is none.
    NotFound,
}

/// `VALUE key flags bytes[ cas]\r\n`; the value and its `\r\n` follow from the caller.
#[inline]
pub fn value_line(out: &mut Vec<u8>, key: &[u8], flags: u32, value_len: usize, cas: Option<u64>) {
    out.extend_from_slice(VALUE);
    out.extend_from_slice(key);
    match short_facts(flags, value_len).filter(|_| cas.is_none()) {
        Some((text, len)) => out.extend_from_slice(&text[..len]),
        None => push_facts(out, flags, value_len, cas),
    }
}

/// What stands before the key in a line of [`value_line`].
pub const VALUE: &[u8; 6] = b"VALUE ";

/// What stands behind the key in a line of [`value_line`] without CAS unique, ` flags bytes\r\n`, in
/// so many of the bytes. None where it is longer, which it usually is not.
#[inline]
pub fn short_facts(flags: u32, value_len: usize) -> Option<([u8; 8], usize)> {
    let digit = |number: u32| u64::from(b'0' | number as u8);
    if flags >= 10 || value_len >= 1000 {
        return None;
    }
    let value_len = value_len as u32;
    let (ones, tens, hundreds) = (
        digit(value_len % 10),
        digit(value_len / 10 % 10),
        digit(value_len / 100),
    );
    let (digits, count) = match value_len {
        0..10 => (ones, 1),
        10..100 => (ones << 8 | tens, 2),
        _ => (ones << 16 | tens << 8 | hundreds, 3),
    };
    let head = u64::from_le_bytes([b' ', 0, b' ', 0, 0, 0, 0, 0]) | digit(flags) << 8;
    let line_end = u64::from(u16::from_le_bytes(*b"\r\n"));
    let text = head | digits << 24 | line_end << (24 + 8 * count);
    Some((text.to_le_bytes(), 5 + count))
}

/// ` flags bytes[ cas]\r\n`.
fn push_facts(out: &mut Vec<u8>, flags: u32, value_len: usize, cas: Option<u64>) {
    // Laid out aside and copied at once: three spaces, numbers of at most 10, 20 and 20 digits, the
    // line end.
    let mut facts = [b' '; 3 + 10 + 20 + 20 + 2];
    let mut at = 1 + put_u64(&mut facts[1..], u64::from(flags));
    at += 1 + put_u64(&mut facts[at + 1..], value_len as u64);
    if let Some(cas) = cas {
        at += 1 + put_u64(&mut facts[at + 1..], cas);
    }
    facts[at..at + 2].copy_from_slice(b"\r\n");
    out.extend_from_slice(&facts[..at + 2]);
}

/// `END\r\n`.
#[inline]
pub fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"END\r\n");
}

/// An error.
pub fn reject(out: &mut Vec<u8>, reject: Reject) {
    out.extend_from_slice(reject.as_bytes());
}

/// An error that a classic request without an answer hides and the others never do.
pub fn reject_as(out: &mut Vec<u8>, form: &Form<'_>, reject: Reject) {
    match form {
        Form::Classic { noreply: true } => {}
        Form::Binary(form) => binary::status(out, *form, reject.into()),
        Form::Classic { .. } | Form::Meta(_) => out.extend_from_slice(reject.as_bytes()),
    }
}

/// `OK\r\n`, or an empty success, unless no answer is wanted.
pub fn ok(out: &mut Vec<u8>, form: &Form<'_>) {
    match form {
        Form::Binary(form) => binary::success(out, *form, 0, b""),
        form => line(out, form.is_noreply(), b"OK\r\n"),
    }
}

/// `MN\r\n`, the answer to `mn`, or an empty success.
pub fn noop(out: &mut Vec<u8>, form: &Form<'_>) {
    match form {
        Form::Binary(form) => binary::success(out, *form, 0, b""),
        Form::Classic { .. } | Form::Meta(_) => out.extend_from_slice(b"MN\r\n"),
    }
}

/// The answer to `quit`: only a packet has one.
pub fn quit(out: &mut Vec<u8>, form: &Form<'_>) {
    if let Form::Binary(form) = form {
        binary::success(out, *form, 0, b"");
    }
}

/// `VERSION version\r\n`, or the version as a value.
pub fn version(out: &mut Vec<u8>, form: &Form<'_>, version: &str) {
    if let Form::Binary(form) = form {
        return binary::success(out, *form, 0, version.as_bytes());
    }
    out.extend_from_slice(b"VERSION ");
    out.extend_from_slice(version.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// A number in decimal, for lines that the caller builds.
pub fn number(out: &mut Vec<u8>, number: u64) {
    push_u64(out, number);
}

/// The answer to a store.
#[inline]
pub fn store(out: &mut Vec<u8>, form: &Form<'_>, facts: StoreFacts, reply: StoreReply) {
    let (classic, status) = match reply {
        StoreReply::TooLarge => return reject_as(out, form, Reject::TooLarge),
        StoreReply::OutOfMemory => return reject_as(out, form, Reject::OutOfMemory),
        StoreReply::Stored => (&b"STORED\r\n"[..], b"HD"),
        StoreReply::NotStored => (&b"NOT_STORED\r\n"[..], b"NS"),
        StoreReply::Exists => (&b"EXISTS\r\n"[..], b"EX"),
        StoreReply::NotFound => (&b"NOT_FOUND\r\n"[..], b"NF"),
    };
    match form {
        Form::Classic { noreply } => line(out, *noreply, classic),
        Form::Meta(form) if form.quiet && reply == StoreReply::Stored => {}
        Form::Meta(form) => meta::store_status(out, form, status, facts),
        Form::Binary(form) => binary::store(out, *form, facts, reply),
    }
}

/// The answer to a delete.
pub fn delete(out: &mut Vec<u8>, form: &Form<'_>, reply: DeleteReply) {
    let (classic, status) = match reply {
        DeleteReply::Deleted => (&b"DELETED\r\n"[..], b"HD"),
        DeleteReply::NotFound => (&b"NOT_FOUND\r\n"[..], b"NF"),
        DeleteReply::Exists => (&b"EXISTS\r\n"[..], b"EX"),
    };
    match form {
        Form::Classic { noreply } => line(out, *noreply, classic),
        Form::Meta(form) if form.quiet && reply == DeleteReply::Deleted => {}
        Form::Meta(form) => meta_status(out, form, status),
        Form::Binary(form) => binary::delete(out, *form, reply),
    }
}

/// The answer to counting up or down.
pub fn arithmetic(out: &mut Vec<u8>, form: &Form<'_>, reply: ArithmeticReply) {
    let (classic, status) = match reply {
        ArithmeticReply::NonNumeric => return reject_as(out, form, Reject::NonNumeric),
        ArithmeticReply::OutOfMemory => return reject_as(out, form, Reject::OutOfMemoryNumber),
        ArithmeticReply::Value { value, cas, ttl } => {
            return match form {
                Form::Classic { noreply: true } => {}
                Form::Classic { noreply: false } => {
                    push_u64(out, value);
                    out.extend_from_slice(b"\r\n");
                }
                Form::Meta(form) if form.quiet => {}
                Form::Meta(form) => meta_number(out, form, value, cas, ttl),
                Form::Binary(form) => binary::arithmetic(out, *form, reply),
            };
        }
        ArithmeticReply::NotFound => (&b"NOT_FOUND\r\n"[..], b"NF"),
        ArithmeticReply::Exists => (&b"EXISTS\r\n"[..], b"EX"),
        ArithmeticReply::NotStored => (&b"NOT_STORED\r\n"[..], b"NS"),
    };
    match form {
        Form::Classic { noreply } => line(out, *noreply, classic),
        Form::Meta(form) => meta_status(out, form, status),
        Form::Binary(form) => binary::arithmetic(out, *form, reply),
    }
}

/// The answer to a touch.
pub fn touch(out: &mut Vec<u8>, form: &Form<'_>, reply: TouchReply) {
    let (classic, status) = match reply {
        TouchReply::Touched { .. } => (&b"TOUCHED\r\n"[..], b"HD"),
        TouchReply::NotFound => (&b"NOT_FOUND\r\n"[..], b"NF"),
    };
    match form {
        Form::Classic { noreply } => line(out, *noreply, classic),
        Form::Meta(form) => meta_status(out, form, status),
        Form::Binary(form) => binary::touch(out, *form, reply),
    }
}

/// How many bytes [`number`] appends.
pub fn number_len(number: u64) -> usize {
    digit_count(number)
}

#[inline]
fn line(out: &mut Vec<u8>, noreply: bool, text: &[u8]) {
    if !noreply {
        out.extend_from_slice(text);
    }
}

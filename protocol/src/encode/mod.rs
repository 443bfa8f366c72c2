//! Answers to clients: functions that append one reply each to a buffer.
//!
//! The functions of this module take the [`Form`] a request came in and write what its syntax
//! answers for a logical outcome, or nothing where the client asked for no answer. Formatting
//! machinery is avoided: a reply is a few copies.

mod meta;
mod request;

pub use meta::{DebugFacts, ItemFacts, meta_debug, meta_hit, meta_miss, meta_number, meta_status};
pub use request::encode_request;

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
    Touched,
    /// There is none.
    NotFound,
}

/// `VALUE key flags bytes[ cas]\r\n`; the value and its `\r\n` follow from the caller.
#[inline]
pub fn value_line(out: &mut Vec<u8>, key: &[u8], flags: u32, value_len: usize, cas: Option<u64>) {
    // What follows the key is laid out beside the answer and copied at once: three spaces, numbers
    // of at most 10, 20 and 20 digits, the line end.
    let mut facts = [b' '; 3 + 10 + 20 + 20 + 2];
    let mut at = 1 + put_u64(&mut facts[1..], u64::from(flags));
    at += 1 + put_u64(&mut facts[at + 1..], value_len as u64);
    if let Some(cas) = cas {
        at += 1 + put_u64(&mut facts[at + 1..], cas);
    }
    facts[at..at + 2].copy_from_slice(b"\r\n");
    out.extend_from_slice(b"VALUE ");
    out.extend_from_slice(key);
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

/// An error that a classic request without an answer hides and a meta request never does.
pub fn reject_as(out: &mut Vec<u8>, form: &Form<'_>, reject: Reject) {
    if !matches!(form, Form::Classic { noreply: true }) {
        out.extend_from_slice(reject.as_bytes());
    }
}

/// `OK\r\n`, unless no answer is wanted.
pub fn ok(out: &mut Vec<u8>, noreply: bool) {
    line(out, noreply, b"OK\r\n");
}

/// `MN\r\n`, the answer to `mn`.
pub fn noop(out: &mut Vec<u8>) {
    out.extend_from_slice(b"MN\r\n");
}

/// `VERSION version\r\n`.
pub fn version(out: &mut Vec<u8>, version: &str) {
    out.extend_from_slice(b"VERSION ");
    out.extend_from_slice(version.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// `STAT name value\r\n`; [`end`] follows the last.
pub fn stat(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(b"STAT ");
    out.extend_from_slice(name);
    out.push(b' ');
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// `STAT name number\r\n`.
pub fn stat_number(out: &mut Vec<u8>, name: &[u8], value: u64) {
    out.extend_from_slice(b"STAT ");
    out.extend_from_slice(name);
    out.push(b' ');
    push_u64(out, value);
    out.extend_from_slice(b"\r\n");
}

/// A number in decimal, for lines that the caller builds.
pub fn number(out: &mut Vec<u8>, number: u64) {
    push_u64(out, number);
}

/// The answer to a store.
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
            };
        }
        ArithmeticReply::NotFound => (&b"NOT_FOUND\r\n"[..], b"NF"),
        ArithmeticReply::Exists => (&b"EXISTS\r\n"[..], b"EX"),
        ArithmeticReply::NotStored => (&b"NOT_STORED\r\n"[..], b"NS"),
    };
    match form {
        Form::Classic { noreply } => line(out, *noreply, classic),
        Form::Meta(form) => meta_status(out, form, status),
    }
}

/// The answer to a touch.
pub fn touch(out: &mut Vec<u8>, form: &Form<'_>, reply: TouchReply) {
    let (classic, status) = match reply {
        TouchReply::Touched => (&b"TOUCHED\r\n"[..], b"HD"),
        TouchReply::NotFound => (&b"NOT_FOUND\r\n"[..], b"NF"),
    };
    match form {
        Form::Classic { noreply } => line(out, *noreply, classic),
        Form::Meta(form) => meta_status(out, form, status),
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

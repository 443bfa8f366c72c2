//! Answers of the binary protocol.

use super::{ArithmeticReply, DeleteReply, StoreFacts, StoreReply, TouchReply};
use crate::binary::{HEADER_LEN, Header, Opcode, RESPONSE_MAGIC, Status, extras};
use crate::request::BinaryForm;

/// Bytes in front of the key of an answer with an item: the header and the client flags.
const ITEM_HEAD_LEN: usize = HEADER_LEN + extras::NUMBER;

/// The answer with an item up to its value, which follows from the caller.
#[inline]
pub fn binary_item_head(
    out: &mut Vec<u8>,
    form: BinaryForm,
    key: &[u8],
    flags: u32,
    cas: u64,
    value_len: usize,
) {
    let key = if form.opcode.returns_key() { key } else { b"" };
    let header = Header {
        key_len: key.len() as u16,
        extras_len: extras::NUMBER as u8,
        body_len: (extras::NUMBER + key.len() + value_len) as u32,
        cas,
        ..answer(form, Status::SUCCESS)
    };
    let mut head = [0; ITEM_HEAD_LEN];
    head[..HEADER_LEN].copy_from_slice(&header.bytes());
    head[HEADER_LEN..].copy_from_slice(&flags.to_be_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(key);
}

/// The answer to a `get` or `gat` without an item; hidden by a quiet form. Forms that return the key
/// answer it in place of the error's text.
pub fn binary_miss(out: &mut Vec<u8>, form: BinaryForm, key: &[u8]) {
    if form.opcode.is_quiet() {
        return;
    }
    if !form.opcode.returns_key() {
        return status(out, form, Status::NOT_FOUND);
    }
    let header = Header {
        key_len: key.len() as u16,
        body_len: key.len() as u32,
        ..answer(form, Status::NOT_FOUND)
    };
    out.extend_from_slice(&header.bytes());
    out.extend_from_slice(key);
}

/// An answer that is a status and its text. Quiet forms do not hide it.
pub fn status(out: &mut Vec<u8>, form: BinaryForm, status: Status) {
    packet(out, answer(form, status), status.text.as_bytes());
}

/// A success with a value and no key; hidden by a quiet form.
pub fn success(out: &mut Vec<u8>, form: BinaryForm, cas: u64, value: &[u8]) {
    if !form.opcode.is_quiet() {
        let header = Header {
            cas,
            ..answer(form, Status::SUCCESS)
        };
        packet(out, header, value);
    }
}

/// A statistic; the one without a name ends them.
pub(super) fn statistic(out: &mut Vec<u8>, form: BinaryForm, name: &[u8], value: &[u8]) {
    let header = Header {
        key_len: name.len() as u16,
        body_len: (name.len() + value.len()) as u32,
        ..answer(form, Status::SUCCESS)
    };
    out.extend_from_slice(&header.bytes());
    out.extend_from_slice(name);
    out.extend_from_slice(value);
}

#[inline]
pub(super) fn store(out: &mut Vec<u8>, form: BinaryForm, facts: StoreFacts, reply: StoreReply) {
    let refused = match reply {
        StoreReply::Stored => return success(out, form, facts.cas, b""),
        StoreReply::TooLarge => Status::TOO_LARGE,
        StoreReply::OutOfMemory => Status::OUT_OF_MEMORY,
        StoreReply::Exists => Status::EXISTS,
        StoreReply::NotFound => Status::NOT_FOUND,
        StoreReply::NotStored => match form.opcode {
            Opcode::ADD | Opcode::ADDQ => Status::EXISTS,
            Opcode::REPLACE | Opcode::REPLACEQ => Status::NOT_FOUND,
            _ => Status::NOT_STORED,
        },
    };
    status(out, form, refused);
}

pub(super) fn delete(out: &mut Vec<u8>, form: BinaryForm, reply: DeleteReply) {
    match reply {
        DeleteReply::Deleted => success(out, form, 0, b""),
        DeleteReply::NotFound => status(out, form, Status::NOT_FOUND),
        DeleteReply::Exists => status(out, form, Status::EXISTS),
    }
}

pub(super) fn arithmetic(out: &mut Vec<u8>, form: BinaryForm, reply: ArithmeticReply) {
    let refused = match reply {
        ArithmeticReply::Value { value, cas, .. } => {
            return success(out, form, cas, &value.to_be_bytes());
        }
        ArithmeticReply::NotFound => Status::NOT_FOUND,
        ArithmeticReply::Exists => Status::EXISTS,
        ArithmeticReply::NotStored => Status::NOT_STORED,
        ArithmeticReply::NonNumeric => Status::NON_NUMERIC,
        ArithmeticReply::OutOfMemory => Status::OUT_OF_MEMORY_NUMBER,
    };
    status(out, form, refused);
}

/// A touched item answers its flags, as a `gat` without key and value would.
pub(super) fn touch(out: &mut Vec<u8>, form: BinaryForm, reply: TouchReply) {
    match reply {
        TouchReply::Touched { flags, cas } => {
            binary_item_head(out, form, b"", flags, cas, 0);
        }
        TouchReply::NotFound => status(out, form, Status::NOT_FOUND),
    }
}

/// The header of an answer without a body.
#[inline]
fn answer(form: BinaryForm, status: Status) -> Header {
    Header {
        magic: RESPONSE_MAGIC,
        opcode: form.opcode,
        key_len: 0,
        extras_len: 0,
        status: status.code,
        body_len: 0,
        opaque: form.opaque,
        cas: 0,
    }
}

/// A packet whose body is a value alone.
#[inline]
fn packet(out: &mut Vec<u8>, header: Header, value: &[u8]) {
    let header = Header {
        body_len: value.len() as u32,
        ..header
    };
    out.extend_from_slice(&header.bytes());
    out.extend_from_slice(value);
}

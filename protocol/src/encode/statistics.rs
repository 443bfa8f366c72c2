//! The answer to `stats`: rows of a name and a value, and an end.

use super::binary;
use crate::binary::Status;
use crate::error::Reject;
use crate::number::push_u64;
use crate::request::{BinaryForm, Form};

/// Appends the rows of a `stats` answer in the syntax of its request: `STAT name value` lines and
/// `END`, or a packet each and an empty one.
#[derive(Debug)]
pub struct Statistics<'o> {
    out: &'o mut Vec<u8>,
    packet: Option<BinaryForm>,
}

impl<'o> Statistics<'o> {
    /// Rows in the syntax of `form`, behind what `out` holds.
    pub fn new(out: &'o mut Vec<u8>, form: &Form<'_>) -> Self {
        let packet = match form {
            Form::Binary(form) => Some(*form),
            Form::Classic { .. } | Form::Meta(_) => None,
        };
        Self { out, packet }
    }

    /// A row.
    pub fn row(&mut self, name: &[u8], value: &[u8]) {
        if let Some(form) = self.packet {
            return binary::statistic(self.out, form, name, value);
        }
        self.name(name);
        self.out.extend_from_slice(value);
        self.out.extend_from_slice(b"\r\n");
    }

    /// A row with a number.
    pub fn number(&mut self, name: &[u8], value: u64) {
        if self.packet.is_some() {
            let mut digits = Vec::new();
            push_u64(&mut digits, value);
            return self.row(name, &digits);
        }
        self.name(name);
        push_u64(self.out, value);
        self.out.extend_from_slice(b"\r\n");
    }

    /// The end of the rows.
    pub fn end(self) {
        match self.packet {
            Some(form) => binary::statistic(self.out, form, b"", b""),
            None => super::end(self.out),
        }
    }

    /// Answers `text`, a whole line, where the binary protocol has only the end of no rows.
    pub fn end_or_line(self, text: &[u8]) {
        match self.packet {
            Some(_) => self.end(),
            None => self.out.extend_from_slice(text),
        }
    }

    /// Refuses with `text`, a whole line; the binary protocol says only that there is no such thing.
    pub fn refuse(self, text: &[u8]) {
        match self.packet {
            Some(form) => binary::status(self.out, form, Status::NOT_FOUND),
            None => self.out.extend_from_slice(text),
        }
    }

    /// Refuses with an error.
    pub fn reject(self, reject: Reject) {
        self.refuse(reject.as_bytes());
    }

    /// What is written by `lines`, which ends with `END`: as it is, or as the value of the row `name`.
    pub fn text(mut self, name: &[u8], lines: impl FnOnce(&mut Vec<u8>)) {
        if self.packet.is_none() {
            return lines(self.out);
        }
        let mut text = Vec::new();
        lines(&mut text);
        self.row(name, &text);
        self.end();
    }

    fn name(&mut self, name: &[u8]) {
        self.out.extend_from_slice(b"STAT ");
        self.out.extend_from_slice(name);
        self.out.push(b' ');
    }
}

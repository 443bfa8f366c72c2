//! A pool's reply to a meta command as the answer to the client who asked it.

use tiercache_protocol::binary::Status;
use tiercache_protocol::reply::{ErrorKind, MetaReply, MetaStatus};
use tiercache_protocol::request::{Form, MetaForm, Returns};
use tiercache_protocol::{Reject, encode};

/// What is kept of a client's meta request until its answer comes.
pub(super) struct Asked {
    returns: Returns,
    opaque: Option<Box<[u8]>>,
    key_base64: bool,
    pub(super) quiet: bool,
}

impl Asked {
    pub(super) fn new(form: &MetaForm<'_>) -> Asked {
        Asked {
            returns: form.returns,
            opaque: form.opaque.map(Box::from),
            key_base64: form.key_base64,
            quiet: form.quiet,
        }
    }

    /// Answers a read without an item, where the pool has not done so itself.
    pub(super) fn miss(&self, out: &mut Vec<u8>, key: &[u8]) {
        let form = MetaForm {
            key,
            key_base64: self.key_base64,
            quiet: self.quiet,
            opaque: self.opaque.as_deref(),
            returns: self.returns,
        };
        encode::meta_miss(out, &form);
    }

    /// Writes the reply with the flags that the client asked for: his opaque token instead of ours,
    /// and without what was only asked for our sake.
    pub(super) fn relay(&self, out: &mut Vec<u8>, reply: &MetaReply<'_>) {
        out.extend_from_slice(status(reply.status));
        if let Some(value) = reply.value {
            out.push(b' ');
            encode::number(out, value.len() as u64);
        }
        let asked = |letter| self.returns.contains(letter);
        for (letter, token) in reply.flags {
            let token = match (letter, &self.opaque) {
                (b'O', Some(opaque)) => opaque,
                (b'O', None) => continue,
                // `b` stands behind a key in base64.
                (b'b', _) if asked(b'k') => token,
                (b'b', _) => continue,
                (b'a'..=b'z', _) if !asked(letter) => continue,
                _ => token,
            };
            out.extend_from_slice(&[b' ', letter]);
            out.extend_from_slice(token);
        }
        out.extend_from_slice(b"\r\n");
        if let Some(value) = reply.value {
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
    }
}

fn status(status: MetaStatus) -> &'static [u8] {
    match status {
        MetaStatus::Value => b"VA",
        MetaStatus::Done => b"HD",
        MetaStatus::Miss => b"EN",
        MetaStatus::NotStored => b"NS",
        MetaStatus::Exists => b"EX",
        MetaStatus::NotFound => b"NF",
        MetaStatus::Noop => b"MN",
    }
}

/// Writes an error of the pool's in the form of the client's request: a packet says what it has a
/// status for, and else that it cannot be done now.
pub(super) fn error_as(out: &mut Vec<u8>, client: &Form<'_>, kind: ErrorKind, message: &[u8]) {
    match client {
        Form::Classic { noreply: true } => {}
        Form::Classic { .. } | Form::Meta(_) => error(out, kind, message),
        Form::Binary(form) => {
            let mut line = Vec::new();
            error(&mut line, kind, message);
            let known = Reject::ALL.iter().find(|reject| reject.as_bytes() == line);
            let status = known.map_or(Status::TEMPORARY, |reject| Status::from(*reject));
            encode::binary_status(out, *form, status);
        }
    }
}

/// Writes an error of the pool's.
pub(super) fn error(out: &mut Vec<u8>, kind: ErrorKind, message: &[u8]) {
    out.extend_from_slice(match kind {
        ErrorKind::Unknown => b"ERROR".as_slice(),
        ErrorKind::Client => b"CLIENT_ERROR",
        ErrorKind::Server => b"SERVER_ERROR",
    });
    if !message.is_empty() {
        out.push(b' ');
        out.extend_from_slice(message);
    }
    out.extend_from_slice(b"\r\n");
}

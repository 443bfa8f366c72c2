//! Command lines of the meta protocol.
//!
//! A line is first read into places and numbers ([`parse`]), which may decode the key into the
//! decoder's memory, and then made a request that borrows from both ([`build`]).

mod flags;

use crate::base64;
use crate::classic;
use crate::error::Reject;
use crate::lexer::{Span, token};
use crate::limits::KEY_MAX;
use crate::parsed::Parsed;
use crate::request::{Arithmetic, Delete, Form, Inspect, MetaForm, Request, Retrieve, StoreMode};
use crate::store_header::{FormHeader, KeyScratch, MetaStoreHeader, StoreHeader};
use flags::Flags;

/// What may follow the `m` of a meta command.
pub(crate) const LETTERS: &[u8; 6] = b"gsdane";

/// A refused line, with the length of the body behind it.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reply: Reject,
    pub(crate) swallow: usize,
}

impl From<Reject> for Refusal {
    fn from(reply: Reject) -> Self {
        Self { reply, swallow: 0 }
    }
}

/// A meta line by places and numbers.
#[derive(Debug)]
pub(crate) enum MetaLine {
    Noop,
    Inspect {
        key: Span,
        key_base64: bool,
    },
    Item {
        command: Command,
        key: Span,
        flags: Flags,
    },
}

/// The commands on one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Get,
    Set { mode: StoreMode, value_len: usize },
    Delete,
    Arithmetic { decrement: bool },
}

/// Reads a line that begins with `m` and one of [`LETTERS`].
pub(crate) fn parse(line: &[u8], scratch: &mut KeyScratch) -> Result<MetaLine, Refusal> {
    let arguments = line.get(2..).unwrap_or_default();
    match line.get(1) {
        Some(b'n') => Ok(MetaLine::Noop),
        Some(b'g') => item(line, arguments, scratch, Command::Get),
        Some(b's') => store(line, arguments, scratch),
        Some(b'd') => item(line, arguments, scratch, Command::Delete),
        Some(b'a') => arithmetic(line, arguments, scratch),
        Some(b'e') => Ok(inspect(line, arguments, scratch)?),
        _ => Err(Reject::Unknown.into()),
    }
}

/// `mg KEY FLAGS…`, `md` likewise.
fn item(
    line: &[u8],
    arguments: &[u8],
    scratch: &mut KeyScratch,
    command: Command,
) -> Result<MetaLine, Refusal> {
    let (rest, key) = token(arguments).map_err(|_| Reject::BadFormat)?;
    flags::check_starts(rest, flags::FIRST_AFTER_KEY)?;
    let flags = key_and_flags(line, key, rest, flags::FIRST_AFTER_KEY, scratch)?;
    flags.check_opaque()?;
    Ok(MetaLine::Item {
        command,
        key: Span::of(line, key),
        flags,
    })
}

/// `ms KEY LENGTH FLAGS…`.
fn store(line: &[u8], arguments: &[u8], scratch: &mut KeyScratch) -> Result<MetaLine, Refusal> {
    let (rest, key) = token(arguments).map_err(|_| Reject::BadFormat)?;
    let (rest, value_len) = token(rest).map_err(|_| Reject::BadFormat)?;
    flags::check_starts(rest, flags::FIRST_AFTER_LENGTH)?;
    let value_len = classic::storage::parse_value_len(value_len).ok_or(Reject::BadFormat)?;
    // From here on the length is known, so that every error can swallow the body.
    let swallow = value_len + 2;
    let refuse = |reply| Refusal { reply, swallow };
    let flags =
        key_and_flags(line, key, rest, flags::FIRST_AFTER_LENGTH, scratch).map_err(refuse)?;
    let mode = match flags.mode {
        None | Some(b'S') => StoreMode::Set,
        Some(b'E') => StoreMode::Add,
        Some(b'A') => StoreMode::Append,
        Some(b'P') => StoreMode::Prepend,
        Some(b'R') => StoreMode::Replace,
        Some(_) => return Err(refuse(Reject::InvalidStoreMode)),
    };
    flags.check_opaque().map_err(refuse)?;
    let command = Command::Set { mode, value_len };
    Ok(MetaLine::Item {
        command,
        key: Span::of(line, key),
        flags,
    })
}

/// `ma KEY FLAGS…`.
fn arithmetic(
    line: &[u8],
    arguments: &[u8],
    scratch: &mut KeyScratch,
) -> Result<MetaLine, Refusal> {
    let (rest, key) = token(arguments).map_err(|_| Reject::BadFormat)?;
    flags::check_starts(rest, flags::FIRST_AFTER_KEY)?;
    let flags = key_and_flags(line, key, rest, flags::FIRST_AFTER_KEY, scratch)
        .map_err(|_| Reject::InvalidOrDuplicateFlag)?;
    let decrement = match flags.mode {
        None | Some(b'I' | b'+') => false,
        Some(b'D' | b'-') => true,
        Some(_) => return Err(Reject::InvalidArithmeticMode.into()),
    };
    flags.check_opaque()?;
    let command = Command::Arithmetic { decrement };
    Ok(MetaLine::Item {
        command,
        key: Span::of(line, key),
        flags,
    })
}

/// `me KEY [b]`.
fn inspect(line: &[u8], arguments: &[u8], scratch: &mut KeyScratch) -> Result<MetaLine, Reject> {
    let (rest, key) = token(arguments).map_err(|_| Reject::BadFormat)?;
    flags::check_starts(rest, flags::FIRST_AFTER_KEY)?;
    if key.len() > KEY_MAX {
        return Err(Reject::BadFormat);
    }
    let key_base64 = matches!(token(rest), Ok((_, b"b")));
    if key_base64 {
        scratch.len = base64::decode(key, &mut scratch.bytes).ok_or(Reject::BadFormat)?;
    }
    Ok(MetaLine::Inspect {
        key: Span::of(line, key),
        key_base64,
    })
}

/// Checks the key, reads the flags and decodes the key if they say so. `first` is how many tokens
/// stand before the flags.
fn key_and_flags(
    line: &[u8],
    key: &[u8],
    rest: &[u8],
    first: usize,
    scratch: &mut KeyScratch,
) -> Result<Flags, Reject> {
    if key.len() > KEY_MAX {
        return Err(Reject::BadFormat);
    }
    let mut decode_key = || match base64::decode(key, &mut scratch.bytes) {
        Some(len) => {
            scratch.len = len;
            Ok(())
        }
        None => Err(Reject::BadBase64),
    };
    Flags::parse(line, rest, first, &mut decode_key)
}

/// The request that `header` describes, on the bytes of its line.
pub(crate) fn build<'a>(
    header: MetaLine,
    line: &'a [u8],
    consumed: usize,
    scratch: &'a KeyScratch,
) -> Parsed<'a> {
    let key_of = |key: Span, base64| if base64 { scratch.key() } else { key.get(line) };
    let (command, key_span, flags) = match header {
        MetaLine::Noop => return Parsed::Request(Request::Noop { form: Form::TEXT }),
        MetaLine::Inspect { key, key_base64 } => {
            let key = key_of(key, key_base64);
            return Parsed::Request(Request::Inspect(Inspect { key, key_base64 }));
        }
        MetaLine::Item {
            command,
            key,
            flags,
        } => (command, key, flags),
    };
    let key = key_of(key_span, flags.key_base64);
    // The place of an exptime flag means something only where `t` or `R` are answered by it.
    let returns = match command {
        Command::Get => flags.returns,
        Command::Arithmetic { .. } => flags.returns.without(b"R"),
        Command::Set { .. } | Command::Delete => flags.returns.without(b"NRT"),
    };
    let form = MetaForm {
        key,
        key_base64: flags.key_base64,
        quiet: flags.quiet,
        opaque: flags.opaque.map(|span| span.get(line)),
        returns,
    };
    Parsed::Request(match command {
        Command::Get => Request::Retrieve(Retrieve {
            key,
            value: flags.value,
            known_cas: flags.compare,
            new_cas: flags.new_cas,
            vivify: flags.vivify,
            recache: flags.recache,
            touch: flags.touch,
            no_bump: flags.no_bump,
            form,
        }),
        Command::Delete => Request::Delete(Delete {
            key,
            compare: flags.compare,
            new_cas: flags.new_cas,
            invalidate: flags.invalidate,
            touch: flags.touch,
            clear: flags.clear,
            form: Form::Meta(form),
        }),
        Command::Arithmetic { decrement } => Request::Arithmetic(Arithmetic {
            key,
            decrement,
            delta: flags.delta,
            vivify: flags.vivify.map(|exptime| (flags.initial, exptime)),
            touch: flags.touch,
            compare: flags.compare,
            new_cas: flags.new_cas,
            form: Form::Meta(form),
        }),
        Command::Set { mode, value_len } => {
            let concatenates = matches!(mode, StoreMode::Append | StoreMode::Prepend);
            return Parsed::Store(StoreHeader {
                mode,
                key: key_span,
                flags: flags.client_flags,
                exptime: flags.touch.unwrap_or_default(),
                compare: flags.compare,
                value_len,
                header_len: consumed,
                form: FormHeader::Meta(MetaStoreHeader {
                    key_base64: flags.key_base64,
                    quiet: flags.quiet,
                    invalidate: flags.invalidate,
                    new_cas: flags.new_cas,
                    vivify: flags.vivify.filter(|_| concatenates),
                    opaque: flags.opaque,
                    returns,
                }),
            });
        }
    })
}

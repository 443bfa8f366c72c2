//! Grammar of reply lines.

use super::{ErrorKind, MetaStatus, Reply};
use crate::lexer::{Lexed, Span, token, trimmed};
use crate::limits::{KEY_MAX, VALUE_LEN_MAX};
use crate::number::{parse_u32, parse_u64};
use nom::branch::alt;
use nom::bytes::complete::{tag, take, take_while};
use nom::combinator::{all_consuming, map, map_opt, opt, rest, value, verify};
use nom::sequence::{preceded, terminated};
use nom::{AsChar, Parser};

/// A reply line: a reply of its own, or the header of a value.
#[derive(Debug)]
pub(super) enum Line<'a> {
    Reply(Reply<'a>),
    Value { header: ValueHeader, len: usize },
}

/// What was said about a value that follows, by places in the line.
#[derive(Debug, Clone, Copy)]
pub(super) enum ValueHeader {
    Classic {
        key: Span,
        flags: u32,
        cas: Option<u64>,
    },
    Meta {
        flags: Span,
    },
}

/// Parses a line without its end; none if it is no reply.
pub(super) fn parse(line: &[u8]) -> Option<Line<'_>> {
    // Almost all of what an upstream server sends begins so.
    if let [_, _] | [_, _, b' ', ..] = line {
        let parsed = match line[..2] {
            [b'V', b'A'] => meta_value_header(line, line),
            _ => map(status, Line::Reply).parse(line),
        };
        if let Ok((_, line)) = parsed {
            return Some(line);
        }
    }
    let reply = map(
        alt((word_reply, error, number, stat, version, debug, status)),
        Line::Reply,
    );
    let values = alt((
        |text| value_header(line, text),
        |text| meta_value_header(line, text),
    ));
    alt((values, reply)).parse(line).ok().map(|(_, line)| line)
}

/// `VALUE key flags bytes[ cas]`.
fn value_header<'a>(line: &'a [u8], text: &'a [u8]) -> Lexed<'a, Line<'a>> {
    let key = verify(token, |key: &[u8]| key.len() <= KEY_MAX);
    let fields = (
        key,
        map_opt(token, parse_u32),
        value_len,
        opt(map_opt(token, parse_u64)),
    );
    map(
        to_end(preceded(tag("VALUE "), fields)),
        |(key, flags, len, cas)| Line::Value {
            header: ValueHeader::Classic {
                key: Span::of(line, key),
                flags,
                cas,
            },
            len,
        },
    )
    .parse(text)
}

/// `VA size flags…`.
fn meta_value_header<'a>(line: &'a [u8], text: &'a [u8]) -> Lexed<'a, Line<'a>> {
    map((preceded(tag("VA "), value_len), rest), |(len, flags)| {
        Line::Value {
            header: ValueHeader::Meta {
                flags: Span::of(line, flags),
            },
            len,
        }
    })
    .parse(text)
}

fn value_len(text: &[u8]) -> Lexed<'_, usize> {
    map_opt(token, |digits| {
        let len = usize::try_from(parse_u64(digits)?).ok()?;
        (len <= VALUE_LEN_MAX).then_some(len)
    })
    .parse(text)
}

/// The replies of one word.
fn word_reply(text: &[u8]) -> Lexed<'_, Reply<'_>> {
    to_end(alt((
        value(Reply::End, tag("END")),
        value(Reply::Stored, tag("STORED")),
        value(Reply::NotStored, tag("NOT_STORED")),
        value(Reply::Exists, tag("EXISTS")),
        value(Reply::NotFound, tag("NOT_FOUND")),
        value(Reply::Deleted, tag("DELETED")),
        value(Reply::Touched, tag("TOUCHED")),
        value(Reply::Ok, tag("OK")),
        value(Reply::Reset, tag("RESET")),
    )))
    .parse(text)
}

/// `ERROR`, `CLIENT_ERROR`, `SERVER_ERROR`, each with or without a message. memcached puts a colon
/// behind the word at times.
fn error(text: &[u8]) -> Lexed<'_, Reply<'_>> {
    let kind = alt((
        value(ErrorKind::Client, tag("CLIENT_ERROR")),
        value(ErrorKind::Server, tag("SERVER_ERROR")),
        value(ErrorKind::Unknown, tag("ERROR")),
    ));
    let message = verify(rest, |text: &[u8]| matches!(text, [] | [b' ' | b':', ..]));
    map((kind, message), |(kind, message): (_, &[u8])| {
        Reply::Error {
            kind,
            message: trimmed(message.strip_prefix(b":").unwrap_or(message)),
        }
    })
    .parse(text)
}

fn number(text: &[u8]) -> Lexed<'_, Reply<'_>> {
    let digits = verify(token, |digits: &[u8]| digits[0].is_dec_digit());
    map(to_end(map_opt(digits, parse_u64)), Reply::Number).parse(text)
}

/// `STAT name value`; the value may be empty or hold spaces.
fn stat(text: &[u8]) -> Lexed<'_, Reply<'_>> {
    map(preceded(tag("STAT "), (token, rest)), |(name, value)| {
        Reply::Stat {
            name,
            value: trimmed(value),
        }
    })
    .parse(text)
}

fn version(text: &[u8]) -> Lexed<'_, Reply<'_>> {
    map(preceded(tag("VERSION "), rest), Reply::Version).parse(text)
}

fn debug(text: &[u8]) -> Lexed<'_, Reply<'_>> {
    map(preceded(tag("ME "), (token, rest)), |(key, facts)| {
        Reply::Debug {
            key,
            facts: trimmed(facts),
        }
    })
    .parse(text)
}

/// A meta reply without a value.
fn status(text: &[u8]) -> Lexed<'_, Reply<'_>> {
    let status = map_opt(take(2usize), |word: &[u8]| match word {
        b"HD" => Some(MetaStatus::Done),
        b"EN" => Some(MetaStatus::Miss),
        b"NS" => Some(MetaStatus::NotStored),
        b"EX" => Some(MetaStatus::Exists),
        b"NF" => Some(MetaStatus::NotFound),
        b"MN" => Some(MetaStatus::Noop),
        _ => None,
    });
    let flags = verify(rest, |text: &[u8]| matches!(text, [] | [b' ', ..]));
    map((status, flags), |(status, flags)| {
        let flags = super::MetaFlags { rest: flags };
        Reply::Meta(super::MetaReply {
            status,
            value: None,
            flags,
        })
    })
    .parse(text)
}

/// What `parser` reads, if nothing but spaces follows.
fn to_end<'a, T>(
    parser: impl Parser<&'a [u8], Output = T, Error = ()>,
) -> impl Parser<&'a [u8], Output = T, Error = ()> {
    all_consuming(terminated(parser, take_while(|byte| byte == b' ')))
}

//! Bytes of an upstream connection in, replies out, however the bytes are split.
//!
//! Nothing is allocated and no length is believed before it was compared with the bound. What is
//! not understood is never skipped: behind it, no reply could be matched to its request.

use super::line::{self, Line, ValueHeader};
use super::{MetaFlags, MetaReply, MetaStatus, Reply};
use crate::limits::REPLY_LINE_MAX;
use memchr::memchr;

const VALUE_END: &[u8] = b"\r\n";

/// The decoder of one upstream connection.
#[derive(Debug, Clone)]
pub struct ReplyDecoder {
    value_max: usize,
    /// How many bytes of the unconsumed input were already searched for a line end.
    searched: usize,
    /// The header of a value that is still to come, its length with the line end, and the value's.
    value: Option<(ValueHeader, usize, usize)>,
}

/// What [`ReplyDecoder::decode`] found at the front of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecodedReply<'a> {
    /// A whole line, with its value.
    Reply {
        /// The reply; it borrows from the input.
        reply: Reply<'a>,
        /// How many bytes of the input it took.
        consumed: usize,
    },
    /// The input ends within a reply.
    More {
        /// How many bytes the whole reply has, where that is known.
        total: Option<usize>,
    },
    /// No reply: the connection has to be closed, and all requests on it failed.
    Invalid {
        /// Why, for the log.
        reason: InvalidReply,
    },
}

/// Why bytes are no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InvalidReply {
    /// The line is longer than [`REPLY_LINE_MAX`].
    LineTooLong,
    /// The line is none that a server sends.
    UnknownLine,
    /// The declared value is longer than the decoder was told to take.
    ValueTooLarge,
    /// The value is not followed by its line end.
    BadValueEnd,
    /// What should be a packet does not begin like one.
    BadMagic,
    /// A packet's lengths contradict each other.
    MalformedPacket,
}

impl std::fmt::Display for InvalidReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::LineTooLong => "reply line too long",
            Self::UnknownLine => "unknown reply line",
            Self::ValueTooLarge => "value of a reply too large",
            Self::BadValueEnd => "value of a reply without line end",
            Self::BadMagic => "no packet of the binary protocol",
            Self::MalformedPacket => "malformed packet",
        })
    }
}

impl std::error::Error for InvalidReply {}

impl ReplyDecoder {
    /// A decoder for a new connection that takes values of at most `value_max` bytes.
    pub const fn new(value_max: usize) -> Self {
        Self {
            value_max,
            searched: 0,
            value: None,
        }
    }

    /// Looks at `buf`, all bytes that were received and not consumed yet, and says what stands at
    /// its front. The caller drops what was consumed and calls again until it needs
    /// [`More`](DecodedReply::More).
    pub fn decode<'a>(&mut self, buf: &'a [u8]) -> DecodedReply<'a> {
        if self.value.is_none() {
            match self.line(buf) {
                Ok(None) => {}
                Ok(Some(whole)) => return whole,
                Err(reason) => return DecodedReply::Invalid { reason },
            }
        }
        self.value(buf)
    }

    /// The meta reply that [`decode`](Self::decode) has just found to be
    /// [too large](InvalidReply::ValueTooLarge), without its value, and how many bytes it has with it:
    /// more than have arrived. Whoever drops that many can go on behind them. None if the line is
    /// another one.
    pub fn oversized<'a>(&mut self, buf: &'a [u8]) -> Option<(Reply<'a>, usize)> {
        let window = &buf[..buf.len().min(REPLY_LINE_MAX + 1)];
        let end = memchr(b'\n', window)?;
        let text = &window[..end];
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let Line::Value {
            header: ValueHeader::Meta { flags },
            len,
        } = line::parse(text)?
        else {
            return None;
        };
        self.searched = 0;
        let reply = Reply::Meta(MetaReply {
            status: MetaStatus::Value,
            value: None,
            flags: MetaFlags {
                rest: flags.get(buf),
            },
        });
        Some((reply, end + 1 + len + VALUE_END.len()))
    }

    /// Reads the line at the front; none if it is the header of a value.
    fn line<'a>(&mut self, buf: &'a [u8]) -> Result<Option<DecodedReply<'a>>, InvalidReply> {
        let window = &buf[..buf.len().min(REPLY_LINE_MAX + 1)];
        let new = window.get(self.searched..).unwrap_or_default();
        let Some(end) = memchr(b'\n', new).map(|more| self.searched + more) else {
            if window.len() > REPLY_LINE_MAX {
                return Err(InvalidReply::LineTooLong);
            }
            self.searched = window.len();
            return Ok(Some(DecodedReply::More { total: None }));
        };
        let text = &window[..end];
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        match line::parse(text).ok_or(InvalidReply::UnknownLine)? {
            Line::Reply(reply) => {
                self.searched = 0;
                Ok(Some(DecodedReply::Reply {
                    reply,
                    consumed: end + 1,
                }))
            }
            Line::Value { len, .. } if len > self.value_max => Err(InvalidReply::ValueTooLarge),
            Line::Value { header, len } => {
                self.searched = 0;
                self.value = Some((header, end + 1, len));
                Ok(None)
            }
        }
    }

    /// Reads the value whose header stands at the front.
    fn value<'a>(&mut self, buf: &'a [u8]) -> DecodedReply<'a> {
        let Some((header, header_len, len)) = self.value else {
            return DecodedReply::More { total: None };
        };
        let total = header_len + len + VALUE_END.len();
        let Some(body) = buf.get(header_len..total) else {
            return DecodedReply::More { total: Some(total) };
        };
        let Some(value) = body.strip_suffix(VALUE_END) else {
            return DecodedReply::Invalid {
                reason: InvalidReply::BadValueEnd,
            };
        };
        self.value = None;
        let reply = match header {
            ValueHeader::Classic { key, flags, cas } => Reply::Value {
                key: key.get(buf),
                flags,
                cas,
                value,
            },
            ValueHeader::Meta { flags } => Reply::Meta(MetaReply {
                status: MetaStatus::Value,
                value: Some(value),
                flags: MetaFlags {
                    rest: flags.get(buf),
                },
            }),
        };
        DecodedReply::Reply {
            reply,
            consumed: total,
        }
    }
}

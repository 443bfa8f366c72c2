//! Packets of an upstream server that speaks the binary protocol.

use super::{DecodedReply, InvalidReply, Reply};
use crate::binary::{HEADER_LEN, Header, Opcode, RESPONSE_MAGIC, extras, u32_at, u64_at};
use crate::limits::KEY_MAX;

/// The answer to a binary request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketReply<'a> {
    /// The request's opcode.
    pub opcode: Opcode,
    /// The request's opaque number.
    pub opaque: u32,
    /// How it ended, a [`Status::code`](crate::binary::Status::code).
    pub status: u16,
    /// The item's CAS unique, or 0.
    pub cas: u64,
    /// The client flags, in an answer with an item.
    pub flags: Option<u32>,
    /// The key, where the request asked for it; the name of a statistic.
    pub key: &'a [u8],
    /// The value, or the text of an error.
    pub value: &'a [u8],
}

impl PacketReply<'_> {
    /// The number that an `incr` or `decr` came to.
    pub fn number(&self) -> Option<u64> {
        (self.value.len() == 8).then(|| u64_at(self.value, 0))
    }
}

/// The decoder of an upstream connection that speaks the binary protocol. It remembers nothing.
#[derive(Debug, Clone, Copy)]
pub struct PacketDecoder {
    value_max: usize,
}

impl PacketDecoder {
    /// A decoder that takes values of at most `value_max` bytes.
    pub const fn new(value_max: usize) -> Self {
        Self { value_max }
    }

    /// Looks at `buf`, all bytes that were received and not consumed yet, as
    /// [`ReplyDecoder::decode`](super::ReplyDecoder::decode) does.
    pub fn decode<'a>(&self, buf: &'a [u8]) -> DecodedReply<'a> {
        let Some(header) = Header::read(buf) else {
            return match buf.first() {
                None | Some(&RESPONSE_MAGIC) => DecodedReply::More {
                    total: Some(HEADER_LEN),
                },
                Some(_) => invalid(InvalidReply::BadMagic),
            };
        };
        if header.magic != RESPONSE_MAGIC {
            return invalid(InvalidReply::BadMagic);
        }
        let total = HEADER_LEN + header.body_len as usize;
        let front_len = header.front_len();
        let flags_fit = matches!(usize::from(header.extras_len), 0 | extras::NUMBER);
        if !flags_fit || usize::from(header.key_len) > KEY_MAX || front_len > total {
            return invalid(InvalidReply::MalformedPacket);
        }
        if total - front_len > self.value_max {
            return invalid(InvalidReply::ValueTooLarge);
        }
        let Some(body) = buf.get(HEADER_LEN..total) else {
            return DecodedReply::More { total: Some(total) };
        };
        let (extras, body) = body.split_at(usize::from(header.extras_len));
        let (key, value) = body.split_at(usize::from(header.key_len));
        let reply = Reply::Packet(PacketReply {
            opcode: header.opcode,
            opaque: header.opaque,
            status: header.status,
            cas: header.cas,
            flags: (!extras.is_empty()).then(|| u32_at(extras, 0)),
            key,
            value,
        });
        DecodedReply::Reply {
            reply,
            consumed: total,
        }
    }
}

fn invalid<'a>(reason: InvalidReply) -> DecodedReply<'a> {
    DecodedReply::Invalid { reason }
}

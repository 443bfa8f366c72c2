//! Logical replies of an upstream server.
//!
//! Replies borrow from the bytes they were decoded from. They are input like any other: whoever
//! sent the request has to compare key and opaque token with what he asked for.

mod decoder;
mod line;
mod packet;

pub use decoder::{DecodedReply, InvalidReply, ReplyDecoder};
pub use packet::{PacketDecoder, PacketReply};

use crate::lexer::token;
use crate::number::{parse_i32, parse_u64};

/// One line of a reply, with the value that belongs to it, or one packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply<'a> {
    /// `VALUE`: an item of a `get`. More of them or [`End`](Self::End) follow.
    Value {
        /// The key.
        key: &'a [u8],
        /// The client flags.
        flags: u32,
        /// The CAS unique, with `gets` and `gats`.
        cas: Option<u64>,
        /// The value, without its line end.
        value: &'a [u8],
    },
    /// `STAT`: a figure. More of them or [`End`](Self::End) follow.
    Stat {
        /// Its name.
        name: &'a [u8],
        /// The rest of the line.
        value: &'a [u8],
    },
    /// `END` of items or figures.
    End,
    /// The answer to a meta command.
    Meta(MetaReply<'a>),
    /// `ME`: facts about an item, for debugging.
    Debug {
        /// The key, in base64 if it was stored so.
        key: &'a [u8],
        /// `name=value` pairs between spaces.
        facts: &'a [u8],
    },
    /// A packet of the binary protocol.
    Packet(PacketReply<'a>),
    /// `STORED`.
    Stored,
    /// `NOT_STORED`.
    NotStored,
    /// `EXISTS`.
    Exists,
    /// `NOT_FOUND`.
    NotFound,
    /// `DELETED`.
    Deleted,
    /// `TOUCHED`.
    Touched,
    /// `OK`.
    Ok,
    /// `RESET`.
    Reset,
    /// The number that `incr` or `decr` gave.
    Number(u64),
    /// `VERSION` and what follows it.
    Version(&'a [u8]),
    /// `ERROR`, `CLIENT_ERROR` or `SERVER_ERROR`.
    Error {
        /// Which of them.
        kind: ErrorKind,
        /// What follows it; often empty with [`ErrorKind::Unknown`].
        message: &'a [u8],
    },
}

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// `ERROR`: the server does not know the command.
    Unknown,
    /// `CLIENT_ERROR`: the request was wrong.
    Client,
    /// `SERVER_ERROR`: the server could not do it.
    Server,
}

/// The answer to a meta command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaReply<'a> {
    /// How it ended.
    pub status: MetaStatus,
    /// The value, with [`MetaStatus::Value`].
    pub value: Option<&'a [u8]>,
    /// The flags of the line.
    pub flags: MetaFlags<'a>,
}

/// How a meta command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MetaStatus {
    /// `VA`: a hit with a value.
    Value,
    /// `HD`: done, or a hit without a value.
    Done,
    /// `EN`: a miss.
    Miss,
    /// `NS`: not stored.
    NotStored,
    /// `EX`: another CAS unique.
    Exists,
    /// `NF`: no item.
    NotFound,
    /// `MN`: all requests before were answered.
    Noop,
}

/// The flags of a meta reply: an iterator over letters and the tokens behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MetaFlags<'a> {
    rest: &'a [u8],
}

impl<'a> MetaFlags<'a> {
    /// The token of flag `letter`, if it was answered.
    pub fn token(mut self, letter: u8) -> Option<&'a [u8]> {
        self.find_map(|(flag, token)| (flag == letter).then_some(token))
    }

    /// Flag `c`: the CAS unique.
    pub fn cas(self) -> Option<u64> {
        parse_u64(self.token(b'c')?)
    }

    /// Flag `f`: the client flags.
    pub fn client_flags(self) -> Option<u32> {
        u32::try_from(parse_u64(self.token(b'f')?)?).ok()
    }

    /// Flag `t`: seconds until the item expires; `Some(None)` if never.
    pub fn ttl(self) -> Option<Option<u32>> {
        Some(u32::try_from(parse_i32(self.token(b't')?)?).ok())
    }

    /// Flag `O`: the opaque token of the request.
    pub fn opaque(self) -> Option<&'a [u8]> {
        self.token(b'O')
    }

    /// What a read is told, in one pass.
    pub fn facts(self) -> MetaFacts<'a> {
        let mut facts = MetaFacts::default();
        for (letter, token) in self {
            match letter {
                b'k' => facts.key = Some(token),
                b'b' => facts.key_base64 = true,
                b'f' => {
                    facts.client_flags = parse_u64(token).and_then(|flags| flags.try_into().ok())
                }
                b'c' => facts.cas = parse_u64(token),
                b't' => facts.ttl = parse_i32(token).map(|seconds| seconds.try_into().ok()),
                b'W' => facts.won = true,
                b'X' => facts.stale = true,
                b'Z' => facts.won_by_another = true,
                _ => {}
            }
        }
        facts
    }
}

/// What the flags of a meta reply tell a reader of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MetaFacts<'a> {
    /// `k`: the key, in base64 where `b` says so.
    pub key: Option<&'a [u8]>,
    /// `b`.
    pub key_base64: bool,
    /// `f`: the client flags.
    pub client_flags: Option<u32>,
    /// `c`: the CAS unique.
    pub cas: Option<u64>,
    /// `t`: seconds until the item expires; `Some(None)` if never.
    pub ttl: Option<Option<u32>>,
    /// `W`: the reader is to renew the item.
    pub won: bool,
    /// `X`: it is stale.
    pub stale: bool,
    /// `Z`: another reader is to renew it.
    pub won_by_another: bool,
}

impl<'a> Iterator for MetaFlags<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (rest, flag) = token(self.rest).ok()?;
        self.rest = rest;
        let (letter, argument) = flag.split_first()?;
        Some((*letter, argument))
    }
}

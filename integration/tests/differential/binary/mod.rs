//! The binary protocol as the comparison sees it, and its tests.
//!
//! A mark is a `noop` with an opaque of its own. CAS values are renamed as in text; every other byte must be equal.

mod generate;
mod known;
mod malformed;

use std::io;

use tiercache_integration::binary::{HEADER_BYTES, Packet, REQUEST_MAGIC, opcode};
use tiercache_integration::client::Client;
use tiercache_integration::server::Server;

use super::MEMCACHED_ARGUMENTS;
use super::generate::Generator;
use super::reply::CasNames;
use super::run::compare;
use super::script::Request;
use super::syntax::Syntax;

/// The opaque of marks; requests never have it.
const MARK_OPAQUE: u32 = u32::from_be_bytes(*b"MARK");

// As for the text protocol: a client cannot tell the two servers apart.
#[test]
fn the_same_binary_requests_give_the_same_bytes() {
    let memcached = Server::memcached(MEMCACHED_ARGUMENTS);
    let tiercache = Server::tiercache(&["-m", "1024"]);
    compare::<Binary>(&memcached, &tiercache, 1);
}

// The harness itself: a server does not differ from another one of its kind.
#[test]
fn memcached_does_not_differ_from_itself_in_binary() {
    let left = Server::memcached(MEMCACHED_ARGUMENTS);
    let right = Server::memcached(MEMCACHED_ARGUMENTS);
    compare::<Binary>(&left, &right, 2);
}

#[derive(Debug)]
struct Binary;

impl Syntax for Binary {
    type Reply = Packet;

    const MARK: &'static [u8] = &mark();

    fn is_mark(reply: &Packet) -> bool {
        reply.opaque == MARK_OPAQUE
    }

    fn request(generator: &mut Generator) -> Request {
        generate::request(generator)
    }

    fn read(client: &mut Client) -> io::Result<Packet> {
        Packet::read(client)
    }

    fn same(names: &mut CasNames, left: &Packet, right: &Packet) -> bool {
        let renamed = |reply: &Packet| Packet {
            cas: 0,
            ..reply.clone()
        };
        let cas_same = match (left.cas, right.cas) {
            (0, 0) => true,
            (0, _) | (_, 0) => false,
            (left, right) => names.same(left, right),
        };
        renamed(left) == renamed(right) && cas_same
    }

    fn cas_values(reply: &Packet) -> Vec<u64> {
        Vec::from_iter((reply.cas != 0).then_some(reply.cas))
    }

    fn bytes(reply: &Packet) -> Vec<u8> {
        reply.bytes()
    }

    fn kind(replies: &[Packet]) -> String {
        match replies {
            [] => String::from("(none)"),
            [reply] => kind_of_reply(reply),
            [first, .., last] => format!("{}..{}", kind_of_reply(first), kind_of_reply(last)),
        }
    }

    /// None of the known differences is among the random requests.
    fn explains(
        _version: (u32, u32, u32),
        _request: &[u8],
        _memcached: &[Packet],
        _tiercache: &[Packet],
    ) -> bool {
        false
    }
}

/// The header of a `noop` with [`MARK_OPAQUE`].
const fn mark() -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[0] = REQUEST_MAGIC;
    bytes[1] = opcode::NOOP;
    let opaque = MARK_OPAQUE.to_be_bytes();
    let mut at = 0;
    while at < opaque.len() {
        bytes[12 + at] = opaque[at];
        at += 1;
    }
    bytes
}

/// The text of an error, else what the reply carries.
fn kind_of_reply(reply: &Packet) -> String {
    if reply.status != 0 {
        let text = String::from_utf8_lossy(reply.value());
        return format!("{:#04x} {text}", reply.status);
    }
    let parts = [
        ("cas", reply.cas != 0),
        ("flags", reply.extras_length > 0),
        ("key", reply.key_length > 0),
        ("value", !reply.value().is_empty()),
    ];
    let names: Vec<&str> = parts
        .iter()
        .filter(|(_, there)| *there)
        .map(|(name, _)| *name)
        .collect();
    format!("ok({})", names.join("+"))
}

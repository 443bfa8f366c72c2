//! The differences from memcached in the binary protocol that are meant: none of them is among the random requests.

use tiercache_integration::binary::{HEADER_BYTES, Packet, REPLY_MAGIC, opcode};
use tiercache_integration::server::Server;

use super::super::MEMCACHED_ARGUMENTS;
use super::super::endpoint::Endpoint;
use super::super::known::Versions;
use super::Binary;

/// More would be another protocol.
const DIFFERENCES_MAX: usize = 10;
/// Known to both protocols and to memcached's documents, but not to memcached.
const VERBOSITY: u8 = 0x1b;
/// An opcode that nobody has given a meaning.
const UNASSIGNED: u8 = 0x1f;

/// What is sent is followed by the end of the connection; all CAS values and opaques are 0.
struct Difference {
    versions: Versions,
    reason: &'static str,
    request: fn() -> Vec<u8>,
    memcached: &'static [Expected],
    tiercache: &'static [Expected],
}

/// Opcode, status and text of a reply.
type Expected = (u8, u16, &'static str);

const NOOP_DONE: Expected = (opcode::NOOP, 0, "");

const DIFFERENCES: &[Difference] = &[
    Difference {
        versions: Versions::All,
        reason: "a value that is too large is refused before it is read; memcached answers behind it",
        request: || {
            let mut packet = Packet::request(opcode::SET, &[0; 8], b"known", b"begun");
            packet.body_length = 64 << 20;
            packet.bytes()
        },
        memcached: &[],
        tiercache: &[(opcode::SET, 0x03, "Too large.")],
    },
    Difference {
        versions: Versions::All,
        reason: "a key that is too long gets the same answer at any length; one beyond 16 KiB ends memcached's connection",
        request: || Packet::request(opcode::GET, &[], &[b'k'; 65535], &[]).bytes(),
        memcached: &[],
        tiercache: &[(opcode::GET, 0x04, "Invalid arguments")],
    },
    Difference {
        versions: Versions::All,
        reason: "an unknown request is skipped as long as it says it is; memcached skips its key and extras twice",
        request: || {
            // As long as what follows, so that memcached is in step again.
            let unknown = Packet::request(UNASSIGNED, &[], &[b'k'; HEADER_BYTES], &[]);
            [unknown.bytes(), noop(), noop()].concat()
        },
        memcached: &[(UNASSIGNED, 0x81, "Unknown command"), NOOP_DONE],
        tiercache: &[(UNASSIGNED, 0x81, "Unknown command"), NOOP_DONE, NOOP_DONE],
    },
    Difference {
        versions: Versions::All,
        reason: "verbosity is answered as in text; memcached does not know it, and skips its extras twice",
        request: || {
            let verbosity = Packet::request(VERBOSITY, &1_u32.to_be_bytes(), &[], &[]);
            [verbosity.bytes(), b"lost".to_vec(), noop()].concat()
        },
        memcached: &[(VERBOSITY, 0x81, "Unknown command"), NOOP_DONE],
        // The four bytes are no request.
        tiercache: &[(VERBOSITY, 0, "")],
    },
    Difference {
        versions: Versions::All,
        reason: "verbosity without a level lacks its extras; memcached does not know the command",
        request: || Packet::request(VERBOSITY, &[], &[], &[]).bytes(),
        memcached: &[(VERBOSITY, 0x81, "Unknown command")],
        tiercache: &[(VERBOSITY, 0x04, "Invalid arguments")],
    },
    Difference {
        versions: Versions::All,
        reason: "what was done is answered before nonsense ends the connection; memcached throws the replies away",
        request: || {
            let flush = Packet::request(opcode::FLUSH, &[], &[], &[]);
            [flush.bytes(), vec![b'n'; HEADER_BYTES]].concat()
        },
        memcached: &[],
        tiercache: &[(opcode::FLUSH, 0, "")],
    },
    Difference {
        versions: Versions::Old,
        reason: "a body of 2 GiB was taken for one of a negative length, and waited for",
        request: || {
            let mut packet = Packet::request(opcode::ADDQ, &[0; 8], b"known", &[]);
            packet.body_length = 1 << 31;
            packet.bytes()
        },
        memcached: &[],
        tiercache: &[(opcode::ADDQ, 0x04, "Invalid arguments")],
    },
];

fn noop() -> Vec<u8> {
    Packet::request(opcode::NOOP, &[], &[], &[]).bytes()
}

// A difference that is gone must leave the list; a new one needs a reason.
#[test]
fn known_binary_differences_still_differ() {
    assert!(DIFFERENCES.len() <= DIFFERENCES_MAX);
    let memcached = Server::memcached(MEMCACHED_ARGUMENTS);
    let tiercache = Server::tiercache(&[]);
    let version = memcached.version();
    for difference in DIFFERENCES {
        if !difference.versions.contain(version) {
            continue;
        }
        for (server, expected) in [
            (&memcached, difference.memcached),
            (&tiercache, difference.tiercache),
        ] {
            let mut endpoint = Endpoint::<Binary>::new(server);
            endpoint.send(&(difference.request)(), &[]);
            endpoint.finish();
            let answer = endpoint.answer();
            let expected: Vec<Packet> = expected.iter().map(reply).collect();
            assert_eq!(answer.replies, expected, "{}", difference.reason);
        }
    }
}

fn reply((opcode, status, text): &Expected) -> Packet {
    Packet {
        magic: REPLY_MAGIC,
        status: *status,
        ..Packet::request(*opcode, &[], &[], text.as_bytes())
    }
}

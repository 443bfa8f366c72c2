//! The differences from memcached that are meant: each with its bytes, its reason, and a test that it still differs.

use tiercache_integration::server::Server;

use super::endpoint::Endpoint;
use super::reply::Reply;
use super::script::show;
use super::syntax::Syntax;
use super::text::Text;
use super::{MODERN, bytes_of, show_answer};

/// More would be another protocol.
const DIFFERENCES_MAX: usize = 15;

/// The memcached versions that a difference is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versions {
    All,
    /// 1.6.32 and later.
    Modern,
    /// Before 1.6.32: tiercache speaks the protocol of 1.6.45, the difference is that version's age.
    Old,
}

impl Versions {
    pub fn contain(self, version: (u32, u32, u32)) -> bool {
        match self {
            Versions::All => true,
            Versions::Modern => version >= MODERN,
            Versions::Old => version < MODERN,
        }
    }
}

struct Difference {
    versions: Versions,
    reason: &'static str,
    request: &'static str,
    /// The replies to exactly this request; `*` stands for any text without a line end.
    memcached: &'static str,
    tiercache: &'static str,
    /// True for any random request and its answers that differ for this reason and no other.
    explains: fn(&Case) -> bool,
}

/// One request and the two answers to it.
struct Case<'a> {
    request: &'a [u8],
    memcached: &'a [Reply],
    tiercache: &'a [Reply],
}

const DIFFERENCES: &[Difference] = &[
    Difference {
        versions: Versions::All,
        reason: "slab classes and item headers are memcached's own; tools only need the words",
        request: "set known 0 0 1\r\n1\r\nme known\r\n",
        memcached: "STORED\r\nME known exp=-1 la=0 cas=* fetch=no cls=1 size=*\r\n",
        tiercache: "STORED\r\nME known exp=-1 la=0 cas=* fetch=no cls=* size=*\r\n",
        // The comparison leaves these two words out.
        explains: |_| false,
    },
    Difference {
        versions: Versions::Old,
        reason: "me printed the time to live with the wrong sign",
        request: "set known 0 100 1\r\n1\r\nme known\r\n",
        memcached: "STORED\r\nME known exp=-* la=0 cas=* fetch=no cls=1 size=*\r\n",
        tiercache: "STORED\r\nME known exp=* la=0 cas=* fetch=no cls=* size=*\r\n",
        explains: |case| {
            case.request.starts_with(b"me ")
                && first_line(case.memcached)
                    .windows(5)
                    .any(|part| part == b"exp=-")
                && first_line(case.tiercache).starts_with(b"ME ")
        },
    },
    Difference {
        versions: Versions::All,
        reason: "the time since an expiry is no time to live; memcached prints it as an unsigned number",
        request: "ma known N-1 t\r\n",
        memcached: "HD t42949*\r\n",
        tiercache: "HD t0\r\n",
        // The comparison reads the one as the other.
        explains: |_| false,
    },
    Difference {
        versions: Versions::All,
        reason: "a command that is refused changes nothing; memcached notices a long opaque after the increment",
        request: "set known 0 0 1\r\n1\r\nma known OOOOOOOOOO\r\nget known\r\n",
        memcached: "STORED\r\nCLIENT_ERROR opaque token too long\r\nVALUE known 0 1\r\n2\r\nEND\r\n",
        tiercache: "STORED\r\nCLIENT_ERROR opaque token too long\r\nVALUE known 0 1\r\n1\r\nEND\r\n",
        // Not among the random requests: from then on the two would hold different values.
        explains: |_| false,
    },
    Difference {
        versions: Versions::All,
        reason: "a negative number is none; memcached takes one below -2^63 for its complement",
        request: "set known 0 0 20\r\n-9223372036854775809\r\nincr known 1\r\n",
        memcached: "STORED\r\n9223372036854775808\r\n",
        tiercache: "STORED\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
        // Not among the random requests: from then on the two would hold different values.
        explains: |_| false,
    },
    Difference {
        versions: Versions::Modern,
        reason: "E and T are meant for the new number; memcached gives them to the item that a longer number replaces",
        request: "set known 0 0 1\r\n9\r\nma known E4611686018427387999 c\r\nmg known E1 C4611686018427387999 v\r\n",
        memcached: "STORED\r\nHD c4611686018427387999\r\nVA 2\r\n10\r\n",
        tiercache: "STORED\r\nHD c4611686018427387999\r\nHD\r\n",
        // Not among the random requests: from then on the two would hold different values.
        explains: |_| false,
    },
    Difference {
        versions: Versions::Modern,
        reason: "a command that is refused changes nothing; memcached gives the E of an ms with a long opaque to the next store",
        request: "ms known 1 E4611686018427387998 OOOOOOOOOO\r\n1\r\nset known 0 0 1\r\n1\r\nmd known C4611686018427387998\r\n",
        memcached: "CLIENT_ERROR opaque token too long\r\nSTORED\r\nHD\r\n",
        tiercache: "CLIENT_ERROR opaque token too long\r\nSTORED\r\nEX\r\n",
        // Not among the random requests: from then on the two would order CAS values differently.
        explains: |_| false,
    },
    Difference {
        versions: Versions::Modern,
        reason: "an error of a multi-get leaves a stray empty line that no client expects",
        request: "get known KKKKKKKKKK\r\n",
        memcached: "CLIENT_ERROR bad command line format\r\n\r\n",
        tiercache: "CLIENT_ERROR bad command line format\r\n",
        explains: |case| matches!(case.memcached, [error, stray] if stray.line.is_empty() && case.tiercache == [error.clone()]),
    },
    Difference {
        versions: Versions::Modern,
        reason: "libmemcached's conformance suite wants words behind the key refused, as 1.6.18 does",
        request: "delete known 5\r\n",
        memcached: "NOT_FOUND\r\n",
        tiercache: "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n",
        explains: |case| {
            case.request.starts_with(b"delete ")
                && first_line(case.tiercache)
                    .starts_with(b"CLIENT_ERROR bad command line format.  Usage")
                && matches!(first_line(case.memcached), b"NOT_FOUND" | b"DELETED")
        },
    },
    Difference {
        versions: Versions::Old,
        reason: "what is refused is refused in other words, and the block of a refused store is read as a command",
        request: "set known\r\n",
        memcached: "ERROR\r\n",
        tiercache: "CLIENT_ERROR bad command line format\r\n",
        explains: |case| all_errors(case.memcached) && all_errors(case.tiercache),
    },
    Difference {
        versions: Versions::Old,
        reason: "spaces in front of a command were skipped",
        request: " get known\r\n",
        memcached: "END\r\n",
        tiercache: "ERROR\r\n",
        explains: |case| case.request.starts_with(b" ") && first_line(case.tiercache) == b"ERROR",
    },
    Difference {
        versions: Versions::Old,
        reason: "gat without a key was an empty multi-get",
        request: "gat 0\r\n",
        memcached: "END\r\n",
        tiercache: "CLIENT_ERROR bad command line format\r\n",
        explains: |case| {
            case.request.starts_with(b"gat 0\r\n") || case.request.starts_with(b"gat 0\n")
        },
    },
    Difference {
        versions: Versions::Old,
        reason: "numbers were read by strtol: cut off beyond 32 bits, and never a lone minus",
        request: "touch known 99999999999\r\n",
        memcached: "NOT_FOUND\r\n",
        tiercache: "CLIENT_ERROR invalid exptime argument\r\n",
        explains: |case| {
            let number = |text: &[u8]| case.request.windows(text.len()).any(|part| part == text);
            number(b"99999999999") && all_errors(case.tiercache)
                || case.request.starts_with(b"gat - ")
        },
    },
    Difference {
        versions: Versions::Old,
        reason: "words behind the delta were refused; 1.6.45 and tiercache do not look at them",
        request: "incr known 1 2 3\r\n",
        memcached: "ERROR\r\n",
        tiercache: "NOT_FOUND\r\n",
        explains: |case| {
            matches!(case.request.get(..5), Some(b"incr " | b"decr "))
                && first_line(case.memcached) == b"ERROR"
                && first_line(case.tiercache) == b"NOT_FOUND"
        },
    },
    Difference {
        versions: Versions::Old,
        reason: "a quiet ma that created its item was not quiet",
        request: "ma known D5 q N0 v\r\n",
        memcached: "VA 1\r\n0\r\n",
        tiercache: "",
        explains: |case| {
            case.request.starts_with(b"ma ")
                && case.tiercache.is_empty()
                && matches!(first_line(case.memcached).get(..2), Some(b"VA" | b"HD"))
        },
    },
];

/// True when the two answers differ only as the list allows.
pub fn explains(
    version: (u32, u32, u32),
    request: &[u8],
    memcached: &[Reply],
    tiercache: &[Reply],
) -> bool {
    let case = Case {
        request,
        memcached,
        tiercache,
    };
    DIFFERENCES
        .iter()
        .any(|difference| difference.versions.contain(version) && (difference.explains)(&case))
}

// A difference that is gone must leave the list; a new one needs a reason.
#[test]
fn known_differences_still_differ() {
    assert!(DIFFERENCES.len() <= DIFFERENCES_MAX);
    let memcached = Server::memcached(super::MEMCACHED_ARGUMENTS);
    let tiercache = Server::tiercache(&[]);
    let version = memcached.version();
    for (number, difference) in DIFFERENCES.iter().enumerate() {
        if !difference.versions.contain(version) {
            continue;
        }
        // Every entry has a key of its own.
        let named = |text: &str| text.replace("known", &format!("known{number}"));
        let request = named(difference.request)
            .replace("KKKKKKKKKK", &"K".repeat(251))
            .replace("OOOOOOOOOO", &"O".repeat(40));
        for (server, expected) in [
            (&memcached, difference.memcached),
            (&tiercache, difference.tiercache),
        ] {
            let mut endpoint = Endpoint::<Text>::new(server);
            endpoint.send(request.as_bytes(), &[]);
            endpoint.send(Text::MARK, &[]);
            let answer = endpoint.answer();
            let got = bytes_of::<Text>(&answer);
            assert!(
                fits(&String::from_utf8_lossy(&got), &named(expected)),
                "{}: {} expected {expected:?}, got {}",
                difference.reason,
                show(request.as_bytes()),
                show_answer::<Text>(&answer)
            );
        }
    }
}

fn first_line(replies: &[Reply]) -> &[u8] {
    replies.first().map_or(b"", |reply| &reply.line)
}

fn all_errors(replies: &[Reply]) -> bool {
    replies
        .iter()
        .all(|reply| reply.line.starts_with(b"CLIENT_ERROR") || reply.line == b"ERROR")
}

/// True when `text` is `pattern` with some text in place of every `*`.
fn fits(text: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    for part in parts {
        // The shortest fill; enough for patterns whose parts begin with a space or a line end.
        let Some(at) = rest.find(part) else {
            return false;
        };
        if rest[..at].contains('\n') {
            return false;
        }
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

//! Authentication of a text connection: the only command before all others.
//!
//! It has the form of a `set` whose value is `user password`; key, flags and exptime mean nothing:
//!
//! ```text
//!   set auth 0 0 11\r\n
//!   alice s3cret\r\n        ──▶  STORED | CLIENT_ERROR authentication failure
//! ```

use crate::binary::{Header, REQUEST_MAGIC};
use crate::error::Reject;
use crate::limits::{AUTH_TOKEN_MAX, LINE_MAX};
use crate::number::parse_u32;
use crate::request::BinaryForm;

/// A line with fewer bytes before its `\n` closes the connection, as in memcached.
const LINE_MIN: usize = 6;

/// What the bytes of a client that is not authenticated amount to.
#[derive(Debug, PartialEq, Eq)]
pub enum Attempt<'a> {
    /// Not complete yet.
    More,
    /// A user with a password, to be looked up.
    Credentials {
        /// The user's name; what stands before the first space.
        user: &'a [u8],
        /// The password; everything behind it.
        password: &'a [u8],
        /// Bytes of the whole command.
        consumed: usize,
    },
    /// Something else, which is answered with `reply` and not executed.
    Reject {
        /// The answer.
        reply: Reject,
        /// Bytes that it answers.
        consumed: usize,
    },
    /// Nothing that could become a command: close without an answer.
    Close,
}

/// Reads one command of a client that is not authenticated. Always given what is not consumed, it
/// keeps no state.
pub fn decode(bytes: &[u8]) -> Attempt<'_> {
    let Some(line_len) = memchr::memchr(b'\n', bytes) else {
        return if bytes.len() > LINE_MAX {
            Attempt::Close
        } else {
            Attempt::More
        };
    };
    let header_len = line_len + 1;
    if line_len < LINE_MIN {
        return Attempt::Close;
    }
    let reject = |reply, consumed| Attempt::Reject { reply, consumed };
    let Some(token_len) = token_len(&bytes[..line_len]) else {
        return reject(Reject::Unauthenticated, header_len);
    };
    if token_len > AUTH_TOKEN_MAX {
        return reject(Reject::TokenTooLong, header_len);
    }
    let consumed = header_len + token_len + 2;
    let Some(body) = bytes.get(header_len..consumed) else {
        return Attempt::More;
    };
    let Some(token) = body.strip_suffix(b"\r\n") else {
        return reject(Reject::LineTermination, consumed);
    };
    match memchr::memchr(b' ', token) {
        Some(space) => Attempt::Credentials {
            user: &token[..space],
            password: &token[space + 1..],
            consumed,
        },
        None => reject(Reject::TokenFormat, consumed),
    }
}

/// The first byte of a packet of the binary protocol.
pub const PACKET_MAGIC: u8 = REQUEST_MAGIC;

/// How a packet is answered whose header has come, the rest or not.
pub fn packet_form(bytes: &[u8]) -> Option<BinaryForm> {
    let header = Header::read(bytes).filter(|header| header.magic == REQUEST_MAGIC)?;
    Some(BinaryForm {
        opcode: header.opcode,
        opaque: header.opaque,
    })
}

/// The length that `set <key> <flags> <exptime> <length>` announces.
fn token_len(line: &[u8]) -> Option<usize> {
    let line = line.strip_suffix(b"\r")?;
    if !line.starts_with(b"set") {
        return None;
    }
    let mut words = line.split(|byte| *byte == b' ').filter(|w| !w.is_empty());
    parse_u32(words.nth(4)?).map(|len| len as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_carries_user_and_password() {
        let bytes = b"set auth 1 2 13 noreply\r\nalice s3 cret\r\nget k\r\n";
        assert_eq!(decode(&bytes[..20]), Attempt::More);
        assert_eq!(decode(&bytes[..bytes.len() - 8]), Attempt::More);
        assert_eq!(
            decode(bytes),
            Attempt::Credentials {
                user: b"alice",
                password: b"s3 cret",
                consumed: bytes.len() - 7,
            }
        );
    }

    #[test]
    fn everything_else_is_refused() {
        for (bytes, reply, consumed) in [
            (&b"get key\r\n"[..], Reject::Unauthenticated, 9),
            (b"set k 0 0\r\n", Reject::Unauthenticated, 11),
            (b"set k 0 0 -1\r\n", Reject::Unauthenticated, 14),
            (b"set k 0 0 3\nu p\r\n", Reject::Unauthenticated, 12),
            (b"set k 0 0 4000000000\r\n", Reject::TokenTooLong, 22),
            (b"set k 0 0 3\r\nu pxx", Reject::LineTermination, 18),
            (b"set k 0 0 3\r\nu-p\r\n", Reject::TokenFormat, 18),
        ] {
            let text = String::from_utf8_lossy(bytes);
            assert_eq!(decode(bytes), Attempt::Reject { reply, consumed }, "{text}");
        }
        assert_eq!(decode(b"quit\r\n"), Attempt::Close);
        assert_eq!(decode(&[b'x'; LINE_MAX]), Attempt::More);
        assert_eq!(decode(&[b'x'; LINE_MAX + 1]), Attempt::Close);
    }
}

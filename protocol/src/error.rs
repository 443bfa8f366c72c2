//! The error replies of the protocol, byte for byte.

use std::fmt;

/// Declares [`Reject`] with the wire text of every variant.
macro_rules! rejects {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// Why a request is refused, as the client is told.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reject { $($(#[$doc])* $name,)* }

        impl Reject {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The reply's text without its line end.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The whole reply, `\r\n` included.
            pub const fn as_bytes(self) -> &'static [u8] {
                match self { $(Self::$name => concat!($text, "\r\n").as_bytes(),)* }
            }
        }
    };
}

rejects! {
    /// The command is not known.
    Unknown = "ERROR";
    /// The line has too few tokens, or a key, number or length in it is not acceptable.
    BadFormat = "CLIENT_ERROR bad command line format";
    /// `delete` with something else behind the key.
    DeleteUsage = "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]";
    /// The value is not followed by `\r\n`.
    BadDataChunk = "CLIENT_ERROR bad data chunk";
    /// The item is larger than the server stores.
    TooLarge = "SERVER_ERROR object too large for cache";
    /// There is no memory for the item.
    OutOfMemory = "SERVER_ERROR out of memory storing object";
    /// There is no memory for the new number of an `incr` or `decr`.
    OutOfMemoryNumber = "SERVER_ERROR out of memory";
    /// The exptime is no number.
    InvalidExptime = "CLIENT_ERROR invalid exptime argument";
    /// The delta of `incr` or `decr` is no number.
    InvalidDelta = "CLIENT_ERROR invalid numeric delta argument";
    /// The item to count up or down holds no number.
    NonNumeric = "CLIENT_ERROR cannot increment or decrement non-numeric value";
    /// `flush_all` where it is switched off.
    FlushNotAllowed = "CLIENT_ERROR flush_all not allowed";
    /// `shutdown` with an unknown mode.
    InvalidShutdownMode = "CLIENT_ERROR invalid shutdown mode";
    /// More than [`META_TOKENS_MAX`](crate::limits::META_TOKENS_MAX) tokens.
    FlagsTooLong = "CLIENT_ERROR options flags are too long";
    /// A meta flag was given twice.
    DuplicateFlag = "CLIENT_ERROR duplicate flag";
    /// A meta flag is not known.
    InvalidFlag = "CLIENT_ERROR invalid flag";
    /// Any of the errors in a flag of `ma`, which memcached tells in one sentence.
    InvalidOrDuplicateFlag = "CLIENT_ERROR invalid or duplicate flag";
    /// The number of a meta flag is none.
    BadToken = "CLIENT_ERROR bad token in command line format";
    /// The key of flag `b` is not base64.
    BadBase64 = "CLIENT_ERROR error decoding key";
    /// The token of flag `O` is too long.
    OpaqueTooLong = "CLIENT_ERROR opaque token too long";
    /// The mode of `ms` is not known.
    InvalidStoreMode = "CLIENT_ERROR invalid mode for ms M token";
    /// The mode of `ma` is not known.
    InvalidArithmeticMode = "CLIENT_ERROR invalid mode for ma M token";
    /// The number of flag `J` is none.
    InvalidInitial = "CLIENT_ERROR invalid numeric initial value";
    /// The number of flag `D` is none.
    InvalidDeltaFlag = "CLIENT_ERROR invalid numeric delta value";
    /// A command before the authentication that the server wants.
    Unauthenticated = "CLIENT_ERROR unauthenticated";
    /// More than [`AUTH_TOKEN_MAX`](crate::limits::AUTH_TOKEN_MAX) bytes of user and password.
    TokenTooLong = "CLIENT_ERROR auth token too long";
    /// User and password are not followed by `\r\n`.
    LineTermination = "CLIENT_ERROR bad command line termination";
    /// No space between user and password.
    TokenFormat = "CLIENT_ERROR bad authentication token format";
    /// There is no such user with this password.
    AuthenticationFailure = "CLIENT_ERROR authentication failure";
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Reject {}

#[cfg(test)]
mod tests {
    use super::Reject;

    // Every text is an error to a client, ends its line and says nothing twice.
    #[test]
    fn every_reject_is_one_error_line() {
        for (index, reject) in Reject::ALL.iter().enumerate() {
            let text = reject.text();
            assert!(
                text == "ERROR"
                    || text.starts_with("CLIENT_ERROR ")
                    || text.starts_with("SERVER_ERROR "),
                "{text}"
            );
            assert_eq!(reject.as_bytes(), format!("{text}\r\n").as_bytes());
            assert!(
                Reject::ALL[..index]
                    .iter()
                    .all(|other| other.text() != text)
            );
        }
    }
}

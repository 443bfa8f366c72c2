//! memcached's wire protocol as bytes and types: parsers and encoders without I/O.
//!
//! The crate knows no sockets, no clock and no store. Bytes that a client sent go into a
//! [`Decoder`], which yields [`Request`]s that borrow from them; the functions of [`encode`] append
//! the answers to a buffer. [`encode_request`] and [`ReplyDecoder`] are the same in the other
//! direction, for speaking to an upstream server.
//!
//! ```text
//!   bytes ──Decoder──▶ Request ──(the server)──▶ encode::… ──▶ bytes
//!   bytes ◀─encode_request── Request     Reply ◀──ReplyDecoder── bytes
//! ```
//!
//! ```
//! use tiercache_protocol::{Decoded, Decoder, Request, encode};
//!
//! let mut decoder = Decoder::new(1024 * 1024);
//! let mut out = Vec::new();
//! match decoder.decode(b"get a\r\n") {
//!     Decoded::Request { request: Request::Get(get), consumed } => {
//!         assert_eq!(consumed, 7);
//!         for key in get.keys {
//!             encode::value_line(&mut out, key, 0, 5, None);
//!             out.extend_from_slice(b"hello\r\n");
//!         }
//!         encode::end(&mut out);
//!     }
//!     other => panic!("{other:?}"),
//! }
//! assert_eq!(out, b"VALUE a 0 5\r\nhello\r\nEND\r\n");
//! ```

#![forbid(unsafe_code)]

pub mod auth;
pub mod error;
pub mod exptime;
pub mod key;
pub mod limits;
pub mod reply;
pub mod request;

mod base64;
pub mod binary;
mod classic;
pub mod decoder;
pub mod encode;
mod lexer;
mod meta;
mod number;
mod parsed;
mod peek;
mod plain;
mod store_header;

pub use decoder::{CloseReason, Decoded, Decoder, Refusal, Syntax};
pub use encode::encode_request;
pub use error::Reject;
pub use exptime::Exptime;
pub use key::Keys;
pub use peek::peek_reads;
pub use plain::{PlainGets, PlainKey};
pub use reply::{DecodedReply, PacketDecoder, Reply, ReplyDecoder};
pub use request::{BinaryForm, Form, MetaForm, Request};

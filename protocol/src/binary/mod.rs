//! memcached's binary protocol: packets with a fixed header, in both directions.
//!
//! ```text
//!   0      1        2            4             5           6                 8            12       16    24
//!   magic  opcode   key length   extras length data type   vbucket | status  body length  opaque   CAS   extras key value
//! ```
//! All numbers are big endian; the body is extras, key and value. A request's opcode says too
//! whether its answer is hidden in the ordinary case (the quiet forms) and whether it names the key.

mod header;
mod opcode;
mod status;

pub use header::HEADER_LEN;
pub(crate) use header::{Header, REQUEST_MAGIC, RESPONSE_MAGIC, u32_at, u64_at};
pub use opcode::Opcode;
pub use status::Status;

/// The exptime of an `incr` or `decr` that is not to create the item.
pub(crate) const NO_CREATION: u32 = u32::MAX;

/// Bytes of the extras of requests and replies, where they have any.
pub(crate) mod extras {
    /// `set`, `add`, `replace`: flags and exptime.
    pub(crate) const STORE: usize = 8;
    /// `incr`, `decr`: delta, initial number, exptime.
    pub(crate) const ARITHMETIC: usize = 20;
    /// `touch`, `gat`, `flush`: exptime. `verbosity`: the level. A reply with an item: its flags.
    pub(crate) const NUMBER: usize = 4;
}

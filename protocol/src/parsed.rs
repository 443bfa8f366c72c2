//! What a command line says, before the decoder decides what comes of it.

use crate::decoder::CloseReason;
use crate::error::Reject;
use crate::request::Request;
use crate::store_header::StoreHeader;

/// What a command line says.
pub(crate) enum Parsed<'a> {
    Request(Request<'a>),
    Store(StoreHeader),
    /// Refused, with this many bytes of a body behind it.
    Reject {
        reply: Option<Reject>,
        swallow: usize,
    },
    Close(CloseReason),
}

impl Parsed<'_> {
    /// Refused with an answer, and no body follows.
    pub(crate) const fn reject(reply: Reject) -> Self {
        Self::Reject {
            reply: Some(reply),
            swallow: 0,
        }
    }
}

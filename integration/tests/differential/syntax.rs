//! What the comparison must know of a protocol: how its requests are made, and its replies read, compared and named.

use std::fmt::Debug;
use std::io;

use tiercache_integration::client::Client;

use super::generate::Generator;
use super::reply::CasNames;
use super::script::Request;

/// One of the protocols that both servers speak on the same port.
pub trait Syntax {
    /// One reply as it came.
    type Reply: Clone + Debug + PartialEq;

    /// A request whose reply nothing else produces: it marks the end of the replies to what was sent before it.
    const MARK: &'static [u8];

    /// True for the reply to [`Syntax::MARK`].
    fn is_mark(reply: &Self::Reply) -> bool;

    /// A random request, well-formed or not.
    fn request(generator: &mut Generator) -> Request;

    /// Reads one reply.
    ///
    /// # Errors
    /// When the connection ends or stays silent before a whole one came.
    fn read(client: &mut Client) -> io::Result<Self::Reply>;

    /// True when two servers mean the same by the replies.
    fn same(names: &mut CasNames, left: &Self::Reply, right: &Self::Reply) -> bool;

    /// The CAS values that a reply tells.
    fn cas_values(reply: &Self::Reply) -> Vec<u64>;

    /// The bytes of a reply, for messages.
    fn bytes(reply: &Self::Reply) -> Vec<u8>;

    /// The replies to one request in a few words, for tables.
    fn kind(replies: &[Self::Reply]) -> String;

    /// True when the replies to `request` differ only as the list of known differences allows.
    fn explains(
        version: (u32, u32, u32),
        request: &[u8],
        memcached: &[Self::Reply],
        tiercache: &[Self::Reply],
    ) -> bool;
}

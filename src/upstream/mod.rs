//! Upstream memcached servers: pools of them, and who of a pool has a key.

pub mod hash;
pub mod ring;

pub use hash::KeyHash;
pub use ring::{Member, Points, Ring};

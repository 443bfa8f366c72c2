//! tiercache: a memcached that does not forget.
//!
//! The modules in reading order, from what is nearest to the bytes on the wire down to the engines;
//! imports run only downwards. `ARCHITECTURE.md` beside this file draws the whole.

pub mod clock;
pub mod entry;
pub mod memory;
pub mod units;
pub mod words;

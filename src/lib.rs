//! tiercache: a memcached that does not forget.
//!
//! The modules in reading order, from what is nearest to the bytes on the wire down to the engines;
//! imports run only downwards. `ARCHITECTURE.md` beside this file draws the whole.

pub mod command;
pub mod tier;
pub mod ram;
pub mod dry;
pub mod metrics;
pub mod entry;
pub mod clock;
pub mod units;
pub mod words;
pub mod memory;

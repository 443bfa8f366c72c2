//! RAM: items in segments, appended and never moved in place.
//!
//! [`Arena`] hands out segments within a byte budget, [`item`] lays an item out in them. Neither
//! knows keys, the index or a policy; who owns which item is the tier module's business.

mod arena;
pub mod item;
#[cfg(all(test, feature = "model"))]
mod models;
mod pool;

pub use arena::{Address, Arena, Segment, SegmentKind};
pub use item::Item;

//! The tiers as one cache: an index over hot, cold and dry, and what moves items between them.
//!
//! ```text
//!   command ──read/update──▶ Cache ──▶ index (hash → location), one shard lock per operation
//!                              │          ▲ copy, then swap the location if it is unchanged
//!                              │          │
//!                              ├── mover: hot → cold → dry, compaction, expiry, drying ahead
//!                              └── fetch: dry → hot, once for all who wait
//! ```
//! Lock order: worker head → mover → dry's writer → shard. Kills are stored under the shard lock
//! and take no further lock.

mod ahead;
mod budget;
mod cache;
pub mod config;
mod copies;
mod dump;
mod evict;
mod expire;
mod fetch;
mod flush;
mod ghost;
mod index;
mod leave;
#[cfg(all(test, feature = "model"))]
mod models;
mod mover;
mod neighbours;
mod operate;
mod policy;
mod promote;
mod recover;
mod ripe;
mod sketch;
mod slot;
mod stats;
mod table;
mod through;
mod view;

pub use ahead::{Ahead, Near, NearRead, WINDOW_KEYS};
pub use cache::{Cache, Local, OnAccess, StartError};
pub use config::TierConfig;
pub use copies::{Copied, Copies, Fence};
pub use dump::{Below, DumpRow};
pub use fetch::{Attempt, Blocked};
pub use index::KeyHash;
pub use mover::DrainReport;

pub use recover::RecoverReport;
pub use slot::Tier;
pub use stats::TierStats;
pub use view::{Change, Current, Decision, Lookup, NewItem, Outcome, Value, View};

//! Upstream memcached servers: pools of them, who of a pool has a key, and asking it.
//!
//! ```text
//!   key ─▶ Members (prefix ─▶ pool ─▶ ring) ─▶ Server
//!                                                │ one for all workers: is it up, figures, missed deletes
//!   worker ─▶ Link ─▶ Connection ─ pipeline ─────┘
//!   thread `upstream` (care): probes, delivers what was missed, readmits
//! ```
//!
//! It knows nothing of tiers and clients: whoever asks hands over how to write the request and what
//! to do with its answer.

mod access;
mod admin;
mod care;
mod check;
pub mod config;
mod connection;
mod greeting;
pub mod hash;
mod health;
mod link;
mod name;
mod pools;
mod request;
pub mod ring;
mod server;
mod state;
mod stream;
mod undelivered;

pub use access::{Access, AccessConfig, AccessError, LoginConfig, is_username};
pub use admin::{Answer, Question, ask_all};
pub use care::Care;
pub use check::{Unfit, check};
pub use config::UpstreamConfig;
pub use connection::{Connection, Dialect, Done, Failure, Outcome, Verdict};
pub use hash::KeyHash;
pub use link::{Home, Link};
pub use pools::{Members, Pools};
pub use request::{encode_delete, meta_form, needs_base64};
pub use ring::{Member, Points, Ring};
pub use server::{LATENCY_US, Server, Shown, Stats};

//! tiercache: a memcached that does not forget.
//!
//! The modules in reading order, from what is nearest to the bytes on the wire down to the engines;
//! imports run only downwards. `ARCHITECTURE.md` beside this file draws the whole.

pub mod cli;

pub mod app;
pub mod shutdown;

pub mod config;

pub mod server;

pub mod command;

pub mod tier;

pub mod dry;
pub mod ram;
pub mod tracking;
pub mod upstream;

pub mod auth;
pub mod clients;
pub mod clock;
pub mod entry;
pub mod escape;
pub mod fault;
mod host;
mod lock;
pub mod memory;
pub mod metrics;
pub mod ratelimit;
pub mod siphash;
mod socket;
pub mod sync;
pub mod tls;
pub mod units;
pub mod watch;
pub mod words;

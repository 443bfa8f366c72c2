//! Runs the real `tiercache` binary against a real memcached and real clients.

mod attack;
mod authentication;
mod clients;
mod differential;
mod faults;
#[cfg(feature = "mongodb")]
mod gridfs;
mod kill_loop;
mod memcached_tool;
mod memccapable;
mod memory;
mod multiget;
mod pool;
mod ring;
#[cfg(feature = "s3")]
mod s3;
mod scale;
mod soak;
mod spill;
mod tls;
mod tracking;
mod watch;

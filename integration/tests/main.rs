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
#[cfg(any(feature = "s3", feature = "mongodb"))]
mod remote;
mod ring;
#[cfg(feature = "s3")]
mod s3;
#[cfg(feature = "s3")]
mod s3_credentials;
#[cfg(feature = "s3")]
mod s3_faults;
mod scale;
mod soak;
mod spill;
mod tls;
mod tracking;
mod watch;

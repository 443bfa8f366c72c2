//! Runs the real `tiercache` binary against a real memcached and real clients.

mod clients;
mod differential;
mod faults;
mod kill_loop;
mod memcached_tool;
mod memccapable;
mod memory;
mod multiget;
mod pool;
mod ring;
mod spill;
mod tracking;
mod watch;

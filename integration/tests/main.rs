//! Runs the real `tiercache` binary against a real memcached and real clients.

mod differential;

//! Test support: real servers as child processes, a byte-level client, and the exact history checker.
//!
//! Nothing here links tiercache: the tests see it as its users do, through a socket and a process id.
//! A test that needs a server that is not there fails and says how to get it; none is skipped silently.

pub mod binary;
pub mod checker;
pub mod churn;
pub mod client;
pub mod faulty;
pub mod gate;
pub mod history;
pub mod load;
#[cfg(feature = "mongodb")]
pub mod mongodb;
pub mod pattern;
pub mod pool;
mod prepared;
pub mod process;
pub mod random;
#[cfg(any(feature = "s3", feature = "mongodb"))]
pub mod remote;
pub mod replay;
#[cfg(feature = "s3")]
pub mod s3;
pub mod server;
pub mod sweep;
pub mod tiers;
pub mod times;
pub mod trace;
pub mod twemproxy;
pub mod value;
pub mod workload;

use std::time::{Duration, Instant};

/// Pause between two looks at a condition that [`eventually`] waits for.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Looks at `condition` until it holds; false when it did not within `limit`.
pub fn eventually(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// A number from the environment, `default` where the variable is not set.
///
/// # Panics
/// When the variable is set to something that is not a number: a typo must not shrink a test.
pub fn number_from_env(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

/// The seed of a random test: `TIERCACHE_TEST_SEED`, else one from the clock; printed so that a failure can be repeated.
pub fn seed() -> u64 {
    let from_clock = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64);
    let seed = number_from_env("TIERCACHE_TEST_SEED", from_clock);
    println!("TIERCACHE_TEST_SEED={seed}");
    seed
}

//! What is set about commands, and the switch that stops the server.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use tokio_util::sync::CancellationToken;

use super::Strict;

/// The version that clients are told: the memcached whose behaviour is matched.
pub const MEMCACHED_VERSION: &str = "1.6.45";

/// What the command line and the configuration say about commands.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `-I`: the largest item in bytes.
    pub item_size_max: usize,
    /// `-c`.
    pub max_connections: usize,
    /// `-t`.
    pub threads: usize,
    /// Whether `flush_all` is allowed (not `-F`).
    pub flush_enabled: bool,
    /// Whether listings of keys are allowed (not `-X`).
    pub dump_enabled: bool,
    /// Whether `watch` is allowed (not `-W`).
    pub watch_enabled: bool,
    /// Whether `shutdown` is allowed (`-A`).
    pub shutdown_enabled: bool,
    /// Whether `stats sizes` counts (`-o track_sizes`).
    pub sizes_enabled: bool,
    /// Whether items have a CAS unique (not `-C`).
    pub cas_enabled: bool,
    /// Requests that are refused although memcached takes them.
    pub strict: Option<Strict>,
    /// The rows of `stats settings`, in order.
    pub rows: Vec<(String, String)>,
}

/// How the server is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Drain RAM to dry first.
    Graceful,
    /// As fast as it can be done cleanly.
    Now,
}

/// What commands may do to the process: stop it, and make it log more or less.
pub struct Control {
    /// Cancelled when the server is to stop.
    pub stop: CancellationToken,
    how: AtomicU8,
    set_verbosity: Box<dyn Fn(u32) + Send + Sync>,
}

impl Default for Control {
    /// `verbosity` changes nothing.
    fn default() -> Control {
        Control::new(Box::new(|_| {}))
    }
}

impl Control {
    /// `set_verbosity` is what `verbosity` does to the log.
    pub fn new(set_verbosity: Box<dyn Fn(u32) + Send + Sync>) -> Control {
        Control {
            stop: CancellationToken::new(),
            how: AtomicU8::new(Stop::Graceful as u8),
            set_verbosity,
        }
    }

    pub(super) fn set_verbosity(&self, level: u32) {
        (self.set_verbosity)(level);
    }

    /// Asks the server to stop; the first to ask decides how.
    pub fn request_stop(&self, how: Stop) {
        if !self.stop.is_cancelled() {
            self.how.store(how as u8, Relaxed);
            self.stop.cancel();
        }
    }

    /// How it was asked to stop.
    pub fn how(&self) -> Stop {
        if self.how.load(Relaxed) == Stop::Now as u8 {
            Stop::Now
        } else {
            Stop::Graceful
        }
    }
}

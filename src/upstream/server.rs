//! One upstream server as all workers see it: is it up, what was asked of it, what it was not told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::access::Access;
use super::config::{Address, PoolConfig};
use super::connection::{Dialect, End};
use super::greeting::Understood;
use super::name::{self, Way};
use super::undelivered::Undelivered;

/// Upper bounds of the latency histogram, in microseconds; what takes longer is in one more row.
pub const LATENCY_US: [u64; 8] = [100, 250, 500, 1_000, 2_500, 10_000, 50_000, 250_000];

/// A server of a pool.
#[derive(Debug)]
pub struct Server {
    /// Where it is.
    pub address: Address,
    /// How it is reached.
    pub(super) way: Way,
    pub(super) access: Arc<Access>,
    pub(super) connect_timeout: Duration,
    pub(super) request_timeout: Duration,
    /// Zero for never.
    pub(super) idle_timeout: Duration,
    pub(super) eject_after: u32,
    failures_in_a_row: AtomicU32,
    ejected: AtomicBool,
    /// Told when the server is ejected or has missed a delete: somebody has to look after it.
    pub(super) needs_care: Notify,
    /// The [connections made](Server::connections_made) when copies were last known to be of no former
    /// process at its address.
    pub copies_since: AtomicU64,
    /// What it was asked.
    pub stats: Stats,
    shown: Mutex<Shown>,
    /// Shared with what else speaks to the same place, as before a reload.
    pub(super) undelivered: Arc<Undelivered>,
}

/// What a server has shown of itself.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// Its version, in its own words.
    pub version: String,
    /// What it understood when it was last connected to.
    pub dialect: Option<Dialect>,
    /// Why it failed last.
    pub last_error: Option<String>,
}

/// Figures of one server, of all workers together.
#[derive(Debug, Default)]
pub struct Stats {
    /// Requests that were sent or refused.
    pub requests: AtomicU64,
    /// Requests that failed, whatever the reason.
    pub errors: AtomicU64,
    /// Requests that were not answered in time.
    pub timeouts: AtomicU64,
    /// Requests refused because the server is ejected.
    pub refused: AtomicU64,
    /// Connections closed because an answer was not understood or was another's.
    pub garbled: AtomicU64,
    /// Requests whose value was larger than is taken.
    pub too_large: AtomicU64,
    /// Connections made.
    pub connects: AtomicU64,
    /// Times that the server was ejected.
    pub ejections: AtomicU64,
    /// Answers by latency, see [`LATENCY_US`].
    pub latency: [AtomicU64; LATENCY_US.len() + 1],
}

impl Stats {
    pub(super) fn answered_after(&self, time: Duration) {
        let us = time.as_micros() as u64;
        let row = LATENCY_US.partition_point(|bound| *bound < us);
        self.latency[row].fetch_add(1, Relaxed);
    }
}

impl Server {
    /// A server of `pool` that nobody has spoken to yet.
    pub(super) fn new(
        address: &Address,
        pool: &PoolConfig,
        access: &Arc<Access>,
        undelivered: Arc<Undelivered>,
    ) -> Server {
        Server {
            address: address.clone(),
            way: Way::to(&address.place, name::system),
            access: Arc::clone(access),
            connect_timeout: pool.connect_timeout.0,
            request_timeout: pool.request_timeout.0,
            idle_timeout: pool.idle_timeout.0,
            eject_after: pool.eject_after,
            failures_in_a_row: AtomicU32::new(0),
            // What it was not told before it has to be told first.
            ejected: AtomicBool::new(!undelivered.is_empty()),
            needs_care: Notify::new(),
            // Before the first one there is no copy.
            copies_since: AtomicU64::new(1),
            stats: Stats::default(),
            shown: Mutex::default(),
            undelivered,
        }
    }

    /// Connections made to it so far. Behind each further one may be another process, which counts
    /// CAS uniques from its own beginning.
    #[inline]
    pub fn connections_made(&self) -> u64 {
        self.stats.connects.load(Acquire)
    }

    /// Time after which it has answered a request or never will.
    pub fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// The same in whole seconds, rounded up.
    pub fn request_seconds_max(&self) -> u32 {
        let seconds = self.request_timeout.as_secs_f64().ceil();
        seconds as u32
    }

    /// Whether it gets no requests until it answers a probe.
    #[inline]
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Relaxed)
    }

    /// Deletes that it has not acknowledged yet.
    pub fn undelivered(&self) -> usize {
        self.undelivered.len()
    }

    /// Whether a delete of `key` has not reached the server: what it has under it must not be read.
    #[inline]
    pub fn missed_delete(&self, key: &[u8]) -> bool {
        self.undelivered.has(key)
    }

    /// Keeps a delete that the server did not acknowledge until it does. True if it outlives the process; if not, it is
    /// kept until the process ends.
    pub fn keep_delete(&self, key: &[u8]) -> bool {
        let is_written = self.undelivered.add(key);
        self.needs_care.notify_one();
        is_written
    }

    /// Keeps a flush that the server did not acknowledge until it does; true if it outlives the process.
    pub fn keep_flush(&self) -> bool {
        let is_written = self.undelivered.add_everything();
        self.needs_care.notify_one();
        is_written
    }

    /// Counts an answer.
    #[inline]
    pub(super) fn succeeded(&self) {
        if self.failures_in_a_row.load(Relaxed) != 0 {
            self.failures_in_a_row.store(0, Relaxed);
        }
    }

    /// What it has shown of itself so far.
    pub fn shown(&self) -> Shown {
        self.shown.lock().clone()
    }

    /// Notes what a connection has shown.
    pub(super) fn understands(&self, understood: Understood) {
        let mut shown = self.shown.lock();
        shown.version = understood.version;
        shown.dialect = Some(understood.dialect);
    }

    /// Counts a failed connection; enough of them in a row eject the server.
    pub(super) fn failed(&self, end: &End) {
        let reason = end.to_string();
        self.shown.lock().last_error = Some(reason.clone());
        let failures = self.failures_in_a_row.fetch_add(1, Relaxed) + 1;
        if failures >= self.eject_after && !self.ejected.swap(true, Relaxed) {
            self.stats.ejections.fetch_add(1, Relaxed);
            tracing::warn!(server = %self.address.place, failures, reason, "upstream server ejected");
            self.needs_care.notify_one();
        }
    }

    /// Lets requests through again.
    pub(super) fn readmit(&self) {
        self.failures_in_a_row.store(0, Relaxed);
        if self.ejected.swap(false, Relaxed) {
            tracing::info!(server = %self.address.place, "upstream server is back");
        }
    }
}

//! What `watch` streams: events of keys and connections, to whoever asked for them.
//!
//! ```text
//!   worker, mover ── wants(kind)? ── no, as almost always: one load
//!                         └ yes: a line ─▶ each watcher's bounded buffer ─▶ its connection sends
//! ```
//!
//! Nobody waits for a watcher: what does not fit into its buffer is skipped and counted, and the
//! watcher is told how many lines it missed.

mod line;
mod watcher;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

pub use line::{Event, Removal};
pub use watcher::Subscription;

use watcher::Watcher;

/// Watchers at the same time, as in memcached.
const WATCHERS_MAX: usize = 20;

/// Bytes of lines that wait for one watcher, unless `-o watcher_logbuf_size` says otherwise.
pub const BUFFER_BYTES_DEFAULT: usize = 256 << 10;

/// A set of kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kinds(u32);

impl Kinds {
    /// Requests as they came.
    pub const RAW_COMMANDS: Kinds = Kinds(1);
    /// Items that leave RAM.
    pub const EVICTIONS: Kinds = Kinds(1 << 1);
    /// Keys asked for.
    pub const FETCHERS: Kinds = Kinds(1 << 2);
    /// Stores.
    pub const MUTATIONS: Kinds = Kinds(1 << 3);
    /// What the server does by itself.
    pub const SYSTEM: Kinds = Kinds(1 << 4);
    /// Connections that come and go.
    pub const CONNECTIONS: Kinds = Kinds(1 << 5);
    /// Deletes.
    pub const DELETIONS: Kinds = Kinds(1 << 6);
    /// Not of `watch`: gets are counted by prefix (`stats detail on`).
    pub const PREFIXES: Kinds = Kinds(1 << 30);
    /// Not of `watch`: requests are logged (`-vv`).
    pub const LOGGED_COMMANDS: Kinds = Kinds(1 << 31);
    /// Not of `watch` alone: what is told of requests as they come.
    pub const COMMANDS: Kinds = Kinds::RAW_COMMANDS.with(Kinds::LOGGED_COMMANDS);
    /// Not one.
    pub const NONE: Kinds = Kinds(0);

    /// memcached's names, in the order in which a shortened name is looked up. Its proxy's events
    /// do not happen here.
    const NAMES: [(&'static str, Kinds); 10] = [
        ("rawcmds", Kinds::RAW_COMMANDS),
        ("evictions", Kinds::EVICTIONS),
        ("fetchers", Kinds::FETCHERS),
        ("mutations", Kinds::MUTATIONS),
        ("sysevents", Kinds::SYSTEM),
        ("connevents", Kinds::CONNECTIONS),
        ("proxyreqs", Kinds::NONE),
        ("proxyevents", Kinds::NONE),
        ("proxyuser", Kinds::NONE),
        ("deletions", Kinds::DELETIONS),
    ];

    /// The kind of a name, which may be shortened.
    pub fn named(name: &[u8]) -> Option<Kinds> {
        let found = Kinds::NAMES
            .iter()
            .find(|(full, _)| full.as_bytes().starts_with(name));
        found.map(|(_, kind)| *kind)
    }

    /// Both.
    #[must_use]
    pub const fn with(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }

    /// Whether a kind is in both.
    #[inline]
    pub fn meets(self, other: Kinds) -> bool {
        self.0 & other.0 != 0
    }
}

/// Who watches, and what. Shared by all threads.
#[derive(Debug)]
pub struct Watch {
    /// What any watcher wants, and the switches beside them.
    wanted: AtomicU32,
    registry: Mutex<Registry>,
    buffer_bytes: usize,
    /// Numbers the lines over all threads.
    next_line: AtomicU64,
    sent: AtomicU64,
    skipped: AtomicU64,
}

#[derive(Debug, Default)]
struct Registry {
    watchers: Vec<Arc<Watcher>>,
    switches: Kinds,
}

/// The figures of `stats`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WatchStats {
    /// Watchers at this moment.
    pub watchers: u64,
    /// Lines put into watchers' buffers.
    pub sent: u64,
    /// Lines that did not fit.
    pub skipped: u64,
}

impl Default for Watch {
    fn default() -> Watch {
        Watch::new(BUFFER_BYTES_DEFAULT)
    }
}

impl Watch {
    /// Nobody watches yet. Each watcher will have so many bytes of lines waiting at most.
    pub fn new(buffer_bytes: usize) -> Watch {
        Watch {
            wanted: AtomicU32::new(0),
            registry: Mutex::default(),
            buffer_bytes,
            next_line: AtomicU64::new(1),
            sent: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
        }
    }

    /// Whether an event of one of these kinds interests anybody.
    #[inline]
    pub fn wants(&self, kinds: Kinds) -> bool {
        Kinds(self.wanted.load(Relaxed)).meets(kinds)
    }

    /// Turns a switch on or off.
    pub fn switch(&self, switch: Kinds, on: bool) {
        let mut registry = self.registry.lock();
        let others = Kinds(registry.switches.0 & !switch.0);
        registry.switches = if on { others.with(switch) } else { others };
        self.refresh(&registry);
    }

    /// One more watcher; `None` if there are too many.
    pub fn subscribe(self: &Arc<Watch>, kinds: Kinds) -> Option<Subscription> {
        let mut registry = self.registry.lock();
        if registry.watchers.len() >= WATCHERS_MAX {
            return None;
        }
        let watcher = Arc::new(Watcher::new(kinds, self.buffer_bytes));
        registry.watchers.push(Arc::clone(&watcher));
        self.refresh(&registry);
        Some(Subscription::new(Arc::clone(self), watcher))
    }

    fn unsubscribe(&self, watcher: &Arc<Watcher>) {
        let mut registry = self.registry.lock();
        registry
            .watchers
            .retain(|other| !Arc::ptr_eq(other, watcher));
        self.refresh(&registry);
    }

    fn refresh(&self, registry: &Registry) {
        let watched = registry
            .watchers
            .iter()
            .fold(registry.switches, |all, watcher| all.with(watcher.kinds()));
        self.wanted.store(watched.0, Relaxed);
    }

    /// Tells an event to those whom it interests. Ask [`Watch::wants`] first: this formats a line.
    #[cold]
    pub fn tell(&self, event: &Event<'_>) {
        let mut line = Vec::with_capacity(256);
        let number = self.next_line.fetch_add(1, Relaxed);
        line::write(&mut line, crate::clock::wall_us(), number, event);
        let watchers = &self.registry.lock().watchers;
        for watcher in watchers
            .iter()
            .filter(|watcher| watcher.kinds().meets(event.kind()))
        {
            let counter = if watcher.push(&line) {
                &self.sent
            } else {
                &self.skipped
            };
            counter.fetch_add(1, Relaxed);
        }
    }

    /// The figures of this moment.
    pub fn stats(&self) -> WatchStats {
        WatchStats {
            watchers: self.registry.lock().watchers.len() as u64,
            sent: self.sent.load(Relaxed),
            skipped: self.skipped.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(watch: &Watch, key: &[u8]) {
        watch.tell(&Event::Stored {
            key,
            status: "stored",
            command: "set",
            ttl: 0,
            class: 1,
            fd: 9,
            bytes: 2,
        });
    }

    #[test]
    fn interest_lasts_as_long_as_the_watcher() {
        let watch = Arc::new(Watch::default());
        assert!(!watch.wants(Kinds::MUTATIONS));
        let subscription = watch.subscribe(Kinds::MUTATIONS).unwrap();
        watch.switch(Kinds::PREFIXES, true);
        assert!(watch.wants(Kinds::MUTATIONS) && watch.wants(Kinds::PREFIXES));
        assert!(!watch.wants(Kinds::FETCHERS));
        drop(subscription);
        assert!(!watch.wants(Kinds::MUTATIONS) && watch.wants(Kinds::PREFIXES));
        watch.switch(Kinds::PREFIXES, false);
        assert!(!watch.wants(Kinds::PREFIXES));
    }

    #[test]
    fn there_is_a_limit_of_watchers() {
        let watch = Arc::new(Watch::default());
        let all: Vec<_> = (0..WATCHERS_MAX)
            .map(|_| watch.subscribe(Kinds::SYSTEM).unwrap())
            .collect();
        assert!(watch.subscribe(Kinds::SYSTEM).is_none());
        drop(all);
        assert!(watch.subscribe(Kinds::SYSTEM).is_some());
    }

    // The one who does not read misses lines and is told how many, once there is room again.
    #[tokio::test(flavor = "current_thread")]
    async fn a_slow_watcher_is_told_what_it_missed() {
        let watch = Arc::new(Watch::new(400));
        let mut slow = watch.subscribe(Kinds::MUTATIONS).unwrap();
        for _ in 0..10 {
            stored(&watch, b"k");
        }
        let first = String::from_utf8(slow.lines().await.to_vec()).unwrap();
        let kept = first.lines().count();
        assert!((1..10).contains(&kept), "{first}");
        assert!(first.lines().all(|line| line.contains("type=item_store")));
        stored(&watch, b"later");
        let second = String::from_utf8(slow.lines().await.to_vec()).unwrap();
        let mut lines = second.lines();
        assert_eq!(
            lines.next(),
            Some(format!("skipped={}", 10 - kept).as_str())
        );
        assert!(lines.next().unwrap().contains(" key=later "), "{second}");
        let stats = watch.stats();
        assert_eq!(
            (stats.sent, stats.skipped),
            (kept as u64 + 1, 10 - kept as u64)
        );
    }

    #[test]
    fn names_may_be_shortened() {
        assert_eq!(Kinds::named(b"fetch"), Some(Kinds::FETCHERS));
        assert_eq!(Kinds::named(b"deletions"), Some(Kinds::DELETIONS));
        assert_eq!(Kinds::named(b"proxyreqs"), Some(Kinds::NONE));
        assert_eq!(Kinds::named(b"fetchersx"), None);
    }
}

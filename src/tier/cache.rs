//! The cache's parts, and the heads that new items are appended to.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::config::{Admission, DryAhead, Evict, Policy, TierConfig};
use super::fetch::Fetcher;
use super::ghost::Ghost;
use super::index::{Index, KeyHash};
use super::mover::Mover;
use super::policy;
use super::sketch::Sketch;
use crate::clock::Clock;
use crate::dry::{Dry, Durability, Place};
use crate::entry::HashSeed;
use crate::metrics::{Counters, Metrics};
use crate::ram::{Address, Arena, SegmentKind};
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::watch::Watch;

/// Segments that only the mover may open: without them it could not move anything.
pub(super) const MOVER_RESERVE: u32 = 3;
/// RAM limit from which the index has 256 shards instead of 64.
const MANY_SHARDS_LIMIT_BYTES: u64 = 16 << 20;
/// Versions reserved ahead in the dry tier's state.
const VERSIONS_RESERVED: u64 = 1 << 32;
/// Smallest RAM limit that leaves room for the open segments.
pub(super) const MEMORY_BYTES_MIN: u64 = 1 << 20;

/// Why a cache could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The kernel refused memory.
    #[error("cannot reserve {bytes} bytes of memory")]
    Memory {
        /// How many.
        bytes: u64,
        /// Why.
        source: io::Error,
    },
    /// The limit is too small to work with.
    #[error("a memory limit of {0} bytes is too small, at least 1m is needed")]
    TooSmall(u64),
    /// A thread could not be started.
    #[error("cannot start the thread {name}")]
    Thread {
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The dry tier could not be read.
    #[error("cannot load the dry tier")]
    Dry(#[source] crate::dry::DryError),
}

/// A cache over hot, cold and dry. All methods take `&self`; it is shared by all threads.
pub struct Cache {
    pub(super) config: TierConfig,
    pub(super) clock: Arc<Clock>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) index: Index,
    pub(super) arena: Arena,
    pub(super) dry: Option<Arc<Dry>>,
    /// Whether a kill has to be on the device before the new state is visible.
    pub(super) commit_kills: bool,
    pub(super) heads: Box<[Mutex<Head>]>,
    pub(super) mover: Mutex<Mover>,
    pub(super) fetcher: Fetcher,
    pub(super) ghost: Ghost,
    /// Words of live items in RAM, when a segment was last chosen.
    pub(super) live_words: AtomicU64,
    /// Uses of keys, where dry's admission asks for them.
    pub(super) sketch: Option<Sketch>,
    /// The clock of RAM: see [`policy::worth`].
    pub(super) floor: AtomicU64,
    /// The limit of `-m`, as `cache_memlimit` may change it.
    pub(super) memory_limit: AtomicUsize,
    next_version: AtomicU64,
    reserved_version: AtomicU64,
    /// Items whose version is not greater are flushed.
    pub(super) flush_version: AtomicU64,
    /// Dry segments below this one hold nothing but flushed items.
    pub(super) flush_segment: AtomicU32,
    /// When a delayed flush is due; 0 for none.
    pub(super) flush_deadline: AtomicU32,
    /// The shard that the expiry pass looks at next.
    pub(super) next_expiry_shard: AtomicUsize,
    /// Everything expired is to be reclaimed at the mover's next turn.
    pub(super) expire_all: AtomicBool,
    pub(super) stop: AtomicBool,
    pub(super) wake: Wake,
    /// Told each time segments became free.
    pub(super) room: tokio::sync::Notify,
    /// When a store last waited for room until its patience was over.
    pub(super) waited_in_vain: Mutex<Option<Instant>>,
    pub(super) on_access: OnceLock<OnAccess>,
    pub(super) watch: OnceLock<Arc<Watch>>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

/// What is told of each item that is brought up from dry.
pub type OnAccess = Box<dyn Fn(Place) + Send + Sync>;

/// What the mover's thread sleeps on.
#[derive(Debug, Default)]
pub(super) struct Wake {
    wanted: Mutex<bool>,
    signal: Condvar,
}

impl Wake {
    pub(super) fn notify(&self) {
        let mut wanted = self.wanted.lock();
        if !*wanted {
            *wanted = true;
            self.signal.notify_one();
        }
    }

    pub(super) fn wait(&self, at_most: Duration) {
        let deadline = Instant::now() + at_most;
        let mut wanted = self.wanted.lock();
        while !*wanted && !self.signal.wait_until(&mut wanted, deadline).timed_out() {}
        *wanted = false;
    }
}

/// A thread's own view of the cache: where it appends, what it counts, its scratch memory.
#[derive(Debug)]
pub struct Local {
    pub(super) head: usize,
    /// The thread's counters.
    pub counters: Arc<Counters>,
    pub(super) record: Vec<u8>,
    /// An item that is not in RAM, laid out as if it were.
    pub(super) words: Vec<std::sync::atomic::AtomicU64>,
}

/// The open segments that one thread appends new items to.
#[derive(Debug, Default)]
pub(super) struct Head {
    hot: Option<u32>,
    cold: Option<u32>,
    /// A run opened for the one large item that comes next.
    run: Option<(u32, SegmentKind)>,
}

/// A head while one item is stored. A run that was opened for an item which was not stored after
/// all is given back.
pub(super) struct LockedHead<'a> {
    arena: &'a Arena,
    head: MutexGuard<'a, Head>,
}

impl Deref for LockedHead<'_> {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.head
    }
}

impl DerefMut for LockedHead<'_> {
    fn deref_mut(&mut self) -> &mut Head {
        &mut self.head
    }
}

impl Drop for LockedHead<'_> {
    fn drop(&mut self) {
        if let Some((number, _)) = self.head.run.take() {
            self.arena.seal(number);
        }
    }
}

/// Where a new item was put.
#[derive(Debug, Clone, Copy)]
pub(super) struct Appended {
    pub(super) kind: SegmentKind,
    pub(super) address: Address,
    /// A run that is complete with this item.
    complete: Option<u32>,
}

/// Why there is no room for a new item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// Somebody is making room; wait for it.
    Wait,
    /// There is none to be had.
    Full,
}

/// What may be done for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Come back later rather than drop an item that dry has no time for.
    Wait,
    /// Drop items now.
    Drop,
}

impl Cache {
    /// Builds a cache for `workers` threads that append, without starting its threads.
    pub(super) fn build(
        config: TierConfig,
        clock: Arc<Clock>,
        metrics: Arc<Metrics>,
        dry: Option<Arc<Dry>>,
        workers: usize,
    ) -> Result<Cache, StartError> {
        let limit = config.memory_limit().0;
        if limit < MEMORY_BYTES_MIN {
            return Err(StartError::TooSmall(limit));
        }
        let memory = |source| StartError::Memory {
            bytes: limit,
            source,
        };
        let seed = dry.as_ref().map_or_else(random_seed, |dry| dry.seed());
        let shard_bits = if cfg!(feature = "model") {
            // A model has one or two keys and makes a cache for each of a hundred thousand schedules.
            1
        } else if limit >= MANY_SHARDS_LIMIT_BYTES {
            8
        } else {
            6
        };
        let first_version = dry
            .as_ref()
            .map_or_else(crate::clock::wall_us, |dry| dry.first_version());
        let fetch_threads = if dry.is_some() {
            super::fetch::THREADS
        } else {
            0
        };
        Ok(Cache {
            commit_kills: config.durability == Durability::Power,
            index: Index::new(seed, shard_bits).map_err(memory)?,
            arena: Arena::new(limit as usize).map_err(memory)?,
            heads: (0..workers + fetch_threads)
                .map(|_| Mutex::default())
                .collect(),
            mover: Mutex::default(),
            fetcher: Fetcher::default(),
            ghost: Ghost::new(limit as usize, config.hot_size.0 as f64 / limit as f64),
            sketch: (config.dry_admission == Admission::TinyLfu && dry.is_some())
                .then(|| Sketch::new(limit as usize)),
            live_words: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            memory_limit: AtomicUsize::new(limit as usize),
            next_version: AtomicU64::new(first_version),
            reserved_version: AtomicU64::new(0),
            flush_version: AtomicU64::new(dry.as_ref().map_or(0, |dry| dry.flush_version())),
            flush_segment: AtomicU32::new(0),
            flush_deadline: AtomicU32::new(
                dry.as_ref()
                    .and_then(|dry| dry.flush_deadline())
                    .unwrap_or(0),
            ),
            next_expiry_shard: AtomicUsize::new(0),
            expire_all: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            wake: Wake::default(),
            room: tokio::sync::Notify::new(),
            waited_in_vain: Mutex::default(),
            on_access: OnceLock::new(),
            watch: OnceLock::new(),
            threads: Mutex::default(),
            config,
            clock,
            metrics,
            dry,
        })
    }

    /// Builds and starts a cache for `workers` threads that append; loads what the dry tier holds
    /// first. `progress` hears of segments loaded, segments in all, and items so far.
    ///
    /// # Errors
    /// When memory or threads are refused, or the dry tier cannot be read.
    pub fn start(
        config: TierConfig,
        clock: Arc<Clock>,
        metrics: Arc<Metrics>,
        dry: Option<Arc<Dry>>,
        workers: usize,
        progress: &(dyn Fn(u64, u64, u64) + Sync),
    ) -> Result<(Arc<Cache>, super::RecoverReport), StartError> {
        let cache = Arc::new(Cache::build(config, clock, metrics, dry, workers)?);
        cache.own_dry();
        let report = cache.recover(progress)?;
        cache.spawn("mover".to_owned(), Cache::run_mover)?;
        let heads = cache.heads.len() - workers;
        let threads = match &cache.dry {
            Some(dry) if dry.is_remote() => super::fetch::REMOTE_THREADS,
            _ => heads,
        };
        for number in 0..threads {
            cache.spawn(format!("fetch-{number}"), move |cache| {
                cache.run_fetcher(workers + number % heads)
            })?;
        }
        Ok((cache, report))
    }

    fn spawn(
        self: &Arc<Cache>,
        name: String,
        run: impl FnOnce(&Arc<Cache>) + Send + 'static,
    ) -> Result<(), StartError> {
        let cache = Arc::clone(self);
        let thread = std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || run(&cache))
            .map_err(|source| StartError::Thread { name, source })?;
        self.threads.lock().push(thread);
        Ok(())
    }

    /// Sets who is told of items that are brought up from dry, once.
    pub fn set_on_access(&self, hook: OnAccess) {
        // Only the first one counts: the app sets one.
        let _ = self.on_access.set(hook);
    }

    /// Sets who is told of items that leave RAM, once.
    pub fn set_watch(&self, watch: Arc<Watch>) {
        // Only the first one counts: the app sets one.
        let _ = self.watch.set(watch);
    }

    /// Stops the cache's threads and waits for them. Operations still work, but nothing moves.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
        self.wake.notify();
        self.fetcher.stop();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the cache panicked");
            }
        }
    }

    /// The view of worker `number`, which must be below the `workers` of [`Cache::start`].
    pub fn local(&self, number: usize) -> Local {
        Local {
            head: number % self.heads.len(),
            counters: self.metrics.worker(),
            record: Vec::new(),
            words: Vec::new(),
        }
    }

    /// The next version. Versions grow over restarts.
    #[inline]
    pub(super) fn next_version(&self) -> u64 {
        let version = self.next_version.fetch_add(1, Relaxed) + 1;
        if version >= self.reserved_version.load(Relaxed) {
            self.reserve_versions(version);
        }
        version
    }

    #[cold]
    fn reserve_versions(&self, version: u64) {
        let upto = version + VERSIONS_RESERVED;
        if let Some(dry) = &self.dry
            && let Err(error) = dry.reserve_versions(upto)
        {
            tracing::error!("cannot persist the reserved versions: {error}");
        }
        self.reserved_version.fetch_max(upto, Relaxed);
    }

    /// The hash of a key.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> KeyHash {
        self.index.hash(key)
    }

    /// The tier that a new item of `words` goes to.
    pub(super) fn admit(&self, words: usize) -> SegmentKind {
        let hot_words = self.memory_limit.load(Relaxed) as f64 * self.hot_share() / 8.0;
        policy::admit(words, hot_words as usize)
    }

    /// Hot's present part of RAM.
    pub(super) fn hot_share(&self) -> f64 {
        self.ghost.hot_share()
    }

    /// A key that was not in RAM comes (back); answers the hits that it begins with.
    #[inline]
    pub(super) fn arrives(&self, hash: KeyHash, words: usize) -> u8 {
        let share = match self.config.policy {
            Policy::Fifo => (words * 8) as f64 / self.memory_limit.load(Relaxed).max(1) as f64,
            // Worth decides who leaves, so there is no border to move.
            _ => 0.0,
        };
        let known = self.ghost.returns(hash, share);
        known.map_or(0, |hits| {
            policy::worth::returning_hits(self.config.policy, hits)
        })
    }

    /// Whether items may be dropped for room.
    pub(super) fn may_evict(&self) -> bool {
        self.config.evict == Evict::Yes
    }

    /// Bytes per second to dry ahead, 0 for none.
    pub(super) fn dry_ahead_bytes(&self) -> u64 {
        match (self.config.dry_ahead, &self.dry) {
            (DryAhead::Rate(rate), Some(_)) => rate.0,
            _ => 0,
        }
    }

    /// Makes sure that `head` can take an item of `words` next.
    #[inline]
    pub(super) fn ensure_room(
        &self,
        head: &mut Head,
        words: usize,
        patience: Patience,
    ) -> Result<(), NoRoom> {
        match head.hot {
            Some(number) if words <= self.arena.room(number) && !self.needs_run(words) => Ok(()),
            _ => self.open_for(head, words, patience),
        }
    }

    #[cold]
    fn open_for(&self, head: &mut Head, words: usize, patience: Patience) -> Result<(), NoRoom> {
        let kind = self.admit(words);
        let segment_words = self.arena.segment_words();
        if self.needs_run(words) {
            if let Some((number, opened)) = head.run.take() {
                if self.arena.room(number) >= words {
                    head.run = Some((number, opened));
                    return Ok(());
                }
                self.arena.seal(number);
            }
            let span = words.div_ceil(segment_words) as u32;
            head.run = Some((self.open_segment(kind, span, patience)?, kind));
            return Ok(());
        }
        let open = match kind {
            SegmentKind::Hot => &mut head.hot,
            SegmentKind::Cold => &mut head.cold,
        };
        if open.is_some_and(|number| words <= self.arena.room(number)) {
            return Ok(());
        }
        if let Some(number) = open.take() {
            self.arena.seal(number);
        }
        *open = Some(self.open_segment(kind, 1, patience)?);
        Ok(())
    }

    /// Whether an item of `words` gets segments of its own.
    #[inline]
    pub(super) fn needs_run(&self, words: usize) -> bool {
        words > self.arena.segment_words() / 2
    }

    /// Takes `words` that [`Cache::ensure_room`] has promised.
    #[inline]
    pub(super) fn append(&self, head: &mut Head, words: usize) -> Appended {
        if self.needs_run(words) {
            let (number, kind) = head.run.take().expect("ensure_room opened a run");
            let address = self.arena.append(number, words as u32);
            return Appended {
                kind,
                address,
                complete: Some(number),
            };
        }
        let (kind, number) = match (head.hot, head.cold) {
            (Some(number), _) if words <= self.arena.room(number) => (SegmentKind::Hot, number),
            (_, Some(number)) => (SegmentKind::Cold, number),
            _ => unreachable!("ensure_room opened a segment"),
        };
        Appended {
            kind,
            address: self.arena.append(number, words as u32),
            complete: None,
        }
    }

    /// Ends an append once the item is written and visible (or dead again).
    #[inline]
    pub(super) fn appended(&self, appended: Appended) {
        if let Some(number) = appended.complete {
            self.arena.seal(number);
        }
    }

    /// Locks a head for one item.
    pub(super) fn lock_head(&self, number: usize) -> LockedHead<'_> {
        LockedHead {
            arena: &self.arena,
            head: self.heads[number].lock(),
        }
    }

    /// Seals what the heads have open, so that the mover can reach it.
    pub(super) fn seal_heads(&self) {
        for head in &self.heads {
            let mut head = head.lock();
            let run = head.run.take().map(|(number, _)| number);
            for number in [head.hot.take(), head.cold.take(), run]
                .into_iter()
                .flatten()
            {
                self.arena.seal(number);
            }
        }
    }
}

fn random_seed() -> HashSeed {
    use std::hash::{BuildHasher, RandomState};
    [
        RandomState::new().hash_one(0),
        RandomState::new().hash_one(1),
    ]
}

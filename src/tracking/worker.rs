//! The tracking thread: takes what the dry tier tells and brings the mirror up to it.
//!
//! Nobody waits for it. What is told is kept as a difference (segments to commit, segments to
//! forget), not as a queue of messages: ids are never reused, so it does not matter what came
//! first, and a segment that is freed before its turn costs nothing. Packed rows that wait are
//! bounded by [`WAITING_BYTES_MAX`]; beyond it only the segment's id is kept, and the thread asks
//! for its rows again ([`Start::resend`]) when it gets there. The same repairs what an earlier
//! process left undone: at start, segments that dry no longer has are forgotten and those that the
//! mirror lacks are asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::access::{self, Access};
use super::{PackedRows, SegmentEntry, StoreId, Totals, TrackError, Tracker};
use crate::clock::UnixSeconds;

/// Most bytes of packed rows that wait for the thread; a larger single segment may wait alone.
pub const WAITING_BYTES_MAX: usize = 8 << 20;

/// Most accesses that are kept between two updates; what is beyond is counted and dropped.
pub const ACCESSES_MAX: usize = 16 << 10;

/// Time between two updates of hits, last access and totals, and between two tries.
pub const UPDATE_INTERVAL: Duration = Duration::from_secs(60);

/// How often a mirror that turned out to be damaged is begun anew within one process.
pub const REBUILDS_MAX: u32 = 1;

/// A sealed segment and its rows.
#[derive(Debug, Clone, Default)]
pub struct Sealed {
    /// What the catalogue says of it.
    pub entry: SegmentEntry,
    /// Its rows; none with `rows = false`.
    pub rows: PackedRows,
}

/// Whether to open what is there or to begin anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rebuild {
    /// Open what is there.
    No,
    /// Set aside what is there.
    Yes,
}

/// Opens the backend, on the tracking thread.
pub type Open = Box<dyn FnMut(Rebuild) -> Result<Box<dyn Tracker>, TrackError> + Send>;

/// Reads a sealed segment's rows from dry again, on the tracking thread. `None` if it is gone or
/// cannot be read; it is asked for again after [`UPDATE_INTERVAL`] as long as it is live.
pub type Resend = Box<dyn FnMut(u32) -> Option<Sealed> + Send>;

/// What the thread begins with.
pub struct Start {
    /// Whose mirror it is.
    pub store: StoreId,
    /// The sealed segments that dry has at start.
    pub live: BTreeSet<u32>,
    /// Opens the backend.
    pub open: Open,
    /// Gives rows again.
    pub resend: Resend,
}

/// How far the mirror is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    /// Segments that wait to be committed.
    pub segments: u64,
    /// Bytes of packed rows that wait.
    pub bytes: u64,
    /// How long some segment has been waiting without a moment when none did.
    pub behind: Duration,
}

/// Counters since the start of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TrackingStats {
    /// Segments committed.
    pub segments: u64,
    /// Rows committed.
    pub rows: u64,
    /// Segments whose rows did not fit [`WAITING_BYTES_MAX`] and are asked for again.
    pub postponed: u64,
    /// Accesses dropped beyond [`ACCESSES_MAX`].
    pub accesses_dropped: u64,
    /// Times that the backend failed.
    pub errors: u64,
    /// Whether the backend was given up; the server goes on without it.
    pub failed: bool,
}

/// Tells the tracking thread; cheap to clone, never blocks on the backend.
#[derive(Clone)]
pub struct TrackingHandle {
    shared: Arc<Shared>,
}

/// Owns the tracking thread.
pub struct TrackingWorker {
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    /// There is work, or it is time to stop.
    work: Condvar,
    /// A flush is done, or the thread has ended.
    done: Condvar,
}

/// What the mirror should become. Bounded by the segments that dry has, and the two limits above.
#[derive(Default)]
struct State {
    live: BTreeSet<u32>,
    waiting: BTreeMap<u32, Sealed>,
    /// Of `waiting`, and of the segment that is being committed.
    waiting_bytes: usize,
    /// To be asked for.
    missing: BTreeSet<u32>,
    freed: BTreeSet<u32>,
    accesses: Vec<Access>,
    totals: Option<Totals>,
    behind_since: Option<Instant>,
    flush_wanted: u64,
    flush_done: u64,
    /// Whether the latest flush left nothing out.
    flush_complete: bool,
    stop: bool,
    ended: bool,
    stats: TrackingStats,
}

/// The next thing to do.
enum Work {
    Forget(u32),
    Commit(Sealed),
    Ask(u32),
    /// Accesses, totals, and what was put off; then flush up to this request.
    Update {
        accesses: Vec<Access>,
        totals: Option<Totals>,
        flush: u64,
    },
    Stop,
}

impl TrackingHandle {
    /// Tells that a segment is sealed. Comes before [`TrackingHandle::freed`] of the same segment.
    pub fn sealed(&self, sealed: Sealed) {
        let mut state = self.shared.state.lock();
        if state.ended {
            return;
        }
        let segment = sealed.entry.segment;
        let bytes = sealed.rows.bytes();
        state.live.insert(segment);
        if state.waiting_bytes > 0 && state.waiting_bytes + bytes > WAITING_BYTES_MAX {
            state.stats.postponed += 1;
            state.missing.insert(segment);
        } else {
            state.waiting_bytes += bytes;
            state.waiting.insert(segment, sealed);
        }
        state.behind_since.get_or_insert_with(Instant::now);
        self.shared.work.notify_one();
    }

    /// Tells that a segment is gone.
    pub fn freed(&self, segment: u32) {
        let mut state = self.shared.state.lock();
        if state.ended {
            return;
        }
        state.live.remove(&segment);
        state.missing.remove(&segment);
        if let Some(sealed) = state.waiting.remove(&segment) {
            state.waiting_bytes -= sealed.rows.bytes();
        }
        // Even if it was waiting: an earlier process may have committed it.
        state.freed.insert(segment);
        self.shared.work.notify_one();
    }

    /// Tells that a record was fetched: one lock and a push, and the thread is not woken.
    pub fn accessed(&self, segment: u32, offset: u32, hits: u8, last_access: UnixSeconds) {
        let mut state = self.shared.state.lock();
        if state.accesses.len() < ACCESSES_MAX && !state.ended {
            state.accesses.push(Access {
                segment,
                offset,
                hits,
                last_access,
            });
        } else {
            state.stats.accesses_dropped += 1;
        }
    }

    /// Replaces the totals; they are written with the next update.
    pub fn totals(&self, totals: Totals) {
        self.shared.state.lock().totals = Some(totals);
    }

    /// How far the mirror is behind.
    pub fn lag(&self) -> Lag {
        let state = self.shared.state.lock();
        Lag {
            segments: (state.waiting.len() + state.missing.len()) as u64,
            bytes: state.waiting_bytes as u64,
            behind: state
                .behind_since
                .map_or(Duration::ZERO, |since| since.elapsed()),
        }
    }

    /// The segments that the mirror lacks and whose rows are still to be asked for.
    pub fn missing(&self) -> Vec<u32> {
        self.shared.state.lock().missing.iter().copied().collect()
    }

    /// Counters for `stats`.
    pub fn stats(&self) -> TrackingStats {
        self.shared.state.lock().stats
    }

    /// Waits until everything told before is in the mirror and on disk, or for `timeout`. Tells
    /// whether it is; not so either when the backend fails or a segment's rows cannot be had.
    pub fn flush(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.state.lock();
        state.flush_wanted += 1;
        let wanted = state.flush_wanted;
        self.shared.work.notify_one();
        while state.flush_done < wanted && !state.ended {
            if self
                .shared
                .done
                .wait_until(&mut state, deadline)
                .timed_out()
            {
                break;
            }
        }
        state.flush_done >= wanted && state.flush_complete
    }
}

impl TrackingWorker {
    /// Starts the thread. It opens the backend, compares it with [`Start::live`], and follows.
    ///
    /// # Errors
    /// When the system gives no thread. A backend that does not open is logged and shown by
    /// [`TrackingStats::failed`]: the server runs without its mirror.
    pub fn start(start: Start) -> std::io::Result<TrackingWorker> {
        let state = State {
            live: start.live.clone(),
            ..State::default()
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            work: Condvar::new(),
            done: Condvar::new(),
        });
        let thread_shared = Arc::clone(&shared);
        let builder = thread::Builder::new().name("tracking".to_owned());
        let thread = builder.spawn(move || Thread::new(thread_shared, start).run())?;
        Ok(TrackingWorker {
            shared,
            thread: Some(thread),
        })
    }

    /// A handle for whoever has something to tell.
    pub fn handle(&self) -> TrackingHandle {
        TrackingHandle {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Flushes and ends the thread, within `timeout`. Tells whether the mirror is complete. A
    /// thread that does not end in time is left behind for the end of the process.
    pub fn close(mut self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let complete = self.handle().flush(timeout);
        self.shared.stop();
        let mut state = self.shared.state.lock();
        while !state.ended {
            if self
                .shared
                .done
                .wait_until(&mut state, deadline)
                .timed_out()
            {
                return false;
            }
        }
        drop(state);
        if let Some(thread) = self.thread.take() {
            // It ended by itself; a panic in it was caught and counted.
            let _ = thread.join();
        }
        complete
    }
}

impl Drop for TrackingWorker {
    /// Ends the thread after what it is doing, without waiting for it.
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl Shared {
    fn stop(&self) {
        self.state.lock().stop = true;
        self.work.notify_one();
    }
}

/// What only the thread itself uses.
struct Thread {
    shared: Arc<Shared>,
    start: Start,
    /// Segments whose commit or resend failed: tried again with the next update.
    put_off: BTreeSet<u32>,
    next_update: Instant,
}

impl Thread {
    fn new(shared: Arc<Shared>, start: Start) -> Thread {
        Thread {
            shared,
            start,
            put_off: BTreeSet::new(),
            next_update: Instant::now(),
        }
    }

    /// Follows until it is told to stop, beginning a damaged mirror anew.
    fn run(mut self) {
        let mut rebuild = Rebuild::No;
        let mut rebuilds = 0;
        while let Err(error) = self.follow_unless_panic(rebuild) {
            self.shared.state.lock().stats.errors += 1;
            let again = matches!(error, TrackError::Damaged { .. }) && rebuilds < REBUILDS_MAX;
            if !again {
                tracing::error!(%error, cause = cause(&error), "tracking is given up");
                self.shared.state.lock().stats.failed = true;
                break;
            }
            tracing::warn!(%error, "tracking is begun anew");
            rebuild = Rebuild::Yes;
            rebuilds += 1;
        }
        // Nobody will ask for what was collected.
        let mut state = self.shared.state.lock();
        let stats = state.stats;
        *state = State {
            ended: true,
            stats,
            ..State::default()
        };
        drop(state);
        self.shared.done.notify_all();
    }

    /// sled panics on some kinds of damage.
    fn follow_unless_panic(&mut self, rebuild: Rebuild) -> Result<(), TrackError> {
        let followed = catch_unwind(AssertUnwindSafe(|| self.follow(rebuild)));
        let panicked = |_| TrackError::Damaged {
            doing: "a panic of the backend".to_owned(),
        };
        followed.map_err(panicked)?
    }

    fn follow(&mut self, rebuild: Rebuild) -> Result<(), TrackError> {
        let mut tracker = (self.start.open)(rebuild)?;
        tracker.adopt(self.start.store)?;
        self.reconcile(&mut *tracker)?;
        self.next_update = Instant::now() + UPDATE_INTERVAL;
        loop {
            let done = match self.next_work() {
                Work::Stop => return tracker.flush(),
                Work::Forget(segment) => tracker.forget(segment),
                Work::Commit(sealed) => self.commit(&mut *tracker, &sealed),
                Work::Ask(segment) => self.ask(&mut *tracker, segment),
                Work::Update {
                    accesses,
                    totals,
                    flush,
                } => {
                    let updated = update(&mut *tracker, &accesses, totals.as_ref());
                    self.finish_update(flush, updated.is_ok());
                    updated
                }
            };
            match done {
                Err(error @ TrackError::Damaged { .. }) => return Err(error),
                Err(error) => self.count_error(&error),
                Ok(()) => {}
            }
        }
    }

    /// Finds what dry has and the mirror lacks, and the other way round.
    fn reconcile(&mut self, tracker: &mut dyn Tracker) -> Result<(), TrackError> {
        let mut mirrored = BTreeSet::new();
        tracker.segments(&mut |entry| {
            mirrored.insert(entry.segment);
        })?;
        let mut state = self.shared.state.lock();
        let state = &mut *state;
        state.freed.extend(mirrored.difference(&state.live));
        let lacking = state
            .live
            .difference(&mirrored)
            .filter(|id| !state.waiting.contains_key(id));
        state.missing.extend(lacking);
        // What was being committed when an earlier backend failed is among the missing now.
        state.waiting_bytes = state
            .waiting
            .values()
            .map(|sealed| sealed.rows.bytes())
            .sum();
        if !state.missing.is_empty() {
            state.behind_since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    /// Waits for something to do. A flush comes after all that was told before it.
    fn next_work(&mut self) -> Work {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state.lock();
        loop {
            if let Some(segment) = state.freed.pop_first() {
                return Work::Forget(segment);
            }
            if state.stop {
                return Work::Stop;
            }
            if let Some((_, sealed)) = state.waiting.pop_first() {
                return Work::Commit(sealed);
            }
            if let Some(segment) = state.missing.pop_first() {
                return Work::Ask(segment);
            }
            if self.put_off.is_empty() {
                state.behind_since = None;
            }
            let flush = state.flush_wanted;
            if flush > state.flush_done || Instant::now() >= self.next_update {
                let accesses = std::mem::take(&mut state.accesses);
                return Work::Update {
                    accesses,
                    totals: state.totals.take(),
                    flush,
                };
            }
            shared.work.wait_until(&mut state, self.next_update);
        }
    }

    /// Commits a segment, unless it was freed meanwhile.
    fn commit(&mut self, tracker: &mut dyn Tracker, sealed: &Sealed) -> Result<(), TrackError> {
        let segment = sealed.entry.segment;
        let committed = tracker.commit(&sealed.entry, &sealed.rows);
        let mut state = self.shared.state.lock();
        state.waiting_bytes -= sealed.rows.bytes();
        match &committed {
            Ok(()) => {
                state.stats.segments += 1;
                state.stats.rows += u64::from(sealed.rows.rows);
            }
            Err(_) => {
                self.put_off.insert(segment);
            }
        }
        committed
    }

    /// Asks dry for a segment's rows again and commits them.
    fn ask(&mut self, tracker: &mut dyn Tracker, segment: u32) -> Result<(), TrackError> {
        let Some(sealed) = (self.start.resend)(segment) else {
            self.put_off.insert(segment);
            return Ok(());
        };
        self.shared.state.lock().waiting_bytes += sealed.rows.bytes();
        self.commit(tracker, &sealed)
    }

    /// Puts what was put off in line again, and tells who waits for the flush.
    fn finish_update(&mut self, flush: u64, flushed: bool) {
        self.next_update = Instant::now() + UPDATE_INTERVAL;
        let mut state = self.shared.state.lock();
        let put_off = std::mem::take(&mut self.put_off);
        let live_again: Vec<u32> = put_off
            .into_iter()
            .filter(|segment| state.live.contains(segment))
            .collect();
        state.flush_done = flush;
        state.flush_complete = flushed && live_again.is_empty();
        state.missing.extend(live_again);
        self.shared.done.notify_all();
    }

    fn count_error(&self, error: &TrackError) {
        self.shared.state.lock().stats.errors += 1;
        tracing::warn!(%error, cause = cause(error), "tracking failed, it will be tried again");
    }
}

/// Brings rows and totals up to date and makes all of it lasting.
fn update(
    tracker: &mut dyn Tracker,
    accesses: &[Access],
    totals: Option<&Totals>,
) -> Result<(), TrackError> {
    access::apply(tracker, accesses)?;
    if let Some(totals) = totals {
        tracker.put_totals(totals)?;
    }
    tracker.flush()
}

/// What lies below an error, for the log.
fn cause(error: &TrackError) -> String {
    std::error::Error::source(error)
        .map(ToString::to_string)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::super::memory::MemoryTracker;
    use super::super::rows::tests::{pack, typical, unpack};
    use super::super::{Chunk, Total};
    use super::*;

    /// Longer than any wait here should take; a test that gets to it fails.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// What the next commit does.
    #[derive(Default)]
    enum Fault {
        #[default]
        None,
        Error,
        Panic,
        PanicAlways,
    }

    /// A mirror that the test can see into and make fail.
    #[derive(Clone, Default)]
    struct Glass(Arc<Mutex<(MemoryTracker, Fault)>>);

    impl Tracker for Glass {
        fn adopt(&mut self, store: StoreId) -> Result<(), TrackError> {
            self.0.lock().0.adopt(store)
        }
        fn segments(&self, each: &mut dyn FnMut(SegmentEntry)) -> Result<(), TrackError> {
            self.0.lock().0.segments(each)
        }
        fn commit(&mut self, segment: &SegmentEntry, rows: &PackedRows) -> Result<(), TrackError> {
            let mut glass = self.0.lock();
            match glass.1 {
                Fault::None => return glass.0.commit(segment, rows),
                Fault::PanicAlways => panic!("the backend panics, as the test told it"),
                Fault::Panic => {
                    glass.1 = Fault::None;
                    panic!("the backend panics once, as the test told it")
                }
                Fault::Error => glass.1 = Fault::None,
            }
            Err(TrackError::backend("commit", "as the test told it"))
        }
        fn forget(&mut self, segment: u32) -> Result<(), TrackError> {
            self.0.lock().0.forget(segment)
        }
        fn chunks(&self, segment: u32, each: &mut dyn FnMut(&Chunk)) -> Result<(), TrackError> {
            self.0.lock().0.chunks(segment, each)
        }
        fn chunk_at(&self, segment: u32, offset: u32) -> Result<Option<Chunk>, TrackError> {
            self.0.lock().0.chunk_at(segment, offset)
        }
        fn put_chunks(&mut self, segment: u32, chunks: &[Chunk]) -> Result<(), TrackError> {
            self.0.lock().0.put_chunks(segment, chunks)
        }
        fn put_totals(&mut self, totals: &Totals) -> Result<(), TrackError> {
            self.0.lock().0.put_totals(totals)
        }
        fn totals(&self) -> Result<Option<Totals>, TrackError> {
            self.0.lock().0.totals()
        }
        fn flush(&mut self) -> Result<(), TrackError> {
            self.0.lock().0.flush()
        }
    }

    impl Glass {
        fn ids(&self) -> Vec<u32> {
            let mut ids = Vec::new();
            self.segments(&mut |entry| ids.push(entry.segment)).unwrap();
            ids
        }

        fn set(&self, fault: Fault) {
            self.0.lock().1 = fault;
        }

        /// A worker on this mirror; dry has `live` and gives their rows again.
        fn start(&self, live: impl IntoIterator<Item = u32>) -> TrackingWorker {
            let glass = self.clone();
            self.start_with(live, move |rebuild| {
                if rebuild == Rebuild::Yes {
                    glass.0.lock().0 = MemoryTracker::default();
                }
                Ok(Box::new(glass.clone()))
            })
        }

        fn start_with(
            &self,
            live: impl IntoIterator<Item = u32>,
            open: impl FnMut(Rebuild) -> Result<Box<dyn Tracker>, TrackError> + Send + 'static,
        ) -> TrackingWorker {
            let live = live.into_iter().collect();
            let resend = Box::new(|segment| Some(sealed(segment)));
            let start = Start {
                store: [1; 16],
                live,
                open: Box::new(open),
                resend,
            };
            TrackingWorker::start(start).unwrap()
        }
    }

    fn sealed(segment: u32) -> Sealed {
        let entry = SegmentEntry {
            segment,
            ..SegmentEntry::default()
        };
        Sealed {
            entry,
            rows: pack(&typical(100)),
        }
    }

    /// As large as the bound, alone.
    fn large(segment: u32) -> Sealed {
        let mut large = sealed(segment);
        large.rows.chunks[0].bytes.resize(WAITING_BYTES_MAX, 0);
        large
    }

    #[test]
    fn what_dry_tells_is_mirrored() {
        let glass = Glass::default();
        let worker = glass.start([]);
        let handle = worker.handle();
        handle.sealed(sealed(1));
        handle.sealed(sealed(2));
        handle.accessed(2, typical(1)[0].1.offset, 1, 1_800_000_000);
        let totals = Totals {
            at: 9,
            entries: vec![Total::default()],
        };
        handle.totals(totals.clone());
        assert!(handle.flush(PATIENCE));
        assert_eq!((glass.ids(), handle.lag()), (vec![1, 2], Lag::default()));
        assert_eq!(glass.totals().unwrap(), Some(totals));
        let mut chunks = Vec::new();
        glass
            .chunks(2, &mut |chunk| chunks.push(chunk.clone()))
            .unwrap();
        let rows = unpack(&chunks);
        assert_eq!((rows[0].1.hits, rows[0].1.last_access), (1, 1_800_000_000));
        assert_eq!(rows[1..], typical(100)[1..]);
        handle.freed(1);
        assert!(worker.close(PATIENCE));
        assert_eq!(glass.ids(), [2]);
        assert_eq!(handle.stats().rows, 200);
    }

    // An earlier process was killed before it told all: 1 and 3 were freed since, 4 is new.
    #[test]
    fn the_start_repairs_what_an_earlier_process_left() {
        let mut glass = Glass::default();
        glass.adopt([1; 16]).unwrap();
        for segment in [1, 2, 3] {
            glass
                .commit(&sealed(segment).entry, &sealed(segment).rows)
                .unwrap();
        }
        assert!(glass.start([2, 4]).close(PATIENCE));
        assert_eq!(glass.ids(), [2, 4]);
    }

    // The thread is held up in `open`, so that everything below waits for it.
    #[test]
    fn beyond_the_bound_rows_are_dropped_and_asked_for_again() {
        let glass = Glass::default();
        let (go, wait) = mpsc::channel::<()>();
        let tracker = glass.clone();
        let worker = glass.start_with([], move |_| {
            wait.recv().unwrap();
            Ok(Box::new(tracker.clone()))
        });
        let handle = worker.handle();
        handle.sealed(large(1));
        handle.sealed(sealed(2));
        handle.sealed(sealed(3));
        assert_eq!(handle.missing(), [2, 3]);
        assert!(handle.lag().bytes as usize <= WAITING_BYTES_MAX + sealed(1).rows.bytes());
        assert_eq!((handle.lag().segments, handle.stats().postponed), (3, 2));
        // Freed before its turn: never asked for.
        handle.freed(3);
        for _ in 0..=ACCESSES_MAX {
            handle.accessed(2, 0, 1, 1);
        }
        assert_eq!(handle.stats().accesses_dropped, 1);
        go.send(()).unwrap();
        assert!(handle.flush(PATIENCE));
        assert_eq!((glass.ids(), handle.stats().segments), (vec![1, 2], 2));
        assert_eq!(handle.lag(), Lag::default());
    }

    #[test]
    fn a_failed_commit_is_tried_again() {
        let glass = Glass::default();
        glass.set(Fault::Error);
        let worker = glass.start([]);
        let handle = worker.handle();
        handle.sealed(sealed(1));
        // The first flush may find that something is left out; the second then makes up for it.
        let _ = handle.flush(PATIENCE);
        assert!(handle.flush(PATIENCE));
        assert_eq!((glass.ids(), handle.stats().errors), (vec![1], 1));
        assert!(!handle.stats().failed);
    }

    // A backend that panics is begun anew and gets all live segments again; then it is given up.
    #[test]
    fn a_damaged_mirror_is_rebuilt_once() {
        let glass = Glass::default();
        let worker = glass.start([1, 2]);
        let handle = worker.handle();
        assert!(handle.flush(PATIENCE));
        glass.set(Fault::Panic);
        handle.sealed(sealed(3));
        assert!(handle.flush(PATIENCE));
        assert_eq!((glass.ids(), handle.lag()), (vec![1, 2, 3], Lag::default()));

        glass.set(Fault::PanicAlways);
        handle.sealed(sealed(4));
        assert!(!handle.flush(PATIENCE));
        assert!(handle.stats().failed);
        // The server goes on telling, and nothing piles up.
        handle.sealed(sealed(5));
        handle.freed(5);
        handle.accessed(1, 1, 1, 1);
        assert_eq!(handle.lag(), Lag::default());
        assert!(!worker.close(PATIENCE));
    }

    #[test]
    fn a_backend_that_does_not_open_is_given_up() {
        let open = |_| Err(TrackError::backend("open", "as the test told it"));
        let worker = Glass::default().start_with([1], open);
        assert!(!worker.handle().flush(PATIENCE));
        assert!(worker.handle().stats().failed);
        assert!(!worker.close(PATIENCE));
    }

    // A backend that hangs does not hold up the end of the process.
    #[test]
    fn close_does_not_wait_for_ever() {
        let (_go, wait) = mpsc::channel::<()>();
        let worker = Glass::default().start_with([], move |_| {
            let _ = wait.recv();
            Err(TrackError::backend("open", "the test is over"))
        });
        assert!(!worker.close(Duration::from_millis(1)));
    }
}

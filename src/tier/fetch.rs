//! Bringing items up from dry: on the calling thread where the bytes are in memory, else once for
//! all who wait, on threads that may block.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::cache::{Cache, Local, Patience};
use super::index::KeyHash;
use super::neighbours;
use super::promote::NotNow;
use super::slot::Location;
use crate::dry::{OFFSET_UNIT_BYTES, Place, ReadMode};

/// Threads that read the device, and heads that all fetch threads append to.
pub(super) const THREADS: usize = 4;
/// Threads that read a remote store: as many requests are under way at once.
pub(super) const REMOTE_THREADS: usize = 32;
/// Fetches that wait for a thread; more are misses.
const QUEUE_MAX: usize = 4096;
/// Operations that wait for one fetch; more are misses.
const WAITERS_MAX: usize = 1024;
/// Times that one operation fetches its key before it counts as a miss: the item was evicted again
/// each time before the operation could run.
const FETCHES_MAX: u8 = 4;
/// How long an operation waits for room before it looks again.
pub(super) const ROOM_PAUSE: Duration = Duration::from_millis(1);
/// Shards of the map of fetches in flight.
const FLIGHT_SHARDS: usize = 64;

/// What an operation has tried so far. It lives as long as the operation on one key.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attempt {
    pub(super) fetches: u8,
    /// What lies below is not this key's or cannot be had: a miss.
    pub(super) ignore_below: bool,
    /// The item was brought up for this operation.
    pub(super) brought_up: bool,
    room_since: Option<Instant>,
    room_over: bool,
}

impl Attempt {
    pub(super) fn patience(&self) -> Patience {
        if self.room_over {
            Patience::Drop
        } else {
            Patience::Wait
        }
    }

    /// True the first time.
    pub(super) fn begin_wait_for_room(&mut self) -> bool {
        let first = self.room_since.is_none();
        self.room_since.get_or_insert_with(Instant::now);
        first
    }
}

/// What an operation waits for.
#[derive(Debug)]
pub enum Blocked {
    /// An item that is on its way up.
    Fetch(Ticket),
    /// Room for a new item.
    Room,
    /// A kill that has to be on the device first.
    Commit {
        /// The key's hash.
        hash: u64,
        /// The copy to kill.
        location: Location,
    },
}

/// The end of a fetch, to be waited for.
#[derive(Debug)]
pub struct Ticket(oneshot::Receiver<Fetched>);

/// How a fetch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fetched {
    /// The item was in RAM a moment ago; look again.
    Up,
    /// A copy was killed; look again.
    Killed,
    /// It cannot be had.
    Lost,
}

/// What a fetch thread is to do.
#[derive(Debug)]
enum Job {
    Fetch {
        hash: KeyHash,
        location: Location,
        key: Box<[u8]>,
        /// When somebody asked for it.
        since: Instant,
    },
    Kill {
        hash: KeyHash,
        location: Location,
    },
}

/// Fetches that wait and fetches in flight.
#[derive(Debug)]
pub(super) struct Fetcher {
    queue: Mutex<Queue>,
    work: Condvar,
    flights: DashMap<Location, Vec<oneshot::Sender<Fetched>>>,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    stopped: bool,
}

impl Default for Fetcher {
    fn default() -> Fetcher {
        Fetcher {
            queue: Mutex::default(),
            work: Condvar::new(),
            flights: DashMap::with_shard_amount(FLIGHT_SHARDS),
        }
    }
}

impl Fetcher {
    /// Joins the flight for a location, starting it if need be; `None` where a bound is reached. One that
    /// begins later waits for [`Fetcher::begin`], or for a thread that comes by.
    fn join(
        &self,
        location: Location,
        begin: Begin,
        job: impl FnOnce() -> Job,
        shared: impl FnOnce(),
    ) -> Option<Ticket> {
        let (sender, receiver) = oneshot::channel();
        match self.flights.entry(location) {
            Entry::Occupied(mut flight) => {
                if flight.get().len() >= WAITERS_MAX {
                    return None;
                }
                flight.get_mut().push(sender);
                shared();
            }
            Entry::Vacant(place) => {
                let mut queue = self.queue.lock();
                if queue.stopped || queue.jobs.len() >= QUEUE_MAX {
                    return None;
                }
                queue.jobs.push_back(job());
                drop(queue);
                place.insert(vec![sender]);
                if begin == Begin::Now {
                    self.work.notify_one();
                }
            }
        }
        Some(Ticket(receiver))
    }

    fn land(&self, location: Location, end: Fetched) {
        for waiter in self
            .flights
            .remove(&location)
            .into_iter()
            .flat_map(|(_, waiters)| waiters)
        {
            // A waiter that gave up has dropped its end.
            let _ = waiter.send(end);
        }
    }

    /// Has the flights begun that were joined for later.
    fn begin(&self) {
        self.work.notify_all();
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.queue.lock();
        loop {
            if queue.stopped {
                return None;
            }
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            self.work.wait(&mut queue);
        }
    }

    /// Takes the fetches out of the queue that one request can serve together with `first`, and the
    /// span of all of them.
    fn neighbours(&self, first: Location) -> (Vec<Job>, Option<(Place, usize)>) {
        let Some((segment, range)) = first.place().map(|(place, bytes)| range(place, bytes)) else {
            return (Vec::new(), None);
        };
        let mut queue = self.queue.lock();
        let others = queue.jobs.iter().enumerate().filter_map(|(number, job)| {
            let Job::Fetch { location, .. } = job else {
                return None;
            };
            let (place, bytes) = location.place()?;
            let (other, range) = self::range(place, bytes);
            (other == segment).then_some((range, number))
        });
        let (span, mut numbers) = neighbours::gather(range, others.collect());
        if numbers.is_empty() {
            return (Vec::new(), None);
        }
        // From the back, so that the others keep their numbers.
        numbers.sort_unstable_by(|one, other| other.cmp(one));
        let taken = numbers
            .into_iter()
            .filter_map(|number| queue.jobs.remove(number));
        let first = Place {
            segment,
            offset: (span.start / u64::from(OFFSET_UNIT_BYTES)) as u32,
        };
        (
            taken.collect(),
            Some((first, (span.end - span.start) as usize)),
        )
    }

    pub(super) fn stop(&self) {
        let mut queue = self.queue.lock();
        queue.stopped = true;
        queue.jobs.clear();
        drop(queue);
        self.work.notify_all();
        self.flights.clear();
    }
}

impl Cache {
    /// Brings the item at a dry location up. `None`: run the operation again now.
    pub(super) fn bring_up(
        &self,
        local: &mut Local,
        attempt: &mut Attempt,
        hash: KeyHash,
        key: &[u8],
        location: Location,
    ) -> Option<Blocked> {
        attempt.fetches += 1;
        if attempt.fetches > FETCHES_MAX {
            local.counters.dry_misses_lost.bump();
            attempt.ignore_below = true;
            return None;
        }
        if self.arena.available() > super::cache::MOVER_RESERVE || self.dry_keeps_up() {
            let mut record = std::mem::take(&mut local.record);
            let done = self.try_fetch(
                local.head,
                hash,
                key,
                location,
                ReadMode::Cached,
                Patience::Wait,
                &mut record,
            );
            local.record = record;
            match done {
                Ok(Fetched::Up) => {
                    attempt.brought_up = true;
                    return None;
                }
                Ok(Fetched::Killed) => return None,
                Ok(Fetched::Lost) => {
                    attempt.ignore_below = true;
                    local.counters.dry_misses_lost.bump();
                    return None;
                }
                Err(NotNow) => {}
            }
        }
        // Of a remote store one request serves many: they gather until somebody waits.
        let begin = if self.is_remote() {
            Begin::Later
        } else {
            Begin::Now
        };
        let ticket = self.fetcher.join(
            location,
            begin,
            || Job::Fetch {
                hash,
                location,
                key: key.into(),
                since: Instant::now(),
            },
            || self.metrics.engine.fetches_shared.add_shared(1),
        );
        if ticket.is_none() {
            local.counters.dry_misses_queue.bump();
            attempt.ignore_below = true;
        }
        ticket.map(Blocked::Fetch)
    }

    /// Starts bringing a key up that a later operation will ask for.
    pub fn prefetch(&self, local: &mut Local, key: &[u8]) {
        let hash = self.hash(key);
        let shard = self.index.lock(hash);
        let found = self.find(&shard, hash, key);
        drop(shard);
        if let (None, Some((_, slot))) = (found.ram, found.dry)
            && self.is_live_below(slot, self.clock.recent())
        {
            drop(self.bring_up(local, &mut Attempt::default(), hash, key, slot.location));
        }
    }

    /// Commits the kill that blocks an operation on this thread.
    pub fn commit_now(&self, blocked: Blocked) {
        if let Blocked::Commit { hash, location } = blocked {
            self.commit_kill(KeyHash(hash), location);
        }
    }

    fn is_remote(&self) -> bool {
        self.dry.as_ref().is_some_and(|dry| dry.is_remote())
    }

    fn dry_keeps_up(&self) -> bool {
        self.dry.as_ref().is_some_and(|dry| dry.queue_bytes() == 0)
    }

    /// Waits for what blocked an operation. Afterwards the operation runs again with `attempt`.
    pub async fn wait(&self, local: &Local, blocked: Blocked, attempt: &mut Attempt) {
        let deadline = self.config.dry_deadline.0;
        match blocked {
            Blocked::Fetch(ticket) => {
                self.fetcher.begin();
                self.wait_for(local, ticket, attempt, deadline).await;
            }
            Blocked::Commit { hash, location } => {
                let job = || Job::Kill {
                    hash: KeyHash(hash),
                    location,
                };
                // Never give up on a kill: without it the write must not run.
                match self.fetcher.join(location, Begin::Now, job, || {}) {
                    Some(Ticket(end)) => drop(end.await),
                    None => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
            Blocked::Room => {
                let waited = attempt
                    .room_since
                    .map_or(Duration::ZERO, |since| since.elapsed());
                let left = self.config.dry_wait.0.saturating_sub(waited);
                let room = self.room.notified();
                tokio::pin!(room);
                room.as_mut().enable();
                self.wake.notify();
                // Never without a pause: what is available may be too little for a large item.
                let pause = if self.arena.available() <= super::cache::MOVER_RESERVE {
                    left
                } else {
                    left.min(ROOM_PAUSE)
                };
                let timed_out = tokio::time::timeout(pause, room).await.is_err();
                if left.is_zero() || timed_out && pause == left {
                    attempt.room_over = true;
                    *self.waited_in_vain.lock() = Some(Instant::now());
                }
            }
        }
    }

    async fn wait_for(
        &self,
        local: &Local,
        ticket: Ticket,
        attempt: &mut Attempt,
        deadline: Duration,
    ) {
        match tokio::time::timeout(deadline, ticket.0).await {
            Ok(Ok(Fetched::Up)) => attempt.brought_up = true,
            Ok(Ok(Fetched::Killed)) => {}
            Ok(Ok(Fetched::Lost) | Err(_)) => {
                attempt.ignore_below = true;
                local.counters.dry_misses_lost.bump();
            }
            Err(_) => {
                attempt.ignore_below = true;
                local.counters.dry_misses_deadline.bump();
            }
        }
    }

    /// One fetch thread.
    pub(super) fn run_fetcher(self: &Arc<Cache>, head: usize) {
        let mut record = Vec::new();
        while let Some(job) = self.fetcher.next() {
            let mut others = Vec::new();
            if let (Job::Fetch { location, .. }, Some(dry)) = (&job, &self.dry)
                && dry.is_remote()
            {
                let span;
                (others, span) = self.fetcher.neighbours(*location);
                if let Some((first, bytes)) = span {
                    dry.prefetch(first, bytes);
                }
            }
            self.run_job(head, job, &mut record);
            for other in others {
                self.run_job(head, other, &mut record);
            }
        }
    }

    fn run_job(&self, head: usize, job: Job, record: &mut Vec<u8>) {
        match job {
            // Nobody waits any more: all would have to wait behind a store that does not answer.
            Job::Fetch {
                location, since, ..
            } if since.elapsed() > self.config.dry_deadline.0 => {
                self.fetcher.land(location, Fetched::Lost);
            }
            Job::Fetch {
                hash,
                location,
                key,
                ..
            } => {
                let end = self.fetch_blocking(head, hash, &key, location, record);
                self.fetcher.land(location, end);
            }
            Job::Kill { hash, location } => {
                self.commit_kill(hash, location);
                self.fetcher.land(location, Fetched::Killed);
            }
        }
    }
}

/// When a fetch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begin {
    Now,
    /// When somebody waits: others are about to be asked for.
    Later,
}

/// A record's segment, and where in it the record lies.
fn range(place: Place, bytes: u32) -> (u32, std::ops::Range<u64>) {
    (place.segment, place.byte()..place.byte() + u64::from(bytes))
}

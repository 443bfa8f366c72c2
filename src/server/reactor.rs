//! A worker's own set of sockets: the kernel tells which are ready, and a bell wakes the worker from
//! other threads.
//!
//! Edge-triggered: the kernel tells once that something came, so an answered request costs it no
//! second look. What is not drained yet is remembered beside the socket (`crate::socket`).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use parking_lot::Mutex;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use tokio::sync::Notify;

/// Events that one look takes; the others come with the next. Few, so that those who are told to
/// end give their memory back before many more have taken some.
const EVENTS_MAX: usize = 16;

/// Stands for the bell among the sockets' numbers.
const BELL: u64 = u64::MAX;

/// Stands for all sockets that others read.
const OTHERS: u64 = u64::MAX - 1;

/// The sockets.
#[derive(Debug)]
pub(super) struct Reactor {
    epoll: OwnedFd,
    woken: Arc<Woken>,
}

impl Reactor {
    pub(super) fn new() -> io::Result<Reactor> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(
            &epoll,
            &bell,
            EventData::new_u64(BELL),
            EventFlags::IN | EventFlags::ET,
        )?;
        let woken = Arc::new(Woken {
            numbers: Mutex::default(),
            asleep: AtomicU8::new(Woken::AWAKE),
            bell,
            told: Notify::new(),
        });
        Ok(Reactor { epoll, woken })
    }

    /// Watches a socket under a number from now on, until it is closed. What it is ready for already
    /// is told too.
    pub(super) fn watch(&self, socket: impl AsFd, number: usize) -> io::Result<()> {
        let all = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, socket, EventData::new_u64(number as u64), all)?;
        Ok(())
    }

    /// Watches a socket that others read, until it is closed: each look tells that there is something to receive, as
    /// long as there is. Not edge-triggered, because others may look a moment too early and would not be told again.
    pub(super) fn watch_for_others(&self, socket: impl AsFd) -> io::Result<()> {
        let readable = EventFlags::IN | EventFlags::RDHUP;
        epoll::add(&self.epoll, socket, EventData::new_u64(OTHERS), readable)?;
        Ok(())
    }

    /// Who is woken by other threads and by itself.
    pub(super) fn woken(&self) -> &Arc<Woken> {
        &self.woken
    }

    /// Replaces `events` by what has happened; waits for something to happen if `sleep` says so.
    pub(super) fn look(&self, events: &mut Events, sleep: Sleep) {
        events.0.clear();
        let timeout = match sleep {
            Sleep::No => Some(&Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            }),
            Sleep::Yes => None,
        };
        match epoll::wait(&self.epoll, spare_capacity(&mut events.0), timeout) {
            Ok(_) | Err(Errno::INTR) => {}
            // Only a bug can make it fail otherwise, and the worker could not serve anybody.
            Err(error) => panic!("wait for sockets: {error}"),
        }
        self.woken.awake();
    }
}

impl AsFd for Reactor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

/// Whether to wait for an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sleep {
    Yes,
    No,
}

/// What one look found.
pub(super) struct Events(Vec<Event>);

impl Events {
    pub(super) fn new() -> Events {
        Events(Vec::with_capacity(EVENTS_MAX))
    }

    /// Forgets them.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether more may be waiting.
    pub(super) fn is_full(&self) -> bool {
        self.0.len() == EVENTS_MAX
    }

    /// The numbers of the sockets, with what they are ready for.
    #[inline]
    pub(super) fn sockets(&self) -> impl Iterator<Item = (usize, EventFlags)> {
        let sockets = self.0.iter().filter(|event| event.data.u64() < OTHERS);
        sockets.map(|event| (event.data.u64() as usize, event.flags))
    }

    /// Whether there is something to receive for others.
    pub(super) fn has_others(&self) -> bool {
        self.0.iter().any(|event| event.data.u64() == OTHERS)
    }
}

/// The numbers of those that are to be looked at though their sockets say nothing.
#[derive(Debug)]
pub(super) struct Woken {
    numbers: Mutex<Vec<usize>>,
    /// Where the worker waits, or is about to: it would not see a new number there.
    asleep: AtomicU8,
    bell: OwnedFd,
    told: Notify,
}

impl Woken {
    const AWAKE: u8 = 0;
    /// It waits for its sockets, and hears the bell.
    const FOR_SOCKETS: u8 = 1;
    /// It waits within a runtime, and is told.
    const WITHIN_RUNTIME: u8 = 2;

    /// Has a number looked at soon. From any thread.
    pub(super) fn wake(&self, number: usize) {
        self.numbers.lock().push(number);
        match self.asleep.swap(Woken::AWAKE, Relaxed) {
            Woken::FOR_SOCKETS => {
                // It fails only when the count is full, and then it has rung already.
                let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
            }
            Woken::WITHIN_RUNTIME => self.told.notify_one(),
            _ => {}
        }
    }

    /// Whether the worker may sleep until its sockets say something: nobody is woken. From now on until it has
    /// looked again, the first who is rings the bell.
    pub(super) fn may_sleep(&self) -> Sleep {
        self.falls_asleep(Woken::FOR_SOCKETS)
    }

    /// The same for a sleep within a runtime, until [`told`](Woken::told) is over or the worker is
    /// [`awake`](Woken::awake).
    pub(super) fn may_sleep_within_runtime(&self) -> Sleep {
        self.falls_asleep(Woken::WITHIN_RUNTIME)
    }

    fn falls_asleep(&self, place: u8) -> Sleep {
        self.asleep.store(place, Relaxed);
        // Whoever adds a number after this has the lock after this, and sees that the worker sleeps.
        if self.numbers.lock().is_empty() {
            Sleep::Yes
        } else {
            Sleep::No
        }
    }

    /// The worker looks at who was woken before it sleeps again.
    pub(super) fn awake(&self) {
        self.asleep.store(Woken::AWAKE, Relaxed);
    }

    /// Replaces `numbers`, which are done, by those woken since.
    pub(super) fn take(&self, numbers: &mut Vec<usize>) {
        numbers.clear();
        std::mem::swap(numbers, &mut self.numbers.lock());
    }

    /// Waits within a runtime until somebody is woken.
    pub(super) async fn told(&self) {
        self.told.notified().await;
    }
}

//! A worker's tasks: each a future with the number of its socket, polled in place when the socket is
//! ready or somebody wakes it.
//!
//! ```text
//!   look at the sockets ──▶ poll their tasks ──▶ poll who was woken ──▶ poll some who stepped aside ──┐
//!        ▲ sleeps only when nobody is woken or stands aside                                           │
//!        └────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A task has one socket at most and is polled whenever that is ready, whatever it waits for: no
//! waker is made or stored for a socket. Everything else a task may wait for (timers, other
//! threads) wakes it in the usual way.
//!
//! Who steps aside for others stands in a queue of this thread, of which each round polls a few (`aside`): a request
//! that has just come, and whoever is told to end, wait for no more than those.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{AcqRel, Relaxed},
};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::yield_now;
use tokio::time::sleep;

use super::aside::{Aside, ROUND_TIME, Share};
use super::reactor::{Events, Reactor, Sleep, Woken};
use crate::socket::Readiness;

/// The number of the worker's own task.
const MAIN: usize = usize::MAX;

/// Turns without one of the runtime's, where there is a runtime.
const TURNS_ALONE_MAX: usize = 64;

/// Between two looks at the sockets where the runtime should sleep for them and cannot.
const UNWATCHED_PAUSE: Duration = Duration::from_millis(1);

/// Ends a task from any thread.
#[derive(Debug)]
pub(super) struct Closer {
    closed: AtomicBool,
    number: usize,
    woken: Arc<Woken>,
}

impl Closer {
    #[inline]
    fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// Has the task dropped, wherever it waits, when its worker comes to it.
    pub(super) fn close(&self) {
        if !self.closed.swap(true, Relaxed) {
            self.woken.wake(self.number);
        }
    }
}

/// Wakes a task.
#[derive(Debug)]
struct Alarm {
    number: usize,
    /// It waits among the woken already, which so hold each task once.
    rung: AtomicBool,
    woken: Arc<Woken>,
}

impl Alarm {
    /// Notes that the task is polled now: what rings from here on counts anew.
    fn heard(&self) {
        // What was done before it was rung is seen from here on, by whomever it was rung.
        self.rung.swap(false, AcqRel);
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.rung.swap(true, AcqRel) {
            self.woken.wake(self.number);
        }
    }
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    alarm: Arc<Alarm>,
    waker: Waker,
    closer: Arc<Closer>,
    /// It stands aside, and is polled when its turn comes there and not before.
    stands_aside: bool,
    /// It had so many turns and did not wait for anything between them.
    turns_in_a_row: u32,
}

#[derive(Default)]
struct Slot {
    readiness: Rc<Readiness>,
    /// Taken out while it is polled.
    task: Option<Box<Task>>,
}

/// All tasks of a worker.
pub(super) struct Tasks {
    reactor: Reactor,
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<usize>>,
    /// The number of the task that is polled, or was last.
    polled: Cell<usize>,
    /// Who is polled wants to stand aside.
    steps_aside: Cell<Option<Share>>,
    aside: RefCell<Aside>,
    /// The last look may not have told of all ready sockets.
    rushed: Cell<bool>,
}

/// Waits until there is something to look at, or somebody is woken.
async fn sleep_within_runtime(sockets: &AsyncFd<BorrowedFd<'_>>, woken: &Woken) {
    tokio::select! {
        ready = sockets.readable() => {
            if let Ok(mut ready) = ready {
                ready.clear_ready();
            }
        }
        () = woken.told() => {}
    }
}

/// The place of a task that is about to be made.
pub(super) struct Vacancy<'a> {
    tasks: &'a Tasks,
    number: usize,
    readiness: Rc<Readiness>,
}

impl Vacancy<'_> {
    /// Watches the task's socket.
    pub(super) fn watch(&self, socket: impl AsFd) -> io::Result<Rc<Readiness>> {
        self.tasks.reactor.watch(socket, self.number)?;
        Ok(Rc::clone(&self.readiness))
    }

    /// Makes the task. It begins once the worker comes to it.
    pub(super) fn fill(self, future: impl Future<Output = ()> + 'static) -> Arc<Closer> {
        let Vacancy {
            tasks,
            number,
            readiness,
        } = self;
        let woken = tasks.reactor.woken();
        let closer = Arc::new(Closer {
            closed: AtomicBool::new(false),
            number,
            woken: Arc::clone(woken),
        });
        let alarm = tasks.alarm(number);
        let task = Box::new(Task {
            future: Box::pin(future),
            waker: Waker::from(Arc::clone(&alarm)),
            alarm,
            closer: Arc::clone(&closer),
            stands_aside: false,
            turns_in_a_row: 0,
        });
        let slot = Slot {
            readiness,
            task: Some(task),
        };
        let mut slots = tasks.slots.borrow_mut();
        if number == slots.len() {
            slots.push(slot);
        } else {
            slots[number] = slot;
            tasks.free.borrow_mut().pop();
        }
        woken.wake(number);
        closer
    }
}

impl Tasks {
    pub(super) fn new() -> io::Result<Tasks> {
        Ok(Tasks {
            reactor: Reactor::new()?,
            slots: RefCell::default(),
            free: RefCell::default(),
            polled: Cell::default(),
            steps_aside: Cell::default(),
            aside: RefCell::default(),
            rushed: Cell::default(),
        })
    }

    /// Has the task that is polled stand aside once it returns: it is polled again when its turn comes, whatever else
    /// happens, after others had theirs.
    #[inline]
    pub(super) fn will_step_aside(&self, share: Share) {
        self.steps_aside.set(Some(share));
    }

    /// Lets the worker's other tasks have a turn first. The runtime's own way waits for a turn of the runtime.
    pub(super) async fn step_aside(&self, share: Share) {
        let mut stepped = false;
        poll_fn(|_| {
            if std::mem::replace(&mut stepped, true) {
                return Poll::Ready(());
            }
            self.will_step_aside(share);
            Poll::Pending
        })
        .await;
    }

    /// Whether turns should be short: many have long ones, or more sockets are ready than one look tells of.
    pub(super) fn is_crowded(&self) -> bool {
        self.rushed.get() || self.aside.borrow().is_crowded()
    }

    /// Whether more sockets were ready than the last look has told of.
    #[inline]
    pub(super) fn is_rushed(&self) -> bool {
        self.rushed.get()
    }

    /// Whether the thread may sleep until its sockets say something, see [`Woken::may_sleep`].
    fn may_sleep(&self) -> Sleep {
        if self.aside.borrow().is_empty() {
            self.reactor.woken().may_sleep()
        } else {
            Sleep::No
        }
    }

    /// A place for one more task.
    pub(super) fn vacancy(&self) -> Vacancy<'_> {
        let free = self.free.borrow().last().copied();
        Vacancy {
            tasks: self,
            number: free.unwrap_or_else(|| self.slots.borrow().len()),
            readiness: Rc::default(),
        }
    }

    /// Runs a task that has no socket here yet, see [`watch`](Tasks::watch).
    pub(super) fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        // It ends by itself.
        let _ = self.vacancy().fill(future);
    }

    fn alarm(&self, number: usize) -> Arc<Alarm> {
        Arc::new(Alarm {
            number,
            rung: AtomicBool::new(false),
            woken: Arc::clone(self.reactor.woken()),
        })
    }

    /// Runs `main` to its end and all tasks meanwhile, on this thread alone; what is left of them
    /// then is dropped. Each turn begins with `begin`.
    pub(super) fn run(&self, main: impl Future<Output = ()>, begin: impl Fn()) {
        let main = pin!(main);
        let mut turns = Turns::new(self, main, begin);
        while !turns.is_over() {
            turns.turn(self.may_sleep());
        }
    }

    /// Watches a socket for the task that is polled, in place of the one that it had.
    pub(super) fn watch(&self, socket: impl AsFd) -> io::Result<Rc<Readiness>> {
        let number = self.polled.get();
        // Whoever asks for this has just used it, and is not polled before the next look.
        let readiness = Rc::new(Readiness::assumed());
        self.reactor.watch(socket, number)?;
        let mut slots = self.slots.borrow_mut();
        debug_assert!(number < slots.len(), "no task is polled");
        if let Some(slot) = slots.get_mut(number) {
            slot.readiness = Rc::clone(&readiness);
        }
        Ok(readiness)
    }

    /// Gives the runtime a turn whenever something can be received from a socket that it watches for a task, see
    /// [`run_within_runtime`](Tasks::run_within_runtime).
    pub(super) fn watch_for_runtime(&self, socket: impl AsFd) -> io::Result<()> {
        self.reactor.watch_for_others(socket)
    }

    /// The same within a runtime, for tasks that need one now and then.
    ///
    /// The thread sleeps for its own sockets as [`run`](Tasks::run) does: the runtime's sleep would need a second look
    /// at them. The runtime has a turn when something can be received for it, when the worker's own task was woken
    /// (each second it is), and after so many turns. Only while `needs_runtime` says that a task waits for something
    /// else does the thread sleep there.
    ///
    /// To be run without the runtime's budget: who has used that up is woken only when the runtime has a turn.
    pub(super) async fn run_within_runtime(
        &self,
        main: impl Future<Output = ()>,
        begin: impl Fn(),
        needs_runtime: impl Fn() -> bool,
    ) {
        let woken = self.reactor.woken();
        let main = pin!(main);
        let mut turns = Turns::new(self, main, begin);
        let mut sockets = None;
        while !turns.is_over() {
            if !needs_runtime() {
                sockets = None;
                turns.alone(&needs_runtime);
            }
            // What the last look has left no event will tell of.
            let more = turns.events.is_full();
            turns.events.clear();
            if needs_runtime() {
                let more = more || !self.aside.borrow().is_empty();
                if !more && woken.may_sleep_within_runtime() == Sleep::Yes {
                    if sockets.is_none() {
                        sockets = self.watched_by_runtime();
                    }
                    match &sockets {
                        Some(sockets) => sleep_within_runtime(sockets, woken).await,
                        None => sleep(UNWATCHED_PAUSE).await,
                    }
                }
                turns.look(Sleep::No);
            }
            yield_now().await;
            woken.awake();
            turns.poll();
            // A connection that brings answers has woken those who wait for them.
            turns.poll_woken();
        }
    }

    /// All sockets as one that the runtime watches; none if the kernel has no room for that now.
    fn watched_by_runtime(&self) -> Option<AsyncFd<BorrowedFd<'_>>> {
        // Deprecated because a type may close its descriptor while it is watched; a borrowed one cannot.
        #[expect(deprecated)]
        let watched = AsyncFd::with_interest(self.reactor.as_fd(), Interest::READABLE);
        watched
            .inspect_err(|error| tracing::debug!(%error, "watch a worker's sockets"))
            .ok()
    }

    /// Polls a task because its socket is ready for something.
    #[inline]
    fn poll_ready(&self, number: usize, told: EventFlags) {
        let task = self.slots.borrow_mut().get_mut(number).and_then(|slot| {
            slot.readiness.add(told);
            slot.task.take_if(|task| !task.stands_aside)
        });
        if let Some(task) = task {
            self.poll(number, task);
        }
    }

    /// Polls a task because it was woken.
    fn poll_woken(&self, number: usize) {
        let task = self.slots.borrow_mut().get_mut(number).and_then(|slot| {
            if let Some(task) = &slot.task {
                task.alarm.heard();
            }
            // Who is told to end has no need of a turn.
            let now = |task: &mut Box<Task>| !task.stands_aside || task.closer.is_closed();
            slot.task.take_if(now)
        });
        if let Some(task) = task {
            self.poll(number, task);
        }
    }

    /// Polls a task because its turn has come. It may have ended, and another have its number.
    fn poll_aside(&self, number: usize) {
        let task = self.slots.borrow_mut().get_mut(number).and_then(|slot| {
            let mut task = slot.task.take()?;
            task.stands_aside = false;
            Some(task)
        });
        if let Some(task) = task {
            self.poll(number, task);
        }
    }

    /// Polls a task that was taken out of its slot.
    #[inline]
    fn poll(&self, number: usize, mut task: Box<Task>) {
        self.polled.set(number);
        let over = task.closer.is_closed() || {
            let mut context = Context::from_waker(&task.waker);
            let future = task.future.as_mut();
            // A panic ends its task alone. Nothing of the task is used afterwards.
            catch_unwind(AssertUnwindSafe(|| future.poll(&mut context).is_ready())).unwrap_or(true)
        };
        let steps_aside = self.steps_aside.take();
        if over {
            // Its number is free only once nothing of it is left.
            drop(task);
            self.free.borrow_mut().push(number);
            return;
        }
        match steps_aside {
            None => task.turns_in_a_row = 0,
            Some(share) => {
                task.stands_aside = true;
                let share = share.after(&mut task.turns_in_a_row);
                self.aside.borrow_mut().enter(number, share);
            }
        }
        if let Some(slot) = self.slots.borrow_mut().get_mut(number) {
            slot.task = Some(task);
        }
    }
}

/// The turns of all tasks, until the worker's own is over.
struct Turns<'a, M, B> {
    tasks: &'a Tasks,
    main: Pin<&'a mut M>,
    main_alarm: Arc<Alarm>,
    main_over: bool,
    /// Set whenever it is polled.
    main_polled: bool,
    begin: B,
    events: Events,
    numbers: Vec<usize>,
}

impl<'a, M: Future<Output = ()>, B: Fn()> Turns<'a, M, B> {
    fn new(tasks: &'a Tasks, main: Pin<&'a mut M>, begin: B) -> Turns<'a, M, B> {
        let mut turns = Turns {
            tasks,
            main,
            main_alarm: tasks.alarm(MAIN),
            main_over: false,
            main_polled: false,
            begin,
            events: Events::new(),
            numbers: Vec::new(),
        };
        turns.poll_main();
        turns
    }

    fn is_over(&self) -> bool {
        self.main_over
    }

    fn poll_main(&mut self) {
        self.main_polled = true;
        self.main_alarm.heard();
        let waker = Waker::from(Arc::clone(&self.main_alarm));
        let mut context = Context::from_waker(&waker);
        self.main_over = self.main_over || self.main.as_mut().poll(&mut context).is_ready();
    }

    fn turn(&mut self, sleep: Sleep) {
        self.look(sleep);
        self.poll();
    }

    /// Has turns until it is the runtime's turn.
    fn alone(&mut self, needs_runtime: impl Fn() -> bool) {
        for _ in 0..TURNS_ALONE_MAX {
            self.main_polled = false;
            self.turn(self.tasks.may_sleep());
            if self.main_polled || self.events.has_others() || needs_runtime() {
                return;
            }
        }
    }

    fn look(&mut self, sleep: Sleep) {
        self.tasks.reactor.look(&mut self.events, sleep);
        self.tasks.rushed.set(self.events.is_full());
    }

    /// Polls those whose sockets were seen to be ready, those who are woken, and some of those who stand aside.
    fn poll(&mut self) {
        (self.begin)();
        for (number, told) in self.events.sockets() {
            self.tasks.poll_ready(number, told);
        }
        self.poll_woken();
        if !self.tasks.aside.borrow().is_empty() {
            self.poll_aside();
        }
    }

    /// Polls those who stand aside, the light ones first, until the time is over or all had a turn; one of each kind at
    /// least.
    #[cold]
    fn poll_aside(&mut self) {
        let tasks = self.tasks;
        let (light, heavy) = tasks.aside.borrow().counts();
        let began = Instant::now();
        let poll_some = |count: usize, next: fn(&mut Aside) -> Option<usize>| {
            for _ in 0..count {
                // The borrow ends before anything is polled.
                let number = next(&mut tasks.aside.borrow_mut());
                if let Some(number) = number {
                    tasks.poll_aside(number);
                }
                if began.elapsed() >= ROUND_TIME {
                    break;
                }
            }
        };
        poll_some(light, Aside::next_light);
        poll_some(heavy, Aside::next_heavy);
    }

    /// Polls those that were woken so far; who is woken meanwhile comes later.
    fn poll_woken(&mut self) {
        let mut numbers = std::mem::take(&mut self.numbers);
        self.tasks.reactor.woken().take(&mut numbers);
        for number in &numbers {
            match *number {
                MAIN => self.poll_main(),
                number => self.tasks.poll_woken(number),
            }
        }
        self.numbers = numbers;
    }
}

impl<M, B> Drop for Turns<'_, M, B> {
    fn drop(&mut self) {
        // A task holds the worker, which holds the tasks.
        let left = self.tasks.slots.take();
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tells that it is dropped.
    struct Gone(Rc<Cell<bool>>);

    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }

    /// Lets all that are woken have a round.
    async fn next_round() {
        let mut had = false;
        poll_fn(|context| {
            if std::mem::replace(&mut had, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    // Hundreds that are sent megabytes each take turns; whoever is told to end, or has something to do now, comes first.
    #[test]
    fn who_stands_aside_keeps_nobody_waiting() {
        const MANY: usize = 300;
        let tasks = Rc::new(Tasks::new().unwrap());
        let turns = Rc::new(Cell::new(0));
        let gone = Rc::new(Cell::new(false));
        let mut closers = Vec::new();
        for number in 0..MANY {
            let (own, turns) = (Rc::downgrade(&tasks), Rc::clone(&turns));
            let gone = (number == MANY - 1).then(|| Gone(Rc::clone(&gone)));
            closers.push(tasks.vacancy().fill(async move {
                let _gone = gone;
                loop {
                    turns.set(turns.get() + 1);
                    // A turn that takes its time.
                    let began = Instant::now();
                    while began.elapsed() < ROUND_TIME / 2 {}
                    own.upgrade().unwrap().step_aside(Share::Full).await;
                }
            }));
        }
        let main = async {
            while turns.get() < 2 * MANY {
                next_round().await;
            }
            let before = turns.get();
            closers[MANY - 1].close();
            let mut rounds = 0;
            while !gone.get() {
                next_round().await;
                rounds += 1;
            }
            assert!(rounds <= 2, "{rounds} rounds");
            let between = turns.get() - before;
            assert!(between <= MANY / 10, "{between} turns came first");
        };
        tasks.run(main, || {});
        assert!(turns.get() >= 2 * MANY);
    }
}

//! A worker: one thread and the connections dealt to it.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, mpsc};
use tokio::task::unconstrained;
use tokio_util::context::TokioContext;

use super::accepted::Socket;
use super::buffers::Buffers;
use super::config::ServerConfig;
use super::connection;
use super::encrypted;
use super::gate::{Gate, Ticket};
use super::held::Held;
use super::stream::Stream;
use super::tasks::{Closer, Tasks};
use super::{ENTRY_SECONDS_MAX, HANDOVER_QUEUE, STOP_GRACE_SECONDS};
use crate::clients::{self, Doing, Peer};
use crate::command::{Executor, Progress, Shared, Wait};
use crate::socket::Readiness;
use crate::upstream::Home;
use crate::watch::{Event, Kinds};

/// A client that reads nothing of its answers for so long is closed, in seconds.
const UNREAD_SECONDS_MAX: u32 = 60;

/// What the workers and the acceptor have in common.
pub(super) struct Site {
    pub(super) config: ServerConfig,
    pub(super) shared: Arc<Shared>,
    pub(super) gate: Arc<Gate>,
    pub(super) held: Held,
    /// Whose timers the workers' waits use: a runtime without timers of its own is cheaper to wake.
    pub(super) timers: Handle,
    next_connection: AtomicU64,
}

impl Site {
    pub(super) fn new(config: &ServerConfig, shared: Arc<Shared>, timers: Handle) -> Site {
        Site {
            config: config.clone(),
            gate: Arc::new(Gate::new(config.max_connections, Arc::clone(&shared))),
            held: Held::new(config.item_size_max, Arc::clone(&shared)),
            timers,
            next_connection: AtomicU64::new(1),
            shared,
        }
    }
}

/// What a worker is told.
pub(super) enum Message {
    /// Serve this connection.
    Serve(Socket, Ticket),
    /// A second has passed.
    Tick,
    /// Finish what is being answered, then end.
    Stop,
}

/// What the worker knows about one of its connections.
#[derive(Debug)]
pub(super) struct Client {
    /// What `stats conns` shows of it.
    facts: Arc<clients::Client>,
    /// Why it ends, as watchers are told.
    ends: Cell<&'static str>,
    /// The half received request, if there is one.
    half: Cell<Option<Half>>,
    /// Set as soon as the task exists, before it runs.
    closer: OnceCell<Arc<Closer>>,
}

/// A request whose end has not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Half {
    /// The worker's second in which it began.
    begun: u32,
    /// Its bytes, as far as they are known.
    bytes: usize,
}

/// The state that the connections of one worker share. Never borrowed across an await.
pub(super) struct Worker {
    pub(super) site: Arc<Site>,
    pub(super) executor: RefCell<Executor>,
    /// Waits for what blocks a request. Apart from `executor`, which the worker's other connections
    /// borrow meanwhile.
    waiter: Executor,
    pub(super) buffers: Buffers,
    pub(super) tasks: Rc<Tasks>,
    clients: RefCell<HashMap<u64, Rc<Client>>>,
    second: Cell<u32>,
    stopping: Cell<bool>,
    emptied: Notify,
}

/// Starts the thread `worker-N`.
pub(super) fn start(
    number: usize,
    site: &Arc<Site>,
) -> io::Result<(mpsc::Sender<Message>, JoinHandle<()>)> {
    let (sender, inbox) = mpsc::channel(HANDOVER_QUEUE);
    let site = Arc::clone(site);
    let thread = std::thread::Builder::new()
        .name(format!("worker-{number}"))
        .spawn(move || {
            if let Err(error) = work(number, site, inbox) {
                tracing::error!(%error, number, "run a worker");
            }
        })?;
    Ok((sender, thread))
}

fn work(number: usize, site: Arc<Site>, inbox: mpsc::Receiver<Message>) -> io::Result<()> {
    let executor = || Executor::new(Arc::clone(&site.shared), number);
    let tasks = Rc::new(Tasks::new()?);
    let within_runtime = site.shared.upstream.is_some();
    let worker = || Worker {
        executor: RefCell::new(executor()),
        waiter: executor(),
        site: Arc::clone(&site),
        buffers: Buffers::default(),
        tasks: Rc::clone(&tasks),
        clients: RefCell::default(),
        second: Cell::new(0),
        stopping: Cell::new(false),
        emptied: Notify::new(),
    };
    if within_runtime {
        // Connections to upstream servers are made by a runtime, and encrypted by it.
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let worker = Rc::new(worker());
            let begin = || worker.begin_turn();
            worker.executor.borrow().settle(Box::new(ConnectionsHome {
                tasks: Rc::clone(&tasks),
                timers: site.timers.clone(),
            }));
            let needs_runtime = || worker.executor.borrow().needs_runtime();
            let run = run(&worker, inbox);
            unconstrained(tasks.run_within_runtime(run, begin, needs_runtime)).await;
        });
    } else {
        let worker = Rc::new(worker());
        tasks.run(run(&worker, inbox), || worker.begin_turn());
    }
    Ok(())
}

/// Connections to upstream servers are tasks of the worker, with the acceptor's timers.
struct ConnectionsHome {
    tasks: Rc<Tasks>,
    timers: Handle,
}

impl Home for ConnectionsHome {
    fn spawn(&self, connection: Pin<Box<dyn Future<Output = ()>>>) {
        self.tasks.spawn(connection);
    }

    fn watch(&self, socket: BorrowedFd<'_>) -> io::Result<Rc<Readiness>> {
        self.tasks.watch(socket)
    }

    fn watch_for_runtime(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.tasks.watch_for_runtime(socket)
    }

    fn timers(&self) -> Handle {
        self.timers.clone()
    }
}

async fn run(worker: &Rc<Worker>, mut inbox: mpsc::Receiver<Message>) {
    let mut grace_seconds_left = STOP_GRACE_SECONDS;
    loop {
        tokio::select! {
            message = inbox.recv() => match message {
                Some(Message::Serve(socket, ticket)) => worker.serve(socket, ticket),
                Some(Message::Tick) => {
                    worker.tick();
                    if worker.stopping.get() {
                        grace_seconds_left = grace_seconds_left.saturating_sub(1);
                    }
                }
                Some(Message::Stop) | None => worker.stop(),
            },
            () = worker.emptied.notified(), if worker.stopping.get() => {}
        }
        if worker.stopping.get() && (worker.clients.borrow().is_empty() || grace_seconds_left == 0)
        {
            return;
        }
    }
}

impl Worker {
    fn serve(self: &Rc<Worker>, socket: Socket, ticket: Ticket) {
        if self.stopping.get() {
            return;
        }
        let id = self.site.next_connection.fetch_add(1, Relaxed);
        let Ok((fd, peer, local)) = socket.ends() else {
            // It is gone already.
            return;
        };
        let Shared { clients, watch, .. } = &*self.site.shared;
        if watch.wants(Kinds::CONNECTIONS) {
            watch.tell(&Event::Opened { peer: &peer, fd });
        }
        let client = Rc::new(Client {
            facts: clients.enter(id, fd, peer, Some(local), Doing::Receiving),
            ends: Cell::new("normal"),
            half: Cell::new(None),
            closer: OnceCell::new(),
        });
        let place = Place {
            worker: Rc::clone(self),
            client: Rc::clone(&client),
            _ticket: ticket,
        };
        let vacancy = self.tasks.vacancy();
        let watched = |socket: OwnedFd| Stream::watched(socket, &vacancy);
        let watched = match socket {
            Socket::Tcp(stream) => watched(stream.into()).map(|stream| (stream, None)),
            Socket::Tls(stream, wanted) => {
                watched(stream.into()).map(|stream| (stream, Some(wanted)))
            }
            Socket::Unix(stream) => watched(stream.into()).map(|stream| (stream, None)),
            #[cfg(test)]
            Socket::Test(stream) => {
                vacancy.fill(connection::serve(stream, place, 0));
                return;
            }
        };
        let closer = match watched {
            Ok((stream, None)) => vacancy.fill(connection::serve(stream, place, 0)),
            Ok((stream, Some(wanted))) => vacancy.fill(encrypted::serve(stream, wanted, place)),
            Err(error) => return tracing::warn!(%error, "watch a connection"),
        };
        // The task's end is known by its place being dropped; its closer is only for closing it.
        let _ = client.closer.set(closer);
        self.clients.borrow_mut().insert(id, client);
    }

    /// Reads the clock, once for all that the worker's connections have received by now.
    fn begin_turn(&self) {
        self.executor.borrow_mut().tick();
    }

    /// Waits for what blocks a request.
    pub(super) async fn wait(&self, wait: Wait, progress: &mut Progress) {
        let waiting = self.waiter.wait(wait, progress);
        TokioContext::new(waiting, self.site.timers.clone()).await;
    }

    /// Waits for some time.
    pub(super) async fn pause(&self, time: Duration) {
        let pause = async { tokio::time::sleep(time).await };
        TokioContext::new(pause, self.site.timers.clone()).await;
    }

    /// Closes connections that are idle or stalled for too long.
    fn tick(&self) {
        self.second.set(self.site.shared.clients.second());
        let idle_seconds_max = self.site.config.idle_timeout.0.as_secs();
        let request_seconds_max = self.site.config.request_timeout.0.as_secs();
        let counters = &self.site.shared.metrics.server;
        for client in self.clients.borrow().values() {
            let seconds = self
                .second
                .get()
                .wrapping_sub(client.facts.progress_second());
            let kicks = match client.facts.doing() {
                Doing::Receiving
                    if idle_seconds_max > 0 && u64::from(seconds) > idle_seconds_max =>
                {
                    client.ends.set("idle_timeout");
                    &counters.idle_kicks
                }
                Doing::Receiving
                    if request_seconds_max > 0
                        && client.half.get().is_some_and(|half| {
                            half.seconds(self.second.get())
                                > request_seconds_max + half.bytes.div_ceil(1 << 20) as u64
                        }) =>
                {
                    client.ends.set("request_timeout");
                    &counters.stalled_kicks
                }
                Doing::Entering if seconds > ENTRY_SECONDS_MAX => {
                    client.ends.set("entry_timeout");
                    &counters.entry_kicks
                }
                Doing::Sending if seconds > UNREAD_SECONDS_MAX => &counters.unread_kicks,
                _ => continue,
            };
            kicks.fetch_add(1, Relaxed);
            client.close();
        }
    }

    fn stop(&self) {
        self.stopping.set(true);
        for client in self.clients.borrow().values() {
            if matches!(
                client.facts.doing(),
                Doing::Entering | Doing::Receiving | Doing::Watching
            ) {
                client.ends.set("shutdown");
                client.close();
            }
        }
    }

    /// Whether connections should end after the answer they are giving.
    pub(super) fn stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Notes that a request of a client is half received, and how many bytes it has.
    pub(super) fn half_received(&self, client: &Client, bytes: usize) {
        let begun = client
            .half
            .get()
            .map_or(self.second.get(), |half| half.begun);
        client.half.set(Some(Half { begun, bytes }));
    }

    /// Notes that a client sent or read something.
    #[inline]
    pub(super) fn progress(&self, client: &Client) {
        client.facts.progress(self.second.get());
    }
}

impl Half {
    fn seconds(self, now: u32) -> u64 {
        u64::from(now.wrapping_sub(self.begun))
    }
}

impl Client {
    pub(super) fn id(&self) -> u64 {
        self.facts.id
    }

    /// Number of its socket.
    pub(super) fn fd(&self) -> i32 {
        self.facts.fd
    }

    /// Where it came from.
    pub(super) fn peer(&self) -> &Peer {
        &self.facts.peer
    }

    #[inline]
    pub(super) fn set_doing(&self, doing: Doing) {
        self.facts.set_doing(doing);
    }

    /// Notes that the connection ends because of an error.
    pub(super) fn fail(&self) {
        self.ends.set("error");
    }

    /// Notes that a request came to its end.
    #[inline]
    pub(super) fn whole_request(&self) {
        self.half.set(None);
    }

    pub(super) fn closer(&self) -> Option<&Arc<Closer>> {
        self.closer.get()
    }

    fn close(&self) {
        if let Some(closer) = self.closer.get() {
            closer.close();
        }
    }
}

/// A connection's place on its worker; leaves it when dropped, however the connection ends.
pub(super) struct Place {
    pub(super) worker: Rc<Worker>,
    pub(super) client: Rc<Client>,
    _ticket: Ticket,
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.worker
                .site
                .shared
                .metrics
                .server
                .panics
                .fetch_add(1, Relaxed);
        }
        self.worker.site.held.release(self.client.id());
        let Shared { clients, watch, .. } = &*self.worker.site.shared;
        clients.leave(&self.client.facts);
        if watch.wants(Kinds::CONNECTIONS) {
            watch.tell(&Event::Closed {
                peer: self.client.peer(),
                reason: self.client.ends.get(),
                fd: self.client.fd(),
            });
        }
        let mut clients = self.worker.clients.borrow_mut();
        clients.remove(&self.client.id());
        if clients.is_empty() {
            self.worker.emptied.notify_one();
        }
    }
}

#[cfg(test)]
pub(super) mod tests;

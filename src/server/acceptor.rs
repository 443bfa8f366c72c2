//! The acceptor: one thread that takes connections in and deals them to the workers in turn.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::Socket;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::accepted;
use super::config::BeyondLimit;
use super::gate::Ticket;
use super::listener::Place;
use super::worker::{Message, Site};
use crate::clients::{Doing, Peer};

/// What a client over the limit is told.
const TOO_MANY: &[u8] = b"ERROR Too many open connections\r\n";

/// Listeners are no connections: those count from 1.
const LISTENER_ID: u64 = 0;

/// How long accepting rests when the process has no file descriptors left.
const EXHAUSTED_REST: Duration = Duration::from_millis(100);

/// When the acceptor ends what.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop {
    /// No connection is accepted any more.
    pub(super) accepting: CancellationToken,
    /// The workers have ended: nobody needs ticks and timers any more.
    pub(super) all: CancellationToken,
}

/// The runtime of the acceptor, whose timers the workers use too.
pub(super) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Starts the thread `acceptor`.
pub(super) fn start(
    runtime: Runtime,
    sockets: Vec<(Socket, Place)>,
    site: Arc<Site>,
    workers: Vec<mpsc::Sender<Message>>,
    stop: Stop,
) -> io::Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name("acceptor".to_owned());
    thread.spawn(move || runtime.block_on(run(sockets, site, workers, stop)))
}

async fn run(
    sockets: Vec<(Socket, Place)>,
    site: Arc<Site>,
    workers: Vec<mpsc::Sender<Message>>,
    stop: Stop,
) {
    let unix_sockets: Vec<_> = sockets
        .iter()
        .filter_map(|(_, place)| match place {
            Place::Unix(path) => Some(path.clone()),
            Place::Tcp(_) | Place::Tls(..) | Place::Given(_) => None,
        })
        .collect();
    let dealer = Arc::new(Dealer {
        site,
        workers,
        next: AtomicUsize::new(0),
    });
    let mut accepting = JoinSet::new();
    for (socket, place) in sockets {
        accepting.spawn(accept_all(socket, place, Arc::clone(&dealer)));
    }
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            // In this order: a busy machine may come to both stops at once, and the sockets go first.
            biased;
            () = stop.accepting.cancelled(), if !accepting.is_empty() => {
                accepting.shutdown().await;
                for path in &unix_sockets {
                    // The next start removes it as well; this only tidies up.
                    let _ = std::fs::remove_file(path);
                }
            }
            () = stop.all.cancelled() => return,
            _ = seconds.tick() => dealer.tick(),
        }
    }
}

struct Dealer {
    site: Arc<Site>,
    workers: Vec<mpsc::Sender<Message>>,
    next: AtomicUsize,
}

impl Dealer {
    fn tick(&self) {
        self.site.shared.clients.tick();
        for worker in &self.workers {
            // A worker whose inbox is full has other things to do; the next second comes soon.
            let _ = worker.try_send(Message::Tick);
        }
    }

    async fn deal(&self, socket: accepted::Socket, ticket: Ticket) {
        let number = self.next.fetch_add(1, Relaxed) % self.workers.len();
        // It fails only when the worker has ended, and with it the server.
        let _ = self.workers[number]
            .send(Message::Serve(socket, ticket))
            .await;
    }
}

/// A listening socket of either kind, watched by the acceptor's runtime.
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn watch(socket: Socket, place: &Place) -> io::Result<Listener> {
        Ok(match place {
            Place::Tcp(_) | Place::Tls(..) => Listener::Tcp(TcpListener::from_std(socket.into())?),
            Place::Unix(_) | Place::Given(_) => {
                Listener::Unix(UnixListener::from_std(OwnedFd::from(socket).into())?)
            }
        })
    }

    /// The next connection, free to be watched by a worker's runtime.
    async fn accept(&self, place: &Place) -> io::Result<accepted::Socket> {
        Ok(match self {
            Listener::Tcp(listener) => {
                let stream = listener.accept().await?.0.into_std()?;
                match place {
                    Place::Tls(_, wanted) => accepted::Socket::Tls(stream, *wanted),
                    _ => accepted::Socket::Tcp(stream),
                }
            }
            Listener::Unix(listener) => {
                accepted::Socket::Unix(listener.accept().await?.0.into_std()?)
            }
        })
    }
}

async fn accept_all(socket: Socket, place: Place, dealer: Arc<Dealer>) {
    let site = &dealer.site;
    let at = match &place {
        Place::Tcp(address) | Place::Tls(address, _) => Peer::Tcp(*address),
        Place::Unix(path) | Place::Given(path) => Peer::Unix(path.clone()),
    };
    let clients = &site.shared.clients;
    clients.enter(LISTENER_ID, socket.as_raw_fd(), at, None, Doing::Listening);
    let listener = match Listener::watch(socket, &place) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, %place, "watch a listener"),
    };
    loop {
        if site.config.beyond_limit == BeyondLimit::Wait {
            site.gate.wait().await;
        }
        let socket = match listener.accept(&place).await {
            Ok(socket) => socket,
            Err(error) => {
                rest_after(&error, &place).await;
                continue;
            }
        };
        match site.gate.enter() {
            Some(ticket) => dealer.deal(socket, ticket).await,
            None => {
                site.shared
                    .metrics
                    .server
                    .rejected_connections
                    .fetch_add(1, Relaxed);
                socket.dismiss(TOO_MANY);
            }
        }
    }
}

/// A failed accept concerns one connection, unless the process or the machine is out of something:
/// then trying again at once would only burn the processor.
async fn rest_after(error: &io::Error, place: &Place) {
    use rustix::io::Errno;
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    let exhausted = exhausted
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()));
    if exhausted {
        tracing::warn!(%error, %place, "accept rests");
        sleep(EXHAUSTED_REST).await;
    } else {
        tracing::debug!(%error, %place, "accept");
    }
}

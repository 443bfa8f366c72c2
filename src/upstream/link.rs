//! A worker's connections to the servers of all pools.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::Future;
use std::io;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::task::spawn_local;
use tokio::time::{Sleep, sleep_until};

use super::connection::{Connection, Done, Failure, Outcome};
use super::server::Server;
use crate::socket::Readiness;

/// One connection to each server that was asked for, shared by all clients of a worker. It lives on
/// one thread, whose runtime needs timers.
pub struct Link {
    /// In the order of the servers' addresses in memory.
    connections: RefCell<Vec<(*const Server, Rc<Connection>)>>,
    value_max: usize,
    common: Rc<Common>,
}

/// Where the connections of a link live: who runs them, and what else is done for them there.
pub trait Home {
    /// Runs a connection to its end, on this thread. It needs a runtime to connect, and where it is encrypted.
    fn spawn(&self, connection: Pin<Box<dyn Future<Output = ()>>>);

    /// Watches the socket of the connection that calls this, and polls the connection whenever something can be
    /// received or sent, until the socket is closed.
    ///
    /// # Errors
    /// The socket cannot be watched; the connection is not used then.
    fn watch(&self, socket: BorrowedFd<'_>) -> io::Result<Rc<Readiness>>;

    /// Gives the runtime, which watches this socket too, a turn whenever something can be received there. What else a
    /// connection waits for [`Link::needs_runtime`] tells.
    ///
    /// # Errors
    /// The socket cannot be watched; the connection is not used then.
    fn watch_for_runtime(&self, socket: BorrowedFd<'_>) -> io::Result<()>;

    /// The runtime whose timers end requests that are not answered.
    fn timers(&self) -> Handle;
}

/// What the connections of a link have in common.
pub(super) struct Common {
    /// The time of the worker's turn, which its requests are taken to begin at.
    pub(super) now: Cell<Instant>,
    /// Connections that wait for more than what [`Home`] sees.
    unsettled: Cell<usize>,
    home: OnceCell<Box<dyn Home>>,
}

impl Common {
    /// Runs a connection.
    pub(super) fn spawn(&self, connection: impl Future<Output = ()> + 'static) {
        match self.home() {
            Some(home) => home.spawn(Box::pin(connection)),
            None => drop(spawn_local(connection)),
        }
    }

    /// Where the connections live, if not as tasks of the runtime.
    pub(super) fn home(&self) -> Option<&dyn Home> {
        self.home.get().map(|home| &**home)
    }

    /// A timer that is over.
    pub(super) fn timer(&self) -> Sleep {
        let timers = self.home().map(Home::timers);
        let _entered = timers.as_ref().map(Handle::enter);
        sleep_until(tokio::time::Instant::now())
    }
}

/// A connection that waits for more than what its home sees, as long as this lives.
pub(super) struct Unsettled(Rc<Common>);

impl Unsettled {
    pub(super) fn new(common: &Rc<Common>) -> Unsettled {
        common.unsettled.update(|count| count + 1);
        Unsettled(Rc::clone(common))
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        self.0.unsettled.update(|count| count - 1);
    }
}

impl Link {
    /// A link that takes values of at most `value_max` bytes.
    pub fn new(value_max: usize) -> Link {
        Link {
            connections: RefCell::default(),
            value_max,
            common: Rc::new(Common {
                now: Cell::new(Instant::now()),
                unsettled: Cell::new(0),
                home: OnceCell::new(),
            }),
        }
    }

    /// Has the connections live at `home` from now on, rather than as tasks of the runtime; only the first home is
    /// taken.
    pub fn settle(&self, home: Box<dyn Home>) {
        let _ = self.common.home.set(home);
    }

    /// Whether a connection waits for something that its [`Home`] does not see: it is being made, or it is encrypted
    /// and cannot send.
    #[inline]
    pub fn needs_runtime(&self) -> bool {
        self.common.unsettled.get() > 0
    }

    /// Reads the clock; to be called in each turn before the first request.
    pub fn tick(&self) {
        self.common.now.set(Instant::now());
    }

    /// Sends a request to `server`, together with all others of this turn of the event loop.
    ///
    /// `encode` appends it, with the opaque number it is given where the request has one. `done`
    /// hears the answer, or why there is none, exactly once; perhaps before this returns.
    pub fn request(
        &self,
        server: &Arc<Server>,
        encode: impl FnOnce(&mut Vec<u8>, &[u8]),
        done: Done,
    ) {
        server.stats.requests.fetch_add(1, Relaxed);
        if server.is_ejected() {
            server.stats.refused.fetch_add(1, Relaxed);
            server.stats.errors.fetch_add(1, Relaxed);
            // Nothing was sent, so there is nothing to compare with.
            let _ = done(Outcome::Failed(Failure::Down));
            return;
        }
        self.connection(server).request(encode, done);
    }

    /// As [`Link::request`], to a server that may be ejected.
    pub(super) fn probe(
        &self,
        server: &Arc<Server>,
        encode: impl FnOnce(&mut Vec<u8>, &[u8]),
        done: Done,
    ) {
        self.tick();
        self.connection(server).request(encode, done);
    }

    /// Has `then` run after a pause, on this thread.
    pub fn after(&self, pause: Duration, then: impl FnOnce() + 'static) {
        let common = Rc::clone(&self.common);
        let mut timer = Box::pin(common.timer());
        timer.as_mut().reset(tokio::time::Instant::now() + pause);
        self.common.spawn(async move {
            timer.await;
            common.now.set(Instant::now());
            then();
        });
    }

    /// What the server of this link's connection understands; nothing before the first answer.
    pub fn connection(&self, server: &Arc<Server>) -> Rc<Connection> {
        let place = Arc::as_ptr(server);
        let connections = &mut *self.connections.borrow_mut();
        match connections.binary_search_by_key(&place, |(place, _)| *place) {
            Ok(at) => Rc::clone(&connections[at].1),
            Err(at) => {
                let server = Arc::clone(server);
                let connection = Connection::new(server, self.value_max, Rc::clone(&self.common));
                connections.insert(at, (place, Rc::clone(&connection)));
                connection
            }
        }
    }

    /// Closes the connections to servers that are not among `servers`, once they have answered.
    pub fn keep_only(&self, servers: &[Arc<Server>]) {
        self.connections
            .borrow_mut()
            .retain(|(server, connection)| {
                let stays = servers.iter().any(|kept| Arc::as_ptr(kept) == *server);
                if !stays {
                    connection.retire();
                }
                stays
            });
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for (_, connection) in self.connections.borrow().iter() {
            connection.retire();
        }
    }
}

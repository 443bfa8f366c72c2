//! A worker's connections to the servers of all pools.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::connection::{Connection, Done, Failure, Outcome};
use super::server::Server;

/// One connection to each server that was asked for, shared by all clients of a worker. It lives on
/// one thread, whose runtime needs timers.
pub struct Link {
    /// In the order of the servers' addresses in memory.
    connections: RefCell<Vec<(*const Server, Rc<Connection>)>>,
    value_max: usize,
    now: Now,
}

/// The time of a worker's turn, which its requests are taken to begin at.
pub(super) type Now = Rc<Cell<Instant>>;

impl Link {
    /// A link that takes values of at most `value_max` bytes.
    pub fn new(value_max: usize) -> Link {
        Link {
            connections: RefCell::default(),
            value_max,
            now: Rc::new(Cell::new(Instant::now())),
        }
    }

    /// Reads the clock; to be called in each turn before the first request.
    pub fn tick(&self) {
        self.now.set(Instant::now());
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

    /// What the server of this link's connection understands; nothing before the first answer.
    pub fn connection(&self, server: &Arc<Server>) -> Rc<Connection> {
        let place = Arc::as_ptr(server);
        let connections = &mut *self.connections.borrow_mut();
        match connections.binary_search_by_key(&place, |(place, _)| *place) {
            Ok(at) => Rc::clone(&connections[at].1),
            Err(at) => {
                let server = Arc::clone(server);
                let connection = Connection::new(server, self.value_max, Rc::clone(&self.now));
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

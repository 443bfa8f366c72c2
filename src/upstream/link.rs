//! A worker's connections to the servers of all pools.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::connection::{Connection, Done, Failure, Outcome};
use super::server::Server;

/// One connection to each server that was asked for, shared by all clients of a worker. It lives on
/// one thread, whose runtime needs timers.
#[derive(Default)]
pub struct Link {
    connections: RefCell<HashMap<*const Server, Rc<Connection>>>,
    value_max: usize,
}

impl Link {
    /// A link that takes values of at most `value_max` bytes.
    pub fn new(value_max: usize) -> Link {
        Link {
            connections: RefCell::default(),
            value_max,
        }
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
        self.connection(server).request(encode, done);
    }

    /// What the server of this link's connection understands; nothing before the first answer.
    pub fn connection(&self, server: &Arc<Server>) -> Rc<Connection> {
        let mut connections = self.connections.borrow_mut();
        let connection = connections
            .entry(Arc::as_ptr(server))
            .or_insert_with(|| Connection::new(Arc::clone(server), self.value_max));
        Rc::clone(connection)
    }

    /// Closes the connections to servers that are not among `servers`, once they have answered.
    pub fn keep_only(&self, servers: &[Arc<Server>]) {
        self.connections.borrow_mut().retain(|server, connection| {
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
        for connection in self.connections.borrow().values() {
            connection.retire();
        }
    }
}

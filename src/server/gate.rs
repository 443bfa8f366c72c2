//! The limit of connections: who may come in, and who waits for somebody to leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::Notify;

use crate::command::Shared;

/// Counts the connections of the whole server.
pub(super) struct Gate {
    connections_max: u64,
    shared: Arc<Shared>,
    left: Notify,
}

/// A connection's place; leaves when dropped.
pub(super) struct Ticket(Arc<Gate>);

impl Gate {
    pub(super) fn new(connections_max: usize, shared: Arc<Shared>) -> Gate {
        Gate {
            connections_max: connections_max as u64,
            shared,
            left: Notify::new(),
        }
    }

    fn open(&self) -> &AtomicU64 {
        &self.shared.metrics.server.curr_connections
    }

    /// Takes a place if there is one. Only the acceptor calls this, so the limit is exact.
    pub(super) fn enter(self: &Arc<Gate>) -> Option<Ticket> {
        if self.open().load(Relaxed) >= self.connections_max {
            return None;
        }
        self.open().fetch_add(1, Relaxed);
        self.shared
            .metrics
            .server
            .total_connections
            .fetch_add(1, Relaxed);
        Some(Ticket(Arc::clone(self)))
    }

    /// Waits until there may be a place.
    pub(super) async fn wait(&self) {
        while self.open().load(Relaxed) >= self.connections_max {
            self.left.notified().await;
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.open().fetch_sub(1, Relaxed);
        self.0.left.notify_one();
    }
}

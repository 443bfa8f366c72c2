//! The server: listeners, worker threads and the connections they serve.
//!
//! It moves bytes and keeps bounds; what a request means is `command`'s business.
//!
//! ```text
//!            acceptor thread                      worker-N threads, sockets of their own each (reactor)
//!   accept ── gate (limit) ── deal in turn ──▶ a task ── connection: receive ─ decode ─ execute ─ send
//!      └ a tick each second to all workers ──▶ idle and stalled connections are closed
//! ```
//!
//! A connection stays on its worker. One turn of it is one `recv`, all complete requests in what
//! came, and one `send`; a hit neither waits nor allocates nor leaves the thread. An idle
//! connection holds no buffer, and what stalled ones hold together is bounded (`held`).

mod accepted;
mod acceptor;
mod address;
mod aside;
mod auth;
mod buffers;
pub mod config;
mod connection;
mod encrypted;
mod gate;
mod held;
mod inherited;
mod input;
mod listener;
mod reactor;
mod stream;
mod tasks;
mod watching;
mod worker;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::mpsc;

pub use config::ServerConfig;
pub use listener::{ListenError, Listeners, Place, write_port_file};

use crate::command::Shared;
use acceptor::Stop;
use worker::{Message, Site};

/// Connections handed to a worker that it has not looked at yet. Beyond it the acceptor waits, and
/// further clients wait in the kernel's queue.
const HANDOVER_QUEUE: usize = 256;

/// How long after it was accepted a connection may not be encrypted or authenticated yet, in
/// seconds.
const ENTRY_SECONDS_MAX: u32 = 5;

/// How long a stop waits for connections that are in the midst of an answer, in seconds.
const STOP_GRACE_SECONDS: u32 = 3;

/// A running server.
pub struct Server {
    stop: Stop,
    acceptor: JoinHandle<()>,
    workers: Vec<(mpsc::Sender<Message>, JoinHandle<()>)>,
}

impl Server {
    /// Starts the workers, then listens.
    ///
    /// # Errors
    /// A thread or its runtime could not be made, or a listener refused.
    pub fn start(
        config: &ServerConfig,
        listeners: Listeners,
        shared: &Arc<Shared>,
    ) -> Result<Server, ListenError> {
        let runtime = acceptor::runtime().map_err(ListenError::Thread)?;
        let timers = runtime.handle().clone();
        let site = Arc::new(Site::new(config, Arc::clone(shared), timers));
        let workers: Vec<_> = (0..config.threads)
            .map(|number| worker::start(number, &site))
            .collect::<io::Result<_>>()
            .map_err(ListenError::Thread)?;
        let inboxes = workers.iter().map(|(inbox, _)| inbox.clone()).collect();
        let stop = Stop::default();
        let acceptor = acceptor::start(runtime, listeners.listen()?, site, inboxes, stop.clone())
            .map_err(ListenError::Thread)?;
        Ok(Server {
            stop,
            acceptor,
            workers,
        })
    }

    /// Stops accepting, lets the connections finish the answers they are giving, closes them and
    /// waits for the threads. Takes at most a few seconds.
    pub fn stop(self) {
        self.stop.accepting.cancel();
        for (inbox, _) in &self.workers {
            // It fails only when the worker has ended already.
            let _ = inbox.blocking_send(Message::Stop);
        }
        for (_, thread) in self.workers {
            // A thread that panicked has nothing left to be waited for.
            let _ = thread.join();
        }
        self.stop.all.cancel();
        let _ = self.acceptor.join();
    }
}

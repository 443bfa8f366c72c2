//! A TCP connection that misbehaves on request: between a proxy and a server of its pool.
//!
//! ```text
//!   proxy ◀──▶ Link ◀──▶ server        Fault: none, black hole, reset within a chunk, a byte a second
//! ```

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::Duration;

use crate::random::Random;

/// How much one read takes.
const CHUNK_BYTES: usize = 16 * 1024;
/// One chunk in this many ends in a reset where that is asked for.
const RESET_EVERY: u64 = 20;
/// Pause between two bytes of a trickle.
const TRICKLE_PAUSE: Duration = Duration::from_secs(1);

/// What happens to bytes on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// They stay where they are, in both directions. Once this is over they go on, also those of connections that were
    /// given up meanwhile: as after a partition.
    BlackHole,
    /// At times a part of them arrives, and then the connection is reset in both directions.
    Reset,
    /// What the server sends arrives a byte a second.
    Trickle,
}

/// A port that leads to a server.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
    resets: AtomicU64,
    seed: u64,
}

#[derive(Debug)]
struct State {
    fault: Fault,
    closed: bool,
    /// Connections taken so far.
    count: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToProxy,
}

impl Link {
    /// A link to the server at `target` without faults; `seed` decides where resets cut.
    ///
    /// # Panics
    /// When the kernel has no free port.
    pub fn to(target: SocketAddr, seed: u64) -> Link {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the kernel has a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            target,
            state: Mutex::new(State {
                fault: Fault::None,
                closed: false,
                count: 0,
            }),
            changed: Condvar::new(),
            resets: AtomicU64::new(0),
            seed,
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &accepting));
        Link { address, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What happens to bytes from now on.
    pub fn set(&self, fault: Fault) {
        self.shared.state().fault = fault;
        self.shared.changed.notify_all();
    }

    /// Connections that were reset so far.
    pub fn resets(&self) -> u64 {
        self.shared.resets.load(Ordering::Relaxed)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.state().closed = true;
        self.shared.changed.notify_all();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with it")
    }

    /// Waits while bytes stay where they are; none once the link is gone.
    fn pass(&self) -> Option<Fault> {
        let state = self.state();
        let waited = |state: &mut State| state.fault == Fault::BlackHole && !state.closed;
        let state = self.changed.wait_while(state, waited).ok()?;
        (!state.closed).then_some(state.fault)
    }

    /// Waits before the next byte of a trickle, unless that is over.
    fn trickle(&self) {
        let state = self.state();
        let waited = |state: &mut State| state.fault == Fault::Trickle && !state.closed;
        // Whether it timed out does not matter.
        let _ = self
            .changed
            .wait_timeout_while(state, TRICKLE_PAUSE, waited);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for proxy in listener.incoming().flatten() {
        let number = {
            let mut state = shared.state();
            if state.closed {
                return;
            }
            state.count += 1;
            state.count
        };
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // Nobody hears of a connection into a black hole before that is over.
            let server = shared
                .pass()
                .and_then(|_| TcpStream::connect(shared.target).ok());
            let Some(server) = server else { return };
            let streams = [proxy, server];
            // The peer may be gone by now.
            let _ = serve(&streams, &shared, number);
        });
    }
}

fn serve(streams: &[TcpStream; 2], shared: &Arc<Shared>, number: u64) -> io::Result<()> {
    for stream in streams {
        stream.set_nodelay(true)?;
    }
    let [proxy, server] = streams;
    thread::scope(|scope| {
        scope.spawn(|| pump(server, proxy, Direction::ToProxy, shared, number));
        pump(proxy, server, Direction::ToServer, shared, number);
    });
    Ok(())
}

/// Carries bytes one way until either end is gone, then ends both.
fn pump(
    mut from: &TcpStream,
    mut to: &TcpStream,
    direction: Direction,
    shared: &Shared,
    number: u64,
) {
    let mut random =
        Random::new(shared.seed ^ number << 1 ^ u64::from(direction == Direction::ToProxy));
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let length = match from.read(&mut chunk) {
            Ok(0) | Err(_) => break,
            Ok(length) => length,
        };
        let Some(fault) = shared.pass() else { break };
        let bytes = &chunk[..length];
        let sent = match fault {
            Fault::None | Fault::BlackHole => to.write_all(bytes),
            Fault::Reset if random.below(RESET_EVERY) == 0 => {
                let cut = random.below(length as u64) as usize;
                // What the other end has had of it by then is as good as lost.
                let _ = to.write_all(&bytes[..cut]);
                shared.resets.fetch_add(1, Ordering::Relaxed);
                reset(from);
                reset(to);
                return;
            }
            Fault::Reset => to.write_all(bytes),
            Fault::Trickle if direction == Direction::ToProxy => {
                bytes.iter().try_for_each(|byte| {
                    shared.trickle();
                    to.write_all(&[*byte])
                })
            }
            Fault::Trickle => to.write_all(bytes),
        };
        if sent.is_err() {
            break;
        }
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
}

/// Ends a connection by a reset, whoever else still holds the socket.
fn reset(stream: &TcpStream) {
    // It fails on a socket that is gone already, which is as good.
    let _ = rustix::net::connect_unspec(stream);
}

//! A gate in front of a server: open, closed, or open to connections that nothing comes out of.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

/// Bytes that are passed on at once.
const CHUNK_BYTES: usize = 64 << 10;

/// What the gate does with connections, old and new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Passes everything on.
    Open,
    /// Closes them at once.
    Closed,
    /// Takes what clients send and answers nothing.
    Silent,
}

/// A gate on a port of its own. Its threads end with the connections, the listener's with the process.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    mode: Mode,
    /// Both ends of every connection since the mode was last changed.
    sockets: Vec<TcpStream>,
}

impl Gate {
    /// An open gate to a server.
    ///
    /// # Panics
    /// When no port can be had.
    pub fn to(server: SocketAddr) -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let shared = Arc::new(Mutex::new(Shared {
            mode: Mode::Open,
            sockets: Vec::new(),
        }));
        let own = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A server that is not there is a connection that is closed.
                let _ = pass(client, server, &own);
            }
        });
        Gate { address, shared }
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the mode; connections of the former one end.
    pub fn set(&self, mode: Mode) {
        let mut shared = lock(&self.shared);
        shared.mode = mode;
        for socket in shared.sockets.drain(..) {
            // It may have ended by itself.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().expect("nobody panics while holding it")
}

fn pass(client: TcpStream, server: SocketAddr, shared: &Mutex<Shared>) -> io::Result<()> {
    let mut shared = lock(shared);
    match shared.mode {
        Mode::Closed => return Ok(()),
        Mode::Silent => {
            shared.sockets.push(client.try_clone()?);
            thread::spawn(move || copy(client, None));
        }
        Mode::Open => {
            let server = TcpStream::connect(server)?;
            for socket in [&client, &server] {
                socket.set_nodelay(true)?;
                shared.sockets.push(socket.try_clone()?);
            }
            let (back, forth) = (server.try_clone()?, client.try_clone()?);
            thread::spawn(move || copy(client, Some(server)));
            thread::spawn(move || copy(back, Some(forth)));
        }
    }
    Ok(())
}

/// Moves bytes until one side ends, and then ends the other one.
fn copy(mut from: TcpStream, mut to: Option<TcpStream>) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(bytes @ 1..) = from.read(&mut chunk) {
        if let Some(to) = &mut to
            && to.write_all(&chunk[..bytes]).is_err()
        {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    to.map(|to| to.shutdown(Shutdown::Both));
}

//! Pools for tests: real memcached servers on ports that stay, and a tiercache in front of them.

use std::net::{SocketAddr, TcpListener};

use tempfile::TempDir;

use crate::server::Server;

const PATIENCE: &str = "[memcached]\nrequest_timeout = \"10s\"\nconnect_timeout = \"10s\"\n";

/// Servers that keep their ports over restarts.
#[derive(Debug)]
pub struct Pool {
    /// The servers.
    pub servers: Vec<Server>,
    weights: Vec<u32>,
    states: std::cell::RefCell<Vec<TempDir>>,
}

impl Pool {
    /// A memcached for each weight.
    ///
    /// # Panics
    /// When they cannot be started.
    pub fn of_memcached(weights: &[u32]) -> Pool {
        Pool::of(weights, |port| Server::memcached(&["-p", port]))
    }

    /// A server of any kind for each weight, started by `start` at a port.
    ///
    /// # Panics
    /// When they cannot be started.
    pub fn of(weights: &[u32], start: impl Fn(&str) -> Server) -> Pool {
        let server = |_: &u32| start(&free_port().to_string());
        Pool {
            servers: weights.iter().map(server).collect(),
            weights: weights.to_vec(),
            states: std::cell::RefCell::default(),
        }
    }

    /// The servers as `HOST:PORT:WEIGHT`.
    pub fn names(&self) -> Vec<String> {
        let name = |(server, weight): (&Server, &u32)| format!("{}:{weight}", server.address());
        self.servers.iter().zip(&self.weights).map(name).collect()
    }

    /// `memcached://` and the servers.
    pub fn url(&self) -> String {
        format!("memcached://{}", self.names().join(","))
    }

    /// A tiercache that keeps nothing.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn proxy(&self, arguments: &[&str]) -> Server {
        self.tiercache(&[&["--hot", self.url().as_str()], arguments].concat())
    }

    /// A tiercache that keeps nothing, and for which a server that is busy with other tests is late, not gone.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn patient_proxy(&self, arguments: &[&str]) -> Server {
        let config = self.patience();
        self.proxy(&[&["--config", config.as_str()], arguments].concat())
    }

    /// A tiercache with copies in hot, as patient.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn patient_near_cache(&self, arguments: &[&str]) -> Server {
        let config = self.patience();
        self.near_cache(&[&["--config", config.as_str()], arguments].concat())
    }

    fn patience(&self) -> String {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let file = folder.path().join("c.toml");
        std::fs::write(&file, PATIENCE).expect("it can be written");
        self.states.borrow_mut().push(folder);
        file.display().to_string()
    }

    /// A tiercache with copies in hot, in a GiB of RAM unless the arguments say otherwise.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn near_cache(&self, arguments: &[&str]) -> Server {
        let memory: &[&str] = match arguments.contains(&"-m") {
            true => &[],
            false => &["-m", "1024"],
        };
        self.tiercache(&[&["--cold", self.url().as_str()], memory, arguments].concat())
    }

    fn tiercache(&self, arguments: &[&str]) -> Server {
        let state = TempDir::new().expect("a temporary folder can be made");
        let folder = state.path().display().to_string();
        self.states.borrow_mut().push(state);
        Server::tiercache(&[&["--state", folder.as_str()], arguments].concat())
    }
}

/// A port that nobody listened on a moment ago.
///
/// # Panics
/// When the kernel has none.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)));
    let listener = listener.expect("the kernel has a free port");
    listener.local_addr().expect("it is bound").port()
}

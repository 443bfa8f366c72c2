//! twemproxy (`nutcracker`) in front of a pool, as a judge of where keys lie and as a proxy to compare with.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::client::Client;
use crate::eventually;
use crate::pool::{Pool, free_port};
use crate::server::find_on_path;

/// Time from the start of the process to its first accepted connection.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A running twemproxy; it ends when dropped.
#[derive(Debug)]
pub struct Twemproxy {
    child: Child,
    address: SocketAddr,
    _config: TempDir,
}

impl Twemproxy {
    /// The program, if it is installed.
    pub fn program() -> Option<PathBuf> {
        find_on_path("nutcracker")
    }

    /// Starts one with the distribution `ketama`, a key hash and, unless that is empty, a hash tag.
    ///
    /// # Panics
    /// When it is not installed or does not listen.
    pub fn start(pool: &Pool, hash: &str, hash_tag: &str) -> Self {
        let program = Self::program().expect("no nutcracker: `apt-get install nutcracker`");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let servers: String = pool
            .names()
            .iter()
            .map(|name| format!("    - {name}\n"))
            .collect();
        let tag = match hash_tag {
            "" => String::new(),
            tag => format!("  hash_tag: \"{tag}\"\n"),
        };
        let text = format!(
            "pool:\n  listen: {address}\n  hash: {hash}\n  distribution: ketama\n{tag}  servers:\n{servers}"
        );
        let config = TempDir::new().expect("a temporary folder can be made");
        let file = config.path().join("nutcracker.yml");
        fs::write(&file, text).expect("it can be written");
        let child = Command::new(program)
            .arg("-c")
            .arg(&file)
            .args(["-s", &free_port().to_string(), "-a", "127.0.0.1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it can be started");
        let twemproxy = Self {
            child,
            address,
            _config: config,
        };
        let up = eventually(START_TIMEOUT, || Client::connect(address).is_ok());
        assert!(up, "nutcracker does not listen");
        twemproxy
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Twemproxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! A MongoDB for tests: the server that `TIERCACHE_TEST_MONGODB_URI` names, else a stand-in of our own.
//!
//! The stand-in (`services/minimongo.py`) speaks the wire protocol over mongomock: the official driver's
//! GridFS works with it, but it is an emulator, and says nothing about a real server's speed.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::remote::Place;

/// A server, running as long as this lives if it is the stand-in.
#[derive(Debug)]
pub struct MongoServer {
    uri: String,
    stand_in: Option<Child>,
}

impl MongoServer {
    /// Starts the stand-in on a free port, unless a real server is named.
    ///
    /// # Panics
    /// When Python or its modules are missing: `scripts/test` installs them.
    pub fn start() -> MongoServer {
        if let Ok(uri) = std::env::var("TIERCACHE_TEST_MONGODB_URI") {
            println!("measured on the MongoDB of TIERCACHE_TEST_MONGODB_URI");
            return MongoServer {
                uri: uri.trim_end_matches('/').to_owned(),
                stand_in: None,
            };
        }
        println!("measured on the stand-in for MongoDB");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("services/minimongo.py");
        let mut child = Command::new(python())
            .arg(script)
            .arg("0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python3 can be started");
        let mut line = String::new();
        let output = child.stdout.take().expect("its output is a pipe");
        BufReader::new(output)
            .read_line(&mut line)
            .expect("the stand-in says where it listens");
        let port = line.trim().rsplit(' ').next().unwrap_or_default();
        let port: u16 = port.parse().unwrap_or_else(|_| {
            let _ = child.kill();
            panic!("the stand-in for MongoDB did not start: it wants pymongo and mongomock, which scripts/test installs")
        });
        MongoServer {
            uri: format!("mongodb://127.0.0.1:{port}"),
            stand_in: Some(child),
        }
    }

    /// The connection string, without a database.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Where it listens.
    ///
    /// # Panics
    /// When the connection string of a real server has no host and port.
    pub fn address(&self) -> SocketAddr {
        let rest = self.uri.split_once("://").map_or("", |(_, rest)| rest);
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        let mut addresses = host.to_socket_addrs().expect("the server has an address");
        addresses.next().expect("the server has an address")
    }

    /// The arguments of a tiercache whose dry tier is in a bucket of GridFS, reached at `address`: the server's own or
    /// that of something in front of it.
    pub fn place(&self, database: &str, address: SocketAddr) -> Place {
        let dry = format!("mongodb://{address}/{}_{database}", self.database());
        Place::new(&["--dry", &dry])
    }

    /// A database of this process's own.
    pub fn database(&self) -> String {
        format!("tiercache_test_{}", std::process::id())
    }
}

impl Drop for MongoServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.stand_in.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The Python that `scripts/test` installed the clients for, else the one on PATH.
fn python() -> PathBuf {
    let clients = std::env::var_os("TIERCACHE_TEST_CLIENTS").map(PathBuf::from);
    clients
        .map(|folder| folder.join("venv/bin/python"))
        .filter(|python| python.is_file())
        .unwrap_or_else(|| PathBuf::from("python3"))
}

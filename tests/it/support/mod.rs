//! A server as a child process, and bytes in, bytes out.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longer than anything that is waited for takes; what fails, fails by this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The program under test.
pub(crate) fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_tiercache"))
}

/// Like memcached, the server wants to be told whom to run as when it is started as root.
pub(crate) fn identity() -> &'static [&'static str] {
    if rustix::process::geteuid().is_root() {
        &["-u", "root"]
    } else {
        &[]
    }
}

/// A running server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    port: u16,
    /// Holds the port file, and whatever the test puts there.
    folder: TempDir,
}

impl Server {
    /// Starts a small server on a free port with further arguments and waits until it listens.
    pub(crate) fn start(arguments: &[&str]) -> Server {
        let folder = tempfile::tempdir().unwrap();
        Server::start_in(
            folder,
            &[
                &["-p", "-1", "-l", "127.0.0.1", "-m", "16", "-t", "2"],
                arguments,
            ]
            .concat(),
        )
    }

    /// Starts a server with these arguments, and as whom to run.
    pub(crate) fn start_in(folder: TempDir, arguments: &[&str]) -> Server {
        let port_file = folder.path().join("ports");
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = program()
            .args(identity())
            .args(arguments)
            .env("MEMCACHED_PORT_FILENAME", &port_file)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut server = Server {
            child,
            port: 0,
            folder,
        };
        let ports = server.wait_for("the file of ports", || {
            std::fs::read_to_string(&port_file).ok()
        });
        server.port = ports
            .lines()
            .find_map(|line| line.strip_prefix("TCP INET: ")?.parse().ok())
            .unwrap_or(0);
        server
    }

    fn wait_for<T>(&mut self, what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = ready() {
                return found;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "no {what}: {ended:?}\n{}",
                self.log()
            );
            std::thread::yield_now();
        }
    }

    /// The process' id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the server has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// A new connection.
    pub(crate) fn connect(&self) -> Client<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client(stream)
    }

    /// Sends each text on one connection and expects exactly the answer beside it.
    pub(crate) fn check(&self, dialogue: &[(&str, &str)]) {
        let mut client = self.connect();
        for (request, reply) in dialogue {
            client.check(request, reply);
        }
    }

    /// A figure of `stats`.
    pub(crate) fn stat(&self, name: &str) -> u64 {
        let mut client = self.connect();
        client.send(b"stats\r\nquit\r\n");
        let text = String::from_utf8(client.rest()).unwrap();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("STAT {name} ")));
        value
            .unwrap_or_else(|| panic!("no {name} in {text}"))
            .parse()
            .unwrap()
    }

    /// Sends SIGHUP and waits until the log has said `words` once more.
    pub(crate) fn reload(&mut self, words: &str) {
        let said = |log: String| log.matches(words).count();
        let before = said(self.log());
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
        let log = self.folder.path().join("log");
        let log = || std::fs::read_to_string(&log).unwrap_or_default();
        self.wait_for(words, || (said(log()) > before).then_some(()));
    }

    /// The folder it runs in.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Sends SIGTERM, waits for the end and returns the exit code and the log.
    pub(crate) fn terminate(mut self) -> (Option<i32>, String, TempDir) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let code = self.child.wait().unwrap().code();
        let log = self.log();
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
        (code, log, folder)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the server's log\n{}", self.log());
        }
    }
}

/// A connection that reads exactly what it expects.
pub(crate) struct Client<S>(pub(crate) S);

impl<S: Read + Write> Client<S> {
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// Reads `count` bytes.
    pub(crate) fn receive(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let mut have = 0;
        while have < count {
            match self.0.read(&mut bytes[have..]) {
                Ok(0) => break,
                Ok(more) => have += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!(
                    "{error} after {have} bytes: {:?}",
                    String::from_utf8_lossy(&bytes[..have.min(200)])
                ),
            }
        }
        bytes.truncate(have);
        bytes
    }

    /// Expects the reply to a text.
    #[track_caller]
    pub(crate) fn check(&mut self, request: &str, reply: &str) {
        self.send(request.as_bytes());
        self.expect(reply);
    }

    /// Expects these bytes next.
    #[track_caller]
    pub(crate) fn expect(&mut self, reply: &str) {
        let got = self.receive(reply.len());
        assert_eq!(String::from_utf8_lossy(&got), reply);
    }

    /// Reads until the server closes; a reset counts as that.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            match self.0.read(&mut chunk) {
                Ok(0) => return bytes,
                Ok(count) => bytes.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("the server does not close: {error}"),
            }
        }
    }
}

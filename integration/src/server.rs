//! Real servers as child processes: started on a free port, watched until they answer, killed when dropped.

use std::env;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::client::{Client, Stats};
use crate::eventually;

/// Time from the start of a process to its first answer; recovery of a large folder is within it.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes of the log that a failing test prints.
const LOG_TAIL_BYTES: usize = 16 * 1024;

/// A server, running or stopped, with what is needed to start it again.
#[derive(Debug)]
pub struct Server {
    command: Vec<String>,
    running: Option<Child>,
    /// True when the child is another program that runs the server.
    wrapped: bool,
    /// True when it answers only those who authenticate or encrypt.
    guarded: bool,
    address: SocketAddr,
    environment: Vec<(String, String)>,
    // Port file and log; removed when the test ends.
    scratch: TempDir,
}

impl Server {
    /// Starts the tiercache under test with `arguments` after the port.
    ///
    /// # Panics
    /// When the binary cannot be found or does not answer.
    pub fn tiercache(arguments: &[&str]) -> Self {
        Self::at(&tiercache_binary(), arguments)
    }

    /// Starts a real memcached: `TIERCACHE_TEST_MEMCACHED` or the one on PATH.
    ///
    /// # Panics
    /// When there is none.
    pub fn memcached(arguments: &[&str]) -> Self {
        Self::at(&memcached_binary(), arguments)
    }

    /// Starts any binary that understands memcached's flags.
    ///
    /// # Panics
    /// When it does not answer within a minute.
    pub fn at(binary: &Path, arguments: &[&str]) -> Self {
        Self::wrapped(&[], binary, arguments)
    }

    /// As [`Server::at`], of a server that answers nobody who does not authenticate or encrypt: it is up once it
    /// accepts a connection.
    ///
    /// # Panics
    /// When it does not accept one within a minute.
    pub fn guarded(binary: &Path, arguments: &[&str]) -> Self {
        let mut server = Self::stopped(&[], binary, arguments);
        server.guarded = true;
        server.start();
        server
    }

    /// As [`Server::at`], run by another program, for example `strace -c -f -o FILE`.
    ///
    /// # Panics
    /// As [`Server::at`].
    pub fn wrapped(wrapper: &[&str], binary: &Path, arguments: &[&str]) -> Self {
        let mut server = Self::stopped(wrapper, binary, arguments);
        server.start();
        server
    }

    /// As [`Server::wrapped`], to be started later.
    pub fn stopped(wrapper: &[&str], binary: &Path, arguments: &[&str]) -> Self {
        let mut command: Vec<String> = wrapper.iter().map(|word| (*word).to_owned()).collect();
        command.push(binary.display().to_string());
        command.extend(["-l", "127.0.0.1", "-p", "-1"].map(String::from));
        if rustix::process::geteuid().is_root() {
            // Both servers want to be told whom to run as when they are started as root.
            command.extend(["-u", "root"].map(String::from));
        }
        command.extend(arguments.iter().map(|word| (*word).to_owned()));
        Self {
            command,
            running: None,
            wrapped: !wrapper.is_empty(),
            guarded: false,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            environment: Vec::new(),
            scratch: TempDir::new().expect("a temporary folder can be made"),
        }
    }

    /// Sets what later starts find in their environment beside what this process has.
    pub fn set_environment(&mut self, variables: Vec<(String, String)>) {
        self.environment = variables;
    }

    /// Starts a stopped server again with the same arguments; the port may be another.
    ///
    /// # Panics
    /// When it runs already or does not answer within a minute.
    pub fn start(&mut self) {
        if let Err(status) = self.try_start() {
            panic!(
                "{:?} ended with {status}\n{}",
                self.command,
                self.log_tail()
            );
        }
    }

    /// As [`Server::start`].
    ///
    /// # Errors
    /// The status of a server that ended before it answered.
    ///
    /// # Panics
    /// When it runs already or does not answer within a minute.
    pub fn try_start(&mut self) -> Result<(), ExitStatus> {
        assert!(self.running.is_none(), "the server runs already");
        let port_file = self.scratch.path().join("port");
        // A port file of the run before would name a dead port.
        let _ = fs::remove_file(&port_file);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_file())
            .expect("the log can be opened");
        let log_too = log.try_clone().expect("a file handle can be copied");
        let child = Command::new(&self.command[0])
            .args(&self.command[1..])
            .env("MEMCACHED_PORT_FILENAME", &port_file)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(log_too)
            .spawn()
            .unwrap_or_else(|error| panic!("start {:?}: {error}", self.command));
        self.running = Some(child);

        let started = Instant::now();
        let mut ended = None;
        let up = eventually(START_TIMEOUT, || {
            let child = self.running.as_mut().expect("just started");
            if let Ok(Some(status)) = child.try_wait() {
                ended = Some(status);
                return true;
            }
            self.address = match read_port(&port_file) {
                Some(port) => SocketAddr::from(([127, 0, 0, 1], port)),
                None => return false,
            };
            Client::connect(self.address).is_ok_and(|mut client| {
                self.guarded
                    || client
                        .ask(b"version\r\n")
                        .is_ok_and(|reply| reply.starts_with(b"VERSION "))
            })
        });
        if let Some(status) = ended {
            self.running = None;
            return Err(status);
        }
        assert!(
            up,
            "{:?} does not answer after {:?}\n{}",
            self.command,
            started.elapsed(),
            self.log_tail()
        );
        Ok(())
    }

    /// Waits at most `limit` for the end of a server that nobody told to end; false when it still runs.
    pub fn ended(&mut self, limit: Duration) -> bool {
        let ended = eventually(limit, || match &mut self.running {
            Some(child) => child
                .try_wait()
                .expect("an own child can be waited for")
                .is_some(),
            None => true,
        });
        if ended {
            self.running = None;
        }
        ended
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Process id of the child (of the wrapper, if there is one).
    pub fn pid(&self) -> u32 {
        self.running.as_ref().expect("the server runs").id()
    }

    /// A new connection.
    ///
    /// # Panics
    /// When the server does not accept one.
    pub fn connect(&self) -> Client {
        Client::connect(self.address).expect("the server accepts a connection")
    }

    /// Plain `stats` over a connection of its own.
    ///
    /// # Panics
    /// When the server does not answer.
    pub fn stats(&self) -> Stats {
        self.connect().stats("").expect("the server answers stats")
    }

    /// The version that it tells its clients, as three numbers.
    ///
    /// # Panics
    /// When the answer is not `VERSION a.b.c`.
    pub fn version(&self) -> (u32, u32, u32) {
        let reply = self
            .connect()
            .ask(b"version\r\n")
            .expect("the server answers version");
        let text = String::from_utf8_lossy(&reply).into_owned();
        let numbers: Vec<u32> = text
            .trim_start_matches("VERSION ")
            .split('.')
            .filter_map(|word| word.parse().ok())
            .collect();
        match numbers[..] {
            [major, minor, patch] => (major, minor, patch),
            _ => panic!("{text:?} is not VERSION a.b.c"),
        }
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.running.take() {
            kill_wrapped(&child, self.wrapped, Signal::KILL);
            child.kill().expect("an own child can be killed");
            child.wait().expect("an own child can be waited for");
        }
    }

    /// SIGTERM, and waits at most `limit` for the clean end.
    ///
    /// # Panics
    /// When the process still runs after `limit`.
    pub fn terminate(&mut self, limit: Duration) -> ExitStatus {
        self.end_by(Signal::TERM, limit)
    }

    /// SIGUSR1, at which a memcached keeps the memory of `-e`, and waits as [`Server::terminate`] does.
    ///
    /// # Panics
    /// When the process still runs after `limit`.
    pub fn stop_gracefully(&mut self, limit: Duration) -> ExitStatus {
        self.end_by(Signal::USR1, limit)
    }

    fn end_by(&mut self, signal: Signal, limit: Duration) -> ExitStatus {
        let mut child = self.running.take().expect("the server runs");
        // A wrapper ends with the server that it runs, and writes its summary then.
        if !kill_wrapped(&child, self.wrapped, signal) {
            kill_process(Pid::from_child(&child), signal).expect("an own child can be signalled");
        }
        let mut status = None;
        let ended = eventually(limit, || {
            status = child.try_wait().expect("an own child can be waited for");
            status.is_some()
        });
        if !ended {
            let _ = child.kill();
            let _ = child.wait();
            panic!(
                "still running {limit:?} after {signal:?}\n{}",
                self.log_tail()
            );
        }
        status.expect("the loop ended with a status")
    }

    /// SIGTERM, without waiting for anything.
    ///
    /// # Panics
    /// When the process does not run.
    pub fn signal_stop(&self) {
        let child = self.running.as_ref().expect("the server runs");
        kill_process(Pid::from_child(child), Signal::TERM).expect("an own child can be signalled");
    }

    /// What a wrapper or the server wrote, whole.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    /// The last lines that the server wrote.
    pub fn log_tail(&self) -> String {
        let log = fs::read(self.log_file()).unwrap_or_default();
        let from = log.len().saturating_sub(LOG_TAIL_BYTES);
        String::from_utf8_lossy(&log[from..]).into_owned()
    }

    fn log_file(&self) -> PathBuf {
        self.scratch.path().join("log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of {:?}\n{}", self.command, self.log_tail());
        }
        if let Some(mut child) = self.running.take() {
            kill_wrapped(&child, self.wrapped, Signal::KILL);
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Signals the processes that a wrapper started; false when there are none, as with one that became the server itself.
fn kill_wrapped(child: &Child, wrapped: bool, signal: Signal) -> bool {
    if !wrapped {
        return false;
    }
    let pid = child.id();
    let children =
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let pids: Vec<Pid> = children
        .split_whitespace()
        .filter_map(|word| word.parse().ok().and_then(Pid::from_raw))
        .collect();
    for pid in &pids {
        // It may have ended in between.
        let _ = kill_process(*pid, signal);
    }
    !pids.is_empty()
}

/// The tiercache under test: `TIERCACHE_BIN`, else the binary that Cargo put beside this test.
///
/// # Panics
/// When there is none.
pub fn tiercache_binary() -> PathBuf {
    if let Some(path) = env::var_os("TIERCACHE_BIN") {
        return PathBuf::from(path);
    }
    // target/PROFILE/deps/integration-HASH, or target/PROFILE/bench.
    let own = env::current_exe().expect("a process knows its own file");
    let found = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("tiercache"))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "no tiercache beside {}: run `cargo build` first or set TIERCACHE_BIN",
            own.display()
        )
    })
}

/// The tiercache with seeded bugs: `TIERCACHE_MUTANTS_BIN`.
///
/// # Panics
/// When that is not set.
pub fn mutants_binary() -> PathBuf {
    env::var_os("TIERCACHE_MUTANTS_BIN").map(PathBuf::from).expect(
        "set TIERCACHE_MUTANTS_BIN to a copy of the binary that `cargo build --features mutants` makes, \
         or run scripts/reliability",
    )
}

/// The memcached to compare with: `TIERCACHE_TEST_MEMCACHED`, else the one on PATH.
///
/// # Panics
/// When there is none.
pub fn memcached_binary() -> PathBuf {
    env::var_os("TIERCACHE_TEST_MEMCACHED")
        .map(PathBuf::from)
        .or_else(|| find_on_path("memcached"))
        .expect(
            "no memcached on PATH: `apt-get install memcached`, or set TIERCACHE_TEST_MEMCACHED",
        )
}

/// The first program of that name on PATH.
pub fn find_on_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// The port of the first `TCP INET: PORT` line, once the server has written it.
fn read_port(port_file: &Path) -> Option<u16> {
    let text = match fs::read_to_string(port_file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => panic!("read {}: {error}", port_file.display()),
    };
    // Only a whole line counts: the file may be read while it is being written.
    let line = text.lines().next().filter(|_| text.ends_with('\n'))?;
    line.strip_prefix("TCP INET: ")?.trim().parse().ok()
}

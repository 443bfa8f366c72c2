//! Keys that move from an old pool: found there, brought with all that belongs to them, and never brought back to life.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tiercache_integration::client::Client;
use tiercache_integration::pool::Pool;
use tiercache_integration::random::Random;
use tiercache_integration::server::Server;
use tiercache_integration::{eventually, number_from_env, seed};

use super::NOTICED;
use super::load::{Commands, Seen, Shared, Worker};

/// A server that is busy with other tests is late, not gone.
const PATIENT: &str = "request_timeout = \"10s\"\nconnect_timeout = \"10s\"\n";
/// Clients of each proxy in the random test, and their commands in a round.
const CLIENTS: usize = 3;
const STEPS: u64 = 60;

/// A configuration file that names both pools, and its folder.
pub(super) struct Moving {
    folder: TempDir,
    tier: &'static str,
    new: Vec<String>,
    timeouts: &'static str,
}

impl Moving {
    pub(super) fn new(tier: &'static str, new: &Pool) -> Moving {
        Moving {
            folder: TempDir::new().expect("a temporary folder can be made"),
            tier,
            new: new.names(),
            timeouts: PATIENT,
        }
    }

    /// With other lines for the timeouts.
    pub(super) fn with_timeouts(self, timeouts: &'static str) -> Moving {
        Moving { timeouts, ..self }
    }

    pub(super) fn write(&self, from: Option<&[String]>) {
        let from = from
            .map(|from| format!("migrate_from = {from:?}\n"))
            .unwrap_or_default();
        let text = format!(
            "[{}]\nbackend = \"memcached\"\n[memcached]\nservers = {:?}\n{from}state = {:?}\n{}",
            self.tier,
            self.new,
            self.folder.path().join("state"),
            self.timeouts
        );
        fs::write(self.file(), text).expect("it can be written");
    }

    fn file(&self) -> String {
        self.folder.path().join("c.toml").display().to_string()
    }

    pub(super) fn start(&self, arguments: &[&str]) -> Server {
        Server::tiercache(&[&["--config", self.file().as_str()], arguments].concat())
    }
}

pub(super) fn ask(client: &mut Client, request: &str) -> String {
    let line = client.ask(request.as_bytes()).expect("it answers");
    String::from_utf8_lossy(&line).into_owned()
}

/// The answer of `mg` with a value: its line and the value.
fn value(client: &mut Client, request: &str) -> (String, String) {
    let line = ask(client, request);
    let value = client.line().expect("it answers");
    (line, String::from_utf8_lossy(&value).into_owned())
}

#[test]
fn keys_move_with_all_that_belongs_to_them_until_the_migration_ends() {
    for (tier, arguments) in [
        ("hot", &[][..]),
        ("cold", &["-m", "64", "--cold-sharing", "private"]),
    ] {
        let (old, new) = (Pool::of_memcached(&[1, 1]), Pool::of_memcached(&[1, 1, 1]));
        let moving = Moving::new(tier, &new);
        moving.write(Some(&old.names()));
        let server = moving.start(arguments);
        let (mut before, mut client, mut after) = (
            old.patient_proxy(&[]).connect_kept(),
            server.connect(),
            new.patient_proxy(&[]).connect_kept(),
        );
        for number in 0..50 {
            let stored = ask(
                &mut before.client,
                &format!("set key{number} {number} 1000 5\r\nvalue\r\n"),
            );
            assert_eq!(stored, "STORED");
        }
        ask(&mut before.client, "set number 0 0 2\r\n41\r\n");
        ask(&mut before.client, "set text 0 0 3\r\nold\r\n");
        ask(&mut before.client, "set lock 0 0 1\r\nx\r\n");
        // Read: the value at once, and soon with flags and time to live in the new pool.
        for number in 0..50 {
            let hit = client
                .get(format!("key{number}").as_bytes())
                .expect("it answers");
            assert_eq!(hit.as_deref(), Some(&b"value"[..]), "{tier}");
            let brought = eventually(NOTICED, || {
                let line = ask(&mut after.client, &format!("mg key{number} f t s\r\n"));
                let seconds = line.strip_prefix(&format!("HD f{number} t"));
                let seconds = seconds.and_then(|rest| rest.strip_suffix(" s5")?.parse().ok());
                seconds.is_some_and(|seconds: u32| (900..=1000).contains(&seconds))
            });
            assert!(brought, "{tier}: key{number} is not brought");
        }
        assert_eq!(server.stats().number("migration_backfills"), 50, "{tier}");
        // What depends on what is there finds it, and the old pool has nothing of it any more.
        assert_eq!(ask(&mut client, "incr number 1\r\n"), "42");
        assert_eq!(ask(&mut client, "append text 0 0 4\r\nnew!\r\n"), "STORED");
        assert_eq!(ask(&mut client, "add lock 0 0 1\r\ny\r\n"), "NOT_STORED");
        assert_eq!(
            client.get(b"text").expect("it answers").as_deref(),
            Some(&b"oldnew!"[..])
        );
        for key in ["number", "text", "lock"] {
            assert_eq!(
                before.client.get(key.as_bytes()).expect("it answers"),
                None,
                "{tier}"
            );
        }
        // A CAS unique is the new pool's.
        let (line, found) = value(&mut client, "mg text c v\r\n");
        assert_eq!(found, "oldnew!");
        let unique = line.rsplit('c').next().expect("it tells one").to_owned();
        assert_eq!(
            ask(&mut client, &format!("cas text 0 0 1 {unique}\r\nz\r\n")),
            "STORED"
        );
        // What is stored or deleted does not come back from the old pool when the new one loses it.
        assert_eq!(ask(&mut client, "set key1 0 0 3\r\nnew\r\n"), "STORED");
        ask(&mut client, "delete key2\r\n");
        ask(&mut after.client, "delete key1\r\n");
        assert_eq!(after.client.get(b"key1").expect("it answers"), None);
        for key in ["key1", "key2"] {
            assert_eq!(
                before.client.get(key.as_bytes()).expect("it answers"),
                None,
                "{tier}"
            );
        }
        assert_eq!(client.get(b"key2").expect("it answers"), None);
        // The end: nobody asks the old pool any more.
        ask(&mut before.client, "set late 0 0 1\r\nx\r\n");
        moving.write(None);
        let pid = Pid::from_raw(server.pid().cast_signed()).expect("a child has a process id");
        kill_process(pid, Signal::HUP).expect("an own child can be signalled");
        let mut number = 0;
        let ended = eventually(NOTICED, || {
            number += 1;
            let reads = server.stats().number("migration_reads");
            client
                .get(format!("absent{number}").as_bytes())
                .expect("it answers");
            server.stats().number("migration_reads") == reads
        });
        assert!(ended, "{tier}: the old pool is asked for ever");
        assert_eq!(client.get(b"late").expect("it answers"), None);
        assert_eq!(
            client.get(b"key3").expect("it answers").as_deref(),
            Some(&b"value"[..])
        );
    }
}

/// A proxy and a connection to it, so that both live as long.
struct Kept {
    client: Client,
    _server: Server,
}

trait ConnectKept {
    fn connect_kept(self) -> Kept;
}

impl ConnectKept for Server {
    fn connect_kept(self) -> Kept {
        Kept {
            client: self.connect(),
            _server: self,
        }
    }
}

/// An old server with one item, `k`, which it has until it is deleted. The second read of it (that for the new pool) is
/// answered when the test says so.
struct OldServer {
    address: String,
    asked_again: Receiver<()>,
    go_on: Sender<()>,
}

impl OldServer {
    fn start() -> OldServer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the kernel has a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let (asked, asked_again) = channel();
        let (go_on, told) = channel();
        let told = Arc::new(Mutex::new(told));
        let (deleted, reads) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (asked, told) = (asked.clone(), Arc::clone(&told));
                let (deleted, reads) = (Arc::clone(&deleted), Arc::clone(&reads));
                thread::spawn(move || answer(stream, &asked, &told, &deleted, &reads));
            }
        });
        OldServer {
            address,
            asked_again,
            go_on,
        }
    }
}

fn answer(
    stream: TcpStream,
    asked: &Sender<()>,
    told: &Mutex<Receiver<()>>,
    deleted: &AtomicBool,
    reads: &AtomicU64,
) {
    let mut to = stream.try_clone().expect("a socket can be cloned");
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        let opaque = words.iter().find(|word| word.starts_with('O'));
        let opaque = opaque.copied().unwrap_or_default();
        let reply = match (words[0], words.get(1)) {
            ("mn", _) => String::from("MN\r\n"),
            ("version", _) => String::from("VERSION 1.6.45\r\n"),
            ("mg", Some(&"k")) if deleted.load(Ordering::SeqCst) => String::from("EN\r\n"),
            ("mg", Some(&"k")) => {
                if reads.fetch_add(1, Ordering::SeqCst) == 1 {
                    asked.send(()).expect("the test listens");
                    let told = told.lock().expect("no thread panics with it");
                    told.recv_timeout(Duration::from_secs(20))
                        .expect("the test goes on");
                }
                format!("VA 3 kk f0 t-1 {opaque}\r\nold\r\n")
            }
            ("flush_all", _) => {
                deleted.store(true, Ordering::SeqCst);
                String::from("OK\r\n")
            }
            ("md", Some(&"k")) => {
                deleted.store(true, Ordering::SeqCst);
                format!("HD {opaque}\r\n")
            }
            _ => continue,
        };
        if to.write_all(reply.as_bytes()).is_err() {
            return;
        }
    }
}

// The story of a deleted item that comes back: it is read from the old pool to be brought, deleted in both pools, and then
// stored in the new one.
#[test]
fn a_delete_between_the_read_from_the_old_pool_and_the_store_is_not_undone() {
    for change in ["delete k\r\n", "set k 0 0 3\r\nnew\r\n", "flush_all\r\n"] {
        let (old, new) = (OldServer::start(), Pool::of_memcached(&[1]));
        let (one, other) = (Moving::new("hot", &new), Moving::new("hot", &new));
        let from = [old.address.clone()];
        one.write(Some(&from));
        other.write(Some(&from));
        let (bringing, changing) = (one.start(&[]), other.start(&[]));
        let mut reader = bringing.connect();
        assert_eq!(
            reader.get(b"k").expect("it answers").as_deref(),
            Some(&b"old"[..])
        );
        old.asked_again
            .recv_timeout(NOTICED)
            .expect("the item is brought");
        ask(&mut changing.connect(), change);
        old.go_on.send(()).expect("the old server waits");
        let raced = eventually(NOTICED, || bringing.stats().number("migration_raced") == 1);
        assert!(raced, "{change}");
        let newest = change.starts_with("set").then_some(&b"new"[..]);
        let mut direct = new.servers[0].connect();
        assert_eq!(
            direct.get(b"k").expect("it answers").as_deref(),
            newest,
            "{change}"
        );
        assert_eq!(
            reader.get(b"k").expect("it answers").as_deref(),
            newest,
            "{change}"
        );
        assert_eq!(bringing.stats().number("migration_backfills"), 0);
    }
}

// Two proxies, many clients, every command: keys are brought, changed and deleted at once, again and again.
#[test]
fn whatever_races_with_a_migration_nobody_reads_what_was_changed() {
    let mut random = Random::new(seed());
    let (old, new) = (Pool::of_memcached(&[1, 1]), Pool::of_memcached(&[1, 1]));
    let proxies: Vec<(Moving, Server)> = (0..2)
        .map(|_| {
            let moving = Moving::new("hot", &new);
            moving.write(Some(&old.names()));
            let server = moving.start(&["-t", "2"]);
            (moving, server)
        })
        .collect();
    let fill = old.patient_proxy(&[]);
    let shared = Shared::new();
    let mut filler = Worker::new(&shared, fill.connect(), random.bits(), Commands::All);
    let mut workers: Vec<Worker> = proxies
        .iter()
        .flat_map(|(_, server)| (0..CLIENTS).map(move |_| server))
        .map(|server| Worker::new(&shared, server.connect(), random.bits(), Commands::All))
        .collect();
    for _ in 0..number_from_env("TIERCACHE_TEST_MIGRATIONS", 15) {
        // The new pool loses everything, which it may, and the old one has new values.
        for server in &new.servers {
            assert_eq!(ask(&mut server.connect(), "flush_all\r\n"), "OK");
        }
        filler.fill().expect("the old pool stores");
        thread::scope(|scope| {
            for worker in &mut workers {
                scope.spawn(|| {
                    worker
                        .run(STEPS, Duration::ZERO)
                        .expect("the proxy answers")
                });
            }
        });
        proxies.iter().for_each(|(_, server)| settle(server));
    }
    let mut seen = filler.seen;
    workers.into_iter().for_each(|worker| seen.add(worker.seen));
    report(&proxies, &seen);
    assert_eq!(seen.violations(0), [""; 0]);
}

/// Waits until a proxy has no request under way to its servers: items are brought behind the answers.
fn settle(server: &Server) {
    let mut client = server.connect();
    let mut before = (0, 0);
    let settled = eventually(NOTICED, || {
        let stats = client.stats("upstream").expect("it answers");
        let sum = |names: &[&str]| -> u64 {
            let of_names = stats
                .iter()
                .filter(|(name, _)| names.iter().any(|end| name.contains(end)));
            of_names
                .map(|(_, text)| text.parse::<u64>().expect("a number"))
                .sum()
        };
        let now = (sum(&[":requests"]), sum(&[":latency_us_", ":errors"]));
        let same = now == before && now.0 == now.1;
        before = now;
        same
    });
    assert!(settled, "requests are under way for ever");
}

fn report(proxies: &[(Moving, Server)], seen: &Seen) {
    let sum = |name| {
        proxies
            .iter()
            .map(|(_, server)| server.stats().number(name))
            .sum::<u64>()
    };
    println!(
        "{} operations, {} hits, {} errors, {} items brought, {} changed meanwhile",
        seen.operations,
        seen.hits,
        seen.errors,
        sum("migration_backfills"),
        sum("migration_raced")
    );
    assert_eq!(seen.errors, 0);
    assert!(sum("migration_backfills") > 0, "nothing was brought");
}

//! What a server's name means: looked up off the workers, again from time to time, so that it may
//! come to mean another place.
//!
//! ```text
//!   thread `upstream` ── look up ──▶ addresses ◀── wait for the first, connect ── worker
//!          ▲ every 30 s, and after a failed connection                 │ another address: finish
//!          └───────────────────── look again ◀─────────────────────────┘ what is sent, connect anew
//! ```
//!
//! A lookup may hang for as long as the system's resolver wants; there is one at a time for each
//! name, and nobody waits longer than for a connection.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::config::Place;

/// How old an address gets before the name is looked up again.
const INTERVAL: Duration = Duration::from_secs(30);
/// The shortest time between two lookups of a name, however often connections fail.
const PAUSE: Duration = Duration::from_secs(1);
/// Addresses of a name that are kept.
const ADDRESSES_MAX: usize = 16;

/// Finds the addresses of a name; the system's resolver, but in tests.
pub(super) type Lookup = fn(&str, u16) -> io::Result<Vec<SocketAddr>>;

/// The system's resolver.
pub(super) fn system(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((host, port).to_socket_addrs()?.collect())
}

/// How a server is reached.
#[derive(Debug)]
pub(super) enum Way {
    /// Over TCP.
    Name(Name),
    /// By a unix socket.
    Unix(PathBuf),
}

impl Way {
    pub(super) fn to(place: &Place, lookup: Lookup) -> Way {
        match place {
            Place::Tcp(host, port) => Way::Name(Name::new(host, *port, lookup)),
            Place::Unix(path) => Way::Unix(path.clone()),
        }
    }

    /// The name, if there is one.
    pub(super) fn name(&self) -> Option<&Name> {
        match self {
            Way::Name(name) => Some(name),
            Way::Unix(_) => None,
        }
    }
}

/// A server's name or IP address and its port, and where that is now.
#[derive(Debug)]
pub(super) struct Name {
    host: String,
    port: u16,
    lookup: Lookup,
    addresses: watch::Sender<Arc<[SocketAddr]>>,
    /// Changes with the addresses.
    generation: AtomicU64,
    wanted: Notify,
}

impl Name {
    fn new(host: &str, port: u16, lookup: Lookup) -> Name {
        let literal = host.parse::<IpAddr>().ok();
        let known = literal.map(|ip| SocketAddr::new(ip, port));
        Name {
            host: host.to_owned(),
            port,
            lookup,
            addresses: watch::Sender::new(known.into_iter().collect()),
            generation: AtomicU64::new(0),
            wanted: Notify::new(),
        }
    }

    /// The name or the address, as it was written.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Waits for the first lookup, if there was none yet.
    pub(super) async fn addresses(&self) -> Arc<[SocketAddr]> {
        let mut known = self.addresses.subscribe();
        match known.wait_for(|addresses| !addresses.is_empty()).await {
            Ok(addresses) => Arc::clone(&addresses),
            // The sender lives as long as the name.
            Err(_) => Arc::default(),
        }
    }

    /// The addresses that are known; none before the first lookup.
    pub(super) fn known(&self) -> Arc<[SocketAddr]> {
        Arc::clone(&self.addresses.borrow())
    }

    /// Whether an address is none of this name's any more; not asked again until `seen` is no longer
    /// the addresses' generation.
    #[inline]
    pub(super) fn has_left(&self, address: SocketAddr, seen: &mut u64) -> bool {
        let generation = self.generation.load(Relaxed);
        if *seen == generation {
            return false;
        }
        let left = !self.addresses.borrow().contains(&address);
        if !left {
            *seen = generation;
        }
        left
    }

    /// Which addresses are known.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    /// Asks for another lookup soon: the server could not be reached where it was.
    pub(super) fn look_again(&self) {
        self.wanted.notify_one();
    }

    /// Looks the name up again and again; for ever, but of an IP address once.
    pub(super) async fn keep_looking_up(&self) {
        if self.host.parse::<IpAddr>().is_ok() {
            return;
        }
        loop {
            self.look_up().await;
            sleep(PAUSE).await;
            // After the interval as after a failure.
            let _ = timeout(INTERVAL, self.wanted.notified()).await;
        }
    }

    /// Looks the name up, unless it was before.
    pub(super) async fn look_up_first(&self) {
        if self.addresses.borrow().is_empty() {
            self.look_up().await;
        }
    }

    /// Looks the name up once. If that fails, the addresses stay as they are.
    async fn look_up(&self) {
        let (lookup, host, port) = (self.lookup, self.host.clone(), self.port);
        let looked_up = spawn_blocking(move || lookup(&host, port)).await;
        match looked_up.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            Ok(found) if !found.is_empty() => self.found(found),
            Ok(_) => tracing::warn!(host = self.host, "the name has no address"),
            Err(error) => tracing::warn!(host = self.host, %error, "look the name up"),
        }
    }

    fn found(&self, mut found: Vec<SocketAddr>) {
        // In any order: resolvers rotate them.
        found.sort_unstable();
        found.dedup();
        found.truncate(ADDRESSES_MAX);
        let changed = self.addresses.send_if_modified(|known| {
            let changed = **known != *found;
            if changed {
                *known = found.as_slice().into();
            }
            changed
        });
        if changed {
            tracing::info!(host = self.host, addresses = ?found, "looked the name up");
            self.generation.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Mutex;
    use std::sync::mpsc;
    use std::thread;

    use tiercache_protocol::reply::Reply;
    use tokio::runtime::{Builder, LocalOptions};
    use tokio::sync::oneshot;

    use super::super::config::{Address, PoolConfig};
    use super::super::connection::{Done, Outcome, Verdict};
    use super::super::link::Link;
    use super::super::server::Server;
    use super::super::undelivered::Undelivered;
    use super::*;

    static MEANS: Mutex<Vec<SocketAddr>> = Mutex::new(Vec::new());

    fn looked_up(_: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(MEANS.lock().unwrap().clone())
    }

    /// A server that has its name under every key. It tells `asked` of the key `slow`, and answers
    /// that when `go` says so.
    fn serve(name: &'static str, asked: mpsc::Sender<()>, go: mpsc::Receiver<()>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                answer(name, stream.unwrap(), &asked, &go);
            }
        });
        address
    }

    fn answer(name: &str, stream: TcpStream, asked: &mpsc::Sender<()>, go: &mpsc::Receiver<()>) {
        let mut to = stream.try_clone().unwrap();
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let reply = match line.split(' ').collect::<Vec<_>>()[..] {
                ["version"] => "VERSION 1.6.45\r\n".to_owned(),
                ["mn"] => "MN\r\n".to_owned(),
                ["mg", "tiercache-probe", ..] => continue,
                [_, key, opaque] => {
                    if key == "slow" {
                        asked.send(()).unwrap();
                        go.recv().unwrap();
                    }
                    format!("VA {} {opaque}\r\n{name}\r\n", name.len())
                }
                _ => panic!("{line}"),
            };
            to.write_all(reply.as_bytes()).unwrap();
        }
    }

    fn ask(link: &Link, server: &Arc<Server>, key: &str, done: Done) {
        let encode = |out: &mut Vec<u8>, opaque: &[u8]| {
            out.extend_from_slice(format!("mg {key} O").as_bytes());
            out.extend_from_slice(opaque);
            out.extend_from_slice(b"\r\n");
        };
        link.request(server, encode, done);
    }

    fn get(link: &Link, server: &Arc<Server>, key: &str) -> oneshot::Receiver<String> {
        let (sender, receiver) = oneshot::channel();
        ask(
            link,
            server,
            key,
            Box::new(move |outcome| {
                let value = match outcome {
                    Outcome::Reply(Reply::Meta(reply)) => reply.value,
                    _ => None,
                };
                sender
                    .send(String::from_utf8_lossy(value.unwrap_or_default()).into_owned())
                    .unwrap();
                Verdict::Fits
            }),
        );
        receiver
    }

    // A name comes to mean another place: what was asked there is answered there, what follows goes
    // to the new one.
    #[test]
    fn a_name_may_come_to_mean_another_place() {
        let folder = tempfile::tempdir().unwrap();
        let (asked, was_asked) = mpsc::channel();
        let (go, may_go) = mpsc::channel();
        let one = serve("one", asked.clone(), may_go);
        let other = serve("other", asked, mpsc::channel().1);
        let address: Address = "cache.example:11211".parse().unwrap();
        let pool = PoolConfig {
            request_timeout: crate::units::Span::seconds(60),
            connect_timeout: crate::units::Span::seconds(60),
            ..PoolConfig::default()
        };
        let undelivered = Undelivered::open(folder.path().join("u")).unwrap();
        let mut server = Server::new(&address, &pool, &Arc::default(), Arc::new(undelivered));
        server.way = Way::to(&address.place, looked_up);
        let server = Arc::new(server);
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .unwrap();
        let means = |address: SocketAddr| *MEANS.lock().unwrap() = vec![address];
        runtime.block_on(async {
            let link = Link::new(1024);
            let name = server.way.name().unwrap();
            // Nobody knows the address yet: the request waits for the first lookup.
            let first = get(&link, &server, "k");
            means(one);
            name.look_up().await;
            assert_eq!(first.await.unwrap(), "one");
            // The same place again changes nothing.
            name.look_up().await;
            assert_eq!(get(&link, &server, "k").await.unwrap(), "one");

            let slow = get(&link, &server, "slow");
            let waited = spawn_blocking(move || was_asked.recv());
            waited.await.unwrap().unwrap();
            means(other);
            name.look_up().await;
            let next = get(&link, &server, "k");
            go.send(()).unwrap();
            assert_eq!(slow.await.unwrap(), "one");
            assert_eq!(next.await.unwrap(), "other");

            // A name without an address keeps the one it had.
            MEANS.lock().unwrap().clear();
            name.look_up().await;
            assert_eq!(get(&link, &server, "k").await.unwrap(), "other");

            // A panic of whoever hears an answer is nothing to those behind it.
            ask(
                &link,
                &server,
                "k",
                Box::new(|_| panic!("as the test wants it")),
            );
            assert_eq!(get(&link, &server, "k").await.unwrap(), "other");
        });
        assert_eq!(server.stats.connects.load(Relaxed), 2);
        assert_eq!(server.stats.errors.load(Relaxed), 0);
    }
}

//! Clients that try to make the server take memory, or keep it from others: what they cost is bounded, and a client
//! beside them notices nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tiercache_integration::client::{Client, set_request};
use tiercache_integration::load::Items;
use tiercache_integration::number_from_env;
use tiercache_integration::process;
use tiercache_integration::server::Server;
use tiercache_integration::times::Times;

const MIB: u64 = 1024 * 1024;
/// What an attack may add to the resident bytes of a warm server.
const GROWTH_BYTES_MAX: u64 = 64 * MIB;
/// The value that attackers ask for.
const LARGE_BYTES: usize = 100_000;
/// The value that the client beside them stores once a second.
const PROBE_SET_BYTES: usize = 512 * 1024;
/// How often it gets.
const PROBE_INTERVAL: Duration = Duration::from_millis(1);
/// Gets of that client, at least.
const PROBES_MIN: u64 = 2000;
/// Connections of the server and files of this process: an attack has up to 1000 clients.
const CONNECTIONS: u64 = 4096;
/// How long an attacker writes to a server that does not read on.
const WRITE_PATIENCE: Duration = Duration::from_millis(200);

// One line of a million keys is answered whole.
#[test]
fn a_get_line_of_a_million_keys_costs_bounded_memory() {
    let keys = number_from_env("TIERCACHE_TEST_ATTACK_KEYS", 1_000_000);
    check_attack(|server| {
        let mut client = server.connect();
        let writer = client.stream().try_clone().expect("a socket can be copied");
        let mut line = b"get large".to_vec();
        for number in 0..keys {
            line.push(b' ');
            line.extend(Items::key(number));
        }
        line.extend_from_slice(b" large\r\n");
        thread::scope(|scope| {
            scope.spawn(move || {
                (&writer)
                    .write_all(&line)
                    .expect("the server reads the line")
            });
            let hits = client.hits().expect("the line is answered");
            assert!(hits.len() >= 2 && hits.first() == hits.last());
        });
        vec![client]
    });
}

// 900 clients announce 1 MB and stop after 64 KiB of it.
#[test]
fn half_sent_sets_cost_bounded_memory() {
    check_attack(|server| {
        let clients: Vec<Client> = (0..900).map(|_| server.connect()).collect();
        for (number, client) in clients.iter().enumerate() {
            let mut half = format!("set half:{number} 0 0 1048000\r\n").into_bytes();
            half.resize(half.len() + 64 * 1024, b'x');
            write_what_fits(client.stream(), &half);
        }
        clients
    });
}

// 1000 clients ask for 100 MB each and read nothing.
#[test]
fn clients_that_never_read_cost_bounded_memory() {
    check_attack(|server| {
        let requests = "get large\r\n".repeat(1000);
        let clients: Vec<Client> = (0..1000).map(|_| server.connect()).collect();
        for client in &clients {
            // Little of it may hide in the kernel.
            set_socket_recv_buffer_size(client.stream(), 16 * 1024)
                .expect("a socket takes a buffer size");
            write_what_fits(client.stream(), requests.as_bytes());
        }
        clients
    });
}

// A value of 4 GiB is refused, and one of the largest length that a header may declare is swallowed: neither is made
// room for.
#[test]
fn declared_lengths_cost_no_memory() {
    check_attack(|server| {
        let mut clients: Vec<Client> = Vec::new();
        for length in ["4294967296", "2147483645", "-1", "99999999999999999999"] {
            for _ in 0..20 {
                let client = server.connect();
                write_what_fits(
                    client.stream(),
                    format!("set huge 0 0 {length}\r\n").as_bytes(),
                );
                write_what_fits(client.stream(), &vec![b'x'; MIB as usize]);
                clients.push(client);
            }
        }
        clients
    });
}

// Clients that want no answers are not served before others.
#[test]
fn a_noreply_flood_starves_nobody() {
    let sets = number_from_env("TIERCACHE_TEST_ATTACK_SETS", 400_000);
    check_attack(|server| {
        let mut batch = Vec::new();
        for number in 0..1000 {
            batch.extend_from_slice(
                format!("set flood:{number} 0 0 10 noreply\r\n0123456789\r\n").as_bytes(),
            );
        }
        let mut clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
        thread::scope(|scope| {
            for client in &mut clients {
                let batch = &batch;
                scope.spawn(move || {
                    for _ in 0..sets / 4000 {
                        client.send(batch).expect("the server reads on");
                    }
                    assert_eq!(client.ask(b"mn\r\n").expect("the flood is over"), b"MN");
                });
            }
        });
        clients
    });
}

// Requests of other protocols are closed without an answer, whatever stands behind them.
#[test]
fn what_a_browser_sends_is_closed() {
    let server = Server::tiercache(&["-m", "64"]);
    for first in [
        "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 30\r\n\r\n",
        "PUT /k HTTP/1.0\r\n\r\n",
        "DELETE /k HTTP/1.1\r\n\r\n",
    ] {
        let client = server.connect();
        write_what_fits(
            client.stream(),
            format!("{first}set k 0 0 1\r\nv\r\n").as_bytes(),
        );
        let mut answer = Vec::new();
        if let Err(error) = client.stream().read_to_end(&mut answer) {
            // The kernel resets a connection of which not everything was read.
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{first:?}");
        }
        assert_eq!(String::from_utf8_lossy(&answer), "", "{first:?}");
    }
    assert_eq!(server.stats().number("cmd_set"), 0);
}

// By hand with TIERCACHE_TEST_IDLE=10000, _ACTIVE=1000 and _ACTIVE_GETS=1000000: idle connections cost little memory,
// none is refused below the limit, and others are answered as without them.
#[test]
fn idle_connections_cost_little() {
    let idle = number_from_env("TIERCACHE_TEST_IDLE", 500);
    let active = number_from_env("TIERCACHE_TEST_ACTIVE", 50);
    raise_file_limit(idle + active + 200);
    let server = Server::tiercache(&["-m", "64", "-c", &(idle + active + 10).to_string()]);
    let mut others: Vec<Client> = (0..active).map(|_| server.connect()).collect();
    let alone = gets_in_turn(&mut others);
    let before = process::resident_bytes(server.pid());
    let mut clients: Vec<Client> = (0..idle).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.ask(b"mn\r\n").expect("it is answered"), b"MN");
    }
    let growth = process::resident_bytes(server.pid()).saturating_sub(before);
    println!("{idle} idle connections: {} bytes each", growth / idle);
    let beside = gets_in_turn(&mut others);
    println!("gets over {active} others: {alone}; beside them: {beside}");
    assert_eq!(server.stats().number("rejected_connections"), 0);
    assert!(
        growth <= 8 * 1024 * idle + MIB,
        "{} bytes each",
        growth / idle
    );
}

/// Gets over connections that take turns; how long they took.
fn gets_in_turn(clients: &mut [Client]) -> String {
    let gets = number_from_env("TIERCACHE_TEST_ACTIVE_GETS", 5000) as usize;
    let stored = clients[0].set(b"key", b"value").expect("it is answered");
    assert_eq!(stored, b"STORED");
    let mut times = Times::default();
    let count = clients.len();
    for number in 0..gets {
        let client = &mut clients[number % count];
        let before = Instant::now();
        let value = client.get(b"key").expect("it is answered");
        times.push(before.elapsed());
        assert_eq!(value.as_deref(), Some(&b"value"[..]));
    }
    times.summary()
}

/// Writes until everything is written or the server does not read on; a closed connection is the server's right.
fn write_what_fits(mut stream: &TcpStream, bytes: &[u8]) {
    stream
        .set_write_timeout(Some(WRITE_PATIENCE))
        .expect("a socket takes a timeout");
    let _ = stream.write_all(bytes);
}

fn raise_file_limit(files: u64) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < files) {
        let wanted = Rlimit {
            current: Some(files),
            maximum: limit.maximum.map(|maximum| maximum.max(files)),
        };
        setrlimit(Resource::Nofile, wanted)
            .unwrap_or_else(|error| panic!("{files} open files are needed (ulimit -n): {error}"));
    }
}

/// Runs `attack` and then a while with what it holds open, while a probe client's requests all succeed.
fn check_attack(attack: impl FnOnce(&Server) -> Vec<Client>) {
    raise_file_limit(CONNECTIONS);
    let server = Server::tiercache(&["-m", "64", "-c", &CONNECTIONS.to_string()]);
    warm(&server);
    process::reset_peak(server.pid());
    let before = process::resident_bytes(server.pid());

    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let prober = scope.spawn(|| run_prober(&server, &over));
        let began = Instant::now();
        let held_open = attack(&server);
        let seconds = began.elapsed().as_secs_f64();
        over.store(true, Ordering::Relaxed);
        let mut probed = prober.join().expect("every probe succeeds");
        drop(held_open);
        println!(
            "attack of {seconds:.1} s, gets: {}; {} large sets, the slowest after {:.1} ms",
            probed.gets.summary(),
            probed.sets,
            probed.slowest_set.as_secs_f64() * 1e3,
        );
    });
    let growth = process::resident_bytes_peak(server.pid()).saturating_sub(before);
    println!(
        "resident {} MiB, grew by {:.1} MiB",
        before / MIB,
        growth as f64 / MIB as f64
    );
    assert!(
        growth <= GROWTH_BYTES_MAX,
        "resident memory grew by {} MiB",
        growth / MIB
    );
}

/// Fills the server's memory, so that what it takes from here on is not for items.
fn warm(server: &Server) {
    let mut client = server.connect();
    for number in 0..200u32 {
        let key = format!("warm:{number}").into_bytes();
        let reply = client
            .set(&key, &[b'w'; PROBE_SET_BYTES])
            .expect("the server answers");
        assert_eq!(reply, b"STORED");
    }
    let items = Items { value_bytes: 100 };
    items
        .store(&mut client, 0..1000, 0)
        .expect("every item is stored");
    client
        .set(b"large", &[b'x'; LARGE_BYTES])
        .expect("the server answers");
    probe(&mut client, 0);
}

/// What the client beside the attackers did.
#[derive(Debug, Default)]
struct Probed {
    /// From when each get was due until it was answered. Nothing is asserted on it: the attackers run on the same cores as
    /// the server and this client.
    gets: Times,
    sets: u64,
    slowest_set: Duration,
}

/// One set and get per millisecond and one set of 512 KiB per second, each of which must succeed.
fn run_prober(server: &Server, over: &AtomicBool) -> Probed {
    let mut client = server.connect();
    let mut probed = Probed::default();
    let began = Instant::now();
    while (probed.gets.count() as u64) < PROBES_MIN || !over.load(Ordering::Relaxed) {
        let number = probed.gets.count() as u64;
        // The pace of the load; nothing is waited for.
        let due = PROBE_INTERVAL * u32::try_from(number).expect("a test is short");
        thread::sleep(due.saturating_sub(began.elapsed()));
        probe(&mut client, number);
        // From when it was due: what one answer that comes late holds up is late too.
        probed.gets.push(began.elapsed().saturating_sub(due));
        if began.elapsed().as_secs() >= probed.sets {
            let before = Instant::now();
            let reply = client
                .set(b"probe:large", &[b'p'; PROBE_SET_BYTES])
                .expect("the large set is answered");
            assert_eq!(reply, b"STORED");
            probed.slowest_set = probed.slowest_set.max(before.elapsed());
            probed.sets += 1;
        }
    }
    probed
}

/// Stores an item and gets it.
fn probe(client: &mut Client, number: u64) {
    let key = format!("probe:{}", number % 100).into_bytes();
    let value = number.to_string().into_bytes();
    let reply = client
        .ask(&set_request(&key, &value))
        .expect("the probe is answered");
    assert_eq!(reply, b"STORED");
    let found = client.get(&key).expect("the probe is answered");
    assert_eq!(found, Some(value));
}

//! `-m` is what the process takes: overhead per item, the limit itself, and clients that try to make it take more.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tiercache_integration::client::{Client, set_request};
use tiercache_integration::load::Items;
use tiercache_integration::process;
use tiercache_integration::server::{Server, tiercache_binary};

const MIB: u64 = 1024 * 1024;
const LIMIT_MB: u64 = 64;
const VALUE_BYTES: usize = 100;
const KEY_BYTES: u64 = 16;
/// Resident bytes per item beyond its key and value.
const OVERHEAD_BYTES_MAX: u64 = 60;
/// What an attack may add to the resident bytes.
const GROWTH_BYTES_MAX: u64 = 64 * MIB;
/// Requests of the client that must not notice an attack.
const PROBES_MIN: u64 = 2000;

/// Reads the resident bytes of a debug build without judging them.
fn judged() -> bool {
    let binary = tiercache_binary();
    let debug = binary.components().any(|part| part.as_os_str() == "debug");
    if debug {
        println!(
            "{} is a debug build: figures are shown, not judged",
            binary.display()
        );
    }
    !debug
}

// 300,000 small items fit into 64 MiB with room to spare.
#[test]
fn an_item_costs_at_most_60_bytes_beyond_its_bytes() {
    const COUNT: u64 = 300_000;
    let server = Server::tiercache(&["-m", "64"]);
    let mut client = server.connect();
    client
        .set(b"first", b"touches what every request touches")
        .expect("the server answers");
    let idle = process::resident_bytes(server.pid());
    let items = Items {
        value_bytes: VALUE_BYTES,
    };
    items
        .store(&mut client, 0..COUNT, 0)
        .expect("every item is stored");
    let stats = server.stats();
    assert_eq!(
        (stats.number("curr_items"), stats.number("evictions")),
        (COUNT + 1, 0)
    );
    let growth = process::resident_bytes(server.pid()).saturating_sub(idle);
    let overhead = (growth / COUNT).saturating_sub(KEY_BYTES + VALUE_BYTES as u64);
    println!(
        "idle {} MiB, {overhead} bytes of overhead per item",
        idle / MIB
    );
    assert!(
        !judged() || overhead <= OVERHEAD_BYTES_MAX,
        "{overhead} bytes of overhead per item"
    );
}

// Far more items than fit: the process stays within its limit.
#[test]
fn resident_memory_stays_within_the_limit() {
    let server = Server::tiercache(&["-m", "64"]);
    let items = Items {
        value_bytes: VALUE_BYTES,
    };
    items
        .store(&mut server.connect(), 0..1_500_000, 0)
        .expect("every item is stored");
    let peak = process::resident_bytes_peak(server.pid());
    let limit = (LIMIT_MB + LIMIT_MB / 10 + 16) * MIB;
    println!("peak {} MiB of {} MiB allowed", peak / MIB, limit / MIB);
    assert!(!judged() || peak <= limit, "{} MiB resident", peak / MIB);
}

// 100 clients ask for far more than they ever read.
#[test]
fn clients_that_never_read_cost_bounded_memory() {
    let attack = |server: &Server| {
        let requests = "get large\r\n".repeat(5000);
        let clients: Vec<Client> = (0..100).map(|_| server.connect()).collect();
        for client in &clients {
            write_what_fits(client.stream(), requests.as_bytes());
        }
        clients
    };
    check_attack(attack);
}

// 90 clients announce 1 MiB and stop half way.
#[test]
fn half_sent_sets_cost_bounded_memory() {
    let attack = |server: &Server| {
        let clients: Vec<Client> = (0..90).map(|_| server.connect()).collect();
        for (number, client) in clients.iter().enumerate() {
            let mut half = format!("set half:{number} 0 0 1048000\r\n").into_bytes();
            half.resize(half.len() + 512 * 1024, b'x');
            write_what_fits(client.stream(), &half);
        }
        clients
    };
    check_attack(attack);
}

// One line of 100,000 keys is answered whole.
#[test]
fn a_get_line_of_100_000_keys_costs_bounded_memory() {
    const KEYS: u64 = 100_000;
    let attack = |server: &Server| {
        let mut client = server.connect();
        let writer = client.stream().try_clone().expect("a socket can be copied");
        let mut line = b"get large".to_vec();
        for number in 0..KEYS {
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
            assert_eq!(hits.len() as u64, 2 + 1000, "all keys that exist are hits");
        });
        vec![client]
    };
    check_attack(attack);
}

/// Writes until everything is written or the server does not read on; a closed connection is the server's right.
fn write_what_fits(stream: &TcpStream, bytes: &[u8]) {
    stream
        .set_write_timeout(Some(std::time::Duration::from_millis(200)))
        .expect("a socket takes a timeout");
    let mut stream = stream;
    let _ = stream.write_all(bytes);
}

/// Runs `attack` and then a while with what it holds open, while a probe client's requests all succeed.
fn check_attack(attack: impl FnOnce(&Server) -> Vec<Client>) {
    let server = Server::tiercache(&["-m", "64"]);
    let mut client = server.connect();
    let items = Items {
        value_bytes: VALUE_BYTES,
    };
    items
        .store(&mut client, 0..1000, 0)
        .expect("every item is stored");
    client
        .set(b"large", &[b'x'; 100_000])
        .expect("the server answers");
    probe(&mut client, 0);
    process::reset_peak(server.pid());
    let before = process::resident_bytes(server.pid());

    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let prober = scope.spawn(|| {
            let mut client = server.connect();
            let mut count = 0;
            while count < PROBES_MIN || !over.load(Ordering::Relaxed) {
                probe(&mut client, count);
                count += 1;
            }
            count
        });
        let held_open = attack(&server);
        over.store(true, Ordering::Relaxed);
        let probes = prober.join().expect("every probe succeeds");
        drop(held_open);
        println!("{probes} probes succeeded");
    });
    let growth = process::resident_bytes_peak(server.pid()).saturating_sub(before);
    println!(
        "resident {} MiB, grew by {} MiB",
        before / MIB,
        growth / MIB
    );
    assert!(
        growth <= GROWTH_BYTES_MAX,
        "resident memory grew by {} MiB",
        growth / MIB
    );
}

fn probe(client: &mut Client, number: u64) {
    let key = format!("probe:{}", number % 100).into_bytes();
    let value = number.to_string().into_bytes();
    let reply = client
        .ask(&set_request(&key, &value))
        .expect("the probe is answered");
    assert_eq!(reply, b"STORED");
    assert_eq!(
        client.get(&key).expect("the probe is answered"),
        Some(value)
    );
}

//! What goes wrong while a server is soaked: clients that break off, stall or send nonsense, a process that stands
//! still, less memory for a while, flushes.

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::RwLock;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tiercache_integration::client::Client;
use tiercache_integration::random::Random;
use tiercache_integration::server::Server;

/// Clients that break off at once.
const BROKEN_OFF: usize = 20;
/// Between two faults.
const PAUSE: Duration = Duration::from_millis(20);
/// From this one of a thousand faults on they are flushes, which happen alone.
const FLUSHES_FROM: u64 = 998;
/// How long a fault's client writes to a server that does not read on.
const WRITE_PATIENCE: Duration = Duration::from_millis(100);

/// How often each fault was injected.
#[derive(Debug, Default)]
pub struct Faults {
    half_sets: u64,
    unread_answers: u64,
    nonsense: u64,
    standstills: u64,
    less_memory: u64,
    flushes: u64,
}

/// Injects one fault after the other until the time is over; a server that does not survive one panics.
pub fn inject(server: &Server, flushes: &RwLock<u64>, seed: u64, until: Instant) -> Faults {
    let mut random = Random::new(!seed);
    let mut faults = Faults::default();
    while Instant::now() < until {
        // Most of them often, those that empty the cache seldom.
        let kind = random.below(1000);
        let acting = (kind < FLUSHES_FROM).then(|| flushes.read().expect("nobody panicked"));
        match kind {
            0..300 => {
                break_off(server, |stream| {
                    let length = random.between(1, 1 << 20);
                    stream.write_all(format!("set half 0 0 {length}\r\n").as_bytes())?;
                    stream.write_all(&vec![b'x'; random.below(length) as usize])
                });
                faults.half_sets += 1;
            }
            300..600 => {
                let requests = "get key:000000000001 key:000000000002\r\n".repeat(1000);
                break_off(server, |stream| stream.write_all(requests.as_bytes()));
                faults.unread_answers += 1;
            }
            600..900 => {
                let mut bytes = vec![0; 2000];
                break_off(server, |stream| {
                    random.fill(&mut bytes);
                    stream.write_all(&bytes)
                });
                faults.nonsense += 1;
            }
            900..990 => {
                stand_still(server);
                faults.standstills += 1;
            }
            990..FLUSHES_FROM => {
                let mut client = server.connect();
                for megabytes in [32, 64] {
                    let line = format!("cache_memlimit {megabytes}\r\n");
                    assert_eq!(client.ask(line.as_bytes()).expect("it is answered"), b"OK");
                }
                faults.less_memory += 1;
            }
            _ => {
                let mut count = flushes.write().expect("nobody panicked");
                let mut client = server.connect();
                let answer = client.ask(b"flush_all\r\n").expect("it is answered");
                assert_eq!(answer, b"OK");
                *count += 1;
                faults.flushes += 1;
            }
        }
        drop(acting);
        // Faults are not the load; nothing is waited for.
        thread::sleep(PAUSE);
    }
    faults
}

/// Clients that send what `write` writes and are gone.
fn break_off(server: &Server, mut write: impl FnMut(&mut &TcpStream) -> io::Result<()>) {
    let clients: Vec<Client> = (0..BROKEN_OFF).map(|_| server.connect()).collect();
    for client in &clients {
        let mut stream = client.stream();
        stream
            .set_write_timeout(Some(WRITE_PATIENCE))
            .expect("a socket takes a timeout");
        // A server that does not read on, or closes, is right.
        let _ = write(&mut stream);
    }
    // The server is still there for others.
    assert_eq!(
        server.connect().ask(b"mn\r\n").expect("it is answered"),
        b"MN"
    );
}

/// Stops the process while a request waits for it.
fn stand_still(server: &Server) {
    let pid = Pid::from_raw(server.pid().cast_signed()).expect("a process has a number");
    let mut client = server.connect();
    kill_process(pid, Signal::STOP).expect("an own child can be signalled");
    let sent = client.send(b"mn\r\n");
    kill_process(pid, Signal::CONT).expect("an own child can be signalled");
    sent.expect("the kernel takes it");
    assert_eq!(client.line().expect("it is answered"), b"MN");
}

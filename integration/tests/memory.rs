//! `-m` is what the process takes: overhead per item, and the limit itself.

use tiercache_integration::churn::churn;
use tiercache_integration::load::Items;
use tiercache_integration::process;
use tiercache_integration::server::{Server, tiercache_binary};

const MIB: u64 = 1024 * 1024;
const LIMIT_MB: u64 = 64;
const VALUE_BYTES: usize = 100;
const KEY_BYTES: u64 = 16;
/// Resident bytes per item beyond its key and value.
const OVERHEAD_BYTES_MAX: u64 = 60;

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

// Sizes that change wear an allocator of size classes down. Here the same bytes are used over and over: the limit
// holds whatever came before. `scripts/bench --memory` does the same at 64 MiB.
#[test]
fn resident_memory_stays_within_the_limit_whatever_the_sizes() {
    const CHURNED_MB: u64 = 16;
    let allowed = (CHURNED_MB + CHURNED_MB / 20 + 8) * MIB;
    let server = Server::tiercache(&["-m", &CHURNED_MB.to_string()]);
    let stored = server.connect().set(b"first", b"touches what is touched");
    assert_eq!(stored.expect("the server answers"), b"STORED");
    let idle = process::resident_bytes(server.pid());
    let mut rounds = 0;
    churn(server.address(), CHURNED_MB * MIB, |mean| {
        rounds += 1;
        let resident = process::resident_bytes(server.pid());
        println!("mean size {mean}: {} MiB", resident / MIB);
    })
    .expect("the server answers every set");
    assert_eq!(rounds, 10);
    assert!(server.stats().number("evictions") > 0);
    // Of so small a limit the program itself, with every backend in it, is no small part: what comes to it counts.
    let peak = process::resident_bytes_peak(server.pid());
    let growth = peak - idle;
    println!("idle {idle}, peak {peak} bytes resident");
    assert!(growth <= allowed, "{growth} bytes more than idle");
}

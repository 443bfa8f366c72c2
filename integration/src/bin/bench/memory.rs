//! What an item costs in memory, how much fits into a limit, and whether the limit holds.

use std::path::Path;

use tiercache_integration::churn::churn;
use tiercache_integration::process;
use tiercache_integration::random::Random;
use tiercache_integration::server::Server;
use tiercache_integration::sweep::{Passed, Sweep};
use tiercache_integration::workload::{ITEMS, store_items};

use crate::ARGUMENTS;
use crate::figures::measure;
use crate::options::Options;

const MIB: u64 = 1 << 20;
const LIMIT_BYTES: u64 = 64 * MIB;
/// What the rows about a limit start servers with.
const LIMITED: &[&str] = &["-t", "1", "-m", "64"];
/// Sizes of values of the mixed row.
const MIXED_BYTES: [u64; 2] = [50, 2000];
/// Items of the mixed row: about five times what fits.
const MIXED_COUNT: u64 = 300_000;
/// Items of the other rows: more than fit.
const COUNT: u64 = 2_000_000;

/// Resident bytes per item beyond its own.
pub fn overhead(options: &Options) {
    let title = format!("bytes of overhead per item, {} items", options.items);
    measure(&options.contenders, &title, |contender| {
        format!("{:.1}", overhead_bytes(&contender.binary, options.items))
    });
}

/// What a limit of 64 MiB holds, and whether it holds.
pub fn limits(options: &Options) {
    for value_bytes in [100, 10] {
        let title = format!("items of {value_bytes} B held at -m 64");
        measure(&options.contenders, &title, |contender| {
            held(&contender.binary, value_bytes).to_string()
        });
    }
    let [low, high] = MIXED_BYTES;
    let title = format!(
        "keys and values of {low} to {high} B held at -m 64, % of resident less idle bytes"
    );
    measure(&options.contenders, &title, |contender| {
        format!("{:.1}", mixed_percent(&contender.binary))
    });
    let title = "most resident MiB at -m 64 while mean sizes go from 50 B to 50 KB";
    measure(&options.contenders, title, |contender| {
        format!(
            "{:.1}",
            churned_bytes(&contender.binary) as f64 / MIB as f64
        )
    });
}

/// Resident growth per stored item beyond its key and value.
fn overhead_bytes(binary: &Path, items: u64) -> f64 {
    let server = Server::at(binary, ARGUMENTS);
    let mut client = server.connect();
    // What every first request touches is not what an item costs.
    store_items(&mut client, 1).expect("the server stores an item");
    let idle = process::resident_bytes(server.pid());
    store_items(&mut client, items).expect("the server stores the items");
    let stats = server.stats();
    assert_eq!(
        stats.number("curr_items"),
        items,
        "every item is still there"
    );
    let grown = process::resident_bytes(server.pid()) - idle;
    let key_bytes = 16;
    grown as f64 / items as f64 - (key_bytes + ITEMS.value_bytes) as f64
}

/// Items of one size that are left of many more.
fn held(binary: &Path, value_bytes: usize) -> u64 {
    let server = Server::at(binary, LIMITED);
    store(&server, COUNT, |_| value_bytes);
    server.stats().number("curr_items")
}

/// Bytes of keys and values that can be read, of what resident memory has grown by.
fn mixed_percent(binary: &Path) -> f64 {
    let server = Server::at(binary, LIMITED);
    let [low, high] = MIXED_BYTES;
    let bytes = |number| Random::new(number).between(low, high) as usize;
    store(&server, 1, bytes);
    let idle = process::resident_bytes(server.pid());
    store(&server, MIXED_COUNT, bytes);
    let grown = process::resident_bytes(server.pid()) - idle;
    let found = sweep(&server)
        .read(0..MIXED_COUNT)
        .expect("the server answers gets");
    found.bytes as f64 / grown as f64 * 100.0
}

/// The most that was resident while the churn test ran.
fn churned_bytes(binary: &Path) -> u64 {
    let server = Server::at(binary, LIMITED);
    churn(server.address(), LIMIT_BYTES, |_| {}).expect("the server answers sets");
    process::resident_bytes_peak(server.pid())
}

fn sweep(server: &Server) -> Sweep {
    Sweep::connect(server.address(), 4, 32, MIXED_BYTES[1] as usize)
        .expect("the server accepts connections")
}

fn store(server: &Server, count: u64, value_bytes: impl Fn(u64) -> usize) -> Passed {
    sweep(server)
        .store(0..count, value_bytes)
        .expect("the server answers sets")
}

//! Compares servers side by side: CPU, instructions and system calls per operation, resident bytes per item.
//!
//! `scripts/bench` builds and calls it. Rounds alternate between the servers (A B A B), so that a machine that slows
//! down hits both; the median counts, and the spread says how much it can be trusted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tempfile::TempDir;
use tiercache_integration::process;
use tiercache_integration::server::{Server, find_on_path, memcached_binary, tiercache_binary};
use tiercache_integration::workload::{ITEMS, ITEMS_COUNT, Protocol, Workload, store_items};

const USAGE: &str = "usage: bench [--rounds N] [--operations N] [--items N] [--instructions] [--syscalls] [--binary] [--server NAME=BINARY]...
  --rounds        rounds of A B A B, default 5
  --operations    operations per round and workload, default 300000
  --items         items of the memory figure, default 1000000; 0 leaves it out
  --instructions  also count instructions per operation (valgrind)
  --syscalls      also count recv and send calls per operation (strace)
  --binary        speak the binary protocol instead of text
  --server        another binary with memcached's flags to compare";

/// Operations of the two runs whose difference gives counts per operation, free of start-up.
const COUNTED_OPERATIONS: [u64; 2] = [4_000, 20_000];
/// A server under valgrind or strace may take this long to end.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// What every server is started with: one thread, and memory for every item.
const ARGUMENTS: &[&str] = &["-t", "1", "-m", "1024"];

struct Options {
    rounds: usize,
    operations: u64,
    items: u64,
    instructions: bool,
    syscalls: bool,
    protocol: Protocol,
    servers: Vec<(String, PathBuf)>,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}\n{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    let names: Vec<&str> = options
        .servers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    println!("| per operation | {} |", names.join(" | "));
    println!("|---|{}", "---|".repeat(names.len()));
    cpu(&options);
    if options.instructions {
        for workload in Workload::ALL {
            row(
                &options,
                &format!("user instructions, {}", workload.name()),
                |binary| {
                    format!(
                        "{:.0}",
                        counted(binary, workload, options.protocol, &instructions)
                    )
                },
            );
        }
    }
    if options.syscalls {
        for workload in Workload::ALL {
            row(
                &options,
                &format!("recv + send calls, {}", workload.name()),
                |binary| {
                    format!(
                        "{:.3}",
                        counted(binary, workload, options.protocol, &transfer_calls)
                    )
                },
            );
        }
    }
    if options.items > 0 {
        let title = format!("bytes of overhead per item, {} items", options.items);
        row(&options, &title, |binary| {
            format!("{:.1}", overhead_bytes(binary, options.items))
        });
    }
    ExitCode::SUCCESS
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        rounds: 5,
        operations: 300_000,
        items: 1_000_000,
        instructions: false,
        syscalls: false,
        protocol: Protocol::Text,
        servers: Vec::new(),
    };
    let mut added = Vec::new();
    while let Some(word) = words.next() {
        let mut number = || -> Result<u64, String> {
            let text = words.next().ok_or(format!("{word} needs a number"))?;
            text.parse()
                .map_err(|_| format!("{word} {text} is not a number"))
        };
        match word.as_str() {
            "--rounds" => options.rounds = number()?.max(1) as usize,
            "--operations" => options.operations = number()?,
            "--items" => options.items = number()?,
            "--instructions" => options.instructions = true,
            "--syscalls" => options.syscalls = true,
            "--binary" => options.protocol = Protocol::Binary,
            "--server" => {
                let text = words.next().unwrap_or_default();
                let (name, path) = text.split_once('=').ok_or("--server needs NAME=BINARY")?;
                added.push((name.to_owned(), PathBuf::from(path)));
            }
            _ => return Err(format!("unknown option {word}")),
        }
    }
    options
        .servers
        .push((String::from("memcached"), memcached_binary()));
    options
        .servers
        .push((String::from("tiercache"), tiercache_binary()));
    options.servers.extend(added);
    for (_, path) in &mut options.servers {
        if let Some(found) = path
            .to_str()
            .filter(|name| !name.contains('/'))
            .and_then(find_on_path)
        {
            *path = found;
        }
    }
    Ok(options)
}

/// CPU time of the server per operation: medians of alternating rounds.
fn cpu(options: &Options) {
    let mut samples = vec![vec![Vec::new(); options.servers.len()]; Workload::ALL.len()];
    for _ in 0..options.rounds {
        for (index, (_, binary)) in options.servers.iter().enumerate() {
            let server = loaded(&[], binary, &[]);
            for (workload, samples) in Workload::ALL.iter().zip(&mut samples) {
                let before = process::cpu_time(server.pid());
                let done = workload
                    .run(options.protocol, server.address(), options.operations)
                    .expect("the server answers the workload");
                let spent = process::cpu_time(server.pid()) - before;
                samples[index].push(spent.as_nanos() as f64 / done as f64 / 1000.0);
            }
        }
    }
    for (workload, samples) in Workload::ALL.iter().zip(&mut samples) {
        let cells: Vec<String> = samples
            .iter_mut()
            .map(|samples| {
                samples.sort_unstable_by(f64::total_cmp);
                let (median, last) = (samples[samples.len() / 2], samples.len() - 1);
                format!("{median:.2} µs ({:.2}–{:.2})", samples[0], samples[last])
            })
            .collect();
        println!("| CPU, {} | {} |", workload.name(), cells.join(" | "));
    }
}

fn row(options: &Options, title: &str, measure: impl Fn(&Path) -> String) {
    let cells: Vec<String> = options
        .servers
        .iter()
        .map(|(_, binary)| measure(binary))
        .collect();
    println!("| {title} | {} |", cells.join(" | "));
}

/// A started server that holds the items of the workloads.
fn loaded(wrapper: &[&str], binary: &Path, arguments: &[&str]) -> Server {
    let server = Server::wrapped(wrapper, binary, &[ARGUMENTS, arguments].concat());
    store_items(&mut server.connect(), ITEMS_COUNT).expect("the server stores the items");
    server
}

/// Counts the events of a run of so many operations, and how many it did.
type Count = dyn Fn(&Path, Workload, Protocol, u64) -> (u64, u64);

/// Events per operation: the difference between a long and a short run.
fn counted(binary: &Path, workload: Workload, protocol: Protocol, count: &Count) -> f64 {
    let [short, long] =
        COUNTED_OPERATIONS.map(|operations| count(binary, workload, protocol, operations));
    (long.0 as f64 - short.0 as f64) / (long.1 - short.1) as f64
}

/// User instructions of a whole run, and its operations.
fn instructions(
    binary: &Path,
    workload: Workload,
    protocol: Protocol,
    operations: u64,
) -> (u64, u64) {
    // valgrind lets a program set its limit of open files only to what it was: memcached sets it to -c, tiercache
    // wants some beside the connections.
    let wrapper = [
        "prlimit",
        "--nofile=1024:4096",
        "valgrind",
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
    ];
    let named_memcached = binary.to_string_lossy().contains("memcached");
    let connections = if named_memcached { "1024" } else { "512" };
    let mut server = loaded(&wrapper, binary, &["-c", connections]);
    let done = workload
        .run(protocol, server.address(), operations)
        .expect("the server answers the workload");
    server.terminate(STOP_LIMIT);
    let log = server.log();
    let collected = log
        .lines()
        .rev()
        .find_map(|line| line.split_once("Collected : "))
        .unwrap_or_else(|| panic!("valgrind counted nothing: {}", server.log_tail()));
    (
        collected
            .1
            .trim()
            .parse()
            .expect("valgrind prints a number"),
        done,
    )
}

/// Calls that move bytes through sockets in a whole run, and its operations.
fn transfer_calls(
    binary: &Path,
    workload: Workload,
    protocol: Protocol,
    operations: u64,
) -> (u64, u64) {
    const CALLS: &str = "read,readv,recvfrom,recvmsg,recvmmsg,write,writev,sendto,sendmsg,sendmmsg";
    let folder = TempDir::new().expect("a temporary folder can be made");
    let summary = folder.path().join("calls");
    let traced = format!("trace={CALLS}");
    let path = summary.display().to_string();
    let mut server = loaded(
        &["strace", "-f", "-c", "-e", &traced, "-o", &path],
        binary,
        &[],
    );
    let done = workload
        .run(protocol, server.address(), operations)
        .expect("the server answers the workload");
    server.terminate(STOP_LIMIT);
    let text = fs::read_to_string(&summary).expect("strace wrote its summary");
    // Columns: % time, seconds, usecs/call, calls, [errors], syscall.
    let calls = text
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let name = words.last()?;
            CALLS.split(',').find(|call| call == name)?;
            words.get(3)?.parse::<u64>().ok()
        })
        .sum();
    (calls, done)
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

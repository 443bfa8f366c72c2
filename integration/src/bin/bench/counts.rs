//! What does not depend on the machine's mood: user instructions and system calls per operation.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tiercache_integration::workload::{Protocol, Workload};

use crate::figures;
use crate::loaded;
use crate::options::Options;

/// Operations of the two runs whose difference gives counts per operation, free of start-up.
const COUNTED_OPERATIONS: [u64; 2] = [20_000, 120_000];
/// A server under valgrind or strace may take this long to end.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// User instructions per operation, by callgrind.
pub fn instructions(options: &Options) {
    print(options, "user instructions", 0, &collected);
}

/// Calls per operation that move bytes through sockets, by strace.
pub fn transfer_calls(options: &Options) {
    print(options, "recv + send calls", 3, &called);
}

fn print(options: &Options, title: &str, digits: usize, count: &Count) {
    for workload in Workload::ALL {
        let title = format!("{title}, {}", workload.name());
        figures::measure(&options.contenders, &title, |contender| {
            let counted = counted(&contender.binary, workload, options.protocol, count);
            format!("{counted:.digits$}")
        });
    }
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
fn collected(binary: &Path, workload: Workload, protocol: Protocol, operations: u64) -> (u64, u64) {
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
fn called(binary: &Path, workload: Workload, protocol: Protocol, operations: u64) -> (u64, u64) {
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

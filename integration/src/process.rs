//! What the kernel says about a server process: resident bytes, their peak, and CPU time, whole and by thread.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use crate::eventually;

/// Clock ticks per second of `/proc/PID/stat`; 100 on every Linux that this runs on.
const TICKS_PER_SECOND: u64 = 100;
/// Time between two looks at a process that may be idle, and the part of it that an idle one may work.
const IDLE_LOOK: Duration = Duration::from_millis(300);
const IDLE_SHARE: u32 = 50;

/// Resident bytes now (VmRSS).
pub fn resident_bytes(pid: u32) -> u64 {
    status_bytes(pid, "VmRSS:")
}

/// The highest resident bytes since the start or since [`reset_peak`] (VmHWM).
pub fn resident_bytes_peak(pid: u32) -> u64 {
    status_bytes(pid, "VmHWM:")
}

/// Makes the peak start again at what is resident now.
pub fn reset_peak(pid: u32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5")
        .expect("clear_refs of an own child is writable");
}

/// User and system CPU time of all threads since the start, in steps of 10 ms.
pub fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the server runs");
    // The command name may hold spaces; fields are counted from its closing parenthesis.
    let (_, fields) = stat.rsplit_once(')').expect("stat names the command");
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().expect("utime and stime are numbers"))
        .sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

/// CPU time of the threads that live now, to the nanosecond.
pub fn thread_time(pid: u32) -> Duration {
    let mut times = ThreadTimes::default();
    times.look(pid);
    times.sum(|_| true)
}

/// Waits at most `limit` until a process takes next to no CPU; false when it still works.
pub fn idles(pid: u32, limit: Duration) -> bool {
    let (mut looked, mut before) = (Instant::now(), thread_time(pid));
    eventually(limit, || {
        if looked.elapsed() < IDLE_LOOK {
            return false;
        }
        let now = thread_time(pid);
        let spent = now.saturating_sub(before);
        (looked, before) = (Instant::now(), now);
        spent < IDLE_LOOK / IDLE_SHARE
    })
}

/// CPU time of each thread that a process has or had, by looking again and again: the kernel keeps none of a thread
/// that ended.
#[derive(Clone, Debug, Default)]
pub struct ThreadTimes {
    /// Name and time, by thread id.
    threads: BTreeMap<u32, (String, Duration)>,
}

impl ThreadTimes {
    /// Looks once; false when the process is gone.
    pub fn look(&mut self, pid: u32) -> bool {
        let Ok(folder) = fs::read_dir(format!("/proc/{pid}/task")) else {
            return false;
        };
        for entry in folder.flatten() {
            let id = entry.file_name().to_string_lossy().parse();
            // A thread may end between the listing and the looks.
            let name = fs::read_to_string(entry.path().join("comm"));
            let time = fs::read_to_string(entry.path().join("schedstat"));
            if let (Ok(id), Ok(name), Ok(time)) = (id, name, time) {
                let thread = (name.trim_end().to_owned(), scheduled_time(&time));
                self.threads.insert(id, thread);
            }
        }
        true
    }

    /// The sum over the threads whose name `chosen` takes. The kernel cuts names off after 15 bytes.
    pub fn sum(&self, chosen: impl Fn(&str) -> bool) -> Duration {
        self.threads
            .values()
            .filter(|(name, _)| chosen(name))
            .map(|(_, time)| *time)
            .sum()
    }

    /// The names of all threads seen.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.threads.values().map(|(name, _)| name.as_str())
    }
}

/// Time on a CPU, from `schedstat`: to the nanosecond, where `stat` would miss a thread that runs for moments.
fn scheduled_time(schedstat: &str) -> Duration {
    let first = schedstat.split_whitespace().next();
    let nanoseconds = first.and_then(|field| field.parse().ok());
    Duration::from_nanos(nanoseconds.expect("schedstat begins with the time on a CPU"))
}

fn status_bytes(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the server runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or_else(|| panic!("{name} is in /proc/{pid}/status"));
    let kilobytes: u64 = line
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("the kernel prints kilobytes");
    kilobytes * 1024
}

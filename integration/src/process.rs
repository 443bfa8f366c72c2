//! What the kernel says about a server process: resident bytes, their peak, and CPU time.

use std::fs;
use std::time::Duration;

/// Clock ticks per second of `/proc/PID/stat`; 100 on every Linux that this runs on.
const TICKS_PER_SECOND: u64 = 100;

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

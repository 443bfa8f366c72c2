//! The disk tier beside memcached's extstore, on the same disk: what it costs to spill an item and to read it back,
//! what an item on disk costs in memory, and how long a restart takes.
//!
//! Both keep what RAM gives up in files of a temporary folder (`TMPDIR`), which the page cache holds. Everything else
//! is as the servers come, tracking included. memcached's extstore may run with fewer writes lost if `ext_threads` and
//! `ext_wbuf_size` are above their defaults, so they are.

use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tiercache_integration::process;
use tiercache_integration::random::Random;
use tiercache_integration::server::Server;
use tiercache_integration::sweep::{Passed, Sweep};
use tiercache_integration::tiers::wait_until_at_rest;

use crate::figures::{Samples, measure};
use crate::options::{Contender, Options};

const VALUE_BYTES: usize = 1024;
/// Items of the spill: five times what RAM holds, and few enough that memcached has room for their keys.
const SPILLED: u64 = 300_000;
/// Sets per second that every server keeps up with.
const PACE: u32 = 30_000;
/// Gets whose times are told, one at a time.
const TIMED_GETS: usize = 20_000;
/// Items between which resident memory grows by what an item on disk costs.
const COUNTED: [u64; 2] = [100_000, 2_000_000];
/// Items of the restart: 1 GB.
const RESTARTED: u64 = 1_000_000;
const CONNECTIONS: usize = 16;
const PIPELINE: usize = 16;
/// Background work ends within this.
const IDLE_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// A folder in memory, for memcached's `-e`.
const MEMORY_FOLDER: &str = "/dev/shm";

/// All rows.
pub fn rows(options: &Options) {
    spill_and_read(options);
    resident_per_item(options);
    restart(options);
}

/// A server whose RAM holds a fifth of [`SPILLED`], with a disk tier in `folder`.
fn spilling(contender: &Contender, folder: &Path, more: &[&str]) -> Server {
    let path = folder.display();
    let disk = if contender.is_memcached() {
        let settings = "ext_threads=2,ext_wbuf_size=8";
        [
            "-o".to_owned(),
            format!("ext_path={path}/ext:8g,{settings}"),
        ]
    } else {
        ["--dry".to_owned(), format!("{path}/dry")]
    };
    let arguments = [
        &["-t", "1", "-m", "64"],
        &disk.each_ref().map(String::as_str)[..],
        more,
    ]
    .concat();
    Server::at(&contender.binary, &arguments)
}

fn sweep(server: &Server, connections: usize, pipeline: usize) -> Sweep {
    Sweep::connect(server.address(), connections, pipeline, VALUE_BYTES)
        .expect("the server accepts connections")
}

fn store(sweep: &mut Sweep, numbers: std::ops::Range<u64>) -> Passed {
    sweep
        .store(numbers, |_| VALUE_BYTES)
        .expect("the server answers sets")
}

fn read(sweep: &mut Sweep, numbers: impl IntoIterator<Item = u64>) -> Passed {
    sweep
        .read(numbers.into_iter())
        .expect("the server answers gets")
}

/// All numbers below `count`, in random order.
fn shuffled(count: u64, seed: u64) -> Vec<u64> {
    let mut random = Random::new(seed);
    let mut numbers: Vec<u64> = (0..count).collect();
    for place in (1..numbers.len()).rev() {
        numbers.swap(place, random.below(place as u64 + 1) as usize);
    }
    numbers
}

/// The rows of one spill and what is read of it.
struct Spill {
    rate: Samples,
    kept: Samples,
    cpu: Samples,
    paced_kept: Samples,
    paced_cpu: Samples,
    read_cpu: Samples,
    from_disk: Samples,
    tails: [(f64, Samples); 4],
}

fn spill_and_read(options: &Options) {
    let samples = || Samples::new(&options.contenders);
    let mut spill = Spill {
        rate: samples(),
        kept: samples(),
        cpu: samples(),
        paced_kept: samples(),
        paced_cpu: samples(),
        read_cpu: samples(),
        from_disk: samples(),
        tails: [0.5, 0.99, 0.999, 1.0].map(|part| (part, samples())),
    };
    for round in 0..options.rounds {
        for (column, contender) in options.contenders.iter().enumerate() {
            spill_fast(&mut spill, column, contender);
            spill_paced_and_read(&mut spill, column, contender, round as u64);
        }
    }
    let title = |what: &str| format!("1 KiB through -m 64 as fast as it goes: {what}");
    spill.rate.print(&title("items kept per second"), 0, "");
    spill.kept.print(&title("kept, %"), 1, "");
    spill.cpu.print(&title("CPU per item kept"), 2, " µs");
    let title = |what: &str| format!("1 KiB through -m 64, {PACE} per second: {what}");
    spill.paced_kept.print(&title("kept, %"), 1, "");
    spill.paced_cpu.print(&title("CPU per item kept"), 2, " µs");
    spill
        .read_cpu
        .print("read back, pipeline of 16: CPU per hit", 2, " µs");
    spill.from_disk.print("read back: hits from disk, %", 1, "");
    for (part, tail) in &spill.tails {
        let title = format!("read back one at a time: {} % within", part * 100.0);
        tail.print(&title, 0, " µs");
    }
}

/// Stores items, and what that took: wall time, and CPU until nothing is on its way any more.
fn timed_store(server: &Server, sweep: &mut Sweep, count: u64) -> (f64, Duration) {
    let before = process::thread_time(server.pid());
    let started = Instant::now();
    store(sweep, 0..count);
    let seconds = started.elapsed().as_secs_f64();
    rest(server);
    (seconds, process::thread_time(server.pid()) - before)
}

fn rest(server: &Server) {
    let rests = process::idles(server.pid(), IDLE_LIMIT);
    assert!(rests, "the server comes to rest");
}

fn spill_fast(spill: &mut Spill, column: usize, contender: &Contender) {
    let folder = TempDir::new().expect("a temporary folder can be made");
    let server = spilling(contender, folder.path(), &[]);
    let mut sweep = sweep(&server, CONNECTIONS, PIPELINE);
    let (seconds, spent) = timed_store(&server, &mut sweep, SPILLED);
    let kept = read(&mut sweep, 0..SPILLED).done as f64;
    spill.rate.add(column, kept / seconds);
    spill.kept.add(column, kept / SPILLED as f64 * 100.0);
    spill.cpu.add(column, microseconds(spent) / kept);
}

/// At a pace that leaves next to everything there, so that reading it back compares the same.
fn spill_paced_and_read(spill: &mut Spill, column: usize, contender: &Contender, round: u64) {
    let folder = TempDir::new().expect("a temporary folder can be made");
    let server = spilling(contender, folder.path(), &[]);
    let pid = server.pid();
    let mut paced = sweep(&server, CONNECTIONS, PIPELINE);
    paced.pace(PACE);
    let (_, spent) = timed_store(&server, &mut paced, SPILLED);

    // The first pass counts what is there, and leaves only clean items in RAM.
    let mut sweep = sweep(&server, CONNECTIONS, PIPELINE);
    let kept = read(&mut sweep, shuffled(SPILLED, round)).done as f64;
    spill.paced_kept.add(column, kept / SPILLED as f64 * 100.0);
    spill.paced_cpu.add(column, microseconds(spent) / kept);

    rest(&server);
    let from_disk = disk_hits(contender, &server);
    let before = process::thread_time(pid);
    let passed = read(&mut sweep, shuffled(SPILLED, round + 100));
    let spent = process::thread_time(pid) - before;
    let from_disk = disk_hits(contender, &server) - from_disk;
    spill
        .read_cpu
        .add(column, microseconds(spent) / passed.done as f64);
    spill
        .from_disk
        .add(column, from_disk as f64 / passed.done as f64 * 100.0);

    let mut one = self::sweep(&server, 1, 1);
    let mut times: Vec<f64> = shuffled(SPILLED, round + 200)
        .into_iter()
        .take(TIMED_GETS)
        .map(|number| {
            let asked = Instant::now();
            read(&mut one, [number]);
            microseconds(asked.elapsed())
        })
        .collect();
    times.sort_unstable_by(f64::total_cmp);
    for (part, tail) in &mut spill.tails {
        let place = (times.len() as f64 * *part) as usize;
        tail.add(column, times[place.min(times.len() - 1)]);
    }
}

/// Gets that were answered from disk since the start.
fn disk_hits(contender: &Contender, server: &Server) -> u64 {
    let name = if contender.is_memcached() {
        "get_extstore"
    } else {
        "dry_hits"
    };
    server.stats().number(name)
}

fn microseconds(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1000.0
}

fn resident_per_item(options: &Options) {
    let title = "resident bytes per 1 KiB item on disk, 16-byte keys";
    measure(&options.contenders, title, |contender| {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let bytes = if contender.is_memcached() {
            header_bytes(contender, folder.path())
        } else {
            grown_bytes(contender, folder.path())
        };
        format!("{bytes:.1}")
    });
}

/// Growth of resident memory per item: RAM for items is full all the time.
fn grown_bytes(contender: &Contender, folder: &Path) -> f64 {
    let server = spilling(
        contender,
        folder,
        &["--dry-index", "256m", "--dry-wait", "1s"],
    );
    let mut sweep = sweep(&server, CONNECTIONS, PIPELINE);
    let mut from = 0;
    let [few, many] = COUNTED.map(|count| {
        store(&mut sweep, from..count);
        from = count;
        let items = wait_until_at_rest(&server);
        rest(&server);
        (items as f64, process::resident_bytes(server.pid()) as f64)
    });
    (many.1 - few.1) / (many.0 - few.0)
}

/// memcached keeps the key and a header in the smaller slab classes; the hash table is left out.
fn header_bytes(contender: &Contender, folder: &Path) -> f64 {
    /// Items from this size go to disk: `ext_item_size`.
    const WHOLE_BYTES: u64 = 512;
    let server = spilling(contender, folder, &[]);
    store(&mut sweep(&server, CONNECTIONS, PIPELINE), 0..SPILLED);
    rest(&server);
    let slabs = server
        .connect()
        .stats("slabs")
        .expect("the server answers stats slabs");
    let classes = slabs.iter().filter_map(|(name, chunk_bytes)| {
        let class = name.strip_suffix(":chunk_size")?;
        let bytes: u64 = chunk_bytes
            .parse()
            .ok()
            .filter(|bytes| *bytes < WHOLE_BYTES)?;
        Some((bytes, slabs.number(&format!("{class}:used_chunks"))))
    });
    let (bytes, chunks) = classes.fold((0, 0), |(bytes, chunks), (chunk_bytes, used)| {
        (bytes + chunk_bytes * used, chunks + used)
    });
    bytes as f64 / chunks as f64
}

fn restart(options: &Options) {
    let samples = || Samples::new(&options.contenders);
    let (mut clean, mut clean_cpu, mut crash) = (samples(), samples(), samples());
    for (column, contender) in options.contenders.iter().enumerate() {
        let memory = TempDir::new_in(MEMORY_FOLDER).expect("a folder in memory can be made");
        let disk = TempDir::new().expect("a temporary folder can be made");
        let mut server = if contender.is_memcached() {
            // Its disk tier is gone with the process: RAM in a file is what it can keep.
            let file = memory.path().join("items").display().to_string();
            Server::at(&contender.binary, &["-t", "1", "-m", "1536", "-e", &file])
        } else {
            spilling(contender, disk.path(), &["--dry-wait", "1s"])
        };
        store(&mut sweep(&server, CONNECTIONS, PIPELINE), 0..RESTARTED);
        rest(&server);
        for _ in 0..options.rounds {
            server.stop_gracefully(STOP_LIMIT);
            if contender.is_memcached() {
                // It takes its memory back only if a second has begun in between.
                std::thread::sleep(Duration::from_secs(2));
            }
            let (seconds, cpu) = first_hit(&mut server);
            clean.add(column, seconds);
            clean_cpu.add(column, cpu);
        }
        if !contender.is_memcached() {
            for _ in 0..options.rounds {
                server.kill9();
                crash.add(column, first_hit(&mut server).0);
            }
        }
    }
    let title = |what: &str| format!("restart with {RESTARTED} × 1 KiB: {what}");
    clean.print(&title("clean stop, first hit after"), 2, " s");
    clean_cpu.print(&title("CPU until then"), 2, " s");
    crash.print(&title("kill -9, first hit after"), 2, " s");
}

/// Seconds until an item is answered, and CPU seconds of the server until then.
fn first_hit(server: &mut Server) -> (f64, f64) {
    let started = Instant::now();
    server.start();
    let hits = read(&mut sweep(server, 1, PIPELINE), 0..PIPELINE as u64).done;
    let seconds = started.elapsed().as_secs_f64();
    assert!(hits > 0, "items of before the restart are there");
    (seconds, process::thread_time(server.pid()).as_secs_f64())
}

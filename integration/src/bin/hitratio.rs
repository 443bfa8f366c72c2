//! Compares hit ratios at equal resident memory, on traces of real caches: RAM alone, no dry tier.
//!
//! `scripts/hitratio` builds and calls it. memcached gets `-m` of a part of the trace's footprint; tiercache's `-m` is
//! then changed until what it grew by, resident, is as much as memcached grew by, and not more.

use std::path::Path;
use std::process::ExitCode;

use tiercache_integration::process;
use tiercache_integration::replay::{Replayed, replay};
use tiercache_integration::server::{Server, memcached_binary, tiercache_binary};
use tiercache_integration::trace::Trace;

const USAGE: &str = "usage: hitratio [--percents 5,10,20] [--policy NAME] [--trace NAME]...
  --percents  memory in percent of a trace's footprint, default 5,10,20
  --policy    tiercache's policy, else its default
  --trace     only these traces of the folder TRACES";

/// Runs in which tiercache's `-m` is brought near; the one that is nearest from below counts.
const RUNS_MAX: usize = 4;
/// Nearer than this part of memcached's growth is near enough.
const NEAR_PART: f64 = 0.01;
const MIB: f64 = 1024.0 * 1024.0;

struct Options {
    percents: Vec<u64>,
    policy: Option<String>,
    traces: Vec<String>,
}

/// One replay: what it counted, and what the server grew by.
#[derive(Clone, Copy, Debug)]
struct Run {
    replayed: Replayed,
    grown_bytes: f64,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}\n{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    let Some(files) = Trace::files().expect("the folder TRACES can be read") else {
        println!("TRACES is not set: nothing to replay");
        return ExitCode::SUCCESS;
    };
    println!(
        "| trace | memory | memcached | tiercache | difference | byte hits | resident growth, MiB |"
    );
    println!("|---|---|---|---|---|---|---|");
    let mut differences = vec![Vec::new(); options.percents.len()];
    for file in &files {
        if !options.traces.is_empty() && !options.traces.contains(&Trace::name_of(file)) {
            continue;
        }
        let trace = Trace::read(file).expect("a trace can be read");
        for (percent, differences) in options.percents.iter().zip(&mut differences) {
            differences.push(compare(&options, &trace, *percent));
        }
    }
    for (percent, differences) in options.percents.iter().zip(&differences) {
        let mean = differences.iter().sum::<f64>() / differences.len().max(1) as f64;
        println!("| mean | {percent} % | | | {mean:+.2} | | |");
    }
    ExitCode::SUCCESS
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        percents: vec![5, 10, 20],
        policy: None,
        traces: Vec::new(),
    };
    while let Some(word) = words.next() {
        let value = words.next().ok_or(format!("{word} needs a value"))?;
        match word.as_str() {
            "--percents" => {
                options.percents = value
                    .split(',')
                    .map(|text| text.parse().map_err(|_| format!("{text} is not a number")))
                    .collect::<Result<_, _>>()?;
            }
            "--policy" => options.policy = Some(value),
            "--trace" => options.traces.push(value),
            _ => return Err(format!("unknown option {word}")),
        }
    }
    Ok(options)
}

/// Prints a row and answers by how many points tiercache is better.
fn compare(options: &Options, trace: &Trace, percent: u64) -> f64 {
    let megabytes = trace.megabytes(percent);
    let theirs = run(&memcached_binary(), trace, &["-m", &megabytes.to_string()]);
    let ours = equal_run(options, trace, theirs.grown_bytes);
    let [their_hits, our_hits] = [theirs, ours].map(|run| run.replayed.hit_percent());
    println!(
        "| {} | {percent} %, -m {megabytes} | {their_hits:.1} | {our_hits:.1} | {:+.1} | {:.1}, {:.1} | {:.1}, {:.1} |",
        trace.name,
        our_hits - their_hits,
        theirs.replayed.byte_hit_percent(),
        ours.replayed.byte_hit_percent(),
        theirs.grown_bytes / MIB,
        ours.grown_bytes / MIB,
    );
    our_hits - their_hits
}

/// The run of tiercache that grows nearest to so many bytes, and not beyond.
fn equal_run(options: &Options, trace: &Trace, bytes: f64) -> Run {
    let mut limit = bytes;
    let mut best: Option<Run> = None;
    for _ in 0..RUNS_MAX {
        let kibibytes = format!("{}k", (limit / 1024.0) as u64);
        let mut arguments = vec!["-m", &kibibytes];
        if let Some(policy) = &options.policy {
            arguments.extend(["--policy", policy]);
        }
        let now = run(&tiercache_binary(), trace, &arguments);
        let fits = |run: &Run| run.grown_bytes <= bytes;
        if fits(&now) && best.is_none_or(|best| best.grown_bytes < now.grown_bytes) {
            best = Some(now);
        }
        if fits(&now) && now.grown_bytes > bytes * (1.0 - NEAR_PART) {
            break;
        }
        // A little below, so that the next run is not beyond again.
        limit += bytes * (1.0 - NEAR_PART / 2.0) - now.grown_bytes;
    }
    best.expect("the limit bounds what is resident")
}

fn run(binary: &Path, trace: &Trace, arguments: &[&str]) -> Run {
    let server = Server::at(binary, &[&["-t", "1"], arguments].concat());
    let mut client = server.connect();
    // What every first request touches is not what items take.
    client
        .set(b"first", b"1")
        .expect("the server stores an item");
    let idle = process::resident_bytes(server.pid());
    let replayed = replay(&mut client, trace).expect("the server answers the trace");
    Run {
        replayed,
        grown_bytes: process::resident_bytes(server.pid()) as f64 - idle as f64,
    }
}

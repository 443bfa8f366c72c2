//! What each choice of `--dry-admission` writes and what it finds again, on traces of real caches.
//!
//! `scripts/hitratio --admission` builds and calls it. RAM is a tenth of a trace's footprint, dry three tenths, so that
//! both have to give items up. Drying ahead is off: it would write what may die in RAM.

use std::process::ExitCode;

use tempfile::TempDir;
use tiercache_integration::replay::replay;
use tiercache_integration::server::{Server, tiercache_binary};
use tiercache_integration::trace::Trace;

const ADMISSIONS: [&str; 3] = ["all", "seen-twice", "tinylfu"];
const RAM_PERCENT: u64 = 10;
const DRY_PERCENT: u64 = 30;
/// What dry takes at least, in MiB.
const DRY_MEGABYTES_MIN: u64 = 32;
const MIB: f64 = 1024.0 * 1024.0;

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if wanted.iter().any(|word| word.starts_with('-')) {
        eprintln!("usage: admission [TRACE]...");
        return ExitCode::FAILURE;
    }
    let Some(files) = Trace::files().expect("the folder TRACES can be read") else {
        println!("TRACES is not set: nothing to replay");
        return ExitCode::SUCCESS;
    };
    println!(
        "| trace | admission | hits | of these from dry | written to dry, MiB | not admitted |"
    );
    println!("|---|---|---|---|---|---|");
    for file in &files {
        if wanted.is_empty() || wanted.contains(&Trace::name_of(file)) {
            let trace = Trace::read(file).expect("a trace can be read");
            for admission in ADMISSIONS {
                row(&trace, admission);
            }
        }
    }
    ExitCode::SUCCESS
}

fn row(trace: &Trace, admission: &str) {
    let folder = TempDir::new().expect("a temporary folder can be made");
    let dry = folder.path().join("dry").display().to_string();
    let ram = trace.megabytes(RAM_PERCENT).to_string();
    let size = format!("{}m", trace.megabytes(DRY_PERCENT).max(DRY_MEGABYTES_MIN));
    let arguments = ["-t", "1", "-m", &ram, "--dry", &dry, "--dry-size", &size];
    let further = [
        "--dry-ahead",
        "off",
        "--tracking",
        "off",
        "--dry-admission",
        admission,
    ];
    let server = Server::at(&tiercache_binary(), &[&arguments[..], &further].concat());
    let replayed = replay(&mut server.connect(), trace).expect("the server answers the trace");
    let stats = server.stats();
    println!(
        "| {} | {admission} | {:.1} | {:.1} | {:.0} | {} |",
        trace.name,
        replayed.hit_percent(),
        stats.number("dry_hits") as f64 * 100.0 / replayed.gets as f64,
        stats.number("dry_write_bytes") as f64 / MIB,
        stats.number("demote_dropped_admission"),
    );
}

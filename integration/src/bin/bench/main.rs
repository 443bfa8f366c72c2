//! Compares servers side by side: CPU, instructions and system calls per operation, memory, the disk
//! tier, and what grows with threads and connections.
//!
//! `scripts/bench` builds and calls it. Rounds alternate between the servers (A B A B), so that a machine that slows
//! down hits both; the median counts, and the spread says how much it can be trusted.

mod counts;
mod dry;
mod figures;
mod memory;
mod options;
mod requests;
mod scaling;

use std::path::Path;
use std::process::ExitCode;

use tiercache_integration::server::Server;
use tiercache_integration::workload::{ITEMS_COUNT, store_items};

use options::{Options, Part};

/// What every server is started with: one thread, and memory for every item.
const ARGUMENTS: &[&str] = &["-t", "1", "-m", "1024"];

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}\n{}", options::USAGE);
            return ExitCode::FAILURE;
        }
    };
    figures::print_head(&options.contenders);
    if options.wants(Part::Requests) {
        requests::cpu(&options);
        if options.instructions {
            counts::instructions(&options);
        }
        if options.syscalls {
            counts::transfer_calls(&options);
        }
    }
    let both = [Part::Requests, Part::Memory];
    if options.items > 0 && both.iter().any(|part| options.wants(*part)) {
        memory::overhead(&options);
    }
    if options.wants(Part::Memory) {
        memory::limits(&options);
    }
    if options.wants(Part::Dry) {
        dry::rows(&options);
    }
    if options.wants(Part::Scaling) {
        scaling::rows(&options);
    }
    ExitCode::SUCCESS
}

/// A started server that holds the items of the workloads.
fn loaded(wrapper: &[&str], binary: &Path, arguments: &[&str]) -> Server {
    let server = Server::wrapped(wrapper, binary, &[ARGUMENTS, arguments].concat());
    store_items(&mut server.connect(), ITEMS_COUNT).expect("the server stores the items");
    server
}

//! CPU per operation over threads, connections, sizes of values and lengths of pipelines: nothing may grow with
//! threads, and nothing large may be dear.

use std::fmt;

use tiercache_integration::pattern::Pattern;
use tiercache_integration::process;
use tiercache_integration::server::Server;

use crate::figures::Samples;
use crate::options::{Contender, Options};

const THREADS: [&str; 2] = ["1", "2"];
const CONNECTIONS: [usize; 2] = [50, 1000];
const VALUE_BYTES: [usize; 5] = [10, 100, 1 << 10, 64 << 10, 1 << 20];
const PIPELINES: [usize; 3] = [1, 16, 64];
/// Bytes of values per round of one cell, and the least and most operations of it.
const CELL_BYTES: u64 = 256 << 20;
const CELL_OPERATIONS: [u64; 2] = [200, 30_000];

/// What one row of the table is about.
#[derive(Clone, Copy, PartialEq)]
struct Cell {
    threads: &'static str,
    connections: usize,
    pattern: Pattern,
}

impl fmt::Display for Cell {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cell {
            threads,
            connections,
            pattern,
        } = self;
        write!(out, "CPU, -t {threads}, {connections} connections, ")?;
        match pattern.value_bytes {
            bytes if bytes >= 1 << 20 => write!(out, "{} MiB", bytes >> 20)?,
            bytes if bytes >= 1 << 10 => write!(out, "{} KiB", bytes >> 10)?,
            bytes => write!(out, "{bytes} B")?,
        }
        match pattern.pipeline {
            1 => write!(out, ", one at a time"),
            pipeline => write!(out, ", pipeline of {pipeline}"),
        }
    }
}

/// All cells, then what the second thread costs.
pub fn rows(options: &Options) {
    let mut cells: Vec<(Cell, Samples)> = cells()
        .map(|cell| (cell, Samples::new(&options.contenders)))
        .collect();
    for _ in 0..options.rounds {
        for threads in THREADS {
            for value_bytes in VALUE_BYTES {
                for (column, contender) in options.contenders.iter().enumerate() {
                    let server = filled(contender, threads, value_bytes);
                    let wanted = cells.iter_mut().filter(|(cell, _)| {
                        cell.threads == threads && cell.pattern.value_bytes == value_bytes
                    });
                    for (cell, samples) in wanted {
                        samples.add(column, microseconds_per_operation(&server, *cell));
                    }
                }
            }
        }
    }
    for (cell, samples) in &cells {
        samples.print(&cell.to_string(), 2, " µs");
    }
    second_thread(options, &cells);
}

fn cells() -> impl Iterator<Item = Cell> {
    let shapes = THREADS.into_iter().flat_map(|threads| {
        CONNECTIONS
            .into_iter()
            .map(move |connections| (threads, connections))
    });
    shapes.flat_map(|(threads, connections)| {
        VALUE_BYTES.into_iter().flat_map(move |value_bytes| {
            PIPELINES.into_iter().map(move |pipeline| Cell {
                threads,
                connections,
                pattern: Pattern {
                    value_bytes,
                    pipeline,
                },
            })
        })
    })
}

fn filled(contender: &Contender, threads: &str, value_bytes: usize) -> Server {
    // Room for the largest value with its header, and for all connections.
    let arguments = ["-t", threads, "-m", "1024", "-I", "2m", "-c", "1100"];
    let server = Server::at(&contender.binary, &arguments);
    let pattern = Pattern {
        value_bytes,
        pipeline: 1,
    };
    pattern
        .fill(server.address())
        .expect("the server stores the items");
    server
}

fn microseconds_per_operation(server: &Server, cell: Cell) -> f64 {
    let mut load = cell
        .pattern
        .load(server.address(), cell.connections)
        .expect("the server accepts the connections");
    let operations = CELL_BYTES / cell.pattern.value_bytes as u64;
    let operations = operations.clamp(CELL_OPERATIONS[0], CELL_OPERATIONS[1]);
    // Each connection's first turn is its own: buffers, and the caches of the processor.
    let _ = load
        .run(operations.min(cell.connections as u64))
        .expect("the server answers");
    let before = process::thread_time(server.pid());
    let done = load.run(operations).expect("the server answers");
    let spent = process::thread_time(server.pid()) - before;
    spent.as_nanos() as f64 / done as f64 / 1000.0
}

/// The median over all shapes of what two threads take beside one.
fn second_thread(options: &Options, cells: &[(Cell, Samples)]) {
    let mut ratios = Samples::new(&options.contenders);
    for (cell, one) in cells.iter().filter(|(cell, _)| cell.threads == THREADS[0]) {
        let twin = Cell {
            threads: THREADS[1],
            ..*cell
        };
        let two = cells.iter().find(|(cell, _)| *cell == twin);
        for column in 0..options.contenders.len() {
            if let (Some(one), Some(two)) = (
                one.median(column),
                two.and_then(|(_, two)| two.median(column)),
            ) {
                ratios.add(column, two / one);
            }
        }
    }
    ratios.print("CPU, -t 2 of -t 1, over all of these", 2, " ×");
}

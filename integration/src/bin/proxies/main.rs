//! Compares proxies in front of one pool: CPU of the proxy per operation, beside a memcached that answers itself.
//!
//! `scripts/bench --proxy` builds and calls it. Rounds alternate between the contenders (A B A B), each with servers of
//! its own that are started anew; the median counts, and the spread says how much it can be trusted.

mod contender;
mod script;

use std::process::ExitCode;

use tiercache_integration::process;
use tiercache_integration::workload::{ITEMS_COUNT, Protocol, Workload};

use contender::Contender;
use script::Script;

const USAGE: &str = "usage: proxies [--rounds N] [--operations N]
  --rounds        rounds of A B A B, default 5
  --operations    operations per round and workload, default 300000";

/// The workloads that every contender answers.
const WORKLOADS: [Workload; 2] = [Workload::OneAtATime, Workload::Pipeline16];

struct Options {
    rounds: usize,
    operations: u64,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}\n{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    let mut table = Table::default();
    for _ in 0..options.rounds {
        for (column, contender) in Contender::ALL.into_iter().enumerate() {
            let Some(running) = contender.start() else {
                continue;
            };
            running.fill();
            for workload in WORKLOADS {
                let before = process::cpu_time(running.pid());
                let done = workload
                    .run(Protocol::Text, running.address(), options.operations)
                    .expect("the contender answers the workload");
                let spent = process::cpu_time(running.pid()) - before;
                let title = format!("CPU, {}", workload.name());
                table.add(
                    &title,
                    column,
                    spent.as_nanos() as f64 / done as f64 / 1000.0,
                );
            }
        }
        for (column, contender) in Contender::ALL.into_iter().enumerate() {
            if !contender.answers_itself() {
                continue;
            }
            let Some(running) = contender.start() else {
                continue;
            };
            running.fill_beyond(Script::unread_items(options.operations));
            let mut unread = ITEMS_COUNT;
            for script in Script::ALL {
                let requests = script.prepare(options.operations, &mut unread);
                let (before, hot) = (process::cpu_time(running.pid()), running.hot_hits());
                let done = requests
                    .run(running.address())
                    .expect("the contender answers the script");
                let spent = process::cpu_time(running.pid()) - before;
                let title = format!("CPU, {}", script.name);
                table.add(
                    &title,
                    column,
                    spent.as_nanos() as f64 / done as f64 / 1000.0,
                );
                if let (Some(before), Some(after)) = (hot, running.hot_hits()) {
                    let title = format!("% answered by hot, {}", script.name);
                    table.add(
                        &title,
                        column,
                        (after - before) as f64 / done as f64 * 100.0,
                    );
                }
            }
        }
    }
    table.print();
    ExitCode::SUCCESS
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        rounds: 5,
        operations: 300_000,
    };
    while let Some(word) = words.next() {
        let mut number = || -> Result<u64, String> {
            let text = words.next().ok_or(format!("{word} needs a number"))?;
            text.parse()
                .map_err(|_| format!("{word} {text} is not a number"))
        };
        match word.as_str() {
            // scripts/bench chooses this program by it.
            "--proxy" => {}
            "--rounds" => options.rounds = number()?.max(1) as usize,
            "--operations" => options.operations = number()?.max(1000),
            _ => return Err(format!("unknown option {word}")),
        }
    }
    Ok(options)
}

/// Samples by row and contender, rows in the order in which they came.
#[derive(Default)]
struct Table(Vec<(String, Vec<Vec<f64>>)>);

impl Table {
    fn add(&mut self, title: &str, column: usize, sample: f64) {
        let at = self.0.iter().position(|(known, _)| known == title);
        let at = at.unwrap_or_else(|| {
            self.0
                .push((title.to_owned(), vec![Vec::new(); Contender::ALL.len()]));
            self.0.len() - 1
        });
        self.0[at].1[column].push(sample);
    }

    fn print(&mut self) {
        let names = Contender::ALL.map(Contender::name).join(" | ");
        println!("| per operation, µs | {names} |");
        println!("|---|{}", "---|".repeat(Contender::ALL.len()));
        for (title, columns) in &mut self.0 {
            let cells: Vec<String> = columns.iter_mut().map(|samples| cell(samples)).collect();
            println!("| {title} | {} |", cells.join(" | "));
        }
    }
}

/// The median, and the lowest and highest in brackets; a dash where nothing was measured.
fn cell(samples: &mut [f64]) -> String {
    samples.sort_unstable_by(f64::total_cmp);
    match samples {
        [] => String::from("–"),
        [only] => format!("{only:.2}"),
        [lowest, .., highest] => {
            let (lowest, highest) = (*lowest, *highest);
            format!(
                "{:.2} ({lowest:.2}–{highest:.2})",
                samples[samples.len() / 2]
            )
        }
    }
}

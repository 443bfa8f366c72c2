//! One server, killed again and again under its clients, and what all of them saw.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use tiercache_integration::client::{Client, Stats};
use tiercache_integration::history::{Event, Histories, Record};
use tiercache_integration::random::Random;
use tiercache_integration::server::Server;

use super::keys::{LOCAL, Size};
use super::worker::{Outcome, Shared, Worker};

const CLIENTS: usize = 4;
/// Overwrites and deletes of dried keys that every cycle aims at, over all clients.
pub const DRIED_REPLACED_MIN: u64 = 500;
/// Keys that all clients read and change at once, right after they were dried.
const RACED: usize = 480;
/// Of those as many are taken in step.
const RACED_AT_ONCE: usize = 8;
/// Mixed load before the end, in milliseconds.
const LOAD_MS: (u64, u64) = (50, 500);
/// Longest time that a stop may take.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// A delayed flush comes within this of its time.
const FLUSH_SLACK: Duration = Duration::from_secs(2);

/// How a cycle ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// `kill -9` at a random moment.
    Kill,
    /// SIGTERM at a random moment.
    Terminate,
    /// A point in the server's code is passed for the n-th time; SIGTERM where that point is part of a stop.
    Point(&'static str, u64),
}

/// What clients flush in a cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    No,
    Now,
    /// A second later.
    Delayed,
}

/// What one cycle was worth.
#[derive(Debug)]
pub struct Report {
    pub hits: u64,
    pub misses: u64,
    /// Share of hits that dry answered.
    pub dry_percent: u64,
    pub dried_replaced: u64,
    /// Of what dry held when the server was killed, what it held right after the start; 100 where nothing can be said.
    pub warm_percent: u64,
    /// The server died at the point that was asked for.
    pub died_there: bool,
    /// What is wrong, one line each.
    pub violations: Vec<String>,
}

/// A server, its folder, and the histories of its keys.
pub struct Loop {
    pub server: Server,
    pub folder: PathBuf,
    pub random: Random,
    pub histories: Histories,
    environment: Vec<(String, String)>,
    shared: Arc<Shared>,
    /// Items in dry when the last cycle ended, if a start should bring them back.
    dried: Option<u64>,
    /// Nothing is warm: every key is to be stored before anything else.
    empty: bool,
    /// Since when a delayed flush may have come, and when it must have.
    flush_due: Option<(u64, u64)>,
    size: Size,
    scratch: TempDir,
}

impl Loop {
    /// A stopped server over an empty folder that nobody has written to.
    pub fn new(binary: &Path, seed: u64, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::over(None, LOCAL, binary, seed, arguments, environment)
    }

    /// As [`Loop::new`], with the segments in a remote store and the folder as its spool.
    pub fn over(
        remote: Option<&str>,
        size: Size,
        binary: &Path,
        seed: u64,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let scratch = TempDir::new().expect("a temporary folder can be made");
        let folder = scratch.path().join("dry");
        let folder_text = folder.display().to_string();
        let own = [
            "-m",
            size.memory,
            "-t",
            "4",
            "--dry-size",
            size.dry,
            "--dry-wait",
            "1s",
        ];
        let place = match remote {
            None => vec!["--dry", &folder_text],
            Some(remote) => vec!["--dry", remote, "--dry-spool", &folder_text],
        };
        let server = Server::stopped(&[], binary, &[&own, &place[..], arguments].concat());
        Self {
            server,
            folder,
            random: Random::new(seed),
            histories: Histories::new(size.keys),
            environment: environment
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
            shared: Arc::new(Shared::new(size)),
            dried: None,
            empty: true,
            flush_due: None,
            size,
            scratch,
        }
    }

    /// Sets a variable for later starts.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.into(), value.into()));
    }

    /// What dry holds will not be warm at the next start, and need not be.
    pub fn expect_cold(&mut self) {
        self.dried = None;
        self.empty = true;
    }

    /// A folder beside the server's, for a test's own copies.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// Starts the server, loads it, has it die, and checks all that its clients saw. `meanwhile` runs when the server
    /// has started and everything was read once.
    pub fn cycle(&mut self, end: End, flush: Flush, meanwhile: impl FnOnce(&Path)) -> Report {
        let mut report = Report {
            hits: 0,
            misses: 0,
            dry_percent: 0,
            dried_replaced: 0,
            warm_percent: 100,
            died_there: false,
            violations: Vec::new(),
        };
        self.prepare();
        let mut environment = self.environment.clone();
        if let End::Point(point, passage) = end {
            environment.push(("TIERCACHE_CRASH".into(), format!("{point}:{passage}")));
        }
        self.server.set_environment(environment);
        if self.server.try_start().is_err() {
            assert!(
                matches!(end, End::Point(..)),
                "the server does not start:\n{}",
                self.server.log_tail()
            );
            report.died_there = true;
            return report;
        }
        self.shared.server_restarted();
        if let Some(dried) = self.dried.take().filter(|dried| *dried > 0) {
            // Of a server that dies at once nothing can be learnt.
            let stats =
                Client::connect(self.server.address()).and_then(|mut client| client.stats(""));
            let items = stats.map(|stats| stats.number("dry_items"));
            report.warm_percent = items.map_or(100, |items| items * 100 / dried);
        }
        let (outcomes, stats) = self.load(end, flush, meanwhile, &mut report);
        if let Some(stats) = stats {
            // What a multi-get brought up ahead counts as a hit of hot when its turn comes.
            let from_dry = if self.size.remote {
                "promotions"
            } else {
                "dry_hits"
            };
            report.dry_percent = stats.number(from_dry) * 100 / stats.number("get_hits").max(1);
            let lost_on_purpose = flush != Flush::No || self.flush_due.is_some();
            self.dried = Some(written_items(&stats)).filter(|_| !lost_on_purpose);
        }
        for outcome in outcomes {
            report.hits += outcome.hits;
            report.misses += outcome.misses;
            report.dried_replaced += outcome.dried_replaced;
            report.violations.extend(outcome.corrupt);
            self.histories.add(outcome.records);
        }
        let due = self.settle_flush();
        self.histories.add(due);
        report.violations.extend(self.histories.check());
        report
    }

    /// Where nothing is warm, stores every key, and has that server die as well. What a delayed flush takes is stored
    /// again.
    fn prepare(&mut self) {
        while self.empty {
            self.empty = self.flush_due.is_some();
            self.server.set_environment(self.environment.clone());
            self.server.start();
            self.shared.server_restarted();
            let mut filler = self.worker().expect("the server accepts a connection");
            let filled = filler
                .read_all()
                .and_then(|()| filler.fill(0..self.size.keys));
            filled.expect("the server takes every key");
            self.server.kill9();
            self.histories.add(filler.outcome.records);
            let due = self.settle_flush();
            self.histories.add(due);
        }
    }

    fn load(
        &mut self,
        end: End,
        flush: Flush,
        meanwhile: impl FnOnce(&Path),
        report: &mut Report,
    ) -> (Vec<Outcome>, Option<Stats>) {
        let raced: Vec<usize> = (0..RACED)
            .map(|_| self.random.below(self.size.keys as u64) as usize)
            .collect();
        let load = Duration::from_millis(self.random.between(LOAD_MS.0, LOAD_MS.1));
        let Ok(mut clients) = (0..CLIENTS)
            .map(|_| self.worker())
            .collect::<Result<Vec<_>, _>>()
        else {
            report.died_there = self.server.ended(STOP_LIMIT);
            return (Vec::new(), None);
        };
        let alive = clients[0].read_all();
        meanwhile(&self.folder);
        let (step, loaded) = (Barrier::new(CLIENTS), Barrier::new(CLIENTS + 1));
        let refill = self.size.refill;
        assert!(
            alive.is_ok() || matches!(end, End::Point(..)),
            "the server answers: {alive:?}"
        );
        thread::scope(|scope| {
            let clients: Vec<_> = clients
                .into_iter()
                .map(|mut client| {
                    let (step, loaded, raced) = (&step, &loaded, &raced);
                    scope.spawn(move || {
                        let mut done = Ok(());
                        for keys in raced.chunks(RACED_AT_ONCE) {
                            step.wait();
                            done = done.and_then(|()| client.race(keys));
                        }
                        let done = done
                            .and_then(|()| client.refill(refill / CLIENTS as u64))
                            .and_then(|()| {
                                client.replace_dried(DRIED_REPLACED_MIN / CLIENTS as u64 + 1)
                            });
                        loaded.wait();
                        let point = matches!(end, End::Point(..));
                        assert!(
                            done.is_ok() || point,
                            "the server answers until it is killed: {done:?}"
                        );
                        // Ends with the error that the kill makes of the command under way.
                        let _ = done.and_then(|()| client.run());
                        client.outcome
                    })
                })
                .collect();
            loaded.wait();
            let flushed = self.flush(flush);
            thread::sleep(load);
            let stats = Client::connect(self.server.address())
                .and_then(|mut client| client.stats(""))
                .ok();
            report.died_there = self.end(end);
            let outcomes: Vec<Outcome> = clients
                .into_iter()
                .map(|client| client.join().expect("a client does not panic"))
                .collect();
            self.histories.add(flushed);
            (outcomes, stats)
        })
    }

    /// Ends the server as asked for; true if it died at the point that was asked for.
    fn end(&mut self, end: End) -> bool {
        match end {
            End::Kill => self.server.kill9(),
            End::Terminate => {
                let status = self.server.terminate(STOP_LIMIT);
                assert!(
                    status.success(),
                    "a stop ends with {status}\n{}",
                    self.server.log_tail()
                );
            }
            End::Point("Draining" | "BeforeClean", _) => {
                return !self.server.ended(Duration::ZERO)
                    && !self.server.terminate(STOP_LIMIT).success();
            }
            End::Point(..) => {
                let died = self.server.ended(Duration::ZERO);
                self.server.kill9();
                return died;
            }
        }
        false
    }

    fn worker(&mut self) -> io::Result<Worker> {
        Ok(Worker {
            shared: Arc::clone(&self.shared),
            random: Random::new(self.random.bits()),
            client: Client::connect(self.server.address())?,
            outcome: Outcome::default(),
        })
    }

    /// Flushes; the records of it, a delete of every key, once it has taken effect.
    fn flush(&mut self, flush: Flush) -> Vec<Record> {
        let (request, delay) = match flush {
            Flush::No => return Vec::new(),
            Flush::Now => ("flush_all\r\n", None),
            Flush::Delayed => ("flush_all 1\r\n", Some(Duration::from_secs(1))),
        };
        // A later cycle begins with every key again.
        self.empty = true;
        // It takes the place of one that is pending, also if its answer is lost.
        let due = self.settle_flush();
        self.flush_due = None;
        let start = self.shared.now();
        let reply = Client::connect(self.server.address())
            .and_then(|mut client| client.ask(request.as_bytes()));
        let Ok(reply) = reply else {
            return due;
        };
        assert_eq!(reply, b"OK");
        let finish = self.shared.now();
        match delay {
            Some(delay) => {
                self.flush_due = Some((start, finish + (delay + FLUSH_SLACK).as_nanos() as u64));
                due
            }
            None => self.deletes(start, finish).chain(due).collect(),
        }
    }

    /// The records of a delayed flush whose time is over.
    fn settle_flush(&mut self) -> Vec<Record> {
        let now = self.shared.now();
        let due = self.flush_due.take_if(|(_, finish)| *finish <= now);
        due.into_iter()
            .flat_map(|(start, finish)| self.deletes(start, finish))
            .collect()
    }

    fn deletes(&self, start: u64, finish: u64) -> impl Iterator<Item = Record> + use<> {
        (0..self.size.keys).map(move |key| Record {
            key,
            event: Event::Delete,
            start,
            finish: Some(finish),
        })
    }
}

/// Items of dry that are in its files: those that still wait for the device die with the process.
fn written_items(stats: &Stats) -> u64 {
    let (items, bytes) = (stats.number("dry_items"), stats.number("dry_bytes"));
    items - (items * stats.number("dry_queue_bytes") / bytes.max(1)).min(items)
}

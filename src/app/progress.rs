//! A line that shows how far something long has come.

use std::cell::Cell;
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Time between two updates: in place on a terminal, as further lines elsewhere.
const INTERVAL: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];

/// Something long, shown on standard error once it lasts longer than an interval.
pub(super) struct Progress {
    what: &'static str,
    on_terminal: bool,
    state: Mutex<State>,
}

struct State {
    next: Cell<Instant>,
    shown: Cell<bool>,
}

impl Progress {
    pub(super) fn new(what: &'static str) -> Progress {
        let on_terminal = std::io::stderr().is_terminal();
        let next = Cell::new(Instant::now() + interval(on_terminal));
        Progress {
            what,
            on_terminal,
            state: Mutex::new(State {
                next,
                shown: Cell::new(false),
            }),
        }
    }

    /// Shows that `done` of `all` steps are done, unless it was shown a moment ago.
    pub(super) fn show(&self, done: u64, all: u64, detail: &dyn Display) {
        let state = self.state.lock();
        if Instant::now() < state.next.get() {
            return;
        }
        state.next.set(Instant::now() + interval(self.on_terminal));
        state.shown.set(true);
        let percent = (done * 100).checked_div(all).unwrap_or(100);
        let line = format!("{} {percent:3} % ({done}/{all}, {detail})", self.what);
        if self.on_terminal {
            eprint!("\r{line}\x1b[K");
            let _ = std::io::stderr().flush();
        } else {
            tracing::info!("{line}");
        }
    }

    /// Ends the line.
    pub(super) fn end(&self) {
        if self.on_terminal && self.state.lock().shown.get() {
            eprintln!();
        }
    }
}

fn interval(on_terminal: bool) -> Duration {
    INTERVAL[usize::from(!on_terminal)]
}

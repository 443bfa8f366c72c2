//! The log on standard error: how much of it is written can change while the process runs.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::clock::{UnixSeconds, wall_us};
use crate::ratelimit::RateLimit;

/// Names a filter such as `info,tiercache::dry=debug`, which then stays whatever clients say.
const FILTER_VARIABLE: &str = "TIERCACHE_LOG";

/// Changes by clients that are logged each second; beyond it they are counted.
const CHANGES_LOGGED_PER_SECOND: u32 = 10;

static LOGGED: RateLimit = RateLimit::new(CHANGES_LOGGED_PER_SECOND);

/// Sets how much is logged, from 0 to 3.
pub type SetVerbosity = Box<dyn Fn(u32) + Send + Sync>;

/// Starts to log: warnings and what the server does as a whole, more with each `-v`. Answers how to
/// change that.
pub fn start(verbosity: u32) -> SetVerbosity {
    let chosen = EnvFilter::try_from_env(FILTER_VARIABLE);
    let fixed = chosen.is_ok();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(chosen.unwrap_or_else(|_| filter(verbosity)))
        .with_writer(std::io::stderr)
        // What cannot be written is lost. Told on the same standard error, it would end the thread,
        // and with that of the signals the way to stop.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(verbosity > 0)
        .with_filter_reloading();
    let handle = builder.reload_handle();
    builder.init();
    Box::new(move |verbosity| {
        if fixed {
            return;
        }
        match handle.reload(filter(verbosity)) {
            Ok(()) => {
                let now = (wall_us() / 1_000_000) as UnixSeconds;
                if let Some(left_out) = LOGGED.pass(now) {
                    tracing::info!(verbosity, left_out, "a client set how much is logged");
                }
            }
            Err(error) => tracing::warn!(%error, "set how much is logged"),
        }
    })
}

fn filter(verbosity: u32) -> EnvFilter {
    let level = match verbosity {
        0 => "info",
        // Requests are asked for at 2 (`command::COMMANDS_LOGGED_FROM`) and written at this level.
        1 | 2 => "debug",
        _ => "trace",
    };
    EnvFilter::new(format!("warn,tiercache={level}"))
}

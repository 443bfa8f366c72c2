//! `-d`: the server in the background.
//!
//! Forking is not safe in a process that may have threads, so the program starts itself again,
//! detached from the terminal, and waits until that one serves clients or says why it does not.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};

/// Tells the second process that it is the one in the background.
const VARIABLE: &str = "TIERCACHE_IN_BACKGROUND";

/// What the one in the background writes once it serves clients.
const READY: &str = "ready";

/// Which of the two processes this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The one that was started, which starts the other.
    Foreground,
    /// The one that serves.
    Background,
}

/// Which of the two processes this is.
pub fn role() -> Role {
    if std::env::var_os(VARIABLE).is_some() {
        Role::Background
    } else {
        Role::Foreground
    }
}

/// Starts the program again in the background with the same arguments and waits until it serves.
///
/// # Errors
/// It cannot be started, or it ended with this reason.
pub fn start(verbosity: u32) -> anyhow::Result<ExitCode> {
    if std::env::var("LISTEN_PID") == Ok(std::process::id().to_string()) {
        bail!("-d: the sockets of LISTEN_FDS are for this process alone; run it in the foreground");
    }
    let program = std::env::current_exe().context("find the program")?;
    let mut child = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(VARIABLE, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // As memcached: with -v what it logs still appears.
        .stderr(if verbosity > 0 {
            Stdio::inherit()
        } else {
            Stdio::null()
        })
        .spawn()
        .context("start the program in the background")?;
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output)
            .read_line(&mut line)
            .context("hear from the background")?;
    }
    match line.trim_end() {
        READY => Ok(ExitCode::SUCCESS),
        "" => {
            bail!(
                "the process in the background ended: {}",
                child.wait().context("wait for it")?
            )
        }
        reason => bail!("{reason}"),
    }
}

/// Leaves the session of the terminal. In the background process, before it does anything.
///
/// # Errors
/// The operating system's.
pub fn detach() -> anyhow::Result<()> {
    rustix::process::setsid().context("leave the session")?;
    Ok(())
}

/// Tells the waiting process that clients are served.
pub fn say_ready() {
    println!("{READY}");
}

/// Tells the waiting process why they are not.
pub fn say_failed(error: &anyhow::Error) {
    println!("{}", format!("{error:#}").replace('\n', " "));
}

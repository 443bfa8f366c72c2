//! The program: reads the command line, then serves, inspects or prints.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use tiercache::app::{self, background, logging};
use tiercache::cli::{Cli, Command, Flags, PoolQuestion};
use tiercache::config::{self, Config, Layer, MEMCACHED_VERSION, Machine};
use tiercache::upstream::Question;

/// memcached's exit code for a command line that it does not understand.
const EXIT_USAGE: u8 = 64;

macro_rules! version {
    ($dry:literal) => {
        concat!(
            "tiercache ",
            env!("CARGO_PKG_VERSION"),
            "\nhot: ram, memcached\ncold: ram, memcached\ndry: ",
            $dry,
            "\ntracking: sled"
        )
    };
}

/// What `tiercache --version` says; the backends are those that this program was built with.
const VERSION: &str = match (cfg!(feature = "s3"), cfg!(feature = "mongodb")) {
    (false, false) => version!("local"),
    (true, false) => version!("local, s3"),
    (false, true) => version!("local, mongodb"),
    (true, true) => version!("local, s3, mongodb"),
};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // There is nowhere to tell that the terminal is gone.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let outcome = match cli.command {
        None => serve(&cli.flags),
        Some(Command::CheckConfig { file }) => check_config(&file),
        Some(Command::PrintConfig(flags)) => print_config(&flags),
        Some(Command::Pool { question, flags }) => pool(question, &flags),
        Some(Command::Keys { dir }) => keys(&dir),
        Some(Command::Show { dir, key }) => show(&dir, &key),
    };
    outcome.unwrap_or_else(|error| {
        if reader_is_gone(&error) {
            return ExitCode::SUCCESS;
        }
        eprintln!("tiercache: {error:#}");
        ExitCode::FAILURE
    })
}

/// Whether a listing ended because nobody reads on, as in `tiercache keys DIR | head`.
fn reader_is_gone(error: &anyhow::Error) -> bool {
    let broken = |cause: &std::io::Error| cause.kind() == std::io::ErrorKind::BrokenPipe;
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref())
        .any(broken)
}

fn serve(flags: &Flags) -> anyhow::Result<ExitCode> {
    if flags.memcached_version {
        println!("memcached {MEMCACHED_VERSION}");
        return Ok(ExitCode::SUCCESS);
    }
    if flags.version {
        println!("{VERSION}");
        return Ok(ExitCode::SUCCESS);
    }
    if flags.license {
        print!("{}", include_str!("../LICENSE"));
        return Ok(ExitCode::SUCCESS);
    }
    let (config, notices) = match read(flags) {
        Ok(read) => read,
        Err(error) => {
            eprintln!("tiercache: {error:#}");
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    if let Err(error) = app::check_start(&config) {
        eprintln!("tiercache: {error:#}");
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    let reread = || Ok(read(flags)?.0);
    if !flags.daemon {
        let set_verbosity = logging::start(config.process.verbosity);
        app::run(&config, &notices, reread, set_verbosity, || {})?;
        return Ok(ExitCode::SUCCESS);
    }
    match background::role() {
        background::Role::Foreground => background::start(config.process.verbosity),
        background::Role::Background => {
            let set_verbosity = logging::start(config.process.verbosity);
            background::detach()
                .and_then(|()| {
                    let ready = background::say_ready;
                    app::run(&config, &notices, reread, set_verbosity, ready)
                })
                .inspect_err(background::say_failed)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The configuration that the flags and the file they name amount to.
fn read(flags: &Flags) -> anyhow::Result<(Config, Vec<String>)> {
    let written = flags.written().map_err(anyhow::Error::msg)?;
    let config = config::load(flags.config.as_deref(), written.options, Machine::probe())?;
    Ok((config, written.notices))
}

fn check_config(file: &Path) -> anyhow::Result<ExitCode> {
    config::load(Some(file), Layer::default(), Machine::probe())?;
    println!("{}: ok", file.display());
    Ok(ExitCode::SUCCESS)
}

fn print_config(flags: &Flags) -> anyhow::Result<ExitCode> {
    let (config, notices) = read(flags)?;
    for notice in notices {
        eprintln!("{notice}");
    }
    print!("{}", config.to_toml());
    Ok(ExitCode::SUCCESS)
}

/// Asks all memcached servers; succeeds if all of them answer.
fn pool(question: PoolQuestion, flags: &Flags) -> anyhow::Result<ExitCode> {
    let (config, _) = read(flags)?;
    let answers = app::ask_servers(
        &config,
        match question {
            PoolQuestion::Version => Question::Version,
            PoolQuestion::Stats => Question::Stats,
            PoolQuestion::FlushAll => Question::Flush,
        },
    )?;
    let mut out = std::io::stdout().lock();
    let mut status = ExitCode::SUCCESS;
    for (server, answer) in answers {
        match answer {
            Ok(rows) => {
                for row in rows {
                    writeln!(out, "{server} {row}").context("write the answers")?;
                }
            }
            Err(reason) => {
                eprintln!("tiercache: {server}: {reason}");
                status = ExitCode::FAILURE;
            }
        }
    }
    Ok(status)
}

/// Where tracking lies by default in a dry folder; the folder itself if it was named directly.
fn tracking_folder(dir: &Path) -> PathBuf {
    let inside = dir.join(tiercache::tracking::config::FOLDER_NAME);
    if inside.is_dir() {
        inside
    } else {
        dir.to_owned()
    }
}

fn keys(dir: &Path) -> anyhow::Result<ExitCode> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    tiercache::tracking::inspect::keys(&tracking_folder(dir), &mut out)
        .with_context(|| format!("list the keys in {}", dir.display()))?;
    out.flush().context("write the list")?;
    Ok(ExitCode::SUCCESS)
}

fn show(dir: &Path, key: &str) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let found = tiercache::tracking::inspect::show(&tracking_folder(dir), key.as_bytes(), &mut out)
        .with_context(|| format!("look the key up in {}", dir.display()))?;
    Ok(if found {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

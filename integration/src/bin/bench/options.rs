//! What the command line asks for: the parts to run, their sizes, and the servers to compare.

use std::path::PathBuf;

use tiercache_integration::server::{find_on_path, memcached_binary, tiercache_binary};
use tiercache_integration::workload::Protocol;

/// How to call it.
pub const USAGE: &str = "usage: bench [PART]... [--rounds N] [--operations N] [--items N] [--binary] [--server NAME=BINARY]...
parts, --requests if none is named:
  --requests      CPU per operation of three workloads, and resident bytes of overhead per item
  --memory        overhead per item, what fits into -m 64, and whether resident memory stays within it
  --dry           spill to disk and read back beside extstore, resident bytes per item on disk, restarts
  --scaling       CPU per operation: 1 and 2 threads, 50 and 1000 connections, 10 B to 1 MiB, pipelines
  --instructions  beside --requests: user instructions per operation (valgrind)
  --syscalls      beside --requests: recv and send calls per operation (strace)
sizes and servers:
  --rounds        rounds of A B A B, default 5
  --operations    operations per round and workload of --requests, default 300000
  --items         items of the overhead per item, default 1000000; 0 leaves it out
  --binary        --requests speaks the binary protocol instead of text
  --server        another binary with memcached's flags to compare; one with memcached in its path takes its -o and -e";

/// One of the servers that are compared.
pub struct Contender {
    /// Heads its column.
    pub name: String,
    pub binary: PathBuf,
}

impl Contender {
    /// Whether it is a memcached, as its file is called.
    pub fn is_memcached(&self) -> bool {
        self.binary.to_string_lossy().contains("memcached")
    }
}

/// A group of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Requests,
    Memory,
    Dry,
    Scaling,
}

/// What to measure.
pub struct Options {
    pub parts: Vec<Part>,
    pub rounds: usize,
    pub operations: u64,
    pub items: u64,
    pub instructions: bool,
    pub syscalls: bool,
    pub protocol: Protocol,
    pub contenders: Vec<Contender>,
}

impl Options {
    /// Whether the rows of a part are wanted.
    pub fn wants(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }

    /// Reads the command line; memcached and tiercache are always compared.
    ///
    /// # Errors
    /// What is wrong with a word.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options {
            parts: Vec::new(),
            rounds: 5,
            operations: 300_000,
            items: 1_000_000,
            instructions: false,
            syscalls: false,
            protocol: Protocol::Text,
            contenders: vec![
                Contender {
                    name: String::from("memcached"),
                    binary: memcached_binary(),
                },
                Contender {
                    name: String::from("tiercache"),
                    binary: tiercache_binary(),
                },
            ],
        };
        while let Some(word) = words.next() {
            let mut number = || -> Result<u64, String> {
                let text = words.next().ok_or(format!("{word} needs a number"))?;
                text.parse()
                    .map_err(|_| format!("{word} {text} is not a number"))
            };
            match word.as_str() {
                "--requests" => options.parts.push(Part::Requests),
                "--memory" => options.parts.push(Part::Memory),
                "--dry" => options.parts.push(Part::Dry),
                "--scaling" => options.parts.push(Part::Scaling),
                "--rounds" => options.rounds = number()?.max(1) as usize,
                "--operations" => options.operations = number()?,
                "--items" => options.items = number()?,
                "--instructions" => options.instructions = true,
                "--syscalls" => options.syscalls = true,
                "--binary" => options.protocol = Protocol::Binary,
                "--server" => options.contenders.push(contender(words.next())?),
                _ => return Err(format!("unknown option {word}")),
            }
        }
        if options.parts.is_empty() {
            options.parts.push(Part::Requests);
        }
        Ok(options)
    }
}

fn contender(word: Option<String>) -> Result<Contender, String> {
    let text = word.unwrap_or_default();
    let (name, path) = text.split_once('=').ok_or("--server needs NAME=BINARY")?;
    let found = Some(path)
        .filter(|name| !name.contains('/'))
        .and_then(find_on_path);
    Ok(Contender {
        name: name.to_owned(),
        binary: found.unwrap_or_else(|| PathBuf::from(path)),
    })
}

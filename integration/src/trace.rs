//! Traces of real caches: which keys were asked for in which order, with sizes.
//!
//! They are files `NAME.csv.zst` in the folder that the environment variable `TRACES` names, with a line
//! `timestamp,op,key,key_size,value_size,ttl` per access. They are not part of this repository. Whatever `op` says, an
//! access is a get and, on a miss, a set: what a client does that looks aside.

use std::collections::HashMap;
use std::env;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Largest value that is replayed: memcached's default limit is 1 MiB with key and header.
pub const VALUE_BYTES_MAX: usize = 1_000_000;

/// How a trace is blown up to a size that a server takes for a cache: so many key spaces, and a factor of value sizes.
#[derive(Clone, Copy, Debug)]
struct Preset {
    name: &'static str,
    copies: u32,
    scale: f64,
}

const PRESETS: [Preset; 7] = [
    preset("web07", 1, 100.0),
    preset("orm_busy", 1, 16.0),
    preset("twitter_c001", 8, 16.0),
    preset("twitter_c014", 8, 1.0),
    preset("twitter_c026", 1, 8.0),
    preset("corda_vault", 1, 12.0),
    preset("mooncake_conv", 1, 1.0),
];

const fn preset(name: &'static str, copies: u32, scale: f64) -> Preset {
    Preset {
        name,
        copies,
        scale,
    }
}

/// One access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The key, an index of the keys that the trace reads.
    pub key: u32,
    /// Length of the value.
    pub value_bytes: u32,
    /// Seconds that it may be served, 0 for ever.
    pub ttl: u32,
}

/// A trace in memory.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The file's name without its endings.
    pub name: String,
    /// Every access, in order.
    pub accesses: Vec<Access>,
    /// Name and length on the wire of each key.
    keys: Vec<(String, usize)>,
    /// Key spaces in which each access happens.
    pub copies: u32,
    /// Bytes of keys and values if nothing ever left.
    pub footprint_bytes: u64,
}

impl Trace {
    /// The files in the folder that `TRACES` names, by name; `None` where it is not set.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn files() -> io::Result<Option<Vec<PathBuf>>> {
        let Some(folder) = env::var_os("TRACES") else {
            return Ok(None);
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(".csv.zst") {
                files.push(path);
            }
        }
        files.sort();
        Ok(Some(files))
    }

    /// The name of the trace in a file.
    pub fn name_of(path: &Path) -> String {
        path.file_name()
            .map(|name| name.to_string_lossy().replace(".csv.zst", ""))
            .unwrap_or_default()
    }

    /// Reads a file by way of the program `zstd`.
    ///
    /// # Errors
    /// When `zstd` cannot be run or fails, and `InvalidData` for a line that is no access.
    pub fn read(path: &Path) -> io::Result<Trace> {
        let name = Trace::name_of(path);
        let mut child = Command::new("zstd")
            .args(["-q", "-d", "-c", "--long=27"])
            .arg(path)
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let trace = Trace::parse(&name, lines)?;
        if !child.wait()?.success() {
            return Err(io::Error::other(format!("zstd cannot read {name}")));
        }
        Ok(trace)
    }

    /// Reads lines.
    ///
    /// # Errors
    /// `InvalidData` for a line that is no access.
    pub fn parse(name: &str, lines: impl BufRead) -> io::Result<Trace> {
        let preset = PRESETS.into_iter().find(|preset| preset.name == name);
        let preset = preset.unwrap_or(preset_of_strangers());
        let mut trace = Trace {
            name: name.to_owned(),
            accesses: Vec::new(),
            keys: Vec::new(),
            copies: preset.copies,
            footprint_bytes: 0,
        };
        let mut numbers = HashMap::new();
        for line in lines.lines().skip(1) {
            let line = line?;
            let (key, key_bytes, value_bytes, ttl) = fields(&line)
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, line.clone()))?;
            let value_bytes =
                (value_bytes * preset.scale).clamp(1.0, VALUE_BYTES_MAX as f64) as u32;
            let key = match numbers.get(key) {
                Some(number) => *number,
                None => {
                    let number = trace.keys.len() as u32;
                    numbers.insert(key.to_owned(), number);
                    trace.keys.push((key.to_owned(), key_bytes));
                    let bytes = key_bytes as u64 + u64::from(value_bytes);
                    trace.footprint_bytes += bytes * u64::from(preset.copies);
                    number
                }
            };
            trace.accesses.push(Access {
                key,
                value_bytes,
                ttl,
            });
        }
        Ok(trace)
    }

    /// Writes a key of one of the key spaces as clients send it.
    pub fn push_key(&self, key: u32, copy: u32, out: &mut Vec<u8>) {
        let (name, bytes) = &self.keys[key as usize];
        let start = out.len();
        out.extend_from_slice(name.as_bytes());
        if self.copies > 1 {
            out.extend_from_slice(format!("~{copy}").as_bytes());
        }
        if out.len() < start + bytes {
            out.resize(start + bytes, b'.');
        }
    }

    /// Memory that is a part of the footprint, in MiB.
    pub fn megabytes(&self, percent: u64) -> u64 {
        let bytes = self.footprint_bytes as f64 * percent as f64 / 100.0;
        ((bytes / f64::from(1 << 20)).round() as u64).max(1)
    }
}

fn preset_of_strangers() -> Preset {
    preset("", 1, 1.0)
}

fn fields(line: &str) -> Option<(&str, usize, f64, u32)> {
    let mut fields = line.split(',').skip(2);
    let key = fields.next()?;
    let key_bytes: usize = fields.next()?.parse().ok()?;
    let value_bytes = fields.next()?.parse().ok()?;
    let ttl = fields.next()?.parse().ok()?;
    Some((key, key_bytes.min(250), value_bytes, ttl))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Sizes are scaled, keys padded and told apart by key space, and each key counts once.
    #[test]
    fn a_trace_is_read() {
        let text = "timestamp,op,key,key_size,value_size,ttl\n0,get,a,8,10,60\n1,set,b,8,20,0\n2,get,a,8,10,60\n";
        let trace = Trace::parse("twitter_c014", text.as_bytes()).unwrap();
        let first = Access {
            key: 0,
            value_bytes: 10,
            ttl: 60,
        };
        assert_eq!((trace.accesses.len(), trace.accesses[2]), (3, first));
        assert_eq!(trace.footprint_bytes, 8 * (8 + 10 + 8 + 20));
        let mut key = Vec::new();
        trace.push_key(1, 7, &mut key);
        assert_eq!(key, b"b~7.....");
        let scaled = Trace::parse("web07", text.as_bytes()).unwrap();
        assert_eq!(scaled.accesses[1].value_bytes, 2000);
        assert!(Trace::parse("web07", &b"\n0,get,a,8"[..]).is_err());
    }
}

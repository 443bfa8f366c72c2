//! What is told about upstream pools at start: servers, rings, timeouts.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::access::AccessConfig;
use super::hash::KeyHash;
use super::ring::{Member, Points, Ring};
use crate::host;
use crate::units::Span;

/// memcached's port.
const PORT: u16 = 11211;

/// The pools and how they are used.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamConfig {
    /// The pools; the first has the keys that no route sends elsewhere.
    pub pools: Vec<PoolConfig>,
    /// Prefixes of keys that belong to other pools.
    pub routes: Vec<Route>,
    /// Who else writes to the pools, which decides how long a copy may be served. Default through.
    pub sharing: Sharing,
    /// How long a copy may be served with [`Sharing::Through`]. Default 10 s.
    pub fresh: Span,
    /// Whether copies are kept in RAM; false for a mere proxy.
    pub copies: bool,
    /// Folder of what has to outlive the process.
    pub state: PathBuf,
    /// What the servers want to be shown. Default nothing.
    pub access: AccessConfig,
}

impl UpstreamConfig {
    /// The options that differ from those of `other` and cannot change while the process runs, empty if there are none.
    pub fn fixed_options_unlike(&self, other: &UpstreamConfig) -> Vec<&'static str> {
        let fixed = [
            ("hot.backend and cold.backend", self.copies == other.copies),
            ("cold.sharing", self.sharing == other.sharing),
            ("cold.fresh", self.fresh == other.fresh),
            ("memcached.state", self.state == other.state),
            // Their files may be root's, whose rights are gone.
            (
                "what the servers are shown (memcached.tls, username ...)",
                self.access == other.access,
            ),
        ];
        let unlike = fixed.into_iter().filter(|(_, is_alike)| !is_alike);
        unlike.map(|(option, _)| option).collect()
    }
}

/// Keys that begin with `prefix` belong to the pool with the number `pool`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// How the keys begin.
    pub prefix: Vec<u8>,
    /// Index of the pool.
    pub pool: usize,
}

/// How long a copy of what a pool has may be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// As long as the item lives: nobody else writes to the pool.
    Private,
    /// For a bounded time, in which others' writes may go unseen.
    #[default]
    Through,
    /// Each time only after the pool has said that it is current.
    Strict,
}

impl fmt::Display for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Sharing::Private => "private",
            Sharing::Through => "through",
            Sharing::Strict => "strict",
        })
    }
}

impl FromStr for Sharing {
    type Err = String;

    fn from_str(text: &str) -> Result<Sharing, String> {
        match text {
            "private" => Ok(Sharing::Private),
            "through" => Ok(Sharing::Through),
            "strict" => Ok(Sharing::Strict),
            _ => Err(format!(
                "{text:?} is no sharing mode, expected private, through or strict"
            )),
        }
    }
}

/// Servers that share keys among themselves.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolConfig {
    /// Its name in routes; empty for the one that has the keys of no other.
    pub name: String,
    /// The servers, in the order that every client of the pool names them in.
    pub servers: Vec<Address>,
    /// The servers that the pool's keys move here from; empty unless they do. Their ring is made as
    /// that of `servers` is.
    pub migrate_from: Vec<Address>,
    /// Which points a server has on the ring. Default `ketama_weighted`.
    pub ring: Points,
    /// How keys are placed. Default the ring's own.
    pub key_hash: KeyHash,
    /// Two characters between which the part of a key stands that alone is hashed. Default none.
    pub hash_tag: Option<(u8, u8)>,
    /// Time to connect and to learn what the server understands. Default 250 ms.
    pub connect_timeout: Span,
    /// Time to answer a request, from when it was made. Default 250 ms.
    pub request_timeout: Span,
    /// Time without a request after which a connection is closed; zero for never. Default 60 s.
    pub idle_timeout: Span,
    /// Failures in a row after which a server gets no requests until it answers a probe. Default 3.
    pub eject_after: u32,
}

impl Default for PoolConfig {
    fn default() -> PoolConfig {
        PoolConfig {
            name: String::new(),
            servers: Vec::new(),
            migrate_from: Vec::new(),
            ring: Points::default(),
            key_hash: Points::default().key_hash(),
            hash_tag: None,
            connect_timeout: Span::ms(250),
            request_timeout: Span::ms(250),
            idle_timeout: Span::seconds(60),
            eject_after: 3,
        }
    }
}

impl PoolConfig {
    /// The pool's ring; members are numbered as the servers are.
    pub fn ring(&self) -> Ring {
        self.ring_of(&self.servers)
    }

    /// A ring of other servers, made in the same way.
    pub fn ring_of(&self, servers: &[Address]) -> Ring {
        let members: Vec<Member> = servers.iter().map(Address::member).collect();
        Ring::new(&members, self.ring, self.key_hash, self.hash_tag)
    }
}

/// Where an upstream server is, and its share of the keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// Host and port, or a unix socket.
    pub place: Place,
    /// Its share of the keys, relative to the others'. Default 1.
    pub weight: u32,
}

/// Where an upstream server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// A name or IP address, and a port.
    Tcp(String, u16),
    /// A unix socket.
    Unix(PathBuf),
}

impl Address {
    /// The server as libmemcached names it on its rings: without the port if that is 11211, a unix
    /// socket with port 0.
    fn member(&self) -> Member {
        let name = match &self.place {
            Place::Tcp(host, PORT) => host.clone(),
            Place::Tcp(..) => self.place.to_string(),
            Place::Unix(path) => format!("{}:0", path.display()),
        };
        Member {
            name,
            weight: self.weight,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Place::Tcp(host, port) => write!(f, "{host}:{port}"),
            Place::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.weight {
            1 => write!(f, "{}", self.place),
            weight => write!(f, "{}:{weight}", self.place),
        }
    }
}

/// `HOST[:PORT[:WEIGHT]]`, `[IPv6][:PORT[:WEIGHT]]`, `/PATH[:WEIGHT]` or `unix:/PATH[:WEIGHT]`.
impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        let wrong = |what: &str| format!("{text:?} is no server: {what}");
        let number = |part: &str, what: &str| part.parse::<u32>().map_err(|_| wrong(what));
        let weight = |part: Option<&str>| match part {
            None => Ok(1),
            Some(part) => match number(part, "the weight is no number")? {
                0 => Err(wrong("the weight is 0")),
                weight => Ok(weight),
            },
        };
        let socket = text.strip_prefix("unix:").unwrap_or(text);
        if socket.starts_with('/') {
            let (path, share) = match socket.rsplit_once(':') {
                Some((path, share)) => (path, Some(share)),
                None => (socket, None),
            };
            return Ok(Address {
                place: Place::Unix(PathBuf::from(path)),
                weight: weight(share)?,
            });
        }
        let (host, rest) = match text.strip_prefix('[') {
            Some(v6) => v6.split_once(']').ok_or_else(|| wrong("no ] after ["))?,
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let host = host::checked(host).map_err(|what| wrong(&what))?;
        if !rest.is_empty() && !rest.starts_with(':') {
            return Err(wrong("no : after ]"));
        }
        let mut parts = rest.strip_prefix(':').map(|rest| rest.split(':'));
        let mut part = || parts.as_mut().and_then(Iterator::next);
        let port = match part() {
            None => PORT,
            Some(port) => u16::try_from(number(port, "the port is no number")?)
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| wrong("no such port"))?,
        };
        let weight = weight(part())?;
        match part() {
            None => Ok(Address {
                place: Place::Tcp(host.to_owned(), port),
                weight,
            }),
            Some(_) => Err(wrong("expected HOST:PORT:WEIGHT")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_written_as_host_port_and_weight() {
        for (text, written, name, weight) in [
            ("a", "a:11211", "a", 1),
            ("a:11211", "a:11211", "a", 1),
            ("10.0.0.1:11212:5", "10.0.0.1:11212:5", "10.0.0.1:11212", 5),
            ("[::1]:11212", "[::1]:11212", "[::1]:11212", 1),
            ("/run/m.sock:2", "/run/m.sock:2", "/run/m.sock:0", 2),
            ("unix:/run/m.sock", "/run/m.sock", "/run/m.sock:0", 1),
            ("unix:/run/m.sock:5", "/run/m.sock:5", "/run/m.sock:0", 5),
        ] {
            let address: Address = text.parse().unwrap();
            let member = address.member();
            assert_eq!(
                (address.to_string().as_str(), member.name.as_str()),
                (written, name)
            );
            assert_eq!(member.weight, weight, "{text}");
        }
        for text in [
            "", ":1", "a:b", "a:0", "a:70000", "a:1:0", "a:1:2:3", "[::1", "[::1]5", "a b:1",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}

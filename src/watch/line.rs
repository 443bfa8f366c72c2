//! Events as memcached's lines: `ts=… gid=… type=… …`.

use std::io::Write;

use super::Kinds;
use crate::clients::Peer;
use crate::escape::percent_encode;

/// Bytes of a request that `rawcmds` shows.
const COMMAND_BYTES_MAX: usize = 450;

/// Something that happened.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A client asked for a key.
    Fetched {
        /// The key.
        key: &'a [u8],
        /// Slab class of the tier and bytes of the value; none for a miss.
        found: Option<(u32, usize)>,
        /// The client's socket.
        fd: i32,
    },
    /// A client stored, or tried to.
    Stored {
        /// The key.
        key: &'a [u8],
        /// `stored`, `not_stored`, `exists`, `not_found`, `too_large`, `no_memory`.
        status: &'static str,
        /// The command's classic name.
        command: &'static str,
        /// Seconds until the item expires, 0 for never.
        ttl: u32,
        /// Slab class of the tier.
        class: u32,
        /// The client's socket.
        fd: i32,
        /// Bytes of the value.
        bytes: usize,
    },
    /// A client deleted an item.
    Deleted {
        /// The key.
        key: &'a [u8],
        /// `delete` or `md`.
        command: &'static str,
        /// Slab class of the tier.
        class: u32,
        /// Bytes of the value.
        bytes: usize,
    },
    /// An item left RAM.
    Left(Removal<'a>),
    /// A connection was opened.
    Opened {
        /// Its client.
        peer: &'a Peer,
        /// Its socket.
        fd: i32,
    },
    /// A connection was closed.
    Closed {
        /// Its client.
        peer: &'a Peer,
        /// `error`, `normal`, `idle_timeout` or `shutdown`.
        reason: &'static str,
        /// Its socket.
        fd: i32,
    },
    /// A request came.
    Command {
        /// Its line, without the end.
        line: &'a [u8],
        /// The client's socket.
        fd: i32,
    },
}

/// An item that leaves RAM.
#[derive(Debug, Clone, Copy)]
pub struct Removal<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// Whether it went to dry; else it is lost.
    pub dried: bool,
    /// Whether a client has fetched it since it was stored.
    pub fetched: bool,
    /// Seconds until it expires; none for never.
    pub ttl: Option<u32>,
    /// Seconds since the last access.
    pub idle: u32,
    /// Slab class of the tier that it left.
    pub class: u32,
    /// Bytes of its value.
    pub bytes: usize,
}

impl Event<'_> {
    /// What kind of event it is.
    pub(super) fn kind(&self) -> Kinds {
        match self {
            Event::Fetched { .. } => Kinds::FETCHERS,
            Event::Stored { .. } => Kinds::MUTATIONS,
            Event::Deleted { .. } => Kinds::DELETIONS,
            Event::Left(_) => Kinds::EVICTIONS,
            Event::Opened { .. } | Event::Closed { .. } => Kinds::CONNECTIONS,
            Event::Command { .. } => Kinds::RAW_COMMANDS,
        }
    }
}

/// Appends the line of an event.
pub(super) fn write(out: &mut Vec<u8>, now_us: u64, number: u64, event: &Event<'_>) {
    // memcached leaves the microseconds' zeros out, which makes the time wrong.
    let (seconds, microseconds) = (now_us / 1_000_000, now_us % 1_000_000);
    // Writing to a vector cannot fail, here and below.
    let _ = write!(out, "ts={seconds}.{microseconds:06} gid={number} ");
    let _ = match *event {
        Event::Fetched { key, found, fd } => {
            key_of(out, "item_get", key);
            let (status, class, bytes) = match found {
                Some((class, bytes)) => ("found", class, bytes),
                None => ("not_found", 0, 0),
            };
            writeln!(out, " status={status} clsid={class} cfd={fd} size={bytes}")
        }
        Event::Stored {
            key,
            status,
            command,
            ttl,
            class,
            fd,
            bytes,
        } => {
            key_of(out, "item_store", key);
            writeln!(
                out,
                " status={status} cmd={command} ttl={ttl} clsid={class} cfd={fd} size={bytes}"
            )
        }
        Event::Deleted {
            key,
            command,
            class,
            bytes,
        } => {
            key_of(out, "deleted", key);
            writeln!(out, " cmd={command} clsid={class} size={bytes}")
        }
        Event::Left(removal) => left(out, &removal),
        Event::Opened { peer, fd } => {
            let (ip, port, transport) = peer_of(peer);
            writeln!(
                out,
                "type=conn_new rip={ip} rport={port} transport={transport} cfd={fd}"
            )
        }
        Event::Closed { peer, reason, fd } => {
            let (ip, port, transport) = peer_of(peer);
            writeln!(
                out,
                "type=conn_close rip={ip} rport={port} transport={transport} reason={reason} cfd={fd}"
            )
        }
        Event::Command { line, fd } => {
            let shown = &line[..line.len().min(COMMAND_BYTES_MAX)];
            writeln!(out, "<{fd} {}", shown.escape_ascii())
        }
    };
}

/// memcached's line of an eviction, or of a write to its own storage on disk.
fn left(out: &mut Vec<u8>, removal: &Removal<'_>) -> std::io::Result<()> {
    let kind = if removal.dried {
        "extwrite"
    } else {
        "eviction"
    };
    key_of(out, kind, removal.key);
    let fetched = if removal.fetched { "yes" } else { "no" };
    let ttl = removal.ttl.map_or(-1, i64::from);
    let (idle, class) = (removal.idle, removal.class);
    write!(out, " fetch={fetched} ttl={ttl} la={idle} clsid={class} ")?;
    if removal.dried {
        writeln!(out, "bucket=0")
    } else {
        writeln!(out, "size={}", removal.bytes)
    }
}

fn key_of(out: &mut Vec<u8>, kind: &str, key: &[u8]) {
    let _ = write!(out, "type={kind} key=");
    percent_encode(out, key);
}

fn peer_of(peer: &Peer) -> (String, u16, &'static str) {
    match peer {
        Peer::Tcp(address) => (
            address.ip().to_canonical().to_string(),
            address.port(),
            "tcp",
        ),
        Peer::Unix(_) => ("unix".to_owned(), 0, "local"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(event: Event<'_>) -> String {
        let mut out = Vec::new();
        write(&mut out, 7_000_012, 3, &event);
        String::from_utf8(out).unwrap()
    }

    // Field by field what memcached 1.6.45 prints.
    #[test]
    fn lines_are_memcacheds() {
        let fetched = |found| Event::Fetched {
            key: b"a%b",
            found,
            fd: 28,
        };
        assert_eq!(
            line(fetched(Some((1, 2)))),
            "ts=7.000012 gid=3 type=item_get key=a%25b status=found clsid=1 cfd=28 size=2\n"
        );
        assert_eq!(
            line(fetched(None)),
            "ts=7.000012 gid=3 type=item_get key=a%25b status=not_found clsid=0 cfd=28 size=0\n"
        );
        assert_eq!(
            line(Event::Stored {
                key: b"m",
                status: "stored",
                command: "append",
                ttl: 100,
                class: 1,
                fd: 27,
                bytes: 4
            }),
            "ts=7.000012 gid=3 type=item_store key=m status=stored cmd=append ttl=100 clsid=1 cfd=27 size=4\n"
        );
        assert_eq!(
            line(Event::Deleted {
                key: b"m",
                command: "md",
                class: 1,
                bytes: 4
            }),
            "ts=7.000012 gid=3 type=deleted key=m cmd=md clsid=1 size=4\n"
        );
        let removal = Removal {
            key: b"k",
            dried: false,
            fetched: true,
            ttl: None,
            idle: 5,
            class: 2,
            bytes: 100,
        };
        assert_eq!(
            line(Event::Left(removal)),
            "ts=7.000012 gid=3 type=eviction key=k fetch=yes ttl=-1 la=5 clsid=2 size=100\n"
        );
        let dried = Removal {
            dried: true,
            fetched: false,
            ttl: Some(60),
            ..removal
        };
        assert_eq!(
            line(Event::Left(dried)),
            "ts=7.000012 gid=3 type=extwrite key=k fetch=no ttl=60 la=5 clsid=2 bucket=0\n"
        );
        let tcp = Peer::Tcp("127.0.0.1:58758".parse().unwrap());
        assert_eq!(
            line(Event::Opened { peer: &tcp, fd: 29 }),
            "ts=7.000012 gid=3 type=conn_new rip=127.0.0.1 rport=58758 transport=tcp cfd=29\n"
        );
        let unix = Peer::Unix("/s".into());
        assert_eq!(
            line(Event::Closed {
                peer: &unix,
                reason: "normal",
                fd: 29
            }),
            "ts=7.000012 gid=3 type=conn_close rip=unix rport=0 transport=local reason=normal cfd=29\n"
        );
        assert_eq!(
            line(Event::Command {
                line: b"get a\x1b",
                fd: 4
            }),
            "ts=7.000012 gid=3 <4 get a\\x1b\n"
        );
    }
}

//! The command line: memcached's flags with memcached's meanings, and the tiers' own long flags.
//!
//! Reading it yields a [`Layer`] of options and the notices that the start has to show. Nothing is
//! ignored in silence: a flag of memcached's slab allocator earns a notice, a flag whose effect is
//! not built yet refuses to start.

mod extended;
mod unbuilt;
mod values;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::config::MEMCACHED_VERSION;
use crate::config::layer::{
    Auth, Cold, Dry, Hot, Layer, Memcached, Memory, MongoDb, Octal, Protocol, RamBackend, S3,
    Server, Tls, Tracking,
};
use crate::dry::Checksums;
use crate::tier::config::{Admission, DryAhead, Policy};
use crate::tracking::Backend;
use crate::units::{ByteSize, Span};
use crate::upstream::config::Sharing;
use values::{
    DryPlace, parse_admission, parse_checksums, parse_durability, parse_megabytes, parse_policy,
    parse_switch, parse_udp_port,
};

pub use unbuilt::UnbuiltFlags;

/// A memcached that does not forget.
#[derive(Debug, Parser)]
#[command(
    name = "tiercache",
    before_help = format!("memcached {MEMCACHED_VERSION}"),
    disable_help_flag = true,
    disable_version_flag = true,
    disable_help_subcommand = true,
    args_conflicts_with_subcommands = true,
    max_term_width = 100
)]
pub struct Cli {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Everything else.
    #[command(flatten)]
    pub flags: Flags,
}

/// What memcached servers are asked.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum PoolQuestion {
    /// Their version
    Version,
    /// Their figures
    Stats,
    /// To forget everything; proxies keep copies for as long as their sharing lets them
    #[value(name = "flush_all")]
    FlushAll,
}

/// What to do instead of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check a configuration file and say on which line it is wrong
    CheckConfig {
        /// The file
        file: PathBuf,
    },
    /// Print the configuration that the flags and the file amount to, every option spelled out
    PrintConfig(Box<Flags>),
    /// Ask the memcached servers of the configuration for their version or figures, or to flush
    Pool {
        /// What to ask
        #[arg(value_enum)]
        question: PoolQuestion,
        #[allow(missing_docs)]
        #[command(flatten)]
        flags: Box<Flags>,
    },
    /// List what tracking knows about the keys in a dry folder (while no server uses it)
    Keys {
        /// The dry folder
        dir: PathBuf,
    },
    /// Show what tracking knows about one key in a dry folder (while no server uses it)
    Show {
        /// The dry folder
        dir: PathBuf,
        /// The key
        key: String,
    },
}

/// The flags of a server.
#[derive(Debug, Clone, Default, Args)]
pub struct Flags {
    /// Options in a TOML file; flags win over it
    #[arg(long, value_name = "FILE", help_heading = "Tiers")]
    pub config: Option<PathBuf>,
    /// Where hot is: ram, or memcached://HOST:PORT,... for a proxy that keeps nothing [default: ram]
    #[arg(long, value_name = "PLACE", help_heading = "Tiers")]
    pub hot: Option<Backing>,
    /// Where cold is: ram, or memcached://HOST:PORT:WEIGHT,... with copies in hot [default: ram]
    #[arg(long, value_name = "PLACE", help_heading = "Tiers")]
    pub cold: Option<Backing>,
    /// Who else writes to cold's servers: private (nobody), through or strict [default: through]
    #[arg(long, value_name = "MODE", help_heading = "Tiers")]
    pub cold_sharing: Option<Sharing>,
    /// How long others' writes to cold's servers may go unseen with through [default: 10s]
    #[arg(long, value_name = "TIME", help_heading = "Tiers")]
    pub cold_fresh: Option<Span>,
    /// Folder for what must outlive the process beside items; needed with memcached servers
    #[arg(long, value_name = "DIR", help_heading = "Tiers")]
    pub state: Option<PathBuf>,
    /// Bytes of hot [default: 2g, with cold at most 60 % of memory]
    #[arg(long, value_name = "SIZE", help_heading = "Tiers")]
    pub hot_size: Option<ByteSize>,
    /// How long an item stays in hot without a hit [default: 4h]
    #[arg(long, value_name = "TIME", help_heading = "Tiers")]
    pub hot_ttl: Option<Span>,
    /// Bytes of cold [default: 10g, with hot at most 60 % of memory]
    #[arg(long, value_name = "SIZE", help_heading = "Tiers")]
    pub cold_size: Option<ByteSize>,
    /// How long an item stays in cold without a hit [default: 24h]
    #[arg(long, value_name = "TIME", help_heading = "Tiers")]
    pub cold_ttl: Option<Span>,
    /// The dry tier: a folder, s3://BUCKET/PREFIX or mongodb://HOST/DATABASE; without it what leaves RAM is lost
    #[arg(long, value_name = "WHERE", help_heading = "Tiers")]
    pub dry: Option<String>,
    /// Local folder of a remote dry tier: its kill journal, and segments until they are uploaded
    #[arg(long, value_name = "DIR", help_heading = "Tiers")]
    pub dry_spool: Option<PathBuf>,
    /// Bytes of segments that may wait in the spool for their upload [default: 1g]
    #[arg(long, value_name = "SIZE", help_heading = "Tiers")]
    pub dry_spool_size: Option<ByteSize>,
    /// Start degraded and cold where the remote store does not answer
    #[arg(long, help_heading = "Tiers")]
    pub dry_optional: bool,
    /// Bytes of ranges fetched from a remote store that stay in memory for a moment [default: 16m]
    #[arg(long, value_name = "SIZE", help_heading = "Tiers")]
    pub dry_read_cache: Option<ByteSize>,
    /// Age from which on a remote object that nothing names is deleted [default: 1h]
    #[arg(long, value_name = "TIME", help_heading = "Tiers")]
    pub dry_orphan_age: Option<Span>,
    /// URL of an S3-compatible store other than AWS
    #[arg(long, value_name = "URL", help_heading = "Tiers")]
    pub s3_endpoint: Option<String>,
    /// Region of the bucket [default: the environment's or the profile's, else us-east-1]
    #[arg(long, value_name = "NAME", help_heading = "Tiers")]
    pub s3_region: Option<String>,
    /// Name the bucket in the path and not in the host name
    #[arg(long, help_heading = "Tiers")]
    pub s3_path_style: bool,
    /// Checksums of S3 requests: when_supported or when_required [default: when_supported]
    #[arg(long, value_name = "WHEN", help_heading = "Tiers", value_parser = parse_checksums)]
    pub s3_checksums: Option<Checksums>,
    /// Bytes of dry on disk [default: 100g]
    #[arg(long, value_name = "SIZE", help_heading = "Tiers")]
    pub dry_size: Option<ByteSize>,
    /// How long an item stays in dry without a hit [default: 7d]
    #[arg(long, value_name = "TIME", help_heading = "Tiers")]
    pub dry_ttl: Option<Span>,
    /// What dry survives warm: process (a crash) or power (a power loss too) [default: process]
    #[arg(long, value_name = "WHAT", help_heading = "Tiers", value_parser = parse_durability)]
    pub durability: Option<crate::dry::Durability>,
    /// Bytes of a dry segment [default: 64m, or a 32nd of the dry size]
    #[arg(long, value_name = "SIZE", help_heading = "Tiers")]
    pub segment_size: Option<ByteSize>,
    /// How long a store waits for the dry tier to take what has to leave RAM [default: 20ms]
    #[arg(long, value_name = "TIME", help_heading = "Tiers")]
    pub dry_wait: Option<Span>,
    /// When a read from dry is given up and becomes a miss [default: 500ms]
    #[arg(long, value_name = "TIME", help_heading = "Tiers")]
    pub dry_deadline: Option<Span>,
    /// Memory for the index of dry [default: a tenth of the RAM limit, at least 32m]
    #[arg(long, value_name = "SIZE", help_heading = "Tiers")]
    pub dry_index: Option<ByteSize>,
    /// Which items that leave RAM are dried: all, seen-twice or tinylfu [default: all]
    #[arg(long, value_name = "NAME", help_heading = "Tiers", value_parser = parse_admission)]
    pub dry_admission: Option<Admission>,
    /// Bytes per second dried before they have to leave RAM, or off [default: 32m]
    #[arg(long, value_name = "RATE", help_heading = "Tiers")]
    pub dry_ahead: Option<DryAhead>,
    /// Begin with an empty dry tier (what the folder holds is set aside and removed)
    #[arg(long, help_heading = "Tiers")]
    pub dry_reset: bool,
    /// How long a stop may take to move RAM to dry; a second signal exits at once [default: 20s]
    #[arg(long, value_name = "TIME", help_heading = "Tiers")]
    pub drain_timeout: Option<Span>,
    /// Which items leave RAM first: balanced, density, frequency or fifo [default: balanced]
    #[arg(long, value_name = "NAME", help_heading = "Tiers", value_parser = parse_policy)]
    pub policy: Option<Policy>,
    /// Where records about dried items are kept: sled or off [default: sled]
    #[arg(long, value_name = "WHERE", help_heading = "Tiers")]
    pub tracking: Option<Backend>,
    /// Whether each dried key has a record, or only segments and totals: on or off [default: on]
    #[arg(long, value_name = "ON|OFF", help_heading = "Tiers", value_parser = parse_switch)]
    pub tracking_rows: Option<bool>,

    /// TCP port, -1 for any free one [default: 11211]
    #[arg(
        short = 'p',
        long = "port",
        overrides_with = "port",
        value_name = "NUM",
        allow_negative_numbers = true
    )]
    pub port: Option<i32>,
    /// UDP port, only 0 (off)
    #[arg(short = 'U', long = "udp-port", value_name = "NUM", value_parser = parse_udp_port)]
    pub udp_port: Option<u16>,
    /// Unix socket to listen on instead of TCP
    #[arg(short = 's', long = "unix-socket", value_name = "FILE")]
    pub unix_socket: Option<PathBuf>,
    /// Access mask of the unix socket, in octal [default: 700]
    #[arg(short = 'a', long = "unix-mask", value_name = "MASK")]
    pub unix_mask: Option<Octal>,
    /// Enable the command shutdown
    #[arg(short = 'A', long)]
    pub enable_shutdown: bool,
    /// Addresses to listen on, as host, host:port or `[IPv6]:port`, separated by commas
    #[arg(short = 'l', long, value_name = "ADDR")]
    pub listen: Vec<String>,
    /// Run in the background
    #[arg(short = 'd', long)]
    pub daemon: bool,
    /// Raise the core file limit
    #[arg(short = 'r', long)]
    pub enable_coredumps: bool,
    /// Whom to become when started as root
    #[arg(short = 'u', long, value_name = "USER")]
    pub user: Option<String>,
    /// Memory for items in MiB (or with k, m, g), divided 1:5 between hot and cold
    #[arg(short = 'm', long, value_name = "NUM", value_parser = parse_megabytes)]
    pub memory_limit: Option<ByteSize>,
    /// Answer an error when memory is full instead of dropping items
    #[arg(short = 'M', long)]
    pub disable_evictions: bool,
    /// Connections at the same time [default: 1024]
    #[arg(short = 'c', long, value_name = "NUM")]
    pub conn_limit: Option<usize>,
    /// Lock resident memory
    #[arg(short = 'k', long)]
    pub lock_memory: bool,
    /// Log more; up to -vvv
    #[arg(short = 'v', long, action = ArgAction::Count)]
    pub verbose: u8,
    /// Print this help
    #[arg(short = 'h', long, action = ArgAction::HelpLong)]
    help: Option<bool>,
    /// Print the licence
    #[arg(short = 'i', long)]
    pub license: bool,
    /// Print the version of memcached whose behaviour this is
    #[arg(short = 'V')]
    pub memcached_version: bool,
    /// Print the version of tiercache and the built-in backends
    #[arg(long)]
    pub version: bool,
    /// File for the process id
    #[arg(short = 'P', long, value_name = "FILE")]
    pub pidfile: Option<PathBuf>,
    /// Without effect: there are no slabs
    #[arg(short = 'f', long, value_name = "NUM")]
    pub slab_growth_factor: Option<f64>,
    /// Without effect: there are no slabs
    #[arg(short = 'n', long, value_name = "BYTES")]
    pub slab_min_size: Option<u32>,
    /// Without effect: there are no slabs
    #[arg(short = 'L', long)]
    pub enable_largepages: bool,
    /// Keep statistics per key prefix, up to this character (as after `stats detail on`)
    #[arg(short = 'D', value_name = "CHAR")]
    pub prefix_delimiter: Option<char>,
    /// Worker threads [default: one per core]
    #[arg(short = 't', long, value_name = "NUM", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Requests of one connection before the others have their turn [default: 1024]
    #[arg(short = 'R', long, value_name = "NUM")]
    pub max_reqs_per_event: Option<usize>,
    /// Items have no CAS unique
    #[arg(short = 'C', long)]
    pub disable_cas: bool,
    /// Connections that may wait in the kernel to be accepted [default: 1024]
    #[arg(short = 'b', long, value_name = "NUM")]
    pub listen_backlog: Option<u32>,
    /// What connections speak: auto (their first byte tells), ascii or binary [default: auto]
    #[arg(short = 'B', long, value_name = "NAME")]
    pub protocol: Option<Protocol>,
    /// Largest item in bytes, or with k or m [default: 1m]
    #[arg(short = 'I', long, value_name = "SIZE")]
    pub max_item_size: Option<ByteSize>,
    /// Refuse flush_all
    #[arg(short = 'F', long)]
    pub disable_flush_all: bool,
    /// Refuse commands that list keys
    #[arg(short = 'X', long)]
    pub disable_dumping: bool,
    /// Refuse the command watch
    #[arg(short = 'W', long)]
    pub disable_watch: bool,
    /// Encrypt TCP connections, with the certificate of -o ssl_chain_cert
    #[arg(short = 'Z', long)]
    pub enable_ssl: bool,
    /// Authenticate by SASL in the binary protocol, with the users of -Y; -B auto speaks text too
    #[arg(short = 'S', long)]
    pub enable_sasl: bool,
    /// Clients authenticate as a user of this file, with lines user:password
    #[arg(short = 'Y', long, value_name = "FILE")]
    pub auth_file: Option<PathBuf>,
    /// memcached's further options: maxconns_fast, no_maxconns_fast, idle_timeout=SECONDS,
    /// watcher_logbuf_size=KIB, track_sizes
    #[arg(short = 'o', long, value_name = "LIST")]
    pub extended: Vec<String>,

    /// Stricter limits than memcached's: the next three flags with 10s, on and 1000, idle connections closed after
    /// 300s, no listing of keys, no watch. Each limit can be set apart
    #[arg(long, help_heading = "Limits")]
    pub hardened: bool,
    /// Time that a half received request has to be completed, and a second more per MiB; 0s for no limit
    #[arg(long, value_name = "TIME", help_heading = "Limits")]
    pub request_timeout: Option<Span>,
    /// Whether keys with control bytes are refused: on or off [default: off]
    #[arg(long, value_name = "ON|OFF", help_heading = "Limits", value_parser = parse_switch)]
    pub strict_keys: Option<bool>,
    /// Most keys of one get, 0 for no limit [default: 0]
    #[arg(long, value_name = "NUM", help_heading = "Limits")]
    pub keys_per_get_max: Option<usize>,

    /// Flags that are known and refused.
    #[command(flatten)]
    pub unbuilt: UnbuiltFlags,
}

/// What the command line asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Written {
    /// The options.
    pub options: Layer,
    /// Lines to show at the start: flags without effect.
    pub notices: Vec<String>,
}

impl Flags {
    /// The options that these flags set.
    ///
    /// # Errors
    /// Names the flag that cannot be honoured.
    pub fn written(&self) -> Result<Written, String> {
        self.unbuilt.refuse()?;
        let extended = extended::read(&self.extended)?;
        let place = self.dry.as_deref().map(DryPlace::parse).transpose()?;
        let mut without_effect = Vec::new();
        let slab_flags = [
            (self.slab_growth_factor.is_some(), "-f"),
            (self.slab_min_size.is_some(), "-n"),
            (self.enable_largepages, "-L"),
        ];
        without_effect.extend(
            slab_flags
                .iter()
                .filter(|(set, _)| *set)
                .map(|(_, flag)| (*flag).to_owned()),
        );
        without_effect.extend(
            extended
                .without_effect
                .iter()
                .map(|option| format!("-o {option}")),
        );
        let notices = match without_effect.as_slice() {
            [] => Vec::new(),
            flags => {
                vec![format!(
                    "no effect here, as there are no slabs and buffers to tune: {}",
                    flags.join(", ")
                )]
            }
        };
        let on = |flag: bool| flag.then_some(true);
        let off = |flag: bool| flag.then_some(false);
        let options = Layer {
            memory: Memory {
                limit: self.memory_limit,
                item_size_max: self.max_item_size,
                evict: off(self.disable_evictions),
                policy: self.policy,
            },
            hot: Hot {
                backend: self.hot.as_ref().map(Backing::backend),
                size: self.hot_size,
                ttl: self.hot_ttl,
            },
            cold: Cold {
                backend: self.cold.as_ref().map(Backing::backend),
                size: self.cold_size,
                ttl: self.cold_ttl,
                sharing: self.cold_sharing,
                fresh: self.cold_fresh,
            },
            dry: Dry {
                backend: place.as_ref().map(DryPlace::backend),
                path: match &place {
                    Some(DryPlace::Folder(folder)) => Some(folder.clone()),
                    _ => None,
                },
                size: self.dry_size,
                ttl: self.dry_ttl,
                segment_size: self.segment_size,
                durability: self.durability,
                wait: self.dry_wait,
                deadline: self.dry_deadline,
                index: self.dry_index,
                admission: self.dry_admission,
                ahead: self.dry_ahead,
                reset: on(self.dry_reset),
                drain_timeout: self.drain_timeout,
                spool: self.dry_spool.clone(),
                spool_size: self.dry_spool_size,
                optional: on(self.dry_optional),
                read_cache: self.dry_read_cache,
                orphan_age: self.dry_orphan_age,
            },
            s3: self.s3(place.as_ref()),
            mongodb: match &place {
                Some(DryPlace::MongoDb(uri)) => Some(MongoDb {
                    uri: Some(uri.clone()),
                    ..MongoDb::default()
                }),
                _ => None,
            },
            tracking: Tracking {
                backend: self.tracking,
                rows: self.tracking_rows,
                ..Tracking::default()
            },
            memcached: Memcached {
                state: self.state.clone(),
                servers: [&self.hot, &self.cold]
                    .into_iter()
                    .flatten()
                    .find_map(Backing::servers),
                ..Memcached::default()
            },
            server: Server {
                listen: Some(self.listen.clone()).filter(|listen| !listen.is_empty()),
                port: self.port,
                unix_socket: self.unix_socket.clone(),
                unix_mask: self.unix_mask,
                backlog: self.listen_backlog,
                threads: self.threads.map(usize::from),
                max_connections: self.conn_limit,
                refuse_beyond_limit: extended.refuse_beyond_limit,
                idle_timeout: extended.idle_timeout,
                request_timeout: self.request_timeout,
                hardened: on(self.hardened),
                strict_keys: self.strict_keys,
                keys_per_get_max: self.keys_per_get_max,
                protocol: self.protocol,
                requests_per_turn: self.max_reqs_per_event,
                cas: off(self.disable_cas),
                flush_all: off(self.disable_flush_all),
                dump: off(self.disable_dumping),
                watch: off(self.disable_watch),
                watch_buffer: extended.watch_buffer,
                track_sizes: on(extended.track_sizes),
                shutdown: on(self.enable_shutdown),
                prefix_delimiter: self.prefix_delimiter,
                verbosity: Some(u32::from(self.verbose)).filter(|&level| level > 0),
                user: self.user.clone(),
                pid_file: self.pidfile.clone(),
                lock_memory: on(self.lock_memory),
                core_dumps: on(self.enable_coredumps),
            },
            tls: Tls {
                enabled: on(self.enable_ssl),
                ..extended.tls
            },
            auth: Auth {
                file: self.auth_file.clone(),
                sasl: on(self.enable_sasl),
            },
            ..Layer::default()
        };
        Ok(Written { options, notices })
    }
}

/// What `--hot` and `--cold` name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backing {
    /// `ram`.
    Ram,
    /// `memcached`, whose servers the configuration file names, or `memcached://` and the servers.
    Memcached(Option<Vec<String>>),
}

impl std::str::FromStr for Backing {
    type Err = String;

    fn from_str(text: &str) -> Result<Backing, String> {
        match text.split_once("://") {
            None if text == "ram" => Ok(Backing::Ram),
            None if text == "memcached" => Ok(Backing::Memcached(None)),
            Some(("memcached", servers)) => Ok(Backing::Memcached(Some(
                servers.split(',').map(str::to_owned).collect(),
            ))),
            _ => Err("expected ram or memcached://HOST:PORT,...".to_owned()),
        }
    }
}

impl Backing {
    fn backend(&self) -> RamBackend {
        match self {
            Backing::Ram => RamBackend::Ram,
            Backing::Memcached(_) => RamBackend::Memcached,
        }
    }

    fn servers(&self) -> Option<Vec<String>> {
        match self {
            Backing::Ram => None,
            Backing::Memcached(servers) => servers.clone(),
        }
    }
}

impl Flags {
    fn s3(&self, place: Option<&DryPlace>) -> Option<S3> {
        let (bucket, prefix) = match place {
            Some(DryPlace::S3 { bucket, prefix }) => (Some(bucket.clone()), Some(prefix.clone())),
            _ => (None, None),
        };
        let s3 = S3 {
            bucket,
            prefix,
            endpoint: self.s3_endpoint.clone(),
            region: self.s3_region.clone(),
            path_style: self.s3_path_style.then_some(true),
            checksums: self.s3_checksums,
        };
        (s3 != S3::default()).then_some(s3)
    }
}

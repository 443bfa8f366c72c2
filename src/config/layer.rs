//! The options as they are written: in a file or as flags, each set or left open.
//!
//! A layer knows no defaults and checks nothing that concerns two options. Flags make one layer,
//! the file another; [`Layer::over`] lays the first over the second and `Config` resolves the rest.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tiercache_protocol::Syntax;

use crate::dry::{Checksums, Durability};
use crate::tier::config::{Admission, DryAhead, Policy};
use crate::tls::{ClientCertificate, KeyFormat, MinVersion, ServerCertificate};
use crate::tracking;
use crate::units::{ByteSize, Span};
use crate::upstream::config::Sharing;
use crate::upstream::{KeyHash, Points};

/// Declares a section of options, each of which may be left open.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_doc])*
            #[serde(skip_serializing_if = "Option::is_none")]
            pub $field: Option<$type>,)*
        }

        impl $name {
            /// The names of the options.
            pub const KEYS: &[&str] = &[$(stringify!($field)),*];

            /// These options, and `lower`'s where these are open.
            #[must_use]
            pub fn over(self, lower: $name) -> $name {
                $name { $($field: self.$field.or(lower.$field),)* }
            }
        }
    };
}

section! {
    /// RAM as a whole.
    Memory {
        /// Bytes of hot and cold together, divided 1:5 between them; `-m`.
        limit: ByteSize,
        /// Largest item; `-I`.
        item_size_max: ByteSize,
        /// False answers an error instead of dropping items; `-M`.
        evict: bool,
        /// Which items leave first.
        policy: Policy,
    }
}

section! {
    /// The hot tier.
    Hot {
        /// `ram`, or `memcached` for a proxy that keeps nothing.
        backend: RamBackend,
        /// Bytes.
        size: ByteSize,
        /// Residence time without a hit.
        ttl: Span,
    }
}

section! {
    /// The cold tier.
    Cold {
        /// `ram`, or `memcached` for a pool whose items hot has copies of.
        backend: RamBackend,
        /// Bytes.
        size: ByteSize,
        /// Residence time without a hit.
        ttl: Span,
        /// How several proxies share a pool.
        #[serde(serialize_with = "text")]
        sharing: Sharing,
        /// How long a copy of a shared pool's item is believed.
        fresh: Span,
    }
}

section! {
    /// The dry tier.
    Dry {
        /// `local`, `s3` or `mongodb`.
        backend: DryBackend,
        /// The folder of a local one.
        path: PathBuf,
        /// Bytes on disk.
        size: ByteSize,
        /// Residence time without a hit.
        ttl: Span,
        /// Bytes of one segment file.
        segment_size: ByteSize,
        /// What survives a reboot.
        #[serde(serialize_with = "durability_text")]
        durability: Durability,
        /// How long a store waits for the write queue.
        wait: Span,
        /// When a fetch becomes a miss.
        deadline: Span,
        /// Bytes of index slots.
        index: ByteSize,
        /// Which items are dried.
        admission: Admission,
        /// `off` or bytes per second.
        ahead: DryAhead,
        /// Begin with an empty tier.
        reset: bool,
        /// How long a clean stop may take.
        drain_timeout: Span,
        /// Local folder of a remote dry tier.
        spool: PathBuf,
        /// Bytes of segments that may wait there for their upload.
        spool_size: ByteSize,
        /// Start degraded where the remote store does not answer.
        optional: bool,
        /// Bytes of fetched ranges that stay in memory for a moment.
        read_cache: ByteSize,
        /// Age from which on an object that nothing names is deleted.
        orphan_age: Span,
    }
}

section! {
    /// An S3-compatible store.
    S3 {
        /// The bucket.
        bucket: String,
        /// Before all object names.
        prefix: String,
        /// URL of a store other than AWS.
        endpoint: String,
        /// Region.
        region: String,
        /// The bucket is named in the path.
        path_style: bool,
        /// `when_supported` or `when_required`.
        checksums: Checksums,
    }
}

section! {
    /// A MongoDB deployment.
    MongoDb {
        /// The connection string.
        uri: String,
        /// The database; else the one that the connection string names.
        database: String,
        /// The GridFS bucket.
        bucket: String,
    }
}

section! {
    /// Records about dried items.
    Tracking {
        /// `sled` or `off`.
        #[serde(serialize_with = "text")]
        backend: tracking::Backend,
        /// Folder.
        path: PathBuf,
        /// Whether each key has a row.
        rows: bool,
        /// Of a remote backend.
        url: NotBuilt,
    }
}

section! {
    /// Listeners, limits, commands, process.
    Server {
        /// Addresses; `-l`.
        listen: Vec<String>,
        /// TCP port, -1 for a free one, 0 for no TCP; `-p`.
        port: i32,
        /// Unix socket instead of TCP; `-s`.
        unix_socket: PathBuf,
        /// Access bits in octal; `-a`.
        unix_mask: Octal,
        /// Kernel's accept queue; `-b`.
        backlog: u32,
        /// Workers, 0 for one per core; `-t`.
        threads: usize,
        /// Connections; `-c`.
        max_connections: usize,
        /// Whether a connection beyond the limit is refused or waits; `-o maxconns_fast`.
        refuse_beyond_limit: bool,
        /// Zero for never; `-o idle_timeout`.
        idle_timeout: Span,
        /// Time that a begun request has, and a second more per MiB; zero for no limit.
        request_timeout: Span,
        /// Stricter defaults than memcached's.
        hardened: bool,
        /// Whether keys with control bytes are refused.
        strict_keys: bool,
        /// Keys of one `get`, 0 for no limit.
        keys_per_get_max: usize,
        /// What connections speak; `-B`.
        protocol: Protocol,
        /// Fairness between connections; `-R`.
        requests_per_turn: usize,
        /// Whether items have a CAS unique; `-C` turns it off.
        cas: bool,
        /// `flush_all` allowed; `-F` turns it off.
        flush_all: bool,
        /// Commands that list keys allowed; `-X` turns them off.
        dump: bool,
        /// `watch` allowed; `-W` turns it off.
        watch: bool,
        /// Bytes of events that wait for one watcher; `-o watcher_logbuf_size`.
        watch_buffer: ByteSize,
        /// `stats sizes` counts; `-o track_sizes`.
        track_sizes: bool,
        /// `shutdown` allowed; `-A`.
        shutdown: bool,
        /// Statistics per key prefix, up to this character; `-D`.
        prefix_delimiter: char,
        /// 0 to 3; `-v`.
        verbosity: u32,
        /// Whom to become when started as root; `-u`.
        user: String,
        /// File that receives the process id; `-P`.
        pid_file: PathBuf,
        /// Lock resident memory; `-k`.
        lock_memory: bool,
        /// Raise the core file limit; `-r`.
        core_dumps: bool,
    }
}

section! {
    /// Encryption.
    Tls {
        /// Whether TCP listeners are encrypted; `-Z`.
        enabled: bool,
        /// The server's certificate and those that vouch for it; `-o ssl_chain_cert`.
        chain_cert: PathBuf,
        /// Its private key; `-o ssl_key`.
        key: PathBuf,
        /// How the key is written; `-o ssl_keyformat`.
        key_format: KeyFormat,
        /// Which certificate clients show; `-o ssl_verify_mode`.
        verify: ClientCertificate,
        /// Authorities of clients' certificates; `-o ssl_ca_cert`.
        ca_cert: PathBuf,
        /// Cipher suites to offer; `-o ssl_ciphers`.
        ciphers: Vec<String>,
        /// Whether sessions are resumed; `-o ssl_session_cache`.
        session_cache: bool,
        /// The oldest version spoken; `-o ssl_min_version`.
        min_version: MinVersion,
    }
}

section! {
    /// Users and passwords.
    Auth {
        /// File of lines `user:password`; `-Y`.
        file: PathBuf,
        /// Whether the binary protocol is spoken, with SASL; `-S`.
        sasl: bool,
    }
}

section! {
    /// Upstream memcached servers.
    Memcached {
        /// Folder of what has to outlive the process.
        state: PathBuf,
        /// Servers of the pool that has the keys of no other, as `HOST:PORT:WEIGHT`.
        servers: Vec<String>,
        /// How the pools place keys.
        ring: Points,
        /// How the pools hash keys.
        #[serde(serialize_with = "text")]
        key_hash: KeyHash,
        /// Two characters between which the hashed part of a key stands.
        hash_tag: String,
        /// Time to connect.
        connect_timeout: Span,
        /// Time to answer.
        request_timeout: Span,
        /// Time without a request after which a connection to a server is closed.
        idle_timeout: Span,
        /// Failures in a row that eject a server.
        eject_after: u32,
        /// Whether TCP connections to the servers are encrypted.
        tls: bool,
        /// PEM file of the authorities that the servers' certificates come from.
        ca_cert: PathBuf,
        /// PEM file of the certificate that servers are shown.
        cert: PathBuf,
        /// PEM file of its private key.
        key: PathBuf,
        /// What has to be true of a server's certificate.
        verify: ServerCertificate,
        /// Whom to log in as.
        username: String,
        /// File of the password.
        password_file: PathBuf,
        /// Servers of further pools.
        pools: BTreeMap<String, Vec<String>>,
        /// Which pool has the keys of a prefix.
        routes: BTreeMap<String, String>,
        /// Servers that the keys of `servers` move from.
        migrate_from: Vec<String>,
        /// Servers that the keys of further pools move from.
        migrate_pools: BTreeMap<String, Vec<String>>,
    }
}

section! {
    /// The admin interface.
    Admin {
        /// Address of the admin interface.
        listen: NotBuilt,
        /// Its token.
        token: NotBuilt,
    }
}

/// All sections.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Layer {
    /// RAM as a whole.
    pub memory: Memory,
    /// The hot tier.
    pub hot: Hot,
    /// The cold tier.
    pub cold: Cold,
    /// The dry tier.
    pub dry: Dry,
    /// An S3-compatible store for dry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3>,
    /// A MongoDB deployment for dry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mongodb: Option<MongoDb>,
    /// Records about dried items.
    pub tracking: Tracking,
    /// Listeners, limits, commands, process.
    pub server: Server,
    /// Upstream memcached servers.
    pub memcached: Memcached,
    /// Encryption.
    pub tls: Tls,
    /// Users and passwords.
    pub auth: Auth,
    #[serde(skip_serializing)]
    pub(crate) admin: Admin,
    // Sections of the design that are refused by name instead of as unknown ones.
    #[serde(skip_serializing)]
    pub(crate) ttl_rules: Option<NotBuilt>,
    #[serde(skip_serializing)]
    pub(crate) redis: Option<NotBuilt>,
    #[serde(skip_serializing)]
    pub(crate) postgres: Option<NotBuilt>,
}

impl Layer {
    /// The sections and the names of their options.
    pub const SECTIONS: [(&str, &[&str]); 12] = [
        ("memory", Memory::KEYS),
        ("hot", Hot::KEYS),
        ("cold", Cold::KEYS),
        ("dry", Dry::KEYS),
        ("s3", S3::KEYS),
        ("mongodb", MongoDb::KEYS),
        ("tracking", Tracking::KEYS),
        ("server", Server::KEYS),
        ("memcached", Memcached::KEYS),
        ("tls", Tls::KEYS),
        ("auth", Auth::KEYS),
        ("admin", Admin::KEYS),
    ];

    /// Options of the design that are refused until they are built, as `section.key`.
    pub const NOT_BUILT: [&str; 3] = ["tracking.url", "admin.listen", "admin.token"];

    /// These options, and `lower`'s where these are open.
    #[must_use]
    pub fn over(self, lower: Layer) -> Layer {
        Layer {
            memory: self.memory.over(lower.memory),
            hot: self.hot.over(lower.hot),
            cold: self.cold.over(lower.cold),
            dry: self.dry.over(lower.dry),
            s3: section_over(self.s3, lower.s3, S3::over),
            mongodb: section_over(self.mongodb, lower.mongodb, MongoDb::over),
            tracking: self.tracking.over(lower.tracking),
            server: self.server.over(lower.server),
            memcached: self.memcached.over(lower.memcached),
            tls: self.tls.over(lower.tls),
            auth: self.auth.over(lower.auth),
            ..Layer::default()
        }
    }
}

/// Lays one section over another, each of which may be missing.
fn section_over<T>(upper: Option<T>, lower: Option<T>, over: impl FnOnce(T, T) -> T) -> Option<T> {
    match (upper, lower) {
        (Some(upper), Some(lower)) => Some(over(upper, lower)),
        (upper, lower) => upper.or(lower),
    }
}

/// An option of the design without code behind it: whatever its value, it is refused where it
/// stands, because a setting that is silently ignored is worse than none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum NotBuilt {}

impl<'de> Deserialize<'de> for NotBuilt {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<NotBuilt, D::Error> {
        Err(serde::de::Error::custom("this option is not built yet"))
    }
}

/// Where hot and cold live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RamBackend {
    /// In the process.
    Ram,
    /// In the pools of the section `memcached`.
    Memcached,
}

/// Where dry lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DryBackend {
    /// In a folder.
    Local,
    /// In a bucket of an S3-compatible store.
    S3,
    /// In MongoDB's GridFS.
    MongoDb,
}

/// What connections speak, by memcached's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// What their first byte says.
    #[default]
    Auto,
    /// Text, classic and meta.
    Ascii,
    /// The binary protocol.
    Binary,
}

impl Protocol {
    pub(super) fn syntax(self) -> Syntax {
        match self {
            Protocol::Auto => Syntax::Auto,
            Protocol::Ascii => Syntax::Text,
            Protocol::Binary => Syntax::Binary,
        }
    }

    pub(super) fn of(syntax: Syntax) -> Protocol {
        match syntax {
            Syntax::Auto => Protocol::Auto,
            Syntax::Text => Protocol::Ascii,
            Syntax::Binary => Protocol::Binary,
        }
    }
}

impl std::str::FromStr for Protocol {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Protocol, Self::Err> {
        match text {
            "auto" => Ok(Protocol::Auto),
            "ascii" => Ok(Protocol::Ascii),
            "binary" => Ok(Protocol::Binary),
            _ => Err("expected auto, ascii or binary"),
        }
    }
}

fn text<T: std::fmt::Display, S: Serializer>(option: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
    match option {
        Some(value) => to.collect_str(value),
        None => to.serialize_none(),
    }
}

fn durability_text<S: Serializer>(option: &Option<Durability>, to: S) -> Result<S::Ok, S::Error> {
    let word = |durability: &Durability| match durability {
        Durability::Process => "process",
        Durability::Power => "power",
    };
    text(&option.as_ref().map(word), to)
}

/// Access bits, written in octal as `chmod` takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Octal(pub u32);

impl std::str::FromStr for Octal {
    type Err = String;

    fn from_str(text: &str) -> Result<Octal, String> {
        match u32::from_str_radix(text, 8) {
            Ok(bits) if bits <= 0o777 => Ok(Octal(bits)),
            _ => Err(format!(
                "{text:?} is no access mask, expected octal digits up to 777"
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Octal {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Octal, D::Error> {
        String::deserialize(from)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl Serialize for Octal {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{:o}", self.0))
    }
}

//! From written options to a configuration: defaults, sizes that depend on each other, checks.

use crate::command::Strict;
use crate::config::layer::{self, DryBackend, Layer, Octal};
use crate::config::pools::{self, Ram};
use crate::config::{Commands, Config, Machine, Process, secure};
use crate::dry::{DryConfig, MongoDbConfig, RemoteConfig, S3Config};
use crate::server::config::{Address, BeyondLimit, Encryption, ServerConfig};
use crate::tier::config::{Evict, TierConfig};
use crate::tracking::TrackingConfig;
use crate::units::{ByteSize, Span};
use crate::watch;

/// Of the memory there is, hot and cold take at most this share unless they are told a size.
const DEFAULT_MEMORY_PERCENT_MAX: u64 = 60;

/// Hot has one part in so many of a memory limit, as the default sizes have.
const HOT_PART: u64 = 6;

/// memcached's limits of `-I`.
const ITEM_SIZE_MAX: std::ops::RangeInclusive<u64> = 1024..=1 << 30;

/// The write queue of dry takes at most this, and no more than an eighth of the RAM limit.
const DRY_QUEUE_BYTES_MAX: u64 = 64 << 20;

/// What may wait for a watcher: at least a few lines, and no more than its events are worth.
const WATCH_BUFFER: std::ops::RangeInclusive<u64> = 4 << 10..=64 << 20;

/// What `--hardened` sets.
const HARDENED_IDLE_TIMEOUT: Span = Span::seconds(300);
const HARDENED_REQUEST_TIMEOUT: Span = Span::seconds(10);
const HARDENED_KEYS_PER_GET_MAX: usize = 1000;

/// When a fetch from a remote dry tier becomes a miss, unless something else is said.
const REMOTE_DEADLINE: Span = Span::seconds(2);

/// Why a configuration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct ConfigError {
    /// The option as `section.key`.
    pub key: &'static str,
    /// What is wrong with it.
    pub message: String,
}

pub(super) fn refuse<T>(key: &'static str, message: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError {
        key,
        message: message.into(),
    })
}

pub(super) fn resolve(layer: Layer, machine: Machine) -> Result<Config, ConfigError> {
    let ram = pools::ram(&layer.hot, &layer.cold)?;
    let upstream = pools::upstream(&layer, ram)?;
    let Layer {
        memory,
        hot,
        cold,
        dry,
        s3,
        mongodb,
        tracking,
        server,
        tls,
        auth,
        ..
    } = layer;
    let tier = tier(&memory, &hot, &cold, &dry, ram, machine)?;
    let mut server = harden(server);
    let auth = secure::auth(auth, &mut server.protocol)?;
    let commands = commands(&server)?;
    let process = process(&server)?;
    let tls = secure::tls(tls)?;
    let mut server = server_config(server, machine, tier.item_size_max)?;
    server.tls = tls.as_ref().map(|tls| tls.verify);
    secure::check_listeners(&server, tls.as_ref())?;
    Ok(Config {
        server,
        dry: dry_config(dry, s3, mongodb, &tier)?,
        upstream,
        tracking: tracking_config(tracking),
        tier,
        tls,
        auth,
        commands,
        process,
    })
}

fn tier(
    memory: &layer::Memory,
    hot: &layer::Hot,
    cold: &layer::Cold,
    dry: &layer::Dry,
    ram: Ram,
    machine: Machine,
) -> Result<TierConfig, ConfigError> {
    let defaults = TierConfig::default();
    let item_size_max = memory.item_size_max.unwrap_or(defaults.item_size_max);
    let (hot_size, cold_size) = match (ram, memory.limit, hot.size) {
        (Ram::Nothing, None, _) => split(pools::proxy_memory(item_size_max)),
        // Copies have all of RAM: what would be cold's is for those that were hit.
        (Ram::Copies, None, size) => split(size.unwrap_or(defaults.hot_size)),
        _ => sizes(memory.limit, hot.size, cold.size, machine)?,
    };
    let limit = ByteSize(hot_size.0.saturating_add(cold_size.0));
    if !ITEM_SIZE_MAX.contains(&item_size_max.0) {
        return refuse("memory.item_size_max", "must be between 1k and 1g");
    }
    if item_size_max.0 > limit.0 / 2 {
        return refuse(
            "memory.item_size_max",
            format!("{item_size_max} is more than half of the memory limit of {limit}"),
        );
    }
    let dry_index = dry.index.unwrap_or(TierConfig::dry_index_default(limit));
    if dry_index.0 < 1 << 20 {
        return refuse("dry.index", "must be at least 1m");
    }
    for (key, ttl) in [
        ("hot.ttl", hot.ttl),
        ("cold.ttl", cold.ttl),
        ("dry.ttl", dry.ttl),
    ] {
        if ttl.is_some_and(|ttl| ttl.0.as_secs() == 0) {
            return refuse(key, "must be at least 1s");
        }
    }
    Ok(TierConfig {
        hot_size,
        hot_ttl: hot.ttl.unwrap_or(defaults.hot_ttl),
        cold_size,
        cold_ttl: cold.ttl.unwrap_or(defaults.cold_ttl),
        item_size_max,
        evict: if memory.evict.unwrap_or(true) {
            Evict::Yes
        } else {
            Evict::No
        },
        policy: memory.policy.unwrap_or(defaults.policy),
        dry_admission: dry.admission.unwrap_or(defaults.dry_admission),
        dry_ahead: dry.ahead.unwrap_or(defaults.dry_ahead),
        dry_wait: dry.wait.unwrap_or(defaults.dry_wait),
        dry_deadline: dry.deadline.unwrap_or(match dry.backend {
            None | Some(DryBackend::Local) => defaults.dry_deadline,
            Some(DryBackend::S3 | DryBackend::MongoDb) => REMOTE_DEADLINE,
        }),
        dry_index,
        durability: dry.durability.unwrap_or_default(),
        drain_timeout: dry.drain_timeout.unwrap_or(defaults.drain_timeout),
    })
}

/// The sizes of hot and cold.
fn sizes(
    limit: Option<ByteSize>,
    hot: Option<ByteSize>,
    cold: Option<ByteSize>,
    machine: Machine,
) -> Result<(ByteSize, ByteSize), ConfigError> {
    if let Some(limit) = limit {
        if hot.is_some() || cold.is_some() {
            return refuse(
                "memory.limit",
                "cannot be given together with the size of hot or cold",
            );
        }
        return Ok(split(limit));
    }
    let defaults = TierConfig::default();
    let room = machine.memory.0 / 100 * DEFAULT_MEMORY_PERCENT_MAX;
    let sizes = match (hot, cold) {
        (Some(hot), Some(cold)) => (hot, cold),
        (Some(hot), None) => {
            let room = room.saturating_sub(hot.0).max(hot.0);
            (hot, defaults.cold_size.min(ByteSize(room)))
        }
        (None, Some(cold)) => (defaults.hot_size.min(split(ByteSize(room)).0), cold),
        (None, None) => split(defaults.memory_limit().min(ByteSize(room >> 20 << 20))),
    };
    match sizes {
        (ByteSize(0), _) => refuse("hot.size", "must not be zero"),
        (_, ByteSize(0)) => refuse("cold.size", "must not be zero"),
        sizes => Ok(sizes),
    }
}

/// Hot's and cold's part of a limit.
fn split(limit: ByteSize) -> (ByteSize, ByteSize) {
    let hot = limit.0 / HOT_PART;
    (ByteSize(hot), ByteSize(limit.0 - hot))
}

fn dry_config(
    dry: layer::Dry,
    s3: Option<layer::S3>,
    mongodb: Option<layer::MongoDb>,
    tier: &TierConfig,
) -> Result<Option<DryConfig>, ConfigError> {
    let unused_s3 = s3.as_ref().is_some_and(|s3| *s3 != layer::S3::default());
    if unused_s3 && dry.backend != Some(DryBackend::S3) {
        return refuse(
            "s3.bucket",
            "section s3 has no effect without a dry tier in s3 (dry.backend)",
        );
    }
    let unused_mongodb = mongodb
        .as_ref()
        .is_some_and(|mongodb| *mongodb != layer::MongoDb::default());
    if unused_mongodb && dry.backend != Some(DryBackend::MongoDb) {
        return refuse(
            "mongodb.uri",
            "section mongodb has no effect without a dry tier in mongodb (dry.backend)",
        );
    }
    let remote = match dry.backend {
        None | Some(DryBackend::Local) => None,
        Some(DryBackend::S3) => Some(RemoteConfig::S3(s3_config(s3)?)),
        Some(DryBackend::MongoDb) => Some(RemoteConfig::MongoDb(mongodb_config(mongodb)?)),
    };
    let folder = if remote.is_some() {
        if dry.path.is_some() {
            return refuse(
                "dry.path",
                "is the folder of a local dry tier; a remote one has dry.spool",
            );
        }
        if dry.spool.is_none() {
            return refuse(
                "dry.spool",
                "a remote dry tier needs a local folder for its journal and for what waits (--dry-spool DIR)",
            );
        }
        dry.spool
    } else {
        let set = [
            ("dry.spool", dry.spool.is_some()),
            ("dry.spool_size", dry.spool_size.is_some()),
            ("dry.optional", dry.optional == Some(true)),
            ("dry.read_cache", dry.read_cache.is_some()),
            ("dry.orphan_age", dry.orphan_age.is_some()),
        ];
        if let Some((key, _)) = set.into_iter().find(|(_, set)| *set) {
            return refuse(key, "has an effect only with a dry tier in s3 or mongodb");
        }
        dry.path
    };
    let Some(folder) = folder else {
        let set = [
            ("dry.size", dry.size.is_some()),
            ("dry.ttl", dry.ttl.is_some()),
            ("dry.segment_size", dry.segment_size.is_some()),
            ("dry.durability", dry.durability.is_some()),
            ("dry.reset", dry.reset == Some(true)),
        ];
        return match set.into_iter().find(|(_, set)| *set) {
            Some((key, _)) => refuse(
                key,
                "has no effect without a dry tier (dry.path, --dry DIR)",
            ),
            None => Ok(None),
        };
    };
    let defaults = DryConfig::default();
    let config = DryConfig {
        folder,
        size: dry.size.unwrap_or(defaults.size),
        ttl: dry.ttl.unwrap_or(defaults.ttl),
        segment_size: dry.segment_size.or(defaults.segment_size),
        durability: dry.durability.unwrap_or(defaults.durability),
        reset: dry.reset.unwrap_or(defaults.reset),
        remote,
        spool_size: dry.spool_size.unwrap_or(defaults.spool_size),
        read_cache: dry.read_cache.unwrap_or(defaults.read_cache),
        read_timeout: tier.dry_deadline,
        close_timeout: tier.drain_timeout,
        optional: dry.optional.unwrap_or(defaults.optional),
        orphan_age: dry.orphan_age.unwrap_or(defaults.orphan_age),
        queue_bytes: ByteSize((tier.memory_limit().0 / 8).min(DRY_QUEUE_BYTES_MAX)).as_usize(),
        ..defaults
    };
    if config.size.0 < 32 << 20 {
        return refuse("dry.size", "must be at least 32m");
    }
    if config
        .segment_size
        .is_some_and(|size| size.0 < 1 << 20 || size.0 > config.size.0 / 4)
    {
        return refuse(
            "dry.segment_size",
            "must be between 1m and a quarter of dry.size",
        );
    }
    Ok(Some(config))
}

fn s3_config(s3: Option<layer::S3>) -> Result<S3Config, ConfigError> {
    let s3 = s3.unwrap_or_default();
    let Some(bucket) = s3.bucket.filter(|bucket| !bucket.is_empty()) else {
        return refuse(
            "s3.bucket",
            "a dry tier in s3 needs a bucket (--dry s3://BUCKET/PREFIX)",
        );
    };
    Ok(S3Config {
        bucket,
        prefix: s3.prefix.unwrap_or_default().trim_matches('/').to_owned(),
        endpoint: s3.endpoint,
        region: s3.region,
        path_style: s3.path_style.unwrap_or(false),
        checksums: s3.checksums.unwrap_or_default(),
    })
}

fn mongodb_config(mongodb: Option<layer::MongoDb>) -> Result<MongoDbConfig, ConfigError> {
    let mongodb = mongodb.unwrap_or_default();
    let Some(uri) = mongodb.uri.filter(|uri| !uri.is_empty()) else {
        return refuse(
            "mongodb.uri",
            "a dry tier in mongodb needs a connection string (--dry mongodb://HOST/DATABASE)",
        );
    };
    // The path of the connection string, as for every MongoDB tool.
    let after_scheme = uri.split_once("://").map_or(uri.as_str(), |(_, rest)| rest);
    let path = after_scheme.split_once('/').map_or("", |(_, path)| path);
    let named = path.split('?').next().unwrap_or_default().to_owned();
    let database = mongodb.database.unwrap_or(named);
    if database.is_empty() {
        return refuse(
            "mongodb.database",
            "no database is named (--dry mongodb://HOST/DATABASE)",
        );
    }
    Ok(MongoDbConfig {
        uri,
        database,
        bucket: mongodb.bucket.unwrap_or_else(|| "tiercache".to_owned()),
    })
}

fn tracking_config(tracking: layer::Tracking) -> TrackingConfig {
    let defaults = TrackingConfig::default();
    TrackingConfig {
        backend: tracking.backend.unwrap_or(defaults.backend),
        path: tracking.path.or(defaults.path),
        rows: tracking.rows.unwrap_or(defaults.rows),
    }
}

/// `hardened` changes defaults alone: what is written out stays as it is written.
fn harden(server: layer::Server) -> layer::Server {
    if server.hardened != Some(true) {
        return server;
    }
    server.over(layer::Server {
        idle_timeout: Some(HARDENED_IDLE_TIMEOUT),
        request_timeout: Some(HARDENED_REQUEST_TIMEOUT),
        strict_keys: Some(true),
        keys_per_get_max: Some(HARDENED_KEYS_PER_GET_MAX),
        dump: Some(false),
        watch: Some(false),
        ..layer::Server::default()
    })
}

fn server_config(
    server: layer::Server,
    machine: Machine,
    item_size_max: ByteSize,
) -> Result<ServerConfig, ConfigError> {
    let defaults = ServerConfig::default();
    let positive = |key, count: Option<usize>, default| match count {
        Some(0) => refuse(key, "must be greater than 0"),
        Some(count) => Ok(count),
        None => Ok(default),
    };
    let port = match server.port.unwrap_or(i32::from(ServerConfig::PORT)) {
        // memcached's -1: any free port.
        -1 => Some(0),
        0 => None,
        port => match u16::try_from(port) {
            Ok(port) => Some(port),
            Err(_) => return refuse("server.port", format!("{port} is no TCP port")),
        },
    };
    let listen = match (&server.unix_socket, server.listen) {
        (Some(_), _) => Vec::new(),
        (None, None) => port
            .map(|port| Address {
                host: None,
                port,
                encryption: Encryption::Default,
            })
            .into_iter()
            .collect(),
        (None, Some(texts)) => addresses(&texts, port)?,
    };
    if listen.is_empty() && server.unix_socket.is_none() {
        return refuse(
            "server.port",
            "no TCP port and no unix socket: nobody could connect",
        );
    }
    Ok(ServerConfig {
        listen,
        tls: None,
        unix_socket: server.unix_socket,
        unix_mask: server
            .unix_mask
            .map_or(defaults.unix_mask, |Octal(bits)| bits),
        backlog: server.backlog.unwrap_or(defaults.backlog),
        threads: server
            .threads
            .filter(|&threads| threads > 0)
            .unwrap_or(machine.cores),
        max_connections: positive(
            "server.max_connections",
            server.max_connections,
            defaults.max_connections,
        )?,
        beyond_limit: match server.refuse_beyond_limit {
            Some(false) => BeyondLimit::Wait,
            _ => BeyondLimit::Refuse,
        },
        idle_timeout: server.idle_timeout.unwrap_or(defaults.idle_timeout),
        request_timeout: server.request_timeout.unwrap_or(defaults.request_timeout),
        syntax: server.protocol.unwrap_or_default().syntax(),
        turn_requests_max: positive(
            "server.requests_per_turn",
            server.requests_per_turn,
            defaults.turn_requests_max,
        )?,
        item_size_max: item_size_max.as_usize(),
    })
}

/// The addresses of a list such as `127.0.0.1,[::1]:11212,tag[a]:host`.
fn addresses(texts: &[String], port: Option<u16>) -> Result<Vec<Address>, ConfigError> {
    let mut addresses = Vec::new();
    for text in texts
        .iter()
        .flat_map(|text| text.split([',', ';']))
        .filter(|text| !text.is_empty())
    {
        match Address::parse(text, port) {
            Ok(address) => addresses.push(address),
            Err(message) => return refuse("server.listen", message),
        }
    }
    Ok(addresses)
}

fn commands(server: &layer::Server) -> Result<Commands, ConfigError> {
    let prefix_delimiter = match server.prefix_delimiter {
        Some(delimiter) if !delimiter.is_ascii_graphic() => {
            return refuse(
                "server.prefix_delimiter",
                "must be a printable ASCII character",
            );
        }
        delimiter => delimiter.map(|delimiter| delimiter as u8),
    };
    let watch_buffer = server
        .watch_buffer
        .unwrap_or(ByteSize(watch::BUFFER_BYTES_DEFAULT as u64));
    if !WATCH_BUFFER.contains(&watch_buffer.0) {
        return refuse("server.watch_buffer", "must be between 4k and 64m");
    }
    Ok(Commands {
        cas: server.cas.unwrap_or(true),
        flush_all: server.flush_all.unwrap_or(true),
        dump: server.dump.unwrap_or(true),
        watch: server.watch.unwrap_or(true),
        watch_buffer,
        track_sizes: server.track_sizes.unwrap_or(false),
        prefix_delimiter,
        shutdown: server.shutdown.unwrap_or(false),
        strict: Strict {
            keys: server.strict_keys.unwrap_or(false),
            keys_per_get_max: server.keys_per_get_max.unwrap_or(0),
        },
    })
}

fn process(server: &layer::Server) -> Result<Process, ConfigError> {
    if server.user.as_deref() == Some("") {
        return refuse("server.user", "must not be empty");
    }
    Ok(Process {
        verbosity: server.verbosity.unwrap_or(0),
        user: server.user.clone(),
        pid_file: server.pid_file.clone(),
        lock_memory: server.lock_memory.unwrap_or(false),
        core_dumps: server.core_dumps.unwrap_or(false),
    })
}

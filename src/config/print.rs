//! A configuration as a file, every option spelled out.

use crate::config::layer::{
    Auth, Cold, Dry, DryBackend, Hot, Layer, Memory, MongoDb, Octal, Protocol, RamBackend, S3,
    Server, Tls, Tracking,
};
use crate::config::{Config, pools};
use crate::dry::RemoteConfig;
use crate::server::config::BeyondLimit;
use crate::tier::config::Evict;

/// The options that resolve to `config`.
pub(super) fn to_layer(config: &Config) -> Layer {
    let Config {
        server,
        tier,
        dry,
        upstream,
        tracking,
        tls,
        auth,
        commands,
        process,
    } = config;
    let (dry, tls) = (dry.as_ref(), tls.as_ref());
    let (hot_backend, cold_backend) = match upstream {
        None => (RamBackend::Ram, RamBackend::Ram),
        Some(upstream) if upstream.copies => (RamBackend::Ram, RamBackend::Memcached),
        Some(_) => (RamBackend::Memcached, RamBackend::Ram),
    };
    let copies = upstream.as_ref().filter(|upstream| upstream.copies);
    let hot_size = match upstream {
        None => Some(tier.hot_size),
        Some(upstream) => upstream.copies.then(|| tier.memory_limit()),
    };
    let far = dry.filter(|dry| dry.remote.is_some());
    let remote = far.and_then(|dry| dry.remote.as_ref());
    Layer {
        memory: Memory {
            // Hot and cold carry the sizes that the limit was divided into.
            limit: None,
            item_size_max: Some(tier.item_size_max),
            evict: Some(tier.evict == Evict::Yes),
            policy: Some(tier.policy),
        },
        hot: Hot {
            backend: Some(hot_backend),
            size: hot_size,
            ttl: Some(tier.hot_ttl),
        },
        cold: Cold {
            backend: Some(cold_backend),
            size: upstream.is_none().then_some(tier.cold_size),
            ttl: upstream.is_none().then_some(tier.cold_ttl),
            sharing: copies.map(|upstream| upstream.sharing),
            fresh: copies.map(|upstream| upstream.fresh),
        },
        dry: Dry {
            backend: Some(match remote {
                None => DryBackend::Local,
                Some(RemoteConfig::S3(_)) => DryBackend::S3,
                Some(RemoteConfig::MongoDb(_)) => DryBackend::MongoDb,
            }),
            path: dry
                .filter(|_| remote.is_none())
                .map(|dry| dry.folder.clone()),
            size: dry.map(|dry| dry.size),
            ttl: dry.map(|dry| dry.ttl),
            segment_size: dry.and_then(|dry| dry.segment_size),
            durability: dry.map(|dry| dry.durability),
            reset: dry.map(|dry| dry.reset),
            wait: Some(tier.dry_wait),
            deadline: Some(tier.dry_deadline),
            index: Some(tier.dry_index),
            admission: Some(tier.dry_admission),
            ahead: Some(tier.dry_ahead),
            drain_timeout: Some(tier.drain_timeout),
            spool: far.map(|dry| dry.folder.clone()),
            spool_size: far.map(|dry| dry.spool_size),
            optional: far.map(|dry| dry.optional),
            read_cache: far.map(|dry| dry.read_cache),
            orphan_age: far.map(|dry| dry.orphan_age),
        },
        s3: match remote {
            Some(RemoteConfig::S3(s3)) => Some(S3 {
                bucket: Some(s3.bucket.clone()),
                prefix: Some(s3.prefix.clone()),
                endpoint: s3.endpoint.clone(),
                region: s3.region.clone(),
                path_style: Some(s3.path_style),
                checksums: Some(s3.checksums),
            }),
            _ => None,
        },
        mongodb: match remote {
            Some(RemoteConfig::MongoDb(mongodb)) => Some(MongoDb {
                uri: Some(mongodb.uri.clone()),
                database: Some(mongodb.database.clone()),
                bucket: Some(mongodb.bucket.clone()),
            }),
            _ => None,
        },
        tracking: Tracking {
            backend: Some(tracking.backend),
            path: tracking.path.clone(),
            rows: Some(tracking.rows),
            url: None,
        },
        server: Server {
            listen: server
                .unix_socket
                .is_none()
                .then(|| server.listen.iter().map(ToString::to_string).collect()),
            port: None,
            unix_socket: server.unix_socket.clone(),
            unix_mask: Some(Octal(server.unix_mask)),
            backlog: Some(server.backlog),
            threads: Some(server.threads),
            max_connections: Some(server.max_connections),
            refuse_beyond_limit: Some(server.beyond_limit == BeyondLimit::Refuse),
            idle_timeout: Some(server.idle_timeout),
            request_timeout: Some(server.request_timeout),
            // Its limits stand here one by one.
            hardened: Some(false),
            strict_keys: Some(commands.strict.keys),
            keys_per_get_max: Some(commands.strict.keys_per_get_max),
            protocol: Some(Protocol::of(server.syntax)),
            requests_per_turn: Some(server.turn_requests_max),
            cas: Some(commands.cas),
            flush_all: Some(commands.flush_all),
            dump: Some(commands.dump),
            watch: Some(commands.watch),
            watch_buffer: Some(commands.watch_buffer),
            track_sizes: Some(commands.track_sizes),
            shutdown: Some(commands.shutdown),
            prefix_delimiter: commands.prefix_delimiter.map(char::from),
            verbosity: Some(process.verbosity),
            user: process.user.clone(),
            pid_file: process.pid_file.clone(),
            lock_memory: Some(process.lock_memory),
            core_dumps: Some(process.core_dumps),
        },
        tls: Tls {
            enabled: Some(tls.is_some()),
            chain_cert: tls.map(|tls| tls.chain_cert.clone()),
            key: tls.map(|tls| tls.key.clone()),
            key_format: tls.map(|tls| tls.key_format),
            verify: tls.map(|tls| tls.verify),
            ca_cert: tls.and_then(|tls| tls.ca_cert.clone()),
            ciphers: tls.map(|tls| tls.ciphers.clone()),
            session_cache: tls.map(|tls| tls.session_cache),
            min_version: tls.map(|tls| tls.min_version),
        },
        auth: Auth {
            file: auth.as_ref().map(|auth| auth.file.clone()),
            sasl: auth.as_ref().map(|auth| auth.sasl),
        },
        memcached: upstream.as_ref().map(pools::to_layer).unwrap_or_default(),
        ..Layer::default()
    }
}

pub(super) fn to_toml(config: &Config) -> String {
    // The layer holds only texts, numbers, switches and lists of texts, which TOML can all express.
    toml::to_string(&to_layer(config)).expect("every option has a TOML form")
}

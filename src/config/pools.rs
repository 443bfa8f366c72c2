//! From written options to the upstream pools: who has the keys, and where copies of them live.

use std::collections::BTreeMap;

use crate::config::ConfigError;
use crate::config::layer::{self, Layer, RamBackend};
use crate::config::resolve::refuse;
use crate::config::secure;
use crate::units::{ByteSize, Span};
use crate::upstream::UpstreamConfig;
use crate::upstream::config::{Address, PoolConfig, Route, Sharing};

/// RAM of a proxy that keeps no items, at least; it has to hold a few of the largest.
const PROXY_MEMORY_MIN: ByteSize = ByteSize::mib(8);
/// A proxy's RAM in largest items.
const PROXY_ITEMS: u64 = 4;

/// What RAM is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ram {
    /// Items: hot and cold.
    Items,
    /// Copies of a pool's items: hot alone.
    Copies,
    /// Nothing.
    Nothing,
}

/// What RAM is for, by the backends of hot and cold.
pub(super) fn ram(hot: &layer::Hot, cold: &layer::Cold) -> Result<Ram, ConfigError> {
    let pooled = Some(RamBackend::Memcached);
    match (hot.backend == pooled, cold.backend == pooled) {
        (false, false) => Ok(Ram::Items),
        (false, true) => Ok(Ram::Copies),
        (true, false) => Ok(Ram::Nothing),
        (true, true) => refuse(
            "hot.backend",
            "hot and cold cannot both be memcached: cold alone keeps copies in hot, hot alone none",
        ),
    }
}

/// The RAM that a proxy without copies gets.
pub(super) fn proxy_memory(item_size_max: ByteSize) -> ByteSize {
    PROXY_MEMORY_MIN.max(ByteSize(item_size_max.0 * PROXY_ITEMS))
}

/// The pools, and that nothing is said that has no effect with or without them.
pub(super) fn upstream(layer: &Layer, ram: Ram) -> Result<Option<UpstreamConfig>, ConfigError> {
    let Layer {
        memcached,
        hot,
        cold,
        dry,
        ..
    } = layer;
    if ram == Ram::Items {
        return without_pools(memcached, cold);
    }
    let without_effect = [
        (
            "cold.size",
            cold.size.is_some(),
            "the pool has cold's items",
        ),
        ("cold.ttl", cold.ttl.is_some(), "the pool has cold's items"),
        (
            "hot.size",
            ram == Ram::Nothing && hot.size.is_some(),
            "nothing is kept in RAM",
        ),
        (
            "cold.sharing",
            ram == Ram::Nothing && cold.sharing.is_some(),
            "nothing is kept in RAM",
        ),
        (
            "dry.path",
            dry.path.is_some(),
            "hot only has copies of what the servers have; let a server of the pool be a tiercache with --dry",
        ),
    ];
    if let Some((key, _, why)) = without_effect.into_iter().find(|(_, set, _)| *set) {
        return refuse(key, why);
    }
    let Some(state) = memcached.state.clone() else {
        return refuse(
            "memcached.state",
            "memcached servers need a folder for deletes they did not acknowledge (--state DIR)",
        );
    };
    let defaults = PoolConfig::default();
    let sharing = cold.sharing.unwrap_or_default();
    let ring = memcached.ring.unwrap_or_default();
    let common = PoolConfig {
        ring,
        key_hash: memcached.key_hash.unwrap_or(ring.key_hash()),
        hash_tag: hash_tag(memcached.hash_tag.as_deref())?,
        connect_timeout: positive(
            "memcached.connect_timeout",
            memcached.connect_timeout,
            defaults.connect_timeout,
        )?,
        request_timeout: positive(
            "memcached.request_timeout",
            memcached.request_timeout,
            defaults.request_timeout,
        )?,
        idle_timeout: memcached.idle_timeout.unwrap_or(match sharing {
            // Behind each new connection may be another process, of whose items there are no copies yet.
            Sharing::Strict => Span::seconds(0),
            Sharing::Private | Sharing::Through => defaults.idle_timeout,
        }),
        eject_after: match memcached.eject_after {
            Some(0) => return refuse("memcached.eject_after", "must be at least 1"),
            count => count.unwrap_or(defaults.eject_after),
        },
        ..defaults
    };
    let first = memcached.servers.as_deref().unwrap_or_default();
    let mut pools = vec![pool(&common, "", "memcached.servers", first)?];
    if let Some(old) = memcached.migrate_from.as_deref() {
        pools[0].migrate_from = addresses("memcached.migrate_from", old)?;
    }
    let empty = BTreeMap::new();
    for (name, servers) in memcached.pools.as_ref().unwrap_or(&empty) {
        pools.push(pool(&common, name, "memcached.pools", servers)?);
    }
    for (name, old) in memcached.migrate_pools.iter().flatten() {
        const KEY: &str = "memcached.migrate_pools";
        let Some(pool) = pools.iter_mut().find(|pool| pool.name == *name) else {
            return refuse(KEY, format!("there is no pool {name:?}"));
        };
        pool.migrate_from = addresses(KEY, old)?;
    }
    let mut routes = Vec::new();
    for (prefix, name) in memcached.routes.iter().flatten() {
        let Some(pool) = pools.iter().position(|pool| pool.name == *name) else {
            return refuse("memcached.routes", format!("there is no pool {name:?}"));
        };
        routes.push(Route {
            prefix: prefix.clone().into_bytes(),
            pool,
        });
    }
    let fresh = positive("cold.fresh", cold.fresh, Span::seconds(10))?;
    if fresh.0.subsec_nanos() != 0 {
        return refuse("cold.fresh", "must be whole seconds");
    }
    Ok(Some(UpstreamConfig {
        pools,
        routes,
        sharing,
        fresh,
        copies: ram == Ram::Copies,
        state,
        access: secure::access(memcached)?,
    }))
}

fn without_pools(
    memcached: &layer::Memcached,
    cold: &layer::Cold,
) -> Result<Option<UpstreamConfig>, ConfigError> {
    const WHY: &str = "has no effect unless cold.backend or hot.backend is memcached \
                       (--cold memcached://HOST:PORT,...)";
    let set = [
        ("memcached.servers", memcached.servers.is_some()),
        ("memcached.pools", memcached.pools.is_some()),
        ("memcached.routes", memcached.routes.is_some()),
        ("memcached.migrate_from", memcached.migrate_from.is_some()),
        ("memcached.migrate_pools", memcached.migrate_pools.is_some()),
        ("memcached.state", memcached.state.is_some()),
        ("memcached.tls", memcached.tls == Some(true)),
        ("memcached.username", memcached.username.is_some()),
        ("cold.sharing", cold.sharing.is_some()),
        ("cold.fresh", cold.fresh.is_some()),
    ];
    match set.into_iter().find(|(_, set)| *set) {
        Some((key, _)) => refuse(key, WHY),
        None => Ok(None),
    }
}

fn pool(
    common: &PoolConfig,
    name: &str,
    key: &'static str,
    servers: &[String],
) -> Result<PoolConfig, ConfigError> {
    Ok(PoolConfig {
        name: name.to_owned(),
        servers: addresses(key, servers)?,
        ..common.clone()
    })
}

fn addresses(key: &'static str, servers: &[String]) -> Result<Vec<Address>, ConfigError> {
    let mut addresses: Vec<Address> = Vec::new();
    for text in servers {
        match text.parse() {
            Ok(address) => addresses.push(address),
            Err(message) => return refuse(key, message),
        }
    }
    if addresses.is_empty() {
        return refuse(key, "a pool needs a server");
    }
    let twice = |(at, address): (usize, &Address)| {
        addresses[..at]
            .iter()
            .any(|other| other.place == address.place)
    };
    if let Some(at) = addresses.iter().enumerate().position(twice) {
        return refuse(key, format!("{} stands there twice", addresses[at].place));
    }
    Ok(addresses)
}

fn hash_tag(text: Option<&str>) -> Result<Option<(u8, u8)>, ConfigError> {
    match text.map(str::as_bytes) {
        None | Some([]) => Ok(None),
        Some(&[open, close]) => Ok(Some((open, close))),
        Some(_) => refuse("memcached.hash_tag", "must be two ASCII characters"),
    }
}

fn positive(key: &'static str, span: Option<Span>, default: Span) -> Result<Span, ConfigError> {
    match span {
        Some(span) if span.0.is_zero() => refuse(key, "must not be zero"),
        span => Ok(span.unwrap_or(default)),
    }
}

/// The options that resolve to these pools.
pub(super) fn to_layer(upstream: &UpstreamConfig) -> layer::Memcached {
    let (first, further) = upstream
        .pools
        .split_first()
        .map_or((None, &[][..]), |(first, rest)| (Some(first), rest));
    let texts = |pool: &PoolConfig| pool.servers.iter().map(ToString::to_string).collect();
    let old = |pool: &PoolConfig| {
        let servers = pool.migrate_from.iter().map(ToString::to_string);
        (!pool.migrate_from.is_empty()).then(|| servers.collect())
    };
    let name = |route: &Route| upstream.pools[route.pool].name.clone();
    let (tls, login) = (&upstream.access.tls, &upstream.access.login);
    let tls = tls.as_ref();
    layer::Memcached {
        tls: Some(tls.is_some()),
        ca_cert: tls.and_then(|tls| tls.ca_cert.clone()),
        cert: tls.and_then(|tls| tls.cert.clone()),
        key: tls.and_then(|tls| tls.key.clone()),
        verify: tls.map(|tls| tls.verify),
        username: login.as_ref().map(|login| login.username.clone()),
        password_file: login.as_ref().map(|login| login.password_file.clone()),
        state: Some(upstream.state.clone()),
        servers: first.map(texts),
        ring: first.map(|pool| pool.ring),
        key_hash: first.map(|pool| pool.key_hash),
        hash_tag: first
            .and_then(|pool| pool.hash_tag)
            .map(|(open, close)| [char::from(open), char::from(close)].iter().collect()),
        connect_timeout: first.map(|pool| pool.connect_timeout),
        request_timeout: first.map(|pool| pool.request_timeout),
        idle_timeout: first.map(|pool| pool.idle_timeout),
        eject_after: first.map(|pool| pool.eject_after),
        migrate_from: first.and_then(old),
        migrate_pools: Some(
            further
                .iter()
                .filter_map(|pool| Some((pool.name.clone(), old(pool)?)))
                .collect(),
        ),
        pools: Some(
            further
                .iter()
                .map(|pool| (pool.name.clone(), texts(pool)))
                .collect(),
        ),
        routes: Some(
            upstream
                .routes
                .iter()
                .map(|route| {
                    (
                        String::from_utf8_lossy(&route.prefix).into_owned(),
                        name(route),
                    )
                })
                .collect(),
        ),
    }
}

//! What `command` is told: the switches, and the rows of `stats settings` with memcached's names.

use tiercache_protocol::Syntax;

use crate::command::Settings;
use crate::config::Config;
use crate::server::config::BeyondLimit;
use crate::tier::config::Evict;
use crate::tls::MinVersion;

pub(super) fn settings(config: &Config) -> Settings {
    Settings {
        item_size_max: config.tier.item_size_max.as_usize(),
        max_connections: config.server.max_connections,
        threads: config.server.threads,
        flush_enabled: config.commands.flush_all,
        dump_enabled: config.commands.dump,
        watch_enabled: config.commands.watch,
        sizes_enabled: config.commands.track_sizes,
        shutdown_enabled: config.commands.shutdown,
        cas_enabled: config.commands.cas,
        strict: config.commands.strict.any(),
        rows: rows(config),
    }
}

/// Where a key's prefix ends.
pub(super) fn delimiter(config: &Config) -> u8 {
    config.commands.prefix_delimiter.unwrap_or(b':')
}

/// Tools read these by name. What tunes memcached's slabs and LRU lists stands at memcached's
/// default, because a tool that computes with a missing row fails.
fn rows(config: &Config) -> Vec<(String, String)> {
    let Config {
        server,
        tier,
        dry,
        upstream: _,
        tracking,
        tls,
        auth,
        commands,
        process,
    } = config;
    let word = |on: bool| if on { "yes" } else { "no" }.to_owned();
    let null = || "NULL".to_owned();
    let inter: Vec<_> = server
        .listen
        .iter()
        .filter_map(|address| address.host.clone())
        .collect();
    let row = |name: &str, value: String| (name.to_owned(), value);
    let mut rows = vec![
        row("maxbytes", tier.memory_limit().0.to_string()),
        row("maxconns", server.max_connections.to_string()),
        row(
            "tcpport",
            server
                .listen
                .first()
                .map_or(0, |address| address.port)
                .to_string(),
        ),
        row("udpport", "0".to_owned()),
        row(
            "inter",
            if inter.is_empty() {
                null()
            } else {
                inter.join(",")
            },
        ),
        row("verbosity", process.verbosity.to_string()),
        row("oldest", "0".to_owned()),
        row(
            "evictions",
            if tier.evict == Evict::Yes {
                "on"
            } else {
                "off"
            }
            .to_owned(),
        ),
        row(
            "domain_socket",
            server
                .unix_socket
                .as_ref()
                .map_or_else(null, |path| path.display().to_string()),
        ),
        row("umask", format!("{:o}", server.unix_mask)),
        row("shutdown_command", word(commands.shutdown)),
        row("growth_factor", "1.25".to_owned()),
        row("chunk_size", "48".to_owned()),
        row("num_threads", server.threads.to_string()),
        row("num_threads_per_udp", "0".to_owned()),
        row("stat_key_prefix", char::from(delimiter(config)).to_string()),
        row("detail_enabled", word(commands.prefix_delimiter.is_some())),
        row("reqs_per_event", server.turn_requests_max.to_string()),
        row("cas_enabled", word(commands.cas)),
        row("tcp_backlog", server.backlog.to_string()),
        row(
            "binding_protocol",
            match server.syntax {
                Syntax::Auto => "auto-negotiate",
                Syntax::Text => "ascii",
                Syntax::Binary => "binary",
            }
            .to_owned(),
        ),
        row(
            "auth_enabled_sasl",
            word(auth.as_ref().is_some_and(|auth| auth.sasl)),
        ),
        row(
            "auth_enabled_ascii",
            auth.as_ref()
                .map_or_else(|| word(false), |auth| auth.file.display().to_string()),
        ),
        row("item_size_max", tier.item_size_max.0.to_string()),
        row(
            "maxconns_fast",
            word(server.beyond_limit == BeyondLimit::Refuse),
        ),
        row("hashpower_init", "0".to_owned()),
        row("slab_reassign", word(false)),
        row("slab_automove", "0".to_owned()),
        row("slab_chunk_max", tier.item_size_max.0.to_string()),
        row("lru_crawler", word(true)),
        row("flush_enabled", word(commands.flush_all)),
        row("dump_enabled", word(commands.dump)),
        row("track_sizes", word(commands.track_sizes)),
        row("watch_enabled", word(commands.watch)),
        row("watcher_logbuf_size", commands.watch_buffer.0.to_string()),
        row("hash_algorithm", "siphash13".to_owned()),
        row("lru_maintainer_thread", word(false)),
        row("lru_segmented", word(false)),
        row("idle_timeout", server.idle_timeout.0.as_secs().to_string()),
        row(
            "request_timeout",
            server.request_timeout.0.as_secs().to_string(),
        ),
        row("strict_keys", word(commands.strict.keys)),
        row(
            "keys_per_get_max",
            commands.strict.keys_per_get_max.to_string(),
        ),
        row("ssl_enabled", word(tls.is_some())),
        row("memory_file", "(null)".to_owned()),
        row("client_flags_size", size_of::<u32>().to_string()),
        row("hot_size", tier.hot_size.0.to_string()),
        row("hot_ttl", tier.hot_ttl.to_string()),
        row("cold_size", tier.cold_size.0.to_string()),
        row("cold_ttl", tier.cold_ttl.to_string()),
    ];
    if let Some(tls) = tls {
        rows.extend([
            row("ssl_chain_cert", tls.chain_cert.display().to_string()),
            row("ssl_key", tls.key.display().to_string()),
            row("ssl_verify_mode", (tls.verify as u8).to_string()),
            row("ssl_keyformat", (tls.key_format as u8 + 1).to_string()),
            row(
                "ssl_ciphers",
                if tls.ciphers.is_empty() {
                    null()
                } else {
                    tls.ciphers.join(":")
                },
            ),
            row(
                "ssl_ca_cert",
                tls.ca_cert
                    .as_ref()
                    .map_or_else(null, |path| path.display().to_string()),
            ),
            row("ssl_session_cache", word(tls.session_cache)),
            row("ssl_kernel_tls", word(false)),
            row(
                "ssl_min_version",
                match tls.min_version {
                    MinVersion::V1_2 => "tlsv1.2".to_owned(),
                    MinVersion::V1_3 => "tlsv1.3".to_owned(),
                },
            ),
        ]);
    }
    if let Some(dry) = dry {
        rows.extend([
            row("dry_path", dry.folder.display().to_string()),
            row("dry_size", dry.size.0.to_string()),
            row("dry_ttl", dry.ttl.to_string()),
            row("dry_segment_size", dry.segment_bytes().to_string()),
            row("dry_index_size", tier.dry_index.0.to_string()),
            row(
                "dry_durability",
                format!("{:?}", dry.durability).to_lowercase(),
            ),
            row("tracking", tracking.backend.to_string()),
            row("tracking_rows", word(tracking.rows)),
        ]);
    }
    rows
}

//! stats and its kinds: memcached's names, and the tiers' own.

use std::sync::atomic::Ordering::Relaxed;

use tiercache_protocol::Reject;
use tiercache_protocol::encode::Statistics;
use tiercache_protocol::request::Form;

use super::settings::MEMCACHED_VERSION;
use super::{Executor, Flow, Progress};
use crate::tier::{Tier, TierStats};
use crate::watch::Kinds;

impl Executor {
    pub(super) fn stats(
        &mut self,
        arguments: &[u8],
        form: &Form<'_>,
        progress: &mut Progress,
        out: &mut Vec<u8>,
    ) -> Flow {
        let kind = arguments.split(|byte| *byte == b' ').next().unwrap_or(b"");
        let mut rows = Statistics::new(out, form);
        match kind {
            b"" => self.general_stats(&mut rows),
            b"settings" => {
                for (name, value) in &self.shared.settings.rows {
                    rows.row(name.as_bytes(), value.as_bytes());
                }
            }
            b"items" => self.item_stats(&mut rows),
            b"slabs" => self.slab_stats(&mut rows),
            b"detail" => {
                self.stats_detail(arguments, rows);
                return Flow::Done;
            }
            // Its answer is not made of statistics, and only text knows it.
            b"cachedump" if !matches!(form, Form::Binary(_)) => {
                return self.cachedump(arguments, progress, out);
            }
            b"sizes" => return self.sizes(form, progress, out),
            b"conns" => return self.connections(form, progress, out),
            b"upstream" => {
                if let Some(proxy) = &self.proxy {
                    proxy.stats(&mut rows);
                }
            }
            b"reset" => {
                self.shared.metrics.reset();
                self.shared.detail.clear();
                rows.end_or_line(b"RESET\r\n");
                return Flow::Done;
            }
            _ => {
                rows.reject(Reject::Unknown);
                return Flow::Done;
            }
        }
        rows.end();
        Flow::Done
    }

    fn stats_detail(&self, arguments: &[u8], rows: Statistics<'_>) {
        if !self.shared.settings.dump_enabled {
            return rows.refuse(b"CLIENT_ERROR stats detail not allowed\r\n");
        }
        let mut words = arguments
            .split(|byte| *byte == b' ')
            .filter(|word| !word.is_empty());
        match words.nth(1) {
            Some(b"on") => self.shared.watch.switch(Kinds::PREFIXES, true),
            Some(b"off") => self.shared.watch.switch(Kinds::PREFIXES, false),
            Some(b"dump") => {
                return rows.text(b"detailed", |out| self.shared.detail.dump(out));
            }
            _ => return rows.refuse(b"CLIENT_ERROR usage: stats detail on|off|dump\r\n"),
        }
        rows.end_or_line(b"OK\r\n");
    }

    fn general_stats(&self, rows: &mut Statistics<'_>) {
        let shared = &self.shared;
        let totals = shared.metrics.totals();
        let engine = shared.metrics.engine_totals();
        let server = &shared.metrics.server;
        let tiers = shared.cache.stats();
        let watch = shared.watch.stats();
        let usage = cpu_usage();
        rows.number(b"pid", u64::from(std::process::id()));
        rows.number(
            b"uptime",
            u64::from(self.now.saturating_sub(shared.metrics.started)),
        );
        rows.number(b"time", u64::from(self.now));
        rows.row(b"version", MEMCACHED_VERSION.as_bytes());
        rows.row(b"tiercache_version", env!("CARGO_PKG_VERSION").as_bytes());
        rows.number(b"pointer_size", u64::from(usize::BITS));
        rows.row(b"rusage_user", usage.0.as_bytes());
        rows.row(b"rusage_system", usage.1.as_bytes());
        let items = tiers.hot_items + tiers.cold_items + tiers.dry_items - tiers.clean_items;
        let figures: &[(&str, u64)] = &[
            ("max_connections", shared.settings.max_connections as u64),
            ("curr_connections", server.curr_connections.load(Relaxed)),
            ("total_connections", server.total_connections.load(Relaxed)),
            (
                "rejected_connections",
                server.rejected_connections.load(Relaxed),
            ),
            (
                "connection_structures",
                server.curr_connections.load(Relaxed),
            ),
            ("cmd_get", totals.cmd_get),
            ("cmd_set", totals.cmd_set),
            ("cmd_flush", totals.cmd_flush),
            ("cmd_touch", totals.cmd_touch),
            ("cmd_meta", totals.cmd_meta),
            ("get_hits", totals.get_hits),
            ("get_misses", totals.get_misses),
            ("get_expired", totals.get_expired),
            ("get_flushed", totals.get_flushed),
            ("delete_misses", totals.delete_misses),
            ("delete_hits", totals.delete_hits),
            ("incr_misses", totals.incr_misses),
            ("incr_hits", totals.incr_hits),
            ("decr_misses", totals.decr_misses),
            ("decr_hits", totals.decr_hits),
            ("cas_misses", totals.cas_misses),
            ("cas_hits", totals.cas_hits),
            ("cas_badval", totals.cas_badval),
            ("touch_hits", totals.touch_hits),
            ("touch_misses", totals.touch_misses),
            ("store_too_large", totals.store_too_large),
            ("store_no_memory", totals.store_no_memory),
            ("log_watchers", watch.watchers),
            ("log_watcher_sent", watch.sent),
            ("log_watcher_skipped", watch.skipped),
            ("auth_cmds", totals.auth_cmds),
            ("auth_errors", totals.auth_errors),
            ("idle_kicks", server.idle_kicks.load(Relaxed)),
            ("entry_kicks", server.entry_kicks.load(Relaxed)),
            ("stalled_kicks", server.stalled_kicks.load(Relaxed)),
            ("unread_kicks", server.unread_kicks.load(Relaxed)),
            ("connection_panics", server.panics.load(Relaxed)),
            ("bytes_read", totals.bytes_read),
            ("bytes_written", totals.bytes_written),
            ("limit_maxbytes", shared.cache.memory_limit() as u64),
            ("accepting_conns", 1),
            ("listen_disabled_num", 0),
            ("time_in_listen_disabled_us", 0),
            ("threads", shared.settings.threads as u64),
            ("conn_yields", totals.conn_yields),
            ("hash_bytes", tiers.index_bytes),
            ("bytes", tiers.hot_bytes + tiers.cold_bytes),
            ("curr_items", items),
            ("total_items", totals.total_items),
            ("expired_unfetched", engine.expired_unfetched),
            ("evicted_unfetched", engine.evicted_unfetched),
            ("evictions", engine.evictions),
            ("reclaimed", engine.reclaimed),
            ("hot_hits", totals.hot_hits),
            ("cold_hits", totals.cold_hits),
            ("dry_hits", totals.dry_hits),
            ("hot_items", tiers.hot_items),
            ("cold_items", tiers.cold_items),
            ("dry_items", tiers.dry_items),
            ("hot_bytes", tiers.hot_bytes),
            ("cold_bytes", tiers.cold_bytes),
            ("dry_bytes", tiers.dry.map_or(0, |dry| dry.live_bytes)),
            ("hot_evictions", engine.hot_evictions),
            ("cold_evictions", engine.cold_evictions),
            ("dry_evictions", engine.dry_evictions),
            ("evictions_lost", engine.evictions_lost),
            ("promotions", engine.promotions),
            ("demotions", engine.demotions),
            ("demote_dropped_admission", engine.demote_dropped_admission),
            ("demote_dropped_busy", engine.demote_dropped_busy),
            ("demote_dropped_behind", engine.demote_dropped_behind),
            ("demote_dropped_paused", engine.demote_dropped_paused),
            ("demote_dropped_failed", engine.demote_dropped_failed),
            ("demote_dropped_size", engine.demote_dropped_size),
            ("dried_ahead", engine.dried_ahead),
            ("store_waits", totals.store_waits),
            ("ram_segments", tiers.ram_segments),
            ("ram_segments_evicted", engine.segments_evicted),
            ("ram_segments_compacted", engine.segments_compacted),
            ("index_bytes", tiers.index_bytes),
            ("dry_index_bytes", tiers.dry_index_bytes),
            ("dry_misses_deadline", totals.dry_misses_deadline),
            ("dry_misses_queue", totals.dry_misses_queue),
            ("dry_misses_lost", totals.dry_misses_lost),
            ("dry_reads", engine.dry_reads),
            ("dry_read_errors", engine.dry_read_errors),
            ("dry_corrupt", engine.dry_corrupt),
            ("dry_other_key", engine.dry_other_key),
            ("dry_fetches_shared", engine.fetches_shared),
            ("dry_read_through", engine.dry_read_through),
        ];
        for (name, value) in figures {
            rows.number(name.as_bytes(), *value);
        }
        if shared.upstream.is_some() {
            for (name, value) in [
                ("migration_reads", totals.migration_reads),
                ("migration_hits", totals.migration_hits),
                ("migration_backfills", totals.migration_backfills),
                ("migration_raced", totals.migration_raced),
            ] {
                rows.number(name.as_bytes(), value);
            }
        }
        if let Some(tls) = &shared.tls {
            for (name, value) in [
                ("ssl_new_sessions", server.ssl_new_sessions.load(Relaxed)),
                (
                    "ssl_handshake_errors",
                    server.ssl_handshake_errors.load(Relaxed),
                ),
                ("ssl_proto_errors", server.ssl_proto_errors.load(Relaxed)),
                ("time_since_server_cert_refresh", tls.seconds_since_load()),
            ] {
                rows.number(name.as_bytes(), value);
            }
        }
        write_dry(rows, &tiers);
        rows.row(b"tier_state", tiers.tier_state.as_bytes());
    }

    /// The tiers as memcached's slab classes: hot is class 1, cold 2, dry 3.
    fn item_stats(&self, rows: &mut Statistics<'_>) {
        let engine = self.shared.metrics.engine_totals();
        for (tier, items, _, evictions) in self.classes() {
            if items == 0 {
                continue;
            }
            let class = tier.class();
            for (name, value) in [
                ("number", items),
                ("age", 0),
                ("evicted", evictions),
                ("evicted_nonzero", 0),
                ("evicted_time", 0),
                ("outofmemory", 0),
                ("tailrepairs", 0),
                (
                    "reclaimed",
                    if tier == Tier::Hot {
                        engine.reclaimed
                    } else {
                        0
                    },
                ),
                (
                    "expired_unfetched",
                    if tier == Tier::Hot {
                        engine.expired_unfetched
                    } else {
                        0
                    },
                ),
                (
                    "evicted_unfetched",
                    if tier == Tier::Hot {
                        engine.evicted_unfetched
                    } else {
                        0
                    },
                ),
            ] {
                rows.number(format!("items:{class}:{name}").as_bytes(), value);
            }
        }
    }

    fn slab_stats(&self, rows: &mut Statistics<'_>) {
        let mut active = 0;
        for (tier, items, bytes, _) in self.classes() {
            if items == 0 {
                continue;
            }
            active += 1;
            let class = tier.class();
            let pages = bytes.div_ceil(1 << 20);
            for (name, value) in [
                ("chunk_size", bytes / items.max(1)),
                ("chunks_per_page", items.div_ceil(pages.max(1))),
                ("total_pages", pages),
                ("total_chunks", items),
                ("used_chunks", items),
                ("free_chunks", 0),
                ("free_chunks_end", 0),
                ("mem_requested", bytes),
            ] {
                rows.number(format!("{class}:{name}").as_bytes(), value);
            }
        }
        rows.number(b"active_slabs", active);
        let tiers = self.shared.cache.stats();
        rows.number(
            b"total_malloced",
            tiers.hot_bytes + tiers.cold_bytes + tiers.index_bytes,
        );
    }

    /// Items, bytes and evictions by tier.
    fn classes(&self) -> [(Tier, u64, u64, u64); 3] {
        let tiers = self.shared.cache.stats();
        let engine = self.shared.metrics.engine_totals();
        let dry_bytes = tiers.dry.map_or(0, |dry| dry.live_bytes);
        [
            (
                Tier::Hot,
                tiers.hot_items,
                tiers.hot_bytes,
                engine.hot_evictions,
            ),
            (
                Tier::Cold,
                tiers.cold_items,
                tiers.cold_bytes,
                engine.cold_evictions,
            ),
            (Tier::Dry, tiers.dry_items, dry_bytes, engine.dry_evictions),
        ]
    }
}

fn write_dry(rows: &mut Statistics<'_>, tiers: &TierStats) {
    let dry = tiers.dry.unwrap_or_default();
    for (name, value) in [
        ("dry_queue_bytes", dry.queue_bytes),
        ("dry_puts", dry.puts),
        ("dry_writes", dry.writes),
        ("dry_write_bytes", dry.write_bytes),
        ("dry_disk_bytes", dry.bytes_on_disk),
        ("dry_segments_reclaimed", dry.reclaimed),
        ("dry_busy", dry.busy),
        ("dry_io_errors", dry.io_errors),
        ("journal_bytes", dry.journal_bytes),
        ("journal_kills", dry.journal_kills),
        ("journal_folds", dry.journal_folds),
        ("segments", dry.segments),
    ] {
        rows.number(name.as_bytes(), value);
    }
    // What a remote store is asked for is what it costs.
    let Some(remote) = dry.remote else { return };
    for (name, value) in [
        ("remote_puts", remote.puts),
        ("remote_put_bytes", remote.put_bytes),
        ("remote_gets", remote.gets),
        ("remote_get_bytes", remote.get_bytes),
        ("remote_lists", remote.lists),
        ("remote_deletes", remote.deletes),
        ("remote_errors", remote.errors),
        ("remote_orphans", remote.orphans),
        ("remote_shared_reads", remote.recent_hits),
        ("spool_segments", remote.backlog_segments),
        ("spool_bytes", remote.backlog_bytes),
        ("dry_behind", dry.behind),
    ] {
        rows.number(name.as_bytes(), value);
    }
}

/// User and system CPU time of the process, as `seconds.microseconds`.
fn cpu_usage() -> (String, String) {
    // Linux accounts in ticks of 10 ms here; /proc is the one source without `unsafe`.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .collect();
    let ticks = |place: usize| {
        fields
            .get(place)
            .and_then(|field| field.parse::<u64>().ok())
            .unwrap_or(0)
    };
    let text = |ticks: u64| format!("{}.{:06}", ticks / 100, ticks % 100 * 10_000);
    (text(ticks(11)), text(ticks(12)))
}

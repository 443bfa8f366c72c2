//! Counters: each worker adds to its own, readers sum them up.
//!
//! A [`Count`] has one writer, so adding is a plain load and store; a reader may miss the newest
//! few. Counters with several writers say so and use real atomic additions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

/// A counter that one thread adds to and any thread reads.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `n`. Only the counter's own thread may call it: additions of others could be lost.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Adds one; see [`Count::add`].
    #[inline]
    pub fn bump(&self) {
        self.add(1);
    }

    /// Adds `n` from any thread.
    #[inline]
    pub fn add_shared(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The present value.
    #[inline]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn reset(&self) {
        self.0.store(0, Relaxed);
    }
}

/// Declares a struct of counters with its sum and its reset.
macro_rules! counters {
    ($(#[$doc:meta])* $name:ident, $totals:ident { $($(#[$field_doc:meta])* $field:ident,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct $name { $($(#[$field_doc])* pub $field: Count,)* }

        /// Plain sums of the counters of the same name.
        #[derive(Debug, Default, Clone, Copy)]
        pub struct $totals { $($(#[$field_doc])* pub $field: u64,)* }

        impl $name {
            fn add_to(&self, totals: &mut $totals) {
                $(totals.$field = totals.$field.wrapping_add(self.$field.value());)*
            }

            fn reset(&self) {
                $(self.$field.reset();)*
            }
        }
    };
}

counters! {
    /// What one worker counts while it answers clients.
    Counters, Totals {
        /// Keys asked for by get commands.
        cmd_get,
        /// Store commands.
        cmd_set,
        /// flush_all commands.
        cmd_flush,
        /// touch and gat commands.
        cmd_touch,
        /// meta commands (mg ms md ma mn me).
        cmd_meta,
        /// Keys found.
        get_hits,
        /// Keys not found.
        get_misses,
        /// Keys found expired.
        get_expired,
        /// Keys found flushed.
        get_flushed,
        /// Deletes of present keys.
        delete_hits,
        /// Deletes of absent keys.
        delete_misses,
        /// incr of present keys.
        incr_hits,
        /// incr of absent keys.
        incr_misses,
        /// decr of present keys.
        decr_hits,
        /// decr of absent keys.
        decr_misses,
        /// cas that matched.
        cas_hits,
        /// cas of absent keys.
        cas_misses,
        /// cas with another CAS unique.
        cas_badval,
        /// touch of present keys.
        touch_hits,
        /// touch of absent keys.
        touch_misses,
        /// get hits answered from hot.
        hot_hits,
        /// get hits answered from cold.
        cold_hits,
        /// get hits that dry brought up.
        dry_hits,
        /// Fetches from dry that ended in a miss: deadline passed.
        dry_misses_deadline,
        /// Fetches from dry that ended in a miss: the fetch queue was full.
        dry_misses_queue,
        /// Fetches from dry that ended in a miss: the item was gone, unreadable or evicted again.
        dry_misses_lost,
        /// Keys that were looked up in the pool that they move from.
        migration_reads,
        /// Of these, the ones found there.
        migration_hits,
        /// Items brought from there.
        migration_backfills,
        /// Items that were changed or deleted while they were brought.
        migration_raced,
        /// Stores refused because the value is too large.
        store_too_large,
        /// Stores refused because memory is full.
        store_no_memory,
        /// Stores that waited for room.
        store_waits,
        /// Users and passwords that clients gave.
        auth_cmds,
        /// Of these, the wrong ones.
        auth_errors,
        /// Bytes received.
        bytes_read,
        /// Bytes sent.
        bytes_written,
        /// Times a connection gave up its turn to the others.
        conn_yields,
        /// Items stored since the start.
        total_items,
    }
}

counters! {
    /// What the engines count. Several threads add to these ([`Count::add_shared`]).
    Engine, EngineTotals {
        /// Items that left RAM while they were still valid, to dry or to nowhere.
        evictions,
        /// Items that left RAM for nowhere.
        evictions_lost,
        /// Items that left hot.
        hot_evictions,
        /// Items that left cold.
        cold_evictions,
        /// Items that left dry because their segment was reclaimed.
        dry_evictions,
        /// Items copied from a lower tier to a higher one.
        promotions,
        /// Items copied or moved from a higher tier to a lower one.
        demotions,
        /// Items whose space was reused after they expired or were flushed.
        reclaimed,
        /// Items that expired before any client fetched them.
        expired_unfetched,
        /// Items that left RAM before any client fetched them.
        evicted_unfetched,
        /// Items that left RAM and that dry did not admit.
        demote_dropped_admission,
        /// Demotions given up: the write queue of dry was full.
        demote_dropped_busy,
        /// Demotions given up: the remote store was behind and the spool full.
        demote_dropped_behind,
        /// Demotions given up: the disk was full.
        demote_dropped_paused,
        /// Demotions given up: dry has failed.
        demote_dropped_failed,
        /// Demotions given up: the item is larger than a dry segment.
        demote_dropped_size,
        /// Items dried while they stay in RAM.
        dried_ahead,
        /// RAM segments evicted.
        segments_evicted,
        /// RAM segments compacted.
        segments_compacted,
        /// Dry records that failed their checksum.
        dry_corrupt,
        /// Reads of dry that ended in an I/O error.
        dry_read_errors,
        /// Reads of dry that found another key (a tag collision).
        dry_other_key,
        /// Fetches that waited for another client's read of the same item.
        fetches_shared,
        /// Hits that dry answered without bringing the item up.
        dry_read_through,
        /// Reads of dry.
        dry_reads,
    }
}

/// Counters of the server itself. Several threads write them.
#[derive(Debug, Default)]
pub struct ServerCounters {
    /// Connections that are open.
    pub curr_connections: AtomicU64,
    /// Connections opened since the start.
    pub total_connections: AtomicU64,
    /// Connections refused over the limit.
    pub rejected_connections: AtomicU64,
    /// Connections closed because they were idle.
    pub idle_kicks: AtomicU64,
    /// Connections closed because they were not encrypted or authenticated in time.
    pub entry_kicks: AtomicU64,
    /// Connections closed because half a request was stalled for the longest time.
    pub stalled_kicks: AtomicU64,
    /// Connections closed because the client did not read its answers.
    pub unread_kicks: AtomicU64,
    /// Handshakes that failed.
    pub ssl_handshake_errors: AtomicU64,
    /// Encrypted connections that broke the protocol later.
    pub ssl_proto_errors: AtomicU64,
    /// Handshakes that resumed no session.
    pub ssl_new_sessions: AtomicU64,
    /// Panics caught in a connection.
    pub panics: AtomicU64,
}

/// All counters of the process.
#[derive(Debug, Default)]
pub struct Metrics {
    /// When the process started, in Unix seconds.
    pub started: u32,
    workers: Mutex<Vec<Arc<Counters>>>,
    /// The engines' counters.
    pub engine: Engine,
    /// The server's counters.
    pub server: ServerCounters,
}

impl Metrics {
    /// Counters of a process that starts now.
    pub fn starting_at(started: u32) -> Metrics {
        Metrics {
            started,
            ..Metrics::default()
        }
    }

    /// Counters for one more worker.
    pub fn worker(&self) -> Arc<Counters> {
        let counters = Arc::new(Counters::default());
        self.workers.lock().push(Arc::clone(&counters));
        counters
    }

    /// The sums over all workers.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for worker in self.workers.lock().iter() {
            worker.add_to(&mut totals);
        }
        totals
    }

    /// The engines' counters.
    pub fn engine_totals(&self) -> EngineTotals {
        let mut totals = EngineTotals::default();
        self.engine.add_to(&mut totals);
        totals
    }

    /// Sets the workers' and engines' counters back to zero, as `stats reset` does.
    pub fn reset(&self) {
        for worker in self.workers.lock().iter() {
            worker.reset();
        }
        self.engine.reset();
        self.server.total_connections.store(0, Relaxed);
        self.server.rejected_connections.store(0, Relaxed);
    }
}

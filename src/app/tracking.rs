//! Ties tracking to the dry tier: the two know nothing of each other.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;

use crate::clock::Clock;
use crate::dry::{Dry, SealedSegment};
use crate::entry::hash_key;
use crate::metrics::Metrics;
use crate::tier::Cache;
use crate::tracking::sled::SledTracker;
use crate::tracking::worker::Rebuild;
use crate::tracking::{
    Backend, RowPacker, Sealed, SegmentEntry, Start, Total, Totals, TrackedRow, Tracker,
    TrackingConfig, TrackingHandle, TrackingWorker,
};

/// How often totals are told.
pub(super) const TOTALS_INTERVAL: Duration = Duration::from_secs(60);

/// How long a stop waits for tracking; what is missing then is told again at the next start.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The dry tier's hooks, set before it loads; they tell nobody until [`Hooks::follow`].
pub(super) struct Hooks {
    handle: Arc<OnceLock<TrackingHandle>>,
}

impl Hooks {
    /// Sets the hooks; none if tracking is off.
    pub(super) fn set(dry: &Dry, config: &TrackingConfig) -> Option<Hooks> {
        if config.backend == Backend::Off {
            return None;
        }
        let handle = Arc::new(OnceLock::<TrackingHandle>::new());
        let (on_sealed, on_freed) = (Arc::clone(&handle), Arc::clone(&handle));
        dry.set_on_sealed(Box::new(move |segment| {
            if let Some(handle) = on_sealed.get() {
                tell_sealed(handle, segment);
            }
        }));
        dry.set_on_freed(Box::new(move |segment| {
            if let Some(handle) = on_freed.get() {
                handle.freed(segment);
            }
        }));
        Some(Hooks { handle })
    }

    /// Starts tracking. What was sealed or freed before is found by comparing.
    pub(super) fn follow(
        self,
        dry: &Arc<Dry>,
        dry_folder: &Path,
        config: &TrackingConfig,
    ) -> anyhow::Result<Follower> {
        let folder = config.folder(dry_folder);
        let resend_from = Arc::downgrade(dry);
        let worker = TrackingWorker::start(Start {
            // The seed is drawn anew for each store, so a hash under it tells stores apart.
            store: hash_key(dry.seed(), b"tracking"),
            live: dry.segments().into_iter().collect::<BTreeSet<_>>(),
            rows: config.rows,
            open: Box::new(move |rebuild| {
                let tracker = match rebuild {
                    Rebuild::No => SledTracker::open_or_rebuild(&folder)?,
                    Rebuild::Yes => SledTracker::rebuild(&folder)?,
                };
                Ok(Box::new(tracker) as Box<dyn Tracker>)
            }),
            resend: Box::new(move |segment| {
                if let Some(dry) = resend_from.upgrade() {
                    dry.resend(segment);
                }
            }),
        })
        .context("start tracking")?;
        // The hooks are this one's own, so nobody else can have set it.
        let _ = self.handle.set(worker.handle());
        Ok(Follower { worker })
    }
}

/// Tracking as it runs.
pub(super) struct Follower {
    worker: TrackingWorker,
}

impl Follower {
    /// Tells how much each tier holds.
    pub(super) fn totals(&self, cache: &Cache, metrics: &Metrics, clock: &Clock) {
        let stats = cache.stats();
        let hits = metrics.totals();
        let dry_bytes = stats.dry.as_ref().map_or(0, |dry| dry.live_bytes);
        let total = |name: &str, items, bytes, hits| Total {
            name: name.to_owned(),
            items,
            bytes,
            hits,
        };
        self.worker.handle().totals(Totals {
            at: clock.recent(),
            entries: vec![
                total("hot", stats.hot_items, stats.hot_bytes, hits.hot_hits),
                total("cold", stats.cold_items, stats.cold_bytes, hits.cold_hits),
                total("dry", stats.dry_items, dry_bytes, hits.dry_hits),
            ],
        });
    }

    /// Has each item that dry brings up told, so that its row shows when it was last wanted.
    pub(super) fn follow_accesses(&self, cache: &Cache, clock: &Arc<Clock>) {
        let (handle, clock) = (self.worker.handle(), Arc::clone(clock));
        cache.set_on_access(Box::new(move |place| {
            handle.accessed(place.segment, place.offset, 1, clock.recent());
        }));
    }

    /// Waits until the mirror has what was told so far; what it missed it asks dry for again, so dry
    /// must still be open.
    pub(super) fn catch_up(&self) {
        self.worker.handle().flush(CLOSE_TIMEOUT);
    }

    /// Brings the mirror up to date and closes it.
    pub(super) fn close(self) {
        if !self.worker.close(CLOSE_TIMEOUT) {
            tracing::info!("tracking is behind; the next start brings it up to date");
        }
    }
}

fn tell_sealed(handle: &TrackingHandle, segment: &SealedSegment<'_>) {
    let mut packer = RowPacker::default();
    let mut records = 0u32;
    let mut sealed = 0;
    if handle.wants_rows() {
        let packed = segment.for_each(&mut |row, key| {
            records += 1;
            sealed = sealed.max(row.created);
            let tracked = TrackedRow {
                key,
                offset: row.place.offset,
                bytes: row.bytes,
                version: row.version,
                created: row.created,
                last_access: row.last_access,
                exptime: row.exptime,
                hits: row.hits,
            };
            if let Err(error) = packer.push(&tracked) {
                tracing::warn!(%error, segment = segment.segment, "a row cannot be tracked");
            }
        });
        if let Err(error) = packed {
            tracing::warn!(%error, segment = segment.segment, "read the rows of a segment");
            return handle.unreadable(segment.segment);
        }
    }
    handle.sealed(Sealed {
        entry: SegmentEntry {
            segment: segment.segment,
            bytes: segment.bytes,
            records: u32::try_from(segment.rows).unwrap_or(u32::MAX),
            rows: 0,
            sealed,
        },
        rows: packer.finish(),
    });
}

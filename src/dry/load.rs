//! Loading: the live rows of all segments, from several threads at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use super::core::Core;
use super::dead::Dead;
use super::face::{LoadReport, Row};
use super::rows::Visitor;
use super::segment::Segment;
use crate::entry::{NEVER, expired};

/// What all threads of a load share.
struct Load<'a> {
    segments: &'a [Arc<Segment>],
    next: AtomicUsize,
    done: AtomicUsize,
    rows: AtomicU64,
    report: Mutex<LoadReport>,
    /// Segments that could not be read to their end.
    unreadable: Mutex<Vec<Arc<Segment>>>,
}

impl Core {
    /// About how many rows [`Core::load`] will find.
    pub(super) fn rows_expected(&self) -> u64 {
        let mut visitor = Visitor::new(self.salt, self.seed);
        let rows = |segment: &Arc<Segment>| {
            let told = visitor.rows_told(segment).unwrap_or_default();
            let dead = Dead::read(&self.folder, segment.id).map_or(0, |dead| dead.offsets.len());
            told.saturating_sub(dead as u64)
        };
        self.table.all().iter().map(rows).sum()
    }

    /// Loads all segments that were found at start; see [`super::Dry::load`].
    pub(super) fn load(
        &self,
        threads: usize,
        each: &(dyn Fn(&[Row]) + std::marker::Sync),
        progress: &dyn Fn(usize, usize, u64),
    ) -> LoadReport {
        let segments = self.table.all();
        let load = Load {
            segments: &segments,
            next: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            rows: AtomicU64::new(0),
            report: Mutex::default(),
            unreadable: Mutex::default(),
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.clamp(1, segments.len().max(1)) {
                scope.spawn(|| self.load_segments(&load, each, &|_, _, _| {}));
            }
            self.load_segments(&load, each, progress);
        });
        progress(segments.len(), segments.len(), load.rows.load(Relaxed));
        // A row that is on disk but not in the index could come back later, when its key has a newer
        // value that knows nothing of it: what could not be read must go for good.
        for segment in load.unreadable.into_inner() {
            tracing::warn!(
                segment = segment.id,
                "a segment that cannot be read is freed"
            );
            self.free(&segment, None);
        }
        let mut report = load.report.into_inner();
        report.segments = self.table.count() as usize;
        self.counters.corrupt.fetch_add(report.corrupt, Relaxed);
        self.reclaimer.look_soon();
        self.reclaimer.run(true);
        report
    }

    fn load_segments(
        &self,
        load: &Load<'_>,
        each: &(dyn Fn(&[Row]) + std::marker::Sync),
        progress: &dyn Fn(usize, usize, u64),
    ) {
        let mut visitor = Visitor::new(self.salt, self.seed);
        let mut report = LoadReport::default();
        let mut live = Vec::new();
        while let Some(segment) = load.segments.get(load.next.fetch_add(1, Relaxed)) {
            let rows_before = report.rows;
            if let Err(error) = self.load_segment(&mut visitor, segment, &mut report, &mut live) {
                self.counters.io_errors.fetch_add(1, Relaxed);
                tracing::warn!(segment = segment.id, %error, "a segment cannot be read");
                load.unreadable.lock().push(Arc::clone(segment));
                live.clear();
            }
            each(&live);
            live.clear();
            let rows = report.rows - rows_before;
            let all_rows = load.rows.fetch_add(rows, Relaxed) + rows;
            progress(
                load.done.fetch_add(1, Relaxed) + 1,
                load.segments.len(),
                all_rows,
            );
        }
        let mut sum = load.report.lock();
        sum.rows += report.rows;
        sum.bytes += report.bytes;
        sum.scanned += report.scanned;
        sum.killed += report.killed;
        sum.outdated += report.outdated;
        sum.corrupt += report.corrupt;
    }

    /// Adds a segment's live rows to `live`.
    fn load_segment(
        &self,
        visitor: &mut Visitor,
        segment: &Segment,
        report: &mut LoadReport,
        live: &mut Vec<Row>,
    ) -> std::io::Result<()> {
        let dead = Dead::read(&self.folder, segment.id)?;
        let fields = self.state.fields();
        let untimed = segment.id < fields.untimed_segment;
        let mut dead_offsets = dead.offsets.iter().copied().peekable();
        let (mut rows, mut bytes) = (0, 0);
        let visit = visitor.rows(segment, &mut |row| {
            // Both are sorted by offset.
            while dead_offsets
                .next_if(|offset| *offset < row.place.offset)
                .is_some()
            {}
            if dead.freed || dead_offsets.peek() == Some(&row.place.offset) {
                report.killed += 1;
            } else if row.version <= fields.flush_version
                || expired(row.exptime, self.wall_at_start)
                || untimed && row.exptime != NEVER
            {
                report.outdated += 1;
            } else {
                rows += 1;
                bytes += u64::from(row.bytes);
                live.push(*row);
            }
        })?;
        // Before anybody hears of the rows and may kill some.
        self.table.add_live(segment.id, rows);
        segment.set_summary(visit.summary);
        report.rows += rows as u64;
        report.bytes += bytes;
        report.scanned += usize::from(visit.scanned);
        report.corrupt += visit.corrupt;
        Ok(())
    }
}

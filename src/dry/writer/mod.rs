//! The open segment: records are copied into buffers, one thread writes the buffers in order.
//!
//! ```text
//! append ─▶ buffer ──full──▶ queue ─▶ dry-writer: pwrite ─▶ written += bytes, buffer to the pool
//!           └────────┴─────────┴── readable from memory until then
//! ```
//! A record gets its place when it is copied; the caller's index is switched to it under the writer lock.
//! Row tables and the footer travel the same way. Memory is bounded: a record that would take the
//! buffers over `queue_bytes` is refused as busy, unless nothing is queued at all (so that one larger
//! than the bound can pass); tables and footers, below 300 KiB, may pass the bound.

mod thread;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::core::{Core, Limits};
use super::face::{Append, NewRecord, OFFSET_UNIT_BYTES, Place, Row, TierState};
use super::folder::Sync;
use super::footer::FooterBuilder;
use super::record;
use super::segment::Segment;
use crate::entry::KEY_BYTES_MAX;
use crate::fault::Point;

/// Bytes of a buffer, where the queue's bound allows that.
const BUFFER_BYTES_MAX: usize = 256 << 10;
/// Empty buffers that are kept for reuse.
const POOL_BUFFERS_MAX: usize = 4;
/// The writer's side of a running tier.
pub(super) struct Writer {
    open: Mutex<Open>,
    /// Something was queued or the end has come.
    work: Condvar,
    /// A buffer was written or a segment freed.
    room: Condvar,
    pending_bytes: AtomicUsize,
    buffer_bytes: usize,
    queue_bytes_max: usize,
}

#[derive(Default)]
struct Open {
    segment: Option<Arc<Segment>>,
    next_segment: u32,
    /// Where the next byte of the segment goes.
    cursor: u64,
    footer: FooterBuilder,
    buffer: Option<Buffer>,
    queue: VecDeque<Arc<Chunk>>,
    /// Memory of `buffer` and `queue`.
    held_bytes: usize,
    pool: Vec<Box<[u8]>>,
    /// Something was appended since the last tick.
    appended: bool,
    end: Option<End>,
}

/// A buffer being filled.
struct Buffer {
    /// Where in the segment it begins.
    start: u64,
    bytes: Box<[u8]>,
    used: usize,
}

/// A buffer on its way to the device.
struct Chunk {
    segment: Arc<Segment>,
    buffer: Buffer,
    /// The segment is complete with it.
    seals: bool,
}

/// How the writer thread ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// When everything is written.
    Drain,
    /// At once.
    Abandon,
}

impl Writer {
    pub(super) fn new(limits: &Limits, next_segment: u32) -> Writer {
        let buffer_bytes = (limits.queue_bytes / 4).clamp(4096, BUFFER_BYTES_MAX);
        Writer {
            open: Mutex::new(Open {
                next_segment,
                ..Open::default()
            }),
            work: Condvar::new(),
            room: Condvar::new(),
            pending_bytes: AtomicUsize::new(0),
            buffer_bytes,
            queue_bytes_max: limits.queue_bytes,
        }
    }

    /// Bytes that wait for the device.
    pub(super) fn pending_bytes(&self) -> usize {
        self.pending_bytes.load(Relaxed)
    }

    /// Wakes all who wait for the writer: the state has changed.
    pub(super) fn wake_all(&self) {
        self.work.notify_all();
        self.room.notify_all();
    }

    /// Copies bytes that are not yet written to `out`, as many as `wanted` says of those that follow
    /// `at` in their buffer. `None` where they are not in a buffer (any more).
    pub(super) fn copy_buffered(
        &self,
        segment: u32,
        at: u64,
        wanted: impl FnOnce(&[u8]) -> usize,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        let open = self.open.lock();
        let within =
            |buffer: &Buffer| (buffer.start..buffer.start + buffer.used as u64).contains(&at);
        let copy = |buffer: &Buffer| {
            let bytes = &buffer.bytes[(at - buffer.start) as usize..buffer.used];
            let bytes = &bytes[..wanted(bytes).min(bytes.len())];
            if out.len() < bytes.len() {
                out.resize(bytes.len(), 0);
            }
            out[..bytes.len()].copy_from_slice(bytes);
            bytes.len()
        };
        if let (Some(open_segment), Some(buffer)) = (&open.segment, &open.buffer)
            && open_segment.id == segment
            && within(buffer)
        {
            return Some(copy(buffer));
        }
        let queued = open
            .queue
            .iter()
            .find(|chunk| chunk.segment.id == segment && within(&chunk.buffer))
            .cloned()?;
        drop(open);
        Some(copy(&queued.buffer))
    }
}

impl Core {
    /// Bytes of the largest record that a segment takes.
    fn record_bytes_max(&self) -> usize {
        self.limits.segment_bytes as usize - FooterBuilder::bytes_for_one(KEY_BYTES_MAX)
    }

    /// Appends a record; see [`super::Dry::append`].
    pub(super) fn append(
        &self,
        record: &NewRecord<'_>,
        fill: impl FnOnce(&mut [u8]),
        publish: impl FnOnce(Place, u32) -> bool,
    ) -> Append {
        let bytes = record::record_bytes(record.key_bytes, record.value_bytes, record.facts);
        if record.key_bytes > KEY_BYTES_MAX || bytes > self.record_bytes_max() {
            return Append::TooLarge;
        }
        match self.tier_state() {
            TierState::Ok | TierState::Degraded => {}
            TierState::Paused => return Append::Paused,
            TierState::Failed => return Append::Failed,
        }
        let mut open = self.writer.open.lock();
        if let Err(refused) = self.make_room(&mut open, bytes, record.key_bytes) {
            let counters = [
                (Append::Busy, &self.counters.busy),
                (Append::Behind, &self.counters.behind),
            ];
            for (_, counter) in counters.iter().filter(|(cause, _)| *cause == refused) {
                counter.fetch_add(1, Relaxed);
            }
            return refused;
        }
        let open = &mut *open;
        let (Some(segment), Some(buffer)) = (&open.segment, &mut open.buffer) else {
            return Append::Failed; // Not reached: there is room.
        };
        let place = Place {
            segment: segment.id,
            offset: (open.cursor / u64::from(OFFSET_UNIT_BYTES)) as u32,
        };
        let out = &mut buffer.bytes[buffer.used..buffer.used + bytes];
        record::write(out, self.salt, place, record, fill);
        // Until `used` is moved nothing has happened: a refusal (or a panic) leaves no trace.
        if !publish(place, bytes as u32) {
            return Append::Rejected;
        }
        let row = Row {
            place,
            bytes: bytes as u32,
            hash: record.hash,
            version: record.facts.version,
            exptime: record.facts.exptime,
            created: record.created,
            last_access: record.facts.last_access,
            hits: record.hits,
            rule: record.facts.rule,
            marks: record.facts.marks.bits(),
            key_bytes: record.key_bytes as u8,
        };
        open.footer.push(
            &row,
            &out[record::key_range(record.key_bytes, record.facts)],
        );
        buffer.used += bytes;
        open.cursor += bytes as u64;
        open.appended = true;
        segment.count(&row);
        self.table.add_live(place.segment, 1);
        self.writer.pending_bytes.fetch_add(bytes, Relaxed);
        Point::Published.pass();
        self.counters.writes.fetch_add(1, Relaxed);
        self.counters.write_bytes.fetch_add(bytes as u64, Relaxed);
        if open.footer.table_is_due() {
            self.push_table(open);
        }
        Append::Done(place)
    }

    /// Makes sure that there is an open segment and a buffer in it with room for a record.
    fn make_room(&self, open: &mut Open, bytes: usize, key_bytes: usize) -> Result<(), Append> {
        if open.end.is_some() {
            return Err(Append::Failed);
        }
        let behind = (bytes + open.footer.bytes_with(key_bytes)) as u64;
        if open.segment.is_some() && open.cursor + behind > self.limits.segment_bytes {
            self.seal(open);
        }
        if open.segment.is_none() {
            self.begin(open)?;
        }
        if open
            .buffer
            .as_ref()
            .is_some_and(|buffer| buffer.bytes.len() - buffer.used >= bytes)
        {
            return Ok(());
        }
        let capacity = self.writer.buffer_bytes.max(bytes);
        let unused = open
            .buffer
            .as_ref()
            .filter(|buffer| buffer.used == 0)
            .map_or(0, |buffer| buffer.bytes.len());
        if open.held_bytes - unused + capacity > self.writer.queue_bytes_max
            && !open.queue.is_empty()
        {
            return Err(Append::Busy);
        }
        self.hand_off(open, Seals::No);
        self.take_buffer(open, capacity);
        Ok(())
    }

    /// Begins a segment, in memory only: the writer thread makes its file.
    fn begin(&self, open: &mut Open) -> Result<(), Append> {
        if !self.segment_fits() {
            self.reclaimer.wake();
            return Err(Append::Busy);
        }
        if !self.spool_fits() {
            return Err(Append::Behind);
        }
        let Some(id) = self.table.free_id(open.next_segment) else {
            self.fail("segment ids are used up");
            return Err(Append::Failed);
        };
        open.next_segment = id + 1;
        // In the page cache is enough: after a loss of power the journal and the files tell the same.
        let _ = self
            .state
            .update(Sync::PageCache, |fields| fields.next_segment = id + 1);
        let segment = Arc::new(Segment::open(id, self.limits.segment_bytes));
        self.table.insert(Arc::clone(&segment));
        open.segment = Some(segment);
        open.cursor = 0;
        self.reclaimer.wake(); // The next one needs room.
        Ok(())
    }

    /// Whether the size limit allows one more segment.
    fn segment_fits(&self) -> bool {
        let segment_bytes = self.limits.segment_bytes;
        let reserve = self.reclaimer.reserve_bytes(segment_bytes);
        self.table.bytes() + segment_bytes + reserve <= self.limits.size
    }

    /// Whether the spool of a remote store has room for one more segment.
    fn spool_fits(&self) -> bool {
        let segment_bytes = self.limits.segment_bytes;
        let spool = self.spool.as_ref();
        spool.is_none_or(|spool| spool.has_room(segment_bytes))
    }

    fn take_buffer(&self, open: &mut Open, capacity: usize) {
        let pooled = if capacity == self.writer.buffer_bytes {
            open.pool.pop()
        } else {
            None
        };
        let bytes = pooled.unwrap_or_else(|| vec![0; capacity].into_boxed_slice());
        open.held_bytes += bytes.len();
        open.buffer = Some(Buffer {
            start: open.cursor,
            bytes,
            used: 0,
        });
    }

    /// Queues the buffer, or puts it back if it is empty.
    fn hand_off(&self, open: &mut Open, seals: Seals) {
        let Some(buffer) = open.buffer.take() else {
            return;
        };
        match &open.segment {
            Some(segment) if buffer.used > 0 => {
                let chunk = Chunk {
                    segment: Arc::clone(segment),
                    buffer,
                    seals: seals == Seals::Yes,
                };
                open.queue.push_back(Arc::new(chunk));
                self.writer.work.notify_one();
            }
            _ => {
                open.held_bytes -= buffer.bytes.len();
                self.recycle(open, buffer.bytes);
            }
        }
    }

    fn recycle(&self, open: &mut Open, bytes: Box<[u8]>) {
        if bytes.len() == self.writer.buffer_bytes && open.pool.len() < POOL_BUFFERS_MAX {
            open.pool.push(bytes);
        }
    }

    /// Appends a table or a footer.
    fn push_block(&self, open: &mut Open, block: &[u8]) {
        if open
            .buffer
            .as_ref()
            .is_none_or(|buffer| buffer.bytes.len() - buffer.used < block.len())
        {
            self.hand_off(open, Seals::No);
            self.take_buffer(open, self.writer.buffer_bytes.max(block.len()));
        }
        if let Some(buffer) = &mut open.buffer {
            buffer.bytes[buffer.used..buffer.used + block.len()].copy_from_slice(block);
            buffer.used += block.len();
            open.cursor += block.len() as u64;
            self.writer.pending_bytes.fetch_add(block.len(), Relaxed);
        }
    }

    fn push_table(&self, open: &mut Open) {
        let Some(id) = open.segment.as_ref().map(|segment| segment.id) else {
            return;
        };
        let place = Place {
            segment: id,
            offset: (open.cursor / u64::from(OFFSET_UNIT_BYTES)) as u32,
        };
        if let Some(table) = open.footer.table(self.salt, place) {
            self.push_block(open, &table);
        }
    }

    /// Completes the open segment. One without records just goes.
    fn seal(&self, open: &mut Open) {
        let Some(segment) = open.segment.clone() else {
            return;
        };
        if open.cursor == 0 {
            self.hand_off(open, Seals::No);
            open.segment = None;
            self.table.remove(segment.id);
            return;
        }
        self.push_table(open);
        let place = Place {
            segment: segment.id,
            offset: (open.cursor / u64::from(OFFSET_UNIT_BYTES)) as u32,
        };
        let footer = open.footer.finish(self.salt, place);
        self.push_block(open, &footer);
        self.table.shrink(&segment, open.cursor);
        self.hand_off(open, Seals::Yes);
        open.segment = None;
    }

    /// Seals the open segment, then runs `then` with the id of the segment that comes next, all under the
    /// writer lock.
    pub(super) fn seal_then<T>(&self, then: impl FnOnce(u32) -> T) -> T {
        let mut open = self.writer.open.lock();
        self.seal(&mut open);
        then(open.next_segment)
    }

    /// Queues a partly filled buffer.
    pub(super) fn flush_buffers(&self) {
        self.hand_off(&mut self.writer.open.lock(), Seals::No);
    }

    /// Once a second: queues a buffer that nobody appends to, then gives spare buffers back. Never waits
    /// for the lock: whoever holds it may be waiting for the keeper's thread to make a journal file ready.
    pub(super) fn tick_writer(&self) {
        let Some(mut open) = self.writer.open.try_lock() else {
            return;
        };
        if !std::mem::take(&mut open.appended) {
            self.hand_off(&mut open, Seals::No);
            open.pool.clear();
        }
    }

    /// Waits until an append has a chance again; see [`super::Dry::wait_for_room`].
    pub(super) fn wait_for_room(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut open = self.writer.open.lock();
        loop {
            if self.tier_state() == TierState::Failed || open.end.is_some() {
                return false;
            }
            if self.has_room(&open) {
                return true;
            }
            if self.writer.room.wait_until(&mut open, deadline).timed_out() {
                return self.has_room(&open);
            }
        }
    }

    fn has_room(&self, open: &Open) -> bool {
        // A quarter, not just a buffer: whoever waited for a large record should not find too little.
        let wanted = self
            .writer
            .buffer_bytes
            .max(self.writer.queue_bytes_max / 4);
        let queue =
            open.held_bytes + wanted <= self.writer.queue_bytes_max || open.queue.is_empty();
        self.tier_state() == TierState::Ok
            && queue
            && (open.segment.is_some() || self.segment_fits() && self.spool_fits())
    }

    /// Ends the writer thread, and all appends.
    pub(super) fn end_writer(&self, end: End) {
        let mut open = self.writer.open.lock();
        if end == End::Drain {
            self.seal(&mut open);
        }
        open.end = Some(end);
        drop(open);
        self.writer.wake_all();
    }

    /// Forgets everything that is not written: the tier has failed.
    pub(super) fn drop_buffers(&self) {
        let mut open = self.writer.open.lock();
        *open = Open {
            next_segment: open.next_segment,
            end: Some(End::Abandon),
            ..Open::default()
        };
        self.writer.pending_bytes.store(0, Relaxed);
    }

    /// Tells those who wait that a segment was freed, or left the spool.
    pub(super) fn segment_was_freed(&self) {
        drop(self.writer.open.lock()); // Nobody is between looking and waiting now.
        self.writer.room.notify_all();
    }

    /// Whether everything appended is written.
    pub(super) fn drained(&self) -> bool {
        let open = self.writer.open.lock();
        open.queue.is_empty() && open.buffer.is_none()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seals {
    Yes,
    No,
}

//! Reading one record: from a write buffer, the page cache or the device, and verified.

use std::io;
use std::sync::atomic::Ordering::Relaxed;

use super::core::Core;
use super::face::{Place, Read, ReadMode, TierState};
use super::hooks::Record;
use super::record::{self, Header};
use super::segment::Segment;
use crate::fault::{self, Mutant};

/// What was found at a place.
enum Loaded {
    /// This many bytes are in the buffer.
    Bytes(usize),
    WouldBlock,
    Gone,
}

impl Core {
    /// Reads a record; see [`super::Dry::read`].
    pub(super) fn read(
        &self,
        place: Place,
        hint: usize,
        key: &[u8],
        mode: ReadMode,
        buffer: &mut Vec<u8>,
    ) -> Read {
        let Some(segment) = self.live_segment(place) else {
            return Read::Gone;
        };
        let mut found = self.read_record(&segment, place, hint, mode, buffer);
        if matches!(found, Ok(Err(Read::Corrupt))) && self.may_differ(&segment, place) {
            found = self.read_record(&segment, place, hint, mode, buffer);
        }
        let read = match found {
            Ok(Ok(header)) if buffer[header.key()] == *key || Mutant::CompareNoKey.is_on() => {
                self.counters.reads.fetch_add(1, Relaxed);
                let bytes = header.record_bytes() as u32;
                return Read::Hit {
                    facts: header.facts,
                    value: header.value(),
                    bytes,
                };
            }
            Ok(Ok(_)) => Read::OtherKey,
            Ok(Err(missed)) => missed,
            // The object is gone for good: whatever was in it is lost.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Read::Corrupt,
            Err(error) => Read::Error(error),
        };
        match &read {
            Read::WouldBlock => self.counters.would_block.fetch_add(1, Relaxed),
            Read::Corrupt => self.counters.corrupt.fetch_add(1, Relaxed),
            Read::Error(_) => self.counters.io_errors.fetch_add(1, Relaxed),
            _ => 0,
        };
        read
    }

    /// The version of the record at a place; see [`super::Dry::record_version`].
    pub(super) fn record_version(&self, place: Place) -> Option<u64> {
        let mut buffer = Vec::new();
        Some(self.record(place, 0, &mut buffer)?.facts.version)
    }

    /// The record at a place; see [`super::Dry::record`].
    pub(super) fn record<'b>(
        &self,
        place: Place,
        hint: usize,
        buffer: &'b mut Vec<u8>,
    ) -> Option<Record<'b>> {
        self.record_in(&*self.live_segment(place)?, place, hint, buffer)
    }

    /// The record at a place of a segment that is at hand, one that is being freed too.
    pub(super) fn record_in<'b>(
        &self,
        segment: &Segment,
        place: Place,
        hint: usize,
        buffer: &'b mut Vec<u8>,
    ) -> Option<Record<'b>> {
        let header = self
            .read_record(segment, place, hint, ReadMode::Blocking, buffer)
            .ok()?
            .ok()?;
        Some(Record {
            facts: header.facts,
            key: &buffer[header.key()],
            value: &buffer[header.value()],
        })
    }

    /// Whether bytes that were damaged may be sound when they are read again.
    fn may_differ(&self, segment: &Segment, place: Place) -> bool {
        let file = segment.file();
        file.is_some_and(|file| file.may_differ(place.byte()))
    }

    /// Fetches what several records of one segment lie in; see [`super::Dry::prefetch`].
    pub(super) fn prefetch(&self, first: Place, bytes: usize) {
        let Some(segment) = self.live_segment(first) else {
            return;
        };
        if let Some(file) = segment.file()
            && let Err(error) = file.prefetch(first.byte(), bytes)
        {
            // Each record is read alone then, and says what is wrong.
            tracing::debug!(segment = segment.id, %error, "a range was not fetched ahead");
        }
    }

    fn live_segment(&self, place: Place) -> Option<std::sync::Arc<Segment>> {
        if place.segment < self.state.flush_segment() || self.tier_state() == TierState::Failed {
            return None;
        }
        self.table.get(place.segment)
    }

    /// Reads and verifies a record, which lies at the buffer's start then.
    fn read_record(
        &self,
        segment: &Segment,
        place: Place,
        hint: usize,
        mode: ReadMode,
        buffer: &mut Vec<u8>,
    ) -> io::Result<Result<Header, Read>> {
        // A record cannot reach over its segment's end.
        let written = segment.written();
        let bytes_max =
            (self.limits.segment_bytes.max(written) - place.byte().min(written)) as usize;
        let hint = if hint == 0 { record::READ_BYTES } else { hint };
        let mut wanted = hint.min(bytes_max).max(record::HEADER_BYTES);
        loop {
            let loaded = match self.load_bytes(segment, place, wanted, mode, buffer)? {
                Loaded::Bytes(bytes) => bytes,
                Loaded::WouldBlock => return Ok(Err(Read::WouldBlock)),
                Loaded::Gone => return Ok(Err(Read::Gone)),
            };
            let Some(header) = Header::parse(&buffer[..loaded]) else {
                return Ok(Err(Read::Corrupt));
            };
            let bytes = header.record_bytes();
            if bytes <= loaded || header.value().end <= loaded {
                let sound = header.verify(&buffer[..loaded], self.salt, place);
                // Parsed again: the own CAS may have come with the second read.
                return Ok(if sound {
                    Ok(header)
                } else {
                    Err(Read::Corrupt)
                });
            }
            // Its lengths are rotten if they reach beyond that, or beyond what a whole read found.
            if bytes <= wanted || bytes > bytes_max {
                return Ok(Err(Read::Corrupt));
            }
            wanted = bytes;
        }
    }

    fn load_bytes(
        &self,
        segment: &Segment,
        place: Place,
        wanted: usize,
        mode: ReadMode,
        buffer: &mut Vec<u8>,
    ) -> io::Result<Loaded> {
        if place.byte() >= segment.written() {
            let whole =
                |bytes: &[u8]| Header::parse(bytes).map_or(wanted, |header| header.record_bytes());
            if let Some(bytes) = self
                .writer
                .copy_buffered(segment.id, place.byte(), whole, buffer)
            {
                return Ok(Loaded::Bytes(bytes));
            }
            // It was written in between, else it never existed.
            if place.byte() >= segment.written() {
                return Ok(Loaded::Gone);
            }
        }
        let Some(file) = segment.file() else {
            return Ok(Loaded::Gone);
        };
        if buffer.len() < wanted {
            buffer.resize(wanted, 0);
        }
        let out = &mut buffer[..wanted];
        if fault::reads_are_slow() {
            if mode == ReadMode::Cached {
                return Ok(Loaded::WouldBlock);
            }
            fault::read_slowly();
        }
        match mode {
            ReadMode::Blocking => Ok(Loaded::Bytes(file.read_range(place.byte(), out)?)),
            ReadMode::Cached => Ok(file
                .read_cached(place.byte(), out)?
                .map_or(Loaded::WouldBlock, Loaded::Bytes)),
        }
    }
}

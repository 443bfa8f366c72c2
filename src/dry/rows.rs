//! The rows of a sealed segment: from its tables, or from its records where those are missing or bad.
//!
//! Any record that verifies counts: the checksum holds the store's salt and the place, so no bytes of a
//! value can pass for one, and what is dead is known by place, whatever the order of the file.

use std::io;
use std::ops::Range;

use super::face::{OFFSET_UNIT_BYTES, Place, Row};
use super::footer::{self, Footer, Summary, TAIL_BYTES, Table};
use super::record::{HEADER_BYTES, Header};
use super::segment::Segment;
use super::store::SegmentFile;
use crate::entry::{HashSeed, hash_key};

/// Bytes that a scan reads at once.
const SCAN_BYTES: usize = 1 << 20;
/// Beginnings that look like a record and are none, until a scan gives its range up: each may cost the
/// checksum of a whole segment.
const FALSE_STARTS_MAX: u32 = 64;

/// What a visit met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Visit {
    /// Sums over the rows visited.
    pub(super) summary: Summary,
    /// The footer or a table was missing or bad.
    pub(super) scanned: bool,
    /// Runs of bytes that were no record.
    pub(super) corrupt: u64,
}

/// Visits the rows of one segment after another, with the same memory.
pub(super) struct Visitor {
    salt: u32,
    seed: HashSeed,
    buffer: Vec<u8>,
    /// Bytes of the segment that is visited.
    end: u64,
}

/// Whether keys are read as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keys {
    Skip,
    Read,
}

impl Visitor {
    pub(super) fn new(salt: u32, seed: HashSeed) -> Visitor {
        Visitor {
            salt,
            seed,
            buffer: Vec::new(),
            end: 0,
        }
    }

    /// Visits all rows in the order of their offsets.
    pub(super) fn rows(
        &mut self,
        segment: &Segment,
        each: &mut dyn FnMut(&Row),
    ) -> io::Result<Visit> {
        self.visit(segment, Keys::Skip, &mut |row, _| each(row))
    }

    /// Visits all rows and their keys.
    pub(super) fn rows_and_keys(
        &mut self,
        segment: &Segment,
        each: &mut dyn FnMut(&Row, &[u8]),
    ) -> io::Result<Visit> {
        self.visit(segment, Keys::Read, each)
    }

    fn visit(
        &mut self,
        segment: &Segment,
        keys: Keys,
        each: &mut dyn FnMut(&Row, &[u8]),
    ) -> io::Result<Visit> {
        let Some(file) = segment.file() else {
            return Ok(Visit::default());
        };
        let (file, id, end) = (file.as_ref(), segment.id, segment.written());
        let Some(footer) = self.footer(file, id, end)? else {
            let mut visit = Visit {
                scanned: true,
                ..Visit::default()
            };
            // A corrupt end is only a write that was cut short: an unfinished segment has one.
            let _ = self.scan(file, id, 0..end, &mut visit, each)?;
            return Ok(visit);
        };
        let mut visit = Visit::default();
        // Where the records that the next table describes begin.
        let mut start = 0;
        for (place, rows) in footer.tables {
            match self.table(file, place, rows, keys, &mut visit, each)? {
                Some(bytes) => start = place.byte() + bytes as u64,
                None => {
                    visit.scanned = true;
                    let end = self.scan(file, id, start..place.byte(), &mut visit, each)?;
                    visit.corrupt += u64::from(end == ScanEnd::Corrupt);
                    start = place.byte();
                }
            }
        }
        Ok(visit)
    }

    /// How many rows a segment's footer tells of, dead ones too; 0 where it is missing or bad.
    pub(super) fn rows_told(&mut self, segment: &Segment) -> io::Result<u64> {
        let Some(file) = segment.file() else {
            return Ok(0);
        };
        let footer = self.footer(file.as_ref(), segment.id, segment.written())?;
        let tables = footer.iter().flat_map(|footer| &footer.tables);
        Ok(tables.map(|(_, rows)| u64::from(*rows)).sum())
    }

    /// Where the tables and the footer lie, in order; `None` where one of them is missing or bad.
    pub(super) fn kept_ranges(&mut self, segment: &Segment) -> io::Result<Option<Vec<Range<u64>>>> {
        let Some(file) = segment.file() else {
            return Ok(None);
        };
        let (file, end) = (file.as_ref(), segment.written());
        let Some(footer) = self.footer(file, segment.id, end)? else {
            return Ok(None);
        };
        let mut ranges = Vec::with_capacity(footer.tables.len() + 1);
        let footer_start = end - footer.bytes_on_disk() as u64;
        for (place, rows) in footer.tables {
            let table = self.table(
                file,
                place,
                rows,
                Keys::Skip,
                &mut Visit::default(),
                &mut |_, _| {},
            )?;
            let Some(bytes) = table else {
                return Ok(None);
            };
            ranges.push(place.byte()..place.byte() + bytes as u64);
        }
        ranges.push(footer_start..end);
        Ok(Some(ranges))
    }

    fn fill(&mut self, file: &dyn SegmentFile, at: u64, bytes: usize) -> io::Result<usize> {
        // What a table or a record says of its own size costs no more memory than the segment has.
        let bytes = bytes.min(self.end.saturating_sub(at) as usize);
        if self.buffer.len() < bytes {
            self.buffer.resize(bytes, 0);
        }
        file.read_range(at, &mut self.buffer[..bytes])
    }

    fn footer(&mut self, file: &dyn SegmentFile, id: u32, end: u64) -> io::Result<Option<Footer>> {
        self.end = end;
        let mut tail = TAIL_BYTES.min(end as usize);
        for _ in 0..2 {
            let start = end - tail as u64;
            if self.fill(file, start, tail)? < tail {
                return Ok(None);
            }
            match Footer::bytes(&self.buffer[..tail]) {
                Some(bytes) if bytes <= tail => {
                    let footer = &self.buffer[tail - bytes..tail];
                    return Ok(Footer::decode(footer, self.salt, id, end - bytes as u64));
                }
                Some(bytes) if bytes as u64 <= end => tail = bytes,
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Visits a table's rows; its bytes, or `None` where it is bad.
    fn table(
        &mut self,
        file: &dyn SegmentFile,
        place: Place,
        rows: u32,
        keys: Keys,
        visit: &mut Visit,
        each: &mut dyn FnMut(&Row, &[u8]),
    ) -> io::Result<Option<usize>> {
        let mut filled = self.fill(file, place.byte(), footer::rows_bytes(rows))?;
        let Some(table) = Table::decode(&self.buffer[..filled], self.salt, place) else {
            return Ok(None);
        };
        let bytes = table.bytes();
        if keys == Keys::Skip {
            for row in table.rows() {
                visit.summary.count(&row);
                each(&row, &[]);
            }
            return Ok(Some(bytes));
        }
        filled = self.fill(file, place.byte(), bytes)?;
        let whole = &self.buffer[..filled];
        let Some(table) = Table::decode(whole, self.salt, place) else {
            return Ok(None);
        };
        let Some(mut rest) = table.keys(whole) else {
            return Ok(None);
        };
        for row in table.rows() {
            let (key, others) = rest.split_at(usize::from(row.key_bytes));
            rest = others;
            visit.summary.count(&row);
            each(&row, key);
        }
        Ok(Some(bytes))
    }

    /// Visits the sound records of a range, and counts the corrupt runs that something sound follows.
    fn scan(
        &mut self,
        file: &dyn SegmentFile,
        id: u32,
        range: Range<u64>,
        visit: &mut Visit,
        each: &mut dyn FnMut(&Row, &[u8]),
    ) -> io::Result<ScanEnd> {
        let mut window = Window {
            start: range.start,
            filled: 0,
        };
        let mut at = range.start;
        let mut false_starts = 0;
        let mut in_corrupt_run = false;
        while at + HEADER_BYTES as u64 <= range.end {
            let place = Place {
                segment: id,
                offset: (at / u64::from(OFFSET_UNIT_BYTES)) as u32,
            };
            let found = self.item_at(file, &mut window, place, range.end)?;
            match found {
                Item::Record(header) => {
                    let bytes = &self.buffer[(at - window.start) as usize..];
                    let key = &bytes[header.key()];
                    let row = Row {
                        place,
                        bytes: header.record_bytes() as u32,
                        hash: hash_key(self.seed, key),
                        version: header.facts.version,
                        exptime: header.facts.exptime,
                        created: header.created,
                        last_access: header.facts.last_access,
                        hits: header.hits,
                        rule: header.facts.rule,
                        marks: header.facts.marks.bits(),
                        key_bytes: key.len() as u8,
                    };
                    visit.summary.count(&row);
                    each(&row, key);
                    at += u64::from(row.bytes);
                    visit.corrupt += u64::from(std::mem::take(&mut in_corrupt_run));
                }
                Item::Table(bytes) => {
                    at += bytes as u64;
                    visit.corrupt += u64::from(std::mem::take(&mut in_corrupt_run));
                }
                Item::Footer => break,
                other => {
                    in_corrupt_run = true;
                    false_starts += u32::from(matches!(other, Item::FalseStart));
                    if false_starts > FALSE_STARTS_MAX {
                        break;
                    }
                    at += u64::from(OFFSET_UNIT_BYTES);
                }
            }
        }
        Ok(if in_corrupt_run {
            ScanEnd::Corrupt
        } else {
            ScanEnd::Sound
        })
    }

    fn item_at(
        &mut self,
        file: &dyn SegmentFile,
        window: &mut Window,
        place: Place,
        end: u64,
    ) -> io::Result<Item> {
        let salt = self.salt;
        let rest = (end - place.byte()) as usize;
        let bytes = self.window(file, window, place.byte(), HEADER_BYTES, end)?;
        if let Some(header) = Header::parse(bytes) {
            // The file may end within the zeros that fill the record up.
            let needed = header.value().end;
            if needed > rest {
                return Ok(Item::FalseStart);
            }
            let bytes = self.window(
                file,
                window,
                place.byte(),
                header.record_bytes().min(rest),
                end,
            )?;
            // Again, because the own CAS may have been beyond what was looked at.
            return Ok(match Header::parse(bytes) {
                Some(header) if header.verify(bytes, salt, place) => Item::Record(header),
                _ => Item::FalseStart,
            });
        }
        if footer::is_footer(bytes) {
            return Ok(Item::Footer);
        }
        let Some(needed) = footer::table_bytes_of(bytes) else {
            return Ok(Item::Nothing);
        };
        if needed > rest {
            return Ok(Item::FalseStart);
        }
        let bytes = self.window(file, window, place.byte(), needed, end)?;
        Ok(match Table::decode(bytes, salt, place) {
            Some(table) if table.bytes() <= needed => Item::Table(table.bytes()),
            _ => Item::FalseStart,
        })
    }

    /// The bytes from `at` on, at least `needed` of them if the file has them.
    fn window(
        &mut self,
        file: &dyn SegmentFile,
        window: &mut Window,
        at: u64,
        needed: usize,
        end: u64,
    ) -> io::Result<&[u8]> {
        let skip = (at - window.start) as usize;
        if skip + needed > window.filled {
            let bytes = needed.max(SCAN_BYTES).min((end - at) as usize);
            let filled = self.fill(file, at, bytes)?;
            *window = Window { start: at, filled };
            return Ok(&self.buffer[..filled]);
        }
        Ok(&self.buffer[skip..window.filled])
    }
}

/// Which bytes of the file the buffer holds.
struct Window {
    start: u64,
    filled: usize,
}

/// What a scan's range ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ScanEnd {
    Sound,
    Corrupt,
}

/// What a scan found at a place.
enum Item {
    Record(Header),
    Table(usize),
    Footer,
    /// Looks like something and does not verify.
    FalseStart,
    Nothing,
}

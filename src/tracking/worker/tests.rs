//! The tracking thread against mirrors that fail, hang and panic.

use std::sync::{OnceLock, mpsc};

use super::super::memory::MemoryTracker;
use super::super::rows::tests::{pack, typical, unpack};
use super::super::{Chunk, Total};
use super::*;

/// Longer than any wait here should take; a test that gets to it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the next commit does.
#[derive(Default)]
enum Fault {
    #[default]
    None,
    Error,
    Panic,
    PanicAlways,
}

/// A mirror that the test can see into and make fail.
#[derive(Clone, Default)]
struct Glass(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
    tracker: MemoryTracker,
    fault: Fault,
}

impl Tracker for Glass {
    fn adopt(&mut self, store: StoreId) -> Result<(), TrackError> {
        self.0.lock().tracker.adopt(store)
    }
    fn segments(&self, each: &mut dyn FnMut(SegmentEntry)) -> Result<(), TrackError> {
        self.0.lock().tracker.segments(each)
    }
    fn commit(&mut self, segment: &SegmentEntry, rows: &PackedRows) -> Result<(), TrackError> {
        let mut glass = self.0.lock();
        match glass.fault {
            Fault::None => return glass.tracker.commit(segment, rows),
            Fault::PanicAlways => panic!("the backend panics, as the test told it"),
            Fault::Panic => {
                glass.fault = Fault::None;
                panic!("the backend panics once, as the test told it")
            }
            Fault::Error => glass.fault = Fault::None,
        }
        Err(TrackError::backend("commit", "as the test told it"))
    }
    fn forget(&mut self, segment: u32) -> Result<(), TrackError> {
        self.0.lock().tracker.forget(segment)
    }
    fn chunks(&self, segment: u32, each: &mut dyn FnMut(&Chunk)) -> Result<(), TrackError> {
        self.0.lock().tracker.chunks(segment, each)
    }
    fn chunk_at(&self, segment: u32, offset: u32) -> Result<Option<Chunk>, TrackError> {
        self.0.lock().tracker.chunk_at(segment, offset)
    }
    fn put_chunks(&mut self, segment: u32, chunks: &[Chunk]) -> Result<(), TrackError> {
        self.0.lock().tracker.put_chunks(segment, chunks)
    }
    fn put_totals(&mut self, totals: &Totals) -> Result<(), TrackError> {
        self.0.lock().tracker.put_totals(totals)
    }
    fn totals(&self) -> Result<Option<Totals>, TrackError> {
        self.0.lock().tracker.totals()
    }
    fn flush(&mut self) -> Result<(), TrackError> {
        self.0.lock().tracker.flush()
    }
}

impl Glass {
    fn ids(&self) -> Vec<u32> {
        let mut ids = Vec::new();
        self.segments(&mut |entry| ids.push(entry.segment)).unwrap();
        ids
    }

    fn set(&self, fault: Fault) {
        self.0.lock().fault = fault;
    }

    /// A worker on this mirror; dry has `live`.
    fn start(&self, live: &[u32]) -> TrackingWorker {
        self.start_with_rows(live, true)
    }

    fn start_with_rows(&self, live: &[u32], rows: bool) -> TrackingWorker {
        let glass = self.clone();
        start(live, rows, move |rebuild| {
            if rebuild == Rebuild::Yes {
                glass.0.lock().tracker = MemoryTracker::default();
            }
            Ok(Box::new(glass.clone()))
        })
    }
}

/// A worker on what `open` gives; dry has `live` and answers when it is asked for one of them.
fn start(
    live: &[u32],
    rows: bool,
    open: impl FnMut(Rebuild) -> Result<Box<dyn Tracker>, TrackError> + Send + 'static,
) -> TrackingWorker {
    let handle = Arc::new(OnceLock::<TrackingHandle>::new());
    let dry = Arc::clone(&handle);
    let live = live.iter().copied().collect();
    let resend = Box::new(move |segment| dry.wait().sealed(sealed(segment)));
    let start = Start {
        store: 1,
        live,
        rows,
        open: Box::new(open),
        resend,
    };
    let worker = TrackingWorker::start(start).unwrap();
    assert!(handle.set(worker.handle()).is_ok());
    worker
}

fn sealed(segment: u32) -> Sealed {
    let entry = SegmentEntry {
        segment,
        records: 100,
        rows: 100,
        ..SegmentEntry::default()
    };
    Sealed {
        entry,
        rows: pack(&typical(100)),
    }
}

/// As large as the bound, alone.
fn large(segment: u32) -> Sealed {
    let mut large = sealed(segment);
    large.rows.chunks[0].bytes.resize(WAITING_BYTES_MAX, 0);
    large
}

#[test]
fn what_dry_tells_is_mirrored() {
    let glass = Glass::default();
    let worker = glass.start(&[]);
    let handle = worker.handle();
    handle.sealed(sealed(1));
    handle.sealed(sealed(2));
    handle.accessed(2, typical(1)[0].1.offset, 1, 1_800_000_000);
    let totals = Totals {
        at: 9,
        entries: vec![Total::default()],
    };
    handle.totals(totals.clone());
    assert!(handle.flush(PATIENCE));
    assert_eq!((glass.ids(), handle.lag()), (vec![1, 2], Lag::default()));
    assert_eq!(glass.totals().unwrap(), Some(totals));
    let mut chunks = Vec::new();
    glass
        .chunks(2, &mut |chunk| chunks.push(chunk.clone()))
        .unwrap();
    let rows = unpack(&chunks);
    assert_eq!((rows[0].1.hits, rows[0].1.last_access), (1, 1_800_000_000));
    assert_eq!(rows[1..], typical(100)[1..]);
    handle.freed(1);
    assert!(worker.close(PATIENCE));
    assert_eq!(glass.ids(), [2]);
    assert_eq!(handle.stats().rows, 200);
}

// An earlier process was killed before it told all: 1 and 3 were freed since, 4 is new.
#[test]
fn the_start_repairs_what_an_earlier_process_left() {
    let mut glass = Glass::default();
    glass.adopt(1).unwrap();
    for segment in [1, 2, 3] {
        glass
            .commit(&sealed(segment).entry, &sealed(segment).rows)
            .unwrap();
    }
    let worker = glass.start(&[2, 4]);
    assert!(worker.handle().flush(PATIENCE));
    assert!(worker.close(PATIENCE));
    assert_eq!(glass.ids(), [2, 4]);
}

// The thread is held up in `open`, so that everything below waits for it.
#[test]
fn beyond_the_bound_rows_are_dropped_and_asked_for_again() {
    let glass = Glass::default();
    let (go, wait) = mpsc::channel::<()>();
    let tracker = glass.clone();
    let worker = start(&[], true, move |_| {
        wait.recv().unwrap();
        Ok(Box::new(tracker.clone()))
    });
    let handle = worker.handle();
    handle.sealed(large(1));
    handle.sealed(sealed(2));
    handle.sealed(sealed(3));
    assert_eq!(handle.missing(), [2, 3]);
    assert!(handle.lag().bytes as usize <= WAITING_BYTES_MAX + sealed(1).rows.bytes());
    assert_eq!((handle.lag().segments, handle.stats().postponed), (3, 2));
    // Freed before its turn: never asked for.
    handle.freed(3);
    for _ in 0..=ACCESSES_MAX {
        handle.accessed(2, 0, 1, 1);
    }
    assert_eq!(handle.stats().accesses_dropped, 1);
    go.send(()).unwrap();
    assert!(handle.flush(PATIENCE));
    assert_eq!((glass.ids(), handle.stats().segments), (vec![1, 2], 2));
    assert_eq!(handle.lag(), Lag::default());
}

#[test]
fn a_failed_commit_is_tried_again() {
    let glass = Glass::default();
    glass.set(Fault::Error);
    let worker = glass.start(&[]);
    let handle = worker.handle();
    handle.sealed(sealed(1));
    // The first flush may find that something is left out; the second then makes up for it.
    let _ = handle.flush(PATIENCE);
    assert!(handle.flush(PATIENCE));
    assert_eq!((glass.ids(), handle.stats().errors), (vec![1], 1));
    assert!(!handle.stats().failed);
}

// A backend that panics is begun anew and gets all live segments again; then it is given up.
#[test]
fn a_damaged_mirror_is_rebuilt_once() {
    let glass = Glass::default();
    let worker = glass.start(&[1, 2]);
    let handle = worker.handle();
    assert!(handle.flush(PATIENCE));
    glass.set(Fault::Panic);
    handle.sealed(sealed(3));
    assert!(handle.flush(PATIENCE));
    assert_eq!((glass.ids(), handle.lag()), (vec![1, 2, 3], Lag::default()));

    glass.set(Fault::PanicAlways);
    handle.sealed(sealed(4));
    assert!(!handle.flush(PATIENCE));
    assert!(handle.stats().failed);
    // The server goes on telling, and nothing piles up.
    handle.sealed(sealed(5));
    handle.freed(5);
    handle.accessed(1, 1, 1, 1);
    assert_eq!(handle.lag(), Lag::default());
    assert!(!worker.close(PATIENCE));
}

#[test]
fn a_backend_that_does_not_open_is_given_up() {
    let open = |_| Err(TrackError::backend("open", "as the test told it"));
    let worker = start(&[1], true, open);
    assert!(!worker.handle().flush(PATIENCE));
    assert!(worker.handle().stats().failed);
    assert!(!worker.close(PATIENCE));
}

// A backend that hangs does not hold up the end of the process.
#[test]
fn close_does_not_wait_for_ever() {
    let (_go, wait) = mpsc::channel::<()>();
    let worker = start(&[], true, move |_| {
        let _ = wait.recv();
        Err(TrackError::backend("open", "the test is over"))
    });
    assert!(!worker.close(Duration::from_millis(1)));
}

// Rows were switched off and on between two starts: the mirror follows with what it has already.
#[test]
fn a_mirror_with_other_rows_is_written_again() {
    let glass = Glass::default();
    let rows_of = |segment| {
        let mut rows = 0;
        glass
            .segments(&mut |e| rows += if e.segment == segment { e.rows } else { 0 })
            .unwrap();
        let mut chunks = 0;
        glass.chunks(segment, &mut |_| chunks += 1).unwrap();
        assert_eq!(chunks > 0, rows > 0);
        rows
    };
    assert!(glass.start(&[1, 2]).handle().flush(PATIENCE));
    assert_eq!((rows_of(1), rows_of(2)), (100, 100));
    let without = glass.start_with_rows(&[1, 2], false);
    assert!(without.handle().flush(PATIENCE));
    without.handle().sealed(sealed(3));
    assert!(!without.handle().wants_rows() && without.close(PATIENCE));
    assert_eq!((rows_of(1), rows_of(2), rows_of(3)), (0, 0, 0));
    assert!(glass.start(&[1, 2, 3]).handle().flush(PATIENCE));
    assert_eq!((rows_of(1), rows_of(2), rows_of(3)), (100, 100, 100));
}

// Dry cannot read segment 1: the mirror goes on without it, says so, and asks again.
#[test]
fn an_unreadable_segment_holds_nothing_up() {
    let handle = Arc::new(OnceLock::<TrackingHandle>::new());
    let dry = Arc::clone(&handle);
    let mut asked = 0;
    let glass = Glass::default();
    let tracker = glass.clone();
    let start = Start {
        store: 1,
        live: BTreeSet::from([1, 2]),
        rows: true,
        open: Box::new(move |_| Ok(Box::new(tracker.clone()))),
        resend: Box::new(move |segment| {
            asked += u32::from(segment == 1);
            match segment {
                1 if asked == 1 => dry.wait().unreadable(1),
                _ => dry.wait().sealed(sealed(segment)),
            }
        }),
    };
    let worker = TrackingWorker::start(start).unwrap();
    assert!(handle.set(worker.handle()).is_ok());
    assert!(!worker.handle().flush(PATIENCE));
    assert!(glass.ids().contains(&2));
    assert!(worker.handle().flush(PATIENCE));
    assert_eq!(glass.ids(), [1, 2]);
}

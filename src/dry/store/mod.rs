//! Where segments are kept: named by number, appended to by one writer, read in ranges, deleted whole.
//!
//! A store never sees keys or records and never overwrites: bytes that were appended do not change.

mod local;

use std::io;
use std::sync::Arc;

pub(super) use local::LocalStore;

/// A place for segments.
pub(super) trait SegmentStore: Send + Sync {
    /// Makes an empty segment; one of that number must not exist.
    fn create(&self, segment: u32) -> io::Result<Arc<dyn SegmentFile>>;

    /// Opens a segment that exists.
    fn open(&self, segment: u32) -> io::Result<Arc<dyn SegmentFile>>;

    /// Deletes a segment; that it is missing is fine. Whoever has it open reads on.
    fn delete(&self, segment: u32) -> io::Result<()>;

    /// The numbers of all segments, in no order. Sees a segment once `create` returned.
    fn list(&self) -> io::Result<Vec<u32>>;
}

/// A segment in its store.
pub(super) trait SegmentFile: Send + Sync {
    /// Writes at the segment's end, which is at `at`, and says how many of the bytes it took: they can
    /// be read when it returns. May be interrupted.
    fn append(&self, at: u64, bytes: &[u8]) -> io::Result<usize>;

    /// Fills `out` with the bytes from `at` on and says how many there were: fewer only at the end.
    fn read_range(&self, at: u64, out: &mut [u8]) -> io::Result<usize>;

    /// As `read_range`, but `None` where the device would have to be waited for.
    fn read_cached(&self, at: u64, out: &mut [u8]) -> io::Result<Option<usize>>;

    /// Waits until all that was appended is on the device.
    fn sync(&self) -> io::Result<()>;

    /// Bytes appended so far.
    fn bytes(&self) -> io::Result<u64>;
}

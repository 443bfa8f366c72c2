//! What the tier's owner and the tracking are called with.

use std::cell::Cell;
use std::sync::Arc;

use super::core::Core;
use super::error::DryError;
use super::face::{Reason, Row};
use super::rows;
use super::segment::Segment;
use crate::entry::Facts;

/// Called for each row that leaves with its segment; see [`super::Dry::set_owner`].
pub type Owner = Box<dyn Fn(&Leaving<'_>) + Send + Sync>;
/// Called with each sealed segment.
pub type OnSealed = Box<dyn Fn(&SealedSegment<'_>) + Send + Sync>;
/// Called with the id of each freed segment.
pub type OnFreed = Box<dyn Fn(u32) + Send + Sync>;
/// Called once when the tier fails.
pub type OnFailed = Box<dyn Fn() + Send + Sync>;

/// A row whose segment is about to be freed; see [`super::Dry::set_owner`].
pub struct Leaving<'a> {
    /// The row. It may be killed already: the owner's index knows.
    pub row: &'a Row,
    /// Why it leaves.
    pub reason: Reason,
    pub(super) core: &'a Core,
    pub(super) segment: &'a Segment,
    /// Bytes that may still be read for reinsertion.
    pub(super) budget: &'a Cell<u64>,
}

/// A record read back whole, for reinsertion.
#[derive(Debug)]
pub struct Record<'a> {
    /// What travels with the item.
    pub facts: Facts,
    /// Its key.
    pub key: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
}

impl Leaving<'_> {
    /// Reads the record, to be appended again. `None` where it cannot be read, or where half of the
    /// segment was read already: reclaim has to free something (all of it for [`Reason::Compact`]).
    /// Nothing is read from a remote store: each would cost a request, and a new object later.
    pub fn record<'b>(&self, buffer: &'b mut Vec<u8>) -> Option<Record<'b>> {
        if self.core.spool.is_some() {
            return None;
        }
        self.budget
            .set(self.budget.get().checked_sub(u64::from(self.row.bytes))?);
        self.core.record_in(
            self.segment,
            self.row.place,
            self.row.bytes as usize,
            buffer,
        )
    }
}

/// A sealed segment, for the tracking hook.
pub struct SealedSegment<'a> {
    /// Its id.
    pub segment: u32,
    /// Bytes on disk.
    pub bytes: u64,
    /// About the bytes of its records that are not killed.
    pub live_bytes: u64,
    /// Its records, dead ones included.
    pub rows: u64,
    core: &'a Core,
    found: Arc<Segment>,
}

impl<'a> SealedSegment<'a> {
    pub(super) fn new(core: &'a Core, found: Arc<Segment>) -> SealedSegment<'a> {
        SealedSegment {
            segment: found.id,
            bytes: found.bytes(),
            live_bytes: core.table.live_bytes(&found),
            rows: found.summary().rows,
            core,
            found,
        }
    }

    /// Visits the rows with their keys in the order of their offsets, dead ones included.
    ///
    /// # Errors
    /// The device's.
    pub fn for_each(&self, visit: &mut dyn FnMut(&Row, &[u8])) -> Result<(), DryError> {
        let name = format!("seg-{}.data", self.segment);
        let mut visitor = rows::Visitor::new(self.core.salt, self.core.seed);
        match visitor.rows_and_keys(&self.found, visit) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.core.folder.error("read rows of", &name, error)),
        }
    }
}

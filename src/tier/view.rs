//! What operations and their callers exchange: the item that is seen, the decision, the outcome.

use super::fetch::Blocked;
use super::slot::Tier;
use crate::clock::UnixSeconds;
use crate::entry::{Facts, Marks};
use crate::memory::Tail;
use crate::ram::Item;

/// An item as an operation sees it.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub(super) item: Item<'a>,
    pub(super) exptime: UnixSeconds,
    pub(super) tier: Tier,
}

impl View<'_> {
    /// Everything but key and value.
    pub fn facts(&self) -> Facts {
        self.item.facts(self.exptime)
    }

    /// Length of the value.
    #[inline]
    pub fn value_bytes(&self) -> usize {
        self.item.value_bytes()
    }

    /// The client's flags.
    #[inline]
    pub fn flags(&self) -> u32 {
        self.item.flags()
    }

    /// When it expires; 0 for never.
    #[inline]
    pub fn exptime(&self) -> UnixSeconds {
        self.exptime
    }

    /// Where it was found: the tier that answers, dry if it was brought up for this operation.
    #[inline]
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// Appends the value to `out`.
    #[inline]
    pub fn append_value(&self, out: &mut Vec<u8>) {
        self.item.append_value(out);
    }

    /// Writes the value to the end of a vector that has room for it.
    #[inline]
    pub fn write_value(&self, tail: &mut Tail<'_>) {
        self.item.write_value(tail);
    }

    /// Bytes that the item takes in RAM.
    pub fn memory_bytes(&self) -> usize {
        self.item.words() * 8
    }
}

/// What an operation finds under its key.
#[derive(Debug, Clone, Copy)]
pub enum Current<'a> {
    /// Nothing.
    Absent,
    /// Most likely an item that lies in dry; [`Decision::Fetch`] brings it up.
    Below,
    /// An item.
    Present(View<'a>),
}

/// What an operation does about it.
#[derive(Debug)]
pub enum Decision<'v, R> {
    /// Nothing.
    Keep(R),
    /// It has to see the item below first.
    Fetch,
    /// Remove the item, in every tier.
    Remove(R),
    /// Change the item in place.
    Change(R, Change),
    /// Store a new item.
    Store(R, NewItem<'v>),
}

/// A change in place. What is `None` stays.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change {
    /// The new exptime.
    pub exptime: Option<UnixSeconds>,
    /// The new marks.
    pub marks: Option<Marks>,
    /// Whether this counts as a client's access.
    pub access: bool,
}

/// A new item.
#[derive(Debug, Clone, Copy)]
pub struct NewItem<'v> {
    /// The client's flags.
    pub flags: u32,
    /// When it expires; 0 for never.
    pub exptime: UnixSeconds,
    /// The CAS unique that the client chose.
    pub own_cas: Option<u64>,
    /// Its marks.
    pub marks: Marks,
    /// Its value.
    pub value: Value<'v>,
}

/// The value of a new item.
#[derive(Debug, Clone, Copy)]
pub enum Value<'v> {
    /// These bytes.
    Bytes(&'v [u8]),
    /// The present value.
    Present,
    /// The present value, then these bytes.
    PresentThen(&'v [u8]),
    /// These bytes, then the present value.
    ThenPresent(&'v [u8]),
}

impl Value<'_> {
    pub(super) fn len(&self, present: usize) -> usize {
        match self {
            Value::Bytes(bytes) => bytes.len(),
            Value::Present => present,
            Value::PresentThen(bytes) | Value::ThenPresent(bytes) => present + bytes.len(),
        }
    }
}

/// What a read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup<R> {
    /// An item, served.
    Hit(R),
    /// An item that the reader did not serve.
    Declined,
    /// Nothing.
    Miss,
}

/// How an operation ended.
#[derive(Debug)]
pub enum Outcome<R> {
    /// It is done.
    Done {
        /// What was decided.
        result: R,
        /// The CAS unique of the item that it stored, else 0.
        cas: u64,
    },
    /// It has to wait and run again.
    Blocked(Blocked),
    /// There is no room for the new item, and none may be made.
    NoMemory,
}

//! What a remote store does for the dry tier: whole objects in, ranges out, by name.
//!
//! ```text
//! Spool ──▶ Remote ──▶ s3      an object per segment
//!                      gridfs  a file per segment
//!                      memory  for tests
//! ```
//! All calls block, with a bound in time: a store keeps its network code on the threads of
//! [`super::runtime`]. Names are made of numbers, never of keys, and an object is written once: only the
//! manifest is ever replaced, and only if it still is what its writer read.

use std::io;
use std::path::Path;
use std::time::Duration;

/// A remote place for segments.
pub(in super::super) trait Remote: Send + Sync {
    /// Where it is, without secrets, for messages.
    fn place(&self) -> &str;

    /// Makes sure that the store is there and lets itself be used.
    fn check(&self) -> io::Result<()> {
        Ok(())
    }

    /// Ends calls that are under way with an error.
    fn interrupt(&self) {}

    /// Stores a file's content under a name. When it returns, the store has confirmed all of it; after
    /// an error the object may exist or not.
    fn put(&self, name: &str, file: &Path, bytes: u64) -> io::Result<()>;

    /// Fills `out` with an object's bytes from `at` on; all of them, or an error. `NotFound` only where
    /// the store says that there is no such object.
    fn read(&self, name: &str, at: u64, out: &mut [u8]) -> io::Result<()>;

    /// Deletes an object; that it is missing is fine.
    fn delete(&self, name: &str) -> io::Result<()>;

    /// All objects.
    fn list(&self) -> io::Result<Vec<Listed>>;

    /// A small object's whole content and what [`Remote::replace`] wants to know of it; `None` where
    /// there is no such object.
    fn get(&self, name: &str) -> io::Result<Option<(Vec<u8>, Tag)>>;

    /// Writes a small object if it still is as `before` says (`None`: does not exist); `None` where it
    /// was not. Where the store has no conditional writes it compares just before it writes.
    fn replace(&self, name: &str, bytes: Vec<u8>, before: Option<&Tag>) -> io::Result<Option<Tag>>;
}

/// Tells one content of an object from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Tag(pub(in super::super) String);

/// An object in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Listed {
    /// Its name, as it was put.
    pub(in super::super) name: String,
    /// Time since it was written, by the store's clock where that is known.
    pub(in super::super) age: Duration,
}

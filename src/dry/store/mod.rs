//! Where segments are kept: named by number, appended to by one writer, read in ranges, deleted whole.
//!
//! A store never sees keys or records and never overwrites: bytes that were appended do not change.

mod ahead;
#[cfg(test)]
mod conformance;
#[cfg(feature = "mongodb")]
mod gridfs;
pub(super) mod kept;
mod local;
#[cfg(test)]
pub(super) mod memory;
mod recent;
pub(super) mod remote;
#[cfg(any(feature = "s3", feature = "mongodb"))]
mod runtime;
#[cfg(feature = "s3")]
mod s3;
pub(super) mod spool;

use std::io;
use std::sync::Arc;

pub(super) use local::LocalStore;
pub(super) use spool::Spool;

use self::remote::Remote;
use super::config::{DryConfig, RemoteConfig};
use super::error::DryError;

/// Opens the remote store that a configuration names, if it names one.
pub(super) fn open(config: &DryConfig) -> Result<Option<Arc<dyn Remote>>, DryError> {
    let Some(remote) = &config.remote else {
        return Ok(None);
    };
    let failed = |why: io::Error| DryError::Remote {
        place: remote.to_string(),
        why: why.to_string(),
    };
    let opened = connect(config, remote).map_err(failed)?;
    match opened.check() {
        // Start says so when it wants to know whose the store is.
        Err(_) if config.optional => Ok(Some(opened)),
        checked => checked.map(|()| Some(opened)).map_err(failed),
    }
}

#[cfg_attr(not(all(feature = "s3", feature = "mongodb")), allow(unused_variables))]
fn connect(config: &DryConfig, remote: &RemoteConfig) -> io::Result<Arc<dyn Remote>> {
    #[cfg(feature = "s3")]
    if let RemoteConfig::S3(s3) = remote {
        return Ok(Arc::new(s3::S3Store::open(s3, config.read_timeout.0)?));
    }
    #[cfg(feature = "mongodb")]
    if let RemoteConfig::MongoDb(mongodb) = remote {
        let (ttl, limit) = (config.ttl.0, config.read_timeout.0);
        return Ok(Arc::new(gridfs::GridFs::open(mongodb, ttl, limit)?));
    }
    Err(io::Error::other(
        "this build has no code for it (features s3 and mongodb)",
    ))
}

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

    /// Appends what is left of `bytes` behind the first `done` of them, which lie at `at` already.
    /// After an error `done` says how many lie there now.
    fn append_rest(&self, at: u64, bytes: &[u8], done: &mut usize) -> io::Result<()> {
        while *done < bytes.len() {
            match self.append(at + *done as u64, &bytes[*done..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => *done += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Fills `out` with the bytes from `at` on and says how many there were: fewer only at the end.
    fn read_range(&self, at: u64, out: &mut [u8]) -> io::Result<usize>;

    /// As `read_range`, but `None` where the device would have to be waited for.
    fn read_cached(&self, at: u64, out: &mut [u8]) -> io::Result<Option<usize>>;

    /// Fetches bytes that several reads will want, where that saves requests. Does nothing else.
    fn prefetch(&self, _at: u64, _bytes: usize) -> io::Result<()> {
        Ok(())
    }

    /// Whether reading again what was found to be damaged may find it sound: it came over a network.
    fn may_differ(&self, _at: u64) -> bool {
        false
    }

    /// Waits until all that was appended is on the device.
    fn sync(&self) -> io::Result<()>;

    /// Bytes appended so far.
    fn bytes(&self) -> io::Result<u64>;
}

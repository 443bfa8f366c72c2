//! What can be set about the dry tier, with its defaults.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::{ByteSize, Span};

/// Largest segment: a place counts in units of 8 bytes with 23 bits.
pub const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// Smallest segment.
pub const SEGMENT_BYTES_MIN: u64 = 1 << 20;
/// Segments that the size limit is divided into where nothing else is said.
const SEGMENTS: u64 = 32;
/// Bytes of a remote segment where nothing else is said: one PUT each, in some seconds at most.
const REMOTE_SEGMENT_BYTES: u64 = 16 << 20;
/// Fewest segments that a spool has room for.
const SPOOL_SEGMENTS_MIN: u64 = 4;
/// Fewest segments that the size limit is divided into: reclaim keeps some of them free.
pub(super) const SEGMENTS_MIN: u64 = 8;

/// What a restart must survive with its warmth kept. Nothing stale is ever served with either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Death of the process. After a reboot without a clean stop the tier starts empty.
    #[default]
    Process,
    /// Loss of power too: kills are on the device before the new value is visible.
    Power,
}

/// The dry tier's options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DryConfig {
    /// Folder that belongs to this tier alone; made when missing.
    pub folder: PathBuf,
    /// Bytes of segments on disk. Default 100g. The kill journal (4 x `journal_size`) comes on top.
    pub size: ByteSize,
    /// Residence time since the last access. Default 7d.
    pub ttl: Span,
    /// Bytes of a segment, at most an eighth of `size`. Default min(64m, size/32), at least 1m.
    pub segment_size: Option<ByteSize>,
    /// Which loss is survived warm. Default `process`.
    pub durability: Durability,
    /// Set what the folder holds aside and start empty.
    pub reset: bool,
    /// Bytes of records that may wait for the device. Default 64m; the tier sets min(64m, m/8).
    pub queue_bytes: usize,
    /// Bytes of one of the four kill journal files. Default 4m.
    pub journal_size: ByteSize,
    /// The remote store of the segments; `folder` is its spool then. Default none: they are in `folder`.
    pub remote: Option<RemoteConfig>,
    /// Bytes of segments that may wait in the spool for a remote store. Default 1g, at least four segments.
    pub spool_size: ByteSize,
    /// Bytes of ranges fetched from a remote store that stay in memory for a moment. Default 16m.
    pub read_cache: ByteSize,
    /// How long a read of a remote store may take, retries included. Default 2s.
    pub read_timeout: Span,
    /// How long a clean close waits for uploads. Default 20s.
    pub close_timeout: Span,
    /// Start without the remote store where it does not answer: degraded, and cold. Default off.
    pub optional: bool,
    /// Age from which on an object that nothing names is deleted. Default 1h.
    pub orphan_age: Span,
}

/// A remote store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteConfig {
    /// S3 and what speaks its protocol.
    S3(S3Config),
    /// MongoDB GridFS.
    MongoDb(MongoDbConfig),
}

/// A bucket of an S3-compatible store. Credentials come from the environment, the profile files or the
/// instance, as for every AWS tool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct S3Config {
    /// The bucket.
    pub bucket: String,
    /// Before all object names, without slashes at its ends; may be empty.
    pub prefix: String,
    /// URL of a store other than AWS.
    pub endpoint: Option<String>,
    /// Region. Default: that of the environment or the profile, else us-east-1.
    pub region: Option<String>,
    /// The bucket is named in the path and not in the host name. Default off.
    pub path_style: bool,
    /// Which checksums are sent and asked for. Default `when_supported`.
    pub checksums: Checksums,
}

/// When requests to S3 carry checksums of their content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Checksums {
    /// Wherever the operation has them.
    #[default]
    WhenSupported,
    /// Only where the operation demands them: for stores that do not know the newer ones.
    WhenRequired,
}

/// A database of a MongoDB deployment.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct MongoDbConfig {
    /// The connection string; it may hold a password.
    pub uri: String,
    /// The database.
    pub database: String,
    /// The GridFS bucket: collections `BUCKET.files` and `BUCKET.chunks`. Default `tiercache`.
    pub bucket: String,
}

impl std::fmt::Debug for MongoDbConfig {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "MongoDbConfig({self})")
    }
}

impl std::fmt::Display for S3Config {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "s3://{}", self.bucket)?;
        if !self.prefix.is_empty() {
            write!(to, "/{}", self.prefix)?;
        }
        match &self.endpoint {
            Some(endpoint) => write!(to, " at {endpoint}"),
            None => Ok(()),
        }
    }
}

/// The connection string without user, password and options.
impl std::fmt::Display for MongoDbConfig {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (scheme, rest) = self.uri.split_once("://").unwrap_or(("mongodb", ""));
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let hosts = authority.rsplit('@').next().unwrap_or_default();
        write!(to, "{scheme}://{hosts}/{} ({})", self.database, self.bucket)
    }
}

impl std::fmt::Display for RemoteConfig {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RemoteConfig::S3(s3) => s3.fmt(to),
            RemoteConfig::MongoDb(mongodb) => mongodb.fmt(to),
        }
    }
}

impl Default for DryConfig {
    fn default() -> DryConfig {
        DryConfig {
            folder: PathBuf::new(),
            size: ByteSize::gib(100),
            ttl: Span(Duration::from_secs(7 * 86_400)),
            segment_size: None,
            durability: Durability::Process,
            reset: false,
            queue_bytes: 64 << 20,
            journal_size: ByteSize::mib(4),
            remote: None,
            spool_size: ByteSize::gib(1),
            read_cache: ByteSize::mib(16),
            read_timeout: Span::seconds(2),
            close_timeout: Span::seconds(20),
            optional: false,
            orphan_age: Span::hours(1),
        }
    }
}

impl DryConfig {
    /// Bytes of segments that may wait for a remote store: as set, and never so few that nothing moves.
    pub(super) fn spool_bytes(&self) -> u64 {
        self.spool_size
            .0
            .max(SPOOL_SEGMENTS_MIN * self.segment_bytes())
    }

    /// Bytes of a segment: as set or derived from the size, within the format's limits and a
    /// multiple of 4096.
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes_from(SEGMENT_BYTES_MIN)
    }

    /// [`DryConfig::segment_bytes`] with another least one.
    pub(super) fn segment_bytes_from(&self, least: u64) -> u64 {
        let whole = match self.remote {
            None => self.size.0 / SEGMENTS,
            Some(_) => REMOTE_SEGMENT_BYTES.min(self.size.0 / SEGMENTS),
        };
        let wanted = self.segment_size.map_or(whole, |size| size.0);
        wanted
            .min(self.size.0 / SEGMENTS_MIN)
            .clamp(least, SEGMENT_BYTES_MAX)
            / 4096
            * 4096
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_follow_the_size() {
        let with = |size: u64, segment: Option<u64>| {
            let config = DryConfig {
                size: ByteSize(size),
                segment_size: segment.map(ByteSize),
                ..DryConfig::default()
            };
            config.segment_bytes()
        };
        assert_eq!(with(100 << 30, None), 64 << 20);
        assert_eq!(with(1 << 30, None), 32 << 20);
        assert_eq!(with(1 << 20, None), 1 << 20);
        assert_eq!(with(1 << 30, Some((2 << 20) + 5)), 2 << 20);
        assert_eq!(with(32 << 20, Some(8 << 20)), 4 << 20);
        assert_eq!(with(1 << 30, Some(1 << 40)), 64 << 20);
    }
}

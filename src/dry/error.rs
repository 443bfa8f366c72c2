//! Why the dry tier cannot be opened or used.

use std::io;
use std::path::{Path, PathBuf};

/// What kind of trouble it is: code branches on this, people read the error's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Another process uses the folder.
    Locked,
    /// The folder holds files of somebody else, belongs to another user or is open to all.
    Foreign,
    /// The folder was written by a newer version.
    Newer,
    /// The tier has failed (an I/O error earlier) or is closed.
    Failed,
    /// The operating system refused something.
    Io,
    /// The remote store refused something.
    Remote,
}

/// An error of the dry tier.
#[derive(Debug, thiserror::Error)]
pub enum DryError {
    /// Another process uses the folder.
    #[error("dry folder {} is in use by another process{holder}", .folder.display())]
    Locked {
        /// The folder.
        folder: PathBuf,
        /// ` (pid N)` where it is known, else empty.
        holder: String,
    },
    /// The folder is not ours to use.
    #[error("dry folder {} {why}", .folder.display())]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The folder was written by a newer version.
    #[error(
        "dry folder {} has format {found}, this version knows up to {known}: use the newer version, or start \
         empty with --dry-reset",
        .folder.display()
    )]
    Newer {
        /// The folder.
        folder: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that this version reads.
        known: u32,
    },
    /// The remote store cannot be used.
    #[error("{place}: {why}")]
    Remote {
        /// Which store, without secrets.
        place: String,
        /// What was tried and what came of it.
        why: String,
    },
    /// The tier has failed or is closed.
    #[error("the dry tier has failed or is closed")]
    Failed,
    /// The operating system refused something.
    #[error("{tried} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        tried: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DryError {
    /// What kind of trouble it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            DryError::Locked { .. } => ErrorKind::Locked,
            DryError::Foreign { .. } => ErrorKind::Foreign,
            DryError::Newer { .. } => ErrorKind::Newer,
            DryError::Failed => ErrorKind::Failed,
            DryError::Remote { .. } => ErrorKind::Remote,
            DryError::Io { .. } => ErrorKind::Io,
        }
    }

    /// An I/O error with what was tried on which file.
    pub(super) fn io(tried: &'static str, path: &Path, source: impl Into<io::Error>) -> DryError {
        DryError::Io {
            tried,
            path: path.to_owned(),
            source: source.into(),
        }
    }
}

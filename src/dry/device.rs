//! The one door to the device: every change to a file of the folder passes here.
//!
//! In production each call is the one of the operating system that it names. Tests put a tape here: it numbers and
//! records the changes, fails the one it is told to, and rebuilds what a crash between any two would have left.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::Ordering::Release;

use rustix::fs::{AtFlags, FallocateFlags};
use rustix::io::Errno;

#[cfg(test)]
use super::tests::tape::{Step, Tape};
use crate::memory::Words;

/// Bytes written at once where a file system cannot allocate.
const ZEROS_BYTES: usize = 64 << 10;

/// Carries out changes to files.
#[derive(Debug, Clone, Default)]
pub(super) struct Device {
    #[cfg(test)]
    pub(super) tape: Option<std::sync::Arc<Tape>>,
}

/// One change.
#[derive(Debug)]
#[cfg_attr(not(test), allow(dead_code))] // Only a tape looks inside.
pub(super) enum Change<'a> {
    Create {
        name: &'a str,
        file: &'a File,
    },
    Write {
        file: &'a File,
        at: u64,
        bytes: &'a [u8],
    },
    Store {
        file: &'a File,
        word: usize,
        value: u64,
    },
    Allocate {
        file: &'a File,
        bytes: u64,
    },
    Sync {
        file: &'a File,
    },
    SyncFolder,
    Rename {
        from: &'a str,
        to: &'a str,
    },
    Remove {
        name: &'a str,
    },
}

/// What kind of change is about to be made, for a tape that fails some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Write,
    Sync,
    Other,
}

/// A change under way.
#[cfg(not(test))]
struct Step;

#[cfg(not(test))]
impl Step {
    #[inline(always)]
    fn done(self, _: Change<'_>) {}
}

impl Device {
    #[cfg(not(test))]
    #[inline(always)]
    fn begin(&self, _: Kind) -> io::Result<Step> {
        Ok(Step)
    }

    #[cfg(test)]
    fn begin(&self, kind: Kind) -> io::Result<Step<'_>> {
        Step::begin(self.tape.as_deref(), kind)
    }

    /// Makes a file with `open`, which must not find one.
    pub(super) fn create(
        &self,
        name: &str,
        open: impl FnOnce() -> io::Result<File>,
    ) -> io::Result<File> {
        let step = self.begin(Kind::Other)?;
        let file = open()?;
        step.done(Change::Create { name, file: &file });
        Ok(file)
    }

    /// Writes at a place in a file; how many of the bytes it took.
    pub(super) fn write(&self, file: &File, at: u64, bytes: &[u8]) -> io::Result<usize> {
        let step = self.begin(Kind::Write)?;
        let written = file.write_at(bytes, at)?;
        let bytes = &bytes[..written];
        step.done(Change::Write { file, at, bytes });
        Ok(written)
    }

    /// Writes all of the bytes at a place in a file.
    pub(super) fn write_all(&self, file: &File, mut at: u64, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write(file, at, bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    at += written as u64;
                    bytes = &bytes[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Stores a word of a mapped file: it is in the page cache when this returns.
    #[inline]
    pub(super) fn store(&self, file: &File, words: &Words, word: usize, value: u64) {
        // A store cannot fail.
        let step = self.begin(Kind::Other);
        words[word].store(value, Release);
        if let Ok(step) = step {
            step.done(Change::Store { file, word, value });
        }
    }

    /// Gives a new file its length and its blocks: a later store can never meet a full disk. File systems that
    /// cannot allocate get their blocks by being written to.
    pub(super) fn allocate(&self, file: &File, bytes: u64) -> io::Result<()> {
        let allocated = {
            let step = self.begin(Kind::Write)?;
            let allocated = rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes);
            if allocated.is_ok() {
                step.done(Change::Allocate { file, bytes });
            }
            allocated
        };
        match allocated {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                let zeros = vec![0; ZEROS_BYTES];
                (0..bytes).step_by(ZEROS_BYTES).try_for_each(|at| {
                    let count = ZEROS_BYTES.min((bytes - at) as usize);
                    self.write_all(file, at, &zeros[..count])
                })
            }
            allocated => Ok(allocated?),
        }
    }

    /// Waits until a file's bytes, and its length, are on the device.
    pub(super) fn sync(&self, file: &File) -> io::Result<()> {
        let step = self.begin(Kind::Sync)?;
        file.sync_data()?;
        step.done(Change::Sync { file });
        Ok(())
    }

    /// Waits until created, renamed and removed names are on the device.
    pub(super) fn sync_folder(&self, dir: &OwnedFd) -> io::Result<()> {
        let step = self.begin(Kind::Sync)?;
        rustix::fs::fsync(dir)?;
        step.done(Change::SyncFolder);
        Ok(())
    }

    /// Renames a file, over one that may be there.
    pub(super) fn rename(&self, dir: &OwnedFd, from: &str, to: &str) -> io::Result<()> {
        let step = self.begin(Kind::Other)?;
        rustix::fs::renameat(dir, from, dir, to)?;
        step.done(Change::Rename { from, to });
        Ok(())
    }

    /// Removes a file; that it is missing is fine.
    pub(super) fn remove(&self, dir: &OwnedFd, name: &str) -> io::Result<()> {
        let step = self.begin(Kind::Other)?;
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) => step.done(Change::Remove { name }),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

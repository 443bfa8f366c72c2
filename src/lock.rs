//! Locks a folder for one process, by a file in it that says which.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd;

use rustix::fs::{FlockOperation, Mode, OFlags};

/// The file that is locked.
pub const LOCK_FILE: &str = "lock";

/// Whether a folder could be locked.
#[derive(Debug)]
pub enum Locked {
    /// It is, as long as the file is open.
    Ours(File),
    /// Another process has it.
    Others {
        /// ` (pid N)` where it is known, else empty.
        holder: String,
    },
}

/// Locks a folder; what another process holds is not waited for.
///
/// # Errors
/// The file cannot be opened, or its file system has no locks. A link in its place is not followed.
pub fn lock_folder(folder: impl AsFd) -> io::Result<Locked> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let opened = rustix::fs::openat(folder, LOCK_FILE, flags, Mode::RUSR | Mode::WUSR);
    let mut lock = File::from(opened?);
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            let _ = lock.read_to_string(&mut holder); // Only for the message.
            let holder = holder
                .trim()
                .parse::<u32>()
                .map_or(String::new(), |pid| format!(" (pid {pid})"));
            return Ok(Locked::Others { holder });
        }
        Err(error) => return Err(error.into()),
    }
    // Only for the message of the next one who comes: a failure is of no consequence.
    let _ = lock
        .set_len(0)
        .and_then(|()| lock.write_all(format!("{}\n", std::process::id()).as_bytes()));
    Ok(Locked::Ours(lock))
}

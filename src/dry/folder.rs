//! The dry folder: whose it is, who may use it, and setting its content aside.
//!
//! ```text
//! DIR/format          "tiercache dry tier, format N"; a folder with other files and without it is refused
//!     lock            held with flock while a process uses the folder
//!     state           see state.rs
//!     journal-0..3    kills, see journal.rs
//!     seg-N.data      records, see record.rs and footer.rs
//!     seg-N.dead      kills folded out of the journal, see dead.rs
//!     trash-N/        set aside, deleted in the background
//! ```
//! The folder is opened once; files are reached through its descriptor and are never links. Their
//! names are made of numbers, never of keys.

use std::fs::{DirBuilder, File};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};

use super::device::Device;
use super::error::DryError;
use crate::lock::{LOCK_FILE, Locked, lock_folder};

/// The format that this version writes.
pub(super) const FORMAT: u32 = 1;

const FORMAT_FILE: &str = "format";
const FORMAT_LINE: &str = "tiercache dry tier, format ";
pub(super) const STATE_FILE: &str = "state";
const TRASH: &str = "trash-";

/// The folder, locked for this process.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    dir: OwnedFd,
    device: Device,
    /// Holds the lock as long as it is open.
    lock: Mutex<Option<File>>,
}

impl Folder {
    /// [`Folder::open_on`] this machine's device.
    #[cfg(test)]
    pub(super) fn open(path: &Path) -> Result<Folder, DryError> {
        Folder::open_on(path, Device::default())
    }

    /// Opens the folder, made with mode 0700 where it is missing, and locks it.
    pub(super) fn open_on(path: &Path, device: Device) -> Result<Folder, DryError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| DryError::io("create folder", path, error))?;
        let path = path
            .canonicalize()
            .map_err(|error| DryError::io("open folder", path, error))?;
        let dir = rustix::fs::open(
            &path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|error| DryError::io("open folder", &path, error))?;
        let foreign = |why: &str| DryError::Foreign {
            folder: path.clone(),
            why: why.to_owned(),
        };
        let stat =
            rustix::fs::fstat(&dir).map_err(|error| DryError::io("stat folder", &path, error))?;
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(foreign("belongs to another user"));
        }
        if Mode::from_raw_mode(stat.st_mode).contains(Mode::WOTH) {
            return Err(foreign("can be written by everybody (chmod o-w it)"));
        }
        let names = list(&dir).map_err(|error| DryError::io("list folder", &path, error))?;
        let formatted = names.iter().any(|name| name == FORMAT_FILE);
        if !formatted && let Some(name) = names.iter().find(|name| !may_be_in_a_new_folder(name)) {
            let why = format!("is not a dry folder: it holds {name:?} but no {FORMAT_FILE:?} file");
            return Err(foreign(&why));
        }
        let lock = lock(&dir, &path)?;
        let folder = Folder {
            path,
            dir,
            device,
            lock: Mutex::new(Some(lock)),
        };
        if formatted {
            folder.check_format()?;
        } else {
            folder
                .replace(
                    FORMAT_FILE,
                    format!("{FORMAT_LINE}{FORMAT}\n").as_bytes(),
                    Sync::Device,
                )
                .map_err(|error| folder.error("write format file", FORMAT_FILE, error))?;
        }
        Ok(folder)
    }

    fn check_format(&self) -> Result<(), DryError> {
        let text = self
            .read(FORMAT_FILE)
            .map_err(|error| self.error("read format file", FORMAT_FILE, error))?;
        let number = std::str::from_utf8(&text)
            .ok()
            .and_then(|text| text.trim_end().strip_prefix(FORMAT_LINE));
        match number.and_then(|number| number.parse::<u32>().ok()) {
            Some(found) if found > FORMAT => Err(DryError::Newer {
                folder: self.path.clone(),
                found,
                known: FORMAT,
            }),
            Some(_) => Ok(()),
            None => Err(DryError::Foreign {
                folder: self.path.clone(),
                why: format!("has a {FORMAT_FILE:?} file that is not tiercache's"),
            }),
        }
    }

    /// The folder's path, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes changes to the folder's files.
    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// An error about one of the folder's files.
    pub(super) fn error(
        &self,
        tried: &'static str,
        name: &str,
        source: impl Into<io::Error>,
    ) -> DryError {
        DryError::io(tried, &self.path.join(name), source)
    }

    /// Bytes that may still be written to the folder's file system.
    pub(super) fn available_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Lets the next one have the folder.
    pub(super) fn unlock(&self) {
        *self.lock.lock() = None;
    }

    /// The names of what is in the folder.
    pub(super) fn list(&self) -> io::Result<Vec<String>> {
        list(&self.dir)
    }

    /// Opens a file for reading and writing.
    pub(super) fn open_file(&self, name: &str) -> io::Result<File> {
        self.openat(name, OFlags::RDWR)
    }

    /// Creates a file that must not exist.
    pub(super) fn create_file(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        self.device.create(name, || self.openat(name, flags))
    }

    fn openat(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(File::from(rustix::fs::openat(
            &self.dir,
            name,
            flags,
            Mode::RUSR | Mode::WUSR,
        )?))
    }

    /// A file's whole content.
    pub(super) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.openat(name, OFlags::RDONLY)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Gives a file this content: all of it or, after a crash, the old one.
    pub(super) fn replace(&self, name: &str, bytes: &[u8], sync: Sync) -> io::Result<()> {
        let temporary = format!("{name}.tmp");
        self.remove(&temporary)?;
        let file = self.create_file(&temporary)?;
        self.device.write_all(&file, 0, bytes)?;
        if sync == Sync::Device {
            self.device.sync(&file)?;
        }
        self.rename(&temporary, name)?;
        if sync == Sync::Device {
            self.sync()
        } else {
            Ok(())
        }
    }

    /// Renames a file, over one that may be there.
    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.device.rename(&self.dir, from, to)
    }

    /// Removes a file; that it is missing is fine.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        self.device.remove(&self.dir, name)
    }

    /// Waits until created, renamed and removed names are on the device.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.device.sync_folder(&self.dir)
    }

    /// Moves everything of ours except the format and the lock into a new trash folder. The state goes
    /// first: after a crash half way the rest is without a state and so is set aside again.
    pub(super) fn set_aside(&self) -> io::Result<()> {
        let names = self.list()?;
        let trash = (1..)
            .map(|number| format!("{TRASH}{number}"))
            .find(|trash| !names.contains(trash));
        let trash = trash.expect("a folder has fewer than 2^31 entries");
        rustix::fs::mkdirat(&self.dir, &trash, Mode::RWXU)?;
        let state = names.iter().filter(|name| *name == STATE_FILE);
        let others = names
            .iter()
            .filter(|name| *name != STATE_FILE && is_content(name));
        for name in state.chain(others) {
            self.rename(name, &format!("{trash}/{name}"))?;
        }
        self.sync()
    }

    /// Deletes what was set aside, file by file, until done or told to stop.
    pub(super) fn empty_trash(&self, stop: &AtomicBool) -> io::Result<()> {
        for trash in self.list()?.iter().filter(|name| name.starts_with(TRASH)) {
            let path = self.path.join(trash);
            for entry in path.read_dir()? {
                if stop.load(Relaxed) {
                    return Ok(());
                }
                std::fs::remove_file(entry?.path())?;
            }
            std::fs::remove_dir(&path)?;
        }
        Ok(())
    }
}

/// How far a write must have got when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sync {
    /// In the page cache: survives the process.
    PageCache,
    /// On the device: survives loss of power.
    Device,
}

impl Sync {
    /// What the tier's durability asks for.
    pub(super) fn of(power: bool) -> Sync {
        if power { Sync::Device } else { Sync::PageCache }
    }
}

/// Whether an error says that there is no room left, which passes by itself.
pub(super) fn disk_is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

fn list(dir: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// A file whose meaning hangs on the state: what setting aside moves.
pub(super) fn is_content(name: &str) -> bool {
    name == STATE_FILE || name.starts_with("seg-") || name.starts_with("journal-")
}

fn may_be_in_a_new_folder(name: &str) -> bool {
    name == LOCK_FILE || name == "lost+found" || name == format!("{FORMAT_FILE}.tmp")
}

fn lock(dir: &OwnedFd, path: &Path) -> Result<File, DryError> {
    match lock_folder(dir) {
        Ok(Locked::Ours(lock)) => Ok(lock),
        Ok(Locked::Others { holder }) => Err(DryError::Locked {
            folder: path.to_owned(),
            holder,
        }),
        Err(error) => Err(DryError::io("lock folder", path, error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::error::ErrorKind;
    use super::*;

    fn kind(path: &Path) -> ErrorKind {
        Folder::open(path).unwrap_err().kind()
    }

    #[test]
    fn a_folder_is_made_private_and_locked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let folder = Folder::open(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(
            path.join(FORMAT_FILE)
                .metadata()
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o600
        );
        let error = Folder::open(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        assert!(
            error
                .to_string()
                .contains(&format!("pid {}", std::process::id())),
            "{error}"
        );
        drop(folder);
        Folder::open(&path).unwrap();
    }

    #[test]
    fn foreign_open_and_newer_folders_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("thesis.txt"), "mine").unwrap();
        assert_eq!(kind(dir.path()), ErrorKind::Foreign);
        assert_eq!(dir.path().read_dir().unwrap().count(), 1);

        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(kind(dir.path()), ErrorKind::Foreign);

        let dir = tempfile::tempdir().unwrap();
        drop(Folder::open(dir.path()).unwrap());
        std::fs::write(
            dir.path().join(FORMAT_FILE),
            format!("{FORMAT_LINE}{}\n", FORMAT + 1),
        )
        .unwrap();
        assert_eq!(kind(dir.path()), ErrorKind::Newer);
        std::fs::write(dir.path().join(FORMAT_FILE), "something else").unwrap();
        assert_eq!(kind(dir.path()), ErrorKind::Foreign);
    }

    // Whoever can make a link in the folder cannot make us write or read elsewhere.
    #[test]
    fn links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(outside.path(), "mine").unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("seg-1.data")).unwrap();
        assert!(folder.open_file("seg-1.data").is_err());
        assert!(folder.read("seg-1.data").is_err());
        assert!(folder.create_file("seg-1.data").is_err());
        // Replacing it replaces the link.
        folder
            .replace("seg-1.data", b"ours", Sync::PageCache)
            .unwrap();
        assert_eq!(folder.read("seg-1.data").unwrap(), b"ours");
        assert_eq!(std::fs::read(outside.path()).unwrap(), b"mine");
        // A link instead of the lock is refused too.
        drop(folder);
        std::fs::remove_file(dir.path().join(LOCK_FILE)).unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join(LOCK_FILE)).unwrap();
        assert!(Folder::open(dir.path()).is_err());
        assert_eq!(std::fs::read(outside.path()).unwrap(), b"mine");
    }

    #[test]
    fn setting_aside_empties_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        folder.replace(STATE_FILE, b"state", Sync::Device).unwrap();
        folder
            .replace("seg-1.data", b"data", Sync::PageCache)
            .unwrap();
        folder.set_aside().unwrap();
        assert!(!folder.list().unwrap().iter().any(|name| is_content(name)));
        assert!(dir.path().join("trash-1/seg-1.data").exists());
        folder.empty_trash(&AtomicBool::new(false)).unwrap();
        assert!(!dir.path().join("trash-1").exists());
    }
}

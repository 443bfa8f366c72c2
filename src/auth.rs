//! Who may use the cache: the users of a file, looked up in time that depends on nothing secret.
//!
//! Of each line `user:password` only a keyed hash is kept. A client's user and password are hashed
//! with the same key and compared with all of them, whether one has matched or not, so neither which
//! part was wrong nor how much of it was right can be told from the time.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use parking_lot::RwLock;
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};

/// Users of one file: all of them are compared at each authentication.
const USERS_MAX: usize = 1024;

/// Bytes of one line.
const LINE_BYTES_MAX: usize = 512;

/// Bytes of the file.
const FILE_BYTES_MAX: u64 = (USERS_MAX * LINE_BYTES_MAX) as u64;

/// Access bits of everybody but the owner.
const OTHERS_MASK: u32 = 0o077;

/// How clients show who they are; `-Y` and `-S`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthConfig {
    /// A file of lines `user:password`.
    pub file: PathBuf,
    /// Whether they also do so by SASL, in the binary protocol. Default no.
    pub sasl: bool,
}

/// Why a file of users cannot be used. Names the line, never what stands in it.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// The file cannot be read, or there is no randomness to hash it with.
    #[error("read the users {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        error: std::io::Error,
    },
    /// A line that is not `user:password`.
    #[error("users {}:{line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The file is larger than all users could make it.
    #[error("users {}: larger than {FILE_BYTES_MAX} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Nobody could authenticate.
    #[error("users {}: no line user:password", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

type KeyedHash = Hmac<Sha256>;

/// The users of a file, which can be read again while clients authenticate.
pub struct Users {
    path: PathBuf,
    table: RwLock<Arc<Table>>,
}

struct Table {
    hash: KeyedHash,
    digests: Vec<[u8; 32]>,
}

impl Users {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, has no user, or a line that is not `user:password`.
    pub fn open(config: &AuthConfig) -> Result<Users, UsersError> {
        let path = config.file.clone();
        let table = RwLock::new(Arc::new(Table::read(&path)?));
        Ok(Users { path, table })
    }

    /// Reads the file again. Clients that are authenticated stay so.
    ///
    /// # Errors
    /// As at the start; the users known so far stay.
    pub fn reload(&self) -> Result<(), UsersError> {
        let table = Table::read(&self.path)?;
        *self.table.write() = Arc::new(table);
        Ok(())
    }

    /// Whether there is such a user with this password.
    pub fn know(&self, user: &[u8], password: &[u8]) -> bool {
        let table = Arc::clone(&self.table.read());
        table.contains(user, password)
    }

    /// Something about the file that its owner should see.
    pub fn notice(&self) -> Option<String> {
        let mode = std::fs::metadata(&self.path).ok()?.mode();
        (mode & OTHERS_MASK != 0).then(|| {
            let (path, mode) = (self.path.display(), mode & 0o777);
            format!("others than its owner may read {path} (mode {mode:o}); chmod 600 keeps the passwords secret")
        })
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Users")
            .field("path", &self.path)
            .field("users", &"***")
            .finish()
    }
}

impl Table {
    fn read(path: &Path) -> Result<Table, UsersError> {
        let unreadable = |error| UsersError::Read {
            path: path.to_owned(),
            error,
        };
        let mut text = Vec::new();
        File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text))
            .map_err(unreadable)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            // Its last line may be cut, and half a password must not let anybody in.
            return Err(UsersError::TooLarge {
                path: path.to_owned(),
            });
        }
        let mut key = [0; 32];
        getrandom(&mut key, GetRandomFlags::empty()).map_err(|error| unreadable(error.into()))?;
        let mut table = Table {
            hash: KeyedHash::new_from_slice(&key).expect("HMAC takes keys of any length"),
            digests: Vec::new(),
        };
        for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                continue;
            }
            table.add(line).map_err(|reason| UsersError::Line {
                path: path.to_owned(),
                line: number + 1,
                reason,
            })?;
        }
        if table.digests.is_empty() {
            return Err(UsersError::Empty {
                path: path.to_owned(),
            });
        }
        Ok(table)
    }

    fn add(&mut self, line: &[u8]) -> Result<(), &'static str> {
        if line.len() > LINE_BYTES_MAX {
            return Err("longer than 512 bytes");
        }
        let colon =
            memchr::memchr(b':', line).ok_or("expected user:password, there is no colon")?;
        let (user, password) = (&line[..colon], &line[colon + 1..]);
        if user.is_empty() {
            return Err("no user before the colon");
        }
        if password.is_empty() {
            return Err("no password behind the colon");
        }
        if self.digests.len() == USERS_MAX {
            return Err("more than 1024 users");
        }
        self.digests.push(self.digest(user, password));
        Ok(())
    }

    fn digest(&self, user: &[u8], password: &[u8]) -> [u8; 32] {
        let mut hash = self.hash.clone();
        // Its length ends the user: no other pair has the same bytes.
        hash.update(&(user.len() as u64).to_be_bytes());
        hash.update(user);
        hash.update(password);
        hash.finalize().into_bytes().into()
    }

    fn contains(&self, user: &[u8], password: &[u8]) -> bool {
        let digest = self.digest(user, password);
        let known = self
            .digests
            .iter()
            .fold(Choice::from(0), |known, other| known | other.ct_eq(&digest));
        known.into()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn users(text: &str) -> (tempfile::TempDir, Result<Users, UsersError>) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users");
        std::fs::write(&file, text).unwrap();
        let users = Users::open(&AuthConfig { file, sasl: false });
        (folder, users)
    }

    #[test]
    fn user_and_password_belong_together() {
        let (_folder, users) = users("alice:one\r\n\nbob:two:with:colons\ncarl:last");
        let users = users.unwrap();
        for (user, password, known) in [
            ("alice", "one", true),
            ("bob", "two:with:colons", true),
            ("carl", "last", true),
            ("alice", "last", false),
            ("alic", "eone", false),
            ("alice", "on", false),
            ("", "", false),
        ] {
            assert_eq!(
                users.know(user.as_bytes(), password.as_bytes()),
                known,
                "{user}"
            );
        }
        assert!(!format!("{users:?}").contains("one"));
    }

    // A file that cannot be used leaves the users as they are, and what is said about it is where,
    // not what.
    #[test]
    fn a_bad_file_changes_nothing_and_tells_the_line() {
        let (folder, users) = users("alice:one\n");
        let users = users.unwrap();
        let path = folder.path().join("users");
        let many = "u:p\n".repeat(USERS_MAX + 1);
        let long = format!("u:{}", "p".repeat(LINE_BYTES_MAX));
        // As many users as there may be, each with as long a line: more than is read.
        let large = format!("u:{}\n", "p".repeat(LINE_BYTES_MAX - 2)).repeat(USERS_MAX);
        for (text, reason) in [
            ("bob:two\nsecret\n", "users:2: expected"),
            (":two\n", "users:1: no user"),
            ("\nbob:\n", "users:2: no password"),
            ("\n\n", "no line user:password"),
            (&many, "users:1025: more than 1024"),
            (&long, "users:1: longer than 512"),
            (&large, "users: larger than 524288 bytes"),
        ] {
            std::fs::write(&path, text).unwrap();
            let said = users.reload().unwrap_err().to_string();
            assert!(said.contains(reason) && !said.contains("secret"), "{said}");
            assert!(users.know(b"alice", b"one"));
        }
        std::fs::write(&path, "bob:two\n").unwrap();
        users.reload().unwrap();
        assert!(users.know(b"bob", b"two") && !users.know(b"alice", b"one"));
    }

    #[test]
    fn a_readable_file_is_noticed() {
        let (folder, users) = users("alice:one\n");
        let users = users.unwrap();
        let path = folder.path().join("users");
        let set = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode));
        set(0o640).unwrap();
        assert!(users.notice().unwrap().contains("mode 640"));
        set(0o600).unwrap();
        assert_eq!(users.notice(), None);
    }
}

//! How this process shows servers that it may use them: encryption, user and password.
//!
//! Both come from files that are read before the process gives root's rights up, and again on
//! SIGHUP. Nothing that is printed or logged carries a password or a key.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use parking_lot::RwLock;

use crate::tls::{Connector, ConnectorConfig, TlsError};

/// Bytes of a user and a password, each: memcached and tiercache take them in one value of 1 KiB.
const SECRET_BYTES_MAX: usize = 500;

/// Access bits of everybody but the owner.
const OTHERS_MASK: u32 = 0o077;

/// What servers want to be shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessConfig {
    /// Encryption of TCP connections; none unless it is asked for.
    pub tls: Option<ConnectorConfig>,
    /// User and password; none unless they are named.
    pub login: Option<LoginConfig>,
}

/// A user, and where his password is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginConfig {
    /// The user.
    pub username: String,
    /// A file whose first line is the password.
    pub password_file: PathBuf,
}

/// What was read from the files.
#[derive(Debug, Default)]
pub struct Access {
    pub(super) tls: Option<Connector>,
    pub(super) login: Option<Login>,
}

/// Why a file cannot be used. Says what is wrong, never what is in it.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A certificate, a key or authorities.
    #[error("memcached servers: {0}")]
    Tls(#[from] TlsError),
    /// The password.
    #[error("memcached servers: password file {}: {reason}", path.display())]
    Password {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl Access {
    /// Reads all files.
    ///
    /// # Errors
    /// Names the first file that cannot be used.
    pub fn open(config: &AccessConfig) -> Result<Access, AccessError> {
        Ok(Access {
            tls: config.tls.as_ref().map(Connector::open).transpose()?,
            login: config.login.as_ref().map(Login::open).transpose()?,
        })
    }

    /// Whether there are files at all.
    pub fn is_any(&self) -> bool {
        self.tls.is_some() || self.login.is_some()
    }

    /// Reads all files again, for connections that are made from now on.
    ///
    /// # Errors
    /// As at the start; what was read before of that file stays.
    pub fn reload(&self) -> Result<(), AccessError> {
        if let Some(tls) = &self.tls {
            tls.reload()?;
        }
        if let Some(login) = &self.login {
            *login.password.write() = read_password(&login.config.password_file)?;
        }
        Ok(())
    }

    /// Something about the files that their owner should see.
    pub fn notice(&self) -> Option<String> {
        let path = &self.login.as_ref()?.config.password_file;
        let mode = std::fs::metadata(path).ok()?.mode();
        (mode & OTHERS_MASK != 0).then(|| {
            let (path, mode) = (path.display(), mode & 0o777);
            format!("others than its owner may read {path} (mode {mode:o}); chmod 600 keeps the password secret")
        })
    }
}

/// A user and his password.
pub(super) struct Login {
    config: LoginConfig,
    password: RwLock<Vec<u8>>,
}

impl Login {
    fn open(config: &LoginConfig) -> Result<Login, AccessError> {
        Ok(Login {
            password: RwLock::new(read_password(&config.password_file)?),
            config: config.clone(),
        })
    }

    /// The request that memcached takes for a login: a store of user and password under any key.
    pub(super) fn request(&self) -> Vec<u8> {
        let (user, password) = (self.config.username.as_bytes(), self.password.read());
        let size = user.len() + 1 + password.len();
        let mut request = format!("set login 0 0 {size}\r\n").into_bytes();
        for part in [user, b" ", password.as_slice(), b"\r\n"] {
            request.extend_from_slice(part);
        }
        request
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Login")
            .field("config", &self.config)
            .field("password", &"***")
            .finish()
    }
}

/// Whether a name can be told as a user: it ends at the first space.
pub fn is_username(name: &str) -> bool {
    let plain = |byte: u8| !byte.is_ascii_control() && byte != b' ';
    !name.is_empty() && name.len() <= SECRET_BYTES_MAX && name.bytes().all(plain)
}

fn read_password(path: &Path) -> Result<Vec<u8>, AccessError> {
    let refuse = |reason: &dyn fmt::Display| AccessError::Password {
        path: path.to_owned(),
        reason: reason.to_string(),
    };
    let line = first_line(path).map_err(|error| refuse(&error))?;
    match line.len() {
        0 => Err(refuse(&"its first line is empty")),
        1..=SECRET_BYTES_MAX => Ok(line),
        _ => Err(refuse(&"its first line is longer than 500 bytes")),
    }
}

/// The first line of a file without its end; one byte more than a password has if it is longer.
fn first_line(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    // Two bytes of line end, and one by which a longer line shows.
    let enough = SECRET_BYTES_MAX as u64 + 3;
    File::open(path)?.take(enough).read_to_end(&mut text)?;
    let mut line = match memchr::memchr(b'\n', &text) {
        Some(end) => text[..end].to_vec(),
        None => text,
    };
    if line.ends_with(b"\r") {
        line.pop();
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(text: &[u8]) -> (tempfile::TempDir, LoginConfig, Result<Access, AccessError>) {
        let folder = tempfile::tempdir().unwrap();
        let password_file = folder.path().join("password");
        std::fs::write(&password_file, text).unwrap();
        let login = LoginConfig {
            username: "alice".to_owned(),
            password_file,
        };
        let access = Access::open(&AccessConfig {
            tls: None,
            login: Some(login.clone()),
        });
        (folder, login, access)
    }

    #[test]
    fn the_first_line_is_the_password() {
        for text in ["one two", "one two\n", "one two\r\nthree\n"] {
            let (_folder, _, access) = login(text.as_bytes());
            let request = access.unwrap().login.unwrap().request();
            assert_eq!(
                request, b"set login 0 0 13\r\nalice one two\r\n",
                "{text:?}"
            );
        }
    }

    // What cannot be used leaves the password as it is, and nothing that is said tells what it is.
    #[test]
    fn a_bad_file_changes_nothing_and_is_not_told() {
        let (_folder, config, access) = login(b"secret\n");
        let access = access.unwrap();
        let long = [b"secret".repeat(100).as_slice(), b"\n"].concat();
        for (text, reason) in [
            (&b"\nsecret\n"[..], "first line is empty"),
            (&long, "longer than 500"),
        ] {
            std::fs::write(&config.password_file, text).unwrap();
            let said = access.reload().unwrap_err().to_string();
            assert!(said.contains(reason) && !said.contains("secret"), "{said}");
        }
        assert!(!format!("{access:?}").contains("secret"));
        let request = access.login.as_ref().unwrap().request();
        assert!(request.ends_with(b"alice secret\r\n"));
        std::fs::write(&config.password_file, "other").unwrap();
        access.reload().unwrap();
        let request = access.login.as_ref().unwrap().request();
        assert!(request.ends_with(b"alice other\r\n"));
    }

    #[test]
    fn a_user_is_one_word() {
        for (name, is) in [("alice", true), ("a b", false), ("", false), ("a\n", false)] {
            assert_eq!(is_username(name), is, "{name:?}");
        }
    }
}

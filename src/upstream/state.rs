//! The folder of what has to outlive the process: whose it is, and what its files are called.
//!
//! ```text
//! DIR/lock                   held with flock while a process uses the folder
//!     undelivered-PLACE      the deletes that the server there has missed
//! ```
//! A second process would remove what the first one has written, so each needs a folder of its own.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::config::Place;
use super::hash::md5;
use crate::lock::{Locked, lock_folder};

/// What the names of files with missed deletes begin with.
const PREFIX: &str = "undelivered-";

/// Bytes of an escaped place that stand in a name as they are. File systems take names of 255 bytes.
const NAME_BYTES_MAX: usize = 200;

/// Makes the folder where it is missing and locks it, as long as the file is open.
///
/// # Errors
/// It cannot be made or locked, or another process has it.
pub(super) fn open(folder: &Path) -> io::Result<File> {
    std::fs::create_dir_all(folder)?;
    match lock_folder(File::open(folder)?)? {
        Locked::Ours(lock) => Ok(lock),
        Locked::Others { holder } => Err(io::Error::other(format!(
            "it is in use by another process{holder}: each needs a folder of its own (--state DIR)"
        ))),
    }
}

/// The file of what the server at `place` was not told. No two places share one.
pub(super) fn file_of(folder: &Path, place: &Place) -> PathBuf {
    folder.join(format!("{PREFIX}{}", name_of(place)))
}

/// Tells of files that belong to none of the `places`: their servers are told of them when they are used again.
pub(super) fn tell_of_others<'a>(folder: &Path, places: impl Iterator<Item = &'a Place>) {
    let known: Vec<PathBuf> = places.map(|place| file_of(folder, place)).collect();
    let Ok(entries) = std::fs::read_dir(folder) else {
        return; // It was read a moment ago; only a notice is lost.
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default();
        if name.as_bytes().starts_with(PREFIX.as_bytes()) && !known.contains(&path) {
            tracing::warn!(path = %path.display(), "missed deletes of a server that is not configured: kept");
        }
    }
}

/// A place as part of a file's name: `_` for the colon before a port, `%` and two digits for other bytes.
fn name_of(place: &Place) -> String {
    let text = match place {
        Place::Tcp(..) => place.to_string().into_bytes(),
        Place::Unix(path) => path.as_os_str().as_bytes().to_vec(),
    };
    let mut name = String::new();
    for byte in &text {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' => name.push(char::from(*byte)),
            b':' => name.push('_'),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    if name.len() <= NAME_BYTES_MAX {
        return name;
    }
    // No other name begins so: that of a host ends in a port, that of a socket begins with a slash.
    let digest = u128::from_be_bytes(md5(&text));
    format!("long-{digest:032x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(path: &str) -> Place {
        Place::Unix(PathBuf::from(path))
    }

    fn host(name: &str) -> Place {
        Place::Tcp(name.to_owned(), 11211)
    }

    // The story of a delete that was lost: the servers at two sockets shared a file, and what was delivered to the one was
    // removed for both.
    #[test]
    fn no_two_places_share_a_file() {
        let long = "/long".repeat(60);
        let places = [
            (host("10.0.0.1"), "10.0.0.1_11211"),
            (host("cache-1.example"), "cache-1.example_11211"),
            (host("a_b"), "a%5Fb_11211"),
            (host("::1"), "%5B__1%5D_11211"),
            (socket("/run/a_b"), "%2Frun%2Fa%5Fb"),
            (socket("/run/a/b"), "%2Frun%2Fa%2Fb"),
            (socket("/run/a:b"), "%2Frun%2Fa_b"),
            (socket("/run/a%2Fb"), "%2Frun%2Fa%252Fb"),
        ];
        for (place, name) in &places {
            assert_eq!(name_of(place), *name);
        }
        let (one, other) = (format!("{long}1"), format!("{long}2"));
        let (one, other) = (name_of(&socket(&one)), name_of(&socket(&other)));
        assert!(one != other && one.len() <= NAME_BYTES_MAX && one.starts_with("long-"));
        let longest = format!("/{}", "x".repeat(NAME_BYTES_MAX - 3));
        assert_eq!(name_of(&socket(&longest)).len(), NAME_BYTES_MAX);
        assert!(name_of(&socket(&format!("{longest}x"))).starts_with("long-"));
    }

    #[test]
    fn a_folder_is_for_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let lock = open(&path).unwrap();
        let refused = open(&path).unwrap_err().to_string();
        let told = format!("(pid {}): each needs a folder", std::process::id());
        assert!(refused.contains(&told), "{refused}");
        drop(lock);
        open(&path).unwrap();
    }
}

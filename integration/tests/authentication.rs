//! Clients that people use authenticate, or are refused in memcached's words and nothing of theirs is executed.
//!
//! The driver of the text protocol runs against a real memcached too: what it expects is memcached's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;
use tiercache_integration::server::{Server, memcached_binary, tiercache_binary};

use crate::clients::{drive, python};

/// Users that the drivers know.
const USERS: &str = "alice:one\nbob:two\n";

const TEXT_DRIVER: &str = "pymemcache_auth_driver.py";
const SASL_DRIVER: &str = "bmemcached_auth_driver.py";

/// Starts a server of its own with [`USERS`] and runs a driver against it, which gets the length of a token that is too
/// long.
fn run_driver(binary: &Path, options: &[&str], driver: &str, oversized: &[&str]) {
    let folder = TempDir::new().expect("a temporary folder can be made");
    let users = folder.path().join("users");
    fs::write(&users, USERS).expect("the users can be written");
    fs::set_permissions(&users, fs::Permissions::from_mode(0o600))
        .expect("the mode of an own file can be set");
    let users = users.display().to_string();
    let server = Server::guarded(binary, &[&["-m", "64", "-Y", &users], options].concat());
    drive(&server, &python(), driver, oversized);
}

// A set whose value is the user and the password, as memcached wants it in text.
#[test]
fn pymemcache_authenticates_or_nothing_is_executed() {
    run_driver(&tiercache_binary(), &[], TEXT_DRIVER, &["1025"]);
}

// What that driver expects is what memcached does.
#[test]
fn pymemcache_is_refused_by_memcached_in_the_same_words() {
    run_driver(&memcached_binary(), &[], TEXT_DRIVER, &[]);
}

// SASL PLAIN with the same users.
#[test]
fn bmemcached_authenticates_or_nothing_is_executed() {
    run_driver(&tiercache_binary(), &["-S"], SASL_DRIVER, &["1500"]);
}

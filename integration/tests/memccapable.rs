//! libmemcached's conformance suite for both protocols.

use std::process::Command;

use tiercache_integration::server::Server;

/// Tests of `memccapable -a`; a new version of it may have more.
const TEXT_TESTS: usize = 27;
/// Tests of `memccapable -b`.
const BINARY_TESTS: usize = 27;

// All tests of the suite pass, and it really ran them.
#[test]
fn memccapable_passes_all_text_tests() {
    check("-a", TEXT_TESTS);
}

#[test]
fn memccapable_passes_all_binary_tests() {
    check("-b", BINARY_TESTS);
}

fn check(protocol: &str, tests: usize) {
    let server = Server::tiercache(&[]);
    let output = Command::new("memccapable")
        .args([
            protocol,
            "-h",
            "127.0.0.1",
            "-p",
            &server.address().port().to_string(),
        ])
        .output()
        .expect("memccapable runs: `apt-get install libmemcached-tools`");
    let text = String::from_utf8_lossy(&output.stdout);
    let passed = text.lines().filter(|line| line.ends_with("[pass]")).count();
    assert!(
        passed == tests && output.status.success(),
        "{passed} of {tests} passed\n{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

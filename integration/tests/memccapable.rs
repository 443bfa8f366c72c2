//! libmemcached's conformance suite for the text protocol.

use std::process::Command;

use tiercache_integration::server::Server;

/// Tests of `memccapable -a`; a new version of it may have more.
const TESTS: usize = 27;

// All tests of the suite pass, and it really ran them.
#[test]
fn memccapable_passes_all_text_tests() {
    let server = Server::tiercache(&[]);
    let output = Command::new("memccapable")
        .args([
            "-a",
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
        passed == TESTS && output.status.success(),
        "{passed} of {TESTS} passed\n{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

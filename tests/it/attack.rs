//! Limits against clients that cannot be trusted: `--hardened` and each of its parts.

use crate::support::{Server, program};

const BAD_FORMAT: &str = "CLIENT_ERROR bad command line format\r\n";

// A control byte in a key is taken as memcached takes it, refused under strict keys; base64 may carry any.
#[test]
fn strict_keys_hold_no_control_bytes() {
    let set = ("set a\x01b 0 0 1\r\nv\r\n", "STORED\r\n");
    Server::start(&[]).check(&[set, ("get a\x01b\r\n", "VALUE a\x01b 0 1\r\nv\r\nEND\r\n")]);
    let server = Server::start(&["--strict-keys", "on"]);
    server.check(&[
        (set.0, BAD_FORMAT),
        ("get ok a\x7f\r\n", BAD_FORMAT),
        ("delete a\x01\r\n", BAD_FORMAT),
        ("incr a\x01 1\r\n", BAD_FORMAT),
        ("touch a\x01 1\r\n", BAD_FORMAT),
        ("mg a\x01 v\r\n", BAD_FORMAT),
        ("md a\x01\r\n", BAD_FORMAT),
        ("me a\x01\r\n", BAD_FORMAT),
        (
            "set a\x01 0 0 1 noreply\r\nv\r\nms AQE= 1 b\r\nv\r\n",
            "HD\r\n",
        ),
        ("get \u{e4}\r\n", "END\r\n"),
    ]);
    assert_eq!(server.stat("curr_items"), 1);
}

// One key more than the limit ends the connection, whether the line is short or endless.
#[test]
fn a_get_of_too_many_keys_is_closed() {
    let server = Server::start(&["--keys-per-get-max", "3"]);
    server.check(&[("get a b c\r\ngat 0 a b c\r\n", "END\r\nEND\r\n")]);
    for line in [
        "get a b c d\r\nmn\r\n".to_owned(),
        format!("get {}\r\nmn\r\n", "a ".repeat(100_000)),
        format!("gets {}", "a ".repeat(100_000)),
    ] {
        let mut client = server.connect();
        // The server may close before it has read all of the line.
        let _ = std::io::Write::write_all(&mut client.0, line.as_bytes());
        let answer = client.rest();
        assert!(
            answer.is_empty() || answer == b"CLIENT_ERROR too many keys in one get\r\n",
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
    }
    server.check(&[("mn\r\n", "MN\r\n")]);
}

// Whatever was begun and does not come to its end is closed: a line, a value, a value that is swallowed. What is
// between two requests may take its time.
#[test]
fn a_request_that_never_ends_is_closed() {
    let server = Server::start(&["--request-timeout", "1s"]);
    let mut patient = server.connect();
    patient.check("set k 0 0 1\r\nv\r\n", "STORED\r\n");
    let mut swallowed = server.connect();
    swallowed.check(
        "set k 0 0 3000000\r\nx",
        "SERVER_ERROR object too large for cache\r\n",
    );
    let mut done = server.connect();
    done.check(
        &format!("set k 0 0 1100000\r\n{}\r\n", "x".repeat(1_100_000)),
        "SERVER_ERROR object too large for cache\r\n",
    );
    for half in ["get ", "set k 0 0 10\r\nabc", "get a b\r\nms k 3"] {
        let mut client = server.connect();
        client.send(half.as_bytes());
        let answered = if half.contains('b') && half.starts_with("get a") {
            &b"END\r\n"[..]
        } else {
            b""
        };
        assert_eq!(client.rest(), answered, "{half:?}");
    }
    assert_eq!(swallowed.rest(), b"");
    assert_eq!(server.stat("stalled_kicks"), 4);
    patient.check("mn\r\n", "MN\r\n");
    done.check("mn\r\n", "MN\r\n");
}

// --hardened is a set of defaults: what is given beside it counts.
#[test]
fn hardened_sets_what_is_left_open() {
    let printed = |arguments: &[&str]| -> toml::Table {
        let output = program()
            .arg("print-config")
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().parse().unwrap()
    };
    let limits = |config: &toml::Table| {
        let server = &config["server"];
        [
            "idle_timeout",
            "request_timeout",
            "strict_keys",
            "keys_per_get_max",
            "dump",
            "watch",
        ]
        .map(|name| server[name].to_string())
    };
    assert_eq!(
        limits(&printed(&[])),
        ["\"0ms\"", "\"0ms\"", "false", "0", "true", "true"]
    );
    assert_eq!(
        limits(&printed(&["--hardened"])),
        ["\"5m\"", "\"10s\"", "true", "1000", "false", "false"]
    );
    assert_eq!(
        limits(&printed(&[
            "--hardened",
            "-o",
            "idle_timeout=7",
            "--strict-keys",
            "off",
            "--keys-per-get-max",
            "5",
            "--request-timeout",
            "2s",
        ])),
        ["\"7s\"", "\"2s\"", "false", "5", "false", "false"]
    );
    let server = Server::start(&["--hardened"]);
    server.check(&[(
        "lru_crawler metadump all\r\n",
        "ERROR metadump not allowed\r\n",
    )]);
}

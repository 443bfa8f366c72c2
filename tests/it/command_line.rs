//! The command line as a user or a test suite of memcached sees it.

use std::process::Output;

use crate::support::{Server, identity, program};

fn run(arguments: &[&str]) -> Output {
    program().args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn versions_are_told() {
    assert_eq!(text(&run(&["-V"]).stdout), "memcached 1.6.45\n");
    assert!(text(&run(&["--version"]).stdout).starts_with("tiercache "));
    let help = text(&run(&["-h"]).stdout);
    assert!(help.starts_with("memcached 1.6.45\n"), "{help}");
    // Test suites take these words in the help for abilities.
    for ability in ["ext_path", "proxy_config", "SSL"] {
        assert!(!help.contains(ability), "{ability}");
    }
    assert!(text(&run(&["-i"]).stdout).contains("MIT License"));
}

// What cannot be honoured is refused with the reason and memcached's exit code for usage.
#[test]
fn nothing_is_ignored_in_silence() {
    for (arguments, reason) in [
        (&["-Z"][..], "needs a certificate"),
        (&["-o", "ssl_key=k"], "without encryption"),
        (&["-l", "notls:h"], "are for encrypted servers"),
        (&["-S"], "needs users"),
        (&["-S", "-Y", "f", "-B", "ascii"], "not for ascii alone"),
        (&["-Y", "f", "-B", "binary"], "binary needs SASL"),
        (&["-e", "f"], "-e: items are not kept"),
        (&["-N", "1"], "-N: "),
        (&["-B", "udp"], "expected auto, ascii or binary"),
        (&["-U", "11211"], "UDP is not served"),
        (&["-o", "ext_path=/f:1g"], "--dry"),
        (&["-o", "nonsense"], "unknown option"),
        (&["-I", "1000"], "memory.item_size_max"),
        (&["-m", "64", "-I", "33m"], "more than half"),
        (&["-m", "64", "--hot-size", "1m"], "memory.limit"),
        (&["-c", "0"], "server.max_connections"),
        (&["-R", "0"], "server.requests_per_turn"),
        (&["-t", "0"], "threads"),
        (&["-p", "70000"], "no TCP port"),
        (&["-p", "0"], "nobody could connect"),
        (&["--dry", "s3://bucket"], "--dry-spool"),
        (&["--dry", "ftp://host"], "ftp is no place for a dry tier"),
        (
            &["--cold", "memcached://h:1"],
            "memcached.state: memcached servers need a folder",
        ),
        (&["--tracking", "redis://h"], "redis is not built yet"),
        (&["--admin", "127.0.0.1:1"], "--admin: not built yet"),
        (&["--dry-size", "1g"], "without a dry tier"),
        (&["--nonsense"], "unexpected argument"),
    ] {
        let output = run(arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {said}");
        assert!(said.contains(reason), "{arguments:?}: {said}");
    }
}

// Flags that tune slabs are accepted with a notice.
#[test]
fn slab_flags_earn_a_notice() {
    let server = Server::start(&[
        "-f",
        "1.1",
        "-n",
        "48",
        "-L",
        "-o",
        "modern,slab_automove=1",
    ]);
    server.check(&[("mn\r\n", "MN\r\n")]);
    assert!(
        server
            .log()
            .contains("-f, -n, -L, -o modern, -o slab_automove"),
        "{}",
        server.log()
    );
}

#[test]
fn long_names_are_memcacheds() {
    let server = Server::start(&[
        "--conn-limit=7",
        "--max-item-size=2m",
        "--disable-cas",
        "--udp-port=0",
        "--protocol=auto",
        "--verbose",
    ]);
    let mut client = server.connect();
    client.send(b"stats settings\r\nquit\r\n");
    let settings = text(&client.rest());
    for row in [
        "maxconns 7",
        "item_size_max 2097152",
        "cas_enabled no",
        "verbosity 1",
        "client_flags_size 4",
    ] {
        assert!(
            settings.contains(&format!("STAT {row}\r\n")),
            "{row} in {settings}"
        );
    }
}

// -P and -d: the program returns once the server in the background serves, which then stops cleanly.
#[test]
fn a_daemon_is_ready_when_the_program_returns() {
    let folder = tempfile::tempdir().unwrap();
    let pid_file = folder.path().join("pid");
    let ports = folder.path().join("ports");
    let output = program()
        .args(identity())
        .args(["-d", "-p", "-1", "-l", "127.0.0.1", "-m", "16", "-P"])
        .arg(&pid_file)
        .env("MEMCACHED_PORT_FILENAME", &ports)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let pid: i32 = std::fs::read_to_string(&pid_file)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    assert!(
        std::fs::read_to_string(&ports)
            .unwrap()
            .starts_with("TCP INET: ")
    );
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    // The file goes last.
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    while pid_file.exists() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
}

// In the background too, what fails is told to whoever started it.
#[test]
fn a_daemon_that_fails_says_why() {
    let server = Server::start(&[]);
    let port = server.connect().0.peer_addr().unwrap().port().to_string();
    let arguments = ["-d", "-l", "127.0.0.1", "-p", &port, "-m", "16"];
    let output = run(&[identity(), &arguments].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("listen on 127.0.0.1"),
        "{}",
        text(&output.stderr)
    );
}

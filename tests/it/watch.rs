//! watch: the lines that a watcher gets for what other clients do.

use std::io::Read;

use crate::support::{Client, Server};

/// A client that has sent `watch` and was told OK.
fn watcher(server: &Server, kinds: &str) -> Client<std::net::TcpStream> {
    let mut client = server.connect();
    client.check(&format!("watch {kinds}\r\n"), "OK\r\n");
    client
}

/// The next lines, without time, number and socket, which differ from run to run.
fn next_lines<S: Read + std::io::Write>(client: &mut Client<S>, count: usize) -> Vec<String> {
    (0..count)
        .map(|_| {
            let mut line = Vec::new();
            while line.last() != Some(&b'\n') {
                let byte = client.receive(1);
                assert!(!byte.is_empty(), "closed after {line:?}");
                line.extend(byte);
            }
            let line = String::from_utf8(line).unwrap();
            let stamped: Vec<_> = line.trim_end().split(' ').collect();
            assert!(stamped[0].starts_with("ts=") && stamped[1].starts_with("gid="));
            stamped[2..]
                .iter()
                .filter(|field| !field.starts_with("cfd=") && !field.starts_with("rport="))
                .copied()
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect()
}

#[test]
fn watchers_see_gets_stores_and_deletes() {
    let server = Server::start(&[]);
    let mut watcher = watcher(&server, "fetchers mutations deletions");
    server.check(&[
        ("set a%b 5 100 2\r\nhi\r\n", "STORED\r\n"),
        ("get a%b none\r\n", "VALUE a%b 5 2\r\nhi\r\nEND\r\n"),
        ("add a%b 0 0 1\r\nx\r\n", "NOT_STORED\r\n"),
        ("ms a%b 1 MA\r\nx\r\n", "HD\r\n"),
        ("mg a%b v\r\n", "VA 3\r\nhix\r\n"),
        ("cas none 0 0 1 1\r\nx\r\n", "NOT_FOUND\r\n"),
        ("md a%b\r\n", "HD\r\n"),
        ("delete a%b\r\n", "NOT_FOUND\r\n"),
        ("set k 0 0 1\r\nx\r\n", "STORED\r\n"),
        ("delete k\r\n", "DELETED\r\n"),
    ]);
    let expected = [
        "type=item_store key=a%25b status=stored cmd=set ttl=100 clsid=1 size=2",
        "type=item_get key=a%25b status=found clsid=1 size=2",
        "type=item_get key=none status=not_found clsid=0 size=0",
        "type=item_store key=a%25b status=not_stored cmd=add ttl=0 clsid=1 size=1",
        "type=item_store key=a%25b status=stored cmd=append ttl=0 clsid=1 size=3",
        "type=item_get key=a%25b status=found clsid=1 size=3",
        "type=item_store key=none status=not_found cmd=cas ttl=0 clsid=1 size=1",
        "type=deleted key=a%25b cmd=md clsid=1 size=3",
        "type=item_store key=k status=stored cmd=set ttl=0 clsid=1 size=1",
        "type=deleted key=k cmd=delete clsid=1 size=1",
    ];
    assert_eq!(next_lines(&mut watcher, expected.len()), expected);
}

// A watcher sees the kinds that it asked for, and nothing of what was before it.
#[test]
fn watchers_see_what_they_asked_for() {
    let server = Server::start(&[]);
    server.check(&[("set before 0 0 1\r\nx\r\n", "STORED\r\n")]);
    let mut mutations = watcher(&server, "mutations");
    let mut fetchers = watcher(&server, "");
    server.check(&[
        ("get k\r\n", "END\r\n"),
        ("set k 0 0 1\r\nx\r\n", "STORED\r\n"),
    ]);
    assert_eq!(
        next_lines(&mut mutations, 1),
        ["type=item_store key=k status=stored cmd=set ttl=0 clsid=1 size=1"]
    );
    assert_eq!(
        next_lines(&mut fetchers, 1),
        ["type=item_get key=k status=not_found clsid=0 size=0"]
    );
    assert_eq!(server.stat("log_watchers"), 2);
}

#[test]
fn watchers_see_connections_and_requests() {
    let server = Server::start(&[]);
    let mut connections = watcher(&server, "connevents");
    let mut requests = watcher(&server, "rawcmds");
    server.check(&[("get a\r\nbogus \x1b\r\n", "END\r\nERROR\r\n")]);
    let lines = next_lines(&mut connections, 3);
    assert_eq!(
        lines[1..],
        [
            "type=conn_new rip=127.0.0.1 transport=tcp",
            "type=conn_close rip=127.0.0.1 transport=tcp reason=normal",
        ]
    );
    let lines = next_lines(&mut requests, 2);
    assert!(lines[0].ends_with(" get a"), "{lines:?}");
    assert!(lines[1].ends_with(r" bogus \x1b"), "{lines:?}");
}

// What leaves RAM for nowhere is an eviction.
#[test]
fn watchers_see_evictions() {
    let server = Server::start(&[]);
    let mut evictions = watcher(&server, "evictions");
    let mut client = server.connect();
    let value = "v".repeat(10_000);
    for number in 0..3000 {
        client.check(
            &format!("set key{number} 0 0 10000\r\n{value}\r\n"),
            "STORED\r\n",
        );
    }
    let line = next_lines(&mut evictions, 1).remove(0);
    assert!(
        line.starts_with("type=eviction key=key") && line.contains(" fetch=no ttl=-1 la="),
        "{line}"
    );
    assert!(line.ends_with(" size=10000"), "{line}");
}

#[test]
fn watching_can_be_refused_and_misspelt() {
    let server = Server::start(&["-W"]);
    server.check(&[(
        "watch fetchers\r\n",
        "CLIENT_ERROR watch commands not allowed\r\n",
    )]);
    let server = Server::start(&[]);
    server.check(&[
        ("watch nonsense\r\n", "ERROR\r\n"),
        ("watch fetchers nonsense\r\nmn\r\n", "ERROR\r\nMN\r\n"),
    ]);
}

// Watchers end with their connections, and the server stops with watchers connected.
#[test]
fn watchers_are_few_and_leave() {
    let server = Server::start(&[]);
    let mut watchers: Vec<_> = (0..20).map(|_| watcher(&server, "sysevents")).collect();
    server.check(&[(
        "watch fetchers\r\n",
        "WATCHER_TOO_MANY log watcher limit reached\r\n",
    )]);
    watchers.truncate(10);
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    while server.stat("log_watchers") > 10 {
        assert!(std::time::Instant::now() < deadline);
    }
    let (code, log, _) = server.terminate();
    assert_eq!(code, Some(0), "{log}");
    for mut watcher in watchers {
        assert!(watcher.rest().is_empty());
    }
}

//! Commands for operators and their tools: listings, statistics, switches.

use crate::support::Server;

/// What a command answers, up to the end of the connection.
fn ask(server: &Server, command: &str) -> String {
    let mut client = server.connect();
    client.send(format!("{command}\r\nquit\r\n").as_bytes());
    String::from_utf8(client.rest()).unwrap()
}

#[test]
fn items_are_listed_in_every_form() {
    let server = Server::start(&[]);
    server.check(&[
        ("set k% 7 0 2\r\nhi\r\n", "STORED\r\n"),
        ("ms AAAA 1 b\r\nx\r\n", "HD\r\n"),
    ]);
    let rows = ask(&server, "lru_crawler metadump all");
    assert!(
        rows.starts_with("OK\r\nkey=") && rows.ends_with("END\r\n"),
        "{rows}"
    );
    let row = rows
        .lines()
        .find(|row| row.starts_with("key=k%25 exp=-1 la="));
    assert!(row.unwrap().contains(" fetch=no cls=1 size="), "{rows}");
    assert!(row.unwrap().ends_with(" flags=7 "), "{rows}");
    assert!(rows.contains("key=%00%00%00 "), "{rows}");

    let keys = ask(&server, "lru_crawler mgdump hash");
    let mut keys: Vec<_> = keys.split("\r\n").collect();
    keys.sort_unstable();
    assert_eq!(keys, ["", "EN", "OK", "mg AAAA b", "mg k%"]);

    assert_eq!(ask(&server, "lru_crawler metadump 1"), rows);
    server.check(&[
        ("lru_crawler metadump 2,3\r\n", "OK\r\nEND\r\n"),
        ("lru_crawler mgdump 5\r\n", "OK\r\nEN\r\n"),
        (
            "lru_crawler metadump 64\r\n",
            "BADCLASS invalid class id\r\n",
        ),
        ("lru_crawler metadump\r\n", "ERROR\r\n"),
        // A key that text cannot spell is left out, as in memcached.
        ("stats cachedump 1 0\r\n", "ITEM k% [2 b; 0 s]\r\nEND\r\n"),
        ("stats cachedump 2 0\r\n", "END\r\n"),
        (
            "stats cachedump 64 0\r\n",
            "CLIENT_ERROR Illegal slab id\r\n",
        ),
    ]);
}

// What was moved to dry by a stop is listed after the start, without being brought up.
#[test]
fn dry_items_are_listed_too() {
    let folder = tempfile::tempdir().unwrap();
    let dry = folder.path().join("dry").display().to_string();
    let arguments = ["--dry", &dry, "--dry-size", "32m"];
    let server = Server::start(&arguments);
    for number in 0..20 {
        server.check(&[(&format!("set key{number} 0 0 1\r\nx\r\n"), "STORED\r\n")]);
    }
    let (code, log, _) = server.terminate();
    assert_eq!(code, Some(0), "{log}");
    let server = Server::start(&arguments);
    let listed = ask(&server, "stats cachedump 3 0");
    assert_eq!(listed.matches(" [1 b; 0 s]\r\n").count(), 20, "{listed}");
    let listed = ask(&server, "stats cachedump 3 7");
    assert_eq!(listed.matches(" [1 b; 0 s]\r\n").count(), 7, "{listed}");
    let listed = ask(&server, "lru_crawler mgdump 3");
    assert_eq!(listed.matches("mg key").count(), 20, "{listed}");
}

#[test]
fn switches_refuse_what_they_turn_off() {
    let server = Server::start(&["-X", "-F"]);
    server.check(&[
        (
            "lru_crawler metadump all\r\n",
            "ERROR metadump not allowed\r\n",
        ),
        (
            "lru_crawler mgdump all\r\n",
            "ERROR key dump not allowed\r\n",
        ),
        (
            "stats cachedump 1 0\r\n",
            "CLIENT_ERROR stats cachedump not allowed\r\n",
        ),
        (
            "stats detail on\r\n",
            "CLIENT_ERROR stats detail not allowed\r\n",
        ),
        ("flush_all\r\n", "CLIENT_ERROR flush_all not allowed\r\n"),
        ("shutdown\r\n", "SERVER_ERROR: shutdown not enabled\r\n"),
    ]);
}

// The same switches in a file.
#[test]
fn a_file_turns_commands_off() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.toml");
    std::fs::write(
        &file,
        "[server]\ndump = false\nflush_all = false\nwatch = false\nshutdown = true\n",
    )
    .unwrap();
    let server = Server::start(&["--config", &file.display().to_string()]);
    server.check(&[
        (
            "lru_crawler metadump all\r\n",
            "ERROR metadump not allowed\r\n",
        ),
        ("flush_all\r\n", "CLIENT_ERROR flush_all not allowed\r\n"),
        ("watch\r\n", "CLIENT_ERROR watch commands not allowed\r\n"),
        ("shutdown now\r\n", "CLIENT_ERROR invalid shutdown mode\r\n"),
    ]);
    let mut client = server.connect();
    client.send(b"shutdown\r\n");
    assert!(client.rest().is_empty());
}

#[test]
fn the_crawler_answers_as_memcacheds() {
    let server = Server::start(&[]);
    server.check(&[
        ("lru_crawler enable\r\n", "OK\r\n"),
        ("lru_crawler disable noreply\r\nmn\r\n", "MN\r\n"),
        ("lru_crawler crawl all\r\n", "OK\r\n"),
        ("lru_crawler crawl 1,2\r\n", "OK\r\n"),
        ("lru_crawler crawl 0\r\n", "BADCLASS invalid class id\r\n"),
        ("lru_crawler sleep 1000\r\n", "OK\r\n"),
        (
            "lru_crawler sleep 1000001\r\n",
            "CLIENT_ERROR sleep must be one second or less\r\n",
        ),
        (
            "lru_crawler tocrawl x\r\n",
            "CLIENT_ERROR bad command line format\r\n",
        ),
        ("lru_crawler nonsense\r\n", "ERROR\r\n"),
        (
            "slabs reassign 1 2\r\n",
            "CLIENT_ERROR slab reassignment disabled\r\n",
        ),
        ("slabs automove 0\r\n", "OK\r\n"),
        ("lru mode flat\r\n", "OK\r\n"),
        ("lru mode segmented\r\n", "ERROR\r\n"),
    ]);
}

// `crawl` reclaims what has expired at once, which otherwise takes a pass of seconds.
#[test]
fn a_crawl_reclaims_what_expired() {
    let server = Server::start(&[]);
    server.check(&[("set k 0 -1 1\r\nx\r\n", "STORED\r\n")]);
    server.check(&[("lru_crawler crawl all\r\n", "OK\r\n")]);
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    while server.stat("curr_items") > 0 {
        assert!(std::time::Instant::now() < deadline);
    }
    assert_eq!(server.stat("expired_unfetched"), 1);
}

#[test]
fn connections_are_listed() {
    let server = Server::start(&[]);
    let mut watcher = server.connect();
    watcher.check("watch\r\n", "OK\r\n");
    // The state changes once the OK is sent.
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    while !ask(&server, "stats conns").contains(":state conn_watch\r\n") {
        assert!(std::time::Instant::now() < deadline);
    }
    let mut client = server.connect();
    let own = client.0.local_addr().unwrap();
    let port = client.0.peer_addr().unwrap().port();
    client.send(b"stats conns\r\nquit\r\n");
    let listed = String::from_utf8(client.rest()).unwrap();
    for part in [
        format!(":addr tcp:{own}\r\n"),
        format!(":listen_addr tcp:127.0.0.1:{port}\r\n"),
        ":state conn_parse_cmd\r\n".to_owned(),
        ":state conn_watch\r\n".to_owned(),
        ":state conn_listening\r\n".to_owned(),
        ":secs_since_last_cmd 0\r\n".to_owned(),
    ] {
        assert!(listed.contains(&part), "{part} in {listed}");
    }
    assert!(listed.ends_with("END\r\n"), "{listed}");
}

#[test]
fn sizes_are_counted_where_that_is_switched_on() {
    let server = Server::start(&[]);
    server.check(&[("stats sizes\r\n", "STAT sizes_status disabled\r\nEND\r\n")]);
    let server = Server::start(&["-o", "track_sizes"]);
    server.check(&[
        ("set a 0 0 2\r\nhi\r\n", "STORED\r\n"),
        ("set b 0 0 2\r\nhi\r\n", "STORED\r\n"),
        ("stats sizes\r\n", "STAT 32 2\r\nEND\r\n"),
    ]);
}

// Prefixes are counted from `on` to `off`, and a reset forgets them.
#[test]
fn prefixes_are_counted_while_that_is_on() {
    let server = Server::start(&[]);
    server.check(&[
        ("get a:1\r\n", "END\r\n"),
        ("stats detail on\r\n", "OK\r\n"),
        ("set a:1 0 0 1\r\nx\r\n", "STORED\r\n"),
        ("get a:1 a:2\r\n", "VALUE a:1 0 1\r\nx\r\nEND\r\n"),
        ("delete a:1\r\n", "DELETED\r\n"),
        ("stats detail off\r\n", "OK\r\n"),
        ("get a:1\r\n", "END\r\n"),
        (
            "stats detail dump\r\n",
            "PREFIX a get 2 hit 1 set 1 del 1\r\nEND\r\n",
        ),
        ("stats reset\r\n", "RESET\r\n"),
        ("stats detail dump\r\n", "END\r\n"),
    ]);
}

// `verbosity` changes what is logged, and what clients chose cannot break the log's lines.
#[test]
fn verbosity_logs_requests() {
    let server = Server::start(&[]);
    let long = "k".repeat(200);
    server.check(&[
        ("get before\r\n", "END\r\n"),
        ("verbosity 2\r\n", "OK\r\n"),
        ("get \x1b[2J\r\n", "END\r\n"),
        (&format!("get {long}\r\n"), "END\r\n"),
        ("verbosity 0\r\n", "OK\r\n"),
        ("get after\r\n", "END\r\n"),
    ]);
    let (_, log, _) = server.terminate();
    assert!(log.contains(r"request get \x1b[2J"), "{log}");
    assert!(log.contains("kkk... (204 bytes)"), "{log}");
    assert!(!log.contains("before") && !log.contains("after"), "{log}");
}

#[test]
fn a_client_cannot_fill_the_log_by_setting_how_much_is_logged() {
    let server = Server::start(&[]);
    let changes = 1000;
    let requests = "verbosity 0\r\n".repeat(changes);
    server.check(&[(&requests, &"OK\r\n".repeat(changes))]);
    let (_, log, _) = server.terminate();
    let logged = log.matches("a client set how much is logged").count();
    assert!((1..changes / 2).contains(&logged), "{logged} lines");
}

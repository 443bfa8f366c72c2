//! Connections: order, limits, half requests, clients that misbehave, unix sockets, stopping.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use crate::support::{Client, PATIENCE, Server};

// The replies of a pipeline come in the order of its requests, whatever they are.
#[test]
fn a_pipeline_keeps_its_order() {
    let server = Server::start(&[]);
    server.check(&[
        (
            "set a 0 0 1\r\n1\r\nset b 0 0 1 noreply\r\n2\r\nnonsense\r\nget a b\r\nmn\r\n",
            "STORED\r\nERROR\r\nVALUE a 0 1\r\n1\r\nVALUE b 0 1\r\n2\r\nEND\r\nMN\r\n",
        ),
        (
            "delete a\r\nget a\r\nmg b v q\r\nmg a v q\r\nmn\r\n",
            "DELETED\r\nEND\r\nVA 1\r\n2\r\nMN\r\n",
        ),
    ]);
}

// A request means the same however it is cut into pieces.
#[test]
fn requests_may_come_byte_by_byte() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.0.set_nodelay(true).unwrap();
    for byte in b"set k 5 0 10\r\n0123456789\r\nget k\r\n" {
        client.send(&[*byte]);
    }
    client.expect("STORED\r\nVALUE k 5 10\r\n0123456789\r\nEND\r\n");
}

// More requests in one read than one turn allows: all are answered.
#[test]
fn a_long_pipeline_gives_way_and_goes_on() {
    let server = Server::start(&["-R", "20"]);
    server.check(&[("set k 0 0 1\r\nv\r\n", "STORED\r\n")]);
    let mut client = server.connect();
    client.send(&b"get k\r\n".repeat(1000));
    let answers = b"VALUE k 0 1\r\nv\r\nEND\r\n".repeat(1000);
    assert!(client.receive(answers.len()) == answers);
    assert!(server.stat("conn_yields") >= 49);
}

// Values of every size around the buffers' sizes come back as they were sent.
#[test]
fn values_around_the_buffers_sizes_survive() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for size in [
        0, 1, 2040, 2048, 16_300, 16_384, 16_400, 65_536, 80_000, 81_920, 1_000_000,
    ] {
        let value: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
        client.send(format!("set k 0 0 {size}\r\n").as_bytes());
        client.send(&value);
        client.send(b"\r\nget k\r\n");
        client.expect(&format!("STORED\r\nVALUE k 0 {size}\r\n"));
        assert!(client.receive(size) == value, "{size} bytes");
        client.expect("\r\nEND\r\n");
    }
}

// A value over the limit is swallowed, the old one goes, the connection stays.
#[test]
fn an_oversized_value_is_swallowed() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check("set k 0 0 3\r\nold\r\n", "STORED\r\n");
    client.send(b"set k 0 0 3000000\r\n");
    client.send(&vec![b'x'; 3_000_000]);
    client.send(b"\r\n");
    client.expect("SERVER_ERROR object too large for cache\r\n");
    client.check("get k\r\n", "END\r\n");
}

// memcached's own text for the connection over the limit; a place that is free again is used.
#[test]
fn a_connection_over_the_limit_is_told_so() {
    let server = Server::start(&["-c", "3"]);
    let mut first = server.connect();
    first.check("mn\r\n", "MN\r\n");
    let mut others = [server.connect(), server.connect()];
    for other in &mut others {
        other.check("mn\r\n", "MN\r\n");
    }
    assert_eq!(
        server.connect().rest(),
        b"ERROR Too many open connections\r\n"
    );
    drop(others);
    // The places become free once the server has seen the ends.
    loop {
        let mut again = server.connect();
        again.send(b"mn\r\nquit\r\n");
        match again.rest().as_slice() {
            b"MN\r\n" => break,
            refused => assert_eq!(refused, b"ERROR Too many open connections\r\n"),
        }
    }
    first.check("mn\r\n", "MN\r\n");
}

// Without maxconns_fast a connection over the limit waits for a place.
#[test]
fn a_connection_over_the_limit_may_wait() {
    let server = Server::start(&["-c", "1", "-o", "no_maxconns_fast"]);
    let mut first = server.connect();
    first.check("mn\r\n", "MN\r\n");
    let mut second = server.connect();
    second.send(b"mn\r\n");
    drop(first);
    second.expect("MN\r\n");
}

#[test]
fn an_idle_connection_is_closed() {
    let server = Server::start(&["-o", "idle_timeout=1"]);
    let mut idle = server.connect();
    idle.check("mn\r\n", "MN\r\n");
    assert_eq!(idle.rest(), b"");
    assert_eq!(server.stat("idle_kicks"), 1);
}

// What a browser was made to send is not executed.
#[test]
fn http_is_closed_without_an_answer() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send(b"POST / HTTP/1.1\r\nHost: h\r\n\r\nset k 0 0 1\r\nv\r\n");
    assert_eq!(client.rest(), b"");
    server.check(&[("get k\r\n", "END\r\n")]);
}

#[test]
fn a_line_without_end_is_closed() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send(&[b'x'; 3000]);
    assert_eq!(client.rest(), b"");
}

// A client that has sent everything and closed its side still gets all answers.
#[test]
fn a_half_closed_connection_is_answered() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send(b"mn\r\nget k\r\n");
    client.0.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), b"MN\r\nEND\r\n");
}

// A client that writes without reading is not read from for ever, and others do not notice.
#[test]
fn a_client_that_does_not_read_bothers_nobody() {
    let server = Server::start(&[]);
    let mut greedy = server.connect();
    greedy.send(b"set k 0 0 100000\r\n");
    greedy.send(&[b'v'; 100_000]);
    greedy.send(b"\r\n");
    greedy.expect("STORED\r\n");
    greedy.0.set_nonblocking(true).unwrap();
    let mut requests = 0;
    // Until the server has stopped reading and both sockets are full.
    while let Ok(count) = greedy.0.write(&b"get k\r\n".repeat(1000)) {
        requests += count / 7;
        server.check(&[("mn\r\n", "MN\r\n")]);
    }
    greedy.0.set_nonblocking(false).unwrap();
    let one = b"VALUE k 0 100000\r\n".len() + 100_000 + b"\r\nEND\r\n".len();
    let mut left = requests.min(100) * one;
    while left > 0 {
        left -= greedy.receive(left.min(1 << 16)).len();
    }
}

// Half sent values beyond the common bound: some of the stalled give way, the others and those who
// are not stalled are served.
#[test]
fn half_sent_values_share_a_bound() {
    let server = Server::start(&["-c", "200"]);
    let body = vec![b'x'; 1_000_000];
    let stalled: Vec<_> = (0..80)
        .map(|number| {
            let mut client = server.connect();
            client.send(format!("set k{number} 0 0 1000100\r\n").as_bytes());
            // Some are closed before they have sent it all.
            let _ = client.0.write_all(&body);
            client
        })
        .collect();
    let dialogue = "VALUE probe 0 2\r\nok\r\nEND\r\n";
    server.check(&[
        ("set probe 0 0 2\r\nok\r\n", "STORED\r\n"),
        ("get probe\r\n", dialogue),
    ]);
    let mut stored = 0;
    for mut client in stalled {
        let _ = client
            .0
            .write_all(&[b'x'; 100])
            .and_then(|()| client.0.write_all(b"\r\nquit\r\n"));
        let answer = client.rest();
        assert!(answer.is_empty() || answer == b"STORED\r\n");
        stored += usize::from(!answer.is_empty());
    }
    assert!((15..=40).contains(&stored), "{stored} of 80 were kept");
}

#[test]
fn a_unix_socket_is_served_instead_of_tcp() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let arguments = ["-s", "socket", "-a", "750", "-m", "16", "-t", "1"];
    let server = Server::start_in(folder, &arguments);
    let stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut client = Client(stream);
    client.check(
        "set k 0 0 1\r\nv\r\nget k\r\n",
        "STORED\r\nVALUE k 0 1\r\nv\r\nEND\r\n",
    );
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o750
    );
    let (code, _, folder) = server.terminate();
    assert_eq!(code, Some(0));
    assert!(!folder.path().join("socket").exists());
}

// A stop closes idle connections and ends with success, quickly, though clients stay.
#[test]
fn a_stop_closes_idle_connections() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check("mn\r\n", "MN\r\n");
    let (code, log, _) = server.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(client.rest(), b"");
}

// The command and the signal stop the same way; without -A the command is refused.
#[test]
fn shutdown_needs_permission() {
    let server = Server::start(&[]);
    server.check(&[("shutdown\r\n", "SERVER_ERROR: shutdown not enabled\r\n")]);
    let server = Server::start(&["-A"]);
    let mut client = server.connect();
    client.send(b"shutdown graceful\r\n");
    assert_eq!(client.rest(), b"");
}

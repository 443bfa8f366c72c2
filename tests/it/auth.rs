//! Authentication: nothing happens before it, on no listener, and it holds nothing up.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use tempfile::TempDir;

use crate::support::{Client, PATIENCE, Server, identity, program};

const TCP: [&str; 8] = ["-p", "-1", "-l", "127.0.0.1", "-m", "16", "-t", "1"];

/// A folder with the file `users`.
fn folder(users: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users");
    fs::write(&path, users).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    folder
}

fn start(users: &str) -> Server {
    Server::start_in(folder(users), &[&TCP[..], &["-Y", "users"]].concat())
}

fn token(user: &str, password: &str) -> String {
    let token = format!("{user} {password}");
    format!("set auth 0 0 {}\r\n{token}\r\n", token.len())
}

const WRONG: &str = "CLIENT_ERROR authentication failure\r\n";

// The right password opens the connection, and what was pipelined behind it is served.
#[test]
fn the_right_password_opens_the_connection() {
    let server = start("alice:one\nbob:two three\n");
    let store = "set k 0 0 1\r\nv\r\n";
    server.check(&[(&(token("alice", "one") + store), "STORED\r\nSTORED\r\n")]);
    let get = token("bob", "two three") + "get k\r\n";
    server.check(&[(&get, "STORED\r\nVALUE k 0 1\r\nv\r\nEND\r\n")]);
    // Now it is a set like any other.
    let again = token("bob", "wrong");
    server.check(&[
        (&token("bob", "two three"), "STORED\r\n"),
        (&again, "STORED\r\n"),
    ]);
}

// Byte by byte, and with more behind it than an unauthenticated client may send.
#[test]
fn an_authentication_may_come_in_pieces_and_be_followed_by_much() {
    let server = start("alice:one\n");
    let mut client = server.connect();
    client.0.set_nodelay(true).unwrap();
    for byte in token("alice", "one").bytes() {
        client.send(&[byte]);
    }
    client.expect("STORED\r\n");
    let mut client = server.connect();
    let mut requests = token("alice", "one");
    let value = "x".repeat(50_000);
    write!(requests, "set k 0 0 50000\r\n{value}\r\nget k\r\n").unwrap();
    client.check(
        &requests,
        &format!("STORED\r\nSTORED\r\nVALUE k 0 50000\r\n{value}\r\nEND\r\n"),
    );
}

// Everything but the right password is refused in memcached's words and not executed.
#[test]
fn nothing_is_executed_before() {
    let server = start("alice:one\n");
    for (request, reply) in [
        (
            "set key 0 0 1 noreply\r\nv\r\n",
            "CLIENT_ERROR bad authentication token format\r\n",
        ),
        ("delete kept\r\n", "CLIENT_ERROR unauthenticated\r\n"),
        (
            "flush_all\r\nmg kept v\r\n",
            "CLIENT_ERROR unauthenticated\r\nCLIENT_ERROR unauthenticated\r\n",
        ),
        ("set a 0 0 2000\r\n", "CLIENT_ERROR auth token too long\r\n"),
        (
            "set a 0 0 9\r\nalice onexx",
            "CLIENT_ERROR bad command line termination\r\n",
        ),
        (&token("alice", "two"), WRONG),
        (&token("bob", "one"), WRONG),
        (&token("alice", ""), WRONG),
    ] {
        server.check(&[(request, reply)]);
    }
    for silent in ["quit\r\n", "mn\r\n", "\u{80}\0\n"] {
        let mut client = server.connect();
        client.send(silent.as_bytes());
        assert_eq!(client.rest(), b"");
    }
    let mut client = server.connect();
    let request = token("alice", "one") + "get key kept\r\nstats\r\nquit\r\n";
    client.send(request.as_bytes());
    let answers = String::from_utf8(client.rest()).unwrap();
    assert!(answers.starts_with("STORED\r\nEND\r\n"), "{answers}");
    for row in ["cmd_set 0", "cmd_flush 0", "auth_cmds 4", "auth_errors 3"] {
        assert!(
            answers.contains(&format!("STAT {row}\r\n")),
            "{row}: {answers}"
        );
    }
}

// Guessing ends with the third wrong password of a connection, flooding with 2 KiB.
#[test]
fn guessing_and_flooding_end() {
    let server = start("alice:one\n");
    let mut client = server.connect();
    let guesses = token("alice", "two").repeat(3) + &token("alice", "one");
    client.send(guesses.as_bytes());
    assert_eq!(client.rest(), WRONG.repeat(3).as_bytes());
    let mut client = server.connect();
    let flood = "get some key\r\n".repeat(2048 / 14 + 1) + &token("alice", "one");
    client.send(flood.as_bytes());
    // A reset may take the last answers.
    let answers = String::from_utf8(client.rest()).unwrap();
    assert!(!answers.contains("STORED"));
}

// Who does not authenticate is closed, and meanwhile bothers nobody.
#[test]
fn a_silent_client_is_closed() {
    let server = start("alice:one\n");
    let mut silent = server.connect();
    let mut half = server.connect();
    half.send(b"set auth 0 0 9\r\nali");
    let mut idle = server.connect();
    idle.check(&token("alice", "one"), "STORED\r\n");
    assert_eq!(silent.rest(), b"");
    assert_eq!(half.rest(), b"");
    idle.check("mn\r\n", "MN\r\n");
    idle.send(b"stats\r\nquit\r\n");
    let answers = String::from_utf8(idle.rest()).unwrap();
    assert!(answers.contains("STAT entry_kicks 2\r\n"), "{answers}");
}

#[test]
fn a_unix_socket_wants_it_too() {
    let folder = folder("alice:one\n");
    let path = folder.path().join("socket");
    let arguments = ["-s", "socket", "-m", "16", "-t", "1", "-Y", "users"];
    let _server = Server::start_in(folder, &arguments);
    let stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut client = Client(stream);
    client.check("get key\r\n", "CLIENT_ERROR unauthenticated\r\n");
    client.check(&token("alice", "one"), "STORED\r\n");
    client.check("get key\r\n", "END\r\n");
}

// SIGHUP reads the users again; a file that cannot be used changes nothing, and nobody who is in
// is thrown out.
#[test]
fn users_are_read_again() {
    let mut server = start("alice:one\n");
    let path = server.folder().join("users");
    let mut inside = server.connect();
    inside.check(&token("alice", "one"), "STORED\r\n");
    fs::write(&path, "alice:new\nnonsense\n").unwrap();
    server.reload("the users stay as they were");
    assert!(server.log().contains("users:2: expected user:password"));
    server.check(&[(&token("alice", "one"), "STORED\r\n")]);
    fs::write(&path, "alice:new\n").unwrap();
    server.reload("users read again");
    server.check(&[
        (&token("alice", "one"), WRONG),
        (&token("alice", "new"), "STORED\r\n"),
    ]);
    inside.check("mn\r\n", "MN\r\n");
    assert!(!server.log().contains("nonsense"));
}

// What is wrong with the file is said at the start; what stands in it is said nowhere.
#[test]
fn the_file_is_checked_and_kept_secret() {
    for (users, reason) in [
        ("", "users: no line user:password"),
        ("alice:one\nsecret\n", "users:2: expected user:password"),
    ] {
        let folder = folder(users);
        let output = program()
            .args(identity())
            .args(TCP)
            .arg("-Y")
            .arg(folder.path().join("users"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1));
        assert!(said.contains(reason) && !said.contains("secret"), "{said}");
    }
    let folder = folder("alice:hunter2\n");
    let path = folder.path().join("users");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let server = Server::start_in(folder, &[&TCP[..], &["-vvv", "-Y", "users"]].concat());
    let mut client = server.connect();
    client.check(&token("alice", "hunter21"), WRONG);
    let requests = token("alice", "hunter2") + "stats\r\nstats settings\r\nquit\r\n";
    client.send(requests.as_bytes());
    let answers = String::from_utf8(client.rest()).unwrap();
    assert!(
        answers.contains("STAT auth_enabled_ascii users\r\n"),
        "{answers}"
    );
    assert!(!answers.contains("hunter") && !answers.contains("alice"));
    assert!(server.log().contains("mode 644"), "{}", server.log());
    assert!(!server.log().contains("hunter"));
}

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

/// A packet of the binary protocol, a request (0x80) or a reply (0x81).
fn packet(magic: u8, opcode: u8, status: u16, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut packet = vec![magic, opcode];
    packet.extend(u16::try_from(key.len()).unwrap().to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(status.to_be_bytes());
    packet.extend(
        u32::try_from(key.len() + value.len())
            .unwrap()
            .to_be_bytes(),
    );
    packet.extend([0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0]);
    packet.extend(key);
    packet.extend(value);
    packet
}

fn ask(opcode: u8, key: &[u8], value: &[u8]) -> Vec<u8> {
    packet(0x80, opcode, 0, key, value)
}

fn told(opcode: u8, status: u16, value: &[u8]) -> Vec<u8> {
    packet(0x81, opcode, status, b"", value)
}

const NOOP: u8 = 0x0a;
const VERSION: u8 = 0x0b;
const LIST: u8 = 0x20;
const AUTH: u8 = 0x21;
const STEP: u8 = 0x22;
const FAILED: (u16, &[u8]) = (0x20, b"Auth failure.");

fn start_sasl(users: &str, further: &[&str]) -> Server {
    let sasl = [&TCP[..], &["-S", "-Y", "users"], further].concat();
    Server::start_in(folder(users), &sasl)
}

/// Sends packets and expects exactly these.
#[track_caller]
fn talk(server: &Server, packets: &[Vec<u8>], replies: &[Vec<u8>]) -> Client<std::net::TcpStream> {
    let mut client = server.connect();
    client.send(&packets.concat());
    let replies = replies.concat();
    assert_eq!(client.receive(replies.len()), replies);
    client
}

// The mechanism is PLAIN, in one step or two; what is pipelined behind it is served.
#[test]
fn sasl_opens_the_connection() {
    let server = start_sasl("alice:one\n", &[]);
    let welcome = |opcode| told(opcode, 0, b"Authenticated");
    let (wrong, unknown) = (
        told(AUTH, FAILED.0, FAILED.1),
        told(STEP, FAILED.0, FAILED.1),
    );
    let token = b"\0alice\0one";
    talk(
        &server,
        &[
            ask(LIST, b"", b""),
            ask(VERSION, b"", b""),
            ask(AUTH, b"PLAIN", b"\0alice\0two"),
            ask(AUTH, b"CRAM-MD5", token),
            ask(AUTH, b"PLAIN", b"me\0alice\0one"),
            ask(NOOP, b"", b""),
        ],
        &[
            told(LIST, 0, b"PLAIN"),
            told(VERSION, 0, b"1.6.45"),
            wrong.clone(),
            wrong,
            welcome(AUTH),
            told(NOOP, 0, b""),
        ],
    );
    talk(
        &server,
        &[
            ask(STEP, b"PLAIN", token),
            ask(AUTH, b"PLAIN", b""),
            ask(STEP, b"PLAIN", token),
            ask(AUTH, b"PLAIN", token),
        ],
        &[unknown, told(AUTH, 0x21, b""), welcome(STEP), welcome(AUTH)],
    );
}

// Every other packet ends the connection before its value has come, and does nothing.
#[test]
fn sasl_comes_first() {
    let server = start_sasl("alice:one\n", &[]);
    for request in [
        ask(NOOP, b"", b""),
        ask(0x00, b"key", b""),
        ask(0x18, b"", b""),
        ask(0x11, b"key", &[0; 1000])[..24].to_vec(),
    ] {
        let reply = told(request[1], FAILED.0, FAILED.1);
        assert_eq!(talk(&server, &[request], &[reply]).rest(), b"");
    }
    let guesses = vec![ask(AUTH, b"PLAIN", b"\0alice\0two"); 3];
    let replies = vec![told(AUTH, FAILED.0, FAILED.1); 3];
    assert_eq!(talk(&server, &guesses, &replies).rest(), b"");
    let long = ask(AUTH, b"PLAIN", &[b'x'; 5000]);
    assert!(
        !talk(&server, &[long], &[])
            .rest()
            .starts_with(&[0x81, AUTH, 0, 0, 0, 0, 0, 0])
    );
    // Text is not spoken.
    let mut client = server.connect();
    client.send(token("alice", "one").as_bytes());
    assert_eq!(client.rest(), b"");
}

// With -B auto both are, each with its own way in.
#[test]
fn both_protocols_may_be_spoken() {
    let server = start_sasl("alice:one\n", &["-B", "auto"]);
    server.check(&[
        ("get key\r\n", "CLIENT_ERROR unauthenticated\r\n"),
        (&token("alice", "one"), "STORED\r\n"),
        ("mn\r\n", "MN\r\n"),
    ]);
    talk(
        &server,
        &[ask(AUTH, b"PLAIN", b"\0alice\0one"), ask(NOOP, b"", b"")],
        &[told(AUTH, 0, b"Authenticated"), told(NOOP, 0, b"")],
    );
    let refused = ask(NOOP, b"", b"");
    let client = talk(&server, &[refused], &[told(NOOP, FAILED.0, FAILED.1)]);
    drop(client);
}

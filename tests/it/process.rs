//! The process: sockets and news between it and a service manager, whom it runs as, what it gives up.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::{Client, PATIENCE, Server, identity, program};

/// Starts the server as a service manager does, with a socket as descriptor 3.
fn start_with_socket(socket: OwnedFd, notify: &Path) -> Child {
    let program = env!("CARGO_BIN_EXE_tiercache");
    Command::new("sh")
        .arg("-c")
        .arg(r#"LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@" 3<&0 </dev/null"#)
        .arg(program)
        .args(identity())
        // Where it must not listen: nobody may have this port.
        .args(["-l", "127.0.0.1", "-p", "1", "-m", "16", "-t", "1"])
        .env("NOTIFY_SOCKET", notify)
        .stdin(Stdio::from(socket))
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

fn next_news(manager: &UnixDatagram) -> String {
    let mut news = [0; 256];
    let count = manager.recv(&mut news).unwrap();
    String::from_utf8_lossy(&news[..count]).into_owned()
}

fn terminate(mut child: Child) {
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn an_inherited_tcp_socket_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let notify = folder.path().join("notify");
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // A client that comes before the server waits in the socket.
    let early = TcpStream::connect(address).unwrap();
    early.set_read_timeout(Some(PATIENCE)).unwrap();
    let child = start_with_socket(OwnedFd::from(listener), &notify);
    assert_eq!(next_news(&manager), "READY=1");
    Client(early).check("set k 0 0 1\r\nx\r\n", "STORED\r\n");
    let late = TcpStream::connect(address).unwrap();
    late.set_read_timeout(Some(PATIENCE)).unwrap();
    Client(late).check("get k\r\n", "VALUE k 0 1\r\nx\r\nEND\r\n");
    terminate(child);
    let news = next_news(&manager);
    assert!(
        news.starts_with("STOPPING=1\nEXTEND_TIMEOUT_USEC=50000000"),
        "{news}"
    );
}

// The socket's path is the service manager's: it stays for the next start.
#[test]
fn an_inherited_unix_socket_is_served_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let notify = folder.path().join("notify");
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let child = start_with_socket(OwnedFd::from(listener), &notify);
    assert_eq!(next_news(&manager), "READY=1");
    let stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Client(stream).check("mn\r\n", "MN\r\n");
    terminate(child);
    assert!(path.exists());
}

#[test]
fn an_inherited_descriptor_that_is_no_listener_is_refused() {
    let output = Command::new("sh")
        .arg("-c")
        .arg(r#"LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@" 3</dev/null"#)
        .arg(env!("CARGO_BIN_EXE_tiercache"))
        .args(identity())
        .args(["-l", "127.0.0.1", "-p", "-1", "-m", "16"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("use inherited socket 0 (LISTEN_FDS)"),
        "{said}"
    );
}

fn field(pid: u32, file: &str, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let line = text.lines().find(|line| line.starts_with(name));
    let words = line.unwrap().trim_start_matches(name).split_whitespace();
    words.collect::<Vec<_>>().join(" ")
}

// What a broken server could do with its rights, it cannot do.
#[test]
fn rights_that_are_not_needed_are_given_up() {
    let server = Server::start(&[]);
    assert_eq!(field(server.pid(), "status", "NoNewPrivs:"), "1");
    assert_eq!(field(server.pid(), "status", "Umask:"), "0077");
    let cores = field(server.pid(), "limits", "Max core file size");
    assert!(cores.starts_with("0 "), "{cores}");
}

// Root's rights are given up for good where -u says so, kept where it names root, and never by accident.
#[test]
fn root_has_to_say_whom_to_become() {
    let start = |arguments: &[&str]| {
        let mut command = program();
        command
            .args(["-l", "127.0.0.1", "-p", "-1", "-m", "16"])
            .args(arguments);
        command
    };
    if !rustix::process::geteuid().is_root() {
        let folder = tempfile::tempdir().unwrap();
        let arguments = ["-p", "-1", "-l", "127.0.0.1", "-m", "16", "-u", "nobody"];
        let server = Server::start_in(folder, &arguments);
        let told = "not started as root, so -u nobody changes nothing";
        assert!(server.log().contains(told), "{}", server.log());
        return;
    }
    let refused = start(&[]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(64), "{said}");
    assert!(
        said.contains("can't run as root without the -u switch"),
        "{said}"
    );

    let unknown = start(&["-u", "no-such-user"]).output().unwrap();
    let said = String::from_utf8_lossy(&unknown.stderr);
    assert_eq!(unknown.status.code(), Some(1), "{said}");
    assert!(said.contains("there is no user no-such-user"), "{said}");

    let folder = tempfile::tempdir().unwrap();
    let notify = folder.path().join("notify");
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    for (path, mode) in [(folder.path(), 0o711), (&notify, 0o666)] {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let child = start(&["-u", "nobody"])
        .env("NOTIFY_SOCKET", &notify)
        .spawn()
        .unwrap();
    assert_eq!(next_news(&manager), "READY=1");
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap();
    let nobody = accounts.lines().find(|line| line.starts_with("nobody:"));
    let ids: Vec<_> = nobody.unwrap().split(':').skip(2).take(2).collect();
    for (name, id) in [("Uid:", ids[0]), ("Gid:", ids[1])] {
        assert_eq!(field(child.id(), "status", name), [id; 4].join(" "));
    }
    assert_eq!(field(child.id(), "status", "Groups:"), "");
    assert_eq!(field(child.id(), "status", "CapEff:"), "0000000000000000");
    terminate(child);
}

// The log may be a pipe whose reader is gone: what it would have been told is lost, nothing else.
#[test]
fn a_server_whose_log_nobody_reads_still_stops() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut child = program()
        .args(identity())
        .args(["-l", "127.0.0.1", "-p", "-1", "-m", "16", "-t", "1"])
        .env("NOTIFY_SOCKET", &path)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(next_news(&manager), "READY=1");
    drop(child.stderr.take());
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let mut news = [0; 256];
    let told = manager.recv(&mut news);
    if told.is_err() {
        child.kill().unwrap();
    }
    let code = child.wait().unwrap().code();
    assert!(told.is_ok_and(|count| news[..count].starts_with(b"STOPPING=1")));
    assert_eq!(code, Some(0));
}

// What no segment of dry has room for is lost at a stop, and the log says how many items that are.
#[test]
fn a_stop_tells_of_items_too_large_for_dry() {
    let folder = tempfile::tempdir().unwrap();
    let dry = folder.path().join("dry").display().to_string();
    let arguments = ["--dry", &dry, "--dry-size", "64m", "--segment-size", "1m"];
    let server = Server::start(&[&arguments[..], &["-I", "2m"]].concat());
    let mut client = server.connect();
    for (key, bytes) in [("large", 1_500_000), ("small", 1000)] {
        client.send(format!("set {key} 0 0 {bytes}\r\n").as_bytes());
        client.send(&vec![b'x'; bytes]);
        client.check("\r\n", "STORED\r\n");
    }
    let (code, log, _) = server.terminate();
    assert_eq!(code, Some(0), "{log}");
    let said = "items larger than a dry segment were not kept (--segment-size) items=1";
    assert!(log.contains(said), "{log}");
    let again = Server::start(&arguments);
    let mut client = again.connect();
    client.check("get large\r\n", "END\r\n");
    client.send(b"get small\r\n");
    client.expect("VALUE small 0 1000\r\n");
}

//! Servers that want a login or encryption: they get it, nobody else learns a password, and what is read again is used
//! without a restart.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tiercache_integration::eventually;
use tiercache_integration::pool::{Pool, free_port};
use tiercache_integration::server::{Server, memcached_binary, tiercache_binary};

use super::NOTICED;
use crate::tls::Authority;

/// One word: memcached 1.6.18 takes no other.
const PASSWORD: &str = "xyzzy,of:course";

/// A folder with the users of a server, a password that tiercache reads, and its configuration.
struct Files(TempDir);

impl Files {
    fn new() -> Files {
        let files = Files(TempDir::new().expect("a temporary folder can be made"));
        files.write("users", &format!("proxy:{PASSWORD}\n"));
        files.write("password", &format!("{PASSWORD}\n"));
        files.configure(&format!(
            "username = \"proxy\"\npassword_file = \"{}\"\n",
            files.path("password")
        ));
        files
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).expect("a temporary file can be written");
    }

    fn configure(&self, options: &str) {
        // On a busy machine a handshake may take longer than the default.
        let timeouts = "connect_timeout = \"20s\"\nrequest_timeout = \"20s\"\n";
        self.write("c.toml", &format!("[memcached]\n{timeouts}{options}"));
    }
}

/// A server that answers nobody who does not log in.
fn guarded(binary: &Path, files: &Files) -> Pool {
    let users = files.path("users");
    Pool::of(&[1], |port| {
        Server::guarded(binary, &["-p", port, "-Y", &users])
    })
}

fn reload(server: &Server) {
    let pid = Pid::from_raw(server.pid().cast_signed()).expect("a child has a process id");
    kill_process(pid, Signal::HUP).expect("an own child can be signalled");
}

/// Stores and reads values of many sizes, in pipelines.
fn works(server: &Server) {
    let mut client = server.connect();
    for size in [0, 1, 1000, 100_000, 1_000_000] {
        let value = vec![b'a' + (size % 7) as u8; size];
        let key = format!("size{size}");
        assert_eq!(
            client.set(key.as_bytes(), &value).expect("it answers"),
            b"STORED"
        );
        for _ in 0..3 {
            let found = client.get(key.as_bytes()).expect("it answers");
            assert!(found.as_deref() == Some(value.as_slice()), "{size}");
        }
    }
    let gets = "get size1000 size100000\r\n".repeat(50);
    client.send(gets.as_bytes()).expect("it reads");
    for _ in 0..50 {
        let hits = client.hits().expect("it answers");
        assert_eq!(hits.len(), 2);
        assert_eq!((hits[0].1.len(), hits[1].1.len()), (1000, 100_000));
    }
    assert_eq!(
        client.ask(b"delete size1\r\n").expect("it answers"),
        b"DELETED"
    );
    assert_eq!(client.get(b"size1").expect("it answers"), None);
}

/// What a tiercache says that does not start in front of `pool`.
fn refusal(pool: &Pool, files: &Files) -> String {
    let (state, url) = (files.path("state"), pool.url());
    let config = files.path("c.toml");
    let arguments = ["--hot", &url, "--state", &state, "--config", &config];
    let mut server = Server::stopped(&[], &tiercache_binary(), &arguments);
    let status = server.try_start().expect_err("it must not start");
    assert!(!status.success());
    server.log()
}

// memcached's own way: a store whose value is user and password.
#[test]
fn servers_that_want_a_login_get_it() {
    let files = Files::new();
    for binary in [memcached_binary(), tiercache_binary()] {
        let pool = guarded(&binary, &files);
        let config = ["--config", &files.path("c.toml")];
        works(&pool.proxy(&config));
        works(&pool.near_cache(&config));
    }
}

// Nothing that a person or a tool can see tells the password, also where it is wrong.
#[test]
fn a_wrong_password_is_refused_at_start_and_told_nowhere() {
    let files = Files::new();
    let pool = guarded(&memcached_binary(), &files);
    let server = pool.near_cache(&["--config", &files.path("c.toml"), "-vv"]);
    works(&server);
    let mut client = server.connect();
    let mut shown = server.log();
    for kind in ["settings", "upstream", ""] {
        for (name, value) in client.stats(kind).expect("it answers").iter() {
            shown.push_str(&format!("{name} {value}\n"));
        }
    }
    let printed = Command::new(tiercache_binary())
        .args(["print-config", "--config", &files.path("c.toml")])
        .args(["--hot", &pool.url(), "--state", &files.path("state")])
        .output()
        .expect("it runs");
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert!(printed.contains("username = \"proxy\""), "{printed}");
    shown.push_str(&printed);
    files.write("password", "plugh\n");
    let said = refusal(&pool, &files);
    assert!(
        said.contains("the server refused the user or the password"),
        "{said}"
    );
    shown.push_str(&said);
    files.configure("");
    let said = refusal(&pool, &files);
    assert!(
        said.contains("the server wants a user and a password"),
        "{said}"
    );
    for word in ["xyzzy", "plugh"] {
        assert!(!shown.contains(word), "{shown}");
    }
}

// The password changes on both sides: what is read on SIGHUP is used for the next connection.
#[test]
fn a_password_is_read_again() {
    let files = Files::new();
    let mut pool = guarded(&memcached_binary(), &files);
    let server = pool.proxy(&["--config", &files.path("c.toml")]);
    works(&server);
    pool.servers[0].kill9();
    files.write("users", "proxy:other\n");
    pool.servers[0].start();
    let mut client = server.connect();
    let refused = eventually(NOTICED, || {
        let reply = client.set(b"k", b"v").expect("it answers");
        assert!(reply.starts_with(b"SERVER_ERROR "));
        let stats = client.stats("upstream").expect("it answers");
        stats.iter().any(|(name, value)| {
            name.ends_with(":last_error") && value.contains("refused the user or the password")
        })
    });
    assert!(refused, "the old password is not refused");
    files.write("password", "other");
    reload(&server);
    let back = eventually(NOTICED, || {
        client.set(b"k", b"v").expect("it answers") == b"STORED"
    });
    assert!(back, "the new password is not used");
}

// The login of memcached is a store: a server without users would keep the password as an item.
#[test]
fn a_server_that_lets_everybody_in_is_not_told_the_password() {
    let files = Files::new();
    let pool = Pool::of_memcached(&[1]);
    let server = pool.proxy(&["--config", &files.path("c.toml")]);
    works(&server);
    let stored = pool.servers[0].stats().number("total_items");
    assert_eq!(stored, 5, "what works() stores, and nothing else");
}

/// A server that speaks TLS with a certificate of `authority`; `options` continue its `-o`.
fn encrypted(authority: &Authority, options: &str) -> Pool {
    let (chain, key) = (authority.path("chain.pem"), authority.path("key.pem"));
    let files = format!("ssl_chain_cert={chain},ssl_key={key}{options}");
    Pool::of(&[1], |port| {
        Server::guarded(
            &tiercache_binary(),
            &["-p", port, "-m", "64", "-Z", "-o", &files],
        )
    })
}

#[test]
fn encrypted_servers_are_believed_if_they_are_certified() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let pool = encrypted(&authority, "");
    let files = Files::new();
    let trusting =
        |authority: &Authority| format!("tls = true\nca_cert = \"{}\"\n", authority.path("ca.pem"));
    for options in [
        trusting(&authority),
        format!("{}verify = \"chain\"\n", trusting(&authority)),
        format!("{}verify = \"none\"\n", trusting(&foreign)),
        "tls = true\nverify = \"none\"\n".to_owned(),
    ] {
        files.configure(&options);
        let config = ["--config", &files.path("c.toml")];
        works(&pool.proxy(&config));
        works(&pool.near_cache(&config));
    }
    for options in [
        trusting(&foreign),
        format!("{}verify = \"chain\"\n", trusting(&foreign)),
    ] {
        files.configure(&options);
        let said = refusal(&pool, &files);
        assert!(said.contains("invalid peer certificate"), "{said}");
    }
    // Neither side takes the other's kind of connection for its own.
    files.configure(&trusting(&authority));
    let said = refusal(&Pool::of_memcached(&[1]), &files);
    assert!(said.contains("encryption: "), "{said}");
}

// The certificate is for the address, not for the name: only `chain` takes it.
#[test]
fn a_certificate_must_be_for_the_server_that_shows_it() {
    let authority = Authority::new();
    let pool = encrypted(&authority, "");
    let files = Files::new();
    let port = pool.servers[0].address().port();
    let url = format!("memcached://localhost:{port}");
    let state = files.path("state");
    let trusting = format!("tls = true\nca_cert = \"{}\"\n", authority.path("ca.pem"));
    let config = files.path("c.toml");
    let arguments = ["--hot", &url, "--state", &state, "--config", &config];
    files.configure(&trusting);
    let mut server = Server::stopped(&[], &tiercache_binary(), &arguments);
    server.try_start().expect_err("it must not start");
    let said = server.log();
    assert!(said.contains("not valid for name"), "{said}");
    files.configure(&format!("{trusting}verify = \"chain\"\n"));
    works(&Server::tiercache(&arguments));
}

#[test]
fn a_server_that_wants_a_certificate_is_shown_one() {
    let authority = Authority::new();
    authority.certify("proxy");
    let pool = encrypted(&authority, &authority.clients_of());
    let files = Files::new();
    let trusting = format!("tls = true\nca_cert = \"{}\"\n", authority.path("ca.pem"));
    files.configure(&format!(
        "{trusting}cert = \"{}\"\nkey = \"{}\"\n",
        authority.path("proxy/chain.pem"),
        authority.path("proxy/key.pem")
    ));
    let config = ["--config", &files.path("c.toml")];
    works(&pool.proxy(&config));
    works(&pool.near_cache(&config));
    files.configure(&trusting);
    let server = pool.proxy(&config);
    let reply = server.connect().set(b"k", b"v").expect("it answers");
    assert!(
        reply.starts_with(b"SERVER_ERROR "),
        "{}",
        reply.escape_ascii()
    );
}

// Another authority certifies the servers: both sides read their files again, nobody is restarted.
#[test]
fn authorities_are_read_again() {
    let (authority, next) = (Authority::new(), Authority::new());
    let mut pool = encrypted(&authority, "");
    let files = Files::new();
    files.configure(&format!(
        "tls = true\nca_cert = \"{}\"\n",
        authority.path("ca.pem")
    ));
    let server = pool.proxy(&["--config", &files.path("c.toml")]);
    works(&server);
    for name in ["ca.pem", "chain.pem", "key.pem"] {
        fs::copy(next.path(name), authority.path(name)).expect("a file can be replaced");
    }
    pool.servers[0].kill9();
    pool.servers[0].start();
    let mut client = server.connect();
    let reply = client.set(b"k", b"v").expect("it answers");
    assert!(
        reply.starts_with(b"SERVER_ERROR "),
        "{}",
        reply.escape_ascii()
    );
    reload(&server);
    let back = eventually(NOTICED, || {
        client.set(b"k", b"v").expect("it answers") == b"STORED"
    });
    assert!(back, "the new authority is not believed");
}

// A login over an encrypted connection, as a server that has both wants it.
#[test]
fn a_login_goes_over_encrypted_connections() {
    let authority = Authority::new();
    let files = Files::new();
    let (chain, key) = (authority.path("chain.pem"), authority.path("key.pem"));
    let certificates = format!("ssl_chain_cert={chain},ssl_key={key}");
    let users = files.path("users");
    let port = free_port().to_string();
    let upstream = Server::guarded(
        &tiercache_binary(),
        &["-p", &port, "-Z", "-o", &certificates, "-Y", &users],
    );
    files.configure(&format!(
        "tls = true\nca_cert = \"{}\"\nusername = \"proxy\"\npassword_file = \"{}\"\n",
        authority.path("ca.pem"),
        files.path("password")
    ));
    let url = format!("memcached://{}", upstream.address());
    let (state, config) = (files.path("state"), files.path("c.toml"));
    works(&Server::tiercache(&[
        "--hot", &url, "--state", &state, "--config", &config,
    ]));
}

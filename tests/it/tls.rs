//! Encrypted connections: versions, certificates of both sides, reading them again, stalled
//! handshakes.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion, version,
};
use tempfile::TempDir;

use crate::support::{Client, Server, identity, program};

type Encrypted = Client<StreamOwned<ClientConnection, TcpStream>>;

const FILES: &str = "ssl_chain_cert=chain.pem,ssl_key=key.pem";
const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS12, &version::TLS13];

/// An authority that certifies servers and clients.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate and its key, both PEM.
    fn certify(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Writes a new server certificate, its key and the authority itself.
    fn write(&self, folder: &Path) {
        let (chain, key) = self.certify();
        fs::write(folder.join("chain.pem"), chain).unwrap();
        fs::write(folder.join("key.pem"), key).unwrap();
        fs::write(folder.join("ca.pem"), self.0.pem()).unwrap();
    }

    fn folder(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        self.write(folder.path());
        folder
    }

    /// A server with a certificate of this authority.
    fn server(&self, arguments: &[&str]) -> Server {
        let tcp = ["-p", "-1", "-l", "127.0.0.1", "-m", "16", "-t", "1", "-Z"];
        Server::start_in(self.folder(), &[&tcp[..], arguments].concat())
    }

    /// What a client believes that trusts this authority and shows a certificate of `own`.
    fn trusting(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        own: Option<&Authority>,
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let (chain, key) = own.certify();
                let chain = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![chain], key).unwrap()
            }
        })
    }
}

fn encrypt(socket: TcpStream, config: &Arc<ClientConfig>) -> Encrypted {
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
    Client(StreamOwned::new(connection, socket))
}

fn connect(server: &Server, config: &Arc<ClientConfig>) -> Encrypted {
    encrypt(server.connect().0, config)
}

/// Whether a client comes in.
fn admitted(mut client: Encrypted) -> bool {
    let mut reply = [0; 4];
    client.0.write_all(b"mn\r\n").is_ok()
        && client.0.read_exact(&mut reply).is_ok()
        && reply == *b"MN\r\n"
}

// Both versions carry requests of every size, in one piece or in many.
#[test]
fn both_versions_are_spoken() {
    let authority = Authority::new();
    let server = authority.server(&["-o", FILES]);
    for version in [&version::TLS12, &version::TLS13] {
        let mut client = connect(&server, &authority.trusting(&[version], None));
        for size in [0, 1, 16_383, 16_384, 16_385, 70_000, 1_000_000] {
            let value = "v".repeat(size);
            client.check(&format!("set k 0 0 {size}\r\n{value}\r\n"), "STORED\r\n");
            client.check(
                "get k\r\n",
                &format!("VALUE k 0 {size}\r\n{value}\r\nEND\r\n"),
            );
        }
        client.check(&"mn\r\n".repeat(2000), &"MN\r\n".repeat(2000));
        client.send(b"quit\r\n");
        // Ends with a goodbye, else the client's library would report a cut connection.
        assert_eq!(client.rest(), b"");
    }
    let only_new = authority.server(&["-o", FILES, "-o", "ssl_min_version=3"]);
    let (old, new) = (&[&version::TLS12][..], &[&version::TLS13][..]);
    assert!(!admitted(connect(
        &only_new,
        &authority.trusting(old, None)
    )));
    assert!(admitted(connect(&only_new, &authority.trusting(new, None))));
}

// Who has to show a certificate shows one of the right authority or stays outside.
#[test]
fn clients_show_certificates() {
    let (ours, foreign) = (Authority::new(), Authority::new());
    for (mode, none, right, wrong) in [
        ("0", true, true, true),
        ("1", true, true, false),
        ("2", false, true, false),
        ("3", false, true, false),
    ] {
        let mode = format!("ssl_ca_cert=ca.pem,ssl_verify_mode={mode}");
        let server = ours.server(&["-o", FILES, "-o", &mode]);
        for version in [&version::TLS12, &version::TLS13] {
            for (own, admits) in [(None, none), (Some(&ours), right), (Some(&foreign), wrong)] {
                let config = ours.trusting(&[version], own);
                assert_eq!(
                    admitted(connect(&server, &config)),
                    admits,
                    "{mode} {version:?}"
                );
            }
        }
    }
}

// Prefixes of -l make a listener differ from the others.
#[test]
fn listeners_differ() {
    let authority = Authority::new();
    let listen = "notls:127.0.0.1,btls:127.0.0.1,mtls:127.0.0.1,127.0.0.1";
    let options = format!("{FILES},ssl_ca_cert=ca.pem,ssl_verify_mode=2");
    let arguments = ["-Z", "-p", "-1", "-l", listen, "-m", "16", "-o", &options];
    let server = Server::start_in(authority.folder(), &arguments);
    server.check(&[("mn\r\n", "MN\r\n")]);
    let ports = fs::read_to_string(server.folder().join("ports")).unwrap();
    let ports: Vec<u16> = ports
        .lines()
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(ports.len(), 4);
    let without = authority.trusting(BOTH, None);
    let with = authority.trusting(BOTH, Some(&authority));
    for (port, without_one, with_one) in [
        (ports[0], false, false),
        (ports[1], true, true),
        (ports[2], false, true),
        (ports[3], false, true),
    ] {
        for (config, admits) in [(&without, without_one), (&with, with_one)] {
            let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
            assert_eq!(
                admitted(encrypt(socket, config)),
                admits,
                "{port} of {ports:?}"
            );
        }
    }
}

// A handshake that never ends holds nobody up, and it does end. Whoever speaks plainly is refused.
#[test]
fn a_stalled_handshake_bothers_nobody() {
    let authority = Authority::new();
    let server = authority.server(&["-o", FILES]);
    let mut silent = server.connect();
    let mut half = server.connect();
    half.send(&[22, 3, 1, 2, 0, 1]);
    let mut plain = server.connect();
    plain.send(b"get key\r\n");
    assert_ne!(plain.rest(), b"END\r\n");
    let mut client = connect(&server, &authority.trusting(BOTH, None));
    client.check("mn\r\n", "MN\r\n");
    assert_eq!(silent.rest(), b"");
    assert_eq!(half.rest(), b"");
    client.send(b"stats\r\nquit\r\n");
    let stats = String::from_utf8(client.rest()).unwrap();
    for row in [
        "entry_kicks 2",
        "ssl_handshake_errors 1",
        "ssl_proto_errors 0",
        "time_since_server_cert_refresh ",
    ] {
        assert!(stats.contains(&format!("STAT {row}")), "{row} in {stats}");
    }
}

// New connections see new certificates, old ones go on; files that cannot be used change nothing.
#[test]
fn certificates_are_read_again() {
    let (old, new) = (Authority::new(), Authority::new());
    let mut server = old.server(&["-o", FILES]);
    let mut inside = connect(&server, &old.trusting(BOTH, None));
    inside.check("refresh_certs\r\n", "OK\r\n");
    fs::write(server.folder().join("key.pem"), new.certify().1).unwrap();
    inside.send(b"refresh_certs\r\nmn\r\n");
    let mut reply = Vec::new();
    while !reply.ends_with(b"MN\r\n") {
        reply.extend(inside.receive(1));
    }
    let reply = String::from_utf8(reply).unwrap();
    let begin = "Error loading the certificate chain: chain.pem : ";
    assert!(reply.starts_with(begin), "{reply}");
    server.reload("the certificates stay as they were");
    assert!(admitted(connect(&server, &old.trusting(BOTH, None))));
    new.write(server.folder());
    server.reload("certificates read again");
    assert!(admitted(connect(&server, &new.trusting(BOTH, None))));
    assert!(!admitted(connect(&server, &old.trusting(BOTH, None))));
    inside.check("mn\r\n", "MN\r\n");
}

// Reading certificates again, many times under load, drops no connection, old or new.
#[test]
fn reading_again_under_load_drops_nobody() {
    const RELOADS: usize = 20;
    let authority = Authority::new();
    let server = authority.server(&["-o", FILES]);
    let config = authority.trusting(BOTH, None);
    let (ended, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for lasting in [true, true, false] {
            let (server, config, ended, answers) = (&server, &config, &ended, &answers);
            scope.spawn(move || {
                let mut client = connect(server, config);
                while !ended.load(Relaxed) {
                    client.check("set k 0 0 1\r\nv\r\nmn\r\n", "STORED\r\nMN\r\n");
                    answers.fetch_add(1, Relaxed);
                    if !lasting {
                        client = connect(server, config);
                    }
                }
            });
        }
        let mut operator = connect(&server, &config);
        for _ in 0..RELOADS {
            let goal = answers.load(Relaxed) + 30;
            operator.check("refresh_certs\r\n", "OK\r\n");
            while answers.load(Relaxed) < goal {
                std::thread::yield_now();
            }
        }
        ended.store(true, Relaxed);
    });
    assert!(answers.load(Relaxed) >= RELOADS * 30);
}

// Passwords travel encrypted, and both have to be right.
#[test]
fn users_authenticate_inside() {
    let authority = Authority::new();
    let folder = authority.folder();
    fs::write(folder.path().join("users"), "alice:one\n").unwrap();
    let tcp = ["-p", "-1", "-l", "127.0.0.1", "-m", "16", "-Z", "-o", FILES];
    let server = Server::start_in(folder, &[&tcp[..], &["-Y", "users"]].concat());
    let mut client = connect(&server, &authority.trusting(BOTH, None));
    client.check("get key\r\n", "CLIENT_ERROR unauthenticated\r\n");
    client.check("set a 0 0 9\r\nalice one\r\nmn\r\n", "STORED\r\nMN\r\n");
}

// With a cache of sessions the second handshake is a short one.
#[test]
fn sessions_are_resumed_if_wanted() {
    let authority = Authority::new();
    for (options, new) in [("no_modern", 3), ("ssl_session_cache", 1)] {
        let server = authority.server(&["-o", FILES, "-o", options]);
        let config = authority.trusting(&[&version::TLS13], None);
        for _ in 0..2 {
            assert!(admitted(connect(&server, &config)));
        }
        let mut client = connect(&server, &config);
        client.send(b"stats\r\nquit\r\n");
        let stats = String::from_utf8(client.rest()).unwrap();
        let row = format!("STAT ssl_new_sessions {new}\r\n");
        assert!(stats.contains(&row), "{row} in {stats}");
    }
}

// What is wrong is said at the start, with the file.
#[test]
fn wrong_files_are_named() {
    let authority = Authority::new();
    let folder = authority.folder();
    fs::write(folder.path().join("other.pem"), authority.certify().1).unwrap();
    fs::write(folder.path().join("empty.pem"), "").unwrap();
    fs::write(
        folder.path().join("broken.pem"),
        "-----BEGIN CERTIFICATE-----\n!",
    )
    .unwrap();
    for (options, reason) in [
        (
            "ssl_chain_cert=absent.pem,ssl_key=key.pem",
            "certificate chain absent.pem",
        ),
        (
            "ssl_chain_cert=empty.pem,ssl_key=key.pem",
            "certificate chain empty.pem: there is none",
        ),
        (
            "ssl_chain_cert=broken.pem,ssl_key=key.pem",
            "certificate chain broken.pem: not in PEM",
        ),
        ("ssl_chain_cert=chain.pem", "key chain.pem: there is none"),
        (
            "ssl_chain_cert=chain.pem,ssl_key=other.pem",
            "certificate chain chain.pem: ",
        ),
        (
            "ssl_chain_cert=chain.pem,ssl_key=key.pem,ssl_ciphers=RC4-MD5",
            "no cipher suite",
        ),
        (
            "ssl_chain_cert=chain.pem,ssl_key=key.pem,ssl_ca_cert=empty.pem",
            "CA certificate empty.pem",
        ),
    ] {
        let output = program()
            .args(identity())
            .args([
                "-Z",
                "-p",
                "-1",
                "-l",
                "127.0.0.1",
                "-m",
                "16",
                "-o",
                options,
            ])
            .current_dir(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{options}: {said}");
        assert!(said.contains(reason), "{options}: {said}");
    }
}

//! Clients that people use speak TLS: they are served encrypted, show certificates where they must, and do not notice that
//! the server's are exchanged.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use tempfile::TempDir;
use tiercache_integration::server::{Server, find_on_path, tiercache_binary};

use crate::clients::{drive, python, run_client};

/// Certificates that take each other's place under load.
const EXCHANGES: usize = 6;

/// Options of `openssl s_client` for the versions that are served.
const VERSIONS: [&str; 2] = ["-tls1_2", "-tls1_3"];

/// An authority that certifies servers and clients, and the folder that its certificates are in.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    /// Makes `ca.pem`, and `chain.pem` and `key.pem` for a server.
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are good names");
        params
            .distinguished_name
            .push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key can be made");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a key signs itself");
        let folder = TempDir::new().expect("a temporary folder can be made");
        write(&folder.path().join("ca.pem"), &issuer.pem());
        let authority = Self { issuer, folder };
        authority.certify("");
        authority
    }

    /// Makes `chain.pem` and `key.pem` in a folder inside the folder.
    pub(crate) fn certify(&self, inside: &str) {
        let folder = self.folder.path().join(inside);
        fs::create_dir_all(&folder).expect("a folder can be made");
        let key = KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()])
            .expect("an address is a good name");
        // With its issuer's name openssl would take it for self-signed.
        params
            .distinguished_name
            .push(DnType::CommonName, "certified");
        params.use_authority_key_identifier_extension = true;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .expect("an authority signs");
        write(&folder.join("chain.pem"), &certificate.pem());
        write(&folder.join("key.pem"), &key.serialize_pem());
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// A server with the certificate; `options` continue its `-o`.
    fn server(&self, options: &str) -> Server {
        let (chain, key) = (self.path("chain.pem"), self.path("key.pem"));
        let files = format!("ssl_chain_cert={chain},ssl_key={key}{options}");
        Server::guarded(&tiercache_binary(), &["-m", "128", "-Z", "-o", &files])
    }

    /// The option that lets in only clients certified by this authority.
    pub(crate) fn clients_of(&self) -> String {
        format!(",ssl_verify_mode=2,ssl_ca_cert={}", self.path("ca.pem"))
    }
}

fn write(path: &Path, pem: &str) {
    fs::write(path, pem).expect("a temporary file can be written");
}

/// Sends `requests` by `openssl s_client`, which trusts `authority` and no other.
fn s_client(server: &Server, authority: &Authority, options: &[&str], requests: &str) -> Output {
    let openssl = find_on_path("openssl").expect("no openssl on PATH: `apt-get install openssl`");
    let mut client = Command::new(openssl)
        .args(["s_client", "-quiet", "-verify_return_error", "-CAfile"])
        .arg(authority.path("ca.pem"))
        .args(["-verify_ip", "127.0.0.1", "-connect"])
        .arg(server.address().to_string())
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl runs");
    let mut input = client.stdin.take().expect("its input is a pipe");
    // A client that is refused may be gone.
    let _ = input.write_all(requests.as_bytes());
    drop(input);
    client
        .wait_with_output()
        .expect("an own child can be waited for")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

// The same operations as without TLS.
#[test]
fn pymemcache_works_unchanged_over_tls() {
    let authority = Authority::new();
    let server = authority.server("");
    let ca = authority.path("ca.pem");
    drive(&server, &python(), "pymemcache_driver.py", &[&ca]);
}

// The tool that everybody tries first, in both versions of TLS; it does not believe a foreign authority.
#[test]
fn openssl_gets_a_value() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let server = authority.server("");
    for version in VERSIONS {
        let requests = "set key 7 0 5\r\nvalue\r\nget key\r\nquit\r\n";
        let output = s_client(&server, &authority, &[version], requests);
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "STORED\r\nVALUE key 7 5\r\nvalue\r\nEND\r\n",
            "{version}: {}",
            said(&output)
        );
        let output = s_client(&server, &foreign, &[version], requests);
        assert_eq!(output.stdout, b"", "{version}");
        assert!(said(&output).contains("verify error"), "{}", said(&output));
    }
}

// A certificate of the right authority, or nothing.
#[test]
fn openssl_shows_a_certificate_or_stays_outside() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let server = authority.server(&authority.clients_of());
    for version in VERSIONS {
        let ask = |own: Option<&Authority>, requests: &str| {
            let (chain, key) = own.map_or_else(Default::default, |own| {
                (own.path("chain.pem"), own.path("key.pem"))
            });
            let mut options = vec![version];
            if own.is_some() {
                options.extend(["-cert", &chain, "-key", &key]);
            }
            let output = s_client(&server, &authority, &options, requests);
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let handshake_errors = || {
            let stats = ask(Some(&authority), "stats\r\nquit\r\n");
            let count = stats
                .lines()
                .find_map(|line| line.strip_prefix("STAT ssl_handshake_errors "));
            count
                .and_then(|count| count.parse::<u64>().ok())
                .unwrap_or_else(|| panic!("no handshake errors in {stats}"))
        };
        let before = handshake_errors();
        for (own, reply) in [
            (None, ""),
            (Some(&authority), "MN\r\n"),
            (Some(&foreign), ""),
        ] {
            assert_eq!(ask(own, "mn\r\nquit\r\n"), reply, "{version}");
        }
        assert_eq!(handshake_errors() - before, 2, "{version}");
    }
}

// The certificate of a client comes after its part of the handshake: it learns of the refusal where it wants an answer.
#[test]
fn pymemcache_shows_a_certificate_or_stays_outside() {
    let authority = Authority::new();
    authority.certify("client");
    let server = authority.server(&authority.clients_of());
    let ca = authority.path("ca.pem");
    let chain = authority.path("client/chain.pem");
    let key = authority.path("client/key.pem");
    let refused = run_client(&server, &python(), "pymemcache_driver.py", &[&ca]);
    assert!(!refused.status.success());
    // A reset may overtake the reason.
    let reasons = ["certificate required", "Connection reset"];
    assert!(
        reasons.iter().any(|reason| said(&refused).contains(reason)),
        "{}",
        said(&refused)
    );
    drive(
        &server,
        &python(),
        "pymemcache_driver.py",
        &[&ca, &chain, &key],
    );
}

// SIGHUP and refresh_certs in turn: who is inside is served on, who comes sees the new certificate.
#[test]
fn certificates_are_exchanged_under_load_and_nobody_is_dropped() {
    let authority = Authority::new();
    for number in 0..EXCHANGES {
        authority.certify(&format!("pair{number}"));
    }
    let server = authority.server("");
    let (folder, pid) = (authority.path(""), server.pid().to_string());
    drive(
        &server,
        &python(),
        "pymemcache_reload_driver.py",
        &[&folder, &pid],
    );
}

//! Where credentials for a bucket come from: the environment, a profile, a container, the instance, as for every AWS tool.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use tempfile::TempDir;
use tiercache_integration::remote::{Place, Tiered};
use tiercache_integration::s3::{ACCESS_KEY, S3Server, SECRET_KEY};
use tiercache_integration::seed;

/// The token without which the instance's service tells nothing.
const TOKEN: &str = "token-of-the-instance";

/// Nothing of the machine that runs the test, so that only what a test sets is found.
fn bare(place: &mut Place, home: &TempDir) {
    let home = home.path().display().to_string();
    place.environment = vec![
        ("HOME".to_owned(), home.clone()),
        ("AWS_CONFIG_FILE".to_owned(), format!("{home}/config")),
        (
            "AWS_SHARED_CREDENTIALS_FILE".to_owned(),
            format!("{home}/credentials"),
        ),
    ];
}

/// The services that tell credentials to containers and to instances.
fn metadata() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
    let address = listener
        .local_addr()
        .expect("a bound socket has an address");
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // A connection that breaks is its client's affair.
            let _ = tell(client);
        }
    });
    address
}

fn tell(client: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(client);
    let (mut request, mut has_token) = (String::new(), false);
    reader.read_line(&mut request)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        has_token |= line.trim_end().ends_with(TOKEN);
        if line.trim_end().is_empty() {
            break;
        }
    }
    let credentials = format!(
        r#"{{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"{ACCESS_KEY}","SecretAccessKey":"{SECRET_KEY}","Token":"session","LastUpdated":"2020-01-01T00:00:00Z","Expiration":"2099-01-01T00:00:00Z"}}"#
    );
    let mut words = request.split(' ');
    let role = "/latest/meta-data/iam/security-credentials/";
    let (status, body) = match (words.next(), words.next()) {
        (Some("PUT"), Some("/latest/api/token")) => ("200 OK", TOKEN.to_owned()),
        (Some("GET"), Some("/container")) => ("200 OK", credentials),
        (Some("GET"), Some(path)) if path == role && has_token => ("200 OK", "role".to_owned()),
        (Some("GET"), Some(path)) if path == format!("{role}role") && has_token => {
            ("200 OK", credentials)
        }
        _ => ("404 Not Found", String::new()),
    };
    write!(
        reader.get_mut(),
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\nx-aws-ec2-metadata-token-ttl-seconds: 600\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn credentials_come_from_where_every_aws_tool_finds_them() {
    let store = S3Server::start(seed());
    let home = TempDir::new().expect("a temporary folder can be made");
    let write = |name: &str, text: String| {
        std::fs::write(home.path().join(name), text).expect("a file can be written");
    };
    let user = format!("aws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n");
    let service = metadata();
    let instance = format!("http://{service}");
    let container = format!("http://{service}/container");
    for (prefix, variables) in [
        (
            "environment",
            vec![
                ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
                ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            ],
        ),
        ("profile", vec![("AWS_PROFILE", "cache")]),
        (
            "container",
            vec![("AWS_CONTAINER_CREDENTIALS_FULL_URI", container.as_str())],
        ),
        (
            "instance",
            vec![("AWS_EC2_METADATA_SERVICE_ENDPOINT", instance.as_str())],
        ),
    ] {
        let mut place = store.place(prefix, store.address());
        bare(&mut place, &home);
        write("config", String::new());
        let profile = match prefix {
            "profile" => format!("[cache]\n{user}"),
            _ => String::new(),
        };
        write("credentials", profile);
        let mut tiered = Tiered::stopped(&place.with(variables), &[]);
        let started = tiered.server.try_start();
        let said = tiered.server.log_tail();
        assert!(started.is_ok(), "{prefix}: {said}");
        assert!(!said.contains(SECRET_KEY), "no secret: {said}");
        assert_eq!(store.objects(prefix), ["manifest"], "{prefix}");
    }
}

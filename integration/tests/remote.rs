//! A remote store that cannot be used, of either kind: said clearly at start, no business of hot and cold at run time.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tiercache_integration::eventually;
use tiercache_integration::gate::{Gate, Mode};
use tiercache_integration::load::Items;
use tiercache_integration::remote::{Place, Tiered};
use tiercache_integration::server::tiercache_binary;
use tiercache_integration::tiers::figures;

const ITEMS: Items = Items { value_bytes: 1024 };
/// Several times what RAM holds.
const COUNT: u64 = 24_000;
/// Items that RAM has room for.
const HOT: u64 = 100;
const MORE: [&str; 10] = [
    "-m",
    "8",
    "--dry-wait",
    "20s",
    "--segment-size",
    "1m",
    "--dry-deadline",
    "2s",
    "--drain-timeout",
    "3s",
];
/// The state of the tier follows the store's within this time.
const STATE_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(90);
/// Nobody listens there.
const NOBODY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

/// What a server says that must not start.
fn refused(place: &Place) -> String {
    let spool = TempDir::new().expect("a temporary folder can be made");
    let output = Command::new(tiercache_binary())
        .args(["-l", "127.0.0.1", "-p", "-1", "-u", "root"])
        .args(&place.arguments)
        .arg("--dry-spool")
        .arg(spool.path().join("spool"))
        .envs(place.environment.iter().cloned())
        .output()
        .expect("the binary can be started");
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn state_becomes(tiered: &Tiered, state: &str) {
    let became = eventually(STATE_LIMIT, || {
        tiered.server.stats().text("tier_state") == Some(state)
    });
    let stats = tiered.server.stats();
    assert!(became, "not {state}: {}", figures(&stats));
}

/// A store behind a gate that closes, is silent, and opens again.
fn survives(place: &Place, gate: &Gate) {
    let mut tiered = Tiered::start(place, &MORE);
    let mut client = tiered.server.connect();
    ITEMS
        .store(&mut client, 0..COUNT, 0)
        .expect("every item is stored");
    tiered.uploaded();
    for mode in [Mode::Closed, Mode::Silent] {
        gate.set(mode);
        // Item after item: most were dried long ago.
        let mut looks = (0..COUNT).step_by(HOT as usize).cycle();
        let degraded = eventually(STATE_LIMIT, || {
            let first = looks.next().expect("it never ends");
            let found = ITEMS.read(&mut client, first..first + HOT, |_| Some(0));
            assert_eq!(found.expect("the server answers every get").wrong, [""; 0]);
            tiered.server.stats().text("tier_state") == Some("degraded")
        });
        assert!(degraded, "{mode:?}: {}", figures(&tiered.server.stats()));
        // What RAM has room for is stored and read as ever.
        let fresh = COUNT..COUNT + HOT;
        ITEMS
            .store(&mut client, fresh.clone(), 1)
            .expect("every item is stored");
        let found = ITEMS.read(&mut client, fresh, |_| Some(1));
        let found = found.expect("the server answers every get");
        assert_eq!((found.hits, found.wrong), (HOT, vec![]), "{mode:?}");
        gate.set(Mode::Open);
        let back = eventually(STATE_LIMIT, || {
            let found = tiered.read(ITEMS, COUNT, |_| Some(0));
            assert_eq!(found.wrong, [""; 0]);
            found.hits == COUNT && tiered.server.stats().text("tier_state") == Some("ok")
        });
        assert!(back, "{mode:?}: {}", figures(&tiered.server.stats()));
    }
    // A stop ends although nothing can be uploaded, and what it drained is in the spool.
    gate.set(Mode::Silent);
    assert!(tiered.server.terminate(STOP_LIMIT).success());
    gate.set(Mode::Open);
    tiered.server.start();
    let found = tiered.read(ITEMS, COUNT, |_| Some(0));
    assert_eq!((found.hits, found.wrong), (COUNT, vec![]));
}

/// A start without the store, which comes later.
fn starts_without(place: &Place, gate: &Gate) {
    gate.set(Mode::Closed);
    let mut tiered = Tiered::start(place, &[&MORE[..], &["--dry-optional"]].concat());
    state_becomes(&tiered, "degraded");
    let mut client = tiered.server.connect();
    ITEMS
        .store(&mut client, 0..COUNT, 0)
        .expect("every item is stored");
    let found = ITEMS.read(&mut client, 0..COUNT, |_| Some(0));
    let found = found.expect("the server answers every get");
    assert_eq!(
        (found.hits, found.wrong),
        (COUNT, vec![]),
        "from the spool: {}",
        figures(&tiered.server.stats())
    );
    gate.set(Mode::Open);
    state_becomes(&tiered, "ok");
    tiered.uploaded();
    assert!(tiered.server.stats().number("remote_puts") > 1);
    let found = tiered.read(ITEMS, COUNT, |_| Some(0));
    assert_eq!((found.hits, found.wrong), (COUNT, vec![]));
    assert!(tiered.server.terminate(STOP_LIMIT).success());
    // Its own store from now on.
    tiered.server.start();
    let found = tiered.read(ITEMS, COUNT, |_| Some(0));
    assert_eq!((found.hits, found.wrong), (COUNT, vec![]));
}

#[cfg(feature = "s3")]
mod bucket {
    use tiercache_integration::s3::{ACCESS_KEY, S3Server};
    use tiercache_integration::seed;

    use super::*;

    #[test]
    fn that_cannot_be_used_is_a_clear_error_at_start() {
        let store = S3Server::start(seed());
        let place = store.place("cache", store.address());
        let as_user = |key: &'static str, secret: &'static str| {
            let user = [
                ("AWS_ACCESS_KEY_ID", key),
                ("AWS_SECRET_ACCESS_KEY", secret),
            ];
            place.clone().with(user)
        };
        let mut missing = place.clone();
        missing.arguments[1] = "s3://no-such-bucket/cache".to_owned();
        for (place, tried, answer) in [
            (
                as_user(ACCESS_KEY, "wrong"),
                "s3://bucket/cache",
                "SignatureDoesNotMatch",
            ),
            // What AWS calls InvalidAccessKeyId.
            (
                as_user("nobody", "wrong"),
                "s3://bucket/cache",
                "NotSignedUp",
            ),
            (missing, "s3://no-such-bucket/cache", "NoSuchBucket"),
            (
                store.place("cache", NOBODY),
                "s3://bucket/cache",
                "127.0.0.1:9",
            ),
        ] {
            let said = refused(&place);
            assert!(said.contains(tried) && said.contains(answer), "{said}");
            assert!(!said.contains("wrong"), "no secret: {said}");
        }
    }

    #[test]
    fn that_fails_meanwhile_is_no_business_of_hot_and_cold() {
        let store = S3Server::start(seed());
        let gate = Gate::to(store.address());
        survives(&store.place("cache", gate.address()), &gate);
    }

    #[test]
    fn that_is_optional_may_come_later() {
        let store = S3Server::start(seed());
        let gate = Gate::to(store.address());
        starts_without(&store.place("cache", gate.address()), &gate);
    }
}

#[cfg(feature = "mongodb")]
mod gridfs {
    use tiercache_integration::mongodb::MongoServer;

    use super::*;

    #[test]
    fn that_cannot_be_used_is_a_clear_error_at_start() {
        let store = MongoServer::start();
        let mut user = store.place("cache", store.address());
        user.arguments[1] = user.arguments[1].replace("://", "://nobody:wrong@");
        let address = store.address().to_string();
        for (place, tried, answer) in [
            (user, address.as_str(), "SCRAM"),
            (store.place("cache", NOBODY), "127.0.0.1:9", "127.0.0.1:9"),
        ] {
            let said = refused(&place);
            assert!(said.contains(tried) && said.contains(answer), "{said}");
            assert!(!said.contains("wrong"), "no secret: {said}");
        }
    }

    #[test]
    fn that_fails_meanwhile_is_no_business_of_hot_and_cold() {
        let store = MongoServer::start();
        let gate = Gate::to(store.address());
        survives(&store.place("gate", gate.address()), &gate);
    }

    #[test]
    fn that_is_optional_may_come_later() {
        let store = MongoServer::start();
        let gate = Gate::to(store.address());
        starts_without(&store.place("later", gate.address()), &gate);
    }
}

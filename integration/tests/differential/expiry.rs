//! Exptimes of a second or two: which command gives one, and what all commands make of an item after it.
//!
//! The two servers' clocks tick at different moments, so the random requests leave short exptimes out; here a poll
//! waits until the items are gone from both before anything is compared.

use std::time::Duration;

use tiercache_integration::server::Server;
use tiercache_integration::{client::Client, eventually};

use super::endpoint::{Answer, Endpoint};
use super::reply::Reply;
use super::script::show;
use super::syntax::Syntax;
use super::text::Text;
use super::{MEMCACHED_ARGUMENTS, MODERN, bytes_of, show_answer};

/// Longer than any exptime here; only a server that never expires them takes it.
const EXPIRY_LIMIT: Duration = Duration::from_secs(20);

/// Requests that end with `KEY` expiring within two seconds, and their replies.
const WAYS: &[(&str, &str)] = &[
    ("set KEY 5 1 2\r\n10\r\n", "STORED\r\n"),
    ("add KEY 5 2 2\r\n10\r\n", "STORED\r\n"),
    (
        "set KEY 5 0 2\r\n10\r\ntouch KEY 1\r\n",
        "STORED\r\nTOUCHED\r\n",
    ),
    (
        "set KEY 5 100 2\r\n10\r\ngat 1 KEY\r\n",
        "STORED\r\nVALUE KEY 5 2\r\n10\r\nEND\r\n",
    ),
    ("ms KEY 2 T1 F5\r\n10\r\n", "HD\r\n"),
    ("set KEY 5 0 2\r\n10\r\nmg KEY T1\r\n", "STORED\r\nHD\r\n"),
    ("mg KEY N1\r\n", "HD W\r\n"),
    ("ma KEY N1 J10\r\n", "HD\r\n"),
    // A new value keeps no exptime of the old one, and an appended one does.
    (
        "set KEY 5 1 1\r\n1\r\nappend KEY 0 0 1\r\n0\r\n",
        "STORED\r\nSTORED\r\n",
    ),
    (
        "set KEY 5 100 1\r\n1\r\nset KEY 5 1 2\r\n10\r\n",
        "STORED\r\nSTORED\r\n",
    ),
    ("set KEY 5 1 1\r\n9\r\nincr KEY 1\r\n", "STORED\r\n10\r\n"),
];

/// What is asked of an expired item: all of it must be as if there had never been one.
const REQUESTS: &[&str] = &[
    "get KEY",
    "gets KEY KEY",
    "gat 100 KEY",
    "touch KEY 100",
    "delete KEY",
    "incr KEY 1",
    "decr KEY 1",
    "append KEY 0 0 1\r\n1",
    "prepend KEY 0 0 1\r\n1",
    "replace KEY 0 0 1\r\n1",
    "cas KEY 0 0 1 1\r\n1",
    "me KEY",
    "mg KEY s v t f h l",
    "md KEY q k O1",
    "ma KEY k O1",
    "ms KEY 1 MR\r\n1",
    "ms KEY 1 MA\r\n1",
    "mg KEY N100 s v f k",
    "mg KEY s v h W",
    "add KEY 7 0 1\r\n1",
];

// Every way to give a short exptime, and every command on the item after it.
#[test]
fn what_expired_is_gone_for_every_command() {
    let servers = [
        Server::memcached(MEMCACHED_ARGUMENTS),
        Server::tiercache(&[]),
    ];
    let modern = servers[0].version() >= MODERN;
    let mut endpoints = servers.each_ref().map(Endpoint::<Text>::new);
    for (way, (request, expected)) in WAYS.iter().enumerate() {
        for number in 0..REQUESTS.len() {
            let named = |text: &str| text.replace("KEY", &key(way, number));
            for endpoint in &mut endpoints {
                let answer = ask(endpoint, &named(request));
                assert_eq!(
                    show(&bytes_of::<Text>(&answer)),
                    show(named(expected).as_bytes())
                );
            }
        }
    }
    for server in &servers {
        let mut client = server.connect();
        let gone = eventually(EXPIRY_LIMIT, || live(&mut client).is_empty());
        assert!(gone, "still there: {:?}", live(&mut client));
    }
    for (way, (given, _)) in WAYS.iter().enumerate() {
        for (number, request) in REQUESTS.iter().enumerate() {
            if !modern && request.starts_with("m") {
                // Misses of the meta commands say less there.
                continue;
            }
            let request = request.replace("KEY", &key(way, number)) + "\r\n";
            let [memcached, tiercache] = endpoints.each_mut().map(|each| ask(each, &request));
            assert_eq!(
                show_answer::<Text>(&memcached),
                show_answer::<Text>(&tiercache),
                "{} after {}",
                show(request.as_bytes()),
                show(given.as_bytes())
            );
        }
    }
}

/// Every pair has a key of its own: a request that stores must not meet the next one.
fn key(way: usize, number: usize) -> String {
    format!("expiry:{way}:{number}")
}

/// The keys that are still hits. A plain get does not extend anything.
fn live(client: &mut Client) -> Vec<String> {
    (0..WAYS.len())
        .flat_map(|way| (0..REQUESTS.len()).map(move |number| key(way, number)))
        .filter(|key| {
            let value = client.get(key.as_bytes());
            value.expect("the server answers every get").is_some()
        })
        .collect()
}

fn ask(endpoint: &mut Endpoint<'_, Text>, request: &str) -> Answer<Reply> {
    endpoint.send(request.as_bytes(), &[]);
    endpoint.send(Text::MARK, &[]);
    endpoint.answer()
}

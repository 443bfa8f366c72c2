//! The comparison through a pool of one memcached: what stands between a client and it changes no byte, but for what
//! `Proxied` and `Copied` leave out.

use std::io;

use tiercache_integration::client::Client;
use tiercache_integration::pool::Pool;
use tiercache_integration::server::Server;

use super::generate::Generator;
use super::reply::{CasNames, Reply};
use super::script::Request;
use super::syntax::Syntax;
use super::text::Text;
use super::{MEMCACHED_ARGUMENTS, compare};

/// A server that is busy with other tests is late, not gone.
const PATIENT: &str = "[memcached]\nrequest_timeout = \"10s\"\nconnect_timeout = \"10s\"\n";

/// What a connection leaves unanswered may reach the pool after the requests of the next one, if that is another worker's.
const ONE_WORKER: &[&str] = &["-t", "1"];

#[test]
fn a_proxy_changes_no_byte() {
    with_pool(|pool, config| {
        let proxy = pool.proxy(&[ONE_WORKER, &["-m", "1024", "--config", config]].concat());
        compare::<Proxied>(&Server::memcached(MEMCACHED_ARGUMENTS), &proxy, 1);
    });
}

#[test]
fn copies_change_no_byte() {
    with_pool(|pool, config| {
        let near = pool.near_cache(&[ONE_WORKER, &["--config", config]].concat());
        compare::<Copied>(&Server::memcached(MEMCACHED_ARGUMENTS), &near, 1);
    });
}

fn with_pool(test: impl FnOnce(&Pool, &str)) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("c.toml");
    std::fs::write(&file, PATIENT).expect("it can be written");
    let pool = Pool::of(&[1], |port| {
        Server::memcached(&[MEMCACHED_ARGUMENTS, &["-p", port]].concat())
    });
    test(&pool, &file.display().to_string());
}

/// Text without who of one pipeline is told to recache a stale item (`W`, `Z`): a `get` before it has that right for a
/// moment, as it goes to the pool as `mg`.
#[derive(Debug)]
struct Proxied;

/// Besides, without what tells of accesses (`h`, `l`, `la`, `fetch`): those that a copy answers are unknown to the pool.
#[derive(Debug)]
struct Copied;

/// The reply without the words that `unknown` picks from a meta answer.
fn without(reply: &Reply, unknown: impl Fn(&[u8]) -> bool) -> Reply {
    let is_meta = [&b"HD"[..], b"VA", b"ME"].contains(&reply.line.get(..2).unwrap_or_default());
    if !is_meta {
        return reply.clone();
    }
    let words = reply.line.split(|byte| *byte == b' ');
    let known: Vec<&[u8]> = words.filter(|word| !unknown(word)).collect();
    Reply {
        line: known.join(&b' '),
        data: reply.data.clone(),
    }
}

fn tells_of_token(word: &[u8]) -> bool {
    word == b"W" || word == b"Z"
}

fn tells_of_access(word: &[u8]) -> bool {
    let number = |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    match word {
        [b'h' | b'l', digits @ ..] if number(digits) => true,
        _ => word.starts_with(b"la=") || word.starts_with(b"fetch="),
    }
}

/// Text, but for when two replies are the same.
macro_rules! text_but_for {
    ($name:ident, $unknown:expr) => {
        impl Syntax for $name {
            type Reply = Reply;

            const MARK: &'static [u8] = Text::MARK;

            fn is_mark(reply: &Reply) -> bool {
                Text::is_mark(reply)
            }

            fn request(generator: &mut Generator) -> Request {
                Text::request(generator)
            }

            fn read(client: &mut Client) -> io::Result<Reply> {
                Text::read(client)
            }

            fn same(names: &mut CasNames, left: &Reply, right: &Reply) -> bool {
                let unknown = $unknown;
                Text::same(names, &without(left, unknown), &without(right, unknown))
            }

            fn cas_values(reply: &Reply) -> Vec<u64> {
                Text::cas_values(reply)
            }

            fn bytes(reply: &Reply) -> Vec<u8> {
                Text::bytes(reply)
            }

            fn kind(replies: &[Reply]) -> String {
                Text::kind(replies)
            }

            fn explains(
                version: (u32, u32, u32),
                request: &[u8],
                memcached: &[Reply],
                tiercache: &[Reply],
            ) -> bool {
                Text::explains(version, request, memcached, tiercache)
            }
        }
    };
}

text_but_for!(Proxied, tells_of_token);
text_but_for!(Copied, |word: &[u8]| tells_of_token(word)
    || tells_of_access(word));

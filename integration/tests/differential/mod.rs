//! Sends the same random requests to memcached and tiercache: the same bytes must come back.
//!
//! Only CAS values are renamed, and the seconds of t, l, la and exp may be one apart. Time is kept out otherwise by
//! *epochs*: a few hundred commands on keys of their own, over before the shortest exptime; one that took longer (a
//! busy machine) is played again on new keys. `TIERCACHE_TEST_SEED` and `TIERCACHE_TEST_COMMANDS` repeat or lengthen a run.

mod binary;
mod coverage;
mod endpoint;
mod expiry;
mod generate;
mod known;
mod malformed;
mod meta;
mod pool;
mod reply;
mod run;
mod script;
mod syntax;
mod text;

use tiercache_integration::server::Server;

use run::compare;
use run::{bytes_of, show_answer};
use text::Text;

/// Memory without evictions, and no background threads: whether `decr` pads with spaces depends on whether one of them
/// holds the item at that moment.
const MEMCACHED_ARGUMENTS: &[&str] = &[
    "-m",
    "1024",
    "-t",
    "1",
    "-o",
    "no_lru_maintainer,no_lru_crawler",
];

/// The first version with the meta protocol that tiercache speaks.
const MODERN: (u32, u32, u32) = (1, 6, 32);

// The promise of the project in one test: a client cannot tell the two servers apart.
#[test]
fn the_same_requests_give_the_same_bytes() {
    let memcached = Server::memcached(MEMCACHED_ARGUMENTS);
    let tiercache = Server::tiercache(&["-m", "1024"]);
    compare::<Text>(&memcached, &tiercache, 1);
}

// The harness itself: a server does not differ from another one of its kind.
#[test]
fn memcached_does_not_differ_from_itself() {
    let left = Server::memcached(MEMCACHED_ARGUMENTS);
    let right = Server::memcached(MEMCACHED_ARGUMENTS);
    compare::<Text>(&left, &right, 2);
}

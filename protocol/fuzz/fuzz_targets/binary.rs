//! Any packets of a client and of an upstream: no panic, the same however they are split, and requests
//! are decoded to themselves once they are written anew.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tiercache_protocol_fuzz::session::{check_round_trips, play, play_packets};

fuzz_target!(|input: (u8, &[u8])| {
    let (seed, bytes) = input;
    let size = usize::from(seed) + 2;
    // The first byte makes it binary.
    let requests = [&[0x80], bytes].concat();
    let whole = play([&requests[..]]);
    assert_eq!(play(requests.chunks(1)), whole);
    assert_eq!(play(requests.chunks(size)), whole);
    check_round_trips(&whole.0);
    let replies = [&[0x81], bytes].concat();
    let whole = play_packets(&replies, replies.len());
    assert_eq!(play_packets(&replies, 1), whole);
    assert_eq!(play_packets(&replies, size), whole);
});

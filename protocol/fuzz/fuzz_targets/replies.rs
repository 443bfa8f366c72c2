//! Any bytes of an upstream: no panic, and the same replies however they are split.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tiercache_protocol_fuzz::session::play_replies;

fuzz_target!(|input: &[u8]| {
    let whole = play_replies(input, input.len().max(1));
    assert_eq!(play_replies(input, 1), whole);
    assert_eq!(play_replies(input, 7), whole);
});

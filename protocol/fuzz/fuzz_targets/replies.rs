//! Any bytes of an upstream: no panic, and the same replies however they are split.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tiercache_protocol_fuzz::arriving::Pieces;
use tiercache_protocol_fuzz::lockstep::check_replies;

fuzz_target!(|input: &[u8]| {
    check_replies(input, Pieces::Of(1));
    check_replies(input, Pieces::Of(7));
});

//! A request that was decoded and written anew is decoded to the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tiercache_protocol_fuzz::lockstep::check_rewritten;

fuzz_target!(|input: &[u8]| {
    check_rewritten(input, &mut Vec::new());
});

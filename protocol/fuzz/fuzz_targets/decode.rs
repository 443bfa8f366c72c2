//! Any bytes of a client: no panic, and progress at every step. The fastest of the targets.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tiercache_protocol::{Decoded, Decoder};
use tiercache_protocol_fuzz::session::VALUE_MAX;

fuzz_target!(|input: &[u8]| {
    let mut decoder = Decoder::new(VALUE_MAX);
    let mut rest = input;
    loop {
        let consumed = match decoder.decode(rest) {
            Decoded::Request { consumed, .. }
            | Decoded::Reject { consumed, .. }
            | Decoded::Skip { consumed } => consumed,
            Decoded::More { .. } | Decoded::Close { .. } => return,
        };
        assert!(consumed > 0, "no progress");
        rest = &rest[consumed..];
    }
});

//! However the input is split, the same is yielded.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tiercache_protocol_fuzz::session::play;

fuzz_target!(|input: (u8, &[u8])| {
    let (seed, bytes) = input;
    let whole = play([bytes]);
    assert_eq!(play(bytes.chunks(1)), whole);
    assert_eq!(play(bytes.chunks(usize::from(seed) + 2)), whole);
    // One cut, anywhere.
    let (front, back) = bytes.split_at(bytes.len() * usize::from(seed) / 256);
    assert_eq!(play([front, back]), whole);
});

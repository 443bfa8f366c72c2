//! However the requests of a client are split, the same is yielded. The last byte says how.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tiercache_protocol_fuzz::arriving::Pieces;
use tiercache_protocol_fuzz::lockstep::check_requests;

fuzz_target!(|input: &[u8]| {
    let Some((last, bytes)) = input.split_last() else {
        return;
    };
    let how = usize::from(*last);
    check_requests(bytes, Pieces::Of(1));
    check_requests(
        bytes,
        if how.is_multiple_of(2) {
            Pieces::Of(how / 2 + 2)
        } else {
            // One cut, anywhere.
            Pieces::CutAt(bytes.len() * how / 256)
        },
    );
});

//! Any packets of a client and of an upstream: no panic, the same however they are split, and requests
//! are decoded to themselves once they are written anew. The last byte says how they are split.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tiercache_protocol_fuzz::arriving::Pieces;
use tiercache_protocol_fuzz::lockstep::{check_packets, check_requests, check_rewritten};

fuzz_target!(|input: &[u8]| {
    let Some((last, bytes)) = input.split_last() else {
        return;
    };
    let pieces = Pieces::Of(usize::from(*last) + 2);
    let mut packets = bytes.to_vec();
    // The first byte makes it binary, that of a request or that of an answer.
    set_first(&mut packets, 0x80);
    check_requests(&packets, Pieces::Of(1));
    check_requests(&packets, pieces);
    check_rewritten(&packets, &mut Vec::new());
    set_first(&mut packets, 0x81);
    check_packets(&packets, Pieces::Of(1));
    check_packets(&packets, pieces);
});

fn set_first(packets: &mut [u8], magic: u8) {
    if let Some(first) = packets.first_mut() {
        *first = magic;
    }
}

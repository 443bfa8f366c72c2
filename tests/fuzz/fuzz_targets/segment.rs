//! Any bytes as a segment: records, row tables and footer, read as recovery and inspection read them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tiercache::dry::fuzz;

fuzz_target!(|bytes: &[u8]| {
    fuzz::segment(bytes);
    fuzz::repaired_segment(bytes);
});

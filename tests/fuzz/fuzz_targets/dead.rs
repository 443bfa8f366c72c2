//! Any bytes as a segment's folded kills.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tiercache::dry::fuzz;

fuzz_target!(|bytes: &[u8]| fuzz::dead(bytes));

//! Any bytes as a copy of dry's state.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tiercache::dry::fuzz;

fuzz_target!(|bytes: &[u8]| fuzz::repaired_state(bytes));

//! Any bytes as a file of the kill journal.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tiercache::dry::fuzz;

fuzz_target!(|bytes: &[u8]| fuzz::journal(bytes));

//! Writes that wear an allocator down: rounds of many times the memory, each with items of another size.

use std::io;
use std::net::SocketAddr;

use crate::random::Random;
use crate::sweep::Sweep;

/// Rounds, from the smallest mean size to the largest.
const ROUNDS: u32 = 10;
/// Mean sizes of values in the first and the last round; between them they grow by a constant factor.
const MEAN_BYTES: [f64; 2] = [50.0, 50_000.0];
/// Bytes of keys and values that a round writes, as a multiple of the server's limit.
const WRITTEN: u64 = 5;
const KEY_BYTES: u64 = 16;
const CONNECTIONS: usize = 4;
const PIPELINE: usize = 32;

/// Writes all rounds to a server with this limit; `after` hears of each round's mean size. Keys are new ones.
///
/// # Errors
/// When a connection breaks.
pub fn churn(
    address: SocketAddr,
    limit_bytes: u64,
    mut after: impl FnMut(usize),
) -> io::Result<()> {
    let mut next = 0;
    for round in 0..ROUNDS {
        let part = f64::from(round) / f64::from(ROUNDS - 1);
        let mean = (MEAN_BYTES[0] * (MEAN_BYTES[1] / MEAN_BYTES[0]).powf(part)) as u64;
        let count = WRITTEN * limit_bytes / (KEY_BYTES + mean);
        // Evenly from 1 to twice the mean, by number.
        let bytes = |number: u64| Random::new(number).between(1, 2 * mean - 1) as usize;
        let mut sweep = Sweep::connect(address, CONNECTIONS, PIPELINE, 2 * mean as usize)?;
        sweep.store(next..next + count, bytes)?;
        next += count;
        after(mean as usize);
    }
    Ok(())
}

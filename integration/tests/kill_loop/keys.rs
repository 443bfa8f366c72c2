//! The keys of the kill loop: each belongs to a class that says what clients do to it and what its values mean.

use tiercache_integration::random::Random;
use tiercache_integration::value;

/// How many keys there are, and the server that has them: at about 1 KiB each they are several times its RAM.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub keys: usize,
    /// Keys stored in each cycle: more than RAM holds.
    pub refill: u64,
    /// `-m` and `--dry-size`: small enough that reclaim has work, large enough that not everything falls out of dry.
    pub memory: &'static str,
    pub dry: &'static str,
    /// Every key that is read costs a round trip: they are asked for together first.
    pub remote: bool,
}

/// For a dry tier on local disk.
pub const LOCAL: Size = Size {
    keys: 24_000,
    refill: 8_000,
    memory: "8",
    dry: "40m",
    remote: false,
};

/// For one in a remote store.
pub const REMOTE: Size = Size {
    keys: 14_000,
    refill: 5_000,
    memory: "4",
    dry: "40m",
    remote: true,
};

/// Keys that all clients fight over.
pub const CONTENDED_KEYS: u64 = 200;
/// Low bits of a counter that its increments may use; the bits above name the `set` that began it.
const COUNTER_BITS: u32 = 20;
/// Records are this long, so that values grow to a few KiB by appends.
const RECORD_BYTES: (u64, u64) = (200, 1600);
/// Set in the id of a value that was marked stale: to the checker it is another value.
pub const STALE: u64 = 1 << 62;

/// What a key is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Numbers, for `incr` and `decr`.
    Counter,
    /// Values that live for a second or two.
    Expiring,
    /// Values that are marked stale and renewed by the client that wins the token.
    Leased,
    /// Chains of records, for `append` or `prepend`.
    Chain,
}

/// The class of a key.
pub fn class(key: usize) -> Class {
    match key % 32 {
        // Few, because what expires between two looks counts as lost.
        1 => Class::Expiring,
        0 | 8 | 16 | 24 => Class::Counter,
        2 | 10 | 18 | 26 => Class::Leased,
        _ => Class::Chain,
    }
}

/// Whether a counter is decremented; the others are incremented.
pub fn counts_down(key: usize) -> bool {
    key.is_multiple_of(16)
}

/// Whether a chain grows at its beginning; the others grow at their end.
pub fn grows_at_its_beginning(key: usize) -> bool {
    key % 4 == 3
}

/// The key as clients send it.
pub fn name(key: usize) -> String {
    format!("key:{key:08}")
}

/// The id and the bytes of a value that was never written before. `serial` is used once.
pub fn fresh_value(key: usize, serial: u64, random: &mut Random) -> (u64, Vec<u8>) {
    if class(key) == Class::Counter {
        // Those that count down begin in the middle of their numbers.
        let first = if counts_down(key) {
            1 << (COUNTER_BITS - 1)
        } else {
            0
        };
        let number = serial << COUNTER_BITS | first;
        return (number, number.to_string().into_bytes());
    }
    let length = random.between(RECORD_BYTES.0, RECORD_BYTES.1) as usize;
    (serial, value::record(name(key).as_bytes(), serial, length))
}

/// The ids that a value is made of, oldest first.
///
/// # Errors
/// Says what is wrong when it is no value of this key.
pub fn ids(key: usize, bytes: &[u8]) -> Result<Vec<u64>, String> {
    if class(key) != Class::Counter {
        let mut ids = value::ids(name(key).as_bytes(), bytes)?;
        if grows_at_its_beginning(key) {
            ids.reverse();
        }
        return Ok(ids);
    }
    // A counter that lost a digit keeps a space in its place.
    let number = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.trim_end().parse().ok());
    number
        .map(|number| vec![number])
        .ok_or_else(|| String::from("not a number"))
}

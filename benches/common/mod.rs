//! What several benches need: a cache in RAM, its keys, an item stored.

use std::sync::Arc;

use tiercache::clock::Clock;
use tiercache::entry::Marks;
use tiercache::metrics::Metrics;
use tiercache::tier::{
    Attempt, Cache, Decision, Local, NewItem, Outcome, StartError, TierConfig, Value,
};
use tiercache::units::ByteSize;

/// Bytes of every value.
pub const VALUE_BYTES: usize = 100;

/// A cache of 512 MiB with one worker and no dry tier.
pub fn cache() -> Result<Arc<Cache>, StartError> {
    let config = TierConfig {
        hot_size: ByteSize::mib(256),
        cold_size: ByteSize::mib(256),
        ..TierConfig::default()
    };
    let clock = Arc::new(Clock::system());
    let metrics = Arc::new(Metrics::starting_at(clock.now()));
    Ok(Cache::start(config, clock, metrics, None, 1, &|_, _, _| {})?.0)
}

/// The key with a number, 16 bytes.
pub fn key(number: u64) -> [u8; 16] {
    let mut key = *b"key:000000000000";
    let mut left = number;
    for digit in key.iter_mut().rev().take(12) {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
    }
    key
}

/// Stores an item.
pub fn store(cache: &Cache, local: &mut Local, key: &[u8]) {
    let value = [b'x'; VALUE_BYTES];
    let stored = cache.update(
        local,
        &mut Attempt::default(),
        key,
        Some(VALUE_BYTES),
        |_| {
            let item = NewItem {
                flags: 0,
                exptime: 0,
                own_cas: None,
                marks: Marks::default(),
                value: Value::Bytes(&value),
            };
            Decision::Store((), item)
        },
    );
    assert!(matches!(stored, Outcome::Done { .. }), "there is room");
}

/// A number from the environment, or its default.
pub fn number_from_env(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

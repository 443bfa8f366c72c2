//! The commands, stops and crashes that a run is made of.

use proptest::prelude::*;

use super::{KEYS, TTL_MAX, VALUE_BYTES_MAX};

#[derive(Debug, Clone)]
pub(super) enum Step {
    Store {
        verb: &'static str,
        key: u8,
        flags: u32,
        ttl: i32,
        bytes: usize,
        fill: u8,
    },
    StoreNumber {
        key: u8,
        number: u32,
    },
    MetaStore {
        key: u8,
        mode: char,
        ttl: i32,
        bytes: usize,
        fill: u8,
    },
    Cas {
        key: u8,
        right: bool,
        fill: u8,
    },
    Get {
        keys: Vec<u8>,
    },
    MetaGet {
        key: u8,
    },
    Vivify {
        key: u8,
    },
    Delete {
        key: u8,
        meta: bool,
    },
    Invalidate {
        key: u8,
    },
    Count {
        key: u8,
        delta: u32,
        down: bool,
        meta: bool,
    },
    Touch {
        key: u8,
        ttl: u32,
        get: bool,
    },
    Flush,
    Stop,
    Crash,
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let key = 0..KEYS;
    let ttl = prop_oneof![6 => Just(0), 3 => 1000..TTL_MAX as i32, 1 => Just(-1)];
    let bytes = prop_oneof![1 => 0..200usize, 3 => 10_000..VALUE_BYTES_MAX];
    let verb = prop_oneof![
        5 => Just("set"),
        1 => Just("add"),
        1 => Just("replace"),
        1 => Just("append"),
        1 => Just("prepend"),
    ];
    let stores = (
        verb,
        key.clone(),
        any::<u32>(),
        ttl.clone(),
        bytes.clone(),
        any::<u8>(),
    );
    let stores = stores.prop_map(|(verb, key, flags, ttl, bytes, fill)| Step::Store {
        verb,
        key,
        flags,
        ttl,
        bytes,
        fill,
    });
    let mode = prop::sample::select(vec!['S', 'E', 'R', 'A', 'P']);
    let metas = (key.clone(), mode, ttl, bytes, any::<u8>());
    let metas = metas.prop_map(|(key, mode, ttl, bytes, fill)| Step::MetaStore {
        key,
        mode,
        ttl,
        bytes,
        fill,
    });
    prop_oneof![
        120 => stores,
        40 => metas,
        20 => (key.clone(), any::<u32>()).prop_map(|(key, number)| Step::StoreNumber { key, number }),
        20 => (key.clone(), any::<bool>(), any::<u8>())
            .prop_map(|(key, right, fill)| Step::Cas { key, right, fill }),
        80 => prop::collection::vec(key.clone(), 1..8).prop_map(|keys| Step::Get { keys }),
        60 => key.clone().prop_map(|key| Step::MetaGet { key }),
        10 => key.clone().prop_map(|key| Step::Vivify { key }),
        30 => (key.clone(), any::<bool>()).prop_map(|(key, meta)| Step::Delete { key, meta }),
        10 => key.clone().prop_map(|key| Step::Invalidate { key }),
        30 => (key.clone(), any::<u32>(), any::<bool>(), any::<bool>())
            .prop_map(|(key, delta, down, meta)| Step::Count { key, delta, down, meta }),
        20 => (key, 1000..TTL_MAX, any::<bool>())
            .prop_map(|(key, ttl, get)| Step::Touch { key, ttl, get }),
        1 => Just(Step::Flush),
        2 => Just(Step::Stop),
        2 => Just(Step::Crash),
    ]
}

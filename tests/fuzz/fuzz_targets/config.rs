//! Any text as a configuration; one that is taken prints as what resolves to the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tiercache::config::{Config, Layer, Machine};
use tiercache::units::ByteSize;

const MACHINE: Machine = Machine {
    memory: ByteSize::gib(64),
    cores: 4,
};

fuzz_target!(|text: &str| {
    let Some(config) = resolve(text) else {
        return;
    };
    let printed = config.to_toml();
    assert_eq!(resolve(&printed), Some(config), "{printed}");
});

fn resolve(text: &str) -> Option<Config> {
    let layer: Layer = toml::from_str(text).ok()?;
    Config::resolve(layer, MACHINE).ok()
}

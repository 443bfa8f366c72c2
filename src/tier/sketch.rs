//! About how often keys were used, beyond their stays in RAM: what `--dry-admission tinylfu` compares.
//!
//! A count-min sketch as in TinyLFU (Einziger, Friedman and Manes, 2017): two counters for each key,
//! of which the lower one counts. All are halved after a number of uses, so old ones fade. Racing
//! updates may lose one: it is an estimate anyway.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};

use super::index::KeyHash;

/// One counter per this many bytes of RAM.
const BYTES_PER_COUNTER: usize = 256;
/// Uses per counter after which all are halved.
const USES_PER_COUNTER: usize = 4;
/// The mean of rivals moves by this part of what each differs from it.
const RIVAL_PART: f32 = 1.0 / 1024.0;

/// Counted uses by key, and the rivals' mean.
#[derive(Debug)]
pub(super) struct Sketch {
    counters: Box<[AtomicU8]>,
    uses: AtomicU32,
    /// An `f32` as bits.
    rival_uses: AtomicU32,
}

impl Sketch {
    /// For RAM of so many bytes.
    pub(super) fn new(memory_bytes: usize) -> Sketch {
        let counters = (memory_bytes / BYTES_PER_COUNTER).next_power_of_two();
        Sketch {
            counters: (0..counters).map(|_| AtomicU8::new(0)).collect(),
            uses: AtomicU32::new(0),
            rival_uses: AtomicU32::new(0),
        }
    }

    /// Bytes of memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.counters.len()
    }

    /// Counts uses of a key.
    pub(super) fn add(&self, hash: KeyHash, uses: u8) {
        for counter in self.counters_of(hash) {
            counter.store(counter.load(Relaxed).saturating_add(uses), Relaxed);
        }
        let before = self.uses.fetch_add(u32::from(uses), Relaxed);
        if before as usize > self.counters.len() * USES_PER_COUNTER {
            self.uses.store(0, Relaxed);
            for counter in &self.counters {
                counter.store(counter.load(Relaxed) / 2, Relaxed);
            }
        }
    }

    /// About how often a key was used.
    pub(super) fn uses(&self, hash: KeyHash) -> u8 {
        let [one, other] = self.counters_of(hash).map(|counter| counter.load(Relaxed));
        one.min(other)
    }

    /// Dry gives up an item.
    pub(super) fn given_up(&self, hash: KeyHash) {
        let mean = f32::from_bits(self.rival_uses.load(Relaxed));
        let mean = mean + (f32::from(self.uses(hash)) - mean) * RIVAL_PART;
        self.rival_uses.store(mean.to_bits(), Relaxed);
    }

    /// The mean uses of what dry gave up lately.
    pub(super) fn rival_uses(&self) -> f64 {
        f64::from(f32::from_bits(self.rival_uses.load(Relaxed)))
    }

    fn counters_of(&self, hash: KeyHash) -> [&AtomicU8; 2] {
        let mask = self.counters.len() - 1;
        [hash.0, hash.0.rotate_left(29)].map(|bits| &self.counters[bits as usize & mask])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u64) -> KeyHash {
        KeyHash(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    // Uses add up, fade when others come, and never count for less than they were before that.
    #[test]
    fn uses_are_counted_and_fade() {
        let sketch = Sketch::new(1 << 20);
        for _ in 0..5 {
            sketch.add(hash(1), 2);
        }
        assert!(sketch.uses(hash(1)) >= 10);
        let counted = sketch.uses(hash(1));
        for number in 2..40_000 {
            sketch.add(hash(number), 1);
        }
        assert!(sketch.uses(hash(1)) < counted + 5);
        assert_eq!(sketch.bytes(), 4096);
    }

    #[test]
    fn the_rival_is_a_mean() {
        let sketch = Sketch::new(1 << 20);
        assert_eq!(sketch.rival_uses(), 0.0);
        sketch.add(hash(1), 3);
        for _ in 0..10_000 {
            sketch.given_up(hash(1));
        }
        assert!((2.9..=3.0).contains(&sketch.rival_uses()));
    }
}

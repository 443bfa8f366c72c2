//! What is known about an item apart from its key and value; it travels unchanged between tiers.

use crate::clock::UnixSeconds;
use crate::siphash::siphash13;

/// Longest key in bytes.
pub const KEY_BYTES_MAX: usize = 250;

/// `exptime` of an item that never expires.
pub const NEVER: UnixSeconds = 0;

/// The facts that travel with an item through every tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facts {
    /// Orders the writes of a key over tiers and restarts; unique per write.
    pub version: u64,
    /// The CAS unique that a client chose for the item (meta flag `E`). Without one the version is
    /// the CAS unique.
    pub own_cas: Option<u64>,
    /// The client's flags.
    pub flags: u32,
    /// Never served from this second on; [`NEVER`] for no limit.
    pub exptime: UnixSeconds,
    /// When a client last stored or fetched the item.
    pub last_access: UnixSeconds,
    /// Which rule set the residence times; 0 for the tiers' own.
    pub rule: u8,
    /// Marks that clients can see.
    pub marks: Marks,
}

impl Facts {
    /// The CAS unique that clients see.
    #[inline]
    pub fn cas(&self) -> u64 {
        self.own_cas.unwrap_or(self.version)
    }

    /// Whether the item may no longer be served.
    #[inline]
    pub fn expired(&self, now: UnixSeconds) -> bool {
        expired(self.exptime, now)
    }
}

/// Whether an exptime has passed.
#[inline]
pub fn expired(exptime: UnixSeconds, now: UnixSeconds) -> bool {
    exptime != NEVER && exptime <= now
}

/// Bits of an item that clients see through the meta commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks(u8);

impl Marks {
    /// Marked stale by an invalidation; served with `X`.
    pub const STALE: Marks = Marks(1);
    /// Some client was told that it won the right to recache.
    pub const TOKEN_SENT: Marks = Marks(2);
    /// Fetched at least once since it was stored.
    pub const FETCHED: Marks = Marks(4);
    /// Stored with a base64 key.
    pub const KEY_BASE64: Marks = Marks(8);

    /// All marks as the low four bits of a byte.
    #[inline]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The marks in the low four bits of a byte; the others are ignored.
    #[inline]
    pub fn from_bits(bits: u8) -> Marks {
        Marks(bits & 15)
    }

    /// Whether all of `marks` are set.
    #[inline]
    pub fn has(self, marks: Marks) -> bool {
        self.0 & marks.0 == marks.0
    }

    /// These marks and `marks`.
    #[inline]
    #[must_use]
    pub fn with(self, marks: Marks) -> Marks {
        Marks(self.0 | marks.0)
    }

    /// These marks but not `marks`.
    #[inline]
    #[must_use]
    pub fn without(self, marks: Marks) -> Marks {
        Marks(self.0 & !marks.0)
    }
}

/// The key of the hash, drawn once per dry folder (or process) so that nobody can aim for one shard.
pub type HashSeed = [u64; 2];

/// SipHash-1-3 of a key: <https://www.aumasson.jp/siphash/siphash.pdf>. The value is stored in dry
/// segments, so it must never change.
#[inline]
pub fn hash_key(seed: HashSeed, key: &[u8]) -> u64 {
    siphash13(seed, key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    // Computed by hand from the paper: segments on disk hold these values.
    fn the_hash_is_pinned() {
        assert_eq!(hash_key([1, 2], b"a key"), 0x9e61_fd08_eb21_9aaf);
        assert_ne!(hash_key([1, 2], b"a key"), hash_key([1, 3], b"a key"));
    }

    #[test]
    fn exptime_is_the_first_second_without_the_item() {
        assert!(!expired(NEVER, 5) && !expired(6, 5) && expired(5, 5));
    }
}

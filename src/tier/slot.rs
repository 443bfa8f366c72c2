//! One index slot: which item, until when, and where it lies.
//!
//! ```text
//! first word    tag (32) | exptime (32)
//! second word   kind (2) | hits (2) | hot, cold: segment (22) word (17)
//!                                   | dry: segment (28) offset / 8 (23), size class (9)
//! ```
//! A zero second word is an empty slot. The second word without its hit bits is the item's
//! *location*: whoever moves an item may install the result only if the location is unchanged.

use crate::clock::UnixSeconds;
use crate::dry::Place;
use crate::ram::{Address, SegmentKind};

/// Which tier an item lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tier {
    /// RAM, first come.
    Hot,
    /// RAM, for items that were hit.
    Cold,
    /// Segments below RAM.
    Dry,
}

impl Tier {
    /// The number of the slab class that tools of memcached are shown for the tier.
    pub fn class(self) -> u32 {
        match self {
            Tier::Hot => 1,
            Tier::Cold => 2,
            Tier::Dry => 3,
        }
    }
}

impl From<SegmentKind> for Tier {
    fn from(kind: SegmentKind) -> Tier {
        match kind {
            SegmentKind::Hot => Tier::Hot,
            SegmentKind::Cold => Tier::Cold,
        }
    }
}

/// Most hits that a slot counts.
pub const HITS_MAX: u8 = 3;

const KIND_SHIFT: u32 = 62;
const HITS_SHIFT: u32 = 60;
const HITS_MASK: u64 = 3 << HITS_SHIFT;

const HOT: u64 = 1;
const COLD: u64 = 2;
const DRY: u64 = 3;

const SIZE_CLASS_BITS: u32 = 9;
const OFFSET_BITS: u32 = 23;

/// Where an item lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Location(u64);

/// A location taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whereabouts {
    /// In a RAM segment of this tier.
    Ram(SegmentKind, Address),
    /// In a dry segment, with at least the record's length in bytes (at most 1/16 more).
    Dry(Place, u32),
}

impl Location {
    /// In RAM.
    #[inline]
    pub fn ram(kind: SegmentKind, address: Address) -> Location {
        let tier = match kind {
            SegmentKind::Hot => HOT,
            SegmentKind::Cold => COLD,
        };
        Location(
            tier << KIND_SHIFT
                | u64::from(address.segment) << Address::WORD_BITS
                | u64::from(address.word),
        )
    }

    /// In a dry segment; `bytes` is the record's length.
    pub fn dry(place: Place, bytes: u32) -> Location {
        Location(
            DRY << KIND_SHIFT
                | u64::from(place.segment) << (OFFSET_BITS + SIZE_CLASS_BITS)
                | u64::from(place.offset) << SIZE_CLASS_BITS
                | u64::from(size_class(bytes)),
        )
    }

    /// The tier.
    #[inline]
    pub fn tier(self) -> Tier {
        match self.0 >> KIND_SHIFT {
            HOT => Tier::Hot,
            COLD => Tier::Cold,
            _ => Tier::Dry,
        }
    }

    /// Whether it is in a dry segment.
    #[inline]
    pub fn is_dry(self) -> bool {
        self.0 >> KIND_SHIFT == DRY
    }

    /// The address, if it is in RAM.
    #[inline]
    pub fn address(self) -> Option<Address> {
        (!self.is_dry()).then_some(Address {
            segment: (self.0 >> Address::WORD_BITS) as u32 & ((1 << Address::SEGMENT_BITS) - 1),
            word: self.0 as u32 & ((1 << Address::WORD_BITS) - 1),
        })
    }

    /// The parts.
    pub fn whereabouts(self) -> Whereabouts {
        match (self.address(), self.tier()) {
            (Some(address), Tier::Cold) => Whereabouts::Ram(SegmentKind::Cold, address),
            (Some(address), _) => Whereabouts::Ram(SegmentKind::Hot, address),
            (None, _) => {
                let place = Place {
                    segment: (self.0 >> (OFFSET_BITS + SIZE_CLASS_BITS)) as u32 & ((1 << 28) - 1),
                    offset: (self.0 >> SIZE_CLASS_BITS) as u32 & ((1 << OFFSET_BITS) - 1),
                };
                Whereabouts::Dry(
                    place,
                    class_bytes(self.0 as u32 & ((1 << SIZE_CLASS_BITS) - 1)),
                )
            }
        }
    }

    /// The dry place and the upper bound of the record's length, if it is dry.
    pub fn place(self) -> Option<(Place, u32)> {
        match self.whereabouts() {
            Whereabouts::Dry(place, bytes) => Some((place, bytes)),
            Whereabouts::Ram(..) => None,
        }
    }
}

/// Five bits of exponent and four of mantissa: the smallest such number that is not below `bytes`,
/// counted in units of 8 bytes.
fn size_class(bytes: u32) -> u32 {
    let units = bytes.div_ceil(8);
    if units < 16 {
        return units;
    }
    let exponent = 31 - units.leading_zeros() - 4;
    let mantissa = (units - 1) >> exponent;
    // A carry out of the mantissa moves into the exponent by itself.
    ((exponent << 4) + mantissa + 1).min((1 << SIZE_CLASS_BITS) - 1)
}

fn class_bytes(class: u32) -> u32 {
    if class < 16 {
        return class * 8;
    }
    let exponent = (class - 16) >> 4;
    let mantissa = ((class - 16) & 15) + 16;
    (mantissa << exponent).saturating_mul(8)
}

/// A slot in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// The part of the key's hash that tells items of a shard apart.
    pub tag: u32,
    /// When the item expires; 0 for never.
    pub exptime: UnixSeconds,
    /// Where it lies.
    pub location: Location,
    /// How often it was hit since it came to its tier, at most [`HITS_MAX`].
    pub hits: u8,
}

impl Slot {
    /// The two words of the slot.
    #[inline]
    pub(super) fn to_words(self) -> [u64; 2] {
        [
            u64::from(self.tag) << 32 | u64::from(self.exptime),
            self.location.0 | u64::from(self.hits) << HITS_SHIFT,
        ]
    }

    /// The slot in two words, the second of which is not zero.
    #[inline]
    pub(super) fn from_words(words: [u64; 2]) -> Slot {
        Slot {
            tag: (words[0] >> 32) as u32,
            exptime: words[0] as u32,
            location: Location(words[1] & !HITS_MASK),
            hits: (words[1] >> HITS_SHIFT & 3) as u8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_reads_back() {
        let address = Address {
            segment: (1 << 22) - 1,
            word: (1 << 17) - 1,
        };
        let place = Place {
            segment: (1 << 28) - 1,
            offset: (1 << 23) - 1,
        };
        for kind in [SegmentKind::Hot, SegmentKind::Cold] {
            let location = Location::ram(kind, address);
            assert_eq!(location.whereabouts(), Whereabouts::Ram(kind, address));
            let slot = Slot {
                tag: u32::MAX,
                exptime: 7,
                location,
                hits: 3,
            };
            assert_eq!(Slot::from_words(slot.to_words()), slot);
        }
        let location = Location::dry(place, 1000);
        assert!(location.is_dry() && location.address().is_none());
        assert_eq!(location.place().unwrap().0, place);
        let slot = Slot {
            tag: 1,
            exptime: 0,
            location,
            hits: 2,
        };
        assert_eq!(Slot::from_words(slot.to_words()), slot);
    }

    // A size class never says less than the size, and at most a sixteenth (and a unit) more.
    #[test]
    fn size_classes_bound_the_size() {
        for bytes in (0..100_000)
            .chain((17..30).flat_map(|bits| [(1 << bits) - 8, 1 << bits, (1 << bits) + 8]))
        {
            let bound = class_bytes(size_class(bytes));
            assert!(
                bound >= bytes && bound <= bytes + bytes / 15 + 8,
                "{bytes} gives {bound}"
            );
        }
    }
}

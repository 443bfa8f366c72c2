//! One index slot: which item, until when, and where it lies.
//!
//! ```text
//! first word     tag (high 32) | exptime (32)
//! second word    0 1 tag (low 7) cold (1) hits (4) stamp (11) segment (22) word (17)  in RAM
//!                1 hit (1) tag (low 7) size class (4) segment (28) offset / 8 (23)     in dry
//! ```
//! A zero second word is an empty slot. The second word without its tag, hits and stamp is the item's
//! *location*: whoever moves an item may install the result only if the location is unchanged.

use super::policy::worth::STAMP_BITS;
use crate::clock::UnixSeconds;
use crate::dry::Place;
use crate::fault;
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

/// Most hits that a slot in RAM counts; one in dry counts one.
pub const HITS_MAX: u8 = 15;

const DRY: u64 = 1 << 63;
const DRY_HIT: u64 = 1 << 62;
const RAM: u64 = 1 << 62;
const RAM_COLD: u64 = 1 << 54;
const RAM_HITS_SHIFT: u32 = 50;
const RAM_HITS: u64 = (HITS_MAX as u64) << RAM_HITS_SHIFT;
const RAM_STAMP_SHIFT: u32 = Address::SEGMENT_BITS + Address::WORD_BITS;
const RAM_STAMP: u64 = ((1 << STAMP_BITS) - 1) << RAM_STAMP_SHIFT;
const TAG_SHIFT: u32 = 55;
const TAG: u64 = ((1 << Tag::LOW_BITS) - 1) << TAG_SHIFT;
const SIZE_CLASS_SHIFT: u32 = 51;
const SIZE_CLASS_MAX: u64 = 15;
/// Bytes of the smallest size class; each further one is twice as large.
const SIZE_CLASS_BYTES: u32 = 64;

/// The part of a key's hash that tells the items of a shard apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(u64);

impl Tag {
    const LOW_BITS: u32 = 7;
    /// Bits of a tag.
    pub const BITS: u32 = 32 + Tag::LOW_BITS;

    /// The tag in the low bits of a hash.
    #[inline]
    pub fn of_hash(hash: u64) -> Tag {
        Tag(hash & ((1 << Tag::BITS) - 1) & fault::tag_mask())
    }

    /// The bits that order the slots.
    #[inline]
    pub fn high(self) -> u32 {
        (self.0 >> Tag::LOW_BITS) as u32
    }
}

/// Where an item lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Location(u64);

impl Location {
    /// In RAM.
    #[inline]
    pub fn ram(kind: SegmentKind, address: Address) -> Location {
        let cold = if kind == SegmentKind::Cold {
            RAM_COLD
        } else {
            0
        };
        Location(
            RAM | cold | u64::from(address.segment) << Address::WORD_BITS | u64::from(address.word),
        )
    }

    /// In a dry segment; `bytes` is the record's length.
    pub fn dry(place: Place, bytes: u32) -> Location {
        Location(DRY | size_class(bytes) << SIZE_CLASS_SHIFT | place.to_bits())
    }

    /// The tier.
    #[inline]
    pub fn tier(self) -> Tier {
        match (self.is_dry(), self.0 & RAM_COLD != 0) {
            (true, _) => Tier::Dry,
            (false, true) => Tier::Cold,
            (false, false) => Tier::Hot,
        }
    }

    /// Whether it is in a dry segment.
    #[inline]
    pub fn is_dry(self) -> bool {
        self.0 & DRY != 0
    }

    /// The address, if it is in RAM.
    #[inline]
    pub fn address(self) -> Option<Address> {
        (!self.is_dry()).then_some(Address {
            segment: (self.0 >> Address::WORD_BITS) as u32 & ((1 << Address::SEGMENT_BITS) - 1),
            word: self.0 as u32 & ((1 << Address::WORD_BITS) - 1),
        })
    }

    /// The dry place, if it is dry, with a bound of the record's length in bytes: the power of two
    /// that is not below it, at most 2 MiB.
    pub fn place(self) -> Option<(Place, u32)> {
        self.is_dry().then(|| {
            let class = self.0 >> SIZE_CLASS_SHIFT & SIZE_CLASS_MAX;
            (Place::from_bits(self.0), SIZE_CLASS_BYTES << class)
        })
    }
}

/// The number of the smallest class that holds `bytes`, or the largest class.
fn size_class(bytes: u32) -> u64 {
    let units = bytes.div_ceil(SIZE_CLASS_BYTES).max(1);
    u64::from(units.next_power_of_two().trailing_zeros()).min(SIZE_CLASS_MAX)
}

/// A slot in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// The part of the key's hash that tells items of a shard apart.
    pub tag: Tag,
    /// When the item expires; 0 for never.
    pub exptime: UnixSeconds,
    /// Where it lies.
    pub location: Location,
    /// How often it was hit since it came to its tier, at most [`HITS_MAX`] (in dry: 1).
    pub hits: u8,
    /// When it was last stored or hit, as [`worth`](super::policy::worth) tells time; 0 in dry.
    pub stamp: u16,
}

impl Slot {
    /// The two words of the slot.
    #[inline]
    pub(super) fn to_words(self) -> [u64; 2] {
        let first = u64::from(self.tag.high()) << 32 | u64::from(self.exptime);
        let low = self.tag.0 << TAG_SHIFT & TAG;
        let used = match (self.location.is_dry(), self.hits) {
            (true, 0) => 0,
            (true, _) => DRY_HIT,
            (false, hits) => {
                u64::from(hits) << RAM_HITS_SHIFT | u64::from(self.stamp) << RAM_STAMP_SHIFT
            }
        };
        [first, self.location.0 | low | used]
    }

    /// The second word of a slot in RAM after a hit at this stamp.
    #[inline]
    pub(super) fn touched(second: u64, stamp: u16) -> u64 {
        let more = u64::from(second & RAM_HITS != RAM_HITS) << RAM_HITS_SHIFT;
        (second + more) & !RAM_STAMP | u64::from(stamp) << RAM_STAMP_SHIFT
    }

    /// Whether a second word belongs to a slot in RAM whose tag has the low bits of `tag`.
    #[inline]
    pub(super) fn is_in_ram(second: u64, tag: Tag) -> bool {
        second & (DRY | RAM | TAG) == RAM | tag.0 << TAG_SHIFT & TAG
    }

    /// Whether two second words, the other of a slot in RAM, are of one location and tag.
    #[inline]
    pub(super) fn same_location(one: u64, other: u64) -> bool {
        (one ^ other) & !(RAM_HITS | RAM_STAMP) == 0
    }

    /// The location in the second word of a slot in RAM.
    #[inline]
    pub(super) fn ram_location(second: u64) -> Location {
        Location(second & !(RAM_HITS | RAM_STAMP | TAG))
    }

    /// The slot in two words, the second of which is not zero.
    #[inline]
    pub(super) fn from_words(words: [u64; 2]) -> Slot {
        let [first, second] = words;
        let (used_mask, hits, stamp) = if second & DRY != 0 {
            (DRY_HIT, (second & DRY_HIT != 0) as u8, 0)
        } else {
            (
                RAM_HITS | RAM_STAMP,
                ((second & RAM_HITS) >> RAM_HITS_SHIFT) as u8,
                ((second & RAM_STAMP) >> RAM_STAMP_SHIFT) as u16,
            )
        };
        Slot {
            tag: Tag((first >> 32) << Tag::LOW_BITS | (second & TAG) >> TAG_SHIFT),
            exptime: first as u32,
            location: Location(second & !(used_mask | TAG)),
            hits,
            stamp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A hit changes hits and stamp alone, and hits end at their most.
    #[test]
    fn a_hit_is_counted_in_place() {
        let address = Address {
            segment: (1 << Address::SEGMENT_BITS) - 1,
            word: (1 << Address::WORD_BITS) - 1,
        };
        for kind in [SegmentKind::Hot, SegmentKind::Cold] {
            for hits in 0..=HITS_MAX {
                let slot = Slot {
                    tag: Tag::of_hash(u64::MAX),
                    exptime: 7,
                    location: Location::ram(kind, address),
                    hits,
                    stamp: 5,
                };
                let [first, second] = slot.to_words();
                let touched = Slot::touched(second, (1 << STAMP_BITS) - 2);
                let expected = Slot {
                    hits: (hits + 1).min(HITS_MAX),
                    stamp: (1 << STAMP_BITS) - 2,
                    ..slot
                };
                assert_eq!(Slot::from_words([first, touched]), expected);
                assert!(Slot::same_location(second, touched));
                assert_eq!(Slot::ram_location(touched), slot.location);
            }
        }
    }

    #[test]
    fn a_slot_reads_back() {
        let address = Address {
            segment: (1 << 22) - 1,
            word: (1 << 17) - 1,
        };
        let place = Place {
            segment: (1 << 28) - 1,
            offset: (1 << 23) - 1,
        };
        for tag in [
            Tag::of_hash(u64::MAX),
            Tag::of_hash(0),
            Tag::of_hash(0x1234_5678_9abc),
        ] {
            for kind in [SegmentKind::Hot, SegmentKind::Cold] {
                let location = Location::ram(kind, address);
                assert_eq!(
                    (location.tier(), location.address(), location.place()),
                    (Tier::from(kind), Some(address), None)
                );
                for hits in 0..=HITS_MAX {
                    let slot = Slot {
                        tag,
                        exptime: u32::MAX,
                        location,
                        hits,
                        stamp: (1 << STAMP_BITS) - 1 - u16::from(hits),
                    };
                    assert_eq!(Slot::from_words(slot.to_words()), slot);
                }
            }
            let location = Location::dry(place, 1000);
            assert_eq!(
                (location.tier(), location.place()),
                (Tier::Dry, Some((place, 1024)))
            );
            assert!(location.is_dry() && location.address().is_none());
            for hits in 0..=1 {
                let slot = Slot {
                    tag,
                    exptime: 7,
                    location,
                    hits,
                    stamp: 0,
                };
                assert_eq!(Slot::from_words(slot.to_words()), slot);
            }
        }
    }

    // A size class never says less than the size, and less than twice as much, up to its maximum.
    #[test]
    fn size_classes_bound_the_size() {
        for bytes in (1..100_000).chain((17..=21).flat_map(|bits| [(1 << bits) - 8, 1 << bits])) {
            let (_, bound) = Location::dry(
                Place {
                    segment: 1,
                    offset: 0,
                },
                bytes,
            )
            .place()
            .unwrap();
            assert!(
                bound >= bytes && bound < 2 * bytes.max(64),
                "{bytes} gives {bound}"
            );
        }
        let (_, bound) = Location::dry(
            Place {
                segment: 1,
                offset: 0,
            },
            1 << 30,
        )
        .place()
        .unwrap();
        assert_eq!(bound, 2 << 20);
    }
}

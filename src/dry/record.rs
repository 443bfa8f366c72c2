//! A record's bytes: one item with all that travels with it.
//!
//! ```text
//!  0 magic u32       8 version u64      16 value bytes u32   24 client flags u32   32 last access u32
//!  4 crc32 u32                          20 key bytes u8      28 exptime u32        36 created u32
//!                                       21 rule u8
//!                                       22 marks u8 (high bit: own CAS follows)
//!                                       23 hits u8
//! 40 own CAS u64, where there is one | key | value | zeros up to a multiple of 8
//! ```
//! All numbers are little-endian. The checksum covers the store's salt and the place too: bytes that
//! ended up elsewhere, or come from another store, are not a record.

use std::ops::Range;

use super::face::{NewRecord, OFFSET_UNIT_BYTES, Place};
use crate::clock::UnixSeconds;
use crate::entry::{Facts, Marks};
use crate::fault::Mutant;

/// Bytes before the key.
pub(super) const HEADER_BYTES: usize = 40;
/// Bytes of the first read where the caller gives no hint.
pub(super) const READ_BYTES: usize = 4096;

const MAGIC: u32 = u32::from_le_bytes(*b"tcdr");
const OWN_CAS: u8 = 0x80;
const OWN_CAS_BYTES: usize = 8;

/// Begins a checksum of something that lies at `place` of the store with this salt.
#[inline]
pub(super) fn checksum(salt: u32, place: Place) -> crc32fast::Hasher {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(&place.to_bits().to_le_bytes());
    hasher
}

/// A record's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    crc: u32,
    pub(super) facts: Facts,
    pub(super) hits: u8,
    pub(super) created: UnixSeconds,
    key_bytes: u8,
    value_bytes: u32,
    own_cas: bool,
}

/// Bytes of a whole record.
#[inline]
pub(super) fn record_bytes(key_bytes: usize, value_bytes: usize, facts: &Facts) -> usize {
    let own_cas = if facts.own_cas.is_some() {
        OWN_CAS_BYTES
    } else {
        0
    };
    (HEADER_BYTES + own_cas + key_bytes + value_bytes).next_multiple_of(OFFSET_UNIT_BYTES as usize)
}

/// Where the key lies in a record.
#[inline]
pub(super) fn key_range(key_bytes: usize, facts: &Facts) -> Range<usize> {
    let start = HEADER_BYTES
        + if facts.own_cas.is_some() {
            OWN_CAS_BYTES
        } else {
            0
        };
    start..start + key_bytes
}

/// Writes a record into `out`, which has exactly its bytes; `fill` writes key and value.
#[inline]
pub(super) fn write(
    out: &mut [u8],
    salt: u32,
    place: Place,
    record: &NewRecord<'_>,
    fill: impl FnOnce(&mut [u8]),
) {
    let facts = record.facts;
    let cas_flag = if facts.own_cas.is_some() { OWN_CAS } else { 0 };
    let bytes = [
        record.key_bytes as u8,
        facts.rule,
        facts.marks.bits() | cas_flag,
        record.hits,
    ];
    out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    out[8..16].copy_from_slice(&facts.version.to_le_bytes());
    out[16..20].copy_from_slice(&(record.value_bytes as u32).to_le_bytes());
    out[20..24].copy_from_slice(&bytes);
    out[24..28].copy_from_slice(&facts.flags.to_le_bytes());
    out[28..32].copy_from_slice(&facts.exptime.to_le_bytes());
    out[32..36].copy_from_slice(&facts.last_access.to_le_bytes());
    out[36..40].copy_from_slice(&record.created.to_le_bytes());
    if let Some(cas) = facts.own_cas {
        out[HEADER_BYTES..HEADER_BYTES + OWN_CAS_BYTES].copy_from_slice(&cas.to_le_bytes());
    }
    let start = key_range(record.key_bytes, facts).start;
    let end = start + record.key_bytes + record.value_bytes;
    fill(&mut out[start..end]);
    out[end..].fill(0);
    let mut hasher = checksum(salt, place);
    hasher.update(&out[8..end]);
    out[4..8].copy_from_slice(&hasher.finalize().to_le_bytes());
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

#[inline]
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

impl Header {
    /// Reads a header. Nothing but the magic is verified; an own CAS is missing where `bytes` end
    /// before it.
    #[inline]
    pub(super) fn parse(bytes: &[u8]) -> Option<Header> {
        if bytes.len() < HEADER_BYTES || u32_at(bytes, 0) != MAGIC {
            return None;
        }
        let own_cas = bytes[22] & OWN_CAS != 0;
        let cas = (own_cas && bytes.len() >= HEADER_BYTES + OWN_CAS_BYTES)
            .then(|| u64_at(bytes, HEADER_BYTES));
        Some(Header {
            crc: u32_at(bytes, 4),
            facts: Facts {
                version: u64_at(bytes, 8),
                own_cas: cas,
                flags: u32_at(bytes, 24),
                exptime: u32_at(bytes, 28),
                last_access: u32_at(bytes, 32),
                rule: bytes[21],
                marks: Marks::from_bits(bytes[22]),
            },
            hits: bytes[23],
            created: u32_at(bytes, 36),
            key_bytes: bytes[20],
            value_bytes: u32_at(bytes, 16),
            own_cas,
        })
    }

    /// Bytes of the whole record.
    #[inline]
    pub(super) fn record_bytes(&self) -> usize {
        self.value()
            .end
            .next_multiple_of(OFFSET_UNIT_BYTES as usize)
    }

    /// Where the key lies in the record.
    #[inline]
    pub(super) fn key(&self) -> Range<usize> {
        let start = HEADER_BYTES + if self.own_cas { OWN_CAS_BYTES } else { 0 };
        start..start + usize::from(self.key_bytes)
    }

    /// Where the value lies in the record.
    #[inline]
    pub(super) fn value(&self) -> Range<usize> {
        let start = self.key().end;
        start..start + self.value_bytes as usize
    }

    /// Whether these bytes, which begin with this header, are the whole sound record of that place.
    #[inline]
    pub(super) fn verify(&self, bytes: &[u8], salt: u32, place: Place) -> bool {
        let Some(body) = bytes.get(8..self.value().end) else {
            return false;
        };
        let mut hasher = checksum(salt, place);
        hasher.update(body);
        hasher.finalize() == self.crc || Mutant::IgnoreChecksum.is_on()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: u32 = 99;
    const PLACE: Place = Place {
        segment: 3,
        offset: 17,
    };

    fn facts(own_cas: Option<u64>) -> Facts {
        Facts {
            version: 7,
            own_cas,
            flags: 5,
            exptime: 1000,
            last_access: 900,
            rule: 4,
            marks: Marks::FETCHED,
        }
    }

    fn record(facts: &Facts, key: &[u8], value: &[u8]) -> Vec<u8> {
        let new = NewRecord {
            hash: 1,
            facts,
            hits: 3,
            key_bytes: key.len(),
            value_bytes: value.len(),
            created: 800,
        };
        let mut bytes = vec![0xee; record_bytes(key.len(), value.len(), facts)];
        write(&mut bytes, SALT, PLACE, &new, |out| {
            out.copy_from_slice(&[key, value].concat())
        });
        bytes
    }

    #[test]
    fn records_read_back() {
        for own_cas in [None, Some(u64::MAX)] {
            for value in [&b""[..], b"v", b"seven b", b"12345678"] {
                let facts = facts(own_cas);
                let bytes = record(&facts, b"key", value);
                let header = Header::parse(&bytes).unwrap();
                assert_eq!((header.facts, header.hits, header.created), (facts, 3, 800));
                assert_eq!(
                    (&bytes[header.key()], &bytes[header.value()]),
                    (&b"key"[..], value)
                );
                assert_eq!((header.record_bytes(), bytes.len() % 8), (bytes.len(), 0));
                assert!(header.verify(&bytes, SALT, PLACE));
                assert!(!header.verify(&bytes, SALT + 1, PLACE));
                assert!(!header.verify(
                    &bytes,
                    SALT,
                    Place {
                        offset: 18,
                        ..PLACE
                    }
                ));
            }
        }
    }

    #[test]
    fn a_flipped_bit_or_a_cut_is_found() {
        let bytes = record(&facts(Some(8)), b"key", b"a value");
        let sound = |bytes: &[u8]| {
            Header::parse(bytes).is_some_and(|header| header.verify(bytes, SALT, PLACE))
        };
        let end = Header::parse(&bytes).unwrap().value().end;
        for at in 0..end {
            for bit in 0..8 {
                let mut rotten = bytes.clone();
                rotten[at] ^= 1 << bit;
                assert!(!sound(&rotten), "byte {at}, bit {bit}");
            }
            assert!(!sound(&bytes[..at]));
        }
    }
}

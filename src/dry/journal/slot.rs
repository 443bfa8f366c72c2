//! One slot of the kill journal as a word: `segment 28 | offset 23 | CRC-13 of both`.

use super::super::face::Place;

const CHECK_BITS: u32 = 13;
const CHECK_MASK: u32 = (1 << CHECK_BITS) - 1;

/// CRC-13 (polynomial 0x1CF5): finds every flip of up to three bits of a slot.
const CHECKS: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u32) << (CHECK_BITS - 8);
        let mut bit = 0;
        while bit < 8 {
            let carry = crc & (1 << (CHECK_BITS - 1)) != 0;
            crc = (crc << 1) & CHECK_MASK;
            if carry {
                crc ^= 0x1CF5;
            }
            bit += 1;
        }
        table[byte] = crc as u16;
        byte += 1;
    }
    table
};

#[inline]
fn check(payload: u64) -> u64 {
    let mut crc = 0;
    for byte in payload.to_be_bytes().into_iter().skip(1) {
        let index = (crc >> (CHECK_BITS - 8)) as u8 ^ byte;
        crc = (crc << 8 & CHECK_MASK) ^ u32::from(CHECKS[usize::from(index)]);
    }
    u64::from(crc)
}

/// The slot that kills a place; never 0.
#[inline]
pub(super) fn encode(place: Place) -> u64 {
    let payload = place.to_bits();
    payload << CHECK_BITS | check(payload)
}

/// The place that a slot kills, if its check holds.
pub(super) fn decode(word: u64) -> Option<Place> {
    let payload = word >> CHECK_BITS;
    (check(payload) == word & u64::from(CHECK_MASK)).then(|| Place::from_bits(payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    // One or two flipped bits never make another kill, nor an empty slot.
    #[test]
    fn flipped_bits_are_found() {
        for place in [
            Place {
                segment: 1,
                offset: 0,
            },
            Place {
                segment: (1 << 28) - 1,
                offset: (1 << 23) - 1,
            },
        ] {
            let word = encode(place);
            assert_eq!(decode(word), Some(place));
            for one in 0..64 {
                for other in 0..64 {
                    let rotten = word ^ 1 << one ^ if one == other { 0 } else { 1 << other };
                    assert!(
                        rotten != 0 && decode(rotten).is_none(),
                        "bits {one} and {other}"
                    );
                }
            }
        }
    }
}

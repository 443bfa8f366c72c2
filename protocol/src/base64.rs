//! Base64 for the keys of the meta protocol, as lenient as memcached reads it.

use crate::limits::KEY_MAX;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// Marks a byte that is not of the alphabet.
const NONE: u8 = 0xff;
/// The value of each byte of the alphabet; `=` counts as 0.
const VALUES: [u8; 256] = {
    let mut values = [NONE; 256];
    let mut index = 0u8;
    while index < 64 {
        values[ALPHABET[index as usize] as usize] = index;
        index += 1;
    }
    values[b'=' as usize] = 0;
    values
};

/// Decodes `text` to the front of `out` and returns how many bytes that gave; `None` if it is no
/// base64 or too long. Bytes outside the alphabet are skipped, as memcached does.
pub(crate) fn decode(text: &[u8], out: &mut [u8; KEY_MAX]) -> Option<usize> {
    let count = text
        .iter()
        .filter(|byte| VALUES[usize::from(**byte)] != NONE)
        .count();
    if count == 0 || !count.is_multiple_of(4) || count / 4 * 3 > out.len() {
        return None;
    }
    let mut len = 0;
    let mut block = [0u8; 4];
    let mut filled = 0;
    let mut padding = 0;
    for byte in text {
        let value = VALUES[usize::from(*byte)];
        if value == NONE {
            continue;
        }
        padding += usize::from(*byte == b'=');
        block[filled] = value;
        filled += 1;
        if filled < block.len() {
            continue;
        }
        filled = 0;
        out[len] = block[0] << 2 | block[1] >> 4;
        out[len + 1] = block[1] << 4 | block[2] >> 2;
        out[len + 2] = block[2] << 6 | block[3];
        len += 3;
        // What stands behind the padding is not read.
        match padding {
            0 => {}
            1 | 2 => return Some(len - padding),
            _ => return None,
        }
    }
    Some(len)
}

/// Appends `bytes` in base64 with padding.
pub(crate) fn encode(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.chunks(3) {
        let at = |index: usize| chunk.get(index).copied().unwrap_or(0);
        let block = [
            at(0) >> 2,
            (at(0) & 0x03) << 4 | at(1) >> 4,
            (at(1) & 0x0f) << 2 | at(2) >> 6,
            at(2) & 0x3f,
        ];
        let mut text = block.map(|value| ALPHABET[usize::from(value)]);
        text[chunk.len() + 1..].fill(b'=');
        out.extend_from_slice(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &[u8]) -> Option<Vec<u8>> {
        let mut out = [0; KEY_MAX];
        decode(text, &mut out).map(|len| out[..len].to_vec())
    }

    // The test vectors of RFC 4648.
    #[test]
    fn encodes_and_decodes_the_standard_vectors() {
        for (plain, text) in [
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            let mut out = Vec::new();
            encode(&mut out, plain.as_bytes());
            assert_eq!(out, text.as_bytes());
            assert_eq!(decoded(text.as_bytes()).as_deref(), Some(plain.as_bytes()));
        }
    }

    // memcached counts only bytes of the alphabet, and needs a multiple of four of them.
    #[test]
    fn is_as_lenient_as_memcached() {
        assert_eq!(decoded(b"Zm\x019v").as_deref(), Some(&b"foo"[..]));
        assert_eq!(decoded(b"Zm8=Zm9v").as_deref(), Some(&b"fo"[..]));
        for bad in [&b""[..], b"!", b"Zg", b"Zg=", b"====", b"A==="] {
            assert_eq!(decoded(bad), None);
        }
        assert_eq!(
            decoded(&[b'A'; KEY_MAX - 2]).map(|key| key.len()),
            Some(186)
        );
    }
}

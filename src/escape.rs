//! Keys and requests as text: percent-encoded for tools, escaped and cut for the log.

use std::fmt;

/// Bytes of a key or request that a line of the log shows.
pub const LOGGED_BYTES_MAX: usize = 64;

/// Appends `bytes`, percent-encoded all but the unreserved characters of RFC 3986.
pub fn percent_encode(out: &mut Vec<u8>, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            out.push(*byte);
        } else {
            out.extend_from_slice(&[
                b'%',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]);
        }
    }
}

/// Shows bytes that a client chose: one line, printable, at most [`LOGGED_BYTES_MAX`] of them.
#[derive(Debug, Clone, Copy)]
pub struct Logged<'a>(pub &'a [u8]);

impl fmt::Display for Logged<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(LOGGED_BYTES_MAX)];
        write!(out, "{}", shown.escape_ascii())?;
        if shown.len() < self.0.len() {
            write!(out, "... ({} bytes)", self.0.len())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_chose_stays_on_one_line_of_the_log() {
        assert_eq!(
            Logged(b"get a\r\n\x1b[2J\xff").to_string(),
            r"get a\r\n\x1b[2J\xff"
        );
        let long = [b'k'; LOGGED_BYTES_MAX + 1];
        assert!(Logged(&long).to_string().ends_with("k... (65 bytes)"));
    }

    #[test]
    fn unreserved_characters_stay() {
        let mut out = Vec::new();
        percent_encode(&mut out, b"a-._~%\0\xff z");
        assert_eq!(out, b"a-._~%25%00%FF%20z");
    }
}

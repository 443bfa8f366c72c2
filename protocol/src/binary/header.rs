//! The 24 bytes in front of every packet.

use super::Opcode;

/// Bytes of a packet's header.
pub const HEADER_LEN: usize = 24;

pub(crate) const REQUEST_MAGIC: u8 = 0x80;
pub(crate) const RESPONSE_MAGIC: u8 = 0x81;

/// A header in the machine's byte order. The data type, which is always 0, is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) magic: u8,
    pub(crate) opcode: Opcode,
    pub(crate) key_len: u16,
    pub(crate) extras_len: u8,
    /// A reply's status; of a request the vbucket, which memcached ignores.
    pub(crate) status: u16,
    pub(crate) body_len: u32,
    pub(crate) opaque: u32,
    pub(crate) cas: u64,
}

impl Header {
    /// The header at the front of `buf`, if all of it is there.
    #[inline]
    pub(crate) fn read(buf: &[u8]) -> Option<Self> {
        let bytes = buf.first_chunk::<HEADER_LEN>()?;
        Some(Self {
            magic: bytes[0],
            opcode: Opcode(bytes[1]),
            key_len: u16::from_be_bytes([bytes[2], bytes[3]]),
            extras_len: bytes[4],
            status: u16::from_be_bytes([bytes[6], bytes[7]]),
            body_len: u32_at(bytes, 8),
            opaque: u32_at(bytes, 12),
            cas: u64_at(bytes, 16),
        })
    }

    /// The header's bytes.
    #[inline]
    pub(crate) fn bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0] = self.magic;
        bytes[1] = self.opcode.0;
        bytes[2..4].copy_from_slice(&self.key_len.to_be_bytes());
        bytes[4] = self.extras_len;
        bytes[6..8].copy_from_slice(&self.status.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.body_len.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.opaque.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.cas.to_be_bytes());
        bytes
    }

    /// Bytes of the packet up to the end of its key.
    #[inline]
    pub(crate) fn front_len(&self) -> usize {
        HEADER_LEN + usize::from(self.extras_len) + usize::from(self.key_len)
    }
}

/// The number at `at` of bytes that are known to reach that far.
///
/// # Panics
/// If they do not.
#[inline]
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(number)
}

/// The number at `at` of bytes that are known to reach that far.
///
/// # Panics
/// If they do not.
#[inline]
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_be_bytes(number)
}

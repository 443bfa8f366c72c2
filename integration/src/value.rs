//! Values that describe themselves: who wrote them, in which step, and a checksum over all of it.
//!
//! A value is a chain of records, one per `set` or `append`; the last record's id names the whole value.
//! A value that was mixed up, cut, or belongs to another key is caught without any history.

use crate::random::Random;

/// Length of a record without its filling: `[` 16 digits of id, 8 digits of length, 8 digits of checksum `]`.
pub const RECORD_BYTES_MIN: usize = 34;

/// One record: written by operation `id` to `key`, `length` bytes long in all.
pub fn record(key: &[u8], id: u64, length: usize) -> Vec<u8> {
    let filling_length = length.saturating_sub(RECORD_BYTES_MIN);
    let mut filling = vec![0; filling_length];
    Random::new(id).fill(&mut filling);
    let mut bytes = format!(
        "[{id:016x}{filling_length:08x}{:08x}",
        checksum(key, id, &filling)
    )
    .into_bytes();
    bytes.extend_from_slice(&filling);
    bytes.push(b']');
    bytes
}

/// The ids of the records that `value` is made of, oldest first.
///
/// # Errors
/// Says what is wrong when `value` is not a whole chain of records of `key`.
pub fn ids(key: &[u8], value: &[u8]) -> Result<Vec<u64>, String> {
    let mut ids = Vec::new();
    let mut rest = value;
    while !rest.is_empty() {
        let (id, tail) = parse_record(key, rest)
            .ok_or_else(|| format!("no record of this key at byte {}", value.len() - rest.len()))?;
        ids.push(id);
        rest = tail;
    }
    if ids.is_empty() {
        return Err("an empty value was never written".to_owned());
    }
    Ok(ids)
}

fn parse_record<'a>(key: &[u8], bytes: &'a [u8]) -> Option<(u64, &'a [u8])> {
    let header = bytes.strip_prefix(b"[")?.get(..32)?;
    let header = std::str::from_utf8(header).ok()?;
    let id = u64::from_str_radix(&header[..16], 16).ok()?;
    let filling_length = usize::from_str_radix(&header[16..24], 16).ok()?;
    let expected = u32::from_str_radix(&header[24..], 16).ok()?;
    let filling = bytes.get(33..33 + filling_length)?;
    let tail = bytes.get(33 + filling_length..)?.strip_prefix(b"]")?;
    (checksum(key, id, filling) == expected).then_some((id, tail))
}

fn checksum(key: &[u8], id: u64, filling: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(&id.to_le_bytes());
    hasher.update(filling);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    // What is appended can be told apart again, in order.
    #[test]
    fn a_chain_gives_its_ids_back() {
        let mut value = record(b"k", 7, 100);
        value.extend(record(b"k", 9, RECORD_BYTES_MIN));
        assert_eq!(ids(b"k", &value), Ok(vec![7, 9]));
    }

    // A changed byte, a cut, and another key's value are all noticed.
    #[test]
    fn damage_is_noticed_at_every_byte() {
        let value = record(b"k", 7, 60);
        assert_eq!(value.len(), 60);
        for at in 0..value.len() {
            let mut damaged = value.clone();
            damaged[at] ^= 1;
            assert!(ids(b"k", &damaged).is_err(), "byte {at}");
            assert!(ids(b"k", &value[..at]).is_err(), "cut at {at}");
        }
        assert!(ids(b"other", &value).is_err());
    }
}

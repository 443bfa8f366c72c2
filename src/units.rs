//! Sizes and times as people write them: `64m`, `2g`, `20ms`, `4h`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

/// A number of bytes, written with k, m, g or t for powers of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// A time span, written as a number with ms, s, m, h or d; a bare number is seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

/// Why a size or time could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {what}, expected a number with {units}")]
pub struct UnitError {
    text: String,
    what: &'static str,
    units: &'static str,
}

impl ByteSize {
    /// Bytes as an in-memory size, saturating on 32-bit machines.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// This many MiB.
    pub const fn mib(count: u64) -> ByteSize {
        ByteSize(count << 20)
    }

    /// This many GiB.
    pub const fn gib(count: u64) -> ByteSize {
        ByteSize(count << 30)
    }
}

impl Span {
    /// This many milliseconds.
    pub const fn ms(count: u64) -> Span {
        Span(Duration::from_millis(count))
    }

    /// This many seconds.
    pub const fn seconds(count: u64) -> Span {
        Span(Duration::from_secs(count))
    }

    /// This many hours.
    pub const fn hours(count: u64) -> Span {
        Span(Duration::from_secs(count * 3600))
    }
}

/// Splits a text into its leading digits and the lower-case rest.
fn split(text: &str) -> Option<(u64, String)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number = text[..digits].parse().ok()?;
    Some((number, text[digits..].trim().to_ascii_lowercase()))
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<ByteSize, UnitError> {
        let error = || UnitError {
            text: text.to_owned(),
            what: "size",
            units: "k, m, g or t",
        };
        let (number, unit) = split(text).ok_or_else(error)?;
        let shift = match unit.as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(error()),
        };
        number
            .checked_mul(1 << shift)
            .map(ByteSize)
            .ok_or_else(error)
    }
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Span, UnitError> {
        let error = || UnitError {
            text: text.to_owned(),
            what: "time",
            units: "ms, s, m, h or d",
        };
        let (number, unit) = split(text).ok_or_else(error)?;
        let ms = match unit.as_str() {
            "ms" => 1,
            "" | "s" => 1000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(error()),
        };
        number
            .checked_mul(ms)
            .map(|ms| Span(Duration::from_millis(ms)))
            .ok_or_else(error)
    }
}

impl fmt::Display for ByteSize {
    /// The largest unit that shows the size exactly, so that it reads back as the same size.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "t"), (30, "g"), (20, "m"), (10, "k")] {
            if self.0 > 0 && self.0.trailing_zeros() >= shift {
                return write!(out, "{}{unit}", self.0 >> shift);
            }
        }
        write!(out, "{}", self.0)
    }
}

impl fmt::Display for Span {
    /// The largest unit that shows the time exactly, so that it reads back as the same time.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        for (length, unit) in [
            (86_400_000, "d"),
            (3_600_000, "h"),
            (60_000, "m"),
            (1000, "s"),
        ] {
            if ms > 0 && ms.is_multiple_of(length) {
                return write!(out, "{}{unit}", ms / length);
            }
        }
        write!(out, "{ms}ms")
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<ByteSize, D::Error> {
        from_text_or_number(from)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Span, D::Error> {
        from_text_or_number(from)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// `"64m"` or the bare number `67108864`.
fn from_text_or_number<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: FromStr<Err = UnitError>,
{
    #[derive(Deserialize)]
    #[serde(
        untagged,
        expecting = "a text such as \"64m\" or \"20ms\", or a number"
    )]
    enum Written {
        Text(String),
        Number(u64),
    }
    let text = match Written::deserialize(from)? {
        Written::Text(text) => text,
        Written::Number(number) => number.to_string(),
    };
    text.parse().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_read_back() {
        for text in ["64m", "2g", "0", "1000", "3t", "96k"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        for text in ["20ms", "4h", "7d", "1s", "90s", "0ms"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        assert_eq!("90".parse::<Span>().unwrap().0, Duration::from_secs(90));
    }

    #[test]
    fn nonsense_is_refused_with_its_text() {
        for text in ["", "m", "1x", "-1m", "99999999999t"] {
            let error = text.parse::<ByteSize>().unwrap_err();
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
        assert!("1 fortnight".parse::<Span>().is_err());
    }
}

//! When an item expires, as clients say it and as a store keeps it.

use crate::limits::EXPTIME_RELATIVE_MAX_S;

/// An exptime as the client meant it. It becomes absolute with [`resolve`](Exptime::resolve) once
/// the time is known: this crate has no clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Exptime {
    /// Does not expire.
    #[default]
    Never,
    /// Is expired from the start.
    Expired,
    /// Expires this many seconds from now.
    Relative(u32),
    /// Expires at this unix time, in seconds.
    Absolute(u32),
}

impl Exptime {
    /// Reads the wire's number: 0 never, negative already expired, up to 30 days relative, else
    /// absolute.
    #[inline]
    pub const fn from_raw(raw: i32) -> Self {
        match raw {
            0 => Self::Never,
            ..0 => Self::Expired,
            _ if raw.cast_unsigned() <= EXPTIME_RELATIVE_MAX_S => {
                Self::Relative(raw.cast_unsigned())
            }
            _ => Self::Absolute(raw.cast_unsigned()),
        }
    }

    /// Reads the binary protocol's number, which has no sign: 0 never, up to 30 days relative, else
    /// absolute.
    #[inline]
    pub const fn from_unsigned(raw: u32) -> Self {
        match raw {
            0 => Self::Never,
            _ if raw <= EXPTIME_RELATIVE_MAX_S => Self::Relative(raw),
            _ => Self::Absolute(raw),
        }
    }

    /// The binary protocol's number. What it cannot say becomes the nearest that it can, and what is
    /// expired already the earliest absolute time.
    #[inline]
    pub const fn to_unsigned(self) -> u32 {
        match self {
            Self::Never => 0,
            Self::Relative(seconds) if seconds > EXPTIME_RELATIVE_MAX_S => EXPTIME_RELATIVE_MAX_S,
            Self::Relative(seconds) if seconds > 0 => seconds,
            Self::Absolute(time) if time > EXPTIME_RELATIVE_MAX_S => time,
            Self::Expired | Self::Relative(_) | Self::Absolute(_) => EXPTIME_RELATIVE_MAX_S + 1,
        }
    }

    /// The number to put on the wire. What the wire cannot say becomes the nearest that it can: a
    /// relative time over 30 days becomes 30 days, an absolute one after 2038 becomes that end, and
    /// an absolute one of January 1970 becomes -1.
    #[inline]
    pub const fn to_raw(self) -> i32 {
        match self {
            Self::Never => 0,
            Self::Expired | Self::Relative(0) => -1,
            Self::Relative(seconds) if seconds > EXPTIME_RELATIVE_MAX_S => {
                EXPTIME_RELATIVE_MAX_S.cast_signed()
            }
            Self::Relative(seconds) => seconds.cast_signed(),
            Self::Absolute(time) if time <= EXPTIME_RELATIVE_MAX_S => -1,
            Self::Absolute(time) if time > i32::MAX.cast_unsigned() => i32::MAX,
            Self::Absolute(time) => time.cast_signed(),
        }
    }

    /// The unix time in seconds at which the item expires: 0 if never, 1 if it already has. An
    /// absolute time in the past stays as it is, so it is expired too.
    #[inline]
    pub const fn resolve(self, now_unix: u32) -> u32 {
        match self {
            Self::Never => 0,
            Self::Expired | Self::Absolute(0) => 1,
            Self::Relative(seconds) => now_unix.saturating_add(seconds),
            Self::Absolute(time) => time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Exptime::{self, Absolute, Expired, Never, Relative};

    // The border between relative and absolute is 30 days, inclusive.
    #[test]
    fn raw_numbers_are_split_at_thirty_days() {
        for (raw, expected) in [
            (0, Never),
            (-1, Expired),
            (i32::MIN, Expired),
            (1, Relative(1)),
            (2_592_000, Relative(2_592_000)),
            (2_592_001, Absolute(2_592_001)),
            (i32::MAX, Absolute(2_147_483_647)),
        ] {
            assert_eq!(Exptime::from_raw(raw), expected, "{raw}");
            let again = Exptime::from_raw(expected.to_raw());
            assert_eq!(again, expected, "{raw}");
        }
    }

    // 0 stays reserved for items without expiry.
    #[test]
    fn resolve_never_yields_zero_for_an_item_that_expires() {
        assert_eq!(Never.resolve(1_000), 0);
        assert_eq!(Expired.resolve(1_000), 1);
        assert_eq!(Relative(5).resolve(1_000), 1_005);
        assert_eq!(Relative(5).resolve(u32::MAX - 1), u32::MAX);
        assert_eq!(Absolute(7).resolve(1_000), 7);
        assert_eq!(Absolute(0).resolve(1_000), 1);
    }
}

//! How a request ended: the status of a reply, and the text that an error carries as its value.

use crate::error::Reject;

/// A reply's status with the value that memcached puts behind an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status {
    /// The number in the header.
    pub code: u16,
    /// The error's text; empty for success.
    pub text: &'static str,
}

impl Status {
    /// Done.
    pub const SUCCESS: Self = Self::new(0x00, "");
    /// There is no such item, or no such statistic.
    pub const NOT_FOUND: Self = Self::new(0x01, "Not found");
    /// There is an item, or one with another CAS unique.
    pub const EXISTS: Self = Self::new(0x02, "Data exists for key.");
    /// The item is larger than the server stores.
    pub const TOO_LARGE: Self = Self::new(0x03, "Too large.");
    /// Lengths that the command does not have.
    pub const INVALID: Self = Self::new(0x04, "Invalid arguments");
    /// There is nothing to append to.
    pub const NOT_STORED: Self = Self::new(0x05, "Not stored.");
    /// The item to count up or down holds no number.
    pub const NON_NUMERIC: Self = Self::new(0x06, "Non-numeric server-side value for incr or decr");
    /// The client is not allowed to do that.
    pub const AUTH_ERROR: Self = Self::new(0x20, "Auth failure.");
    /// The authentication goes on with a further step.
    pub const AUTH_CONTINUE: Self = Self::new(0x21, "");
    /// The command is not known.
    pub const UNKNOWN: Self = Self::new(0x81, "Unknown command");
    /// There is no memory for the item.
    pub const OUT_OF_MEMORY: Self = Self::new(0x82, "Out of memory allocating item");
    /// There is no memory for the new number.
    pub const OUT_OF_MEMORY_NUMBER: Self = Self::new(0x82, "Out of memory incrementing value");

    /// It cannot be done now.
    pub const TEMPORARY: Self = Self::new(0x86, "Temporary failure");

    const fn new(code: u16, text: &'static str) -> Self {
        Self { code, text }
    }
}

impl From<Reject> for Status {
    /// The status that says the same. What only a text command can get wrong is an invalid argument.
    fn from(reject: Reject) -> Self {
        match reject {
            Reject::Unknown => Self::UNKNOWN,
            Reject::TooLarge => Self::TOO_LARGE,
            Reject::OutOfMemory => Self::OUT_OF_MEMORY,
            Reject::OutOfMemoryNumber => Self::OUT_OF_MEMORY_NUMBER,
            Reject::NonNumeric => Self::NON_NUMERIC,
            Reject::FlushNotAllowed => Self::AUTH_ERROR,
            _ => Self::INVALID,
        }
    }
}

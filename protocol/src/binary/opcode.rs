//! What a packet asks for.

use std::fmt;

/// The code of a command. Any byte may arrive in a packet; the known ones have names.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Opcode(pub u8);

/// Declares the named opcodes: constants, and their names for [`fmt::Debug`].
macro_rules! opcodes {
    ($($name:ident = $code:literal $text:literal)*) => {
        impl Opcode {
            $(#[doc = concat!("`", $text, "`.")] pub const $name: Self = Self($code);)*

            /// All that have a name.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The command's name; none if it is not known.
            pub const fn name(self) -> Option<&'static str> {
                match self { $(Self::$name => Some($text),)* _ => None }
            }
        }
    };
}

opcodes! {
    GET = 0x00 "get"
    SET = 0x01 "set"
    ADD = 0x02 "add"
    REPLACE = 0x03 "replace"
    DELETE = 0x04 "delete"
    INCREMENT = 0x05 "incr"
    DECREMENT = 0x06 "decr"
    QUIT = 0x07 "quit"
    FLUSH = 0x08 "flush"
    GETQ = 0x09 "getq"
    NOOP = 0x0a "noop"
    VERSION = 0x0b "version"
    GETK = 0x0c "getk"
    GETKQ = 0x0d "getkq"
    APPEND = 0x0e "append"
    PREPEND = 0x0f "prepend"
    STAT = 0x10 "stat"
    SETQ = 0x11 "setq"
    ADDQ = 0x12 "addq"
    REPLACEQ = 0x13 "replaceq"
    DELETEQ = 0x14 "deleteq"
    INCREMENTQ = 0x15 "incrq"
    DECREMENTQ = 0x16 "decrq"
    QUITQ = 0x17 "quitq"
    FLUSHQ = 0x18 "flushq"
    APPENDQ = 0x19 "appendq"
    PREPENDQ = 0x1a "prependq"
    VERBOSITY = 0x1b "verbosity"
    TOUCH = 0x1c "touch"
    GAT = 0x1d "gat"
    GATQ = 0x1e "gatq"
    SASL_LIST = 0x20 "sasl list"
    SASL_AUTH = 0x21 "sasl auth"
    SASL_STEP = 0x22 "sasl step"
    GATK = 0x23 "gatk"
    GATKQ = 0x24 "gatkq"
}

/// A set of opcodes below 64 as one bit each, so that asking is a shift.
const fn bits(opcodes: &[Opcode]) -> u64 {
    let mut bits = 0;
    let mut index = 0;
    while index < opcodes.len() {
        bits |= 1 << opcodes[index].0;
        index += 1;
    }
    bits
}

const KNOWN: u64 = bits(Opcode::ALL);
const QUIET: u64 = bits(&[
    Opcode::GETQ,
    Opcode::GETKQ,
    Opcode::GATQ,
    Opcode::GATKQ,
    Opcode::SETQ,
    Opcode::ADDQ,
    Opcode::REPLACEQ,
    Opcode::DELETEQ,
    Opcode::INCREMENTQ,
    Opcode::DECREMENTQ,
    Opcode::QUITQ,
    Opcode::FLUSHQ,
    Opcode::APPENDQ,
    Opcode::PREPENDQ,
]);
const RETURNS_KEY: u64 = bits(&[Opcode::GETK, Opcode::GETKQ, Opcode::GATK, Opcode::GATKQ]);

impl Opcode {
    /// Whether the command is known.
    #[inline]
    pub const fn is_known(self) -> bool {
        self.is_in(KNOWN)
    }

    /// Whether the ordinary answer is hidden: a miss of a `get`, the success of anything else.
    #[inline]
    pub const fn is_quiet(self) -> bool {
        self.is_in(QUIET)
    }

    /// Whether the answer names the key.
    #[inline]
    pub const fn returns_key(self) -> bool {
        self.is_in(RETURNS_KEY)
    }

    #[inline]
    const fn is_in(self, set: u64) -> bool {
        self.0 < 64 && set >> self.0 & 1 == 1
    }
}

impl fmt::Debug for Opcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#04x}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Opcode;

    // A quiet form is told by its name, and so is one that returns the key.
    #[test]
    fn names_and_sets_agree() {
        for opcode in Opcode::ALL {
            let name = opcode.name().unwrap_or_default();
            assert!(opcode.is_known());
            assert_eq!(opcode.is_quiet(), name.ends_with('q'), "{name}");
            let returns_key = matches!(name, "getk" | "getkq" | "gatk" | "gatkq");
            assert_eq!(opcode.returns_key(), returns_key, "{name}");
        }
        for unknown in [0x1f, 0x25, 0x3c, 0x40, 0x49, 0xff].map(Opcode) {
            assert!(!unknown.is_known() && !unknown.is_quiet() && !unknown.returns_key());
        }
    }
}

//! The flags of a meta command: one letter each, some with a token right behind it.

use crate::error::Reject;
use crate::exptime::Exptime;
use crate::lexer::{Lexed, Span, token};
use crate::limits::{META_TOKENS_MAX, OPAQUE_MAX};
use crate::number::{parse_i32, parse_u32, parse_u64};
use crate::request::Returns;
use nom::Parser;
use nom::combinator::map;

/// How many tokens stand before the flags of `mg`, `md`, `ma` and `me`.
pub(super) const FIRST_AFTER_KEY: usize = 2;
/// How many tokens stand before the flags of `ms`.
pub(super) const FIRST_AFTER_LENGTH: usize = 3;
/// memcached looks at no more tokens of a line than these.
const TOKENS_SEEN_MAX: usize = 23;
/// The counting delta that is meant where none is given.
const DELTA_DEFAULT: u64 = 1;

/// All that the flags of a line say. Every command takes the flags of all of them and ignores what
/// is not its own, as in memcached.
#[derive(Debug)]
pub(crate) struct Flags {
    pub(crate) key_base64: bool,
    pub(crate) quiet: bool,
    pub(crate) value: bool,
    pub(crate) no_bump: bool,
    pub(crate) invalidate: bool,
    pub(crate) clear: bool,
    pub(crate) client_flags: u32,
    pub(crate) compare: Option<u64>,
    pub(crate) new_cas: Option<u64>,
    pub(crate) vivify: Option<Exptime>,
    pub(crate) recache: Option<Exptime>,
    pub(crate) touch: Option<Exptime>,
    pub(crate) initial: u64,
    pub(crate) delta: u64,
    /// The byte behind `M`; a space if there is none.
    pub(crate) mode: Option<u8>,
    pub(crate) opaque: Option<Span>,
    pub(crate) returns: Returns,
}

/// A flag: its letter and the token behind it.
#[inline]
fn flag(line: &[u8]) -> Lexed<'_, (u8, &[u8])> {
    // A token has at least one byte.
    map(token, |token| (token[0], &token[1..])).parse(line)
}

/// Refuses flags that begin with no letter or digit; memcached does so before it reads any.
#[inline]
pub(super) fn check_starts(mut rest: &[u8], first: usize) -> Result<(), Reject> {
    let mut index = first;
    while index < TOKENS_SEEN_MAX
        && let Ok((behind, (letter, _))) = flag(rest)
    {
        if !matches!(letter, b'A'..=b'z' | b'0'..=b'9') {
            return Err(Reject::BadFormat);
        }
        rest = behind;
        index += 1;
    }
    Ok(())
}

impl Flags {
    /// Reads the flags in `rest`, the end of `line`, behind `first` other tokens. `decode_key` is
    /// called for flag `b`.
    ///
    /// # Errors
    /// Too many tokens come before anything else. An unknown or repeated flag ends the reading; a
    /// bad token does not, so that of several errors the last is told, as in memcached.
    pub(super) fn parse(
        line: &[u8],
        rest: &[u8],
        first: usize,
        decode_key: &mut dyn FnMut() -> Result<(), Reject>,
    ) -> Result<Self, Reject> {
        let mut flags = Self::new();
        let mut seen = 0u128;
        let mut outcome = Ok(());
        let mut ended = false;
        let mut count = first;
        let mut rest = rest;
        while let Ok((behind, (letter, argument))) = flag(rest) {
            rest = behind;
            count += 1;
            if count > META_TOKENS_MAX {
                return Err(Reject::FlagsTooLong);
            }
            if ended {
                continue;
            }
            // The letters were checked to be ASCII.
            let bit = 1u128 << (letter & 0x7f);
            if seen & bit != 0 {
                outcome = Err(Reject::DuplicateFlag);
                ended = true;
                continue;
            }
            seen |= bit;
            match flags.take(letter, argument, line, decode_key) {
                Ok(()) => {}
                Err(Reject::InvalidFlag) => {
                    outcome = Err(Reject::InvalidFlag);
                    ended = true;
                }
                // Bad client flags have no sentence of their own and leave an earlier one.
                Err(Reject::BadFormat) => outcome = outcome.and(Err(Reject::BadFormat)),
                Err(reject) => outcome = Err(reject),
            }
        }
        outcome.map(|()| flags)
    }

    fn new() -> Self {
        Self {
            key_base64: false,
            quiet: false,
            value: false,
            no_bump: false,
            invalidate: false,
            clear: false,
            client_flags: 0,
            compare: None,
            new_cas: None,
            vivify: None,
            recache: None,
            touch: None,
            initial: 0,
            delta: DELTA_DEFAULT,
            mode: None,
            opaque: None,
            returns: Returns::default(),
        }
    }

    /// Takes one flag.
    #[inline]
    fn take(
        &mut self,
        letter: u8,
        argument: &[u8],
        line: &[u8],
        decode_key: &mut dyn FnMut() -> Result<(), Reject>,
    ) -> Result<(), Reject> {
        let exptime = || {
            parse_i32(argument)
                .map(Exptime::from_raw)
                .ok_or(Reject::BadToken)
        };
        let cas = || parse_u64(argument).ok_or(Reject::BadToken);
        match letter {
            b'b' => {
                decode_key()?;
                self.key_base64 = true;
                self.returns.push(letter);
            }
            b'c' | b'f' | b'h' | b'k' | b'l' | b's' | b't' => self.returns.push(letter),
            b'v' => {
                self.value = true;
                self.returns.push(letter);
            }
            b'O' => {
                self.opaque = Some(Span::of(line, argument));
                self.returns.push(letter);
            }
            // Kept for their place: whether `t` tells the time before or after them.
            b'N' => {
                self.vivify = Some(exptime()?);
                self.returns.push(letter);
            }
            b'R' => {
                self.recache = Some(exptime()?);
                self.returns.push(letter);
            }
            b'T' => {
                self.touch = Some(exptime()?);
                self.returns.push(letter);
            }
            b'q' => self.quiet = true,
            b'u' => self.no_bump = true,
            b'x' => self.clear = true,
            b'I' => self.invalidate = true,
            b'C' => self.compare = Some(cas()?),
            b'E' => self.new_cas = Some(cas()?),
            b'F' => self.client_flags = parse_u32(argument).ok_or(Reject::BadFormat)?,
            b'J' => self.initial = parse_u64(argument).ok_or(Reject::InvalidInitial)?,
            b'D' => self.delta = parse_u64(argument).ok_or(Reject::InvalidDeltaFlag)?,
            b'M' => self.mode = Some(argument.first().copied().unwrap_or(b' ')),
            // Reserved for proxies; legal, and never reflected.
            b'P' | b'L' => {}
            _ => return Err(Reject::InvalidFlag),
        }
        Ok(())
    }

    /// Checks the opaque token, which memcached does after everything else.
    #[inline]
    pub(super) fn check_opaque(&self) -> Result<(), Reject> {
        match self.opaque {
            Some(span) if span.len() + 1 > OPAQUE_MAX => Err(Reject::OpaqueTooLong),
            _ => Ok(()),
        }
    }
}

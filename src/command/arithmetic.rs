//! incr decr ma: counting in place.

use tiercache_protocol::encode::{self, ArithmeticReply};
use tiercache_protocol::request::{Arithmetic, Form};

use super::meta::key_mark;
use super::{Executor, Flow, Progress};
use crate::entry::{Facts, Marks};
use crate::tier::{Current, Decision, NewItem, Outcome, Value};

/// Digits of the largest number.
const DIGITS_MAX: usize = 20;

/// What counting comes to: the reply without its CAS unique and time to live.
#[derive(Debug, Clone, Copy)]
enum Counted {
    Value {
        number: u64,
        created: bool,
        exptime: u32,
    },
    Reply(ArithmeticReply),
}

impl Executor {
    pub(super) fn arithmetic(
        &mut self,
        request: &Arithmetic<'_>,
        progress: &mut Progress,
        out: &mut Vec<u8>,
    ) -> Flow {
        // The new text must outlive the decision that names it, and the present value's length is
        // known only in there: the text is computed by a look, then stored if nothing has changed.
        loop {
            let mut seen = None;
            let mut text = Vec::new();
            let look = self.shared.cache.update(
                &mut self.local,
                &mut progress.attempt,
                request.key,
                None,
                |current| {
                    match current {
                        Current::Absent => seen = None,
                        Current::Below => return Decision::Fetch,
                        Current::Present(view) => {
                            let facts = view.facts();
                            text.clear();
                            view.append_value(&mut text);
                            seen = Some(facts);
                        }
                    }
                    Decision::Keep(())
                },
            );
            if let Outcome::Blocked(blocked) = look {
                return Flow::Wait(blocked.into());
            }
            let (counted, new_text) = self.count(request, seen.map(|facts| (facts, &text[..])));
            let Counted::Value {
                number,
                created,
                exptime,
            } = counted
            else {
                let Counted::Reply(reply) = counted else {
                    return Flow::Done;
                };
                self.count_arithmetic(request, &reply);
                encode::arithmetic(out, &request.form, reply);
                return Flow::Done;
            };
            let final_exptime = self.final_exptime(request, created, exptime);
            let store = self.shared.cache.update(
                &mut self.local,
                &mut progress.attempt,
                request.key,
                Some(new_text.len()),
                |current| {
                    let unchanged = match (&current, seen) {
                        (Current::Absent, None) => true,
                        (Current::Present(view), Some(facts)) => same(&view.facts(), &facts),

                        (Current::Below, _) => return Decision::Fetch,
                        _ => false,
                    };
                    if !unchanged {
                        return Decision::Keep(false);
                    }
                    let (flags, marks) = match (seen, &request.form) {
                        // A longer number makes a new item, as in memcached.
                        (Some(facts), _) if new_text.len() > text.len() => {
                            (facts.flags, Marks::default())
                        }
                        (Some(facts), _) => (facts.flags, facts.marks),
                        (None, Form::Meta(form)) => (0, key_mark(form).without(Marks::KEY_BASE64)),
                        (None, Form::Classic { .. } | Form::Binary(_)) => (0, Marks::default()),
                    };
                    Decision::Store(
                        true,
                        NewItem {
                            flags,
                            exptime: final_exptime,
                            own_cas: request.new_cas,
                            marks,
                            value: Value::Bytes(&new_text),
                        },
                    )
                },
            );
            let reply = match store {
                Outcome::Blocked(blocked) => return Flow::Wait(blocked.into()),
                Outcome::Done { result: false, .. } => continue,
                Outcome::Done { result: true, cas } => {
                    let cas = if self.shared.settings.cas_enabled {
                        cas
                    } else {
                        0
                    };
                    let told = self.told_exptime(request, created, exptime);
                    ArithmeticReply::Value {
                        value: number,
                        cas,
                        ttl: self.ttl(told),
                    }
                }
                Outcome::NoMemory => ArithmeticReply::OutOfMemory,
            };
            self.count_arithmetic(request, &reply);
            encode::arithmetic(out, &request.form, reply);
            return Flow::Done;
        }
    }

    /// The new number and its text, from what is there.
    fn count(&self, request: &Arithmetic<'_>, seen: Option<(Facts, &[u8])>) -> (Counted, Vec<u8>) {
        let Some((facts, text)) = seen else {
            return match request.vivify {
                None => (Counted::Reply(ArithmeticReply::NotFound), Vec::new()),
                Some((initial, _)) => (
                    Counted::Value {
                        number: initial,
                        created: true,
                        exptime: 0,
                    },
                    digits(initial, 0),
                ),
            };
        };
        if text.is_empty() {
            return (Counted::Reply(ArithmeticReply::NonNumeric), Vec::new());
        }
        if request
            .compare
            .is_some_and(|compare| compare != 0 && compare != facts.cas())
        {
            return (Counted::Reply(ArithmeticReply::Exists), Vec::new());
        }
        let Some(present) = parse_number(text) else {
            return (Counted::Reply(ArithmeticReply::NonNumeric), Vec::new());
        };
        let number = if request.decrement {
            present.saturating_sub(request.delta)
        } else {
            present.wrapping_add(request.delta)
        };
        (
            Counted::Value {
                number,
                created: false,
                exptime: facts.exptime,
            },
            digits(number, text.len()),
        )
    }

    /// The exptime that stays: flags stand in request order, the later of `N` and `T` wins.
    fn final_exptime(&self, request: &Arithmetic<'_>, created: bool, exptime: u32) -> u32 {
        let vivified = request
            .vivify
            .filter(|_| created)
            .map(|(_, exptime)| exptime.resolve(self.now));
        let touched = request.touch.map(|exptime| exptime.resolve(self.now));
        match (vivified, touched) {
            (Some(vivified), Some(_)) if stands_before(request, b'T', b'N') => vivified,
            (vivified, touched) => touched.or(vivified).unwrap_or(exptime),
        }
    }

    /// The exptime that the flag `t` tells: as the flags before it have left it.
    fn told_exptime(&self, request: &Arithmetic<'_>, created: bool, exptime: u32) -> u32 {
        let vivified = request
            .vivify
            .filter(|_| created && stands_before(request, b'N', b't'))
            .map(|(_, exptime)| exptime.resolve(self.now));
        let touched = request
            .touch
            .filter(|_| stands_before(request, b'T', b't'))
            .map(|exptime| exptime.resolve(self.now));
        match (vivified, touched) {
            (Some(vivified), Some(_)) if stands_before(request, b'T', b'N') => vivified,
            (vivified, touched) => touched.or(vivified).unwrap_or(exptime),
        }
    }

    fn count_arithmetic(&self, request: &Arithmetic<'_>, reply: &ArithmeticReply) {
        let counters = &self.local.counters;
        if matches!(request.form, Form::Meta(_)) {
            counters.cmd_meta.bump();
        }
        match (reply, request.decrement) {
            (ArithmeticReply::Value { .. }, false) => counters.incr_hits.bump(),
            (ArithmeticReply::Value { .. }, true) => counters.decr_hits.bump(),
            (ArithmeticReply::NotFound, false) => counters.incr_misses.bump(),
            (ArithmeticReply::NotFound, true) => counters.decr_misses.bump(),
            (ArithmeticReply::Exists, _) => counters.cas_badval.bump(),
            _ => {}
        }
    }
}

/// Whether nothing that a client can see has changed but how often the item was fetched.
fn same(now: &Facts, seen: &Facts) -> bool {
    now.version == seen.version
        && now.exptime == seen.exptime
        && now.marks.with(Marks::FETCHED) == seen.marks.with(Marks::FETCHED)
}

fn stands_before(request: &Arithmetic<'_>, first: u8, second: u8) -> bool {
    match &request.form {
        Form::Meta(form) => form.stands_before(first, second),
        Form::Classic { .. } | Form::Binary(_) => false,
    }
}

/// The digits, padded with spaces to the length of the value they replace.
fn digits(number: u64, length: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(DIGITS_MAX.max(length));
    encode::number(&mut text, number);
    if text.len() < length {
        text.resize(length, b' ');
    }
    text
}

/// Reads a number as memcached's strtoull does: blanks before it, a blank or nothing behind it.
fn parse_number(text: &[u8]) -> Option<u64> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let start = text.iter().position(|byte| !is_blank(byte))?;
    let text = text[start..].strip_prefix(b"+").unwrap_or(&text[start..]);
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 || text.get(digits).is_some_and(|byte| !is_blank(byte)) {
        return None;
    }
    text[..digits].iter().try_fold(0u64, |number, digit| {
        number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_memcached_reads_them() {
        for (text, number) in [
            (&b"12"[..], Some(12)),
            (b"9 ", Some(9)),
            (b" 7", Some(7)),
            (b"18446744073709551615", Some(u64::MAX)),
            (b"18446744073709551616", None),
            (b"", None),
            (b"x", None),
            (b"1x", None),
            (b"-1", None),
        ] {
            assert_eq!(parse_number(text), number, "{text:?}");
        }
    }

    #[test]
    fn a_shorter_number_keeps_the_length() {
        assert_eq!(digits(9, 2), b"9 ");
        assert_eq!(digits(10, 1), b"10");
    }
}

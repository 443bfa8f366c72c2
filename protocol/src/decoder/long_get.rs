//! `get` lines without an end in sight: yielded in parts, in bounded memory.
//!
//! A part is what the first [`GET_LINE_WHOLE_MAX`] bytes hold of whole keys, so that where a line is
//! cut depends on its bytes alone.

use super::{CloseReason, Decoded, Decoder, Refusal, State, closed, may_be_long, without_cr};
use crate::classic;
use crate::error::Reject;
use crate::key::Keys;
use crate::lexer::keys_fit;
use crate::limits::{GET_LINE_WHOLE_MAX, KEY_MAX, LINE_MAX};
use crate::request::{Get, Request};
use memchr::{memchr, memrchr};

impl Decoder {
    /// The window holds no line end.
    #[cold]
    pub(super) fn without_line_end<'a>(
        &'a mut self,
        buf_len: usize,
        window: &'a [u8],
    ) -> Decoded<'a> {
        self.seen = window.len();
        if window.len() > LINE_MAX && !may_be_long(window) {
            return closed(CloseReason::LineTooLong);
        }
        if buf_len < GET_LINE_WHOLE_MAX {
            return Decoded::More { total: None };
        }
        self.seen = 0;
        match classic::parse_get_front(window) {
            Ok((keys, touch, with_cas)) if !Keys::new(keys).is_empty() => {
                self.state = State::GetRest { touch, with_cas };
                self.get_part(window.len() - keys.len(), keys)
            }
            front => {
                self.state = State::SkipLine;
                let reply = Some(Refusal::line(front.err().unwrap_or(Reject::BadFormat)));
                Decoded::Reject {
                    reply,
                    consumed: window.len(),
                    key_to_delete: None,
                }
            }
        }
    }

    /// A further part of a long `get` line.
    pub(super) fn get_rest<'a>(&'a mut self, buf: &'a [u8]) -> Decoded<'a> {
        let State::GetRest { touch, with_cas } = self.state else {
            return Decoded::More { total: None };
        };
        let window = &buf[..buf.len().min(GET_LINE_WHOLE_MAX)];
        let new = window.get(self.seen..).unwrap_or_default();
        let Some(end) = memchr(b'\n', new).map(|more| self.seen + more) else {
            if window.len() < GET_LINE_WHOLE_MAX {
                self.seen = window.len();
                return Decoded::More { total: None };
            }
            self.seen = 0;
            return self.get_part(0, window);
        };
        self.seen = 0;
        self.state = State::Line;
        let line = without_cr(&window[..end]);
        if !keys_fit(line) {
            let reply = Some(Refusal::line(Reject::BadFormat));
            return Decoded::Reject {
                reply,
                consumed: end + 1,
                key_to_delete: None,
            };
        }
        let get = Get {
            keys: Keys::new(line),
            touch,
            with_cas,
            last: true,
        };
        Decoded::Request {
            request: Request::Get(get),
            consumed: end + 1,
        }
    }

    /// Yields the whole keys at the front of `keys`, which starts at `offset` and whose last key
    /// may go on behind it.
    fn get_part<'a>(&mut self, offset: usize, keys: &'a [u8]) -> Decoded<'a> {
        let cut = memrchr(b' ', keys);
        let (whole, tail) = keys.split_at(cut.map_or(0, |space| space + 1));
        // The last byte may belong to the line end.
        if without_cr(tail).len() > KEY_MAX || !keys_fit(whole) {
            self.state = State::SkipLine;
            let consumed = offset + keys.len();
            let reply = Some(Refusal::line(Reject::BadFormat));
            return Decoded::Reject {
                reply,
                consumed,
                key_to_delete: None,
            };
        }
        let State::GetRest { touch, with_cas } = self.state else {
            return Decoded::More { total: None };
        };
        let get = Get {
            keys: Keys::new(whole),
            touch,
            with_cas,
            last: false,
        };
        Decoded::Request {
            request: Request::Get(get),
            consumed: offset + whole.len(),
        }
    }
}

//! Bytes of a connection in, requests out, however the bytes are split.
//!
//! ```text
//!            line complete        value complete
//!   Line ───────────────▶ Body ──────────────────▶ Line      ms, set, …
//!    │ ╲ refused store, or too large
//!    │  ╲───────────────▶ Swallow ───────────────▶ Line      body bytes go as they come
//!    │ get line over GET_LINE_WHOLE_MAX
//!    ├──────────────────▶ GetRest ─ last part ───▶ Line
//!    │                      │ a key too long
//!    └──────────────────────┴──▶ SkipLine ───────▶ Line
//! ```
//!
//! A connection whose first byte is that of a packet speaks the binary protocol from then on, unless
//! one syntax was asked for:
//!
//! ```text
//!   Start ─┬─▶ Line                                           text and meta, as above
//!          └─▶ Packet ─ refused store ─▶ PacketSwallow ─▶ Packet
//! ```
//!
//! No byte is searched for a line end twice, no header is parsed twice, and nothing is allocated.
//! What is yielded depends on the bytes alone, never on how they were split.

mod long_get;
mod packet;

use crate::binary::REQUEST_MAGIC;
use crate::classic;
use crate::encode;
use crate::error::Reject;
use crate::exptime::Exptime;
use crate::key::Keys;
use crate::limits::{GET_LINE_WHOLE_MAX, ITEM_FLAGS_BYTES, ITEM_HEADER_BYTES, KEY_MAX, LINE_MAX};
use crate::meta;
use crate::parsed::Parsed;
use crate::plain::plain_set;
use crate::request::{BinaryForm, Form, Get, Request};
use crate::store_header::{KeyScratch, StoreHeader};
use memchr::{memchr, memchr2};

/// The decoder of one connection. Small: what it remembers is the header of a store whose value is
/// still to come, and a base64 key.
#[derive(Debug, Clone)]
pub struct Decoder {
    item_max: ItemMax,
    state: State,
    /// How many bytes of the unconsumed input were already searched for a line end or, in
    /// [`State::Body`], are there; in [`State::Packet`] how many are missing to go on.
    seen: usize,
    key_scratch: KeyScratch,
}

/// What [`Decoder::decode`] found at the front of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A whole request.
    Request {
        /// The request; it borrows from the input and the decoder.
        request: Request<'a>,
        /// How many bytes of the input it took.
        consumed: usize,
    },
    /// A request that is refused. The connection goes on.
    Reject {
        /// The answer; none if the client asked for none.
        reply: Option<Refusal>,
        /// How many bytes of the input it took.
        consumed: usize,
        /// A key whose old value must not outlive a store that was too large.
        key_to_delete: Option<&'a [u8]>,
    },
    /// Bytes that mean nothing, the body of a refused store for instance.
    Skip {
        /// How many bytes of the input to drop.
        consumed: usize,
    },
    /// The input ends within a request.
    More {
        /// How many bytes the whole request has, where that is known: input of at least this length
        /// makes the next call useful.
        total: Option<usize>,
    },
    /// The connection has to be closed.
    Close {
        /// What to answer first; only packets are answered.
        reply: Option<Refusal>,
        /// Why, for the log.
        reason: CloseReason,
    },
}

/// An error to answer, in the form in which it was caused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The error.
    pub reject: Reject,
    /// How to answer.
    pub form: Form<'static>,
}

impl Refusal {
    /// The answer to a line.
    pub(crate) const fn line(reject: Reject) -> Self {
        Self {
            reject,
            form: Form::TEXT,
        }
    }

    /// The answer to a packet.
    pub(crate) const fn packet(form: BinaryForm, reject: Reject) -> Self {
        Self {
            reject,
            form: Form::Binary(form),
        }
    }

    /// Whether a line was refused, not a packet.
    pub const fn is_line(&self) -> bool {
        !matches!(self.form, Form::Binary(_))
    }

    /// Appends the answer.
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode::reject_as(out, &self.form, self.reject);
    }
}

/// Why a connection is closed by what it sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// A line that is no `get` is longer than [`LINE_MAX`].
    LineTooLong,
    /// The line looks like HTTP: a browser was made to send it.
    Http,
    /// What should be a packet does not begin like one.
    BadMagic,
    /// A packet's lengths contradict each other or its opcode.
    MalformedPacket,
}

impl std::fmt::Display for CloseReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::LineTooLong => "command line too long",
            Self::Http => "HTTP request on a memcached port",
            Self::BadMagic => "no packet of the binary protocol",
            Self::MalformedPacket => "malformed packet",
        })
    }
}

/// How large an item may be.
#[derive(Debug, Clone, Copy)]
enum ItemMax {
    /// This many bytes of value.
    Value(usize),
    /// This many bytes, counted as memcached counts an item.
    Item(usize),
}

impl ItemMax {
    #[inline]
    fn holds(self, value_len: usize, flags: u32, key_len: usize) -> bool {
        match self {
            Self::Value(max) => value_len <= max,
            Self::Item(max) => {
                let flags_bytes = if flags == 0 { 0 } else { ITEM_FLAGS_BYTES };
                value_len + key_len + flags_bytes + ITEM_HEADER_BYTES <= max
            }
        }
    }
}

/// Which syntax a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Syntax {
    /// What its first byte says.
    #[default]
    Auto,
    /// Text, classic and meta.
    Text,
    /// The binary protocol.
    Binary,
}

#[derive(Debug, Clone)]
enum State {
    /// No byte was seen that tells the syntax.
    Start,
    /// At the start of a request or within its line.
    Line,
    /// The header of a store was read, its value not.
    Body(StoreHeader),
    /// This many bytes of a refused store's body are to be dropped.
    Swallow(usize),
    /// Within a `get` line that is yielded in parts.
    GetRest {
        touch: Option<Exptime>,
        with_cas: bool,
    },
    /// Within a `get` line that was refused.
    SkipLine,
    /// At the start of a packet or within it.
    Packet,
    /// This many bytes of a refused packet's body are to be dropped.
    PacketSwallow(usize),
}

impl Decoder {
    /// A decoder for a new connection that refuses values of more than `item_value_max` bytes.
    pub const fn new(item_value_max: usize) -> Self {
        Self::with(ItemMax::Value(item_value_max))
    }

    /// A decoder that refuses exactly those items that memcached refuses with `-I item_size_max`
    /// (bytes): it counts the key, the flags and [`ITEM_HEADER_BYTES`] along with the value.
    pub const fn with_item_size_max(item_size_max: usize) -> Self {
        Self::with(ItemMax::Item(item_size_max))
    }

    const fn with(item_max: ItemMax) -> Self {
        Self {
            item_max,
            state: State::Start,
            seen: 0,
            key_scratch: KeyScratch::new(),
        }
    }

    /// The same decoder for connections that speak `syntax`; [`Syntax::Auto`] unless it is told.
    #[must_use]
    pub const fn speaking(self, syntax: Syntax) -> Self {
        let state = match syntax {
            Syntax::Auto => State::Start,
            Syntax::Text => State::Line,
            Syntax::Binary => State::Packet,
        };
        Self { state, ..self }
    }

    /// Looks at `buf`, all bytes that were received and not consumed yet, and says what stands at
    /// its front. The caller drops what was consumed and calls again until it needs
    /// [`More`](Decoded::More).
    #[inline]
    pub fn decode<'a>(&'a mut self, buf: &'a [u8]) -> Decoded<'a> {
        match self.state {
            State::Line => {}
            State::Packet => return self.packet(buf),
            _ => return self.resume(buf),
        }
        if self.seen == 0
            && let Some(decoded) = one_key_get(buf).or_else(|| self.whole_set(buf))
        {
            return decoded;
        }
        let window = &buf[..buf.len().min(GET_LINE_WHOLE_MAX)];
        let Some(more) = window.get(self.seen..).and_then(|new| memchr(b'\n', new)) else {
            return self.without_line_end(buf.len(), window);
        };
        let end = self.seen + more;
        self.seen = 0;
        let line = without_cr(&window[..end]);
        if end > LINE_MAX && !may_be_long(line) {
            return closed(CloseReason::LineTooLong);
        }
        self.line(buf, line, end + 1)
    }

    /// The second most frequent request, `set`, if all of it is there and nothing is wrong with it.
    #[inline]
    fn whole_set<'a>(&self, buf: &'a [u8]) -> Option<Decoded<'a>> {
        let (store, consumed) = plain_set(buf)?;
        let fits = self
            .item_max
            .holds(store.value.len(), store.flags, store.key.len());
        fits.then_some(Decoded::Request {
            request: Request::Store(store),
            consumed,
        })
    }

    /// Whether the bytes to come are a line from its start, none of which was looked at.
    #[inline]
    pub fn is_between_lines(&self) -> bool {
        matches!(self.state, State::Line) && self.seen == 0
    }

    /// How many bytes of a value are still to come, if a request is half received; 0 while its line
    /// is not complete. None between requests.
    pub fn pending(&self) -> Option<usize> {
        match &self.state {
            State::Start => None,
            State::Line => (self.seen > 0).then_some(0),
            State::Packet => Some(self.seen).filter(|missing| *missing > 0),
            State::Body(header) => Some(header.total().saturating_sub(self.seen)),
            State::Swallow(left) | State::PacketSwallow(left) => Some(*left),
            State::GetRest { .. } | State::SkipLine => Some(0),
        }
    }

    /// The line that starts a request, with its end at `consumed`.
    fn line<'a>(&'a mut self, buf: &'a [u8], line: &'a [u8], consumed: usize) -> Decoded<'a> {
        let parsed = match line {
            // memcached parses no line shorter than this, its end included.
            _ if consumed < classic::LINE_MIN => Parsed::reject(Reject::BadFormat),
            [b'm', letter] | [b'm', letter, b' ', ..] if meta::LETTERS.contains(letter) => {
                match meta::parse(line, &mut self.key_scratch) {
                    Ok(header) => meta::build(header, line, consumed, &self.key_scratch),
                    Err(refusal) => Parsed::Reject {
                        reply: Some(refusal.reply),
                        swallow: refusal.swallow,
                    },
                }
            }
            _ => classic::parse(line, consumed),
        };
        match parsed {
            Parsed::Request(request) => Decoded::Request { request, consumed },
            Parsed::Store(header) => {
                let key = header.key(buf, &self.key_scratch);
                if !self
                    .item_max
                    .holds(header.value_len, header.flags, key.len())
                {
                    self.state = State::Swallow(header.body_len());
                    return Decoded::Reject {
                        reply: refusal(&header, Reject::TooLarge),
                        consumed,
                        key_to_delete: header.deletes_when_too_large().then_some(key),
                    };
                }
                if buf.len() < header.total() {
                    let total = Some(header.total());
                    self.state = State::Body(header);
                    self.seen = buf.len();
                    return Decoded::More { total };
                }
                store(&header, buf, &self.key_scratch)
            }
            Parsed::Reject { reply, swallow } => {
                if swallow > 0 {
                    self.state = State::Swallow(swallow);
                }
                Decoded::Reject {
                    reply: reply.map(Refusal::line),
                    consumed,
                    key_to_delete: None,
                }
            }
            Parsed::Close(reason) => closed(reason),
        }
    }

    /// Goes on within a request.
    #[cold]
    fn resume<'a>(&'a mut self, buf: &'a [u8]) -> Decoded<'a> {
        match &mut self.state {
            State::Start => {
                self.state = match buf.first() {
                    None => return Decoded::More { total: None },
                    Some(&REQUEST_MAGIC) => State::Packet,
                    Some(_) => State::Line,
                };
                self.decode(buf)
            }
            State::Line | State::Packet => Decoded::More { total: None },
            State::Body(header) => {
                self.seen = buf.len();
                if buf.len() < header.total() {
                    return Decoded::More {
                        total: Some(header.total()),
                    };
                }
                let header = header.clone();
                self.state = State::Line;
                self.seen = 0;
                store(&header, buf, &self.key_scratch)
            }
            State::Swallow(left) => {
                let consumed = buf.len().min(*left);
                *left -= consumed;
                if *left == 0 {
                    self.state = State::Line;
                }
                skip(consumed)
            }
            State::PacketSwallow(left) => {
                let consumed = buf.len().min(*left);
                *left -= consumed;
                if *left == 0 {
                    self.state = State::Packet;
                }
                skip(consumed)
            }
            State::GetRest { .. } => self.get_rest(buf),
            State::SkipLine => {
                let end = memchr(b'\n', buf);
                if end.is_some() {
                    self.state = State::Line;
                }
                skip(end.map_or(buf.len(), |end| end + 1))
            }
        }
    }
}

/// The most frequent request, `get` with one key, found by a single search before anything else is
/// asked. None if `buf` starts with another one, or with none that is whole and good.
#[inline]
fn one_key_get(buf: &[u8]) -> Option<Decoded<'_>> {
    let arguments = buf.strip_prefix(b"get ")?;
    let window = &arguments[..arguments.len().min(KEY_MAX + b"\r\n".len())];
    let end = memchr2(b' ', b'\n', window)?;
    let key = without_cr(&window[..end]);
    if window[end] == b' ' || key.is_empty() || key.len() > KEY_MAX {
        return None;
    }
    let get = Get {
        keys: Keys::one(key),
        touch: None,
        with_cas: false,
        last: true,
    };
    let consumed = b"get ".len() + end + 1;
    Some(Decoded::Request {
        request: Request::Get(get),
        consumed,
    })
}

/// A store whose value is in `buf`.
#[inline]
fn store<'a>(header: &StoreHeader, buf: &'a [u8], key_scratch: &'a KeyScratch) -> Decoded<'a> {
    let consumed = header.total();
    match header.request(buf, key_scratch) {
        Some(store) => Decoded::Request {
            request: Request::Store(store),
            consumed,
        },
        None => Decoded::Reject {
            reply: refusal(header, Reject::BadDataChunk),
            consumed,
            key_to_delete: None,
        },
    }
}

/// The refusal of a store, unless its client wants no answer.
fn refusal(header: &StoreHeader, reject: Reject) -> Option<Refusal> {
    (!header.noreply()).then_some(Refusal::line(reject))
}

/// Lines that close a connection are not answered.
fn closed<'a>(reason: CloseReason) -> Decoded<'a> {
    Decoded::Close {
        reply: None,
        reason,
    }
}

fn skip<'a>(consumed: usize) -> Decoded<'a> {
    if consumed == 0 {
        Decoded::More { total: None }
    } else {
        Decoded::Skip { consumed }
    }
}

/// Whether a line may be longer than [`LINE_MAX`].
fn may_be_long(line: &[u8]) -> bool {
    [&b"get "[..], b"gets ", b"gat ", b"gats "]
        .iter()
        .any(|word| line.starts_with(word))
}

#[inline]
fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

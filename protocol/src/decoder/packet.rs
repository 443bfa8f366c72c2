//! Packets of the binary protocol. A packet is looked at anew whenever bytes arrive: its header has
//! a fixed place, so that nothing but a body to drop has to be remembered.

use super::{CloseReason, Decoded, Decoder, Refusal, State};
use crate::binary::{
    HEADER_LEN, Header, NO_CREATION, Opcode, REQUEST_MAGIC, extras, u32_at, u64_at,
};
use crate::error::Reject;
use crate::exptime::Exptime;
use crate::limits::{AUTH_TOKEN_MAX, BODY_LEN_MAX, KEY_MAX};
use crate::request::{
    Admin, Arithmetic, BinaryForm, Delete, Form, GetOne, Request, Sasl, SaslStep, Store, StoreMode,
    Touch,
};

/// A packet whose front, up to the end of the key, has arrived.
struct Packet<'a> {
    header: Header,
    form: BinaryForm,
    extras: &'a [u8],
    key: &'a [u8],
    /// Bytes of the body behind the key.
    value_len: usize,
}

impl Decoder {
    /// The packet at the front of `buf`.
    #[inline]
    pub(super) fn packet<'a>(&'a mut self, buf: &'a [u8]) -> Decoded<'a> {
        let Some(header) = Header::read(buf) else {
            return self.await_packet(buf, HEADER_LEN);
        };
        self.seen = 0;
        if header.magic != REQUEST_MAGIC {
            return Decoded::Close {
                reply: None,
                reason: CloseReason::BadMagic,
            };
        }
        let front_len = header.front_len();
        let Some(front) = buf.get(HEADER_LEN..front_len) else {
            return self.await_packet(buf, front_len);
        };
        let form = BinaryForm {
            opcode: header.opcode,
            opaque: header.opaque,
        };
        let body_len = header.body_len as usize;
        let Some(value_len) = (HEADER_LEN + body_len).checked_sub(front_len) else {
            return malformed(form, Reject::Unknown);
        };
        if body_len > BODY_LEN_MAX || usize::from(header.key_len) > KEY_MAX {
            return malformed(form, Reject::BadFormat);
        }
        let (extras, key) = front.split_at(usize::from(header.extras_len));
        let packet = Packet {
            header,
            form,
            extras,
            key,
            value_len,
        };
        match header.opcode {
            Opcode::SET
            | Opcode::SETQ
            | Opcode::ADD
            | Opcode::ADDQ
            | Opcode::REPLACE
            | Opcode::REPLACEQ
            | Opcode::APPEND
            | Opcode::APPENDQ
            | Opcode::PREPEND
            | Opcode::PREPENDQ => self.store_packet(buf, &packet),
            Opcode::SASL_LIST | Opcode::SASL_AUTH | Opcode::SASL_STEP => self.sasl(buf, &packet),
            opcode if opcode.is_known() => match packet.request() {
                Some(request) => Decoded::Request {
                    request,
                    consumed: front_len,
                },
                None => malformed(form, Reject::BadFormat),
            },
            _ => self.refuse_body(&packet, Reject::Unknown, front_len),
        }
    }

    /// A store, whose value is taken only as a whole.
    #[inline]
    fn store_packet<'a>(&'a mut self, buf: &'a [u8], packet: &Packet<'a>) -> Decoded<'a> {
        let Some(mut store) = packet.store() else {
            return malformed(packet.form, Reject::BadFormat);
        };
        let front_len = packet.header.front_len();
        let end = front_len + packet.value_len;
        if !self
            .item_max
            .holds(packet.value_len, store.flags, store.key.len())
        {
            return self.refuse_body(packet, Reject::TooLarge, front_len);
        }
        let Some(value) = buf.get(front_len..end) else {
            return self.await_packet(buf, end);
        };
        store.value = value;
        Decoded::Request {
            request: Request::Store(store),
            consumed: end,
        }
    }

    /// A step of an authentication: a token that is too long is dropped, the step is not.
    fn sasl<'a>(&'a mut self, buf: &'a [u8], packet: &Packet<'a>) -> Decoded<'a> {
        let step = match packet.header.opcode {
            Opcode::SASL_LIST => SaslStep::List,
            Opcode::SASL_AUTH => SaslStep::Auth,
            _ => SaslStep::Step,
        };
        let fits = match step {
            SaslStep::List => packet.is_bare(),
            SaslStep::Auth | SaslStep::Step => packet.extras.is_empty() && !packet.key.is_empty(),
        };
        if !fits {
            return malformed(packet.form, Reject::BadFormat);
        }
        let front_len = packet.header.front_len();
        let end = front_len + packet.value_len;
        let mut sasl = Sasl {
            step,
            mechanism: packet.key,
            token: None,
            form: packet.form,
        };
        if packet.value_len > AUTH_TOKEN_MAX {
            self.state = State::PacketSwallow(packet.value_len);
            return Decoded::Request {
                request: Request::Sasl(sasl),
                consumed: front_len,
            };
        }
        let Some(token) = buf.get(front_len..end) else {
            return self.await_packet(buf, end);
        };
        sasl.token = Some(token);
        Decoded::Request {
            request: Request::Sasl(sasl),
            consumed: end,
        }
    }

    /// `buf` is not yet the `total` bytes that have to be there.
    #[cold]
    fn await_packet<'a>(&mut self, buf: &[u8], total: usize) -> Decoded<'a> {
        self.seen = if buf.is_empty() { 0 } else { total - buf.len() };
        Decoded::More { total: Some(total) }
    }

    /// Refuses a packet and drops what follows its key.
    #[cold]
    fn refuse_body<'a>(
        &mut self,
        packet: &Packet<'a>,
        reject: Reject,
        consumed: usize,
    ) -> Decoded<'a> {
        if packet.value_len > 0 {
            self.state = State::PacketSwallow(packet.value_len);
        }
        let is_set = matches!(packet.header.opcode, Opcode::SET | Opcode::SETQ);
        Decoded::Reject {
            reply: Some(Refusal::packet(packet.form, reject)),
            consumed,
            key_to_delete: is_set.then_some(packet.key),
        }
    }
}

/// Answered, then closed: where the next packet begins cannot be trusted.
#[cold]
fn malformed<'a>(form: BinaryForm, reject: Reject) -> Decoded<'a> {
    Decoded::Close {
        reply: Some(Refusal::packet(form, reject)),
        reason: CloseReason::MalformedPacket,
    }
}

impl<'a> Packet<'a> {
    /// The request of a packet that ends with its key; none if it has not the lengths of its opcode.
    #[inline]
    fn request(&self) -> Option<Request<'a>> {
        let form = Form::Binary(self.form);
        let request = match self.header.opcode {
            Opcode::GET | Opcode::GETQ | Opcode::GETK | Opcode::GETKQ if self.is_key() => {
                Request::GetOne(GetOne {
                    key: self.key,
                    touch: None,
                    form: self.form,
                })
            }
            Opcode::GAT | Opcode::GATQ | Opcode::GATK | Opcode::GATKQ
                if self.is_key_and_number() =>
            {
                Request::GetOne(GetOne {
                    key: self.key,
                    touch: Some(self.exptime(0)),
                    form: self.form,
                })
            }
            Opcode::TOUCH if self.is_key_and_number() => Request::Touch(Touch {
                key: self.key,
                exptime: self.exptime(0),
                form,
            }),
            Opcode::DELETE | Opcode::DELETEQ if self.is_key() => Request::Delete(Delete {
                key: self.key,
                compare: self.compare(),
                new_cas: None,
                invalidate: false,
                touch: None,
                clear: false,
                form,
            }),
            Opcode::INCREMENT | Opcode::INCREMENTQ if self.is_key_and_delta() => {
                self.arithmetic(false)
            }
            Opcode::DECREMENT | Opcode::DECREMENTQ if self.is_key_and_delta() => {
                self.arithmetic(true)
            }
            Opcode::FLUSH | Opcode::FLUSHQ if self.is_bare() => Request::FlushAll {
                delay: Exptime::Expired,
                form,
            },
            Opcode::FLUSH | Opcode::FLUSHQ if self.is_number() => Request::FlushAll {
                delay: match self.exptime(0) {
                    Exptime::Never => Exptime::Expired,
                    later => later,
                },
                form,
            },
            Opcode::NOOP if self.is_bare() => Request::Noop { form },
            Opcode::VERSION if self.is_bare() => Request::Admin(Admin::Version { form }),
            Opcode::VERBOSITY if self.is_number() => Request::Admin(Admin::Verbosity {
                level: u32_at(self.extras, 0),
                form,
            }),
            Opcode::STAT if self.extras.is_empty() => Request::Admin(Admin::Stats {
                arguments: self.key,
                form,
            }),
            Opcode::QUIT | Opcode::QUITQ if self.is_bare() => Request::Quit { form },
            _ => return None,
        };
        Some(request)
    }

    /// A store without its value.
    #[inline]
    fn store(&self) -> Option<Store<'a>> {
        let mode = match self.header.opcode {
            Opcode::APPEND | Opcode::APPENDQ => StoreMode::Append,
            Opcode::PREPEND | Opcode::PREPENDQ => StoreMode::Prepend,
            // With a CAS unique each of these is what text calls `cas`.
            _ if self.header.cas != 0 => StoreMode::Set,
            Opcode::ADD | Opcode::ADDQ => StoreMode::Add,
            Opcode::REPLACE | Opcode::REPLACEQ => StoreMode::Replace,
            _ => StoreMode::Set,
        };
        let extends = matches!(mode, StoreMode::Append | StoreMode::Prepend);
        let (flags, exptime) = match self.extras.len() {
            0 if extends => (0, Exptime::Never),
            extras::STORE if !extends => (u32_at(self.extras, 0), self.exptime(4)),
            _ => return None,
        };
        if self.key.is_empty() {
            return None;
        }
        Some(Store {
            mode,
            key: self.key,
            flags,
            exptime,
            value: &[],
            compare: self.compare(),
            new_cas: None,
            invalidate: false,
            vivify: None,
            form: Form::Binary(self.form),
        })
    }

    fn arithmetic(&self, decrement: bool) -> Request<'a> {
        let exptime = u32_at(self.extras, 16);
        let creates = exptime != NO_CREATION;
        Request::Arithmetic(Arithmetic {
            key: self.key,
            decrement,
            delta: u64_at(self.extras, 0),
            vivify: creates.then(|| (u64_at(self.extras, 8), Exptime::from_unsigned(exptime))),
            touch: None,
            compare: self.compare(),
            new_cas: None,
            form: Form::Binary(self.form),
        })
    }

    /// A CAS unique of 0 is none.
    #[inline]
    fn compare(&self) -> Option<u64> {
        Some(self.header.cas).filter(|cas| *cas != 0)
    }

    #[inline]
    fn exptime(&self, at: usize) -> Exptime {
        Exptime::from_unsigned(u32_at(self.extras, at))
    }

    /// Nothing but a key.
    #[inline]
    fn is_key(&self) -> bool {
        self.extras.is_empty() && !self.key.is_empty() && self.value_len == 0
    }

    /// A number and a key. What stands behind the key is taken for the next packet, as in memcached.
    fn is_key_and_number(&self) -> bool {
        self.extras.len() == extras::NUMBER && !self.key.is_empty()
    }

    fn is_key_and_delta(&self) -> bool {
        self.extras.len() == extras::ARITHMETIC && !self.key.is_empty() && self.value_len == 0
    }

    /// Nothing but a number.
    fn is_number(&self) -> bool {
        self.extras.len() == extras::NUMBER && self.key.is_empty() && self.value_len == 0
    }

    /// Nothing but a header.
    fn is_bare(&self) -> bool {
        self.header.body_len == 0
    }
}

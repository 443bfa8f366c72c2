//! Binary requests out, for speaking to an upstream server.

use crate::binary::{Header, NO_CREATION, REQUEST_MAGIC};
use crate::exptime::Exptime;
use crate::request::{Admin, BinaryForm, Request, StoreMode};

/// Appends a request as a packet with the opcode of `form`.
pub(super) fn encode(out: &mut Vec<u8>, request: &Request<'_>, form: BinaryForm) {
    let mut packet = Packet {
        form,
        cas: 0,
        extras: Vec::new(),
        key: &[],
        value: &[],
    };
    match request {
        Request::GetOne(get) => {
            packet.key = get.key;
            packet.exptime(get.touch);
        }
        Request::Store(store) => {
            packet.cas = store.compare.unwrap_or(0);
            if !matches!(store.mode, StoreMode::Append | StoreMode::Prepend) {
                packet.number(store.flags);
                packet.exptime(Some(store.exptime));
            }
            packet.key = store.key;
            packet.value = store.value;
        }
        Request::Delete(delete) => {
            packet.cas = delete.compare.unwrap_or(0);
            packet.key = delete.key;
        }
        Request::Arithmetic(arithmetic) => {
            packet.cas = arithmetic.compare.unwrap_or(0);
            packet.key = arithmetic.key;
            let (initial, exptime) = match arithmetic.vivify {
                Some((initial, exptime)) => (initial, exptime.to_unsigned()),
                None => (0, NO_CREATION),
            };
            packet.extras.extend(arithmetic.delta.to_be_bytes());
            packet.extras.extend(initial.to_be_bytes());
            packet.number(exptime);
        }
        Request::Touch(touch) => {
            packet.key = touch.key;
            packet.exptime(Some(touch.exptime));
        }
        Request::FlushAll { delay, .. } => {
            let later = matches!(delay, Exptime::Relative(_) | Exptime::Absolute(_));
            packet.exptime(Some(*delay).filter(|_| later));
        }
        Request::Admin(Admin::Verbosity { level, .. }) => packet.number(*level),
        Request::Admin(Admin::Stats { arguments, .. }) => packet.key = arguments,
        Request::Sasl(sasl) => {
            packet.key = sasl.mechanism;
            packet.value = sasl.token.unwrap_or_default();
        }
        // The others are their opcode alone.
        _ => {}
    }
    packet.append_to(out);
}

struct Packet<'a> {
    form: BinaryForm,
    cas: u64,
    extras: Vec<u8>,
    key: &'a [u8],
    value: &'a [u8],
}

impl Packet<'_> {
    fn number(&mut self, number: u32) {
        self.extras.extend(number.to_be_bytes());
    }

    fn exptime(&mut self, exptime: Option<Exptime>) {
        if let Some(exptime) = exptime {
            self.number(exptime.to_unsigned());
        }
    }

    fn append_to(&self, out: &mut Vec<u8>) {
        let header = Header {
            magic: REQUEST_MAGIC,
            opcode: self.form.opcode,
            key_len: self.key.len() as u16,
            extras_len: self.extras.len() as u8,
            status: 0,
            body_len: (self.extras.len() + self.key.len() + self.value.len()) as u32,
            opaque: self.form.opaque,
            cas: self.cas,
        };
        for part in [&header.bytes()[..], &self.extras, self.key, self.value] {
            out.extend_from_slice(part);
        }
    }
}

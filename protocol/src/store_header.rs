//! A store whose header was read and whose value may still be on its way.

use crate::exptime::Exptime;
use crate::lexer::Span;
use crate::limits::KEY_MAX;
use crate::request::{Form, MetaForm, Returns, Store, StoreMode};

/// The end of every value.
const VALUE_END: &[u8] = b"\r\n";

/// A decoded base64 key.
#[derive(Debug, Clone)]
pub(crate) struct KeyScratch {
    pub(crate) bytes: [u8; KEY_MAX],
    pub(crate) len: usize,
}

impl KeyScratch {
    pub(crate) const fn new() -> Self {
        Self {
            bytes: [0; KEY_MAX],
            len: 0,
        }
    }

    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// All of a [`Store`] but the bytes, which are named by their places.
#[derive(Debug, Clone)]
pub(crate) struct StoreHeader {
    pub(crate) mode: StoreMode,
    pub(crate) key: Span,
    pub(crate) flags: u32,
    pub(crate) exptime: Exptime,
    pub(crate) compare: Option<u64>,
    /// Bytes of the value without its line end.
    pub(crate) value_len: usize,
    /// Bytes of the header with its line end.
    pub(crate) header_len: usize,
    pub(crate) form: FormHeader,
}

/// A [`Form`] by places, with the options that only a meta store has.
#[derive(Debug, Clone)]
pub(crate) enum FormHeader {
    Classic { noreply: bool },
    Meta(MetaStoreHeader),
}

/// What only `ms` says.
#[derive(Debug, Clone)]
pub(crate) struct MetaStoreHeader {
    pub(crate) key_base64: bool,
    pub(crate) quiet: bool,
    pub(crate) invalidate: bool,
    pub(crate) new_cas: Option<u64>,
    pub(crate) vivify: Option<Exptime>,
    pub(crate) opaque: Option<Span>,
    pub(crate) returns: Returns,
}

impl StoreHeader {
    /// Bytes of the value with its line end.
    #[inline]
    pub(crate) fn body_len(&self) -> usize {
        self.value_len + VALUE_END.len()
    }

    /// Bytes of the whole request.
    #[inline]
    pub(crate) fn total(&self) -> usize {
        self.header_len + self.body_len()
    }

    /// Whether errors are hidden too: `noreply` does, `q` never.
    #[inline]
    pub(crate) fn noreply(&self) -> bool {
        matches!(self.form, FormHeader::Classic { noreply: true })
    }

    /// Whether the old value has to go when the new one is too large: memcached deletes it for
    /// `set` and for every `ms`.
    pub(crate) fn deletes_when_too_large(&self) -> bool {
        match self.form {
            FormHeader::Classic { .. } => self.mode == StoreMode::Set && self.compare.is_none(),
            FormHeader::Meta(_) => true,
        }
    }

    /// The key, from the line or decoded.
    #[inline]
    pub(crate) fn key<'a>(&self, buf: &'a [u8], scratch: &'a KeyScratch) -> &'a [u8] {
        match &self.form {
            FormHeader::Meta(meta) if meta.key_base64 => scratch.key(),
            _ => self.key.get(buf),
        }
    }

    /// The request, once `buf` holds all of it; none if its value does not end as it has to.
    #[inline]
    pub(crate) fn request<'a>(&self, buf: &'a [u8], scratch: &'a KeyScratch) -> Option<Store<'a>> {
        let body = buf.get(self.header_len..self.total())?;
        let value = body.strip_suffix(VALUE_END)?;
        let key = self.key(buf, scratch);
        let (new_cas, invalidate, vivify, form) = match &self.form {
            FormHeader::Classic { noreply } => {
                (None, false, None, Form::Classic { noreply: *noreply })
            }
            FormHeader::Meta(meta) => {
                let form = MetaForm {
                    key,
                    key_base64: meta.key_base64,
                    quiet: meta.quiet,
                    opaque: meta.opaque.map(|span| span.get(buf)),
                    returns: meta.returns,
                };
                (meta.new_cas, meta.invalidate, meta.vivify, Form::Meta(form))
            }
        };
        Some(Store {
            mode: self.mode,
            key,
            flags: self.flags,
            exptime: self.exptime,
            value,
            compare: self.compare,
            new_cas,
            invalidate,
            vivify,
            form,
        })
    }
}

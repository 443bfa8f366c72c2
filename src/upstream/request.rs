//! Requests as a server of a pool is sent them.

use tiercache_protocol::encode_request;
use tiercache_protocol::request::{Delete, Form, MetaForm, Request, Returns};

/// The form of a meta request that asks for `letters`.
pub fn meta_form<'a>(key: &'a [u8], opaque: &'a [u8], letters: &[u8]) -> MetaForm<'a> {
    let mut returns = Returns::default();
    letters.iter().for_each(|letter| returns.push(*letter));
    MetaForm {
        key,
        key_base64: needs_base64(key),
        quiet: false,
        opaque: Some(opaque),
        returns,
    }
}

/// Appends the request to delete a key, whatever is there.
pub fn encode_delete(out: &mut Vec<u8>, key: &[u8], opaque: &[u8]) {
    let request = Delete {
        key,
        compare: None,
        new_cas: None,
        invalidate: false,
        touch: None,
        clear: false,
        form: Form::Meta(meta_form(key, opaque, b"")),
    };
    encode_request(out, &Request::Delete(request));
}

/// Whether a key has to be sent in base64: it has bytes that would end it on a text line.
pub fn needs_base64(key: &[u8]) -> bool {
    memchr::memchr3(b' ', b'\n', b'\r', key).is_some() || memchr::memchr(0, key).is_some()
}

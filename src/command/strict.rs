//! Limits of requests that memcached does not have: strict keys, keys per `get`.

use tiercache_protocol::request::{Form, Get, Request};
use tiercache_protocol::{Reject, encode};

use super::Flow;

/// What a client is told whose `get` names too many keys.
const TOO_MANY_KEYS: &[u8] = b"CLIENT_ERROR too many keys in one get\r\n";

/// Requests that are refused although memcached takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strict {
    /// Refuse keys with a control byte (below 0x20, or 0x7f), unless they came in base64.
    pub keys: bool,
    /// Most keys of one `get`, `gets`, `gat` or `gats`, whose line is then at most 64 KiB long; the
    /// connection of a client that asks for more is closed. 0 for no limit.
    pub keys_per_get_max: usize,
}

impl Strict {
    /// These limits, if there is one among them.
    pub fn any(self) -> Option<Strict> {
        (self.keys || self.keys_per_get_max > 0).then_some(self)
    }

    /// Answers a request that is refused; `None` for one that is not.
    pub(super) fn refuse(self, request: &Request<'_>, out: &mut Vec<u8>) -> Option<Flow> {
        if let Request::Get(get) = request
            && self.is_too_long(get)
        {
            out.extend_from_slice(TOO_MANY_KEYS);
            return Some(Flow::Close);
        }
        if !self.keys || has_plain_keys(request) {
            return None;
        }
        if let Some(form) = request.binary_form() {
            encode::reject_as(out, &Form::Binary(form), Reject::BadFormat);
        } else if !is_silent(request) {
            out.extend_from_slice(Reject::BadFormat.as_bytes());
        }
        Some(Flow::Done)
    }

    fn is_too_long(self, get: &Get<'_>) -> bool {
        let max = self.keys_per_get_max;
        max > 0 && (!get.last || get.keys.clone().nth(max).is_some())
    }
}

fn has_plain_keys(request: &Request<'_>) -> bool {
    match request {
        Request::Get(get) => get.keys.clone().all(is_plain),
        Request::GetOne(get) => is_plain(get.key),
        Request::Retrieve(retrieve) => retrieve.form.key_base64 || is_plain(retrieve.key),
        Request::Store(store) => came_in_base64(&store.form) || is_plain(store.key),
        Request::Delete(delete) => came_in_base64(&delete.form) || is_plain(delete.key),
        Request::Arithmetic(arithmetic) => {
            came_in_base64(&arithmetic.form) || is_plain(arithmetic.key)
        }
        Request::Touch(touch) => is_plain(touch.key),
        Request::Inspect(inspect) => inspect.key_base64 || is_plain(inspect.key),
        Request::Noop { .. }
        | Request::FlushAll { .. }
        | Request::Admin(_)
        | Request::Sasl(_)
        | Request::Quit { .. } => true,
    }
}

fn is_plain(key: &[u8]) -> bool {
    !key.iter().any(u8::is_ascii_control)
}

fn came_in_base64(form: &Form<'_>) -> bool {
    matches!(form, Form::Meta(form) if form.key_base64)
}

/// Whether the client wants no answer, as with every refusal of a classic `noreply`.
fn is_silent(request: &Request<'_>) -> bool {
    let form = match request {
        Request::Store(store) => &store.form,
        Request::Delete(delete) => &delete.form,
        Request::Arithmetic(arithmetic) => &arithmetic.form,
        Request::Touch(touch) => &touch.form,
        _ => return false,
    };
    matches!(form, Form::Classic { noreply: true })
}

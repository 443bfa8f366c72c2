//! Answers of the meta protocol: a status and the flags that were asked for, in request order.

use super::StoreFacts;
use crate::base64;
use crate::number::{digit_count, push_i64, push_u64};
use crate::request::MetaForm;

/// What `mg` answers about an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ItemFacts {
    /// Client flags.
    pub flags: u32,
    /// CAS unique.
    pub cas: u64,
    /// Seconds until it expires; none if never. Before or after a flag `T` of the same request, as
    /// [`MetaForm::stands_before`] says of `t` and `T`.
    pub ttl: Option<u32>,
    /// Bytes of the value.
    pub size: u32,
    /// Seconds since the access before this one.
    pub since_access: u32,
    /// Whether it was fetched before this access.
    pub hit_before: bool,
    /// Whether it was stored with a base64 key, and is answered so.
    pub key_base64: bool,
    /// Marked stale: `X`.
    pub stale: bool,
    /// This client is to recache it: `W`. Ignored with `token_sent`.
    pub won: bool,
    /// Another client was told so before: `Z`.
    pub token_sent: bool,
}

/// What `me` answers about an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DebugFacts {
    /// Seconds until it expires; none if never.
    pub ttl: Option<u32>,
    /// Seconds since the last access.
    pub since_access: u32,
    /// CAS unique.
    pub cas: u64,
    /// Whether it was fetched since it was stored.
    pub fetched: bool,
    /// The slab class that clients of memcached expect to be told.
    pub class: u32,
    /// Bytes of the item with its overhead.
    pub size: u64,
    /// Whether it was stored with a base64 key, and is answered so.
    pub key_base64: bool,
}

/// The line of a hit: `VA size flags…\r\n` with a value, else `HD flags…\r\n`. The value and its
/// `\r\n` follow from the caller. Flag `q` does not hide a hit.
pub fn meta_hit(out: &mut Vec<u8>, form: &MetaForm<'_>, facts: &ItemFacts, with_value: bool) {
    if with_value {
        out.extend_from_slice(b"VA ");
        push_u64(out, u64::from(facts.size));
    } else {
        out.extend_from_slice(b"HD");
    }
    for letter in form.returns.letters() {
        match letter {
            b'c' => push_flag(out, b'c', facts.cas),
            b'f' => push_flag(out, b'f', u64::from(facts.flags)),
            b'h' => push_flag(out, b'h', u64::from(facts.hit_before)),
            b'k' => push_key(out, form.key, facts.key_base64),
            b'l' => push_flag(out, b'l', u64::from(facts.since_access)),
            b'O' => push_opaque(out, form),
            b's' => push_flag(out, b's', u64::from(facts.size)),
            b't' => push_ttl(out, facts.ttl),
            _ => {}
        }
    }
    if facts.token_sent {
        out.extend_from_slice(b" Z");
    }
    if facts.stale {
        out.extend_from_slice(b" X");
    }
    if facts.won && !facts.token_sent {
        out.extend_from_slice(b" W");
    }
    out.extend_from_slice(b"\r\n");
}

/// The line of a miss, `EN` with the key and the opaque token where asked for; hidden by flag `q`.
pub fn meta_miss(out: &mut Vec<u8>, form: &MetaForm<'_>) {
    if !form.quiet {
        meta_status(out, form, b"EN");
    }
}

/// `status` with the key and the opaque token where asked for; flag `q` is not looked at.
pub fn meta_status(out: &mut Vec<u8>, form: &MetaForm<'_>, status: &[u8; 2]) {
    out.extend_from_slice(status);
    for letter in form.returns.letters() {
        match letter {
            b'k' => push_key(out, form.key, form.key_base64),
            b'O' => push_opaque(out, form),
            _ => {}
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// The status line of a store.
pub(super) fn store_status(
    out: &mut Vec<u8>,
    form: &MetaForm<'_>,
    status: &[u8; 2],
    facts: StoreFacts,
) {
    out.extend_from_slice(status);
    for letter in form.returns.letters() {
        match letter {
            b'c' => push_flag(out, b'c', facts.cas),
            b'k' => push_key(out, form.key, form.key_base64),
            b'O' => push_opaque(out, form),
            b's' => push_flag(out, b's', u64::from(facts.size)),
            _ => {}
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// The answer of `ma` that counted, with the number where flag `v` asks for it; flag `q` is not
/// looked at.
pub fn meta_number(out: &mut Vec<u8>, form: &MetaForm<'_>, value: u64, cas: u64, ttl: Option<u32>) {
    let with_value = form.returns.contains(b'v');
    if with_value {
        out.extend_from_slice(b"VA ");
        push_u64(out, digit_count(value) as u64);
    } else {
        out.extend_from_slice(b"HD");
    }
    for letter in form.returns.letters() {
        match letter {
            b'c' => push_flag(out, b'c', cas),
            b'k' => push_key(out, form.key, form.key_base64),
            b'O' => push_opaque(out, form),
            b't' => push_ttl(out, ttl),
            _ => {}
        }
    }
    out.extend_from_slice(b"\r\n");
    if with_value {
        push_u64(out, value);
        out.extend_from_slice(b"\r\n");
    }
}

/// `mg key\r\n`, or `mg key b\r\n` for a key that is told in base64: a line of `lru_crawler mgdump`.
pub fn meta_get_line(out: &mut Vec<u8>, key: &[u8], key_base64: bool) {
    out.extend_from_slice(b"mg ");
    if key_base64 {
        base64::encode(out, key);
        out.extend_from_slice(b" b");
    } else {
        out.extend_from_slice(key);
    }
    out.extend_from_slice(b"\r\n");
}

/// The answer of `me` for an item that is there: `ME key exp= la= cas= fetch= cls= size=`. A miss
/// is `EN\r\n`, as [`meta_debug`] with no facts writes it.
pub fn meta_debug(out: &mut Vec<u8>, key: &[u8], facts: Option<&DebugFacts>) {
    let Some(facts) = facts else {
        out.extend_from_slice(b"EN\r\n");
        return;
    };
    out.extend_from_slice(b"ME ");
    if facts.key_base64 {
        base64::encode(out, key);
    } else {
        out.extend_from_slice(key);
    }
    out.extend_from_slice(b" exp=");
    push_i64(out, facts.ttl.map_or(-1, i64::from));
    out.extend_from_slice(b" la=");
    push_u64(out, u64::from(facts.since_access));
    out.extend_from_slice(b" cas=");
    push_u64(out, facts.cas);
    out.extend_from_slice(if facts.fetched {
        b" fetch=yes"
    } else {
        b" fetch=no"
    });
    out.extend_from_slice(b" cls=");
    push_u64(out, u64::from(facts.class));
    out.extend_from_slice(b" size=");
    push_u64(out, facts.size);
    out.extend_from_slice(b"\r\n");
}

#[inline]
fn push_flag(out: &mut Vec<u8>, letter: u8, number: u64) {
    out.extend_from_slice(&[b' ', letter]);
    push_u64(out, number);
}

#[inline]
fn push_ttl(out: &mut Vec<u8>, ttl: Option<u32>) {
    match ttl {
        Some(ttl) => push_flag(out, b't', u64::from(ttl)),
        None => out.extend_from_slice(b" t-1"),
    }
}

fn push_key(out: &mut Vec<u8>, key: &[u8], key_base64: bool) {
    out.extend_from_slice(b" k");
    if key_base64 {
        base64::encode(out, key);
        out.extend_from_slice(b" b");
    } else {
        out.extend_from_slice(key);
    }
}

fn push_opaque(out: &mut Vec<u8>, form: &MetaForm<'_>) {
    if let Some(opaque) = form.opaque {
        out.extend_from_slice(b" O");
        out.extend_from_slice(opaque);
    }
}

//! How a classic hit is written: a `VALUE` line or a packet.

use tiercache_protocol::encode;
use tiercache_protocol::request::BinaryForm;

use crate::memory::Tail;
use crate::tier::View;

/// `VALUE …`, the value and its line end, laid out in one go. Answers the value's length.
#[inline]
pub(super) fn write_value(
    out: &mut Vec<u8>,
    key: &[u8],
    view: &View<'_>,
    with_cas: bool,
    cas_enabled: bool,
) -> usize {
    let cas = with_cas.then(|| if cas_enabled { view.facts().cas() } else { 0 });
    let value_len = view.value_bytes();
    encode::value_line(out, key, view.flags(), value_len, cas);
    view.append_value(out);
    out.extend_from_slice(b"\r\n");
    value_len
}

/// As [`write_value`], without CAS unique.
#[inline]
pub(super) fn write_plain_value(out: &mut Vec<u8>, key: &[u8], view: &View<'_>) {
    let value_len = view.value_bytes();
    match encode::short_facts(view.flags(), value_len) {
        Some((facts, facts_len)) => {
            let line_len = encode::VALUE.len() + key.len() + facts.len();
            let mut tail = Tail::new(out, line_len + value_len + b"\r\n".len());
            tail.push(*encode::VALUE);
            tail.push_short(key);
            tail.push_part(facts, facts_len);
            view.write_value(&mut tail);
            tail.push(*b"\r\n");
        }
        None => {
            encode::value_line(out, key, view.flags(), value_len, None);
            view.append_value(out);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// The packet of a hit. Answers the value's length.
#[inline]
pub(super) fn write_packet(
    out: &mut Vec<u8>,
    form: BinaryForm,
    key: &[u8],
    view: &View<'_>,
    cas_enabled: bool,
) -> usize {
    let cas = if cas_enabled { view.facts().cas() } else { 0 };
    let value_len = view.value_bytes();
    encode::binary_item_head(out, form, key, view.flags(), cas, value_len);
    view.append_value(out);
    value_len
}

//! lru_crawler metadump mgdump, stats cachedump sizes conns: what lists many things, a part at a time.

use std::collections::BTreeMap;

use tiercache_protocol::Reject;
use tiercache_protocol::encode::{self, Statistics};
use tiercache_protocol::request::Form;

use super::meta::is_printable;
use super::{Executor, Flow, For, OUT_BYTES_SOFT_MAX, Progress, Wait};
use crate::clients::Client;
use crate::entry::Marks;
use crate::escape::percent_encode;
use crate::tier::DumpRow;

/// Slab classes that can be named, as in memcached; the tiers are the first three.
const CLASSES_MAX: u32 = 64;

/// Most items of one `stats cachedump`.
const CACHEDUMP_ITEMS_MAX: usize = 10_000;

/// Connections of `stats conns` that are looked at in one go.
const CONNECTIONS_AT_ONCE: usize = 1000;

/// How far a listing has come.
#[derive(Debug, Default)]
pub(super) struct Listing {
    begun: bool,
    parts_done: usize,
    rows_done: usize,
    /// What was read of the last part.
    pub(super) rows: Vec<DumpRow>,
    pub(super) sizes: Option<BTreeMap<u64, u64>>,
    next_socket: i32,
}

/// A set of slab classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Classes(u64);

impl Classes {
    /// `all`, `hash`, or numbers separated by commas.
    pub(super) fn parse(text: &[u8]) -> Option<Classes> {
        if matches!(text, b"all" | b"hash") {
            return Some(Classes(u64::MAX));
        }
        let mut classes = 0;
        for number in text
            .split(|byte| *byte == b',')
            .filter(|text| !text.is_empty())
        {
            let number: u32 = std::str::from_utf8(number).ok()?.parse().ok()?;
            if !(1..CLASSES_MAX).contains(&number) {
                return None;
            }
            classes |= 1 << number;
        }
        Some(Classes(classes))
    }

    fn has(self, row: &DumpRow) -> bool {
        self.0 & (1 << row.tier.class()) != 0
    }
}

/// How a listing writes its items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `key=… exp=… la=… cas=… fetch=… cls=… size=… flags=…`
    Meta,
    /// `mg key`, ready to be sent back.
    Get,
    /// `ITEM key [bytes b; exptime s]`
    Cache,
}

impl Shape {
    /// Whether the form has a spelling for the row's key.
    fn can_spell(self, row: &DumpRow) -> bool {
        self != Shape::Cache || !needs_base64(row)
    }
}

/// Whether the row's key came in base64, or in a packet with bytes that would end it, or the line.
fn needs_base64(row: &DumpRow) -> bool {
    row.facts.marks.has(Marks::KEY_BASE64) || !is_printable(&row.key)
}

impl Executor {
    pub(super) fn dump(
        &mut self,
        shape: Shape,
        classes: &[u8],
        progress: &mut Progress,
        out: &mut Vec<u8>,
    ) -> Flow {
        if !self.shared.settings.dump_enabled {
            out.extend_from_slice(match shape {
                Shape::Get => &b"ERROR key dump not allowed\r\n"[..],
                _ => b"ERROR metadump not allowed\r\n",
            });
            return Flow::Done;
        }
        let Some(classes) = Classes::parse(classes) else {
            out.extend_from_slice(b"BADCLASS invalid class id\r\n");
            return Flow::Done;
        };
        if !std::mem::replace(&mut progress.listing().begun, true) {
            encode::ok(out, &Form::TEXT);
        }
        self.list(shape, classes, usize::MAX, progress, out)
    }

    /// `stats cachedump CLASS LIMIT`: items of a tier (hot is class 1, cold 2, dry 3).
    pub(super) fn cachedump(
        &mut self,
        arguments: &[u8],
        progress: &mut Progress,
        out: &mut Vec<u8>,
    ) -> Flow {
        if !self.shared.settings.dump_enabled {
            out.extend_from_slice(b"CLIENT_ERROR stats cachedump not allowed\r\n");
            return Flow::Done;
        }
        let mut words = arguments
            .split(|byte| *byte == b' ')
            .filter(|word| !word.is_empty());
        let (Some(class), Some(limit)) = (words.nth(1), words.next()) else {
            out.extend_from_slice(b"CLIENT_ERROR bad command line\r\n");
            return Flow::Done;
        };
        let number = |word: &[u8]| std::str::from_utf8(word).ok()?.parse::<u32>().ok();
        let (Some(class), Some(limit)) = (number(class), number(limit)) else {
            return Self::refuse(out, Reject::BadFormat);
        };
        if class >= CLASSES_MAX {
            out.extend_from_slice(b"CLIENT_ERROR Illegal slab id\r\n");
            return Flow::Done;
        }
        let most = match limit as usize {
            0 => CACHEDUMP_ITEMS_MAX,
            limit => limit.min(CACHEDUMP_ITEMS_MAX),
        };
        self.list(Shape::Cache, Classes(1 << class), most, progress, out)
    }

    /// Lists items of some tiers until there are enough, a part of the cache at a time.
    fn list(
        &mut self,
        shape: Shape,
        classes: Classes,
        most: usize,
        progress: &mut Progress,
        out: &mut Vec<u8>,
    ) -> Flow {
        let cache = &self.shared.cache;
        let listing = progress.listing();
        let mut rows = std::mem::take(&mut listing.rows);
        loop {
            let left = most - listing.rows_done;
            let wanted = |row: &DumpRow| classes.has(row) && shape.can_spell(row);
            for row in rows.drain(..).filter(wanted).take(left) {
                write_row(out, shape, &row);
                listing.rows_done += 1;
            }
            if listing.parts_done >= cache.dump_parts() || listing.rows_done >= most {
                break;
            }
            if out.len() > OUT_BYTES_SOFT_MAX {
                return Flow::Flush;
            }
            let mut below = cache.dump_part(listing.parts_done, &mut rows);
            listing.parts_done += 1;
            if classes.0 & (1 << crate::tier::Tier::Dry.class()) != 0 {
                below.truncate(most - listing.rows_done);
                if !below.is_empty() {
                    listing.rows = rows;
                    return Flow::Wait(Wait(For::Keys(below)));
                }
            }
        }
        match shape {
            Shape::Get => out.extend_from_slice(b"EN\r\n"),
            Shape::Meta | Shape::Cache => encode::end(out),
        }
        Flow::Done
    }

    /// How many items there are of each size, in steps of 32 bytes, if that is switched on.
    pub(super) fn sizes(
        &self,
        form: &Form<'_>,
        progress: &mut Progress,
        out: &mut Vec<u8>,
    ) -> Flow {
        let mut rows = Statistics::new(out, form);
        if !self.shared.settings.sizes_enabled {
            rows.row(b"sizes_status", b"disabled");
        } else if let Some(sizes) = progress.listing().sizes.take() {
            for (size, count) in sizes {
                rows.number(size.to_string().as_bytes(), count);
            }
        } else {
            return Flow::Wait(Wait(For::Sizes));
        }
        rows.end();
        Flow::Done
    }

    /// `stats conns`: who is connected, by number of the socket.
    pub(super) fn connections(
        &self,
        form: &Form<'_>,
        progress: &mut Progress,
        out: &mut Vec<u8>,
    ) -> Flow {
        let clients = &self.shared.clients;
        let next = &mut progress.listing().next_socket;
        loop {
            let mut rows = Statistics::new(out, form);
            let some = clients.from(*next, CONNECTIONS_AT_ONCE);
            let Some(last) = some.last() else {
                rows.end();
                return Flow::Done;
            };
            *next = last.fd + 1;
            for client in &some {
                write_connection(&mut rows, client, clients.second());
            }
            if out.len() > OUT_BYTES_SOFT_MAX {
                return Flow::Flush;
            }
        }
    }
}

fn write_connection(rows: &mut Statistics<'_>, client: &Client, second: u32) {
    let mut stat = |name: &str, value: &str| {
        let name = format!("{}:{name}", client.fd);
        rows.row(name.as_bytes(), value.as_bytes());
    };
    stat("addr", &client.peer.to_string());
    if let Some(local) = &client.local {
        stat("listen_addr", &local.to_string());
    }
    stat("state", client.doing().name());
    let idle = second.saturating_sub(client.progress_second());
    stat("secs_since_last_cmd", &idle.to_string());
}

fn write_row(out: &mut Vec<u8>, shape: Shape, row: &DumpRow) {
    let facts = &row.facts;
    match shape {
        Shape::Get => {
            return encode::meta_get_line(out, &row.key, needs_base64(row));
        }
        Shape::Cache => {
            out.extend_from_slice(b"ITEM ");
            out.extend_from_slice(&row.key);
            out.extend_from_slice(b" [");
            encode::number(out, row.value_bytes);
            out.extend_from_slice(b" b; ");
            encode::number(out, u64::from(facts.exptime));
            return out.extend_from_slice(b" s]\r\n");
        }
        Shape::Meta => {}
    }
    out.extend_from_slice(b"key=");
    percent_encode(out, &row.key);
    out.extend_from_slice(b" exp=");
    match facts.exptime {
        0 => out.extend_from_slice(b"-1"),
        exptime => encode::number(out, u64::from(exptime)),
    }
    out.extend_from_slice(b" la=");
    encode::number(out, u64::from(facts.last_access));
    out.extend_from_slice(b" cas=");
    encode::number(out, facts.cas());
    let fetched = facts.marks.has(Marks::FETCHED);
    out.extend_from_slice(if fetched { b" fetch=yes" } else { b" fetch=no" });
    out.extend_from_slice(b" cls=");
    encode::number(out, u64::from(row.tier.class()));
    out.extend_from_slice(b" size=");
    encode::number(out, row.bytes);
    out.extend_from_slice(b" flags=");
    encode::number(out, u64::from(facts.flags));
    // The blank at the end is memcached's.
    out.extend_from_slice(b" \n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_read_as_memcached_reads_them() {
        assert_eq!(Classes::parse(b"all"), Some(Classes(u64::MAX)));
        assert_eq!(Classes::parse(b"1,3"), Some(Classes(0b1010)));
        for wrong in [&b"0"[..], b"64", b"x", b"1,x"] {
            assert_eq!(Classes::parse(wrong), None, "{wrong:?}");
        }
    }
}

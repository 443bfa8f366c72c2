//! `stats upstream`: what each server of the pools was asked, and how it is.

use std::sync::atomic::Ordering::Relaxed;

use tiercache_protocol::encode::Statistics;

use super::Proxy;
use crate::upstream::{Dialect, LATENCY_US, Server};

impl Proxy {
    pub(in super::super) fn stats(&self, rows: &mut Statistics<'_>) {
        let members = self.members.borrow();
        let servers = members.servers();
        for (at, server) in servers.iter().enumerate() {
            // One that is spoken to in another way since a reload has the figures since then.
            let place = &server.address.place;
            if servers[..at]
                .iter()
                .all(|other| other.address.place != *place)
            {
                server_stats(server, rows);
            }
        }
    }
}

/// The rows of one server, as `HOST:PORT:name`.
fn server_stats(server: &Server, rows: &mut Statistics<'_>) {
    let place = server.address.place.to_string();
    let name = |name: &str| format!("{place}:{name}").into_bytes();
    let state = match (server.is_ejected(), server.undelivered()) {
        (true, _) => "ejected",
        (false, 0) => "up",
        (false, _) => "up, with deletes to deliver",
    };
    rows.row(&name("state"), state.as_bytes());
    let shown = server.shown();
    let understands = match shown.dialect {
        None => "nothing yet",
        Some(Dialect::Meta) => "meta",
        Some(Dialect::MetaCompare) => "meta, compare",
    };
    rows.row(&name("version"), shown.version.as_bytes());
    rows.row(&name("understands"), understands.as_bytes());
    rows.row(
        &name("last_error"),
        shown.last_error.unwrap_or_default().as_bytes(),
    );
    let stats = &server.stats;
    for (figure, number) in [
        ("requests", &stats.requests),
        ("errors", &stats.errors),
        ("timeouts", &stats.timeouts),
        ("refused", &stats.refused),
        ("garbled", &stats.garbled),
        ("too_large", &stats.too_large),
        ("connects", &stats.connects),
        ("ejections", &stats.ejections),
    ] {
        rows.number(&name(figure), number.load(Relaxed));
    }
    rows.number(&name("undelivered"), server.undelivered() as u64);
    for (row, count) in stats.latency.iter().enumerate() {
        let bound = match LATENCY_US.get(row) {
            Some(us) => format!("latency_us_{us}"),
            None => "latency_us_more".to_owned(),
        };
        rows.number(&name(&bound), count.load(Relaxed));
    }
}

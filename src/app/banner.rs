//! What the start shows: where clients are heard, where each tier lives, what was taken.

use std::fmt::Write;

use super::Parts;
use crate::config::{Config, MEMCACHED_VERSION};
use crate::dry::{DryConfig, Start};
use crate::server::Place;
use crate::units::ByteSize;
use crate::upstream::UpstreamConfig;

/// Prints the banner on standard error.
pub(super) fn print(config: &Config, places: &[Place], parts: &Parts, notices: &[String]) {
    let start = parts.dry.as_ref().map(|dry| dry.start());
    eprint!("{}", text(config, places, start, parts.recovered.items));
    for notice in notices {
        eprintln!("  notice    {notice}");
    }
}

fn text(config: &Config, places: &[Place], start: Option<&Start>, items: u64) -> String {
    let Config {
        server,
        tier,
        dry,
        tracking,
        upstream,
        ..
    } = config;
    let mut out = String::new();
    let places: Vec<_> = places.iter().map(ToString::to_string).collect();
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "tiercache {} speaks memcached {MEMCACHED_VERSION}",
        env!("CARGO_PKG_VERSION")
    );
    let _ = writeln!(
        out,
        "  listening {} ({} workers, {} connections)",
        places.join(", "),
        server.threads,
        server.max_connections
    );
    let (hot, cold) = match upstream {
        None => (
            format!(
                "ram, {}, {} without a hit",
                shown(tier.hot_size),
                tier.hot_ttl
            ),
            format!(
                "ram, {}, {} without a hit",
                shown(tier.cold_size),
                tier.cold_ttl
            ),
        ),
        Some(upstream) if upstream.copies => (
            format!(
                "copies of cold's items in ram, {}",
                shown(tier.memory_limit())
            ),
            format!("{}, sharing {}", servers(upstream), upstream.sharing),
        ),
        Some(upstream) => (servers(upstream), "none".to_owned()),
    };
    let _ = writeln!(out, "  hot       {hot}");
    let _ = writeln!(out, "  cold      {cold}");
    if upstream.is_some() {
        return out;
    }
    let _ = match dry {
        None => writeln!(
            out,
            "  dry       off: what leaves RAM is lost (--dry DIR keeps it)"
        ),
        Some(dry) => writeln!(
            out,
            "  dry       {}, {}, {} without a hit; {}",
            place(dry),
            shown(dry.size),
            dry.ttl,
            found(start, items)
        ),
    };
    if let Some(dry) = dry {
        let _ = writeln!(
            out,
            "  tracking  {} in {}",
            tracking.backend,
            tracking.folder(&dry.folder).display()
        );
        let index = shown(tier.dry_index);
        let queue = shown(ByteSize(dry.queue_bytes as u64));
        let _ = writeln!(
            out,
            "  beside    at most {index} of RAM for the index of dry, {queue} for its queue"
        );
    }
    out
}

fn place(dry: &DryConfig) -> String {
    let folder = dry.folder.display();
    match &dry.remote {
        Some(remote) => format!("{remote}, spool in {folder}"),
        None => folder.to_string(),
    }
}

fn servers(upstream: &UpstreamConfig) -> String {
    let servers = upstream.pools.iter().flat_map(|pool| &pool.servers);
    let names: Vec<String> = servers.map(ToString::to_string).collect();
    format!("memcached://{}", names.join(","))
}

/// What the dry tier found.
fn found(start: Option<&Start>, items: u64) -> String {
    match start {
        None | Some(Start::New) => "new".to_owned(),
        Some(Start::Clean) => format!("warm after a clean stop, {items} items"),
        Some(Start::Recovered) => format!("recovered after a crash, {items} items"),
        Some(Start::Adopted) => format!("warm, taken over from the remote store, {items} items"),
        Some(Start::SetAside(reason)) => format!("begun empty: {reason}"),
    }
}

/// A size for people: rounded to three digits.
fn shown(size: ByteSize) -> String {
    for (bytes, unit) in [
        (1u64 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ] {
        if size.0 >= bytes {
            let count = size.0 as f64 / bytes as f64;
            let decimals = usize::from(count < 100.0 && !size.0.is_multiple_of(bytes));
            return format!("{count:.decimals$} {unit}");
        }
    }
    format!("{} bytes", size.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_rounded() {
        assert_eq!(shown(ByteSize::gib(2)), "2 GiB");
        assert_eq!(shown(ByteSize(11_184_810)), "10.7 MiB");
        assert_eq!(shown(ByteSize(5)), "5 bytes");
    }
}

//! version verbosity stats shutdown cache_memlimit lru_crawler and their like.

use std::sync::atomic::Ordering::Relaxed;

use tiercache_protocol::request::{Admin, Shutdown};
use tiercache_protocol::{Reject, encode};

use super::settings::{MEMCACHED_VERSION, Stop};
use super::{Executor, Flow, For, OUT_BYTES_SOFT_MAX, Progress, Wait};
use crate::entry::Marks;
use crate::escape::percent_encode;
use crate::tier::DumpRow;

/// Smallest and largest limit that `cache_memlimit` takes, in MiB, as in memcached.
const MEMORY_LIMIT_MIB: std::ops::RangeInclusive<u32> = 8..=1_000_000_000;

impl Executor {
    pub(super) fn admin(
        &mut self,
        admin: &Admin<'_>,
        progress: &mut Progress,
        out: &mut Vec<u8>,
    ) -> Flow {
        match admin {
            Admin::Version { form } => encode::version(out, form, MEMCACHED_VERSION),
            Admin::Verbosity { level, form } => {
                self.shared.control.verbosity.store(*level, Relaxed);
                encode::ok(out, form);
            }
            Admin::Stats { arguments, form } => self.stats(arguments, form, out),
            Admin::Shutdown(how) => return self.shutdown(*how, out),
            Admin::MemoryLimit { megabytes, noreply } => {
                let reply = self.set_memory_limit(*megabytes);
                if !noreply {
                    out.extend_from_slice(reply);
                }
            }
            Admin::LruCrawler(arguments) => return self.lru_crawler(arguments, progress, out),
            Admin::Lru(_) | Admin::Slabs(_) => {
                if !admin.noreply() {
                    encode::reject(out, Reject::Unknown);
                }
            }
            Admin::Watch(arguments) => return self.watch(arguments, out),
            Admin::RefreshCerts => out.extend_from_slice(b"ERROR\r\n"),
        }
        Flow::Done
    }

    fn shutdown(&mut self, how: Shutdown, out: &mut Vec<u8>) -> Flow {
        if !self.shared.settings.shutdown_enabled {
            out.extend_from_slice(b"SERVER_ERROR: shutdown not enabled\r\n");
            return Flow::Done;
        }
        let how = match how {
            Shutdown::Now => Stop::Now,
            Shutdown::Graceful => Stop::Graceful,
            Shutdown::Unknown => return Self::refuse(out, Reject::InvalidShutdownMode),
        };
        self.shared.control.request_stop(how);
        Flow::Close
    }

    fn set_memory_limit(&self, megabytes: u32) -> &'static [u8] {
        if megabytes < *MEMORY_LIMIT_MIB.start() {
            return b"MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n";
        }
        if megabytes > *MEMORY_LIMIT_MIB.end() {
            return b"MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes\r\n";
        }
        let bytes = megabytes as usize * (1 << 20);
        if self.shared.cache.set_memory_limit(bytes) {
            b"OK\r\n"
        } else {
            b"MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust\r\n"
        }
    }

    fn lru_crawler(
        &mut self,
        arguments: &[u8],
        progress: &mut Progress,
        out: &mut Vec<u8>,
    ) -> Flow {
        let words: Vec<&[u8]> = arguments
            .split(|byte| *byte == b' ')
            .filter(|word| !word.is_empty())
            .collect();
        match words.as_slice() {
            [b"metadump", b"all" | b"hash"] => self.metadump(progress, out),
            // memcached-tool and others switch the crawler on before they list.
            [b"enable" | b"disable", rest @ ..] => {
                if rest != [b"noreply"] {
                    out.extend_from_slice(b"OK\r\n");
                }
                Flow::Done
            }
            _ => Self::refuse(out, Reject::Unknown),
        }
    }

    /// Lists all items, a part of the cache at a time.
    fn metadump(&mut self, progress: &mut Progress, out: &mut Vec<u8>) -> Flow {
        if !self.shared.settings.dump_enabled {
            out.extend_from_slice(b"ERROR metadump not allowed\r\n");
            return Flow::Done;
        }
        let cache = &self.shared.cache;
        let listing = &mut progress.listing;
        if !std::mem::replace(&mut listing.begun, true) {
            out.extend_from_slice(b"OK\r\n");
        }
        for row in listing.rows.take().into_iter().flatten() {
            write_row(out, &row);
        }
        let mut rows = Vec::new();
        while listing.parts_done < cache.dump_parts() {
            if out.len() > OUT_BYTES_SOFT_MAX {
                return Flow::Flush;
            }
            let below = cache.dump_part(listing.parts_done, &mut rows);
            listing.parts_done += 1;
            for row in rows.drain(..) {
                write_row(out, &row);
            }
            if !below.is_empty() {
                return Flow::Wait(Wait(For::Keys(below)));
            }
        }
        encode::end(out);
        Flow::Done
    }
}

/// `key=… exp=… la=… cas=… fetch=yes cls=… size=…\n`
fn write_row(out: &mut Vec<u8>, row: &DumpRow) {
    out.extend_from_slice(b"key=");
    percent_encode(out, &row.key);
    out.extend_from_slice(b" exp=");
    match row.facts.exptime {
        0 => out.extend_from_slice(b"-1"),
        exptime => encode::number(out, u64::from(exptime)),
    }
    out.extend_from_slice(b" la=");
    encode::number(out, u64::from(row.facts.last_access));
    out.extend_from_slice(b" cas=");
    encode::number(out, row.facts.cas());
    let fetched = row.facts.marks.has(Marks::FETCHED);
    out.extend_from_slice(if fetched { b" fetch=yes" } else { b" fetch=no" });
    out.extend_from_slice(b" cls=");
    encode::number(out, u64::from(row.tier.class()));
    out.extend_from_slice(b" size=");
    encode::number(out, row.bytes);
    out.push(b'\n');
}

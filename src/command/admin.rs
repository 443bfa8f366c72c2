//! version verbosity stats shutdown cache_memlimit lru_crawler and their like.

use std::sync::Arc;

use tiercache_protocol::request::{Admin, Form, Shutdown};
use tiercache_protocol::{Reject, encode};

use super::listing::{Classes, Shape};
use super::settings::{MEMCACHED_VERSION, Stop};
use super::{COMMANDS_LOGGED_FROM, Executor, Flow, For, Progress, Wait};
use crate::watch::Kinds;

/// Smallest and largest limit that `cache_memlimit` takes, in MiB, as in memcached.
const MEMORY_LIMIT_MIB: std::ops::RangeInclusive<u32> = 8..=1_000_000_000;

/// Longest sleep of memcached's crawler, in microseconds.
const CRAWLER_SLEEP_US_MAX: u32 = 1_000_000;

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
                self.shared
                    .watch
                    .switch(Kinds::LOGGED_COMMANDS, *level >= COMMANDS_LOGGED_FROM);
                self.shared.control.set_verbosity(*level);
                encode::ok(out, form);
            }
            Admin::Stats { arguments, form } => {
                return self.stats(arguments, form, progress, out);
            }
            Admin::Shutdown(how) => return self.shutdown(*how, out),
            Admin::MemoryLimit { megabytes, noreply } => {
                let reply = self.set_memory_limit(*megabytes);
                if !noreply {
                    out.extend_from_slice(reply);
                }
            }
            Admin::LruCrawler(arguments) => return self.lru_crawler(arguments, progress, out),
            Admin::Lru(arguments) | Admin::Slabs(arguments) => tune(admin, arguments, out),
            Admin::Watch(arguments) => return self.watch(arguments, out),
            Admin::RefreshCerts => return self.refresh_certs(progress, out),
        }
        Flow::Done
    }

    /// Reads the certificates again; connections that are open go on.
    fn refresh_certs(&self, progress: &mut Progress, out: &mut Vec<u8>) -> Flow {
        let Some(tls) = &self.shared.tls else {
            return Self::refuse(out, Reject::Unknown);
        };
        match progress.reloaded.take().map(|reloaded| *reloaded) {
            None => return Flow::Wait(Wait(For::Certificates(Arc::clone(tls)))),
            Some(Ok(())) => out.extend_from_slice(b"OK\r\n"),
            Some(Err(error)) => {
                tracing::error!(%error, "refresh_certs: the certificates stay as they were");
                out.extend_from_slice(error.sentence().as_bytes());
                out.extend_from_slice(b"\r\n");
            }
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
            .filter(|word| !word.is_empty() && *word != b"noreply")
            .collect();
        let number = |word: &[u8]| std::str::from_utf8(word).ok()?.parse::<u32>().ok();
        let answer: &[u8] = match words.as_slice() {
            [b"metadump", classes] => return self.dump(Shape::Meta, classes, progress, out),
            [b"mgdump", classes] => return self.dump(Shape::Get, classes, progress, out),
            [b"crawl", classes] if Classes::parse(classes).is_none() => {
                b"BADCLASS invalid class id\r\n"
            }
            [b"crawl", _] => {
                self.shared.cache.expire_soon();
                b"OK\r\n"
            }
            [b"enable" | b"disable"] => b"OK\r\n",
            [b"sleep" | b"tocrawl", text] if number(text).is_none() => {
                return Self::refuse(out, Reject::BadFormat);
            }
            [b"sleep", text] if number(text) > Some(CRAWLER_SLEEP_US_MAX) => {
                b"CLIENT_ERROR sleep must be one second or less\r\n"
            }
            [b"sleep" | b"tocrawl", _] => b"OK\r\n",
            _ => return Self::refuse(out, Reject::Unknown),
        };
        if !Admin::LruCrawler(arguments).noreply() {
            out.extend_from_slice(answer);
        }
        Flow::Done
    }
}

/// There are no slabs and no LRU lists to tune: only what is so anyway is agreed to.
fn tune(admin: &Admin<'_>, arguments: &[u8], out: &mut Vec<u8>) {
    if admin.noreply() {
        return;
    }
    let words: Vec<&[u8]> = arguments
        .split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty())
        .collect();
    match (admin, words.as_slice()) {
        (Admin::Slabs(_), [b"automove", b"0"]) | (Admin::Lru(_), [b"mode", b"flat"]) => {
            encode::ok(out, &Form::TEXT);
        }
        (Admin::Slabs(_), [b"reassign", _, _] | [b"automove", _, ..]) => {
            out.extend_from_slice(b"CLIENT_ERROR slab reassignment disabled\r\n");
        }
        _ => encode::reject(out, Reject::Unknown),
    }
}

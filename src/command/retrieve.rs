//! get gets gat gats touch, as lines and as packets: reading items.

use std::iter;

use tiercache_protocol::encode::{self, TouchReply};
use tiercache_protocol::exptime::Exptime;
use tiercache_protocol::request::{Get, GetOne, Touch};

use super::value::{write_packet, write_value};
use super::watch::Met;
use super::{Executor, Flow, OUT_BYTES_SOFT_MAX, Progress, Wait};
use crate::metrics::Counters;
use crate::tier::{
    Ahead, Attempt, Change, Current, Decision, KeyHash, Lookup, Outcome, Tier, View,
};

/// Whether a read answered a hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Yes,
    No,
}

/// Keys of a multi-get whose fetches are under way at once.
const PREFETCH_KEYS_MAX: usize = 128;

impl Executor {
    pub(super) fn get(
        &mut self,
        get: &Get<'_>,
        progress: &mut Progress,
        out: &mut Vec<u8>,
    ) -> Flow {
        let mut keys = get.keys.clone();
        if progress.keys_done > 0 {
            keys.nth(progress.keys_done - 1);
        }
        if let Some(first) = keys.next() {
            if keys.is_empty() {
                let hash = self.shared.cache.hash(first);
                if let Err(wait) = self.get_key(get, first, hash, &mut progress.attempt, out) {
                    return Flow::Wait(wait);
                }
            } else {
                let flow = self.get_keys(get, iter::once(first).chain(keys), progress, out);
                if !matches!(flow, Flow::Done) {
                    return flow;
                }
            }
        }
        if get.last {
            encode::end(out);
        }
        Flow::Done
    }

    fn get_keys<'k>(
        &mut self,
        get: &Get<'_>,
        keys: impl Iterator<Item = &'k [u8]>,
        progress: &mut Progress,
        out: &mut Vec<u8>,
    ) -> Flow {
        let mut ahead = Ahead::new(keys);
        while let Some((key, near)) = ahead.next(&self.shared.cache) {
            if out.len() > OUT_BYTES_SOFT_MAX {
                return Flow::Flush;
            }
            if let Err(wait) = self.get_key(get, key, near.hash, &mut progress.attempt, out) {
                for later in ahead.rest().take(PREFETCH_KEYS_MAX) {
                    self.shared.cache.prefetch(&mut self.local, later);
                }
                return Flow::Wait(wait);
            }
            progress.attempt = Attempt::default();
            progress.keys_done += 1;
        }
        Flow::Done
    }

    #[inline]
    fn get_key(
        &mut self,
        get: &Get<'_>,
        key: &[u8],
        hash: KeyHash,
        attempt: &mut Attempt,
        out: &mut Vec<u8>,
    ) -> Result<Found, Wait> {
        let cas_enabled = self.shared.settings.cas_enabled;
        let write = |out: &mut Vec<u8>, view: &View<'_>| {
            write_value(out, key, view, get.with_cas, cas_enabled)
        };
        self.read(key, hash, get.touch, attempt, out, write)
    }

    /// The one key of a packet.
    #[inline]
    pub(super) fn get_one(
        &mut self,
        get: &GetOne<'_>,
        progress: &mut Progress,
        out: &mut Vec<u8>,
    ) -> Flow {
        let (key, form) = (get.key, get.form);
        let cas_enabled = self.shared.settings.cas_enabled;
        let write =
            |out: &mut Vec<u8>, view: &View<'_>| write_packet(out, form, key, view, cas_enabled);
        let hash = self.shared.cache.hash(key);
        match self.read(key, hash, get.touch, &mut progress.attempt, out, write) {
            Ok(Found::Yes) => {}
            Ok(Found::No) => encode::binary_miss(out, form, key),
            Err(wait) => return Flow::Wait(wait),
        }
        Flow::Done
    }

    /// Reads a key, and gives it a new exptime if there is one to give. `write` answers a hit.
    #[inline]
    fn read(
        &mut self,
        key: &[u8],
        hash: KeyHash,
        touch: Option<Exptime>,
        attempt: &mut Attempt,
        out: &mut Vec<u8>,
        write: impl Fn(&mut Vec<u8>, &View<'_>) -> usize,
    ) -> Result<Found, Wait> {
        if let Some(exptime) = touch {
            return self.read_and_touch(key, exptime, attempt, out, write);
        }
        let outcome = self
            .shared
            .cache
            .read_hashed(&mut self.local, attempt, key, hash, |view| {
                let bytes = write(out, &view);
                let tier = view.tier();
                Some(Met { tier, bytes })
            });
        match outcome {
            Outcome::Done { result, .. } => Ok(self.count_get(key, found(result))),
            Outcome::Blocked(blocked) => Err(blocked.into()),
            Outcome::NoMemory => Ok(Found::No),
        }
    }

    fn read_and_touch(
        &mut self,
        key: &[u8],
        exptime: Exptime,
        attempt: &mut Attempt,
        out: &mut Vec<u8>,
        write: impl Fn(&mut Vec<u8>, &View<'_>) -> usize,
    ) -> Result<Found, Wait> {
        let exptime = exptime.resolve(self.now);
        let start = out.len();
        let outcome =
            self.shared.cache.update(
                &mut self.local,
                attempt,
                key,
                None,
                |current| match current {
                    Current::Absent => Decision::Keep(None),
                    Current::Below => Decision::Fetch,
                    Current::Present(view) => {
                        out.truncate(start);
                        write(out, &view);
                        let change = Change {
                            exptime: Some(exptime),
                            marks: None,
                            access: true,
                        };
                        Decision::Change(Some(Met::new(&view)), change)
                    }
                },
            );
        let counters = &self.local.counters;
        match outcome {
            Outcome::Done { result, .. } => {
                count_touch(counters, result.is_some());
                Ok(self.count_get(key, result))
            }
            Outcome::Blocked(blocked) => {
                out.truncate(start);
                Err(blocked.into())
            }
            Outcome::NoMemory => Ok(Found::No),
        }
    }

    #[inline]
    pub(super) fn count_get(&self, key: &[u8], found: Option<Met>) -> Found {
        let counters = &self.local.counters;
        counters.cmd_get.bump();
        match found {
            None => counters.get_misses.bump(),
            Some(met) => {
                counters.get_hits.bump();
                match met.tier {
                    Tier::Hot => counters.hot_hits.bump(),
                    Tier::Cold => counters.cold_hits.bump(),
                    Tier::Dry => counters.dry_hits.bump(),
                }
            }
        }
        self.tell_get(key, found);
        match found {
            Some(_) => Found::Yes,
            None => Found::No,
        }
    }

    pub(super) fn touch(
        &mut self,
        touch: &Touch<'_>,
        progress: &mut Progress,
        out: &mut Vec<u8>,
    ) -> Flow {
        let exptime = touch.exptime.resolve(self.now);
        let cas_enabled = self.shared.settings.cas_enabled;
        let cache = &self.shared.cache;
        let outcome = cache.update(
            &mut self.local,
            &mut progress.attempt,
            touch.key,
            None,
            |current| match current {
                Current::Absent => Decision::Keep(TouchReply::NotFound),
                Current::Below => Decision::Fetch,
                Current::Present(view) => {
                    let change = Change {
                        exptime: Some(exptime),
                        marks: None,
                        access: true,
                    };
                    let cas = if cas_enabled { view.facts().cas() } else { 0 };
                    let flags = view.flags();
                    Decision::Change(TouchReply::Touched { flags, cas }, change)
                }
            },
        );
        let counters = &self.local.counters;
        Self::finish(outcome, |done| {
            let reply = done.map_or(TouchReply::NotFound, |(reply, _)| reply);
            count_touch(counters, reply != TouchReply::NotFound);
            encode::touch(out, &touch.form, reply);
        })
    }
}

pub(super) fn count_touch(counters: &Counters, found: bool) {
    counters.cmd_touch.bump();
    if found {
        counters.touch_hits.bump();
    } else {
        counters.touch_misses.bump();
    }
}

/// The item that a read found.
#[inline]
pub(super) fn found(lookup: Lookup<Met>) -> Option<Met> {
    match lookup {
        Lookup::Hit(met) => Some(met),
        Lookup::Declined | Lookup::Miss => None,
    }
}

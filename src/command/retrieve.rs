//! get gets gat gats mg me touch, in every syntax: reading items.

use std::iter;

use tiercache_protocol::encode::{self, DebugFacts, ItemFacts, TouchReply};
use tiercache_protocol::exptime::Exptime;
use tiercache_protocol::request::{BinaryForm, Get, GetOne, Inspect, MetaForm, Retrieve, Touch};

use super::watch::Met;
use super::{Executor, Flow, OUT_BYTES_SOFT_MAX, Progress, Wait, is_plain};
use crate::entry::{Facts, Marks};
use crate::memory::Tail;
use crate::metrics::Counters;
use crate::tier::{
    Ahead, Attempt, Change, Current, Decision, KeyHash, Lookup, NewItem, Outcome, Tier, Value, View,
};

/// Whether a read answered a hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
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

    pub(super) fn retrieve(
        &mut self,
        retrieve: &Retrieve<'_>,
        progress: &mut Progress,
        out: &mut Vec<u8>,
    ) -> Flow {
        let start = out.len();
        let (now, cas_enabled) = (self.now, self.shared.settings.cas_enabled);
        let outcome = if is_plain(retrieve) {
            let cache = &self.shared.cache;
            let outcome = cache.read(
                &mut self.local,
                &mut progress.attempt,
                retrieve.key,
                |view| {
                    let facts = view.facts();
                    if facts.marks.has(Marks::STALE) && !facts.marks.has(Marks::TOKEN_SENT) {
                        // This access wins, which changes the item.
                        return None;
                    }
                    write_hit(
                        out,
                        retrieve,
                        &view,
                        &facts,
                        facts.exptime,
                        false,
                        now,
                        cas_enabled,
                    );
                    Some(Met::new(&view))
                },
            );
            match outcome {
                Outcome::Done {
                    result: Lookup::Declined,
                    ..
                } => self.retrieve_and_change(retrieve, progress, out),
                Outcome::Done { result, cas } => Outcome::Done {
                    result: found(result),
                    cas,
                },
                Outcome::Blocked(blocked) => Outcome::Blocked(blocked),
                Outcome::NoMemory => Outcome::NoMemory,
            }
        } else {
            self.retrieve_and_change(retrieve, progress, out)
        };
        let counters = &self.local.counters;
        let result = match outcome {
            Outcome::Done { result, .. } => result,
            Outcome::NoMemory => None,
            Outcome::Blocked(blocked) => {
                out.truncate(start);
                return Flow::Wait(blocked.into());
            }
        };
        counters.cmd_meta.bump();
        if retrieve.touch.is_some() {
            count_touch(counters, result.is_some());
        }
        self.count_get(retrieve.key, result);
        if result.is_none() {
            out.truncate(start);
            encode::meta_miss(out, &retrieve.form);
        }
        Flow::Done
    }

    /// An `mg` that touches, wins, creates or leaves recency alone.
    fn retrieve_and_change(
        &mut self,
        retrieve: &Retrieve<'_>,
        progress: &mut Progress,
        out: &mut Vec<u8>,
    ) -> Outcome<Option<Met>> {
        let start = out.len();
        let (now, cas_enabled) = (self.now, self.shared.settings.cas_enabled);
        let form = &retrieve.form;
        let vivify = retrieve.vivify.map(|exptime| exptime.resolve(now));
        let touch = retrieve.touch.map(|exptime| exptime.resolve(now));
        let recache = retrieve.recache.map(|exptime| exptime.resolve(now));
        // Creating counts as the first access.
        let fetched = if retrieve.no_bump {
            Marks::default()
        } else {
            Marks::FETCHED
        };
        let room = vivify.map(|_| 0);
        let outcome = self.shared.cache.update(
            &mut self.local,
            &mut progress.attempt,
            retrieve.key,
            room,
            |current| {
                out.truncate(start);
                match current {
                    Current::Below => Decision::Fetch,
                    Current::Absent => match vivify {
                        None => Decision::Keep(None),
                        Some(exptime) => {
                            let marks = created_mark(form).with(Marks::TOKEN_SENT).with(fetched);
                            // Flags stand in request order: the later of N and T is what stays.
                            let touched = touch.filter(|_| !form.stands_before(b'T', b'N'));
                            let value = Value::Bytes(&[]);
                            let exptime = touched.unwrap_or(exptime);
                            let own_cas = retrieve.new_cas;
                            Decision::Store(
                                Some(Met {
                                    tier: Tier::Hot,
                                    bytes: 0,
                                }),
                                NewItem {
                                    flags: 0,
                                    exptime,
                                    own_cas,
                                    marks,
                                    value,
                                },
                            )
                        }
                    },
                    Current::Present(view) => {
                        let facts = view.facts();
                        let judged = if form.stands_before(b'R', b'T') {
                            view.exptime()
                        } else {
                            touch.unwrap_or(view.exptime())
                        };
                        let sent = facts.marks.has(Marks::TOKEN_SENT);
                        let recached = recache.is_some_and(|at| judged != 0 && judged < at);
                        let won = !sent && (recached || facts.marks.has(Marks::STALE));
                        let told = if form.stands_before(b't', b'T') {
                            view.exptime()
                        } else {
                            touch.unwrap_or(view.exptime())
                        };
                        write_hit(out, retrieve, &view, &facts, told, won, now, cas_enabled);
                        let change = Change {
                            exptime: touch,
                            marks: won.then(|| facts.marks.with(Marks::TOKEN_SENT)),
                            access: !retrieve.no_bump,
                        };
                        Decision::Change(Some(Met::new(&view)), change)
                    }
                }
            },
        );
        if let Outcome::Done {
            result: Some(_),
            cas,
        } = &outcome
            && *cas != 0
        {
            // What `t` tells is what the last of N and T before it has set.
            let vivified = vivify.filter(|_| !form.stands_before(b't', b'N'));
            let touched = touch.filter(|_| {
                form.stands_before(b'T', b't')
                    && !(vivified.is_some() && form.stands_before(b'T', b'N'))
            });
            let facts = ItemFacts {
                cas: *cas,
                ttl: self.ttl(touched.or(vivified).unwrap_or(0)),
                key_base64: created_mark(form).has(Marks::KEY_BASE64),
                won: true,
                ..ItemFacts::default()
            };
            encode::meta_hit(out, form, &facts, retrieve.value);
            if retrieve.value {
                out.extend_from_slice(b"\r\n");
            }
        }
        outcome
    }

    #[inline]
    fn count_get(&self, key: &[u8], found: Option<Met>) -> Found {
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

    pub(super) fn inspect(
        &mut self,
        inspect: &Inspect<'_>,
        progress: &mut Progress,
        out: &mut Vec<u8>,
    ) -> Flow {
        let now = self.now;
        let cache = &self.shared.cache;
        let outcome = cache.update(
            &mut self.local,
            &mut progress.attempt,
            inspect.key,
            None,
            |current| match current {
                Current::Absent => Decision::Keep(None),
                Current::Below => Decision::Fetch,
                Current::Present(view) => {
                    let facts = view.facts();
                    Decision::Keep(Some(DebugFacts {
                        ttl: (facts.exptime != 0).then(|| facts.exptime.saturating_sub(now)),
                        since_access: now.saturating_sub(facts.last_access),
                        cas: facts.cas(),
                        fetched: facts.marks.has(Marks::FETCHED),
                        class: 1,
                        size: view.memory_bytes() as u64,
                        key_base64: facts.marks.has(Marks::KEY_BASE64)
                            || !is_printable(inspect.key),
                    }))
                }
            },
        );
        self.local.counters.cmd_meta.bump();
        Self::finish(outcome, |done| {
            encode::meta_debug(out, inspect.key, done.and_then(|(facts, _)| facts).as_ref());
        })
    }
}

fn count_touch(counters: &Counters, found: bool) {
    counters.cmd_touch.bump();
    if found {
        counters.touch_hits.bump();
    } else {
        counters.touch_misses.bump();
    }
}

/// The mark of an item whose key came in base64.
pub(super) fn key_mark(form: &MetaForm<'_>) -> Marks {
    if form.key_base64 {
        Marks::KEY_BASE64
    } else {
        Marks::default()
    }
}

/// Whether a line can carry a key as it is. Packets and base64 bring in others.
pub(super) fn is_printable(key: &[u8]) -> bool {
    key.iter().all(|byte| *byte > b' ' && *byte != 0x7f)
}

/// The mark of an item that `mg` creates. memcached forgets there that the key came in base64 and
/// answers it plain from then on; so do we where a plain key can be answered at all.
fn created_mark(form: &MetaForm<'_>) -> Marks {
    if needs_base64(form) {
        key_mark(form)
    } else {
        Marks::default()
    }
}

/// Whether the key came in base64 and no line could carry it otherwise. Its item may have been stored
/// by a packet, and not know.
fn needs_base64(form: &MetaForm<'_>) -> bool {
    form.key_base64 && !is_printable(form.key)
}

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

#[allow(clippy::too_many_arguments)] // What the answer of `mg` depends on.
pub(super) fn write_hit(
    out: &mut Vec<u8>,
    retrieve: &Retrieve<'_>,
    view: &View<'_>,
    facts: &Facts,
    exptime: u32,
    won: bool,
    now: u32,
    cas_enabled: bool,
) {
    let cas = if cas_enabled { facts.cas() } else { 0 };
    let told = ItemFacts {
        flags: facts.flags,
        cas,
        ttl: (exptime != 0).then(|| exptime.saturating_sub(now)),
        size: view.value_bytes() as u32,
        since_access: now.saturating_sub(facts.last_access),
        hit_before: facts.marks.has(Marks::FETCHED),
        key_base64: facts.marks.has(Marks::KEY_BASE64) || needs_base64(&retrieve.form),
        stale: facts.marks.has(Marks::STALE),
        won,
        token_sent: facts.marks.has(Marks::TOKEN_SENT),
    };
    let with_value = retrieve.value && retrieve.known_cas != Some(cas);
    encode::meta_hit(out, &retrieve.form, &told, with_value);
    if with_value {
        view.append_value(out);
        out.extend_from_slice(b"\r\n");
    }
}

/// The item that a read found.
#[inline]
fn found(lookup: Lookup<Met>) -> Option<Met> {
    match lookup {
        Lookup::Hit(met) => Some(met),
        Lookup::Declined | Lookup::Miss => None,
    }
}

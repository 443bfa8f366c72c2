//! mg me: reading items with the meta commands, and changing them on the way.

use tiercache_protocol::encode::{self, DebugFacts, ItemFacts};
use tiercache_protocol::request::{Inspect, MetaForm, Retrieve};

use super::retrieve::{count_touch, found};
use super::watch::Met;
use super::{Executor, Flow, Progress, is_plain};
use crate::entry::{Facts, Marks};
use crate::tier::{Change, Current, Decision, Lookup, NewItem, Outcome, Tier, Value, View};

impl Executor {
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

//! Stores, counting, touch and me over a pool, which decides them all.

use std::rc::Rc;

use tiercache_protocol::encode::{self, ArithmeticReply, StoreFacts, StoreReply, TouchReply};
use tiercache_protocol::encode_request;
use tiercache_protocol::reply::{ErrorKind, MetaFlags, MetaStatus, Reply};
use tiercache_protocol::request::{
    Arithmetic, Form, Inspect, Request, Retrieve, Store, StoreMode, Touch,
};

use super::super::detail::Event;
use super::answer::{AnswerAs, answer, behind, garbled, status};
use super::relay;
use super::stage::{Again, Before, Fate};
use super::{Place, Proxy, failed, form_for_pool};
use crate::tier::Copied;
use crate::upstream::{Outcome, Verdict, meta_form};

/// A stored value up to this size is kept until the pool has taken it, and then as a copy.
const COPIED_VALUE_BYTES_MAX: usize = 64 * 1024;

/// Whether the item remembers that its key came in base64, which a copy does not.
fn key_in_base64(form: &Form<'_>) -> bool {
    matches!(form, Form::Meta(form) if form.key_base64)
}

fn cas(outcome: &Outcome<'_>) -> Option<u64> {
    match outcome {
        Outcome::Reply(Reply::Meta(reply)) => reply.flags.cas(),
        _ => None,
    }
}

impl Proxy {
    pub(super) fn store(
        self: &Rc<Proxy>,
        store: &Store<'_>,
        before: Before,
        again: Option<Again>,
        place: Place,
    ) {
        let counters = &*self.counters;
        counters.cmd_set.bump();
        self.shared.count_prefix(store.key, Event::Set);
        let answer_as = AnswerAs::new(&store.form);
        if answer_as.is_meta() {
            counters.cmd_meta.bump();
        }
        let asks_for_old =
            store.compare.is_some() || !matches!(store.mode, StoreMode::Set | StoreMode::Add);
        if asks_for_old && self.server(store.key).missed_delete(store.key) {
            return behind(place, &answer_as);
        }
        let key: Box<[u8]> = store.key.into();
        // What the pool has then is known if it is what the client sent.
        let whole = matches!(
            store.mode,
            StoreMode::Set | StoreMode::Add | StoreMode::Replace
        ) && !store.invalidate
            && !key_in_base64(&store.form)
            && self.copies().is_some()
            && store.value.len() <= COPIED_VALUE_BYTES_MAX;
        let value: Option<Box<[u8]>> = whole.then(|| store.value.into());
        let (flags, exptime) = (store.flags, store.exptime.resolve(self.now()));
        let compares = store.compare.is_some();
        let depends = !compares && !matches!(store.mode, StoreMode::Set | StoreMode::Add);
        // What makes an item where there is none is an `add` then: with a CAS unique, some versions do not make it (1.6.18).
        let (mode, exptime_sent, vivify) = match (before, store.vivify) {
            (Before::Absent, Some(exptime)) if depends => (StoreMode::Add, exptime, None),
            _ => (store.mode, store.exptime, store.vivify),
        };
        let compare = match depends {
            true if mode == StoreMode::Add => None,
            true => before.cas(),
            false => store.compare,
        };
        let guard = self.begin_write(&key);
        let proxy = Rc::clone(self);
        let is_packet = matches!(store.form, Form::Binary(_));
        let wanted: &[u8] = if whole || is_packet { b"c" } else { b"" };
        self.link.request(
            &self.server(store.key),
            |out, opaque| {
                let form = match &store.form {
                    Form::Meta(asked) => form_for_pool(asked, opaque, wanted),
                    Form::Classic { .. } | Form::Binary(_) => meta_form(store.key, opaque, wanted),
                };
                let form = Form::Meta(form);
                // With a CAS unique that the client does not know of, it means nothing.
                let invalidate = store.invalidate && compares;
                let store = Store {
                    form,
                    mode,
                    exptime: exptime_sent,
                    vivify,
                    compare,
                    invalidate,
                    ..*store
                };
                encode_request(out, &Request::Store(store));
            },
            Box::new(move |outcome| {
                let fate = match mode {
                    StoreMode::Add => before.fate_of_add(status(&outcome)),
                    _ if compares => before.fate_of_compare(status(&outcome)),
                    _ => before.fate(status(&outcome), MetaStatus::NotStored),
                };
                if fate == Fate::Again
                    && let Some(again) = again
                {
                    return proxy.begin_again(again, &key, guard, place);
                }
                let altered = fate.alter(&outcome);
                let outcome = fate.settle(outcome, altered.as_ref());
                let status = status(&outcome);
                let stored = status == Some(MetaStatus::Done);
                let taken = match (&value, cas(&outcome)) {
                    (Some(value), Some(cas)) if stored => Some(Copied {
                        flags,
                        cas,
                        exptime,
                        value,
                    }),
                    _ => None,
                };
                let counters = &*proxy.counters;
                proxy.end_write(&key, guard, taken.as_ref(), &place);
                match status {
                    Some(MetaStatus::Done) => counters.total_items.bump(),
                    Some(MetaStatus::Exists) => counters.cas_badval.bump(),
                    Some(MetaStatus::NotFound) => counters.cas_misses.bump(),
                    _ => {}
                }
                if compares && stored {
                    counters.cas_hits.bump();
                }
                answer(place, &answer_as, &outcome, |out, form, reply| {
                    let reply_cas = reply.flags.cas().unwrap_or(0);
                    let status = match reply.status {
                        MetaStatus::Done => StoreReply::Stored,
                        MetaStatus::NotStored => StoreReply::NotStored,
                        MetaStatus::Exists => StoreReply::Exists,
                        MetaStatus::NotFound => StoreReply::NotFound,
                        _ => return false,
                    };
                    let facts = StoreFacts {
                        cas: reply_cas,
                        ..StoreFacts::default()
                    };
                    encode::store(out, form, facts, status);
                    true
                })
            }),
        );
    }

    pub(super) fn arithmetic(
        self: &Rc<Proxy>,
        request: &Arithmetic<'_>,
        again: Option<Again>,
        place: Place,
    ) {
        let counters = &*self.counters;
        let answer_as = AnswerAs::new(&request.form);
        if answer_as.is_meta() {
            counters.cmd_meta.bump();
        }
        if self.server(request.key).missed_delete(request.key) {
            return behind(place, &answer_as);
        }
        let decrement = request.decrement;
        let key: Box<[u8]> = request.key.into();
        let guard = self.begin_write(&key);
        let proxy = Rc::clone(self);
        self.link.request(
            &self.server(request.key),
            |out, opaque| {
                let form = match &request.form {
                    Form::Meta(asked) => form_for_pool(asked, opaque, b""),
                    Form::Classic { .. } => meta_form(request.key, opaque, b"v"),
                    Form::Binary(_) => meta_form(request.key, opaque, b"vc"),
                };
                let form = Form::Meta(form);
                encode_request(out, &Request::Arithmetic(Arithmetic { form, ..*request }));
            },
            Box::new(move |outcome| {
                let counters = &*proxy.counters;
                // No number is what a lease of another proxy is.
                if let Outcome::Reply(Reply::Error {
                    kind: ErrorKind::Client,
                    ..
                }) = outcome
                    && let Some(again) = again
                {
                    return proxy.begin_again(again, &key, guard, place);
                }
                proxy.end_write(&key, guard, None, &place);
                match (status(&outcome), decrement) {
                    (Some(MetaStatus::Value | MetaStatus::Done), false) => {
                        counters.incr_hits.bump();
                    }
                    (Some(MetaStatus::Value | MetaStatus::Done), true) => {
                        counters.decr_hits.bump();
                    }
                    (Some(MetaStatus::NotFound), false) => counters.incr_misses.bump(),
                    (Some(MetaStatus::NotFound), true) => counters.decr_misses.bump(),
                    (Some(MetaStatus::Exists), _) => counters.cas_badval.bump(),
                    _ => {}
                }
                answer(place, &answer_as, &outcome, |out, form, reply| {
                    let number = |value: &[u8]| std::str::from_utf8(value).ok()?.parse().ok();
                    let reply = match reply.status {
                        MetaStatus::Value => match reply.value.and_then(number) {
                            Some(value) => ArithmeticReply::Value {
                                value,
                                cas: reply.flags.cas().unwrap_or(0),
                                ttl: None,
                            },
                            None => return false,
                        },
                        MetaStatus::NotFound => ArithmeticReply::NotFound,
                        MetaStatus::NotStored => ArithmeticReply::NotStored,
                        MetaStatus::Exists => ArithmeticReply::Exists,
                        _ => return false,
                    };
                    encode::arithmetic(out, form, reply);
                    true
                })
            }),
        );
    }

    pub(super) fn touch(self: &Rc<Proxy>, touch: &Touch<'_>, before: Before, place: Place) {
        let counters = &*self.counters;
        counters.cmd_touch.bump();
        let answer_as = AnswerAs::new(&touch.form);
        if before == Before::Absent {
            counters.touch_misses.bump();
            let form = answer_as.form();
            return place.fill(|out| encode::touch(out, &form, TouchReply::NotFound));
        }
        if self.server(touch.key).missed_delete(touch.key) {
            return behind(place, &answer_as);
        }
        let key: Box<[u8]> = touch.key.into();
        let guard = self.begin_write(&key);
        let proxy = Rc::clone(self);
        // A key that cannot stand on a text line and an answer with flags and CAS unique need the meta
        // command, which counts as a fetch too.
        let is_packet = matches!(touch.form, Form::Binary(_));
        let needs_meta = is_packet || crate::upstream::needs_base64(touch.key);
        self.link.request(
            &self.server(touch.key),
            |out, opaque| {
                let request = if needs_meta {
                    Request::Retrieve(Retrieve {
                        key: touch.key,
                        value: false,
                        known_cas: None,
                        new_cas: None,
                        vivify: None,
                        recache: None,
                        touch: Some(touch.exptime),
                        no_bump: false,
                        form: meta_form(touch.key, opaque, if is_packet { b"fc" } else { b"" }),
                    })
                } else {
                    let form = Form::TEXT;
                    Request::Touch(Touch { form, ..*touch })
                };
                encode_request(out, &request);
            },
            Box::new(move |outcome| {
                let counters = &*proxy.counters;
                proxy.end_write(&key, guard, None, &place);
                let reply = match (&outcome, status(&outcome)) {
                    (Outcome::Reply(Reply::Touched), _) | (_, Some(MetaStatus::Done)) => {
                        let flags = match &outcome {
                            Outcome::Reply(Reply::Meta(reply)) => reply.flags,
                            _ => MetaFlags::default(),
                        };
                        Some(TouchReply::Touched {
                            flags: flags.client_flags().unwrap_or(0),
                            cas: flags.cas().unwrap_or(0),
                        })
                    }
                    (Outcome::Reply(Reply::NotFound), _) | (_, Some(MetaStatus::Miss)) => {
                        Some(TouchReply::NotFound)
                    }
                    _ => None,
                };
                let Some(reply) = reply else {
                    return answer(place, &answer_as, &outcome, |_, _, _| false);
                };
                match reply {
                    TouchReply::Touched { .. } => counters.touch_hits.bump(),
                    TouchReply::NotFound => counters.touch_misses.bump(),
                }
                let form = answer_as.form();
                place.fill(|out| encode::touch(out, &form, reply));
                Verdict::Fits
            }),
        );
    }

    pub(super) fn inspect(self: &Rc<Proxy>, inspect: &Inspect<'_>, place: Place) {
        self.counters.cmd_meta.bump();
        self.link.request(
            &self.server(inspect.key),
            |out, _| encode_request(out, &Request::Inspect(inspect.clone())),
            Box::new(move |outcome| {
                let mut verdict = Verdict::Fits;
                place.fill(|out| match &outcome {
                    Outcome::Reply(Reply::Debug { key, facts }) => {
                        out.extend_from_slice(b"ME ");
                        out.extend_from_slice(key);
                        out.push(b' ');
                        out.extend_from_slice(facts);
                        out.extend_from_slice(b"\r\n");
                    }
                    Outcome::Reply(Reply::Meta(reply)) if reply.status == MetaStatus::Miss => {
                        out.extend_from_slice(b"EN\r\n");
                    }
                    Outcome::Reply(Reply::Error { kind, message }) => {
                        relay::error(out, *kind, message);
                    }
                    Outcome::Reply(_) => verdict = garbled(out, &Form::TEXT),
                    Outcome::Failed(failure) => failed(out, &Form::TEXT, *failure),
                });
                verdict
            }),
        );
    }
}

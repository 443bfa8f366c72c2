//! Stores, deletes, counting, touch, me and flush_all over a pool, which decides them all.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use tiercache_protocol::encode::{
    self, ArithmeticReply, DeleteReply, StoreFacts, StoreReply, TouchReply,
};
use tiercache_protocol::encode_request;
use tiercache_protocol::exptime::Exptime;
use tiercache_protocol::reply::{MetaFlags, MetaReply, MetaStatus, Reply};
use tiercache_protocol::request::{
    Arithmetic, Delete, Form, Inspect, Request, Retrieve, Store, StoreMode, Touch,
};

use super::super::detail::Event;
use super::super::late::Late;
use super::relay::{self, Asked};
use super::{Place, Proxy, failed, form_for_pool};
use crate::tier::Copied;
use crate::upstream::{Failure, Outcome, Server, Verdict, encode_delete, meta_form};

/// A stored value up to this size is kept until the pool has taken it, and then as a copy.
const COPIED_VALUE_BYTES_MAX: usize = 64 * 1024;

/// Seconds by which two clocks of whole seconds may differ about a delayed flush.
const FLUSH_SLACK_SECONDS: u32 = 2;

/// How the client is answered.
enum AnswerAs {
    /// By the outcome alone: classic text or a packet.
    Plain(Form<'static>),
    Meta(Asked),
}

impl AnswerAs {
    fn new(form: &Form<'_>) -> AnswerAs {
        match form {
            Form::Classic { noreply } => AnswerAs::Plain(Form::Classic { noreply: *noreply }),
            Form::Binary(form) => AnswerAs::Plain(Form::Binary(*form)),
            Form::Meta(form) => AnswerAs::Meta(Asked::new(form)),
        }
    }

    fn is_meta(&self) -> bool {
        matches!(self, AnswerAs::Meta(_))
    }

    /// The form of what is no meta answer, errors for instance.
    fn form(&self) -> Form<'static> {
        match self {
            AnswerAs::Plain(form) => *form,
            AnswerAs::Meta(_) => Form::TEXT,
        }
    }

    /// Writes the answer to an outcome; `plain` writes that of another than a meta command for a
    /// status it can have, else answers false. Quiet meta commands hide the status `HD` alone.
    fn write(
        &self,
        out: &mut Vec<u8>,
        outcome: &Outcome<'_>,
        plain: impl FnOnce(&mut Vec<u8>, &Form<'_>, &MetaReply<'_>) -> bool,
    ) -> Verdict {
        let form = self.form();
        match outcome {
            Outcome::Failed(failure) => failed(out, &form, *failure),
            Outcome::Reply(Reply::Error { kind, message }) => {
                relay::error_as(out, &form, *kind, message);
            }
            Outcome::Reply(Reply::Meta(reply)) => match self {
                AnswerAs::Meta(asked) => {
                    if !(asked.quiet && is_done(reply)) {
                        asked.relay(out, reply);
                    }
                }
                AnswerAs::Plain(_) => {
                    if !plain(out, &form, reply) {
                        return garbled(out, &form);
                    }
                }
            },
            Outcome::Reply(_) => return garbled(out, &form),
        }
        Verdict::Fits
    }
}

fn garbled(out: &mut Vec<u8>, form: &Form<'_>) -> Verdict {
    failed(out, form, Failure::Lost);
    Verdict::Garbled
}

/// Whether the item remembers that its key came in base64, which a copy does not.
fn key_in_base64(form: &Form<'_>) -> bool {
    matches!(form, Form::Meta(form) if form.key_base64)
}

fn is_done(reply: &MetaReply<'_>) -> bool {
    matches!(reply.status, MetaStatus::Done | MetaStatus::Value)
}

fn status(outcome: &Outcome<'_>) -> Option<MetaStatus> {
    match outcome {
        Outcome::Reply(Reply::Meta(reply)) => Some(reply.status),
        _ => None,
    }
}

fn cas(outcome: &Outcome<'_>) -> Option<u64> {
    match outcome {
        Outcome::Reply(Reply::Meta(reply)) => reply.flags.cas(),
        _ => None,
    }
}

impl Proxy {
    pub(super) fn store(self: &Rc<Proxy>, store: &Store<'_>, place: Place) {
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
                encode_request(out, &Request::Store(Store { form, ..*store }));
            },
            Box::new(move |outcome| {
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
                proxy.end_write(&key, guard, taken.as_ref());
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

    pub(super) fn delete(self: &Rc<Proxy>, delete: &Delete<'_>, place: Place) {
        let counters = &*self.counters;
        self.shared.count_prefix(delete.key, Event::Delete);
        let answer_as = AnswerAs::new(&delete.form);
        if answer_as.is_meta() {
            counters.cmd_meta.bump();
        }
        let key: Box<[u8]> = delete.key.into();
        let server = self.server(delete.key);
        let asked_server = Arc::clone(&server);
        // One that fails is delivered later, unless it depends on what the pool had then.
        let deliver_later = delete.compare.is_none();
        let guard = self.begin_write(&key);
        let proxy = Rc::clone(self);
        self.link.request(
            &asked_server,
            |out, opaque| {
                let form = match &delete.form {
                    Form::Meta(asked) => form_for_pool(asked, opaque, b""),
                    Form::Classic { .. } | Form::Binary(_) => meta_form(delete.key, opaque, b""),
                };
                let form = Form::Meta(form);
                encode_request(out, &Request::Delete(Delete { form, ..*delete }));
            },
            Box::new(move |outcome| {
                if deliver_later && matches!(outcome, Outcome::Failed(_)) {
                    server.keep_delete(&key);
                }
                let counters = &*proxy.counters;
                proxy.end_write(&key, guard, None);
                match status(&outcome) {
                    Some(MetaStatus::Done) => counters.delete_hits.bump(),
                    _ => counters.delete_misses.bump(),
                }
                answer(place, &answer_as, &outcome, |out, form, reply| {
                    let reply = match reply.status {
                        MetaStatus::Done => DeleteReply::Deleted,
                        MetaStatus::NotFound => DeleteReply::NotFound,
                        MetaStatus::Exists => DeleteReply::Exists,
                        _ => return false,
                    };
                    encode::delete(out, form, reply);
                    true
                })
            }),
        );
    }

    /// Deletes a key whose new value was refused. The refusal, which comes behind an empty hole at `at`,
    /// waits for that.
    pub(in super::super) fn delete_refused(
        self: &Rc<Proxy>,
        key: &[u8],
        late: &Rc<Late>,
        at: usize,
    ) {
        let old = self.members.borrow().old_server(key).cloned();
        if let Some(old) = old {
            let place = Place::at(late, at);
            self.delete_at(&old, key, move || place.fill(|_| {}));
        }
        let guard = self.begin_write(key);
        let (proxy, kept): (_, Box<[u8]>) = (Rc::clone(self), key.into());
        let place = Place::at(late, at);
        self.delete_at(&self.server(key), key, move || {
            proxy.end_write(&kept, guard, None);
            place.fill(|_| {});
        });
    }

    /// Deletes a key from a server, now or as soon as it can be reached. `done` hears that it was
    /// deleted, or is kept for later.
    pub(super) fn delete_at(
        &self,
        server: &Arc<Server>,
        key: &[u8],
        done: impl FnOnce() + 'static,
    ) {
        let (kept, asked_server): (Box<[u8]>, _) = (key.into(), Arc::clone(server));
        self.link.request(
            server,
            |out, opaque| encode_delete(out, key, opaque),
            Box::new(move |outcome| {
                let status = status(&outcome);
                let deleted = matches!(status, Some(MetaStatus::Done | MetaStatus::NotFound));
                if !deleted {
                    asked_server.keep_delete(&kept);
                }
                done();
                match status {
                    Some(_) if !deleted => Verdict::Garbled,
                    _ => Verdict::Fits,
                }
            }),
        );
    }

    pub(super) fn arithmetic(self: &Rc<Proxy>, request: &Arithmetic<'_>, place: Place) {
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
                proxy.end_write(&key, guard, None);
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

    pub(super) fn touch(self: &Rc<Proxy>, touch: &Touch<'_>, place: Place) {
        let counters = &*self.counters;
        counters.cmd_touch.bump();
        let answer_as = AnswerAs::new(&touch.form);
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
                proxy.end_write(&key, guard, None);
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

    /// How many seconds late a server may carry out a delayed flush: it hears of it late, and its clock and ours count
    /// whole seconds.
    fn flush_late_s(&self) -> u32 {
        let members = self.members.borrow();
        let slowest = members
            .servers()
            .iter()
            .map(|server| server.request_seconds_max());
        slowest
            .max()
            .unwrap_or(0)
            .saturating_add(FLUSH_SLACK_SECONDS)
    }

    /// Flushes all servers; the answer comes with the last of theirs.
    pub(super) fn flush_all(self: &Rc<Proxy>, delay: Exptime, form: &Form<'_>, place: Place) {
        let form = AnswerAs::new(form).form();
        let at_once = !matches!(delay, Exptime::Relative(_) | Exptime::Absolute(_));
        if let Some(copies) = self.copies() {
            if at_once {
                copies.flush();
            } else {
                copies.flush_at(delay.resolve(self.now()), self.flush_late_s());
            }
        }
        let members = Rc::clone(&self.members.borrow());
        let waiting = Rc::new(Cell::new(members.servers().len()));
        let failures = Rc::new(Cell::new(None));
        let place = Rc::new(Cell::new(Some(place)));
        for server in members.servers() {
            let (waiting, failures, place) =
                (Rc::clone(&waiting), Rc::clone(&failures), Rc::clone(&place));
            let (proxy, flushed) = (Rc::clone(self), Arc::clone(server));
            let is_used = members.is_used(server);
            let request = Request::FlushAll {
                delay,
                form: Form::TEXT,
            };
            self.link.request(
                server,
                |out, _| encode_request(out, &request),
                Box::new(move |outcome| {
                    let verdict = match outcome {
                        Outcome::Reply(Reply::Ok) => Verdict::Fits,
                        Outcome::Reply(Reply::Error { kind, message }) => {
                            let mut text = Vec::new();
                            relay::error_as(&mut text, &form, *kind, message);
                            failures.set(Some(text));
                            Verdict::Fits
                        }
                        Outcome::Reply(_) => Verdict::Garbled,
                        Outcome::Failed(failure) => {
                            if at_once {
                                flushed.keep_flush();
                            }
                            // One that has left the pools is told if it comes back.
                            if is_used || !at_once {
                                let mut text = Vec::new();
                                failed(&mut text, &form, failure);
                                failures.set(Some(text));
                            }
                            Verdict::Fits
                        }
                    };
                    waiting.set(waiting.get() - 1);
                    if waiting.get() == 0
                        && let Some(place) = place.take()
                    {
                        if let Some(copies) = proxy.copies().filter(|_| at_once) {
                            copies.flush();
                        }
                        let failed = failures.take();
                        place.fill(|out| match failed {
                            Some(text) => out.extend_from_slice(&text),
                            None => encode::ok(out, &form),
                        });
                    }
                    verdict
                }),
            );
        }
    }
}

/// Answers a command that depends on what the server has under the key, which the client deleted.
fn behind(place: Place, answer_as: &AnswerAs) {
    let form = answer_as.form();
    place.fill(|out| failed(out, &form, Failure::Down));
}

/// Fills the place of an answer.
fn answer(
    place: Place,
    answer_as: &AnswerAs,
    outcome: &Outcome<'_>,
    plain: impl FnOnce(&mut Vec<u8>, &Form<'_>, &MetaReply<'_>) -> bool,
) -> Verdict {
    let mut verdict = Verdict::Fits;
    place.fill(|out| verdict = answer_as.write(out, outcome, plain));
    verdict
}

//! delete, md and flush_all over a pool; those that a server does not acknowledge are kept for later.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use tiercache_protocol::encode::{self, DeleteReply};
use tiercache_protocol::encode_request;
use tiercache_protocol::exptime::Exptime;
use tiercache_protocol::reply::{MetaStatus, Reply};
use tiercache_protocol::request::{Delete, Form, Request};

use super::super::detail::Event;
use super::super::late::Late;
use super::answer::{AnswerAs, answer, status};
use super::relay;
use super::stage::{Again, Before, Fate};
use super::{Place, Proxy, failed, form_for_pool};
use crate::upstream::{Done, Failure, Outcome, Server, Verdict, encode_delete, meta_form};

/// Seconds by which two clocks of whole seconds may differ about a delayed flush.
const FLUSH_SLACK_SECONDS: u32 = 2;

/// What becomes of a delete that a server does not acknowledge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// It is delivered as soon as the server can be reached, and the key is not read there before.
    Later,
    /// Nothing: somebody is told that it failed.
    Not,
}

impl Proxy {
    pub(super) fn delete(
        self: &Rc<Proxy>,
        delete: &Delete<'_>,
        before: Before,
        again: Option<Again>,
        place: Place,
    ) {
        let counters = &*self.counters;
        self.shared.count_prefix(delete.key, Event::Delete);
        let answer_as = AnswerAs::new(&delete.form);
        if answer_as.is_meta() {
            counters.cmd_meta.bump();
        }
        if delete.clear {
            self.clears.update(|count| count + 1);
        }
        let key: Box<[u8]> = delete.key.into();
        let server = self.server(delete.key);
        let asked_server = Arc::clone(&server);
        // One that fails is delivered later, unless it depends on what the pool had then.
        let compares = delete.compare.is_some();
        let compare = delete.compare.or(before.cas());
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
                let delete = Delete {
                    form,
                    compare,
                    ..*delete
                };
                encode_request(out, &Request::Delete(delete));
            },
            Box::new(move |outcome| {
                if !compares && matches!(outcome, Outcome::Failed(_)) {
                    server.keep_delete(&key);
                }
                let counters = &*proxy.counters;
                let fate = match compares {
                    true => before.fate_of_compare(status(&outcome)),
                    false => before.fate(status(&outcome), MetaStatus::NotFound),
                };
                if fate == Fate::Again
                    && let Some(again) = again
                {
                    return proxy.begin_again(again, &key, guard, place);
                }
                proxy.end_write(&key, guard, None, &place);
                let altered = fate.alter(&outcome);
                let outcome = fate.settle(outcome, altered.as_ref());
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

    /// Deletes a key whose new value was refused. The refusal, which comes behind empty holes at `at`,
    /// waits for that.
    pub(in super::super) fn delete_refused(
        self: &Rc<Proxy>,
        key: &[u8],
        late: &Rc<Late>,
        at: usize,
    ) {
        let old = self.members.borrow().old_server(key).cloned();
        let Some(old) = old else {
            return self.delete_in_pool(key, late, at);
        };
        let place = Place::at(late, at);
        let (proxy, kept): (_, Box<[u8]>) = (Rc::clone(self), key.into());
        // In this order, as in each change of a key that moves.
        self.delete_at(&old, key, Kept::Later, move |_| {
            proxy.delete_at_place(&kept, place);
        });
    }

    /// Deletes a key from its server, which what is answered behind an empty hole at `at` waits for.
    pub(super) fn delete_in_pool(self: &Rc<Proxy>, key: &[u8], late: &Rc<Late>, at: usize) {
        self.delete_at_place(key, Place::at(late, at));
    }

    fn delete_at_place(self: &Rc<Proxy>, key: &[u8], place: Place) {
        let guard = self.begin_write(key);
        let (proxy, kept): (_, Box<[u8]>) = (Rc::clone(self), key.into());
        self.delete_at(&self.server(key), key, Kept::Later, move |_| {
            proxy.end_write(&kept, guard, None, &place);
            place.fill(|_| {});
        });
    }

    /// Deletes a key from a server. `done` hears that it was deleted or is kept for later, or why neither.
    pub(super) fn delete_at(
        &self,
        server: &Arc<Server>,
        key: &[u8],
        if_not: Kept,
        done: impl FnOnce(Result<(), Failure>) + 'static,
    ) {
        let (kept, asked_server): (Box<[u8]>, _) = (key.into(), Arc::clone(server));
        self.link.request(
            server,
            |out, opaque| encode_delete(out, key, opaque),
            Box::new(move |outcome| {
                let (deleted, verdict) = match (&outcome, status(&outcome)) {
                    (_, Some(MetaStatus::Done | MetaStatus::NotFound)) => (Ok(()), Verdict::Fits),
                    (Outcome::Failed(failure), _) => (Err(*failure), Verdict::Fits),
                    (Outcome::Reply(Reply::Error { .. }), _) => {
                        (Err(Failure::Refused), Verdict::Fits)
                    }
                    (Outcome::Reply(_), _) => (Err(Failure::Lost), Verdict::Garbled),
                };
                let is_kept =
                    deleted.is_err() && if_not == Kept::Later && asked_server.keep_delete(&kept);
                done(deleted.or_else(|failure| is_kept.then_some(()).ok_or(failure)));
                verdict
            }),
        );
    }

    /// How many seconds late a server may carry out a delayed flush: it hears of it late, and its clock and ours count
    /// whole seconds.
    pub(super) fn flush_late_s(&self) -> u32 {
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

    /// Asks one server to flush.
    pub(super) fn flush_at(&self, server: &Arc<Server>, delay: Exptime, done: Done) {
        let request = Request::FlushAll {
            delay,
            form: Form::TEXT,
        };
        self.link
            .request(server, |out, _| encode_request(out, &request), done);
    }

    /// Flushes all servers; the answer comes with the last of theirs. It is an error if an old pool failed `before`.
    pub(super) fn flush_all(
        self: &Rc<Proxy>,
        delay: Exptime,
        form: &Form<'_>,
        before: Before,
        place: Place,
    ) {
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
        let text_of = move |failure| {
            let mut text = Vec::new();
            failed(&mut text, &form, failure);
            Some(text)
        };
        let failures = Rc::new(Cell::new(match before {
            Before::Failed(failure) => text_of(failure),
            _ => None,
        }));
        let place = Rc::new(Cell::new(Some(place)));
        for server in members.servers() {
            let (waiting, failures, place) =
                (Rc::clone(&waiting), Rc::clone(&failures), Rc::clone(&place));
            let (proxy, flushed) = (Rc::clone(self), Arc::clone(server));
            let is_used = members.is_used(server);
            self.flush_at(
                server,
                delay,
                Box::new(move |outcome| {
                    let verdict = match outcome {
                        Outcome::Reply(Reply::Ok) => Verdict::Fits,
                        Outcome::Reply(Reply::Error { kind, message }) => {
                            let mut text = Vec::new();
                            relay::error_as(&mut text, &form, *kind, message);
                            failures.set(Some(text));
                            Verdict::Fits
                        }
                        Outcome::Reply(_) => {
                            if at_once {
                                flushed.keep_flush();
                            }
                            failures.set(text_of(Failure::Lost));
                            Verdict::Garbled
                        }
                        Outcome::Failed(failure) => {
                            if at_once {
                                flushed.keep_flush();
                            }
                            // One that has left the pools is told if it comes back.
                            if is_used || !at_once {
                                failures.set(text_of(failure));
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

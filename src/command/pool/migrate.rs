//! While keys move here from an old pool: a miss is looked up there, and what changes a key does so
//! in both. [`bring`](super::bring) has how an item comes over.
//!
//! ```text
//!   read    new ── miss ─▶ old ── hit ─▶ answer, then bring
//!   write   [bring, where what is there matters] ─▶ old: delete ─▶ new: the write ─▶ answer
//! ```
//!
//! Nothing stale comes of it: an item is deleted in the old pool before it is changed in the new
//! one, so what is read from the old pool was not changed by then. Where that delete fails, so does
//! the request: what this process keeps to deliver later, other proxies do not know of. Only with
//! `private`, where there are none, it is executed all the same.
//!
//! What depends on what is under a key (`append`, for instance) must not take another proxy's lease
//! for an item. So it is executed for exactly the item that was found, or brought, and begun anew if
//! that has changed since.

use std::rc::Rc;
use std::sync::Arc;

use tiercache_protocol::exptime::Exptime;
use tiercache_protocol::reply::Reply;
use tiercache_protocol::request::{Delete, Form, Request, StoreMode};
use tiercache_protocol::{encode, encode_request};
use tokio::sync::oneshot;

use super::super::detail::Event;
use super::super::late::Late;
use super::bring::{Patience, encode_read, found};
use super::read::{AnswerAs, Read};
use super::stage::{Before, Stage, Steps};
use super::{Place, Proxy, failed};
use crate::upstream::config::Sharing;
use crate::upstream::{Failure, Outcome, Server, Verdict};

/// What has to be done for a key before a command changes it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    /// Delete it in the old pool.
    Delete,
    /// Bring it to the new pool, then delete it in the old one.
    Bring,
}

/// Whether a delete is the same whatever is under its key.
fn is_blind(delete: &Delete<'_>) -> bool {
    delete.compare.is_none() && !delete.invalidate && !delete.clear
}

impl Proxy {
    /// Begins what has to be done in the old pool before `request` is executed. Tells what was found if
    /// that is known at once; else the receiver hears it.
    pub(super) fn before(
        self: &Rc<Proxy>,
        request: &Request<'_>,
    ) -> Result<Before, oneshot::Receiver<Stage>> {
        if !self.members.borrow().minds_leases() {
            return Ok(Before::Unknown);
        }
        let (told, mut receiver) = oneshot::channel();
        let all = Rc::new(Steps::new(told));
        match request {
            Request::Store(store) => {
                let blind = store.mode == StoreMode::Set && store.compare.is_none();
                let first = if blind { First::Delete } else { First::Bring };
                self.prepare(store.key, first, &all);
            }
            Request::Delete(delete) => {
                let first = match is_blind(delete) {
                    true => First::Delete,
                    false => First::Bring,
                };
                self.prepare(delete.key, first, &all);
            }
            Request::Arithmetic(request) => self.prepare(request.key, First::Bring, &all),
            Request::Touch(touch) => self.prepare(touch.key, First::Bring, &all),
            Request::Get(get) if get.touch.is_some() => {
                for key in get.keys.clone() {
                    self.prepare(key, First::Bring, &all);
                }
            }
            Request::GetOne(get) if get.touch.is_some() => {
                self.prepare(get.key, First::Bring, &all);
            }
            Request::Retrieve(retrieve)
                if retrieve.touch.is_some()
                    || retrieve.vivify.is_some()
                    || retrieve.recache.is_some() =>
            {
                self.prepare(retrieve.key, First::Bring, &all);
            }
            Request::FlushAll { delay, .. } if self.shared.settings.flush_enabled => {
                self.flush_old(*delay, &all);
            }
            _ => {}
        }
        drop(all);
        match receiver.try_recv() {
            Ok(Stage::Prepared(before)) => Ok(before),
            _ => Err(receiver),
        }
    }

    /// Answers a request that cannot be executed because what had to be done first failed: a read is a
    /// miss, a write an error. False for one that is executed all the same.
    pub(super) fn refuse(
        self: &Rc<Proxy>,
        request: &Request<'_>,
        failure: Failure,
        late: &Rc<Late>,
        out: &mut Vec<u8>,
    ) -> bool {
        match request {
            Request::Get(get) if get.last => encode::end(out),
            Request::Get(_) => {}
            Request::GetOne(get) => encode::binary_miss(out, get.form, get.key),
            Request::Retrieve(retrieve) => encode::meta_miss(out, &retrieve.form),
            Request::Store(store) => failed(out, &store.form, failure),
            Request::Arithmetic(arithmetic) => failed(out, &arithmetic.form, failure),
            Request::Touch(touch) => failed(out, &touch.form, failure),
            Request::Delete(delete) => {
                if is_blind(delete) {
                    // It is an error, but many clients do not look at the answer.
                    self.delete_in_pool(delete.key, late, out.len());
                }
                failed(out, &delete.form, failure);
            }
            _ => return false,
        }
        true
    }

    fn prepare(self: &Rc<Proxy>, key: &[u8], first: First, all: &Rc<Steps>) {
        let members = Rc::clone(&self.members.borrow());
        let old = members.old_server(key).cloned();
        let all = Rc::clone(all);
        match (first, old) {
            (First::Delete, Some(old)) => self.delete_in_old(&old, key, Before::Unknown, all),
            (First::Bring, old) if members.may_be_leased(key) => {
                let (proxy, kept): (_, Box<[u8]>) = (Rc::clone(self), key.into());
                let patience = Patience::of(members.server(key));
                let then = move |found| match (found, old) {
                    (Before::Failed(_), _) | (_, None) => all.found(found),
                    (_, Some(old)) => proxy.delete_in_old(&old, &kept, found, all),
                };
                self.bring(key, Some(patience), Box::new(then));
            }
            _ => {}
        }
    }

    fn delete_in_old(
        self: &Rc<Proxy>,
        old: &Arc<Server>,
        key: &[u8],
        found: Before,
        all: Rc<Steps>,
    ) {
        let others_read = self.others_read();
        self.delete_at(old, key, move |deleted| {
            all.found(match deleted {
                Err(failure) if others_read => Before::Failed(failure),
                _ => found,
            });
        });
    }

    /// Whether other proxies may read from the old pool what this one knows to be deleted.
    fn others_read(&self) -> bool {
        self.upstream().sharing != Sharing::Private
    }

    /// The old pool first: what is read there after the new one was flushed was stored since.
    fn flush_old(self: &Rc<Proxy>, delay: Exptime, all: &Rc<Steps>) {
        let others_read = self.others_read();
        let members = Rc::clone(&self.members.borrow());
        for server in members.old_servers() {
            let (all, flushed) = (Rc::clone(all), Arc::clone(server));
            let request = Request::FlushAll {
                delay,
                form: Form::TEXT,
            };
            self.link.request(
                server,
                |out, _| encode_request(out, &request),
                Box::new(move |outcome| {
                    let failure = match outcome {
                        Outcome::Reply(Reply::Ok) => return Verdict::Fits,
                        Outcome::Failed(failure) => failure,
                        Outcome::Reply(_) => Failure::Refused,
                    };
                    // A delayed one too: better too early than never.
                    flushed.keep_flush();
                    if others_read {
                        all.found(Before::Failed(failure));
                    }
                    match outcome {
                        Outcome::Reply(reply) if !matches!(reply, Reply::Error { .. }) => {
                            Verdict::Garbled
                        }
                        _ => Verdict::Fits,
                    }
                }),
            );
        }
    }

    /// Looks a key up in the old pool that the new one does not have; the read it is for is given back
    /// if there is no old pool for it.
    pub(super) fn read_old(
        self: &Rc<Proxy>,
        read: Rc<Read>,
        place: Place,
    ) -> Result<(), (Rc<Read>, Place)> {
        let old = self.members.borrow().old_server(&read.key).cloned();
        let old = old.filter(|old| {
            !read.changes() && !read.looked_up_in_old && !old.missed_delete(&read.key)
        });
        let Some(old) = old else {
            return Err((read, place));
        };
        self.counters.migration_reads.bump();
        let proxy = Rc::clone(self);
        let asked = Rc::clone(&read);
        self.link.request(
            &old,
            |out, opaque| encode_read(out, &asked.key, opaque),
            Box::new(move |outcome| proxy.old_answered(read, place, &outcome)),
        );
        Ok(())
    }

    fn old_answered(
        self: &Rc<Proxy>,
        read: Rc<Read>,
        place: Place,
        outcome: &Outcome<'_>,
    ) -> Verdict {
        let found = match found(&read.key, outcome) {
            Ok(found) => found,
            Err(verdict) => {
                self.miss(&read, place);
                return verdict;
            }
        };
        let Some((value, facts)) = found else {
            self.miss(&read, place);
            return Verdict::Fits;
        };
        self.counters.migration_hits.bump();
        if let AnswerAs::Values { with_cas: false } = read.answer_as {
            self.count_read(&read, Event::Hit);
            place.fill(|out| {
                let flags = facts.client_flags.unwrap_or(0);
                encode::value_line(out, &read.key, flags, value.len(), None);
                out.extend_from_slice(value);
                out.extend_from_slice(b"\r\n");
            });
            self.bring(&read.key, None, Box::new(|_| {}));
            return Verdict::Fits;
        }
        // The answer tells what only the new pool knows, the CAS unique for instance.
        let proxy = Rc::clone(self);
        let key = read.key.clone();
        let then = move |_| match Rc::try_unwrap(read) {
            Ok(mut read) => {
                read.looked_up_in_old = true;
                proxy.read(read, place);
            }
            Err(read) => proxy.miss(&read, place),
        };
        let patience = Patience::of(&self.server(&key));
        self.bring(&key, Some(patience), Box::new(then));
        Verdict::Fits
    }
}

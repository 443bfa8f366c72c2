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

use tiercache_protocol::encode;
use tiercache_protocol::exptime::Exptime;
use tiercache_protocol::reply::Reply;
use tiercache_protocol::request::{Delete, Request, StoreMode};
use tokio::sync::oneshot;

use super::super::detail::Event;
use super::super::late::Late;
use super::bring::{Lease, Patience, encode_read, found};
use super::read::{AnswerAs, Read};
use super::remove::Kept;
use super::stage::{Before, Stage, Steps};
use super::{Place, Proxy, failed};
use crate::upstream::config::Sharing;
use crate::upstream::{Failure, Outcome, Server, Verdict};

/// Answers a read as one of keys without an item.
fn miss(request: &Request<'_>, out: &mut Vec<u8>) {
    match request {
        Request::Get(get) if get.last => encode::end(out),
        Request::GetOne(get) => encode::binary_miss(out, get.form, get.key),
        Request::Retrieve(retrieve) => encode::meta_miss(out, &retrieve.form),
        _ => {}
    }
}

/// Whether a delete is the same whatever is under its key.
fn is_blind(delete: &Delete<'_>) -> bool {
    delete.compare.is_none() && !delete.invalidate && !delete.clear
}

impl Proxy {
    /// Begins what has to be done in the old pool before `request` is executed. Tells what was found if
    /// that is known at once; else the receiver hears it. For a request that is begun `again`, what was to be
    /// deleted there is deleted.
    pub(super) fn before(
        self: &Rc<Proxy>,
        request: &Request<'_>,
        again: bool,
    ) -> Result<Before, oneshot::Receiver<Stage>> {
        let is_plain_read = match request {
            Request::Get(get) => get.touch.is_none(),
            Request::GetOne(get) => get.touch.is_none(),
            _ => false,
        };
        if is_plain_read || !self.members.borrow().minds_leases() {
            return Ok(Before::Unknown);
        }
        let (told, mut receiver) = oneshot::channel();
        let all = Rc::new(Steps::new(told));
        match request {
            Request::Store(store) => match store.mode {
                StoreMode::Set if store.compare.is_none() => self.delete_first(store.key, &all),
                _ => self.bring_first(store.key, Lease::of(store.compare), again, &all),
            },
            Request::Delete(delete) if is_blind(delete) => self.delete_first(delete.key, &all),
            Request::Delete(delete) => {
                self.bring_first(delete.key, Lease::of(delete.compare), again, &all);
            }
            Request::Arithmetic(request) => {
                self.bring_first(request.key, Lease::of(request.compare), again, &all);
            }
            Request::Touch(touch) => self.bring_first(touch.key, Lease::NotMine, again, &all),
            Request::Get(get) => {
                for key in get.keys.clone() {
                    self.bring_first(key, Lease::NotMine, again, &all);
                }
            }
            Request::GetOne(get) => self.bring_first(get.key, Lease::NotMine, again, &all),
            Request::Retrieve(retrieve) if retrieve.vivify.is_some() => {
                self.bring_first(retrieve.key, Lease::Whoevers, again, &all);
            }
            Request::Retrieve(retrieve)
                if retrieve.touch.is_some() || retrieve.recache.is_some() =>
            {
                self.bring_first(retrieve.key, Lease::NotMine, again, &all);
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
            Request::Get(_) | Request::GetOne(_) | Request::Retrieve(_) => miss(request, out),
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

    /// Answers a read that touches an item of which there is none, as a miss: sent, it could meet a lease. False for
    /// what is executed all the same.
    pub(super) fn miss_touched(&self, request: &Request<'_>, out: &mut Vec<u8>) -> bool {
        let is_of_found_key = match request {
            // What was found is only that of the last one of several keys.
            Request::Get(get) => get.keys.clone().count() == 1,
            Request::GetOne(_) => true,
            Request::Retrieve(retrieve) => retrieve.vivify.is_none(),
            _ => false,
        };
        if !is_of_found_key {
            return false;
        }
        miss(request, out);
        self.counters.cmd_get.bump();
        self.counters.get_misses.bump();
        true
    }

    fn delete_first(self: &Rc<Proxy>, key: &[u8], all: &Rc<Steps>) {
        let old = self.members.borrow().old_server(key).cloned();
        if let Some(old) = old {
            self.delete_in_old(&old, key, Before::Unknown, Rc::clone(all));
        }
    }

    fn bring_first(self: &Rc<Proxy>, key: &[u8], lease: Lease, again: bool, all: &Rc<Steps>) {
        let members = Rc::clone(&self.members.borrow());
        if !members.may_be_leased(key) {
            return;
        }
        let old = members.old_server(key).filter(|_| !again).cloned();
        let (proxy, kept): (_, Box<[u8]>) = (Rc::clone(self), key.into());
        let all = Rc::clone(all);
        let then = move |found| match (found, old) {
            (Before::Failed(_) | Before::Unknown, _) | (_, None) => all.note(found),
            (_, Some(old)) => proxy.delete_in_old(&old, &kept, found, all),
        };
        let patience = Patience::of(members.server(key));
        self.bring(key, lease, Some(patience), Box::new(then));
    }

    fn delete_in_old(
        self: &Rc<Proxy>,
        old: &Arc<Server>,
        key: &[u8],
        found: Before,
        all: Rc<Steps>,
    ) {
        let kept = match self.others_read() {
            true => Kept::Not,
            false => Kept::Later,
        };
        self.delete_at(old, key, kept, move |deleted| {
            all.note(deleted.map_or_else(Before::Failed, |()| found));
        });
    }

    /// Whether other proxies may read from the old pool what this one knows to be deleted.
    pub(super) fn others_read(&self) -> bool {
        self.upstream().sharing != Sharing::Private
    }

    /// The old pool first: what is read there after the new one was flushed was stored since.
    fn flush_old(self: &Rc<Proxy>, delay: Exptime, all: &Rc<Steps>) {
        let others_read = self.others_read();
        // What comes due in the old pool first is not read there once the new one has lost it.
        let slack = self.flush_late_s();
        let delay = match delay {
            Exptime::Relative(seconds) if seconds > slack => Exptime::Relative(seconds - slack),
            Exptime::Absolute(at) => Exptime::Absolute(at.saturating_sub(slack)),
            _ => Exptime::Never,
        };
        let members = Rc::clone(&self.members.borrow());
        for server in members.old_servers() {
            let (all, flushed) = (Rc::clone(all), Arc::clone(server));
            self.flush_at(
                server,
                delay,
                Box::new(move |outcome| {
                    let failure = match outcome {
                        Outcome::Reply(Reply::Ok) => return Verdict::Fits,
                        Outcome::Failed(failure) => failure,
                        Outcome::Reply(_) => Failure::Refused,
                    };
                    // A delayed one is kept too: better too early than never.
                    if others_read || !flushed.keep_flush() {
                        all.note(Before::Failed(failure));
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
            self.bring(&read.key, Lease::NotMine, None, Box::new(|_| {}));
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
        self.bring(&key, Lease::NotMine, Some(patience), Box::new(then));
        Verdict::Fits
    }
}

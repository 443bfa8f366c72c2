//! get gets gat gats mg that the pool answers; [`copy`](super::copy) has those that a copy does.

use std::rc::Rc;
use std::sync::Arc;

use tiercache_protocol::encode;
use tiercache_protocol::encode_request;
use tiercache_protocol::exptime::Exptime;
use tiercache_protocol::reply::{MetaFacts, MetaReply, MetaStatus, Reply};
use tiercache_protocol::request::{BinaryForm, Delete, Form, Request, Retrieve, Returns};

use super::super::detail::Event;
use super::super::is_plain;
use super::bring::is_lease;
use super::copy::CopyToConfirm;
use super::relay::{self, Asked};
use super::{Guard, Known, Place, Proxy, exptime, failed, form_for_pool};
use crate::tier::Copied;
use crate::upstream::{Failure, Outcome, Server, Verdict, meta_form};

/// A read that is on its way to the pool.
pub(super) struct Read {
    pub(super) key: Box<[u8]>,
    key_base64: bool,
    value: bool,
    known_cas: Option<u64>,
    new_cas: Option<u64>,
    vivify: Option<Exptime>,
    recache: Option<Exptime>,
    touch: Option<Exptime>,
    no_bump: bool,
    /// What the pool is asked for.
    returns: Returns,
    pub(super) answer_as: AnswerAs,
    /// The copy that the pool is asked to confirm.
    pub(super) copy: Option<CopyToConfirm>,
    /// Whether it was sent before, on a connection that was lost.
    again: bool,
    /// Whether the pool that the key comes from was asked.
    pub(super) looked_up_in_old: bool,
    /// Deletes with `x` that were sent before it. One that follows it keeps the CAS unique of what it clears: what the
    /// read would give back then is another item.
    clears: u64,
}

pub(super) enum AnswerAs {
    Values { with_cas: bool },
    Packet(BinaryForm),
    Meta(Asked),
}

impl Read {
    /// Whether it may change the item, or what others are told about it.
    pub(super) fn changes(&self) -> bool {
        self.touch.is_some() || self.vivify.is_some() || self.recache.is_some()
    }

    fn request<'r>(&'r self, opaque: &'r [u8]) -> Request<'r> {
        let mut form = meta_form(&self.key, opaque, &[]);
        form.key_base64 = self.key_base64;
        form.returns = self.returns;
        Request::Retrieve(Retrieve {
            key: &self.key,
            value: self.value,
            known_cas: self.copy.map(|copy| copy.cas).or(self.known_cas),
            new_cas: self.new_cas,
            vivify: self.vivify,
            recache: self.recache,
            touch: self.touch,
            no_bump: self.no_bump,
            form,
        })
    }

    /// Whether a reply is about this key. One that was stored in base64 is told so, and is left to
    /// the opaque number.
    fn is_about_key(&self, facts: &MetaFacts<'_>) -> bool {
        facts
            .key
            .is_none_or(|key| *key == *self.key || facts.key_base64)
    }

    /// The copy that may be kept of what the pool told.
    fn copied<'v>(
        &self,
        reply: &MetaReply<'v>,
        facts: &MetaFacts<'_>,
        now: u32,
        unknown_ttl_s: u32,
    ) -> Option<Copied<'v>> {
        let special = facts.won || facts.stale || facts.won_by_another || facts.key_base64;
        if self.changes() || special {
            return None;
        }
        Some(Copied {
            flags: facts.client_flags?,
            cas: facts.cas?,
            exptime: exptime(facts.ttl.unwrap_or(Some(unknown_ttl_s)), now),
            value: reply.value?,
        })
    }
}

impl Proxy {
    pub(super) fn get(
        self: &Rc<Proxy>,
        key: &[u8],
        answer_as: AnswerAs,
        touch: Option<Exptime>,
        copy: Option<CopyToConfirm>,
        place: Place,
    ) {
        // The CAS unique is needed without a client asking for it: see `give_back`.
        let letters: &[u8] = match self.copies() {
            Some(_) => b"kfctv",
            None => b"kfcv",
        };
        let form = meta_form(key, b"", letters);
        self.read(
            Read {
                key: key.into(),
                key_base64: form.key_base64,
                value: true,
                known_cas: None,
                new_cas: None,
                vivify: None,
                recache: None,
                touch,
                no_bump: false,
                returns: form.returns,
                answer_as,
                copy,
                again: false,
                looked_up_in_old: false,
                clears: self.clears.get(),
            },
            place,
        );
    }

    pub(super) fn retrieve(self: &Rc<Proxy>, retrieve: &Retrieve<'_>, place: Place) {
        self.counters.cmd_meta.bump();
        let wanted: &[u8] = match (self.copies().is_some(), retrieve.value) {
            (true, true) if is_plain(retrieve) => b"kfct",
            (_, true) => b"k",
            // Tells a lease from an item.
            (_, false) if self.members.borrow().minds_leases() => b"s",
            (_, false) => b"",
        };
        let form = form_for_pool(&retrieve.form, b"", wanted);
        self.read(
            Read {
                key: retrieve.key.into(),
                key_base64: form.key_base64,
                value: retrieve.value,
                known_cas: retrieve.known_cas,
                new_cas: retrieve.new_cas,
                vivify: retrieve.vivify,
                recache: retrieve.recache,
                touch: retrieve.touch,
                no_bump: retrieve.no_bump,
                returns: form.returns,
                answer_as: AnswerAs::Meta(Asked::new(&retrieve.form)),
                copy: None,
                again: false,
                looked_up_in_old: false,
                clears: self.clears.get(),
            },
            place,
        );
    }

    pub(super) fn read(self: &Rc<Proxy>, mut read: Read, place: Place) {
        let members = Rc::clone(&self.members.borrow());
        let server = members.server(&read.key);
        if server.missed_delete(&read.key) {
            return self.miss(&read, place);
        }
        if read.copy.is_some() && !self.compares(server) {
            read.copy = None;
        }
        let guard = if read.changes() {
            self.begin_write(&read.key)
        } else {
            self.begin_read(&read.key)
        };
        let (proxy, asked) = (Rc::clone(self), Rc::clone(&members));
        let read = Rc::new(read);
        let sent = Rc::clone(&read);
        self.link.request(
            server,
            move |out, opaque| encode_request(out, &sent.request(opaque)),
            Box::new(move |outcome| proxy.read_answered(read, &asked, guard, place, &outcome)),
        );
    }

    fn read_answered(
        self: &Rc<Proxy>,
        read: Rc<Read>,
        asked: &Known,
        guard: Guard,
        place: Place,
        outcome: &Outcome<'_>,
    ) -> Verdict {
        if read.changes() {
            self.end_write(&read.key, guard, None, &place);
        }
        let reply = match outcome {
            Outcome::Failed(Failure::Lost) if !read.again && !read.changes() => {
                // Reading twice harms nobody, and a server that was restarted answers now.
                if let Ok(mut read) = Rc::try_unwrap(read) {
                    read.again = true;
                    self.read(read, place);
                }
                return Verdict::Fits;
            }
            Outcome::Failed(Failure::TooLarge) if matches!(read.answer_as, AnswerAs::Meta(_)) => {
                place.fill(|out| failed(out, &Form::TEXT, Failure::TooLarge));
                return Verdict::Fits;
            }
            Outcome::Failed(_) => {
                self.miss(&read, place);
                return Verdict::Fits;
            }
            Outcome::Reply(Reply::Error { kind, message }) => {
                match &read.answer_as {
                    AnswerAs::Values { .. } | AnswerAs::Packet(_) => self.miss(&read, place),
                    AnswerAs::Meta(_) => place.fill(|out| relay::error(out, *kind, message)),
                }
                return Verdict::Fits;
            }
            Outcome::Reply(Reply::Meta(reply)) => reply,
            Outcome::Reply(_) => {
                self.miss(&read, place);
                return Verdict::Garbled;
            }
        };
        let facts = reply.flags.facts();
        if !read.is_about_key(&facts) {
            self.miss(&read, place);
            return Verdict::Garbled;
        }
        let is_leased = is_lease(reply, &facts) && self.members.borrow().may_be_leased(&read.key);
        let is_missing = reply.status == MetaStatus::Miss || is_leased;
        let (read, place) = match is_missing && self.members.borrow().is_migrating() {
            true => match self.read_old(read, place) {
                Ok(()) => return Verdict::Fits,
                Err(given_back) => given_back,
            },
            false => (read, place),
        };
        // Whoever wants to fill a key himself is told that another does.
        if is_leased && read.vivify.is_none() {
            self.miss(&read, place);
            return Verdict::Fits;
        }
        match reply.status {
            MetaStatus::Value if read.value => self.hit(&read, asked, guard, place, reply, &facts),
            MetaStatus::Done if read.copy.is_some() => self.confirmed(read, place),
            MetaStatus::Done if matches!(read.answer_as, AnswerAs::Meta(_)) => {
                self.hit(&read, asked, guard, place, reply, &facts);
            }
            MetaStatus::Miss => match &read.answer_as {
                AnswerAs::Meta(asked) => {
                    self.count_read(&read, Event::Miss);
                    place.fill(|out| {
                        if !asked.quiet {
                            asked.relay(out, reply);
                        }
                    });
                }
                AnswerAs::Values { .. } | AnswerAs::Packet(_) => self.miss(&read, place),
            },
            _ => {
                self.miss(&read, place);
                return Verdict::Garbled;
            }
        }
        Verdict::Fits
    }

    fn hit(
        &self,
        read: &Read,
        asked: &Known,
        guard: Guard,
        place: Place,
        reply: &MetaReply<'_>,
        facts: &MetaFacts<'_>,
    ) {
        self.count_read(read, Event::Hit);
        let is_cleared = read.clears != self.clears.get();
        if !matches!(read.answer_as, AnswerAs::Meta(_)) && facts.won && !is_cleared {
            self.give_back(asked.server(&read.key), &read.key, facts.cas);
        }
        if guard.fence.is_some()
            && let Some(copied) =
                read.copied(reply, facts, self.now(), self.upstream().unknown_ttl_s)
        {
            self.end_read(&read.key, guard, &copied);
        }
        place.fill(|out| match &read.answer_as {
            AnswerAs::Meta(asked) => asked.relay(out, reply),
            AnswerAs::Values { with_cas } => {
                let value = reply.value.unwrap_or_default();
                let flags = facts.client_flags.unwrap_or(0);
                let cas = with_cas.then(|| facts.cas.unwrap_or(0));
                encode::value_line(out, &read.key, flags, value.len(), cas);
                out.extend_from_slice(value);
                out.extend_from_slice(b"\r\n");
            }
            AnswerAs::Packet(form) => {
                let value = reply.value.unwrap_or_default();
                let flags = facts.client_flags.unwrap_or(0);
                let cas = facts.cas.unwrap_or(0);
                encode::binary_item_head(out, *form, &read.key, flags, cas, value.len());
                out.extend_from_slice(value);
            }
        });
    }

    /// Gives back the right to recache a stale item, which a `get` has won unasked because it goes to
    /// the pool as `mg`: the item is marked again as it was, with its CAS unique.
    pub(super) fn give_back(&self, asked: &Arc<Server>, key: &[u8], cas: Option<u64>) {
        self.link.request(
            asked,
            |out, opaque| {
                let request = Delete {
                    key,
                    compare: cas,
                    new_cas: cas,
                    invalidate: true,
                    touch: None,
                    clear: false,
                    form: Form::Meta(meta_form(key, opaque, b"")),
                };
                encode_request(out, &Request::Delete(request));
            },
            // If it fails, another client recaches when the item has expired.
            Box::new(|_| Verdict::Fits),
        );
    }

    pub(super) fn miss(&self, read: &Read, place: Place) {
        self.count_read(read, Event::Miss);
        place.fill(|out| match &read.answer_as {
            AnswerAs::Values { .. } => {}
            AnswerAs::Packet(form) => encode::binary_miss(out, *form, &read.key),
            AnswerAs::Meta(asked) => asked.miss(out, &read.key),
        });
    }

    pub(super) fn count_read(&self, read: &Read, event: Event) {
        let counters = &*self.counters;
        counters.cmd_get.bump();
        if read.touch.is_some() {
            counters.cmd_touch.bump();
        }
        match event {
            Event::Hit => {
                counters.get_hits.bump();
                if read.copy.is_none() {
                    counters.cold_hits.bump();
                }
                if read.touch.is_some() {
                    counters.touch_hits.bump();
                }
            }
            _ => {
                counters.get_misses.bump();
                if read.touch.is_some() {
                    counters.touch_misses.bump();
                }
            }
        }
        self.shared.count_prefix(&read.key, event);
    }
}

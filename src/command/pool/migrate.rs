//! While keys move here from an old pool: a miss is looked up there, and what changes a key does so
//! in both.
//!
//! ```text
//!   read    new ── miss ─▶ old ── hit ─▶ answer, then bring
//!   bring   new: lease (`mg N`) ─▶ old: read ─▶ new: store if the lease still stands (`ms C`)
//!   write   [bring, where what is there matters] ─▶ old: delete ─▶ new: the write ─▶ answer
//! ```
//!
//! Nothing stale comes of it: an item is deleted in the old pool before it is changed in the new
//! one, so what is read from the old pool was not changed by then. Between that read and the store
//! the key may be deleted or flushed; that ends the lease, an item without a value that only other
//! proxies in a migration tell from a miss, and the store fails.

use std::rc::Rc;
use std::sync::Arc;

use tiercache_protocol::exptime::Exptime;
use tiercache_protocol::limits::EXPTIME_RELATIVE_MAX_S;
use tiercache_protocol::reply::{MetaFacts, MetaReply, MetaStatus, Reply};
use tiercache_protocol::request::{Delete, Form, Request, Retrieve, Store, StoreMode};
use tiercache_protocol::{encode, encode_request};
use tokio::sync::oneshot;

use super::super::detail::Event;
use super::read::{AnswerAs, Read};
use super::{Place, Proxy};
use crate::upstream::{Outcome, Server, Verdict, meta_form};

/// How long a lease lives if nobody ends it: longer than the two requests that it is for.
const LEASE_SECONDS: u32 = 5;
/// Looks at a key that another proxy brings before it is taken as it is.
const LOOKS_MAX: u32 = 50;

/// What goes on once a step is done.
type Then = Box<dyn FnOnce()>;
/// Held by all steps that a command waits for.
type AllDone = Rc<oneshot::Sender<()>>;

/// What has to be done for a key before a command changes it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    /// Delete it in the old pool.
    Delete,
    /// Bring it to the new pool, then delete it in the old one.
    Bring,
}

/// Whether an item is a lease: it has no value, and its reader is told that another one fills it.
pub(super) fn is_lease(reply: &MetaReply<'_>, facts: &MetaFacts<'_>) -> bool {
    facts.won_by_another && !facts.stale && reply.value.is_some_and(<[u8]>::is_empty)
}

impl Proxy {
    /// Begins what has to be done in the old pool before `request` is executed; none if it is
    /// executed at once. The receiver hears when that is done, well or not.
    pub(super) fn before(self: &Rc<Proxy>, request: &Request<'_>) -> Option<oneshot::Receiver<()>> {
        if !self.members.borrow().is_migrating() {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        // Each step holds it; the receiver hears when the last one has let it go.
        let all = Rc::new(sender);
        match request {
            Request::Store(store) => {
                let blind = store.mode == StoreMode::Set && store.compare.is_none();
                let first = if blind { First::Delete } else { First::Bring };
                self.prepare(store.key, first, &all);
            }
            Request::Delete(delete) => {
                let blind = delete.compare.is_none() && !delete.invalidate && !delete.clear;
                let first = if blind { First::Delete } else { First::Bring };
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
        (Rc::strong_count(&all) > 1).then_some(receiver)
    }

    fn prepare(self: &Rc<Proxy>, key: &[u8], first: First, all: &AllDone) {
        let old = self.members.borrow().old_server(key).cloned();
        let Some(old) = old else { return };
        let all = Rc::clone(all);
        let done = move || drop(all);
        match first {
            First::Delete => self.delete_at(&old, key, done),
            First::Bring => {
                let (proxy, kept): (_, Box<[u8]>) = (Rc::clone(self), key.into());
                let then = move || proxy.delete_at(&old, &kept, done);
                self.bring(key, LOOKS_MAX, Box::new(then));
            }
        }
    }

    /// The old pool first: what is read there after the new one was flushed was stored since.
    fn flush_old(self: &Rc<Proxy>, delay: Exptime, all: &AllDone) {
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
                    if !matches!(outcome, Outcome::Reply(Reply::Ok)) {
                        // A delayed one too: better too early than never.
                        flushed.keep_flush();
                    }
                    drop(all);
                    Verdict::Fits
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
            self.bring(&read.key, 0, Box::new(|| {}));
            return Verdict::Fits;
        }
        // The answer tells what only the new pool knows, the CAS unique for instance.
        let proxy = Rc::clone(self);
        let key = read.key.clone();
        let then = move || match Rc::try_unwrap(read) {
            Ok(mut read) => {
                read.looked_up_in_old = true;
                proxy.read(read, place);
            }
            Err(read) => proxy.miss(&read, place),
        };
        self.bring(&key, LOOKS_MAX, Box::new(then));
        Verdict::Fits
    }

    /// Brings a key to the new pool if that does not have it. Where another proxy is about to, looks
    /// again up to `looks_left` times.
    fn bring(self: &Rc<Proxy>, key: &[u8], looks_left: u32, then: Then) {
        let members = Rc::clone(&self.members.borrow());
        let Some(old) = members.old_server(key) else {
            return then();
        };
        if old.missed_delete(key) {
            return then();
        }
        let (proxy, kept, old): (_, Box<[u8]>, _) = (Rc::clone(self), key.into(), Arc::clone(old));
        self.link.request(
            members.server(key),
            |out, opaque| encode_lease(out, key, opaque),
            Box::new(move |outcome| {
                let Outcome::Reply(Reply::Meta(reply)) = &outcome else {
                    then();
                    return Verdict::Fits;
                };
                let facts = reply.flags.facts();
                match facts.cas {
                    Some(lease) if facts.won && !facts.stale => {
                        proxy.fill(&old, kept, lease, then);
                    }
                    // Its size tells a lease from an item that another client is to renew.
                    _ if facts.won_by_another
                        && looks_left > 0
                        && reply.flags.token(b's') == Some(b"0") =>
                    {
                        proxy.bring(&kept, looks_left - 1, then);
                    }
                    _ => {
                        if facts.won {
                            proxy.give_back(&kept, facts.cas);
                        }
                        then();
                    }
                }
                Verdict::Fits
            }),
        );
    }

    /// Reads a leased key from the old pool and stores it in the new one.
    fn fill(self: &Rc<Proxy>, old: &Arc<Server>, key: Box<[u8]>, lease: u64, then: Then) {
        let (proxy, asked) = (Rc::clone(self), key.clone());
        self.link.request(
            old,
            |out, opaque| encode_read(out, &asked, opaque),
            Box::new(move |outcome| {
                let (found, verdict) = match found(&key, &outcome) {
                    Ok(found) => (found, Verdict::Fits),
                    Err(verdict) => (None, verdict),
                };
                match found {
                    Some((value, facts)) => proxy.store_leased(&key, lease, value, &facts, then),
                    None => proxy.end_lease(&key, lease, then),
                }
                verdict
            }),
        );
    }

    fn store_leased(
        self: &Rc<Proxy>,
        key: &[u8],
        lease: u64,
        value: &[u8],
        facts: &MetaFacts<'_>,
        then: Then,
    ) {
        let (proxy, kept): (_, Box<[u8]>) = (Rc::clone(self), key.into());
        let exptime = match facts.ttl {
            Some(None) => Exptime::Never,
            Some(Some(seconds)) if seconds > EXPTIME_RELATIVE_MAX_S => {
                Exptime::Absolute(self.now().saturating_add(seconds))
            }
            Some(Some(seconds)) => Exptime::Relative(seconds),
            None => Exptime::Relative(
                self.upstream()
                    .unknown_ttl_s
                    .clamp(1, EXPTIME_RELATIVE_MAX_S),
            ),
        };
        self.link.request(
            &self.server(key),
            |out, opaque| {
                let store = Store {
                    mode: StoreMode::Set,
                    key,
                    flags: facts.client_flags.unwrap_or(0),
                    exptime,
                    value,
                    compare: Some(lease),
                    new_cas: None,
                    invalidate: false,
                    vivify: None,
                    form: Form::Meta(meta_form(key, opaque, b"")),
                };
                encode_request(out, &Request::Store(store));
            },
            Box::new(move |outcome| {
                match &outcome {
                    Outcome::Reply(Reply::Meta(reply)) if reply.status == MetaStatus::Done => {
                        proxy.counters.migration_backfills.bump();
                        then();
                    }
                    // The key was changed or deleted meanwhile, and the lease with it.
                    Outcome::Reply(Reply::Meta(_)) => {
                        proxy.counters.migration_raced.bump();
                        then();
                    }
                    // Too large for the new pool, for instance.
                    _ => proxy.end_lease(&kept, lease, then),
                }
                Verdict::Fits
            }),
        );
    }

    /// Removes a lease that was not used, unless it has become something else.
    fn end_lease(self: &Rc<Proxy>, key: &[u8], lease: u64, then: Then) {
        self.link.request(
            &self.server(key),
            |out, opaque| {
                let request = Delete {
                    key,
                    compare: Some(lease),
                    new_cas: None,
                    invalidate: false,
                    touch: None,
                    clear: false,
                    form: Form::Meta(meta_form(key, opaque, b"")),
                };
                encode_request(out, &Request::Delete(request));
            },
            Box::new(move |_| {
                // One that stays expires.
                then();
                Verdict::Fits
            }),
        );
    }
}

/// Asks for what a copy of an item needs.
fn encode_read(out: &mut Vec<u8>, key: &[u8], opaque: &[u8]) {
    encode_retrieve(out, key, opaque, b"kftv", None);
}

/// Asks for the right to fill a key that is not there.
fn encode_lease(out: &mut Vec<u8>, key: &[u8], opaque: &[u8]) {
    encode_retrieve(
        out,
        key,
        opaque,
        b"cs",
        Some(Exptime::Relative(LEASE_SECONDS)),
    );
}

fn encode_retrieve(
    out: &mut Vec<u8>,
    key: &[u8],
    opaque: &[u8],
    letters: &[u8],
    vivify: Option<Exptime>,
) {
    let request = Retrieve {
        key,
        value: letters.contains(&b'v'),
        known_cas: None,
        new_cas: None,
        vivify,
        recache: None,
        touch: None,
        no_bump: false,
        form: meta_form(key, opaque, letters),
    };
    encode_request(out, &Request::Retrieve(request));
}

/// The value that an old server has, if that is one to go on with; an error if the answer is none.
fn found<'r>(
    key: &[u8],
    outcome: &Outcome<'r>,
) -> Result<Option<(&'r [u8], MetaFacts<'r>)>, Verdict> {
    let Outcome::Reply(reply) = outcome else {
        return Ok(None);
    };
    let Reply::Meta(reply) = reply else {
        return match reply {
            Reply::Error { .. } => Ok(None),
            _ => Err(Verdict::Garbled),
        };
    };
    let facts = reply.flags.facts();
    let about_key = facts.key.is_none_or(|told| told == key || facts.key_base64);
    match (reply.status, reply.value) {
        (MetaStatus::Miss, _) => Ok(None),
        (MetaStatus::Value, Some(value)) if about_key => {
            // What is stale, or is being renewed or filled, is left to who does so. Nor does what expires
            // within this second come along: no time to live would say so.
            let special = facts.stale || facts.won || facts.won_by_another || facts.key_base64;
            Ok((!special && facts.ttl != Some(Some(0))).then_some((value, facts)))
        }
        _ => Err(Verdict::Garbled),
    }
}

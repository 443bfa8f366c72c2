//! Bringing an item from an old pool to the one that its key moves to.
//!
//! ```text
//!   new: lease (`mg N`) ─▶ old: read ─▶ new: store if the lease still stands (`ms C`)
//! ```
//!
//! Between the read and the store the key may be deleted or flushed. That ends the lease, an item
//! without a value that only other proxies in a migration take for a miss, and the store fails.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tiercache_protocol::encode_request;
use tiercache_protocol::exptime::Exptime;
use tiercache_protocol::limits::EXPTIME_RELATIVE_MAX_S;
use tiercache_protocol::reply::{MetaFacts, MetaReply, MetaStatus, Reply};
use tiercache_protocol::request::{Delete, Form, Request, Retrieve, Store, StoreMode};

use super::Proxy;
use super::remove::Kept;
use super::stage::Before;
use crate::upstream::{Failure, Outcome, Server, Verdict, meta_form};

/// How long a lease lives if nobody ends it: longer than the two requests that it is for.
const LEASE_SECONDS: u32 = 5;
/// The first pause before another look at a key that another proxy brings; each further one is twice as long.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(1);
/// The longest such pause.
const LOOK_PAUSE_MAX: Duration = Duration::from_millis(16);

/// Hears what the pool has once bringing has ended.
type Then = Box<dyn FnOnce(Before)>;

/// For how long a key is looked at again that another proxy is about to bring.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    until: Instant,
    pause: Duration,
}

impl Patience {
    /// As long as a request to `server` may take.
    pub(super) fn of(server: &Server) -> Patience {
        Patience {
            until: Instant::now() + server.request_timeout(),
            pause: LOOK_PAUSE_MIN,
        }
    }
}

/// A key on its way from an old server to a new one.
struct Moving {
    key: Box<[u8]>,
    /// None if it is only looked at.
    old: Option<Arc<Server>>,
    new: Arc<Server>,
    /// Of the pools that these are of.
    generation: u64,
    lease: Lease,
    patience: Option<Patience>,
}

/// What a lease on the key is to the request that it is brought for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lease {
    /// No item: its end is waited for.
    NotMine,
    /// No item either, but for the client's own, which has this CAS unique.
    Mine(u64),
    /// What the request asks for, whoever fills it.
    Whoevers,
}

impl Lease {
    /// To a request that compares a CAS unique, or none.
    pub(super) fn of(compare: Option<u64>) -> Lease {
        compare.map_or(Lease::NotMine, Lease::Mine)
    }
}

/// Whether an item is a lease: it has no value, and its reader is told that another one fills it.
pub(super) fn is_lease(reply: &MetaReply<'_>, facts: &MetaFacts<'_>) -> bool {
    let is_empty =
        reply.value.is_some_and(<[u8]>::is_empty) || reply.flags.token(b's') == Some(b"0");
    facts.won_by_another && !facts.stale && is_empty
}

impl Proxy {
    /// Brings a key to the new pool if that does not have it, and tells what it has then. Where another
    /// proxy is about to do so, `patience` says for how long that is waited for. A key that nothing is
    /// brought of any more is only looked at.
    pub(super) fn bring(
        self: &Rc<Proxy>,
        key: &[u8],
        lease: Lease,
        patience: Option<Patience>,
        then: Then,
    ) {
        let members = Rc::clone(&self.members.borrow());
        let moving = Moving {
            key: key.into(),
            old: members.old_server(key).cloned(),
            new: Arc::clone(members.server(key)),
            generation: members.generation,
            lease,
            patience,
        };
        let proxy = Rc::clone(self);
        let takes_lease = moving.old.is_some();
        self.link.request(
            members.server(key),
            |out, opaque| match takes_lease {
                true => encode_lease(out, key, opaque),
                false => encode_look(out, key, opaque),
            },
            Box::new(move |outcome| proxy.looked_at(moving, then, &outcome)),
        );
    }

    fn looked_at(self: &Rc<Proxy>, moving: Moving, then: Then, outcome: &Outcome<'_>) -> Verdict {
        let reply = match outcome {
            Outcome::Reply(Reply::Meta(reply)) => reply,
            Outcome::Reply(Reply::Error { .. }) => {
                then(Before::Failed(Failure::Refused));
                return Verdict::Fits;
            }
            Outcome::Reply(_) => {
                then(Before::Failed(Failure::Lost));
                return Verdict::Garbled;
            }
            Outcome::Failed(failure) => {
                then(Before::Failed(*failure));
                return Verdict::Fits;
            }
        };
        let facts = reply.flags.facts();
        let lives_short = matches!(facts.ttl, Some(Some(..=LEASE_SECONDS)));
        match facts.cas {
            // It does not count them (`-C`): nothing can be made to depend on one, nothing is brought.
            Some(0) => {
                let proxy = Rc::clone(self);
                let Moving { key, new, .. } = moving;
                match facts.won && !facts.stale {
                    true => proxy.delete_at(&new, &key, Kept::Not, |_| then(Before::Unknown)),
                    false => then(Before::Unknown),
                }
            }
            None if reply.status == MetaStatus::Miss => then(Before::Absent),
            Some(lease) if facts.won && !facts.stale && moving.old.is_some() => {
                self.fill(moving, lease, then);
            }
            // Its time to live tells a lease from an item that a client is to fill.
            Some(cas) if is_lease(reply, &facts) && lives_short => match moving.lease {
                Lease::Mine(mine) if mine == cas => then(Before::Present(cas)),
                Lease::Whoevers => then(Before::Unknown),
                _ => self.look_again(moving, then),
            },
            Some(cas) => {
                if facts.won {
                    self.give_back(&moving.new, &moving.key, facts.cas);
                }
                then(Before::Present(cas));
            }
            None => {
                then(Before::Failed(Failure::Lost));
                return Verdict::Garbled;
            }
        }
        Verdict::Fits
    }

    fn look_again(self: &Rc<Proxy>, moving: Moving, then: Then) {
        let Some(Patience { until, pause }) = moving.patience else {
            return then(Before::Unknown);
        };
        if Instant::now() + pause > until {
            return then(Before::Failed(Failure::TimedOut));
        }
        let patience = Patience {
            until,
            pause: (pause * 2).min(LOOK_PAUSE_MAX),
        };
        let proxy = Rc::clone(self);
        self.link.after(pause, move || {
            proxy.bring(&moving.key, moving.lease, Some(patience), then);
        });
    }

    /// Reads a leased key from the old pool and stores it in the new one.
    fn fill(self: &Rc<Proxy>, moving: Moving, lease: u64, then: Then) {
        let old = match &moving.old {
            Some(old) if !old.missed_delete(&moving.key) => Arc::clone(old),
            _ => return self.end_lease(moving, lease, Some(Failure::Down), then),
        };
        let (proxy, key) = (Rc::clone(self), moving.key.clone());
        self.link.request(
            &old,
            |out, opaque| encode_read(out, &key, opaque),
            Box::new(move |outcome| {
                let (found, verdict) = match found(&moving.key, &outcome) {
                    Ok(found) => (found, Verdict::Fits),
                    Err(verdict) => (None, verdict),
                };
                let unanswered = match outcome {
                    Outcome::Failed(failure) => Some(failure),
                    Outcome::Reply(_) => None,
                };
                // Once the pools are replaced, others may delete the key without doing so in the old pool.
                let stands = proxy.upstream().pools.generation() == moving.generation;
                match found.filter(|_| stands) {
                    Some((value, facts)) => {
                        proxy.store_leased(moving, lease, value, &facts, then);
                    }
                    None => proxy.end_lease(moving, lease, unanswered, then),
                }
                verdict
            }),
        );
    }

    fn store_leased(
        self: &Rc<Proxy>,
        moving: Moving,
        lease: u64,
        value: &[u8],
        facts: &MetaFacts<'_>,
        then: Then,
    ) {
        let (proxy, new, key) = (Rc::clone(self), Arc::clone(&moving.new), moving.key.clone());
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
            &new,
            |out, opaque| {
                let store = Store {
                    mode: StoreMode::Set,
                    key: &key,
                    flags: facts.client_flags.unwrap_or(0),
                    exptime,
                    value,
                    compare: Some(lease),
                    new_cas: None,
                    invalidate: false,
                    vivify: None,
                    form: Form::Meta(meta_form(&key, opaque, b"c")),
                };
                encode_request(out, &Request::Store(store));
            },
            Box::new(move |outcome| {
                match &outcome {
                    Outcome::Reply(Reply::Meta(reply)) if reply.status == MetaStatus::Done => {
                        proxy.counters.migration_backfills.bump();
                        then(reply.flags.cas().map_or(Before::Unknown, Before::Present));
                    }
                    // The key was changed or deleted meanwhile, and the lease with it.
                    Outcome::Reply(Reply::Meta(_)) => {
                        proxy.counters.migration_raced.bump();
                        proxy.look_again(moving, then);
                    }
                    // Too large for the new pool, for instance.
                    Outcome::Reply(Reply::Error { .. }) => {
                        proxy.end_lease(moving, lease, None, then);
                    }
                    Outcome::Reply(_) => {
                        then(Before::Failed(Failure::Lost));
                        return Verdict::Garbled;
                    }
                    Outcome::Failed(failure) => {
                        proxy.end_lease(moving, lease, Some(*failure), then);
                    }
                }
                Verdict::Fits
            }),
        );
    }

    /// Removes a lease that was not used, unless it has become something else. There is no item under the
    /// key then, if `unanswered` does not say that somebody might have one. With `private` what the old pool does
    /// not tell counts as lost: the key is deleted there before anybody reads it.
    fn end_lease(
        self: &Rc<Proxy>,
        moving: Moving,
        lease: u64,
        unanswered: Option<Failure>,
        then: Then,
    ) {
        let (proxy, key, new) = (Rc::clone(self), moving.key.clone(), Arc::clone(&moving.new));
        let unanswered = unanswered.filter(|_| self.others_read());
        self.link.request(
            &new,
            |out, opaque| {
                let request = Delete {
                    key: &key,
                    compare: Some(lease),
                    new_cas: None,
                    invalidate: false,
                    touch: None,
                    clear: false,
                    form: Form::Meta(meta_form(&key, opaque, b"")),
                };
                encode_request(out, &Request::Delete(request));
            },
            Box::new(move |outcome| {
                // One that stays expires.
                let found = match (&outcome, unanswered) {
                    (Outcome::Failed(failure), _) => Before::Failed(*failure),
                    (_, Some(failure)) => Before::Failed(failure),
                    (Outcome::Reply(Reply::Meta(reply)), None) => match reply.status {
                        MetaStatus::Done | MetaStatus::NotFound => Before::Absent,
                        MetaStatus::Exists => {
                            proxy.look_again(moving, then);
                            return Verdict::Fits;
                        }
                        _ => Before::Failed(Failure::Lost),
                    },
                    (Outcome::Reply(_), None) => Before::Failed(Failure::Refused),
                };
                then(found);
                Verdict::Fits
            }),
        );
    }
}

/// Asks for what a copy of an item needs.
pub(super) fn encode_read(out: &mut Vec<u8>, key: &[u8], opaque: &[u8]) {
    encode_retrieve(out, key, opaque, b"kftv", None);
}

/// Asks for the right to fill a key that is not there.
fn encode_lease(out: &mut Vec<u8>, key: &[u8], opaque: &[u8]) {
    encode_retrieve(
        out,
        key,
        opaque,
        b"cst",
        Some(Exptime::Relative(LEASE_SECONDS)),
    );
}

/// Asks for what tells a lease from an item.
fn encode_look(out: &mut Vec<u8>, key: &[u8], opaque: &[u8]) {
    encode_retrieve(out, key, opaque, b"cst", None);
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
pub(super) fn found<'r>(
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

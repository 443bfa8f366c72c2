//! How far a request has come that takes several steps at its pools, as in a [migration](super::migrate).

use std::cell::Cell;
use std::time::Instant;

use tiercache_protocol::reply::{MetaReply, MetaStatus, Reply};
use tokio::sync::oneshot;

use super::super::{Flow, For, Progress, Wait};
use super::Proxy;
use crate::upstream::{Failure, Outcome};

/// A CAS unique that no server gives out.
const CAS_OF_NOTHING: u64 = u64::MAX;

/// How far a request over a pool has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in super::super) enum Stage {
    /// What has to be done before it is executed is not done.
    #[default]
    Begins,
    /// That is done.
    Prepared(Before),
    /// Its answer has come.
    Answered,
}

/// What was found before a request is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in super::super) enum Before {
    /// Nothing was looked for.
    #[default]
    Unknown,
    /// Neither the pool nor the one that its key moves from has an item.
    Absent,
    /// The pool has one, with this CAS unique.
    Present(u64),
    /// What had to be done first was not done.
    Failed(Failure),
}

impl Before {
    /// The CAS unique that the pool is to find if nothing has changed since.
    pub(super) fn cas(self) -> Option<u64> {
        match self {
            Before::Unknown | Before::Failed(_) => None,
            Before::Absent => Some(CAS_OF_NOTHING),
            Before::Present(cas) => Some(cas),
        }
    }
}

/// What becomes of the answer to a request that was executed for what had been found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes to the client.
    Stays,
    /// It goes to the client with this status.
    Becomes(MetaStatus),
    /// What was found has changed since: the request has to be executed anew.
    Again,
}

impl Before {
    /// Of an answer to a request that was made to depend on [`Before::cas`]; `absent` is that for a key without an item.
    pub(super) fn fate(self, status: Option<MetaStatus>, absent: MetaStatus) -> Fate {
        match (self, status) {
            (Before::Absent | Before::Present(_), Some(MetaStatus::Exists)) => Fate::Again,
            (Before::Absent | Before::Present(_), Some(MetaStatus::NotFound)) => {
                Fate::Becomes(absent)
            }
            _ => Fate::Stays,
        }
    }

    /// Of an answer to a request that the client made to depend on a CAS unique.
    pub(super) fn fate_of_compare(self, status: Option<MetaStatus>) -> Fate {
        match (self, status) {
            // It may have met a lease.
            (Before::Absent, Some(MetaStatus::Exists)) => Fate::Again,
            _ => Fate::Stays,
        }
    }

    /// Of an answer to `add`: what it met may be a lease.
    pub(super) fn fate_of_add(self, status: Option<MetaStatus>) -> Fate {
        match (self, status) {
            (Before::Absent, Some(MetaStatus::NotStored)) => Fate::Again,
            _ => Fate::Stays,
        }
    }
}

impl Fate {
    /// The reply with another status, if it gets one.
    pub(super) fn alter<'r>(self, outcome: &Outcome<'r>) -> Option<Reply<'r>> {
        match (self, outcome) {
            (Fate::Becomes(status), Outcome::Reply(Reply::Meta(reply))) => {
                Some(Reply::Meta(MetaReply {
                    status,
                    value: None,
                    flags: reply.flags,
                }))
            }
            _ => None,
        }
    }

    /// What is answered in the end: the altered reply if there is one, and an error if the request was begun anew for
    /// too long.
    pub(super) fn settle<'r>(
        self,
        outcome: Outcome<'r>,
        altered: Option<&'r Reply<'r>>,
    ) -> Outcome<'r> {
        match (self, altered) {
            (_, Some(reply)) => Outcome::Reply(reply),
            (Fate::Again, None) => Outcome::Failed(Failure::Busy),
            _ => outcome,
        }
    }
}

/// Has a request executed anew from its first step on, by sending [`Stage::Begins`]; dropped, it is answered.
pub(super) type Again = oneshot::Sender<Stage>;

/// Held by all steps that a request waits for, and tells it what they found once the last one has let it go.
#[derive(Debug)]
pub(super) struct Steps {
    found: Cell<Before>,
    told: Option<oneshot::Sender<Stage>>,
}

impl Steps {
    pub(super) fn new(told: oneshot::Sender<Stage>) -> Steps {
        Steps {
            found: Cell::default(),
            told: Some(told),
        }
    }

    /// Notes what a step found; of several keys the last one's. A failure of one is a failure of all.
    pub(super) fn note(&self, before: Before) {
        if !matches!(self.found.get(), Before::Failed(_)) {
            self.found.set(before);
        }
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        if let Some(told) = self.told.take() {
            // Nobody waits any more if the client has left.
            let _ = told.send(Stage::Prepared(self.found.get()));
        }
    }
}

impl Proxy {
    /// What a request holds that is to be executed anew if `key` changes before it is, and how it goes on; nothing if
    /// it does not depend on what was found, or was begun anew for as long as a request may take.
    pub(super) fn repeatable(
        &self,
        key: &[u8],
        before: Before,
        progress: &mut Progress,
    ) -> (Option<Again>, Flow) {
        if before.cas().is_none() {
            return (None, Flow::Done);
        }
        let now = Instant::now();
        let until = progress
            .tried_until
            .get_or_insert_with(|| now + self.server(key).request_timeout());
        if now > *until {
            return (None, Flow::Done);
        }
        progress.stage = Stage::Answered;
        let (again, told) = oneshot::channel();
        (Some(again), Flow::Wait(Wait(For::Pool(told))))
    }
}

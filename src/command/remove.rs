//! delete md flush_all: removing items, or marking them as outdated.

use tiercache_protocol::Reject;
use tiercache_protocol::encode::{self, DeleteReply};
use tiercache_protocol::exptime::Exptime;
use tiercache_protocol::request::{Delete, Form};

use super::watch::Met;
use super::{Executor, Flow, Progress};
use crate::entry::Marks;
use crate::tier::{Attempt, Current, Decision, NewItem, Outcome, Tier, Value, View};

impl Executor {
    pub(super) fn delete(
        &mut self,
        delete: &Delete<'_>,
        progress: &mut Progress,
        out: &mut Vec<u8>,
    ) -> Flow {
        let exptime = delete.touch.map(|exptime| exptime.resolve(self.now));
        let plain = !delete.invalidate && !delete.clear;
        let room = (!plain).then_some(0);
        let mut met = None;
        let cache = &self.shared.cache;
        let outcome = cache.update(
            &mut self.local,
            &mut progress.attempt,
            delete.key,
            room,
            |current| match current {
                // Not merely kept: a copy below that could not be fetched must not come back.
                Current::Absent => Decision::Remove(DeleteReply::NotFound),
                Current::Below if plain && delete.compare.is_none() => {
                    met = Some(Met {
                        tier: Tier::Dry,
                        bytes: 0,
                    });
                    Decision::Remove(DeleteReply::Deleted)
                }
                Current::Below => Decision::Fetch,
                Current::Present(view) => {
                    met = Some(Met::new(&view));
                    if delete
                        .compare
                        .is_some_and(|compare| compare != view.facts().cas())
                    {
                        return Decision::Keep(DeleteReply::Exists);
                    }
                    if plain {
                        return Decision::Remove(DeleteReply::Deleted);
                    }
                    Decision::Store(DeleteReply::Deleted, marked(delete, exptime, &view))
                }
            },
        );
        let counters = &self.local.counters;
        Self::finish(outcome, |done| {
            if matches!(delete.form, Form::Meta(_)) {
                counters.cmd_meta.bump();
            }
            let Some((reply, _)) = done else {
                return encode::reject_as(out, &delete.form, Reject::OutOfMemoryNumber);
            };
            let deleted = met.filter(|_| reply == DeleteReply::Deleted);
            self.tell_delete(delete, deleted);
            if reply == DeleteReply::Deleted {
                &counters.delete_hits
            } else {
                &counters.delete_misses
            }
            .bump();
            encode::delete(out, &delete.form, reply);
        })
    }

    pub(super) fn flush_all(&mut self, delay: Exptime, form: &Form<'_>, out: &mut Vec<u8>) {
        self.local.counters.cmd_flush.bump();
        if !self.shared.settings.flush_enabled {
            return encode::reject_as(out, form, Reject::FlushNotAllowed);
        }
        let at = match delay {
            Exptime::Never | Exptime::Expired => None,
            later => Some(later.resolve(self.now)),
        };
        self.shared.cache.flush(at);
        encode::ok(out, form);
    }

    /// Removes a key without an answer. Under `power` durability the worker waits for the device
    /// here: a store that is refused for its size is rare.
    pub(super) fn remove_whatever(&mut self, key: &[u8]) {
        let cache = &self.shared.cache;
        let mut attempt = Attempt::default();
        while let Outcome::Blocked(blocked) = cache.update(
            &mut self.local,
            &mut attempt,
            key,
            None,
            |current| match current {
                Current::Absent => Decision::Keep(()),
                Current::Below | Current::Present(_) => Decision::Remove(()),
            },
        ) {
            cache.commit_now(blocked);
        }
    }
}

/// The item that `md` with `I` or `x` leaves behind.
fn marked<'v>(delete: &Delete<'_>, exptime: Option<u32>, view: &View<'_>) -> NewItem<'v> {
    let facts = view.facts();
    let marks = if delete.invalidate {
        let kept = if delete.clear {
            Marks::default()
        } else {
            facts.marks.without(Marks::TOKEN_SENT)
        };
        kept.with(Marks::STALE)
    } else {
        Marks::default()
    };
    let own_cas = match (delete.new_cas, delete.invalidate) {
        (Some(cas), _) => Some(cas),
        (None, true) => None,
        // An emptied item keeps its CAS unique.
        (None, false) => Some(facts.cas()),
    };
    if delete.clear {
        let exptime = exptime.unwrap_or(0);
        NewItem {
            flags: 0,
            exptime,
            own_cas,
            marks,
            value: Value::Bytes(&[]),
        }
    } else {
        let exptime = exptime.unwrap_or(facts.exptime);
        NewItem {
            flags: facts.flags,
            exptime,
            own_cas,
            marks,
            value: Value::Present,
        }
    }
}

//! set add replace append prepend cas ms: storing items.

use tiercache_protocol::encode::{self, StoreFacts, StoreReply};
use tiercache_protocol::request::{Form, Store, StoreMode};

use super::meta::key_mark;
use super::{Executor, Flow, Progress};
use crate::clock::UnixSeconds;
use crate::entry::Marks;
use crate::metrics::Counters;
use crate::tier::{Current, Decision, NewItem, Value, View};

/// Bytes of an item beside key and value that count towards `-I`, as memcached counts them.
const ITEM_OVERHEAD_BYTES: usize = tiercache_protocol::limits::ITEM_HEADER_BYTES;

/// How comparing CAS uniques ended, for the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compared {
    None,
    Hit,
    Miss,
    BadValue,
}

/// What a store comes to.
type Result = (StoreReply, Compared, usize);

impl Executor {
    pub(super) fn store(
        &mut self,
        store: &Store<'_>,
        progress: &mut Progress,
        out: &mut Vec<u8>,
    ) -> Flow {
        let exptime = store.exptime.resolve(self.now);
        let vivify = store.vivify.map(|exptime| exptime.resolve(self.now));
        let item_size_max = self.shared.settings.item_size_max;
        let outcome = self.shared.cache.update(
            &mut self.local,
            &mut progress.attempt,
            store.key,
            Some(store.value.len()),
            |current| decide(store, exptime, vivify, item_size_max, current),
        );
        let cas_enabled = self.shared.settings.cas_enabled;
        let mut no_memory = false;
        let flow = Self::finish(outcome, |done| {
            no_memory = done.is_none();
            let ((reply, compared, size), cas) = done.unwrap_or((
                (StoreReply::OutOfMemory, Compared::None, store.value.len()),
                0,
            ));
            count_store(&self.local.counters, store, reply, compared);
            self.tell_store(store, vivify.unwrap_or(exptime), reply, size);
            let facts = StoreFacts {
                cas: if cas_enabled { cas } else { 0 },
                size: size as u32,
            };
            encode::store(out, &store.form, facts, reply);
        });
        if no_memory && store.mode == StoreMode::Set && store.compare.is_none() {
            // The old value must not outlive the store that failed.
            self.remove_whatever(store.key);
        }
        flow
    }
}

fn count_store(counters: &Counters, store: &Store<'_>, reply: StoreReply, compared: Compared) {
    counters.cmd_set.bump();
    if matches!(store.form, Form::Meta(_)) {
        counters.cmd_meta.bump();
    }
    if reply == StoreReply::Stored {
        counters.total_items.bump();
    }
    match compared {
        Compared::None => {}
        Compared::Hit => counters.cas_hits.bump(),
        Compared::Miss => counters.cas_misses.bump(),
        Compared::BadValue => counters.cas_badval.bump(),
    }
}

fn decide<'v>(
    store: &Store<'v>,
    exptime: UnixSeconds,
    vivify: Option<UnixSeconds>,
    item_size_max: usize,
    current: Current<'_>,
) -> Decision<'v, Result> {
    let compares =
        matches!(store.mode, StoreMode::Set | StoreMode::Replace) && store.compare.is_some();
    match current {
        // Only an unconditional set can do without the item below.
        Current::Below if store.mode == StoreMode::Set && !compares => {
            new_item(store, exptime, Marks::default(), Compared::None)
        }
        Current::Below => Decision::Fetch,
        Current::Absent => match store.mode {
            StoreMode::Set | StoreMode::Replace if compares => {
                Decision::Keep((StoreReply::NotFound, Compared::Miss, store.value.len()))
            }
            StoreMode::Set | StoreMode::Add => {
                new_item(store, exptime, Marks::default(), Compared::None)
            }
            StoreMode::Append | StoreMode::Prepend if vivify.is_some() => new_item(
                store,
                vivify.unwrap_or(exptime),
                Marks::default(),
                Compared::None,
            ),
            _ => Decision::Keep((StoreReply::NotStored, Compared::None, store.value.len())),
        },
        Current::Present(view) if compares => compare_and_store(store, exptime, &view),
        Current::Present(view) => match store.mode {
            StoreMode::Set | StoreMode::Replace => {
                new_item(store, exptime, Marks::default(), Compared::None)
            }
            StoreMode::Add => Decision::Change(
                (StoreReply::NotStored, Compared::None, store.value.len()),
                crate::tier::Change::default(),
            ),
            StoreMode::Append | StoreMode::Prepend => extend(store, &view, item_size_max),
        },
    }
}

fn new_item<'v>(
    store: &Store<'v>,
    exptime: UnixSeconds,
    marks: Marks,
    compared: Compared,
) -> Decision<'v, Result> {
    let key_mark = match &store.form {
        Form::Meta(form) => key_mark(form),
        Form::Classic { .. } | Form::Binary(_) => Marks::default(),
    };
    Decision::Store(
        (StoreReply::Stored, compared, store.value.len()),
        NewItem {
            flags: store.flags,
            exptime,
            own_cas: store.new_cas,
            marks: marks.with(key_mark),
            value: Value::Bytes(store.value),
        },
    )
}

fn compare_and_store<'v>(
    store: &Store<'v>,
    exptime: UnixSeconds,
    view: &View<'_>,
) -> Decision<'v, Result> {
    let facts = view.facts();
    let compare = store.compare.unwrap_or(0);
    if compare != 0 && compare == facts.cas() {
        return new_item(store, exptime, Marks::default(), Compared::Hit);
    }
    if compare != 0 && store.invalidate && compare < facts.cas() {
        // An outdated value is better than none while somebody fetches the right one.
        let token = if facts.marks.has(Marks::TOKEN_SENT) {
            Marks::TOKEN_SENT
        } else {
            Marks::default()
        };
        return new_item(
            store,
            facts.exptime,
            Marks::STALE.with(token),
            Compared::Hit,
        );
    }
    Decision::Keep((StoreReply::Exists, Compared::BadValue, store.value.len()))
}

fn extend<'v>(store: &Store<'v>, view: &View<'_>, item_size_max: usize) -> Decision<'v, Result> {
    let facts = view.facts();
    if store
        .compare
        .is_some_and(|compare| compare != 0 && compare != facts.cas())
    {
        return Decision::Keep((StoreReply::Exists, Compared::None, store.value.len()));
    }
    let size = view.value_bytes() + store.value.len();
    if size + store.key.len() + ITEM_OVERHEAD_BYTES > item_size_max {
        return Decision::Keep((StoreReply::NotStored, Compared::None, store.value.len()));
    }
    Decision::Store(
        (StoreReply::Stored, Compared::None, size),
        NewItem {
            flags: facts.flags,
            exptime: facts.exptime,
            own_cas: store.new_cas,
            marks: Marks::default(),
            value: match store.mode {
                StoreMode::Append => Value::PresentThen(store.value),
                _ => Value::ThenPresent(store.value),
            },
        },
    )
}

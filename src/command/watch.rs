//! watch, and telling watchers and the log what clients do.

use tiercache_protocol::encode::{self, StoreReply};
use tiercache_protocol::request::{Delete, Form, Request, Store, StoreMode};
use tiercache_protocol::{Reject, encode::encode_request};

use super::detail;
use super::{Executor, Flow, Progress, Shared};
use crate::clock::UnixSeconds;
use crate::escape::Logged;
use crate::ratelimit::RateLimit;
use crate::tier::{Tier, View};
use crate::watch::{Event, Kinds};

/// Requests that `-vv` logs each second; beyond it they are counted.
const LOGGED_COMMANDS_PER_SECOND: u32 = 1000;

static LOGGED: RateLimit = RateLimit::new(LOGGED_COMMANDS_PER_SECOND);

/// An item that an operation met, for those who watch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Met {
    pub(super) tier: Tier,
    pub(super) bytes: usize,
}

impl Met {
    pub(super) fn new(view: &View<'_>) -> Met {
        Met {
            tier: view.tier(),
            bytes: view.value_bytes(),
        }
    }
}

impl Shared {
    /// Counts what happened to a key, where `stats detail` is on.
    #[inline]
    pub(super) fn count_prefix(&self, key: &[u8], event: detail::Event) {
        if self.watch.wants(Kinds::PREFIXES) {
            self.detail.count(key, event);
        }
    }
}

impl Executor {
    pub(super) fn watch(&self, arguments: &[u8], out: &mut Vec<u8>) -> Flow {
        if !self.shared.settings.watch_enabled {
            out.extend_from_slice(b"CLIENT_ERROR watch commands not allowed\r\n");
            return Flow::Done;
        }
        let mut names = arguments
            .split(|byte| *byte == b' ')
            .filter(|name| !name.is_empty())
            .peekable();
        let kinds = if names.peek().is_none() {
            Some(Kinds::FETCHERS)
        } else {
            names.try_fold(Kinds::NONE, |all, name| Some(all.with(Kinds::named(name)?)))
        };
        let Some(kinds) = kinds else {
            return Self::refuse(out, Reject::Unknown);
        };
        match self.shared.watch.subscribe(kinds) {
            Some(subscription) => {
                encode::ok(out, &Form::TEXT);
                Flow::Watch(Box::new(subscription))
            }
            None => {
                out.extend_from_slice(b"WATCHER_TOO_MANY log watcher limit reached\r\n");
                Flow::Done
            }
        }
    }

    /// Tells of a request that is about to be executed.
    #[inline]
    pub(super) fn tell_request(&self, request: &Request<'_>, progress: &mut Progress) {
        if self.shared.watch.wants(Kinds::COMMANDS) {
            self.tell_request_as_text(request, progress);
        }
    }

    #[cold]
    fn tell_request_as_text(&self, request: &Request<'_>, progress: &mut Progress) {
        if std::mem::replace(&mut progress.told, true) {
            return;
        }
        // Watchers and the log are shown lines, which a packet has none of, as in memcached.
        if request.binary_form().is_some() {
            return;
        }
        let mut text = Vec::new();
        encode_request(&mut text, request);
        self.tell_line(&text);
    }

    /// Tells of bytes that are no request, or of one as text: the first line of it.
    #[cold]
    pub fn tell_line(&self, bytes: &[u8]) {
        let end = memchr::memchr2(b'\r', b'\n', bytes).unwrap_or(bytes.len());
        let (line, fd) = (&bytes[..end], self.client);
        let watch = &self.shared.watch;
        if watch.wants(Kinds::RAW_COMMANDS) {
            watch.tell(&Event::Command { line, fd });
        }
        if watch.wants(Kinds::LOGGED_COMMANDS)
            && let Some(left_out) = LOGGED.pass(self.now)
        {
            if left_out > 0 {
                tracing::debug!(left_out, "requests that are not logged");
            }
            tracing::debug!(socket = fd, "request {}", Logged(line));
        }
    }

    /// Tells that a key was asked for.
    #[inline]
    pub(super) fn tell_get(&self, key: &[u8], met: Option<Met>) {
        if self
            .shared
            .watch
            .wants(Kinds::FETCHERS.with(Kinds::PREFIXES))
        {
            self.tell_wanted_get(key, met);
        }
    }

    #[cold]
    fn tell_wanted_get(&self, key: &[u8], met: Option<Met>) {
        let watch = &self.shared.watch;
        let event = match met {
            Some(_) => detail::Event::Hit,
            None => detail::Event::Miss,
        };
        self.shared.count_prefix(key, event);
        if watch.wants(Kinds::FETCHERS) {
            watch.tell(&Event::Fetched {
                key,
                found: met.map(|met| (met.tier.class(), met.bytes)),
                fd: self.client,
            });
        }
    }

    /// Tells how a store ended.
    #[inline]
    pub(super) fn tell_store(
        &self,
        store: &Store<'_>,
        exptime: UnixSeconds,
        reply: StoreReply,
        bytes: usize,
    ) {
        if self
            .shared
            .watch
            .wants(Kinds::MUTATIONS.with(Kinds::PREFIXES))
        {
            self.tell_wanted_store(store, exptime, reply, bytes);
        }
    }

    #[cold]
    fn tell_wanted_store(
        &self,
        store: &Store<'_>,
        exptime: UnixSeconds,
        reply: StoreReply,
        bytes: usize,
    ) {
        let watch = &self.shared.watch;
        self.shared.count_prefix(store.key, detail::Event::Set);
        if watch.wants(Kinds::MUTATIONS) {
            watch.tell(&Event::Stored {
                key: store.key,
                status: match reply {
                    StoreReply::Stored => "stored",
                    StoreReply::NotStored => "not_stored",
                    StoreReply::Exists => "exists",
                    StoreReply::NotFound => "not_found",
                    StoreReply::TooLarge => "too_large",
                    StoreReply::OutOfMemory => "no_memory",
                },
                command: match store.mode {
                    StoreMode::Set | StoreMode::Replace if store.compare.is_some() => "cas",
                    StoreMode::Set => "set",
                    StoreMode::Add => "add",
                    StoreMode::Replace => "replace",
                    StoreMode::Append => "append",
                    StoreMode::Prepend => "prepend",
                },
                ttl: self.ttl(exptime).unwrap_or(0),
                class: Tier::Hot.class(),
                fd: self.client,
                bytes,
            });
        }
    }

    /// Tells that a delete was asked for, and of the item that it met.
    #[inline]
    pub(super) fn tell_delete(&self, delete: &Delete<'_>, deleted: Option<Met>) {
        if self
            .shared
            .watch
            .wants(Kinds::DELETIONS.with(Kinds::PREFIXES))
        {
            self.tell_wanted_delete(delete, deleted);
        }
    }

    #[cold]
    fn tell_wanted_delete(&self, delete: &Delete<'_>, deleted: Option<Met>) {
        let watch = &self.shared.watch;
        self.shared.count_prefix(delete.key, detail::Event::Delete);
        if watch.wants(Kinds::DELETIONS)
            && let Some(met) = deleted
        {
            watch.tell(&Event::Deleted {
                key: delete.key,
                command: match delete.form {
                    Form::Meta(_) => "md",
                    _ => "delete",
                },
                class: met.tier.class(),
                bytes: met.bytes,
            });
        }
    }
}

//! Reads that a copy answers: at once, or with `strict` once the pool has confirmed it.

use std::rc::Rc;
use std::sync::atomic::Ordering::{AcqRel, Acquire};

use tiercache_protocol::encode;
use tiercache_protocol::exptime::Exptime;
use tiercache_protocol::request::{Get, GetOne, Retrieve};

use super::super::detail::Event;
use super::super::late::Late;
use super::super::meta::write_hit;
use super::super::value::{write_packet, write_value};
use super::super::{Executor, Flow, OUT_BYTES_SOFT_MAX, Progress, is_plain};
use super::read::{AnswerAs, Read};
use super::{Place, Proxy};
use crate::tier::{Attempt, Lookup, Outcome as Found, View};

/// What a copy can answer of `mg`: not its times in the pool.
const COPY_ANSWERS: &[u8] = b"bcfkOsv";

/// A copy that is served if the pool says that it is current.
#[derive(Debug, Clone, Copy)]
pub(super) struct CopyToConfirm {
    pub(super) cas: u64,
    /// The [connections made](crate::upstream::Server::connections_made) to its server by then.
    connections: u64,
}

impl AnswerAs {
    /// Answers a `get` from a copy; `mg` has its own way.
    fn write_copy(&self, out: &mut Vec<u8>, key: &[u8], view: &View<'_>, cas_enabled: bool) {
        match self {
            AnswerAs::Values { with_cas } => {
                write_value(out, key, view, *with_cas, cas_enabled);
            }
            AnswerAs::Packet(form) => {
                write_packet(out, *form, key, view, cas_enabled);
            }
            AnswerAs::Meta(_) => {}
        }
    }
}

impl Executor {
    pub(super) fn get_over_pool(
        &mut self,
        proxy: &Rc<Proxy>,
        get: &Get<'_>,
        progress: &mut Progress,
        late: &Rc<Late>,
        out: &mut Vec<u8>,
    ) -> Flow {
        let mut keys = get.keys.clone();
        if progress.keys_done > 0 {
            keys.nth(progress.keys_done - 1);
        }
        for key in keys {
            if late.is_full() || out.len() > OUT_BYTES_SOFT_MAX {
                return Flow::Flush;
            }
            progress.keys_done += 1;
            let with_cas = get.with_cas;
            self.get_key_over_pool(
                proxy,
                key,
                AnswerAs::Values { with_cas },
                get.touch,
                late,
                out,
            );
        }
        if get.last {
            encode::end(out);
        }
        Flow::Done
    }

    /// The one key of a packet.
    pub(super) fn get_one_over_pool(
        &mut self,
        proxy: &Rc<Proxy>,
        get: &GetOne<'_>,
        late: &Rc<Late>,
        out: &mut Vec<u8>,
    ) {
        self.get_key_over_pool(
            proxy,
            get.key,
            AnswerAs::Packet(get.form),
            get.touch,
            late,
            out,
        );
    }

    /// Answers a key from its copy where that is current, else leaves it to the pool.
    fn get_key_over_pool(
        &mut self,
        proxy: &Rc<Proxy>,
        key: &[u8],
        answer_as: AnswerAs,
        touch: Option<Exptime>,
        late: &Rc<Late>,
        out: &mut Vec<u8>,
    ) {
        let mut copy = None;
        if touch.is_none() && proxy.has_copies() {
            if !proxy.has_current_copies() {
                // In this order: a connection that is made after it was looked up is noticed.
                let connections = proxy.drop_copies_of_former_process(key);
                copy = self
                    .copy_cas(key)
                    .map(|cas| CopyToConfirm { cas, connections });
            } else if self.get_copy(key, &answer_as, out) {
                return;
            }
        }
        proxy.get(key, answer_as, touch, copy, Place::at(late, out.len()));
    }

    /// Answers a key from its copy; false if there is none.
    #[inline]
    fn get_copy(&mut self, key: &[u8], answer_as: &AnswerAs, out: &mut Vec<u8>) -> bool {
        let cas_enabled = self.shared.settings.cas_enabled;
        let found = self
            .shared
            .cache
            .read(&mut self.local, &mut Attempt::default(), key, |view| {
                answer_as.write_copy(out, key, &view, cas_enabled);
                Some(())
            });
        let hit = is_hit(&found);
        if hit {
            self.count_copy(key);
        }
        hit
    }

    fn copy_cas(&mut self, key: &[u8]) -> Option<u64> {
        let mut cas = None;
        // Only looked at: whether it is served is decided once the pool has answered.
        let _ = self
            .shared
            .cache
            .read(&mut self.local, &mut Attempt::default(), key, |view| {
                cas = Some(view.facts().cas());
                None::<()>
            });
        cas
    }

    /// Answers `mg` from a copy; false if there is none, or it cannot answer this.
    pub(super) fn retrieve_copy(
        &mut self,
        proxy: &Proxy,
        retrieve: &Retrieve<'_>,
        out: &mut Vec<u8>,
    ) -> bool {
        let letters = retrieve.form.returns.letters();
        if !proxy.has_current_copies()
            || retrieve.form.key_base64
            || !is_plain(retrieve)
            || !letters.iter().all(|letter| COPY_ANSWERS.contains(letter))
        {
            return false;
        }
        let (now, cas_enabled) = (self.now, self.shared.settings.cas_enabled);
        let found = self.shared.cache.read(
            &mut self.local,
            &mut Attempt::default(),
            retrieve.key,
            |view| {
                let facts = view.facts();
                let exptime = facts.exptime;
                write_hit(
                    out,
                    retrieve,
                    &view,
                    &facts,
                    exptime,
                    false,
                    now,
                    cas_enabled,
                );
                Some(())
            },
        );
        let hit = is_hit(&found);
        if hit {
            self.local.counters.cmd_meta.bump();
            self.count_copy(retrieve.key);
        }
        hit
    }

    fn count_copy(&self, key: &[u8]) {
        let counters = &self.local.counters;
        counters.cmd_get.bump();
        counters.get_hits.bump();
        counters.hot_hits.bump();
        self.shared.count_prefix(key, Event::Hit);
    }
}

fn is_hit(found: &Found<Lookup<()>>) -> bool {
    matches!(
        found,
        Found::Done {
            result: Lookup::Hit(()),
            ..
        }
    )
}

impl Proxy {
    /// Drops the copies of what a former process at the address of a key's server had. What a new
    /// one says of their CAS uniques is about its own items. Tells the connections made so far.
    fn drop_copies_of_former_process(&self, key: &[u8]) -> u64 {
        let server = self.server(key);
        let made = server.connections_made();
        if server.copies_since.load(Acquire) < made {
            if let Some(copies) = self.copies() {
                copies.flush();
            }
            server.copies_since.fetch_max(made, AcqRel);
        }
        made
    }

    /// Answers from the copy that the pool has confirmed, or asks for the value if the copy has gone
    /// or may be of a former process.
    pub(super) fn confirmed(self: &Rc<Proxy>, read: Rc<Read>, place: Place) {
        let made = self.server(&read.key).connections_made();
        let copy = read.copy.filter(|copy| copy.connections == made);
        let mut answer = Vec::new();
        let found = self.shared.cache.read(
            &mut self.local.borrow_mut(),
            &mut Attempt::default(),
            &read.key,
            |view| {
                let cas = view.facts().cas();
                copy.is_some_and(|copy| copy.cas == cas).then(|| {
                    read.answer_as
                        .write_copy(&mut answer, &read.key, &view, true);
                })
            },
        );
        if is_hit(&found) {
            self.count_read(&read, Event::Hit);
            self.counters.hot_hits.bump();
            place.fill(|out| out.extend_from_slice(&answer));
        } else {
            let answer_as = match read.answer_as {
                AnswerAs::Values { with_cas } => AnswerAs::Values { with_cas },
                AnswerAs::Packet(form) => AnswerAs::Packet(form),
                AnswerAs::Meta(_) => return self.miss(&read, place),
            };
            self.get(&read.key, answer_as, None, None, place);
        }
    }
}

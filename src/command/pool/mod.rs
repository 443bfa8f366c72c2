//! Commands over an upstream pool: the pool decides, this process holds copies.
//!
//! ```text
//!   read   copy ── hit ─▶ answer                        (strict: only once the pool says it is current)
//!           └ miss ─▶ mg … ─▶ hole in the answers ◀─ reply ─▶ keep a copy
//!   write  drop the copy ─▶ ms md ma … ─▶ hole ◀─ reply ─▶ keep a copy of what a store took
//! ```
//!
//! Every request is written anew from its parsed fields, as a meta command where there is one, and
//! every reply is read and written anew. A server that does not answer makes reads misses and
//! writes errors.

mod answer;
mod bring;
mod copy;
mod migrate;
mod read;
mod relay;
mod remove;
mod stage;
mod stats;
mod write;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use tiercache_protocol::binary::Status;
use tiercache_protocol::encode;
use tiercache_protocol::exptime::Exptime;
use tiercache_protocol::request::{Form, MetaForm, Request};

use super::late::{Hole, Late};
use super::{Executor, Flow, For, Progress, Shared, Wait};
use crate::clock::UnixSeconds;
use crate::metrics::Counters;
use crate::tier::{Copied, Copies, Fence, Local};
use crate::upstream::config::Sharing;
use crate::upstream::{Dialect, Failure, Home, Link, Members, Pools, Server, Verdict};
use remove::Kept;
pub(super) use stage::Stage;
use stage::{Again, Before};

/// The pools that a process answers from.
pub struct Upstream {
    /// The servers.
    pub pools: Arc<Pools>,
    /// Copies in RAM; none for a mere proxy.
    pub copies: Option<Copies>,
    /// Who else writes to the pools.
    pub sharing: Sharing,
    /// Seconds that an item lives whose time to live a pool does not tell.
    pub unknown_ttl_s: u32,
}

/// A worker's way to the pools.
pub(super) struct Proxy {
    shared: Arc<Shared>,
    link: Link,
    local: RefCell<Local>,
    counters: Arc<Counters>,
    /// Deletes with `x` that were sent, see [`Read`](read::Read).
    clears: Cell<u64>,
    /// Counted for this thread, so that a look at them needs no atomic instruction.
    members: RefCell<Rc<Known>>,
}

/// The pools as a worker knows them.
struct Known {
    generation: u64,
    members: Arc<Members>,
}

impl std::ops::Deref for Known {
    type Target = Members;

    fn deref(&self) -> &Members {
        &self.members
    }
}

/// A read or write of a pool that is under way.
#[derive(Debug, Clone, Copy)]
struct Guard {
    /// Where there are copies.
    fence: Option<Fence>,
    /// Of the pools that it went to.
    generation: u64,
}

/// What a request over a pool needs to be answered.
struct Place {
    late: Rc<Late>,
    hole: Hole,
}

impl Place {
    /// The place of an answer that belongs behind so many bytes of the connection's.
    fn at(late: &Rc<Late>, bytes: usize) -> Place {
        Place {
            hole: late.make_hole(bytes),
            late: Rc::clone(late),
        }
    }

    fn fill(self, write: impl FnOnce(&mut Vec<u8>)) {
        self.late.fill(self.hole, write);
    }
}

impl Proxy {
    /// The proxy of worker number `worker`, if there are pools.
    pub(super) fn new(shared: &Arc<Shared>, worker: usize) -> Option<Rc<Proxy>> {
        let upstream = shared.upstream.as_ref()?;
        let generation = upstream.pools.generation();
        let local = shared.cache.local(worker);
        Some(Rc::new(Proxy {
            link: Link::new(shared.settings.item_size_max),
            counters: Arc::clone(&local.counters),
            clears: Cell::default(),
            local: RefCell::new(local),
            members: RefCell::new(Rc::new(Known {
                generation,
                members: upstream.pools.members(),
            })),
            shared: Arc::clone(shared),
        }))
    }

    /// See [`Link::settle`].
    pub(super) fn settle(&self, home: Box<dyn Home>) {
        self.link.settle(home);
    }

    /// See [`Link::needs_runtime`].
    pub(super) fn needs_runtime(&self) -> bool {
        self.link.needs_runtime()
    }

    fn upstream(&self) -> &Upstream {
        let upstream = self.shared.upstream.as_ref();
        upstream.expect("a proxy is only made where there are pools")
    }

    /// Whether items may be found in RAM.
    pub(super) fn has_copies(&self) -> bool {
        self.copies().is_some()
    }

    /// Whether a copy that is found in RAM may be served without asking the pool.
    #[inline]
    pub(super) fn has_current_copies(&self) -> bool {
        self.has_copies() && self.upstream().sharing != Sharing::Strict
    }

    fn copies(&self) -> Option<&Copies> {
        self.upstream().copies.as_ref()
    }

    /// Notices when the pools have been replaced. Called once for all requests of a read batch.
    pub(super) fn refresh(&self) {
        self.link.tick();
        let pools = &self.upstream().pools;
        let generation = pools.generation();
        let mut known = self.members.borrow_mut();
        if known.generation != generation {
            *known = Rc::new(Known {
                generation,
                members: pools.members(),
            });
            self.link.keep_only(known.servers());
            // The CAS uniques of a key's new server say nothing about a copy of its former one.
            if let Some(copies) = self.copies()
                && self.upstream().sharing == Sharing::Strict
            {
                copies.flush();
            }
        }
    }

    fn server(&self, key: &[u8]) -> Arc<Server> {
        Arc::clone(self.members.borrow().server(key))
    }

    /// Whether the server compares a CAS unique for `mg`.
    fn compares(&self, server: &Arc<Server>) -> bool {
        self.link.connection(server).dialect() == Some(Dialect::MetaCompare)
    }

    fn begin_read(&self, key: &[u8]) -> Guard {
        let copies = self.copies();
        self.guard(copies.map(|copies| copies.begin_read(key)))
    }

    fn begin_write(&self, key: &[u8]) -> Guard {
        let members = Rc::clone(&self.members.borrow());
        for server in members.former_servers(key) {
            self.delete_at(server, key, Kept::Later, |_| {});
        }
        let copies = self.copies();
        let begin = |copies: &Copies| copies.begin_write(&mut self.local.borrow_mut(), key);
        self.guard(copies.map(begin))
    }

    fn guard(&self, fence: Option<Fence>) -> Guard {
        Guard {
            fence,
            generation: self.members.borrow().generation,
        }
    }

    fn end_read(&self, key: &[u8], guard: Guard, copied: &Copied<'_>) {
        if let (Some(copies), Some(fence)) = (self.copies(), guard.fence)
            && self.stands(&guard)
        {
            copies.end_read(&mut self.local.borrow_mut(), key, fence, copied);
        }
    }

    fn end_write(&self, key: &[u8], guard: Guard, taken: Option<&Copied<'_>>, place: &Place) {
        let stands = self.stands(&guard);
        self.end_fence(key, guard, taken.filter(|_| stands));
        if !stands {
            self.delete_where_it_moved(key, place);
        }
    }

    fn end_fence(&self, key: &[u8], guard: Guard, taken: Option<&Copied<'_>>) {
        if let (Some(copies), Some(fence)) = (self.copies(), guard.fence) {
            copies.end_write(&mut self.local.borrow_mut(), key, fence, taken);
        }
    }

    /// Has a write that was not executed begun anew: its place among the answers stays empty, and it gets another.
    fn begin_again(&self, again: Again, key: &[u8], guard: Guard, place: Place) -> Verdict {
        self.end_fence(key, guard, None);
        place.fill(|_| {});
        // The client may have left.
        let _ = again.send(Stage::Begins);
        Verdict::Fits
    }

    /// Deletes a key wherever it may lie by now, of which a write was under way while the pools were replaced: what the
    /// write left at the key's former place must not come to light there, nor what others brought meanwhile hide it.
    /// The answer waits for that. Nothing is done for a key that has kept its place.
    fn delete_where_it_moved(&self, key: &[u8], place: &Place) {
        let members = self.upstream().pools.members();
        let left = members
            .former_servers(key)
            .chain(members.old_server(key))
            .collect::<Vec<_>>();
        if left.is_empty() {
            return;
        }
        let held = Rc::new(place.late.hold());
        for server in left.into_iter().chain([members.server(key)]) {
            let held = Rc::clone(&held);
            self.delete_at(server, key, Kept::Later, move |_| drop(held));
        }
    }

    /// Whether the pools are those that the request went to: another worker may have written to a
    /// key's new server while this one still asked its former one.
    fn stands(&self, guard: &Guard) -> bool {
        self.upstream().pools.generation() == guard.generation
    }

    fn now(&self) -> UnixSeconds {
        self.shared.clock.recent()
    }
}

impl Executor {
    /// Executes a request over the pools; what concerns this process alone is left to `execute_here`.
    pub(super) fn execute_over_pool(
        &mut self,
        proxy: &Rc<Proxy>,
        request: &Request<'_>,
        progress: &mut Progress,
        out: &mut Vec<u8>,
    ) -> Flow {
        let Some(late) = progress.late.clone() else {
            return self.execute_here(request, progress, out);
        };
        let before = match progress.stage {
            Stage::Answered => return Flow::Done,
            _ if late.is_full() => return Flow::Flush,
            Stage::Prepared(before) => before,
            Stage::Begins => match proxy.before(request, progress.tried_until.is_some()) {
                Ok(before) => {
                    progress.stage = Stage::Prepared(before);
                    before
                }
                Err(told) => return Flow::Wait(Wait(For::Pool(told))),
            },
        };
        let refused = match before {
            Before::Failed(failure) => proxy.refuse(request, failure, &late, out),
            Before::Absent => proxy.miss_touched(request, out),
            Before::Unknown | Before::Present(_) => false,
        };
        if refused {
            return Flow::Done;
        }
        match request {
            Request::Get(get) => return self.get_over_pool(proxy, get, progress, &late, out),
            Request::GetOne(get) => self.get_one_over_pool(proxy, get, &late, out),
            Request::Retrieve(retrieve) => {
                if !self.retrieve_copy(proxy, retrieve, out) {
                    proxy.retrieve(retrieve, Place::at(&late, out.len()));
                }
            }
            Request::Store(store) => {
                let (again, flow) = proxy.repeatable(store.key, before, progress);
                proxy.store(store, before, again, Place::at(&late, out.len()));
                return flow;
            }
            Request::Delete(delete) => {
                let (again, flow) = proxy.repeatable(delete.key, before, progress);
                proxy.delete(delete, before, again, Place::at(&late, out.len()));
                return flow;
            }
            Request::Arithmetic(request) => {
                let first = progress.tried_until.is_none();
                let (again, flow) = proxy.repeatable(request.key, before, progress);
                // An item that was found twice is no lease.
                let again = again.filter(|_| first || before == Before::Absent);
                proxy.arithmetic(request, again, Place::at(&late, out.len()));
                return flow;
            }
            Request::Touch(touch) => proxy.touch(touch, before, Place::at(&late, out.len())),
            Request::Inspect(inspect) => proxy.inspect(inspect, Place::at(&late, out.len())),
            Request::FlushAll { delay, form } => {
                if self.shared.settings.flush_enabled {
                    self.local.counters.cmd_flush.bump();
                    proxy.flush_all(*delay, form, before, Place::at(&late, out.len()));
                } else {
                    self.flush_all(*delay, form, out);
                }
            }
            _ => return self.execute_here(request, progress, out),
        }
        Flow::Done
    }
}

/// The form of a client's meta request as it goes to a pool: with our opaque number for his, and
/// asking for `letters` too.
fn form_for_pool<'a>(form: &MetaForm<'a>, opaque: &'a [u8], letters: &[u8]) -> MetaForm<'a> {
    let mut returns = form.returns;
    for letter in letters {
        if !returns.contains(*letter) {
            returns.push(*letter);
        }
    }
    MetaForm {
        quiet: false,
        opaque: Some(opaque),
        returns,
        ..*form
    }
}

/// The answer to a write that failed.
fn failed(out: &mut Vec<u8>, client: &Form<'_>, failure: Failure) {
    match client {
        Form::Classic { noreply: true } => return,
        Form::Binary(form) => return encode::binary_status(out, *form, Status::TEMPORARY),
        Form::Classic { .. } | Form::Meta(_) => {}
    }
    out.extend_from_slice(match failure {
        Failure::Down => b"SERVER_ERROR upstream server is down\r\n".as_slice(),
        Failure::Busy => b"SERVER_ERROR too many requests wait for the upstream server\r\n",
        Failure::TimedOut => b"SERVER_ERROR upstream server did not answer in time\r\n",
        Failure::TooLarge => b"SERVER_ERROR value is larger than this proxy takes (-I)\r\n",
        Failure::Lost => b"SERVER_ERROR lost the connection to the upstream server\r\n",
        Failure::Refused => b"SERVER_ERROR upstream server refused\r\n",
    });
}

/// When an item expires that has so many seconds left, as a pool told them with flag `t`.
fn exptime(ttl: Option<u32>, now: UnixSeconds) -> UnixSeconds {
    ttl.map_or(0, |seconds| Exptime::Relative(seconds).resolve(now))
}

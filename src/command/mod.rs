//! Commands: what each request means over the tiers, and what it answers.
//!
//! One match over the logical requests; each arm is one operation on the cache and one reply. This
//! is the only place where the outcome of an operation becomes wire text.
//!
//! ```text
//!   Request ──execute──▶ cache.read / cache.update ──▶ encode::… ──▶ out
//!                │ Blocked
//!                └──▶ Flow::Wait: the connection awaits it and executes again, same progress
//! ```

mod admin;
mod arithmetic;
mod auth;
mod detail;
mod late;
mod listing;
mod meta;
mod plain;
mod pool;
mod remove;
mod retrieve;
mod settings;
mod stats;
mod store;
mod strict;
mod value;
mod watch;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tiercache_protocol::request::{Form, Request, Retrieve};
use tiercache_protocol::{Reject, encode, peek_reads};
use tokio::sync::oneshot;

pub use auth::Shown;
pub use detail::Detail;
pub use late::Late;
pub use plain::Answered;
pub use pool::Upstream;
pub use settings::{Control, MEMCACHED_VERSION, Settings, Stop};
pub use strict::Strict;

use crate::auth::Users;
use crate::clients::Clients;
use crate::clock::{Clock, UnixSeconds};
use crate::metrics::{Counters, Metrics};
use crate::tier::{Attempt, Below, Blocked, Cache, Local, Near, Outcome, WINDOW_KEYS};
use crate::tls::{Tls, TlsError};
use crate::upstream::Home;
use crate::watch::{Subscription, Watch};
use listing::Listing;
use plain::Window;
use pool::{Proxy, Stage};

/// Bytes of answers after which a command is interrupted for them to be sent.
pub const OUT_BYTES_SOFT_MAX: usize = 1 << 20;

/// The verbosity from which requests are logged.
pub const COMMANDS_LOGGED_FROM: u32 = 2;

/// What all executors share.
pub struct Shared {
    /// The tiers.
    pub cache: Arc<Cache>,
    /// All counters.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Arc<Clock>,
    /// What the command line and the configuration say about commands.
    pub settings: Settings,
    /// Certificates of encrypted listeners.
    pub tls: Option<Arc<Tls>>,
    /// Who may use the cache; everybody if this is none.
    pub users: Option<Arc<Users>>,
    /// How a command stops the server.
    pub control: Control,
    /// Counts by key prefix.
    pub detail: Detail,
    /// Who watches what happens.
    pub watch: Arc<Watch>,
    /// Who is connected.
    pub clients: Clients,
    /// The pools that decide instead of this process, if there are any.
    pub upstream: Option<Upstream>,
}

/// Executes the requests of one worker's connections.
pub struct Executor {
    shared: Arc<Shared>,
    local: Local,
    now: UnixSeconds,
    /// Socket of the client whose requests are executed.
    client: i32,
    proxy: Option<Rc<Proxy>>,
    window: Box<Window>,
}

/// Where a partly done request goes on. One per request, fresh for each.
#[derive(Debug, Default)]
pub struct Progress {
    attempt: Attempt,
    /// Where answers go that come later, if there are pools.
    late: Option<Rc<Late>>,
    /// How far it has come at a pool.
    stage: Stage,
    /// Until when it is begun anew because a pool has changed what it depends on; none before its first try.
    tried_until: Option<Instant>,
    /// Keys of a `get` that are answered already.
    keys_done: usize,
    /// Watchers and the log have heard of it.
    told: bool,
    /// Of the few commands that list, so that the others need not begin and drop one.
    listing: Option<Box<Listing>>,
    /// What became of certificates that were read again.
    reloaded: Option<Box<Result<(), TlsError>>>,
}

impl Progress {
    /// The progress of a new request whose answer may come later.
    pub fn with_late(late: Option<Rc<Late>>) -> Progress {
        Progress {
            late,
            ..Progress::default()
        }
    }

    /// The progress of a request some of whose keys are answered already.
    #[must_use]
    pub fn behind_keys(self, keys_done: usize) -> Progress {
        Progress { keys_done, ..self }
    }

    fn listing(&mut self) -> &mut Listing {
        self.listing.get_or_insert_default()
    }
}

/// What the connection does next.
#[derive(Debug)]
#[must_use]
pub enum Flow {
    /// The request is done; its answer is in `out`.
    Done,
    /// `out` is full: send it, then execute the same request with the same progress.
    Flush,
    /// Await it, then execute the same request with the same progress.
    Wait(Wait),
    /// Send `out`, then close.
    Close,
    /// Send `out`, then stream what the subscription yields until the client leaves.
    Watch(Box<Subscription>),
}

/// Something that a request waits for.
#[derive(Debug)]
pub struct Wait(For);

#[derive(Debug)]
enum For {
    Tier(Blocked),
    /// The keys of items that lie in dry alone, for a listing.
    Keys(Below),
    /// How many items there are of each size.
    Sizes,
    /// The certificates being read again.
    Certificates(Arc<Tls>),
    /// What a pool has to do, and how far the request has come then; as it was if the other end is dropped.
    Pool(oneshot::Receiver<Stage>),
}

impl From<Blocked> for Wait {
    fn from(blocked: Blocked) -> Wait {
        Wait(For::Tier(blocked))
    }
}

impl Executor {
    /// An executor for worker number `worker`.
    pub fn new(shared: Arc<Shared>, worker: usize) -> Executor {
        let local = shared.cache.local(worker);
        let now = shared.clock.tick();
        let proxy = Proxy::new(&shared, worker);
        Executor {
            shared,
            local,
            now,
            client: -1,
            proxy,
            window: Box::default(),
        }
    }

    /// The holes of a new connection's answers, if there are pools.
    pub fn late(&self) -> Option<Rc<Late>> {
        let item_size_max = self.shared.settings.item_size_max;
        self.proxy
            .as_ref()
            .map(|_| Rc::new(Late::new(item_size_max)))
    }

    /// Has the connections to upstream servers live at `home`.
    pub fn settle(&self, home: Box<dyn Home>) {
        if let Some(proxy) = &self.proxy {
            proxy.settle(home);
        }
    }

    /// Whether a connection to an upstream server waits for something that its home does not see.
    #[inline]
    pub fn needs_runtime(&self) -> bool {
        self.proxy
            .as_ref()
            .is_some_and(|proxy| proxy.needs_runtime())
    }

    /// The worker's counters.
    pub fn counters(&self) -> &Counters {
        &self.local.counters
    }

    /// Reads the clock: what is executed from here on sees this time, until it is read again.
    #[inline]
    pub fn tick(&mut self) {
        self.now = self.shared.clock.tick();
        self.shared.cache.apply_due_flush();
        if let Some(proxy) = &self.proxy {
            proxy.refresh();
        }
    }

    /// The requests to come are those of the client at this socket.
    #[inline]
    pub fn begin_batch(&mut self, client: i32) {
        self.client = client;
    }

    /// Looks at the reads that `input` begins with, so that what they need is near when they are
    /// executed. Tells how many bytes of input they are; none for those that
    /// [`answer_plain`](Self::answer_plain) looks at itself.
    #[inline]
    pub fn look_ahead(&self, input: &[u8]) -> usize {
        if self.takes_plain(input) {
            return 0;
        }
        if self.proxy.as_ref().is_some_and(|proxy| !proxy.has_copies()) {
            return input.len();
        }
        let mut window = [Near::default(); WINDOW_KEYS];
        let (mut count, mut covered) = (0, 0);
        for (near, (key, line_bytes)) in window.iter_mut().zip(peek_reads(input)) {
            *near = Near::new(self.shared.cache.hash(key));
            count += 1;
            covered += line_bytes;
        }
        if count > 1 {
            self.shared.cache.bring_near(&mut window[..count]);
        }
        covered
    }

    /// Waits for what blocked a request.
    pub async fn wait(&self, wait: Wait, progress: &mut Progress) {
        let cache = &self.shared.cache;
        match wait.0 {
            For::Tier(blocked) => {
                cache
                    .wait(&self.local, blocked, &mut progress.attempt)
                    .await
            }
            For::Keys(below) => {
                let cache = Arc::clone(cache);
                let rows = tokio::task::spawn_blocking(move || cache.dump_below(below)).await;
                let listed = &mut progress.listing().rows;
                listed.extend(rows.unwrap_or_default());
            }
            For::Sizes => {
                let cache = Arc::clone(cache);
                let sizes = tokio::task::spawn_blocking(move || cache.sizes()).await;
                progress.listing().sizes = Some(sizes.unwrap_or_default());
            }
            For::Pool(told) => {
                if let Ok(stage) = told.await {
                    progress.stage = stage;
                }
            }
            For::Certificates(tls) => {
                let reloaded = tokio::task::spawn_blocking(move || tls.reload()).await;
                let reloaded =
                    reloaded.unwrap_or_else(|error| Err(TlsError::Options(error.to_string())));
                progress.reloaded = Some(Box::new(reloaded));
            }
        }
    }

    /// Executes a request, or goes on with it.
    #[inline]
    pub fn execute(
        &mut self,
        request: &Request<'_>,
        progress: &mut Progress,
        out: &mut Vec<u8>,
    ) -> Flow {
        if let Some(strict) = self.shared.settings.strict
            && let Some(refused) = strict.refuse(request, out)
        {
            return refused;
        }
        self.tell_request(request, progress);
        match &self.proxy {
            None => self.execute_here(request, progress, out),
            Some(proxy) => {
                let proxy = Rc::clone(proxy);
                self.execute_over_pool(&proxy, request, progress, out)
            }
        }
    }

    #[inline]
    fn execute_here(
        &mut self,
        request: &Request<'_>,
        progress: &mut Progress,
        out: &mut Vec<u8>,
    ) -> Flow {
        match request {
            Request::Get(get) => self.get(get, progress, out),
            Request::GetOne(get) => self.get_one(get, progress, out),
            Request::Retrieve(retrieve) => self.retrieve(retrieve, progress, out),
            Request::Store(store) => self.store(store, progress, out),
            Request::Delete(delete) => self.delete(delete, progress, out),
            Request::Arithmetic(arithmetic) => self.arithmetic(arithmetic, progress, out),
            Request::Touch(touch) => self.touch(touch, progress, out),
            Request::Inspect(inspect) => self.inspect(inspect, progress, out),
            Request::Noop { form } => {
                if !matches!(form, Form::Binary(_)) {
                    self.local.counters.cmd_meta.bump();
                }
                encode::noop(out, form);
                Flow::Done
            }
            Request::FlushAll { delay, form } => {
                self.flush_all(*delay, form, out);
                Flow::Done
            }
            Request::Admin(admin) => self.admin(admin, progress, out),
            // The client is known already; as in memcached it stays so whatever it shows now.
            Request::Sasl(sasl) => {
                self.sasl(sasl, &mut false, out);
                Flow::Done
            }
            Request::Quit { form } => {
                encode::quit(out, form);
                Flow::Close
            }
        }
    }

    /// Removes the old value of a key whose new one was too large: it must not outlive the store. The
    /// refusal belongs behind `at` bytes of the answers, of which some may come later.
    pub fn reject_store(&mut self, key: &[u8], late: Option<&Rc<Late>>, at: usize) {
        self.local.counters.store_too_large.bump();
        if let (Some(proxy), Some(late)) = (&self.proxy, late) {
            return proxy.delete_refused(key, late, at);
        }
        self.remove_whatever(key);
    }

    /// Runs an operation's outcome through its reply, or hands the wait on.
    fn finish<R>(outcome: Outcome<R>, reply: impl FnOnce(Option<(R, u64)>)) -> Flow {
        match outcome {
            Outcome::Done { result, cas } => reply(Some((result, cas))),
            Outcome::NoMemory => reply(None),
            Outcome::Blocked(blocked) => return Flow::Wait(blocked.into()),
        }
        Flow::Done
    }

    /// Seconds left of an exptime, as clients are told: none if it never comes.
    fn ttl(&self, exptime: UnixSeconds) -> Option<u32> {
        (exptime != 0).then(|| exptime.saturating_sub(self.now))
    }

    fn refuse(out: &mut Vec<u8>, reject: Reject) -> Flow {
        encode::reject(out, reject);
        Flow::Done
    }
}

/// Whether an `mg` can change the item or needs to see it before the access is counted.
fn is_plain(retrieve: &Retrieve<'_>) -> bool {
    retrieve.touch.is_none()
        && retrieve.vivify.is_none()
        && retrieve.recache.is_none()
        && !retrieve.no_bump
}

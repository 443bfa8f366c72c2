//! Builds the parts bottom-up, runs them, and takes them down in the opposite order.
//!
//! ```text
//!   secrets ─▶ bind ─▶ clock ─▶ dry ─▶ tracking hooks ─▶ cache (recovers) ─▶ command ─▶ server listens
//!                                                                                              │ stop
//!                 exit ◀─ dry closes clean ◀─ tracking ◀─ drain to dry ◀─ cache stops ◀─ server stops
//! ```

pub mod background;
mod banner;
pub mod logging;
mod notify;
mod process;
mod progress;
mod secrets;
mod settings;
mod tracking;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::clients::Clients;
use crate::clock::Clock;
use crate::command::{COMMANDS_LOGGED_FROM, Control, Detail, Shared, Stop, Upstream};
use crate::config::Config;
use crate::dry::{Close, Dry};
use crate::memory;
use crate::metrics::Metrics;
use crate::server::{Listeners, Server, write_port_file};
use crate::shutdown::{Signals, Woken};
use crate::tier::{Cache, Copies};
use crate::upstream::config::Sharing;
use crate::upstream::{
    Access, Answer, Care, Members, Pools, Question, UpstreamConfig, ask_all, check,
};
use crate::watch::{Kinds, Watch};
use logging::SetVerbosity;
use progress::Progress;
use secrets::Secrets;
use tracking::Follower;

/// Names the file that receives the ports, as memcached's tests expect it.
const PORT_FILE_VARIABLE: &str = "MEMCACHED_PORT_FILENAME";

/// What a stop may take beside the drain: connections, tracking, the dry tier's files.
const STOP_BESIDE_DRAIN: Duration = Duration::from_secs(30);

/// Between two times that memory which nobody uses any more goes back to the kernel.
const GIVE_BACK_INTERVAL: Duration = Duration::from_secs(10);

/// Whether a server may be started so at all; asked before anything is touched.
///
/// # Errors
/// Says what has to be added or left out.
pub fn check_start(config: &Config) -> anyhow::Result<()> {
    process::check_identity(&config.process)
}

/// Runs a server until it is told to stop. `ready` is called once clients are served; `reread`
/// gives the configuration as it is written now, when SIGHUP asks for it.
///
/// # Errors
/// What kept the server from starting, or from closing the dry tier cleanly.
pub fn run(
    config: &Config,
    notices: &[String],
    reread: impl Fn() -> anyhow::Result<Config>,
    set_verbosity: SetVerbosity,
    ready: impl FnOnce(),
) -> anyhow::Result<()> {
    memory::keep_one_heap();
    let mut notices = notices.to_vec();
    // Before -u: root's files stay root's.
    let secrets = Secrets::open(config)?;
    notices.extend(secrets.notices());
    // Before any thread exists: identity and limits are per thread until then.
    notices.extend(process::prepare(
        &config.process,
        config.server.max_connections,
    )?);
    let inherited = Listeners::inherited(&config.server)?;
    let signals = Signals::watch()?;
    let listeners = match inherited {
        Some(listeners) => listeners,
        None => Listeners::bind(&config.server)?,
    };
    let places: Vec<_> = listeners.places().cloned().collect();
    let parts = Parts::start(config, &secrets)?;
    if signals.stop.is_cancelled() {
        return parts.close(config, Stop::Now);
    }
    let shared = parts.shared(config, &secrets, set_verbosity);
    let server = Server::start(&config.server, listeners, &shared)?;
    if let Some(path) = std::env::var_os(PORT_FILE_VARIABLE) {
        write_port_file(Path::new(&path), &places).context("write the file of ports")?;
    }
    let pid_file = config
        .process
        .pid_file
        .as_deref()
        .map(process::PidFile::write)
        .transpose()?;
    banner::print(config, &places, &parts, &notices);
    ready();
    notify::ready();
    let how = parts.wait_for_stop(&signals, &shared.control, &|| {
        secrets.reload();
        parts.reload_pools(config, &reread);
    });
    tracing::info!(?how, "stopping");
    let dry = config.dry.as_ref();
    let is_remote = dry.is_some_and(|dry| dry.remote.is_some());
    // What is drained to a remote store is uploaded within as long again.
    let drains = if is_remote { 2 } else { 1 };
    notify::stopping(config.tier.drain_timeout.0 * drains + STOP_BESIDE_DRAIN);
    server.stop();
    drop(shared);
    let closed = parts.close(config, how);
    drop(pid_file);
    closed
}

/// The engines, without the server.
struct Parts {
    clock: Arc<Clock>,
    metrics: Arc<Metrics>,
    dry: Option<Arc<Dry>>,
    cache: Arc<Cache>,
    upstream: Option<(Arc<Pools>, Care)>,
    follower: Option<Follower>,
    recovered: crate::tier::RecoverReport,
}

impl Parts {
    fn start(config: &Config, secrets: &Secrets) -> anyhow::Result<Parts> {
        let clock = Arc::new(Clock::system());
        let metrics = Arc::new(Metrics::starting_at(clock.now()));
        let dry = match &config.dry {
            Some(dry) => Some(Arc::new(open_dry(dry, &clock)?)),
            None => None,
        };
        let hooks = dry
            .as_ref()
            .and_then(|dry| tracking::Hooks::set(dry, &config.tracking));
        let progress = Progress::new("recovering");
        let (cache, recovered) = Cache::start(
            config.tier.clone(),
            Arc::clone(&clock),
            Arc::clone(&metrics),
            dry.clone(),
            config.server.threads,
            &|done, all, items| progress.show(done, all, &format_args!("{items} items")),
        )?;
        progress.end();
        let follower = match (&dry, &config.dry, hooks) {
            (Some(dry), Some(place), Some(hooks)) => {
                let follower = hooks.follow(dry, &place.folder, &config.tracking)?;
                follower.follow_accesses(&cache, &clock);
                Some(follower)
            }
            _ => None,
        };
        let upstream = match &config.upstream {
            Some(upstream) => Some(open_pools(upstream, &secrets.access)?),
            None => None,
        };
        Ok(Parts {
            upstream,
            clock,
            metrics,
            dry,
            cache,
            follower,
            recovered,
        })
    }

    fn shared(
        &self,
        config: &Config,
        secrets: &Secrets,
        set_verbosity: SetVerbosity,
    ) -> Arc<Shared> {
        let watch = Arc::new(Watch::new(config.commands.watch_buffer.as_usize()));
        watch.switch(Kinds::PREFIXES, config.commands.prefix_delimiter.is_some());
        self.cache.set_watch(Arc::clone(&watch));
        watch.switch(
            Kinds::LOGGED_COMMANDS,
            config.process.verbosity >= COMMANDS_LOGGED_FROM,
        );
        let upstream = config.upstream.as_ref().zip(self.upstream.as_ref());
        let hot_ttl = config.tier.hot_ttl.0;
        Arc::new(Shared {
            upstream: upstream.map(|(config, (pools, _))| Upstream {
                pools: Arc::clone(pools),
                copies: config
                    .copies
                    .then(|| Copies::new(Arc::clone(&self.cache), max_age_s(config))),
                sharing: config.sharing,
                unknown_ttl_s: u32::try_from(hot_ttl.as_secs()).unwrap_or(u32::MAX),
            }),
            cache: Arc::clone(&self.cache),
            metrics: Arc::clone(&self.metrics),
            clock: Arc::clone(&self.clock),
            settings: settings::settings(config),
            tls: secrets.tls.clone(),
            users: secrets.users.clone(),
            control: Control::new(set_verbosity),
            detail: Detail::new(settings::delimiter(config)),
            watch,
            clients: Clients::default(),
        })
    }

    /// Blocks until a signal or a command asks for a stop.
    fn wait_for_stop(&self, signals: &Signals, control: &Control, reload: &dyn Fn()) -> Stop {
        let mut next_totals = Instant::now();
        let mut next_give_back = Instant::now() + GIVE_BACK_INTERVAL;
        loop {
            let (signalled, commanded) = (signals.stop.is_cancelled(), control.stop.is_cancelled());
            if signalled || commanded {
                return if signalled {
                    Stop::Graceful
                } else {
                    control.how()
                };
            }
            if let Some(follower) = self
                .follower
                .as_ref()
                .filter(|_| Instant::now() >= next_totals)
            {
                follower.totals(&self.cache, &self.metrics, &self.clock);
                next_totals = Instant::now() + tracking::TOTALS_INTERVAL;
            }
            if Instant::now() >= next_give_back {
                memory::give_back_free_pages();
                next_give_back = Instant::now() + GIVE_BACK_INTERVAL;
            }
            if signals.wait(&control.stop, Duration::from_secs(1)) == Woken::Reload {
                reload();
            }
        }
    }

    /// Takes the pools as the configuration names them now; anything wrong leaves them as they are.
    fn reload_pools(&self, before: &Config, reread: &dyn Fn() -> anyhow::Result<Config>) {
        let Some((pools, _)) = &self.upstream else {
            return;
        };
        let reloaded = reread().and_then(|config| {
            let upstream = config.upstream.context("no memcached servers any more")?;
            let before = before.upstream.as_ref();
            let fixed = before.map_or(Vec::new(), |before| upstream.fixed_options_unlike(before));
            anyhow::ensure!(
                fixed.is_empty(),
                "another value needs a restart: {}",
                fixed.join(", ")
            );
            if let Some(members) = pools.prepare(&upstream)? {
                check(&members, upstream.sharing)?;
                pools.replace(members);
            }
            Ok(())
        });
        match reloaded {
            Ok(()) => tracing::info!("SIGHUP: the memcached servers are read again"),
            Err(error) => tracing::error!("SIGHUP: the memcached servers stay: {error:#}"),
        }
    }

    /// Moves RAM to dry as far as time allows and closes dry so that the next start trusts it.
    fn close(self, config: &Config, how: Stop) -> anyhow::Result<()> {
        if let Some((_, care)) = self.upstream {
            care.stop();
        }
        self.cache.stop();
        let Some(dry) = &self.dry else { return Ok(()) };
        let deadline = Instant::now() + config.tier.drain_timeout.0;
        if how == Stop::Graceful {
            let progress = Progress::new("draining to dry");
            let report = self
                .cache
                .drain(deadline, &|done, all| progress.show(done, all, &"segments"));
            progress.end();
            tracing::info!(
                copied_bytes = report.copied_bytes,
                items_left = report.items_left,
                "drained RAM to the dry tier"
            );
            if report.items_too_large > 0 {
                tracing::warn!(
                    items = report.items_too_large,
                    "items larger than a dry segment were not kept (--segment-size)"
                );
            }
            if report.items_left > 0 || report.segments_left > 0 {
                tracing::warn!(
                    items = report.items_left,
                    segments = report.segments_left,
                    "not everything fitted into the drain timeout (--drain-timeout)"
                );
            }
        }
        if let Some(follower) = &self.follower {
            follower.totals(&self.cache, &self.metrics, &self.clock);
            follower.catch_up();
        }
        // Seals the last segment, which tracking still hears of.
        let closed = dry.close(Close::Clean).context("close the dry tier");
        if let Some(follower) = self.follower {
            follower.close();
        }
        closed
    }
}

fn open_pools(config: &UpstreamConfig, access: &Arc<Access>) -> anyhow::Result<(Arc<Pools>, Care)> {
    let folder = || format!("open the state folder {}", config.state.display());
    let pools = Arc::new(Pools::open(config, access).with_context(folder)?);
    check(&pools.members(), config.sharing)?;
    let care = Care::start(&pools).context("start the thread that looks after servers")?;
    Ok((pools, care))
}

/// Asks all memcached servers that the configuration names, each answer with where the server is.
///
/// # Errors
/// There are none, or what they are shown or were not told cannot be read.
pub fn ask_servers(config: &Config, question: Question) -> anyhow::Result<Vec<(String, Answer)>> {
    let upstream = config.upstream.as_ref();
    let upstream = upstream.context("the configuration names no memcached servers")?;
    let access = Arc::new(Access::open(&upstream.access)?);
    let members = Members::to_ask(upstream, &access)?;
    Ok(ask_all(&members, question))
}

/// How long a copy may be served without the pool, in seconds.
fn max_age_s(config: &UpstreamConfig) -> Option<u32> {
    match config.sharing {
        Sharing::Through => Some(u32::try_from(config.fresh.0.as_secs()).unwrap_or(u32::MAX)),
        Sharing::Private | Sharing::Strict => None,
    }
}

fn open_dry(config: &crate::dry::DryConfig, clock: &Arc<Clock>) -> anyhow::Result<Dry> {
    Dry::open(config, Arc::clone(clock))
        .with_context(|| format!("open the dry tier in {}", config.folder.display()))
}

//! All pools, and which of them has a key.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::access::Access;
use super::config::{Address, PoolConfig, UpstreamConfig};
use super::ring::Ring;
use super::server::Server;
use super::state;
use super::undelivered::Undelivered;

/// Former placements that are remembered. What a key has on a server from before them may come to
/// light when it comes back there.
const FORMER_MAX: usize = 8;

/// How long leases are minded after a migration: until all proxies have heard of its end, and the last lease has expired.
const LEASES_LINGER: Duration = Duration::from_secs(60);

/// The pools of a process, which a reload may replace while it runs.
#[derive(Debug)]
pub struct Pools {
    current: Mutex<Arc<Members>>,
    /// Grows with each replacement.
    generation: AtomicU64,
    state: PathBuf,
    /// Keeps other processes from the state folder.
    _lock: File,
    access: Arc<Access>,
}

/// The pools at one time.
#[derive(Debug)]
pub struct Members {
    config: UpstreamConfig,
    placement: Arc<Placement>,
    /// Who had the keys before, the last one first.
    former: Vec<Arc<Placement>>,
    /// Until when leases of a migration that has ended may still be there.
    leases_until: Option<Instant>,
    /// The servers of all of them, each once.
    servers: Vec<Arc<Server>>,
}

/// Who has which key.
#[derive(Debug)]
struct Placement {
    pools: Vec<Pool>,
    is_migrating: bool,
    /// Prefixes and the pools that have their keys, longest first.
    routes: Vec<(Box<[u8]>, usize)>,
}

#[derive(Debug)]
struct Pool {
    members: Ringed,
    /// Who had the keys that move here.
    old: Option<Ringed>,
}

/// Servers, and who of them has a key.
#[derive(Debug)]
struct Ringed {
    ring: Ring,
    servers: Vec<Arc<Server>>,
}

impl Pools {
    /// Opens what servers were not told in former runs; connects to nobody.
    ///
    /// # Errors
    /// The state folder cannot be made or read, or another process uses it.
    pub fn open(config: &UpstreamConfig, access: &Arc<Access>) -> io::Result<Pools> {
        let lock = state::open(&config.state)?;
        let members = Members::open(config, access, None)?;
        let places = members.servers.iter().map(|server| &server.address.place);
        state::tell_of_others(&config.state, places);
        Ok(Pools {
            _lock: lock,
            access: Arc::clone(access),
            current: Mutex::new(Arc::new(members)),
            generation: AtomicU64::new(1),
            state: config.state.clone(),
        })
    }

    /// The pools as they are now.
    pub fn members(&self) -> Arc<Members> {
        Arc::clone(&self.current.lock())
    }

    /// Changes whenever the pools do.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    /// Other pools, for [`Pools::replace`]; none if they are as they were. Servers that stay keep their
    /// connections and figures.
    ///
    /// # Errors
    /// The state of a new server cannot be read.
    pub fn prepare(&self, config: &UpstreamConfig) -> io::Result<Option<Members>> {
        let config = UpstreamConfig {
            state: self.state.clone(),
            ..config.clone()
        };
        let current = self.members();
        if current.config == config {
            return Ok(None);
        }
        Members::open(&config, &self.access, Some(&current)).map(Some)
    }

    /// Takes other pools from now on.
    pub fn replace(&self, members: Members) {
        *self.current.lock() = Arc::new(members);
        self.generation.fetch_add(1, Relaxed);
    }
}

impl Members {
    /// The pools for somebody who only [asks](super::ask_all) their servers: another process may use the state folder
    /// meanwhile, in which nothing is changed.
    ///
    /// # Errors
    /// What is in the state folder cannot be read.
    pub fn to_ask(config: &UpstreamConfig, access: &Arc<Access>) -> io::Result<Members> {
        Members::open(config, access, None)
    }

    fn open(
        config: &UpstreamConfig,
        access: &Arc<Access>,
        before: Option<&Members>,
    ) -> io::Result<Members> {
        let known = before.map_or(&[][..], |before| &before.servers);
        let mut servers: Vec<Arc<Server>> = Vec::new();
        let mut pools = Vec::new();
        for pool in &config.pools {
            let mut open = |addresses: &[Address]| {
                let mut members = Vec::new();
                for address in addresses {
                    let same = |server: &&Arc<Server>| server.is(address, pool);
                    let server = match servers.iter().chain(known).find(same) {
                        Some(server) => Arc::clone(server),
                        None => {
                            let mut all = servers.iter().chain(known);
                            let there = all.find(|server| server.address.place == address.place);
                            let undelivered = match there {
                                Some(server) => Arc::clone(&server.undelivered),
                                None => Arc::new(Undelivered::open(state::file_of(
                                    &config.state,
                                    &address.place,
                                ))?),
                            };
                            Arc::new(Server::new(address, pool, access, undelivered))
                        }
                    };
                    if !servers.iter().any(|known| Arc::ptr_eq(known, &server)) {
                        servers.push(Arc::clone(&server));
                    }
                    members.push(server);
                }
                io::Result::Ok(Ringed {
                    ring: pool.ring_of(addresses),
                    servers: members,
                })
            };
            let old = match pool.migrate_from.as_slice() {
                [] => None,
                addresses => Some(open(addresses)?),
            };
            let members = open(&pool.servers)?;
            pools.push(Pool { members, old });
        }
        let mut routes: Vec<_> = config
            .routes
            .iter()
            .map(|route| (route.prefix.clone().into_boxed_slice(), route.pool))
            .collect();
        routes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        let mut former: Vec<Arc<Placement>> = Vec::new();
        if let Some(before) = before {
            former.push(Arc::clone(&before.placement));
            former.extend(before.former.iter().take(FORMER_MAX - 1).cloned());
        }
        for server in former.iter().flat_map(|former| former.servers()) {
            if !servers.iter().any(|known| Arc::ptr_eq(known, server)) {
                servers.push(Arc::clone(server));
            }
        }
        let leases_until = before.and_then(|before| match before.is_migrating() {
            true => Some(Instant::now() + LEASES_LINGER),
            false => before.leases_until,
        });
        Ok(Members {
            config: config.clone(),
            placement: Arc::new(Placement {
                is_migrating: pools.iter().any(|pool| pool.old.is_some()),
                pools,
                routes,
            }),
            former,
            leases_until,
            servers,
        })
    }

    /// The server that has `key`.
    #[inline]
    pub fn server(&self, key: &[u8]) -> &Arc<Server> {
        self.placement.server(key)
    }

    /// The servers that had `key` before reloads and do not have it now. What they still have under the
    /// key must not come to light when the key comes back to them.
    #[inline]
    pub fn former_servers(&self, key: &[u8]) -> impl Iterator<Item = &Arc<Server>> {
        let former = self.former.iter().map(move |former| former.server(key));
        former.filter(move |former| !former.is_at_the_place_of(self.server(key)))
    }

    /// Whether a server has keys now, or has those that move here.
    pub fn is_used(&self, server: &Arc<Server>) -> bool {
        let mut used = self.placement.servers().chain(self.old_servers());
        used.any(|used| Arc::ptr_eq(used, server))
    }

    /// Whether keys of a pool move here from another.
    #[inline]
    pub fn is_migrating(&self) -> bool {
        self.placement.is_migrating
    }

    /// The server that `key` moves here from, if that is another than the one that has it.
    #[inline]
    pub fn old_server(&self, key: &[u8]) -> Option<&Arc<Server>> {
        if !self.is_migrating() {
            return None;
        }
        self.placement.old_server(key)
    }

    /// Whether an item may be a lease: while keys move here, and for a while after, since other proxies hear of
    /// the end at other times.
    #[inline]
    pub fn minds_leases(&self) -> bool {
        self.is_migrating()
            || self
                .leases_until
                .is_some_and(|until| Instant::now() < until)
    }

    /// Whether that under `key` may be one.
    pub fn may_be_leased(&self, key: &[u8]) -> bool {
        let former = self.former.iter().map(|former| &**former);
        let mut placements = std::iter::once(&*self.placement).chain(former);
        self.minds_leases() && placements.any(|placement| placement.old_server(key).is_some())
    }

    /// All servers that keys move here from.
    pub fn old_servers(&self) -> impl Iterator<Item = &Arc<Server>> {
        let pools = self.placement.pools.iter();
        pools.flat_map(|pool| pool.old.iter().flat_map(|old| &old.servers))
    }

    /// All servers, each once; those of before the last reloads among them.
    pub fn servers(&self) -> &[Arc<Server>] {
        &self.servers
    }
}

impl Placement {
    fn pool(&self, key: &[u8]) -> &Pool {
        let routed = self
            .routes
            .iter()
            .find(|(prefix, _)| key.starts_with(prefix));
        &self.pools[routed.map_or(0, |(_, pool)| *pool)]
    }

    fn server(&self, key: &[u8]) -> &Arc<Server> {
        self.pool(key).members.server(key)
    }

    fn old_server(&self, key: &[u8]) -> Option<&Arc<Server>> {
        let pool = self.pool(key);
        let old = pool.old.as_ref()?.server(key);
        (!old.is_at_the_place_of(pool.members.server(key))).then_some(old)
    }

    fn servers(&self) -> impl Iterator<Item = &Arc<Server>> {
        self.pools.iter().flat_map(|pool| &pool.members.servers)
    }
}

impl Ringed {
    fn server(&self, key: &[u8]) -> &Arc<Server> {
        match self.servers.as_slice() {
            [only] => only,
            servers => &servers[self.ring.member(key)],
        }
    }
}

impl Server {
    /// Whether both are one server, perhaps spoken to in different ways.
    fn is_at_the_place_of(&self, other: &Server) -> bool {
        self.address.place == other.address.place
    }

    /// Whether this is the server that `address` of `pool` means, spoken to in the same way.
    fn is(&self, address: &Address, pool: &PoolConfig) -> bool {
        self.address.place == address.place
            && self.connect_timeout == pool.connect_timeout.0
            && self.request_timeout == pool.request_timeout.0
            && self.idle_timeout == pool.idle_timeout.0
            && self.eject_after == pool.eject_after
    }
}

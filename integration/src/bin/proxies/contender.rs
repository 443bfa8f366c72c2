//! What is compared: a memcached that answers itself, and proxies in front of three of them, each with one thread.

use std::fs;
use std::net::SocketAddr;

use tempfile::TempDir;
use tiercache_integration::client::Client;
use tiercache_integration::pool::Pool;
use tiercache_integration::server::{Server, memcached_binary};
use tiercache_integration::twemproxy::Twemproxy;
use tiercache_integration::workload::{ITEMS, ITEMS_COUNT, store_items};

/// One thread, and memory for every item.
const ARGUMENTS: &[&str] = &["-t", "1", "-m", "1024"];
/// twemproxy's default key hash, which tiercache is told to use too.
const KEY_HASH: &str = "fnv1a_64";
/// Servers behind a proxy.
const WEIGHTS: &[u32] = &[1, 1, 1];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// A memcached without anything before it.
    Memcached,
    Twemproxy,
    /// The proxy that memcached has built in, where this one has it.
    MemcachedProxy,
    /// tiercache that keeps nothing.
    Tiercache,
    /// tiercache with copies in hot.
    NearCache,
}

impl Contender {
    pub const ALL: [Contender; 5] = [
        Contender::Memcached,
        Contender::Twemproxy,
        Contender::MemcachedProxy,
        Contender::Tiercache,
        Contender::NearCache,
    ];

    /// Heads its column.
    pub fn name(self) -> &'static str {
        match self {
            Contender::Memcached => "memcached alone",
            Contender::Twemproxy => "twemproxy",
            Contender::MemcachedProxy => "memcached's proxy",
            Contender::Tiercache => "tiercache --hot",
            Contender::NearCache => "tiercache --cold",
        }
    }

    /// Whether it has items of its own to answer with.
    pub fn answers_itself(self) -> bool {
        matches!(self, Contender::Memcached | Contender::NearCache)
    }

    /// Starts it; nothing where it is not there.
    pub fn start(self) -> Option<Running> {
        if self == Contender::Memcached {
            return Some(Running {
                front: Front::Server(Server::memcached(ARGUMENTS)),
                pool: None,
                _config: None,
            });
        }
        if self == Contender::Twemproxy {
            Twemproxy::program()?;
        }
        let pool = Pool::of(WEIGHTS, |port| {
            Server::memcached(&[ARGUMENTS, &["-p", port]].concat())
        });
        let config = TempDir::new().expect("a temporary folder can be made");
        let front = match self {
            Contender::Memcached => return None,
            Contender::Twemproxy => Front::Twemproxy(Twemproxy::start(&pool, KEY_HASH, "")),
            Contender::MemcachedProxy => Front::Server(memcached_proxy(&pool, &config)?),
            Contender::Tiercache => {
                Front::Server(pool.proxy(&["-t", "1", "--config", &tiercache_config(&config)]))
            }
            Contender::NearCache => {
                let file = tiercache_config(&config);
                // No copy grows too old during a run.
                let near = ["-t", "1", "--config", file.as_str(), "--cold-fresh", "1h"];
                Front::Server(pool.near_cache(&near))
            }
        };
        Some(Running {
            front,
            pool: Some(pool),
            _config: Some(config),
        })
    }
}

fn tiercache_config(folder: &TempDir) -> String {
    let file = folder.path().join("tiercache.toml");
    fs::write(&file, format!("[memcached]\nkey_hash = \"{KEY_HASH}\"\n"))
        .expect("it can be written");
    file.display().to_string()
}

/// memcached's own proxy with one route to the pool and all else as it comes; nothing where it has none built in.
fn memcached_proxy(pool: &Pool, folder: &TempDir) -> Option<Server> {
    let backends: Vec<String> = pool
        .servers
        .iter()
        .enumerate()
        .map(|(number, server)| {
            let port = server.address().port();
            format!("mcp.backend('b{number}', '127.0.0.1', {port})")
        })
        .collect();
    let text = format!(
        "function mcp_config_pools()
  return mcp.pool({{ {} }})
end
function mcp_config_routes(pool)
  local all = mcp.funcgen_new()
  local handle = all:new_handle(pool)
  all:ready({{ n = 'all', f = function(context)
    return function(request) return context:enqueue_and_wait(request, handle) end
  end }})
  mcp.attach(mcp.CMD_ANY_STORAGE, all)
end
",
        backends.join(", ")
    );
    let file = folder.path().join("proxy.lua");
    fs::write(&file, text).expect("it can be written");
    let option = format!("proxy_config={}", file.display());
    let arguments = [ARGUMENTS, &["-o", option.as_str()]].concat();
    let mut server = Server::stopped(&[], &memcached_binary(), &arguments);
    server.try_start().ok()?;
    Some(server)
}

/// A contender with its servers; they end with it.
pub struct Running {
    front: Front,
    pool: Option<Pool>,
    _config: Option<TempDir>,
}

enum Front {
    Server(Server),
    Twemproxy(Twemproxy),
}

impl Running {
    pub fn address(&self) -> SocketAddr {
        match &self.front {
            Front::Server(server) => server.address(),
            Front::Twemproxy(twemproxy) => twemproxy.address(),
        }
    }

    pub fn pid(&self) -> u32 {
        match &self.front {
            Front::Server(server) => server.pid(),
            Front::Twemproxy(twemproxy) => twemproxy.pid(),
        }
    }

    /// Stores the items of the workloads.
    pub fn fill(&self) {
        let mut client = Client::connect(self.address()).expect("it listens");
        store_items(&mut client, ITEMS_COUNT).expect("it stores the items");
    }

    /// Stores them, and behind them `more` of which nothing is kept in a near cache.
    pub fn fill_beyond(&self, more: u64) {
        self.fill();
        let numbers = ITEMS_COUNT..ITEMS_COUNT + more;
        let config = TempDir::new().expect("a temporary folder can be made");
        let file = tiercache_config(&config);
        let beside = self
            .pool
            .as_ref()
            .map(|pool| pool.proxy(&["--config", &file]));
        let address = beside.as_ref().map_or(self.address(), Server::address);
        let mut client = Client::connect(address).expect("it listens");
        ITEMS
            .store(&mut client, numbers, 0)
            .expect("it stores the items");
    }

    /// Requests that hot has answered; nothing for others than tiercache.
    pub fn hot_hits(&self) -> Option<u64> {
        let Front::Server(server) = &self.front else {
            return None;
        };
        let stats = server.stats();
        stats.text("hot_hits")?;
        Some(stats.number("hot_hits"))
    }
}

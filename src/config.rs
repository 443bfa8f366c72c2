//! The whole configuration, composed of each part's own.
//!
//! ```text
//! flags ─▶ Layer ┐
//!                ├─ over ─▶ Layer ── resolve (defaults, checks) ─▶ Config
//! file  ─▶ Layer ┘
//! ```

pub mod layer;
pub mod machine;
mod pools;
mod print;
mod resolve;
mod secure;
mod source;

use std::path::PathBuf;

pub use layer::Layer;
pub use machine::Machine;
pub use resolve::ConfigError;
pub use source::{FileError, load};

use crate::auth::AuthConfig;
use crate::dry::DryConfig;
use crate::server::ServerConfig;
use crate::tier::TierConfig;
use crate::tls::TlsConfig;
use crate::tracking::TrackingConfig;
use crate::units::ByteSize;
use crate::upstream::UpstreamConfig;

pub use crate::command::MEMCACHED_VERSION;
use crate::command::Strict;

/// Everything the parts are told at start.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Listeners, workers and limits of connections.
    pub server: ServerConfig,
    /// Hot and cold, and the way to dry.
    pub tier: TierConfig,
    /// The dry tier; none unless a folder was named.
    pub dry: Option<DryConfig>,
    /// The memcached servers that decide instead of this process; none unless they are named.
    pub upstream: Option<UpstreamConfig>,
    /// Records about dried items.
    pub tracking: TrackingConfig,
    /// Encryption; none unless it is asked for.
    pub tls: Option<TlsConfig>,
    /// Who may use the cache; everybody if this is none.
    pub auth: Option<AuthConfig>,
    /// Which commands clients may use.
    pub commands: Commands,
    /// The process itself.
    pub process: Process,
}

/// Which commands clients may use, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commands {
    /// Items have a CAS unique. Default on.
    pub cas: bool,
    /// `flush_all`. Default on.
    pub flush_all: bool,
    /// Commands that list keys. Default on.
    pub dump: bool,
    /// `watch`. Default on.
    pub watch: bool,
    /// Bytes of events that wait for one watcher. Default 256 KiB.
    pub watch_buffer: ByteSize,
    /// `stats sizes` counts items by size. Default off.
    pub track_sizes: bool,
    /// `shutdown`. Default off.
    pub shutdown: bool,
    /// Requests that are refused although memcached takes them. Default none.
    pub strict: Strict,
    /// Ends a key's prefix in `stats detail`, which is on from the start if this is set.
    pub prefix_delimiter: Option<u8>,
}

/// The process itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// 0 to 3. Default 0.
    pub verbosity: u32,
    /// Whom to become when started as root.
    pub user: Option<String>,
    /// File that receives the process id.
    pub pid_file: Option<PathBuf>,
    /// Lock resident memory.
    pub lock_memory: bool,
    /// Raise the limit of core files.
    pub core_dumps: bool,
}

impl Config {
    /// Adds the defaults to what was written and checks the whole.
    ///
    /// # Errors
    /// Names the first option whose value cannot be taken, or that contradicts another.
    pub fn resolve(layer: Layer, machine: Machine) -> Result<Config, ConfigError> {
        resolve::resolve(layer, machine)
    }

    /// The configuration as a file that resolves to it again.
    pub fn to_toml(&self) -> String {
        print::to_toml(self)
    }
}

//! What the server is told at start: where it listens and how much one client may ask of it.

use std::path::PathBuf;

use tiercache_protocol::Syntax;

use crate::tls::ClientCertificate;
use crate::units::Span;

/// Listeners, workers and limits of connections.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerConfig {
    /// Where to listen for TCP. Default port 11211 of all interfaces.
    pub listen: Vec<Address>,
    /// How TCP listeners are encrypted: which certificate clients show. Default not encrypted.
    pub tls: Option<ClientCertificate>,
    /// A unix socket to listen on instead of TCP. Default none.
    pub unix_socket: Option<PathBuf>,
    /// The unix socket's access bits, `-a`. Default 0o700.
    pub unix_mask: u32,
    /// Connections the kernel holds until they are accepted, `-b`. Default 1024.
    pub backlog: u32,
    /// Worker threads, `-t`. Default the number of cores.
    pub threads: usize,
    /// Connections at the same time, `-c`. Default 1024.
    pub max_connections: usize,
    /// What happens to a connection beyond the limit. Default refused.
    pub beyond_limit: BeyondLimit,
    /// A connection without a request for so long is closed; zero for never, the default.
    pub idle_timeout: Span,
    /// A request that is half received has so long to be completed, and a second more per MiB; zero
    /// for no limit, the default.
    pub request_timeout: Span,
    /// What connections speak, `-B`. Default what their first byte says.
    pub syntax: Syntax,
    /// Requests that one connection may have answered before the others have their turn, `-R`.
    pub turn_requests_max: usize,
    /// Largest item in bytes, `-I`, known here because it bounds what half a request may hold.
    pub item_size_max: usize,
}

impl ServerConfig {
    /// memcached's port.
    pub const PORT: u16 = 11211;

    /// Enough for the requests that one read brings in, so that a pipeline is answered in one
    /// write. memcached's 20 counts wake-ups of an event loop that reads again after each.
    pub const TURN_REQUESTS_MAX: usize = 1024;
}

impl Default for ServerConfig {
    fn default() -> ServerConfig {
        ServerConfig {
            listen: vec![Address {
                host: None,
                port: ServerConfig::PORT,
                encryption: Encryption::Default,
            }],
            tls: None,
            unix_socket: None,
            unix_mask: 0o700,
            backlog: 1024,
            threads: std::thread::available_parallelism().map_or(4, usize::from),
            max_connections: 1024,
            beyond_limit: BeyondLimit::Refuse,
            idle_timeout: Span::seconds(0),
            request_timeout: Span::seconds(0),
            syntax: Syntax::Auto,
            turn_requests_max: ServerConfig::TURN_REQUESTS_MAX,
            item_size_max: 1 << 20,
        }
    }
}

/// A place to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// A name or IP address; none for all interfaces, IPv4 and IPv6.
    pub host: Option<String>,
    /// The TCP port; 0 lets the kernel choose.
    pub port: u16,
    /// Whether this listener differs from the others in encryption.
    pub encryption: Encryption,
}

impl Address {
    /// Which certificate clients show here, if it is encrypted. `default` is that of all listeners.
    pub fn tls(&self, default: Option<ClientCertificate>) -> Option<ClientCertificate> {
        let default = default?;
        match self.encryption {
            Encryption::Default => Some(default),
            Encryption::Off => None,
            Encryption::Basic => Some(ClientCertificate::None),
            Encryption::Mutual => Some(ClientCertificate::Require),
        }
    }
}

/// Whether a listener differs from the others in encryption.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Encryption {
    /// As all.
    #[default]
    Default,
    /// Not encrypted: `notls:`.
    Off,
    /// Encrypted, without certificates of clients: `btls:`.
    Basic,
    /// Encrypted, with certificates of clients: `mtls:`.
    Mutual,
}

impl Encryption {
    /// The prefixes of `-l` and what they mean.
    pub(super) const PREFIXES: [(&str, Encryption); 3] = [
        ("notls:", Encryption::Off),
        ("btls:", Encryption::Basic),
        ("mtls:", Encryption::Mutual),
    ];

    pub(super) fn prefix(self) -> &'static str {
        let mut prefixes = Encryption::PREFIXES.iter();
        prefixes
            .find(|(_, encryption)| *encryption == self)
            .map_or("", |(prefix, _)| prefix)
    }
}

/// What happens to a connection beyond [`ServerConfig::max_connections`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeyondLimit {
    /// It is told `ERROR Too many open connections` and closed (memcached's `maxconns_fast`).
    Refuse,
    /// It waits in the kernel's backlog until another one ends.
    Wait,
}

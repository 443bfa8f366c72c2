//! A tiercache whose dry tier is in a remote store, with a spool of its own.

use std::time::Duration;

use tempfile::TempDir;

use crate::eventually;
use crate::load::{Found, Items};
use crate::server::{Server, tiercache_binary};
use crate::tiers::figures;

/// Connections that read, and keys of each of their gets.
const READERS: u64 = 4;
const KEYS_PER_GET: u64 = 100;
/// Everything complete is in the store at most this long after it was stored.
const UPLOAD_LIMIT: Duration = Duration::from_secs(300);

/// Where a dry tier is: the arguments that name it, and what must be in the environment.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Flags and their values.
    pub arguments: Vec<String>,
    /// Variables and their values.
    pub environment: Vec<(String, String)>,
}

impl Place {
    /// A place with these arguments and no environment.
    pub fn new(arguments: &[&str]) -> Place {
        Place {
            arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
            environment: Vec::new(),
        }
    }

    /// The same with variables in the environment.
    pub fn with<'a>(mut self, variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Place {
        let variables = variables.into_iter();
        let owned = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.environment.extend(owned);
        self
    }
}

/// A server over a place.
#[derive(Debug)]
pub struct Tiered {
    /// The server; it may be stopped and started again.
    pub server: Server,
    // Removed when the test ends.
    _spool: TempDir,
}

impl Tiered {
    /// Starts a server with these arguments too.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(place: &Place, more: &[&str]) -> Tiered {
        let mut tiered = Tiered::stopped(place, more);
        tiered.server.start();
        tiered
    }

    /// As [`Tiered::start`], to be started later.
    ///
    /// # Panics
    /// When no folder can be made.
    pub fn stopped(place: &Place, more: &[&str]) -> Tiered {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let spool = folder.path().join("spool").display().to_string();
        let mut arguments: Vec<&str> = place.arguments.iter().map(String::as_str).collect();
        arguments.extend(["--dry-spool", &spool]);
        arguments.extend(more);
        let mut server = Server::stopped(&[], &tiercache_binary(), &arguments);
        server.set_environment(place.environment.clone());
        Tiered {
            server,
            _spool: folder,
        }
    }

    /// Waits until everything but the open segment is in the store.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn uploaded(&self) {
        let done = eventually(UPLOAD_LIMIT, || {
            self.server.stats().number("spool_segments") <= 1
        });
        assert!(done, "{}", figures(&self.server.stats()));
    }

    /// Reads the first items in the order of their sets, in multi-gets over several connections at once.
    ///
    /// # Panics
    /// When a get is not answered.
    pub fn read(
        &self,
        items: Items,
        count: u64,
        newest: impl Fn(u64) -> Option<u64> + Copy + Send,
    ) -> Found {
        let part = count.div_ceil(READERS);
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..READERS)
                .map(|reader| {
                    let range = reader * part..count.min((reader + 1) * part);
                    scope.spawn(move || {
                        let mut client = self.server.connect();
                        let found = items.read_by(&mut client, range, KEYS_PER_GET, newest);
                        found.expect("the server answers every get")
                    })
                })
                .collect();
            let mut all = Found::default();
            for reader in readers {
                all.add(reader.join().expect("a reader does not panic"));
            }
            all
        })
    }
}

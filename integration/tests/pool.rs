//! Pools behind tiercache: the pool decides, copies are never too old, and whatever a server of the pool does, no client
//! gets another's value, waits for long or reads what was deleted.

mod access;
mod admin;
mod faults;
mod fit;
mod fleet;
mod leases;
mod load;
mod migration;
mod options;
mod outage;
mod reload;
mod shared;
mod sharing;
mod travel;

use std::time::Duration;

/// Enough for a server to be noticed as gone or back, on a busy machine.
const NOTICED: Duration = Duration::from_secs(30);

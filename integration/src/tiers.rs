//! What a server says about its tiers: figures for messages, and waiting until nothing moves between them.

use std::time::Duration;

use crate::client::Stats;
use crate::eventually;
use crate::server::Server;

/// Items come to rest at most this long after the last write.
const REST_LIMIT: Duration = Duration::from_secs(180);
/// Looks in a row that must show the same before a figure counts as steady.
const STEADY_LOOKS: u32 = 100;

/// Waits until nothing is on its way to dry; the number of items there.
///
/// # Panics
/// When the server does not come to rest within three minutes.
pub fn wait_until_at_rest(server: &Server) -> u64 {
    let mut client = server.connect();
    let (mut items, mut looks) = (0, 0);
    let at_rest = eventually(REST_LIMIT, || {
        let stats = client.stats("").expect("the server answers stats");
        let now = stats.number("dry_items");
        looks = if stats.number("dry_queue_bytes") == 0 && now == items {
            looks + 1
        } else {
            0
        };
        items = now;
        looks >= STEADY_LOOKS
    });
    assert!(
        at_rest,
        "dry does not come to rest: {}",
        figures(&server.stats())
    );
    items
}

/// The figures of the tiers, for messages.
pub fn figures(stats: &Stats) -> String {
    let shown = [
        "hot_",
        "cold_",
        "dry_",
        "demot",
        "promot",
        "get_",
        "curr_items",
        "evictions",
        "tier_state",
    ];
    stats
        .iter()
        .filter(|(name, _)| shown.iter().any(|prefix| name.starts_with(prefix)))
        .map(|(name, value)| format!("{name}={value}"))
        .collect::<Vec<_>>()
        .join(" ")
}

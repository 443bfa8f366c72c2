//! What the tiers are told at start: sizes, residence times, limits of waiting.

use serde::{Deserialize, Serialize};

use crate::dry::Durability;
use crate::units::{ByteSize, Span, UnitError};

/// Sizes and times of hot, cold and the way to dry. Every field is resolved: no "unset" remains.
#[derive(Debug, Clone, PartialEq)]
pub struct TierConfig {
    /// Bytes of hot: arena and index slots. Default 2 GiB.
    pub hot_size: ByteSize,
    /// How long an item stays in hot without a hit. Default 4 h.
    pub hot_ttl: Span,
    /// Bytes of cold: arena and index slots. Default 10 GiB.
    pub cold_size: ByteSize,
    /// How long an item stays in cold without a hit. Default 24 h.
    pub cold_ttl: Span,
    /// Largest item (key, value and header) in bytes, `-I`. Default 1 MiB.
    pub item_size_max: ByteSize,
    /// Whether a full cache makes room by dropping items; `-M` answers an error instead. Default on.
    pub evict: Evict,
    /// Which items leave first. Default balanced.
    pub policy: Policy,
    /// Which items that leave RAM go to dry. Default all.
    pub dry_admission: Admission,
    /// How fast sealed RAM segments are dried before they have to leave. Default 32 MiB/s.
    pub dry_ahead: DryAhead,
    /// How long a store that needs room waits for the dry tier's queue. Default 20 ms.
    pub dry_wait: Span,
    /// When a fetch from dry becomes a counted miss. Default 500 ms.
    pub dry_deadline: Span,
    /// Bytes of index slots for dry items; reaching it reclaims dry. Default a tenth of the RAM
    /// limit, at least 32 MiB.
    pub dry_index: ByteSize,
    /// How long a clean stop may take to move RAM to dry. Default 20 s.
    pub drain_timeout: Span,
    /// Which loss the dry tier survives warm. Default `process`.
    pub durability: Durability,
}

impl TierConfig {
    /// What hot and cold may use together: memcached's `limit_maxbytes`.
    pub fn memory_limit(&self) -> ByteSize {
        ByteSize(self.hot_size.0 + self.cold_size.0)
    }
}

impl Default for TierConfig {
    fn default() -> TierConfig {
        TierConfig {
            hot_size: ByteSize::gib(2),
            hot_ttl: Span::hours(4),
            cold_size: ByteSize::gib(10),
            cold_ttl: Span::hours(24),
            item_size_max: ByteSize::mib(1),
            evict: Evict::Yes,
            policy: Policy::Balanced,
            dry_admission: Admission::All,
            dry_ahead: DryAhead::Rate(ByteSize::mib(32)),
            dry_wait: Span::ms(20),
            dry_deadline: Span::ms(500),
            dry_index: TierConfig::dry_index_default(ByteSize::gib(12)),
            drain_timeout: Span::seconds(20),
            durability: Durability::Process,
        }
    }
}

impl TierConfig {
    /// The default of [`TierConfig::dry_index`] for a RAM limit.
    pub fn dry_index_default(memory_limit: ByteSize) -> ByteSize {
        ByteSize(memory_limit.0 / 10).max(ByteSize::mib(32))
    }
}

/// What happens when no room is left in any tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evict {
    /// Items are dropped.
    Yes,
    /// A store answers `SERVER_ERROR out of memory storing object`.
    No,
}

/// Which items leave RAM first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Oldest segment first; items with hits are reinserted or demoted, the others leave.
    Fifo,
    /// Those with the fewest hits for the time they were not used.
    Frequency,
    /// The same per square root of size: more hits in all, at little cost in bytes that hit.
    Balanced,
    /// The same per byte: the most hits, because large items leave first.
    Density,
}

/// Which items that leave RAM go to dry; the others are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Admission {
    /// All.
    All,
    /// Those that were hit, or came back soon after they had left.
    #[serde(rename = "seen-twice")]
    SeenTwice,
    /// Those that are used more than what dry gives up for them.
    TinyLfu,
}

/// Drying of RAM segments in the background; written `off` or as bytes per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum DryAhead {
    /// Only what has to leave RAM is dried.
    Off,
    /// At most this many bytes per second.
    Rate(ByteSize),
}

impl std::str::FromStr for DryAhead {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<DryAhead, UnitError> {
        if text == "off" {
            Ok(DryAhead::Off)
        } else {
            text.parse().map(DryAhead::Rate)
        }
    }
}

impl TryFrom<String> for DryAhead {
    type Error = UnitError;

    fn try_from(text: String) -> Result<DryAhead, UnitError> {
        text.parse()
    }
}

impl From<DryAhead> for String {
    fn from(ahead: DryAhead) -> String {
        match ahead {
            DryAhead::Off => "off".to_owned(),
            DryAhead::Rate(rate) => rate.to_string(),
        }
    }
}

//! How long operations took.

use std::time::Duration;

/// The times of operations, and what shares of them kept within.
#[derive(Debug, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// Adds one.
    pub fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// Adds those of another.
    pub fn add(&mut self, other: Times) {
        self.0.extend(other.0);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that so many per mille of them kept within; zero where there are none.
    pub fn per_mille(&mut self, share: usize) -> Duration {
        self.0.sort_unstable();
        let last = self.0.len().saturating_sub(1);
        let at = self.0.get((self.0.len() * share / 1000).min(last));
        at.copied().unwrap_or_default()
    }

    /// A line for people.
    pub fn summary(&mut self) -> String {
        let [half, p99, p999, slowest] = [500, 990, 999, 1000].map(|share| self.per_mille(share));
        let count = self.count();
        format!(
            "{count} operations, p50 {half:.1?}, p99 {p99:.1?}, p99.9 {p999:.1?}, slowest {slowest:.1?}"
        )
    }
}

impl FromIterator<Duration> for Times {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Times {
        Times(times.into_iter().collect())
    }
}

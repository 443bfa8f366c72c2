//! The mover: the thread (and the state) that moves items down, ahead of need.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::cache::{Cache, Patience};
use super::evict::Evicted;
use super::leave::Offered;
use super::policy::{KEPT_SEGMENTS_MAX, Pressure};
use crate::clock::UnixSeconds;
use crate::fault::Point;
use crate::ram::{Arena, SegmentKind};

/// How long the mover sleeps when nobody wakes it.
const TICK: Duration = Duration::from_millis(100);
/// The same while there is less room than there should be.
const SHORT_TICK: Duration = Duration::from_millis(1);
/// Age from which a sealed segment is dried ahead.
const DRY_AHEAD_AGE_SECONDS: u32 = 60;
/// Segments that the mover evicts before it looks at its other duties.
const SEGMENTS_PER_TURN: usize = 64;
/// How long the mover waits for room in dry's queue at a time.
const DRY_WAIT: Duration = Duration::from_millis(20);
/// How long the device counts as outrun after a store has waited in vain, at least.
const OUTRUN_TIME_MIN: Duration = Duration::from_millis(500);

/// The segments that the mover appends to.
#[derive(Debug, Default)]
pub(super) struct Mover {
    /// Items that stay although their segment was evicted, by tier.
    kept: [Option<u32>; 2],
    /// Items of compacted segments, by tier; they keep their age.
    compacted: [Option<u32>; 2],
    /// Words kept since a visit last freed more than it kept.
    kept_words: usize,
    pressure: bool,
}

impl Mover {
    /// Everything leaves once visits keep as much as they visit.
    pub(super) fn pressure(&self) -> Pressure {
        if self.pressure {
            Pressure::High
        } else {
            Pressure::Normal
        }
    }

    /// Counts words that stay.
    pub(super) fn kept(&mut self, words: usize) {
        self.kept_words += words;
    }

    /// Notes that one segment was visited; to keep so much of it is usual.
    pub(super) fn visited(&mut self, segment_words: usize, usual_words: usize) {
        self.kept_words = self.kept_words.saturating_sub(usual_words);
        self.pressure = self.kept_words > KEPT_SEGMENTS_MAX * segment_words;
        if self.pressure {
            self.kept_words = 0;
        }
    }

    /// The open segment with room for `words` of a tier; for `compacted` one of that age.
    pub(super) fn room(
        &mut self,
        arena: &Arena,
        kind: SegmentKind,
        words: usize,
        compacted: Option<u32>,
        now: UnixSeconds,
    ) -> Option<u32> {
        let open = match compacted {
            Some(_) => &mut self.compacted[kind as usize],
            None => &mut self.kept[kind as usize],
        };
        if let Some(number) = *open {
            if arena.room(number) >= words {
                return Some(number);
            }
            arena.seal(number);
            *open = None;
        }
        let number = arena.open(kind, 0, now)?;
        if let Some(source) = compacted {
            let source = arena.segment(source);
            arena.set_sequence(number, source.sequence(), source.opened());
        }
        *open = Some(number);
        Some(number)
    }

    pub(super) fn seal(&mut self, arena: &Arena) {
        for number in self
            .kept
            .iter_mut()
            .chain(&mut self.compacted)
            .filter_map(Option::take)
        {
            arena.seal(number);
        }
    }
}

/// What a drain did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DrainReport {
    /// Bytes of items copied to dry.
    pub copied_bytes: u64,
    /// Segments of RAM that did not get their turn.
    pub segments_left: u64,
    /// Items that did not get theirs.
    pub items_left: u64,
    /// Items that no segment of dry has room for.
    pub items_too_large: u64,
}

impl Cache {
    /// The mover's thread.
    pub(super) fn run_mover(self: &Arc<Cache>) {
        let mut credit = Credit::new(self.dry_ahead_bytes());
        while !self.stop.load(Relaxed) {
            if self.arena.available() >= self.low_water() {
                self.wake.wait(TICK);
            } else {
                self.wake.wait(SHORT_TICK);
            }
            self.clock.tick();
            self.apply_due_flush();
            self.return_to_limit();
            self.make_room_ahead();
            self.fill_cold();
            self.expire_slice();
            self.age_out();
            self.dry_ahead(&mut credit);
            self.bound_dry_index();
            self.room.notify_waiters();
        }
    }

    /// Evicts what a lowered limit has no room for, or what the index has grown into.
    fn return_to_limit(&self) {
        for _ in 0..SEGMENTS_PER_TURN {
            if self.arena.bytes_in_use() <= self.arena.limit_bytes()
                || self.evict_segment(&mut self.mover.lock(), Patience::Wait) != Evicted::Room
            {
                return;
            }
        }
    }

    /// Evicts until enough segments are free for the next burst.
    fn make_room_ahead(&self) {
        let low = self.low_water();
        if low == 0 || self.arena.available() >= low {
            return;
        }
        // Bounded, so that the mover's other duties have their turn under a steady load.
        for _ in 0..SEGMENTS_PER_TURN {
            if self.arena.available() >= self.freed_ahead() || self.stop.load(Relaxed) {
                return;
            }
            let evicted = self.evict_segment(&mut self.mover.lock(), self.patience_ahead());
            self.room.notify_waiters();
            match (evicted, &self.dry) {
                (Evicted::Room, _) => {}
                (Evicted::Busy, Some(dry)) => {
                    if !dry.wait_for_room(DRY_WAIT) {
                        return;
                    }
                }
                _ => return,
            }
        }
    }

    /// A store that has waited in vain shows that the device is outrun. For a while the mover then drops what dry has no
    /// time for, as that store does, and no other one waits for it.
    fn patience_ahead(&self) -> Patience {
        let outrun = OUTRUN_TIME_MIN.max(self.config.dry_wait.0);
        match *self.waited_in_vain.lock() {
            Some(at) if at.elapsed() < outrun => Patience::Drop,
            _ => Patience::Wait,
        }
    }

    /// Hands hot's oldest segments over to cold while hot is over its quota and cold below its own:
    /// no byte is copied, only the slots change.
    fn fill_cold(&self) {
        let all = (self.arena.limit_bytes() / self.arena.segment_bytes()) as f64;
        let hot_quota = all * self.hot_share();
        // Most of the time nothing is full, and there are thousands of segments to look at.
        if (self.arena.bytes_in_use() / self.arena.segment_bytes()) as f64 <= hot_quota {
            return;
        }
        loop {
            let (mut hot, mut cold, mut oldest) = (0, 0, None);
            for (number, segment) in self.arena.segments().iter().enumerate() {
                match segment.kind() {
                    _ if !segment.in_use() => {}
                    SegmentKind::Cold => cold += segment.span(),
                    SegmentKind::Hot => {
                        hot += segment.span();
                        let sequence = segment.sequence();
                        if segment.is_sealed() && oldest.is_none_or(|(older, _)| sequence < older) {
                            oldest = Some((sequence, number as u32));
                        }
                    }
                }
            }
            let Some((_, number)) = oldest else { return };
            if f64::from(hot) <= hot_quota
                || f64::from(cold) >= all - hot_quota
                || self.stop.load(Relaxed)
            {
                return;
            }
            self.hand_over(number);
        }
    }

    /// Has dry give up a segment while its slots take more memory than they may.
    fn bound_dry_index(&self) {
        if let Some(dry) = &self.dry
            && self.index.usage().dry_bytes() as u64 > self.config.dry_index.0
        {
            dry.reclaim_one();
        }
    }

    /// Dries the oldest sealed segment that waited long enough, within the rate.
    fn dry_ahead(&self, credit: &mut Credit) {
        credit.refill();
        while credit.bytes > 0 && !self.stop.load(Relaxed) {
            let now = self.clock.recent();
            let Some(number) = self.oldest_undried(|opened| opened + DRY_AHEAD_AGE_SECONDS <= now)
            else {
                return;
            };
            if self.arena.available() < self.low_water() || !self.arena.claim(number) {
                return;
            }
            let dried = self.dry_segment(number, Offered::Admitted);
            if dried.complete {
                self.arena.segment(number).set_dried();
            }
            self.arena.unclaim(number);
            credit.bytes -= (dried.copied_bytes as i64).max(1);
            if !dried.complete {
                return;
            }
        }
    }

    fn oldest_undried(&self, old_enough: impl Fn(UnixSeconds) -> bool) -> Option<u32> {
        let candidates = self.arena.segments().iter().enumerate();
        candidates
            .filter(|(_, segment)| {
                segment.is_sealed() && !segment.is_dried() && old_enough(segment.opened())
            })
            .min_by_key(|(_, segment)| segment.sequence())
            .map(|(number, _)| number as u32)
    }

    /// Moves what RAM holds to dry, until `deadline`. Call it after [`Cache::stop`], when no client
    /// is served any more. `progress` hears of segments done and segments in all.
    pub fn drain(&self, deadline: Instant, progress: &dyn Fn(u64, u64)) -> DrainReport {
        let mut report = DrainReport::default();
        let Some(dry) = &self.dry else {
            return report;
        };
        self.seal_heads();
        self.mover.lock().seal(&self.arena);
        let mut segments: Vec<u32> = (0..self.arena.segments().len() as u32)
            .filter(|number| self.arena.segment(*number).is_sealed())
            .collect();
        // Youngest first: what was used last is missed most.
        segments.sort_by_key(|number| std::cmp::Reverse(self.arena.segment(*number).sequence()));
        let all = segments.len() as u64;
        for (done, number) in segments.into_iter().enumerate() {
            progress(done as u64, all);
            Point::Draining.pass();
            if !self.arena.claim(number) {
                continue;
            }
            loop {
                let dried = self.dry_segment(number, Offered::All);
                report.copied_bytes += dried.copied_bytes;
                if dried.complete {
                    report.items_too_large += dried.too_large;
                    break;
                }
                if Instant::now() >= deadline
                    || !dry.wait_for_room(DRY_WAIT) && !self.dry_may_recover()
                {
                    report.segments_left += 1;
                    break;
                }
            }
            self.arena.unclaim(number);
            if Instant::now() >= deadline {
                report.segments_left += all - done as u64 - 1;
                break;
            }
        }
        progress(all, all);
        report.items_left = if report.segments_left > 0 {
            self.undried_items().saturating_sub(report.items_too_large)
        } else {
            0
        };
        report
    }

    fn dry_may_recover(&self) -> bool {
        self.dry
            .as_ref()
            .is_some_and(|dry| dry.tier_state().takes_writes())
    }

    /// Items in RAM without a copy in dry.
    fn undried_items(&self) -> u64 {
        let counts = self.index.usage().counts;
        counts.hot + counts.cold - counts.clean
    }
}

/// Bytes that may be dried ahead now.
struct Credit {
    rate: u64,
    bytes: i64,
    since: Instant,
}

impl Credit {
    fn new(rate: u64) -> Credit {
        Credit {
            rate,
            bytes: 0,
            since: Instant::now(),
        }
    }

    /// At most a second's worth is saved up.
    fn refill(&mut self) {
        let now = Instant::now();
        let earned = (now - self.since).as_millis() as u64 * self.rate / 1000;
        self.since = now;
        self.bytes = (self.bytes + earned as i64).min(self.rate as i64);
    }
}

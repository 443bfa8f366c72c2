//! The one source of time: whole Unix seconds that never go back while the process runs.
//!
//! Running time is CLOCK_BOOTTIME plus an offset that is fixed at start, so a wall clock that is
//! stepped while the process runs changes nothing. Tests set the time by hand.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rustix::time::{ClockId, clock_gettime};

use crate::fault;

/// Seconds since the Unix epoch; 32 bits reach the year 2106.
pub type UnixSeconds = u32;

/// Tells the time. Shared by all threads.
#[derive(Debug)]
pub struct Clock {
    /// Wall clock minus boot clock at start, in microseconds.
    offset_us: u64,
    /// Not zero: the time was set by hand and stands still.
    manual: AtomicU32,
    /// The latest time that [`Clock::tick`] saw.
    recent: AtomicU32,
}

impl Clock {
    /// A clock that runs on from the wall clock's present time.
    pub fn system() -> Clock {
        let clock = Clock {
            offset_us: wall_us().saturating_sub(boot_us()),
            manual: AtomicU32::new(0),
            recent: AtomicU32::new(0),
        };
        clock.tick();
        clock
    }

    /// A clock that stands at `now` until [`Clock::set`] moves it.
    pub fn manual(now: UnixSeconds) -> Clock {
        let clock = Clock::system();
        clock.set(now);
        clock
    }

    /// Moves a manual clock.
    pub fn set(&self, now: UnixSeconds) {
        self.manual.store(now, Relaxed);
        self.recent.store(now, Relaxed);
    }

    /// Reads the time and keeps it for [`Clock::recent`].
    #[inline]
    pub fn tick(&self) -> UnixSeconds {
        let now = self.now();
        if self.recent.load(Relaxed) != now {
            self.recent.store(now, Relaxed);
        }
        now
    }

    /// The time of the latest tick: good for work that began after one.
    #[inline]
    pub fn recent(&self) -> UnixSeconds {
        self.recent.load(Relaxed)
    }

    /// Reads the time.
    #[inline]
    pub fn now(&self) -> UnixSeconds {
        match self.manual.load(Relaxed) {
            0 => (self.now_us() / 1_000_000) as UnixSeconds,
            now => now,
        }
    }

    /// Microseconds since the Unix epoch, of the running clock.
    #[inline]
    pub fn now_us(&self) -> u64 {
        self.offset_us + boot_us()
    }
}

/// Microseconds since the machine booted, suspended time included.
pub fn boot_us() -> u64 {
    microseconds(clock_gettime(ClockId::Boottime))
}

/// The wall clock in microseconds since the Unix epoch. It may jump; prefer [`Clock`].
pub fn wall_us() -> u64 {
    let step_us = fault::clock_step() * 1_000_000;
    microseconds(clock_gettime(ClockId::Realtime)).saturating_add_signed(step_us)
}

fn microseconds(time: rustix::time::Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_stands_still() {
        let clock = Clock::manual(1000);
        assert_eq!((clock.now(), clock.recent()), (1000, 1000));
        clock.set(1007);
        assert_eq!(clock.tick(), 1007);
    }
}

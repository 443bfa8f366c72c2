//! flush_all: one number. Items whose version is not greater are gone, in every tier, at once.

use std::sync::atomic::Ordering::{AcqRel, Relaxed};

use super::cache::Cache;
use crate::clock::UnixSeconds;
use crate::fault::Point;

impl Cache {
    /// Flushes everything stored so far, or everything stored before `at`.
    pub fn flush(&self, at: Option<UnixSeconds>) {
        match at {
            Some(at) if at > self.clock.recent() => {
                if let Some(dry) = &self.dry
                    && let Err(error) = dry.set_flush_deadline(Some(at))
                {
                    tracing::error!("cannot persist the delayed flush: {error}");
                }
                self.flush_deadline.store(at, Relaxed);
            }
            _ => {
                self.flush_deadline.store(0, Relaxed);
                self.flush_now();
            }
        }
    }

    /// Applies a delayed flush that is due. Called before the first command of each batch.
    #[inline]
    pub fn apply_due_flush(&self) {
        let deadline = self.flush_deadline.load(Relaxed);
        if deadline != 0
            && deadline <= self.clock.recent()
            && self
                .flush_deadline
                .compare_exchange(deadline, 0, AcqRel, Relaxed)
                .is_ok()
        {
            self.flush_now();
        }
    }

    fn flush_now(&self) {
        let version = self.next_version();
        // RAM first: from here on nothing older can be dried, so all of it that is below lies in
        // the segments that dry names. Readers that miss early only overlap the flush.
        self.flush_version.fetch_max(version, AcqRel);
        Point::FlushRaised.pass();
        if let Some(dry) = &self.dry {
            match dry.flush(version) {
                Ok(segment) => {
                    Point::FlushPersisted.pass();
                    self.flush_segment.fetch_max(segment, AcqRel);
                }
                Err(error) => {
                    tracing::error!("cannot persist the flush: {error}");
                    self.flush_segment.store(u32::MAX, Relaxed);
                }
            }
        }
    }
}

//! The locks, conditions and atomics through which threads meet in RAM, index and kill journal.
//!
//! They are parking_lot's and the standard library's. With the feature `model`, which only the
//! models (`models.rs` of the parts) are built with, they are shuttle's: it then decides at each of
//! them which thread runs next, and the product's own types run through every order that it tries.
//! Words that lie in mapped memory stay plain: their order follows from what is here.

#[cfg(not(feature = "model"))]
pub use parking_lot::{Condvar, Mutex, MutexGuard};
#[cfg(not(feature = "model"))]
pub use std::sync::atomic;

#[cfg(feature = "model")]
pub use model::{Condvar, Mutex, MutexGuard, atomic};

/// parking_lot's interface, as far as it is used, over shuttle's primitives.
#[cfg(feature = "model")]
mod model {
    use std::ops::{Deref, DerefMut};
    use std::time::Instant;

    use shuttle::sync;
    pub use shuttle::sync::atomic;

    const HELD: &str = "the guard is only empty while it waits";
    const UNPOISONED: &str = "a panic ends the model";

    /// A mutex without poison.
    #[derive(Debug, Default)]
    pub struct Mutex<T>(sync::Mutex<T>);

    /// A locked [`Mutex`].
    #[derive(Debug)]
    pub struct MutexGuard<'a, T> {
        mutex: &'a Mutex<T>,
        held: Option<sync::MutexGuard<'a, T>>,
    }

    impl<T> Mutex<T> {
        /// An open mutex.
        pub fn new(value: T) -> Mutex<T> {
            Mutex(sync::Mutex::new(value))
        }

        /// Waits for the mutex.
        pub fn lock(&self) -> MutexGuard<'_, T> {
            let held = Some(self.0.lock().expect(UNPOISONED));
            MutexGuard { mutex: self, held }
        }

        /// Takes the mutex if it is open.
        pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            let held = Some(self.0.try_lock().ok()?);
            Some(MutexGuard { mutex: self, held })
        }
    }

    impl<T> MutexGuard<'_, T> {
        /// Runs `run` with the mutex open.
        pub fn unlocked<R>(guard: &mut Self, run: impl FnOnce() -> R) -> R {
            guard.held = None;
            let result = run();
            guard.held = Some(guard.mutex.0.lock().expect(UNPOISONED));
            result
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.held.as_deref().expect(HELD)
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.held.as_deref_mut().expect(HELD)
        }
    }

    /// A condition variable. Its waits never time out: what a model waits for has to come.
    #[derive(Debug, Default)]
    pub struct Condvar(sync::Condvar);

    /// Whether a wait ended by its time.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct WaitTimeoutResult;

    impl WaitTimeoutResult {
        /// Never in a model.
        pub fn timed_out(self) -> bool {
            false
        }
    }

    impl Condvar {
        /// A condition nobody waits for.
        pub fn new() -> Condvar {
            Condvar(sync::Condvar::new())
        }

        /// Wakes one.
        pub fn notify_one(&self) {
            self.0.notify_one();
        }

        /// Wakes all.
        pub fn notify_all(&self) {
            self.0.notify_all();
        }

        /// Waits until it is notified.
        pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            let held = guard.held.take().expect(HELD);
            guard.held = Some(self.0.wait(held).expect(UNPOISONED));
        }

        /// As [`Condvar::wait`].
        pub fn wait_until<T>(
            &self,
            guard: &mut MutexGuard<'_, T>,
            _: Instant,
        ) -> WaitTimeoutResult {
            self.wait(guard);
            WaitTimeoutResult
        }
    }
}

/// Runs a model through `TIERCACHE_TEST_SCHEDULES` random orders of its threads (default
/// [`SCHEDULES`]), half of them with few preemptions. A failure prints the schedule, which
/// `shuttle::replay` runs again.
#[cfg(all(test, feature = "model"))]
pub fn run_model(model: impl Fn() + Send + Sync + 'static) {
    /// Enough to find an order of four or five steps, in seconds.
    const SCHEDULES: usize = 4_000;
    /// Preemptions of the schedules that have few.
    const PREEMPTIONS: usize = 3;
    let count = match std::env::var("TIERCACHE_TEST_SCHEDULES") {
        Ok(text) => text
            .parse()
            .expect("TIERCACHE_TEST_SCHEDULES is a number of schedules"),
        Err(_) => SCHEDULES,
    };
    let model = std::sync::Arc::new(model);
    let again = std::sync::Arc::clone(&model);
    let began = std::time::Instant::now();
    shuttle::check_random(move || model(), count / 2);
    shuttle::check_pct(move || again(), count - count / 2, PREEMPTIONS);
    println!(
        "{count} schedules in {:.1} s",
        began.elapsed().as_secs_f64()
    );
}

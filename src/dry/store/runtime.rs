//! The threads that a remote store's client runs on, and the way to them from threads that block.
//!
//! Clients are asynchronous, the dry tier is not, and neither may stand in the way of the workers. So a
//! store has a runtime of its own; whoever calls it waits outside of it. How many calls there are at
//! once is bounded by the threads that may call: fetches, uploads and reclaim.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Threads of a store's client: they move bytes, nothing in them waits.
const THREADS: usize = 2;
/// A read that has taken this part of its limit is begun again, once…
const LOST_AFTER_PART: u32 = 4;
/// …but not before this: until then it is late, not lost.
const LOST_AFTER_MIN: Duration = Duration::from_millis(500);
/// What a call may take once the tier is being closed: a stop must not wait for a store that is silent.
const CLOSING_LIMIT: Duration = Duration::from_secs(10);

/// A small runtime for one store.
pub(super) struct Remotely {
    runtime: tokio::runtime::Runtime,
    interrupt: Mutex<CancellationToken>,
    closing: AtomicBool,
}

impl Remotely {
    pub(super) fn start() -> io::Result<Remotely> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("dry-remote")
            .enable_all()
            .build()?;
        Ok(Remotely {
            runtime,
            interrupt: Mutex::default(),
            closing: AtomicBool::new(false),
        })
    }

    /// Runs a call to its end, at most for `limit`.
    pub(super) fn run<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        let interrupted = self.interrupt.lock().clone();
        let limit = if self.closing.load(Relaxed) {
            limit.min(CLOSING_LIMIT)
        } else {
            limit
        };
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = interrupted.cancelled() => Err(io::Error::other("the dry tier is being closed")),
                ended = tokio::time::timeout(limit, call) => match ended {
                    Ok(ended) => ended,
                    Err(_) => Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        format!("no answer within {limit:?}"),
                    )),
                },
            }
        })
    }

    /// Runs a read to its end, at most for `limit`. One that hangs, on a connection that is dead and
    /// does not know it, is begun once more within that and has the rest of it.
    pub(super) fn read<T>(
        &self,
        limit: Duration,
        mut call: impl AsyncFnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        let lost_after = (limit / LOST_AFTER_PART).max(LOST_AFTER_MIN);
        self.run(limit, async {
            match tokio::time::timeout(lost_after, call()).await {
                Ok(ended) => ended,
                Err(_) => call().await,
            }
        })
    }

    /// Ends what runs now; what comes later is about the end, and short.
    pub(super) fn interrupt(&self) {
        self.closing.store(true, Relaxed);
        std::mem::take(&mut *self.interrupt.lock()).cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_hangs_is_begun_again() {
        let remotely = Remotely::start().unwrap();
        let mut begun = 0;
        let ended = remotely.read(Duration::from_secs(6), async || {
            begun += 1;
            if begun == 1 {
                std::future::pending::<()>().await;
            }
            Ok(begun)
        });
        assert_eq!(ended.unwrap(), 2);
    }

    #[test]
    fn a_read_that_fails_is_not() {
        let remotely = Remotely::start().unwrap();
        let mut begun = 0;
        let ended = remotely.read(Duration::from_secs(6), async || {
            begun += 1;
            Err::<(), _>(io::ErrorKind::NotFound.into())
        });
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(begun, 1);
    }
}

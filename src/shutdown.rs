//! Signals: the first one that asks for a stop is obeyed in order, the second one at once.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Exit code of a stop that was cut short: what RAM held is lost, as in a crash.
const EXIT_NOT_CLEAN: i32 = 1;

/// The signals of the process.
#[derive(Debug)]
pub struct Signals {
    /// Cancelled by the first SIGTERM, SIGINT or SIGUSR1.
    pub stop: CancellationToken,
    /// Notified by SIGHUP.
    hung_up: Arc<Notify>,
    runtime: tokio::runtime::Runtime,
}

impl Signals {
    /// Watches the signals from now on, on a thread of their own: they count during a long recovery
    /// and a long drain too.
    ///
    /// # Errors
    /// The operating system's, when it gives no thread or no signal handler.
    pub fn watch() -> io::Result<Signals> {
        let stop = CancellationToken::new();
        let watched = stop.clone();
        let hung_up = Arc::new(Notify::new());
        let hang_up = Arc::clone(&hung_up);
        let (installed, outcome) = std::sync::mpsc::channel();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                let handlers =
                    Builder::new_current_thread()
                        .enable_io()
                        .build()
                        .and_then(|runtime| {
                            let entered = runtime.enter();
                            let handlers = Handlers::install()?;
                            drop(entered);
                            Ok((runtime, handlers))
                        });
                match handlers {
                    Ok((runtime, handlers)) => {
                        let _ = installed.send(Ok(()));
                        runtime.block_on(handlers.obey(watched, &hang_up));
                    }
                    Err(error) => drop(installed.send(Err(error))),
                }
            })?;
        outcome.recv().map_err(io::Error::other)??;
        let runtime = Builder::new_current_thread().enable_time().build()?;
        Ok(Signals {
            stop,
            hung_up,
            runtime,
        })
    }

    /// Blocks until a signal or `other` asks for a stop, SIGHUP asks to read files again, or
    /// `timeout` has passed.
    pub fn wait(&self, other: &CancellationToken, timeout: Duration) -> Woken {
        self.runtime.block_on(async {
            tokio::select! {
                () = self.stop.cancelled() => Woken::Look,
                () = other.cancelled() => Woken::Look,
                () = self.hung_up.notified() => Woken::Reload,
                () = tokio::time::sleep(timeout) => Woken::Look,
            }
        })
    }
}

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// Time has passed, or a stop was asked for.
    Look,
    /// SIGHUP: files are to be read again.
    Reload,
}

struct Handlers {
    terminate: Signal,
    interrupt: Signal,
    user: Signal,
    hang_up: Signal,
}

impl Handlers {
    fn install() -> io::Result<Handlers> {
        Ok(Handlers {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            // memcached's graceful stop.
            user: signal(SignalKind::user_defined1())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn obey(mut self, stop: CancellationToken, hung_up: &Notify) {
        loop {
            let name = tokio::select! {
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.interrupt.recv() => "SIGINT",
                _ = self.user.recv() => "SIGUSR1",
                _ = self.hang_up.recv() => {
                    hung_up.notify_one();
                    continue;
                }
            };
            if stop.is_cancelled() {
                tracing::warn!(signal = name, "stopping at once, not clean");
                std::process::exit(EXIT_NOT_CLEAN);
            }
            tracing::info!(
                signal = name,
                "stop asked for; a second signal stops at once"
            );
            stop.cancel();
        }
    }
}

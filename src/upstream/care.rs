//! Looking after servers: where they are, probing those that are ejected, telling them what they
//! missed.
//!
//! One thread with connections of its own. A server gets requests again once it has answered a
//! probe and acknowledged every delete that it missed, in this order.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tiercache_protocol::reply::{MetaStatus, Reply};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::connection::{Outcome, Verdict};
use super::health;
use super::link::Link;
use super::pools::Pools;
use super::request::encode_delete;
use super::server::Server;
use super::undelivered::{Missed, What};

/// The first pause between probes; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause between probes.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often the set of servers is looked at.
const RELOAD_INTERVAL: Duration = Duration::from_millis(500);
/// Deletes that are on their way to a server at once.
const DELETES_AT_ONCE: usize = 256;

/// The thread `upstream`.
#[derive(Debug)]
pub struct Care {
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

impl Care {
    /// Starts the thread.
    ///
    /// # Errors
    /// It or its runtime could not be made.
    pub fn start(pools: &Arc<Pools>) -> io::Result<Care> {
        let stop = CancellationToken::new();
        let (pools, stopped) = (Arc::clone(pools), stop.clone());
        let mut builder = Builder::new_current_thread();
        builder.enable_all();
        let thread = std::thread::Builder::new()
            .name("upstream".to_owned())
            .spawn(move || match builder.build_local(LocalOptions::default()) {
                Ok(runtime) => {
                    runtime.block_on(async {
                        tokio::select! {
                            () = stopped.cancelled() => {}
                            () = watch(&pools) => {}
                        }
                    });
                    // A lookup that hangs is not waited for.
                    runtime.shutdown_background();
                }
                Err(error) => tracing::error!(%error, "start the runtime of the thread upstream"),
            })?;
        Ok(Care { stop, thread })
    }

    /// Ends the thread.
    pub fn stop(self) {
        self.stop.cancel();
        // A thread that panicked has nothing left to be waited for.
        let _ = self.thread.join();
    }
}

/// Keeps one task for each server of the pools.
async fn watch(pools: &Pools) {
    let link = Rc::new(Link::new(0));
    let mut generation = 0;
    let mut tasks: Vec<(Arc<Server>, AbortHandle)> = Vec::new();
    loop {
        if pools.generation() != generation {
            generation = pools.generation();
            let members = pools.members();
            let servers = members.servers();
            tasks.retain(|(server, task)| {
                let stays = servers.iter().any(|kept| Arc::ptr_eq(kept, server));
                if !stays {
                    task.abort();
                }
                stays
            });
            link.keep_only(servers);
            for server in servers {
                if tasks.iter().any(|(known, _)| Arc::ptr_eq(known, server)) {
                    continue;
                }
                let task = spawn_local(look_after(Arc::clone(server), Rc::clone(&link)));
                tasks.push((Arc::clone(server), task.abort_handle()));
                let task = spawn_local(keep_looking_up(Arc::clone(server)));
                tasks.push((Arc::clone(server), task.abort_handle()));
            }
        }
        sleep(RELOAD_INTERVAL).await;
    }
}

async fn keep_looking_up(server: Arc<Server>) {
    if let Some(name) = server.way.name() {
        name.keep_looking_up().await;
    }
}

async fn look_after(server: Arc<Server>, link: Rc<Link>) {
    let mut pause = PAUSE_MIN;
    loop {
        let missed = server.undelivered.missed();
        if !server.is_ejected() && missed.is_none() {
            pause = PAUSE_MIN;
            server.needs_care.notified().await;
            continue;
        }
        if answers(&server, &link).await && deliver(&server, &link, missed).await {
            if server.undelivered.is_empty() {
                server.readmit();
            }
            continue;
        }
        sleep(jittered(pause)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Whether a server is alive, and understands what it is to be asked.
async fn answers(server: &Arc<Server>, link: &Link) -> bool {
    if health::is_alive(server).await == Some(false) {
        return false;
    }
    // Greets it, where it was not before.
    let version = |out: &mut Vec<u8>, _: &[u8]| out.extend_from_slice(b"version\r\n");
    ask(server, link, version, |reply| {
        matches!(reply, Reply::Version(_))
    })
    .await
    .unwrap_or(false)
}

/// Tells a server what it missed; true once it has acknowledged all of that.
async fn deliver(server: &Arc<Server>, link: &Link, missed: Option<Missed>) -> bool {
    let Some(missed) = missed else { return true };
    let delivered = match &missed.what {
        What::Everything => {
            let flush = |out: &mut Vec<u8>, _: &[u8]| out.extend_from_slice(b"flush_all\r\n");
            ask(server, link, flush, |reply| matches!(reply, Reply::Ok))
                .await
                .unwrap_or(false)
        }
        What::Keys(keys) => {
            let mut all = true;
            for keys in keys.chunks(DELETES_AT_ONCE) {
                let answers: Vec<_> = keys
                    .iter()
                    .map(|key| {
                        ask(
                            server,
                            link,
                            |out, opaque| encode_delete(out, key, opaque),
                            is_deleted,
                        )
                    })
                    .collect();
                for answer in answers {
                    all &= answer.await.unwrap_or(false);
                }
            }
            all
        }
    };
    if delivered {
        tracing::info!(server = %server.address.place, "told the upstream server what it missed");
        server.undelivered.delivered(&missed);
    }
    delivered
}

fn is_deleted(reply: &Reply<'_>) -> bool {
    let status = match reply {
        Reply::Meta(reply) => reply.status,
        _ => return false,
    };
    matches!(status, MetaStatus::Done | MetaStatus::NotFound)
}

/// Sends a request; the receiver hears whether its answer was the one hoped for.
fn ask(
    server: &Arc<Server>,
    link: &Link,
    encode: impl FnOnce(&mut Vec<u8>, &[u8]),
    hoped_for: impl Fn(&Reply<'_>) -> bool + 'static,
) -> oneshot::Receiver<bool> {
    let (sender, receiver) = oneshot::channel();
    let sender = RefCell::new(Some(sender));
    link.probe(
        server,
        encode,
        Box::new(move |outcome| {
            let good = matches!(outcome, Outcome::Reply(reply) if hoped_for(reply));
            if let Some(sender) = sender.take() {
                // Nobody waits any more when the server has left the pools.
                let _ = sender.send(good);
            }
            Verdict::Fits
        }),
    );
    receiver
}

/// The pause, give or take a quarter, so that many proxies do not probe in step.
fn jittered(pause: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(0) % 512;
    pause * (768 + random as u32) / 1024
}

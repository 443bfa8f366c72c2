//! Asking every server once, before clients are served, whether it can be used as it is to be.
//!
//! A server that cannot be reached may be back in a moment and is left to the probes. One that
//! answers, but lacks what is needed, will not get better by itself.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::config::Sharing;
use super::connection::{Dialect, End};
use super::greeting::{Understood, connect};
use super::pools::Members;
use super::server::Server;

/// What looking a name up may take at the start.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the servers cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// A server lacks something.
    #[error("memcached server {server}: {reason}")]
    Server {
        /// Where it is.
        server: String,
        /// What it lacks.
        reason: String,
    },
    /// Nobody could be asked.
    #[error("ask the memcached servers: {0}")]
    Runtime(#[from] io::Error),
}

/// Asks all servers at once.
///
/// # Errors
/// Names the first that answers and cannot be used.
pub fn check(members: &Members, sharing: Sharing) -> Result<(), Unfit> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    let checked = runtime.block_on(async {
        let asked: Vec<_> = members
            .servers()
            .iter()
            // One that is left behind may be as it is.
            .filter(|server| members.is_used(server))
            .map(|server| (server, spawn_local(ask(Arc::clone(server)))))
            .collect();
        for (server, asked) in asked {
            let answer = asked.await.map_err(io::Error::other)?;
            judge(server, answer, sharing)?;
        }
        Ok(())
    });
    // A lookup that hangs is not waited for.
    runtime.shutdown_background();
    checked
}

async fn ask(server: Arc<Server>) -> Result<Understood, End> {
    if let Some(name) = server.way.name() {
        // Without an address the connection is given up in time.
        let _ = timeout(LOOKUP_TIMEOUT, name.look_up_first()).await;
    }
    let (_, understood) = connect(&server).await?;
    Ok(understood)
}

fn judge(server: &Server, answer: Result<Understood, End>, sharing: Sharing) -> Result<(), Unfit> {
    let reason = match answer {
        Ok(understood) if sharing == Sharing::Strict && understood.dialect == Dialect::Meta => {
            format!(
                "sharing strict needs flag C of mg (memcached 1.6.41), which it does not have \
                 (version {:?})",
                understood.version
            )
        }
        Ok(understood) => {
            server.understands(understood);
            return Ok(());
        }
        Err(end) if end.is_unfit() => end.to_string(),
        Err(end) => {
            tracing::warn!(server = %server.address.place, reason = %end, "cannot be reached yet");
            return Ok(());
        }
    };
    Err(Unfit::Server {
        server: server.address.place.to_string(),
        reason,
    })
}

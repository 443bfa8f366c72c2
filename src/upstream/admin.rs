//! Asking all servers of the pools the same thing about themselves: version, figures, a flush.
//!
//! For operators, not for clients: it blocks, with a thread for each server. The `memcache` crate
//! asks, in the binary protocol (its text `stats` of 0.21 ends at the first row). It knows no login
//! that spares open servers, is built without encryption, and waits for ever at a unix socket: such
//! servers are asked over a connection of our own.

use std::time::Duration;

use memcache::{Client, MemcacheError};
use tiercache_protocol::reply::Reply;
use tokio::runtime::{Builder, LocalOptions};
use tokio::time::timeout;

use super::config::Place;
use super::connection::End;
use super::greeting::{connect, send};
use super::pools::Members;
use super::server::Server;
use super::stream::Replies;

/// How long a server may take for all of its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Rows of an answer that are read.
const ROWS_MAX: usize = 4096;

/// What servers are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Their version.
    Version,
    /// Their figures.
    Stats,
    /// To forget everything.
    Flush,
}

/// Lines of an answer, or why there is none.
pub type Answer = Result<Vec<String>, String>;

/// Asks all servers at once; answers in the order of the servers, each with where it is.
pub fn ask_all(members: &Members, question: Question) -> Vec<(String, Answer)> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = members
            .servers()
            .iter()
            .map(|server| (server, scope.spawn(|| ask(server, question))))
            .collect();
        let answers = asked.into_iter().map(|(server, asked)| {
            let panicked = |_| Err("the thread that asked it panicked".to_owned());
            let answer = asked.join().unwrap_or_else(panicked);
            (server.address.place.to_string(), answer)
        });
        answers.collect()
    })
}

fn ask(server: &Server, question: Question) -> Answer {
    match &server.address.place {
        Place::Tcp(..) if !server.access.is_any() => {
            ask_by_crate(server, question).map_err(|error| error.to_string())
        }
        // The crate waits for ever at a unix socket.
        _ => ask_ourselves(server, question),
    }
}

fn ask_by_crate(server: &Server, question: Question) -> Result<Vec<String>, MemcacheError> {
    let client = Client::builder()
        .add_server(format!("memcache://{}", server.address.place))?
        .with_max_pool_size(1)
        .with_connection_timeout(ANSWER_TIMEOUT)
        .with_read_timeout(ANSWER_TIMEOUT)
        .with_write_timeout(ANSWER_TIMEOUT)
        .build()?;
    Ok(match question {
        Question::Version => {
            let versions = client.version()?.into_iter();
            versions.map(|(_, version)| version).collect()
        }
        Question::Stats => {
            let rows = client.stats()?.into_iter().flat_map(|(_, rows)| rows);
            let mut rows: Vec<String> = rows
                .map(|(name, value)| format!("{name} {}", value.trim()))
                .collect();
            rows.sort_unstable();
            rows
        }
        Question::Flush => {
            client.flush()?;
            vec![FLUSHED.to_owned()]
        }
    })
}

const FLUSHED: &str = "flushed";

fn ask_ourselves(server: &Server, question: Question) -> Answer {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(|error| error.to_string())?;
    let answer = runtime.block_on(async {
        if let Some(name) = server.way.name() {
            let _ = timeout(ANSWER_TIMEOUT, name.look_up_first()).await;
        }
        let answer = timeout(ANSWER_TIMEOUT, converse(server, question)).await;
        answer.unwrap_or(Err(End::TimedOut))
    });
    // A lookup that hangs is not waited for.
    runtime.shutdown_background();
    answer.map_err(|end| end.to_string())
}

async fn converse(server: &Server, question: Question) -> Result<Vec<String>, End> {
    let (mut stream, _) = connect(server).await?;
    let request: &[u8] = match question {
        Question::Version => b"version\r\n",
        Question::Stats => b"stats\r\n",
        Question::Flush => b"flush_all\r\n",
    };
    send(&mut stream, request).await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut replies = Replies::new(0);
    let mut rows = Vec::new();
    while rows.len() < ROWS_MAX {
        let row = replies.next(&mut stream, |reply| match reply {
            Reply::Version(version) => Ok((text(version), Rows::Last)),
            Reply::Ok => Ok((FLUSHED.to_owned(), Rows::Last)),
            Reply::Stat { name, value } => {
                Ok((format!("{} {}", text(name), text(value)), Rows::More))
            }
            Reply::End => Ok((String::new(), Rows::None)),
            _ => Err(End::Garbled("no answer to what was asked".to_owned())),
        });
        let (row, rest) = row.await??;
        if rest != Rows::None {
            rows.push(row);
        }
        if rest != Rows::More {
            break;
        }
    }
    Ok(rows)
}

/// What is left of an answer.
#[derive(PartialEq, Eq)]
enum Rows {
    /// This row, and others.
    More,
    /// This row.
    Last,
    /// Nothing.
    None,
}

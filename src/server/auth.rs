//! What a connection does before its first command, where users are known: it authenticates.
//!
//! Nothing it sends before is executed. It has [`ENTRY_SECONDS_MAX`](super::ENTRY_SECONDS_MAX)
//! seconds, [`ENTRY_BYTES_MAX`] bytes and [`FAILURES_MAX`] wrong passwords; what it pipelined behind
//! the right one is served.

use std::io;
use std::time::Duration;

use bytes::BufMut;
use tiercache_protocol::Reject;
use tiercache_protocol::auth::{Attempt, decode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::connection::{After, Connection};
use super::input::Input;
use crate::auth::Users;
use crate::clients::Doing;

/// Bytes that a client may send before it is authenticated.
const ENTRY_BYTES_MAX: usize = 2 * 1024;

/// Wrong passwords after which a client is closed.
const FAILURES_MAX: u32 = 3;

/// How long such a client waits to be closed.
const FAILURES_DELAY: Duration = Duration::from_secs(1);

const STORED: &[u8] = b"STORED\r\n";

/// What became of the bytes so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Open,
    Admitted,
    Closed,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Waits until the client is authenticated. What it has sent behind that is left in `input`.
    pub(super) async fn authenticate(
        &mut self,
        users: &Users,
        input: &mut Input,
    ) -> io::Result<After> {
        self.client.set_doing(Doing::Entering);
        let mut received = Vec::new();
        let mut received_bytes_left = ENTRY_BYTES_MAX;
        let mut answers = Vec::new();
        let mut failures = 0;
        loop {
            let mut room = (&mut received).limit(received_bytes_left);
            let count = self.stream.read_buf(&mut room).await?;
            if count == 0 {
                return Ok(After::End);
            }
            received_bytes_left -= count;
            let (entry, consumed) = self.admit(users, &received, &mut failures, &mut answers);
            received.drain(..consumed);
            self.count(consumed, answers.len());
            self.stream.write_all(&answers).await?;
            self.stream.flush().await?;
            answers.clear();
            match entry {
                Entry::Admitted => break,
                Entry::Open if failures >= FAILURES_MAX => {
                    self.worker.pause(FAILURES_DELAY).await;
                    return Ok(After::End);
                }
                Entry::Open if received_bytes_left > 0 => {}
                Entry::Open | Entry::Closed => return Ok(After::End),
            }
        }
        self.client.set_doing(Doing::Working);
        self.worker.progress(&self.client);
        *input = Input::holding(received);
        Ok(After::Goon)
    }

    /// Answers all whole attempts up to the right one. Tells how many bytes they were.
    fn admit(
        &self,
        users: &Users,
        bytes: &[u8],
        failures: &mut u32,
        answers: &mut Vec<u8>,
    ) -> (Entry, usize) {
        let mut start = 0;
        while start < bytes.len() && *failures < FAILURES_MAX {
            match decode(&bytes[start..]) {
                Attempt::More => break,
                Attempt::Credentials {
                    user,
                    password,
                    consumed,
                } => {
                    start += consumed;
                    let known = users.know(user, password);
                    self.count_attempt(known);
                    if known {
                        answers.extend_from_slice(STORED);
                        return (Entry::Admitted, start);
                    }
                    *failures += 1;
                    answers.extend_from_slice(Reject::AuthenticationFailure.as_bytes());
                }
                Attempt::Reject { reply, consumed } => {
                    start += consumed;
                    answers.extend_from_slice(reply.as_bytes());
                }
                Attempt::Close => return (Entry::Closed, start),
            }
        }
        (Entry::Open, start)
    }

    fn count(&self, received: usize, sent: usize) {
        let executor = self.worker.executor.borrow();
        let counters = executor.counters();
        counters.bytes_read.add(received as u64);
        counters.bytes_written.add(sent as u64);
    }

    fn count_attempt(&self, known: bool) {
        let executor = self.worker.executor.borrow();
        let counters = executor.counters();
        counters.auth_cmds.bump();
        if !known {
            counters.auth_errors.bump();
            tracing::debug!(
                connection = self.client.id(),
                peer = %self.client.peer(),
                "authentication failed"
            );
        }
    }
}

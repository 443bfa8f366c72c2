//! What a connection does before its first command, where users are known: it authenticates.
//!
//! Nothing it sends before is executed. It has [`ENTRY_SECONDS_MAX`](super::ENTRY_SECONDS_MAX)
//! seconds, [`ENTRY_BYTES_MAX`] bytes and [`FAILURES_MAX`] wrong passwords; what it pipelined behind
//! the right one is served.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BufMut;
use tiercache_protocol::auth::{Attempt, PACKET_MAGIC, decode, packet_form};
use tiercache_protocol::binary::{Opcode, Status};
use tiercache_protocol::{Decoded, Decoder, Reject, Request, Syntax, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connection::{After, Connection};
use super::input::Input;
use super::stream::Transport;
use crate::auth::Users;
use crate::clients::Doing;
use crate::command::{Flow, Progress, Shown};

/// Bytes that a client may send before it is authenticated.
const ENTRY_BYTES_MAX: usize = 2 * 1024;

/// Wrong passwords after which a client is closed.
const FAILURES_MAX: u32 = 3;

/// How long such a client waits to be closed.
const FAILURES_DELAY: Duration = Duration::from_secs(1);

/// What may be asked before.
const ENTRY_OPCODES: [Opcode; 4] = [
    Opcode::SASL_LIST,
    Opcode::SASL_AUTH,
    Opcode::SASL_STEP,
    Opcode::VERSION,
];

const STORED: &[u8] = b"STORED\r\n";

/// What became of the bytes so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Open,
    Admitted,
    Closed,
}

/// A client that is not in yet.
struct Caller {
    users: Arc<Users>,
    syntax: Syntax,
    /// Of packets.
    decoder: Decoder,
    /// The mechanism of SASL is named, its token is to come.
    begun: bool,
    failures: u32,
}

impl Caller {
    /// Whether these are packets; the first byte tells, where both are spoken.
    fn speaks_packets(&self, bytes: &[u8]) -> bool {
        match self.syntax {
            Syntax::Auto => bytes.first() == Some(&PACKET_MAGIC),
            Syntax::Text => false,
            Syntax::Binary => true,
        }
    }
}

impl<S: Transport> Connection<S> {
    /// Waits until the client is authenticated. What it has sent behind that is left in `input`.
    pub(super) async fn authenticate(
        &mut self,
        users: &Arc<Users>,
        input: &mut Input,
    ) -> io::Result<After> {
        self.client.set_doing(Doing::Entering);
        let mut received = Vec::new();
        let mut received_bytes_left = ENTRY_BYTES_MAX;
        let mut answers = Vec::new();
        let mut caller = Caller {
            users: Arc::clone(users),
            syntax: self.worker.site.config.syntax,
            decoder: Decoder::with_item_size_max(ENTRY_BYTES_MAX).speaking(Syntax::Binary),
            begun: false,
            failures: 0,
        };
        loop {
            let mut room = (&mut received).limit(received_bytes_left);
            let count = self.stream.read_buf(&mut room).await?;
            if count == 0 {
                return Ok(After::End);
            }
            received_bytes_left -= count;
            let (entry, consumed) = self.admit(&mut caller, &received, &mut answers);
            received.drain(..consumed);
            self.count(consumed, answers.len());
            self.stream.write_all(&answers).await?;
            self.stream.flush().await?;
            answers.clear();
            match entry {
                Entry::Admitted => break,
                Entry::Open if caller.failures >= FAILURES_MAX => {
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
    fn admit(&self, caller: &mut Caller, bytes: &[u8], answers: &mut Vec<u8>) -> (Entry, usize) {
        let mut start = 0;
        while start < bytes.len() && caller.failures < FAILURES_MAX {
            let rest = &bytes[start..];
            let (entry, consumed) = if caller.speaks_packets(rest) {
                self.admit_packet(caller, rest, answers)
            } else {
                self.admit_text(caller, rest, answers)
            };
            start += consumed;
            if entry != Entry::Open || consumed == 0 {
                return (entry, start);
            }
        }
        (Entry::Open, start)
    }

    fn admit_text(
        &self,
        caller: &mut Caller,
        bytes: &[u8],
        answers: &mut Vec<u8>,
    ) -> (Entry, usize) {
        match decode(bytes) {
            Attempt::More => (Entry::Open, 0),
            Attempt::Credentials {
                user,
                password,
                consumed,
            } => {
                let executor = self.worker.executor.borrow();
                if executor.knows(&caller.users, user, password) {
                    answers.extend_from_slice(STORED);
                    return (Entry::Admitted, consumed);
                }
                self.fail(caller);
                answers.extend_from_slice(Reject::AuthenticationFailure.as_bytes());
                (Entry::Open, consumed)
            }
            Attempt::Reject { reply, consumed } => {
                answers.extend_from_slice(reply.as_bytes());
                (Entry::Open, consumed)
            }
            Attempt::Close => (Entry::Closed, 0),
        }
    }

    /// Whatever is no step of SASL, nor asks for the version, ends the connection, as in memcached.
    fn admit_packet(
        &self,
        caller: &mut Caller,
        bytes: &[u8],
        answers: &mut Vec<u8>,
    ) -> (Entry, usize) {
        if let Some(form) = packet_form(bytes)
            && !ENTRY_OPCODES.contains(&form.opcode)
        {
            encode::binary_status(answers, form, Status::AUTH_ERROR);
            return (Entry::Closed, 0);
        }
        match caller.decoder.decode(bytes) {
            Decoded::More { .. } => (Entry::Open, 0),
            Decoded::Request {
                request: Request::Sasl(sasl),
                consumed,
            } => {
                let executor = self.worker.executor.borrow();
                match executor.sasl(&sasl, &mut caller.begun, answers) {
                    Shown::Known => return (Entry::Admitted, consumed),
                    Shown::Unknown => self.fail(caller),
                    Shown::Nothing => {}
                }
                (Entry::Open, consumed)
            }
            Decoded::Request { request, consumed } => {
                let mut executor = self.worker.executor.borrow_mut();
                match executor.execute(&request, &mut Progress::default(), answers) {
                    Flow::Done => (Entry::Open, consumed),
                    _ => (Entry::Closed, consumed),
                }
            }
            Decoded::Skip { consumed } => (Entry::Open, consumed),
            _ => (Entry::Closed, 0),
        }
    }

    fn count(&self, received: usize, sent: usize) {
        let executor = self.worker.executor.borrow();
        let counters = executor.counters();
        counters.bytes_read.add(received as u64);
        counters.bytes_written.add(sent as u64);
    }

    fn fail(&self, caller: &mut Caller) {
        caller.failures += 1;
        tracing::debug!(
            connection = self.client.id(),
            peer = %self.client.peer(),
            "authentication failed"
        );
    }
}

//! One pipelined connection to an upstream server, shared by all clients of a worker.
//!
//! ```text
//!   request ─▶ unsent ──one write per turn──▶ server
//!          └▶ in flight (in order) ◀─ reply ─ decoder ◀── reads
//!                 └ the oldest waits too long, or a reply is another's: close, all that was sent fails
//! ```
//!
//! Nothing the server sends is believed: a reply must have the opaque number of the oldest request
//! in flight and the shape of an answer to it. What was not sent when a connection ends goes out on
//! the next one. A connection that nobody has used for a while is closed before somebody on the way, who
//! would not tell, forgets it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tiercache_protocol::DecodedReply;
use tiercache_protocol::reply::{InvalidReply, MetaStatus, Reply};
use tokio::time::Sleep;

use super::greeting::{Understood, connect};
use super::link::{Common, Unsettled};
use super::server::Server;
use super::stream::{BUFFER_KEPT_BYTES_MAX, Replies, Stream};

/// Requests of one connection that wait for their answers, sent or not. More are refused.
const IN_FLIGHT_MAX: usize = 16 * 1024;
/// Bytes of requests that wait to be sent. More are refused, unless there are none.
const UNSENT_BYTES_MAX: usize = 64 << 20;
/// Reads in one turn before the worker's other tasks have theirs.
const READS_PER_TURN: usize = 8;

/// Hears the answer to a request, and says whether it can be one.
pub type Done = Box<dyn FnOnce(Outcome<'_>) -> Verdict>;

/// What became of a request.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// The server's answer.
    Reply(&'a Reply<'a>),
    /// There is none.
    Failed(Failure),
}

/// Why a request has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The server is ejected, or could not be reached: nothing was sent.
    Down,
    /// Too much waits for the server already: nothing was sent.
    Busy,
    /// Not answered in time; it may still be done.
    TimedOut,
    /// The connection ended first, or was closed because of another answer; it may still be done.
    Lost,
    /// The value in the answer is larger than the link takes.
    TooLarge,
    /// The answer to another request that had to be done first was an error.
    Refused,
}

/// Whether an answer can be one to the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It can.
    Fits,
    /// It is another's: nothing that follows on this connection can be believed.
    Garbled,
}

/// What a server was found to understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// The meta commands.
    Meta,
    /// These, and flag `C` of `mg` (memcached 1.6.41 on).
    MetaCompare,
}

/// A connection to one server, made again whenever it is needed.
pub struct Connection {
    server: Arc<Server>,
    value_max: usize,
    pending: RefCell<Pending>,
    dialect: Cell<Option<Dialect>>,
    retired: Cell<bool>,
    /// When it was made or last answered.
    last_used: Cell<Instant>,
    link: Rc<Common>,
}

#[derive(Default)]
struct Pending {
    /// The bytes of requests from stream position `begin` on; `sent` of them are sent.
    bytes: Vec<u8>,
    sent: usize,
    begin: u64,
    in_flight: VecDeque<InFlight>,
    next_opaque: u32,
    /// Wakes the task that drives the connection.
    waker: Option<Waker>,
    running: bool,
}

impl Pending {
    /// Forgets whole requests that are sent, once they are more than what is not: where a backlog never ends, all that was
    /// ever sent would be kept.
    fn drop_sent(&mut self) {
        if self.sent <= BUFFER_KEPT_BYTES_MAX.max(self.bytes.len() / 2) {
            return;
        }
        let sent_to = self.begin + self.sent as u64;
        let begun = self
            .in_flight
            .partition_point(|request| request.begin <= sent_to);
        // The last of those that have begun to be sent stays.
        let kept_from = begun
            .checked_sub(1)
            .map(|last| self.in_flight[last].begin)
            .filter(|begin| *begin > self.begin);
        if let Some(kept_from) = kept_from {
            let count = (kept_from - self.begin) as usize;
            self.bytes.drain(..count);
            self.sent -= count;
            self.begin = kept_from;
        }
    }

    /// Whether something was sent that is not answered yet.
    fn awaits_answers(&self) -> bool {
        let sent_to = self.begin + self.sent as u64;
        let oldest = self.in_flight.front();
        oldest.is_some_and(|oldest| oldest.begin < sent_to)
    }
}

struct InFlight {
    opaque: u32,
    since: Instant,
    /// Where the request begins in the stream of requests.
    begin: u64,
    done: Done,
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the server closed the connection")]
    Closed,
    #[error("a request was not answered in time")]
    TimedOut,
    #[error("no connection in time")]
    ConnectTimedOut,
    #[error("{0}")]
    Garbled(String),
    #[error("no longer needed")]
    Retired,
    #[error("not used for a while")]
    Idle,
    /// Its name means another place now.
    #[error("the server has moved")]
    Moved,
    #[error("encryption: {0}")]
    Handshake(String),
    #[error("the server wants a user and a password (memcached.username)")]
    LoginWanted,
    #[error("the server refused the user or the password")]
    LoginRefused,
    /// With the server's version, if it told one.
    #[error("the server (version {0:?}) does not have the meta commands of memcached 1.6.10")]
    NoMeta(String),
}

impl End {
    /// Whether nothing is wrong, if all was answered.
    fn is_ordinary(&self) -> bool {
        matches!(self, End::Closed | End::Retired | End::Idle | End::Moved)
    }

    /// Whether the server cannot be used until somebody changes it.
    pub(super) fn is_unfit(&self) -> bool {
        matches!(
            self,
            End::NoMeta(_) | End::Handshake(_) | End::LoginWanted | End::LoginRefused
        )
    }
}

impl Connection {
    pub(super) fn new(server: Arc<Server>, value_max: usize, link: Rc<Common>) -> Rc<Connection> {
        Rc::new(Connection {
            server,
            value_max,
            pending: RefCell::default(),
            dialect: Cell::new(None),
            retired: Cell::new(false),
            last_used: Cell::new(Instant::now()),
            link,
        })
    }

    /// What the server understands; none before it was connected to.
    pub fn dialect(&self) -> Option<Dialect> {
        self.dialect.get()
    }

    /// Ends the connection once everything is answered.
    pub(super) fn retire(&self) {
        self.retired.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.pending.borrow_mut().waker.take() {
            waker.wake();
        }
    }

    pub(super) fn request(
        self: &Rc<Connection>,
        encode: impl FnOnce(&mut Vec<u8>, &[u8]),
        done: Done,
    ) {
        let mut pending = self.pending.borrow_mut();
        let unsent = pending.bytes.len() - pending.sent;
        if pending.in_flight.len() >= IN_FLIGHT_MAX || unsent > UNSENT_BYTES_MAX {
            drop(pending);
            self.server.stats.errors.fetch_add(1, Relaxed);
            // Nothing was sent, so there is nothing to compare with.
            let _ = done(Outcome::Failed(Failure::Busy));
            return;
        }
        let opaque = pending.next_opaque;
        pending.next_opaque = opaque.wrapping_add(1);
        let begin = pending.begin + pending.bytes.len() as u64;
        encode(&mut pending.bytes, &opaque_text(opaque));
        pending.in_flight.push_back(InFlight {
            opaque,
            since: self.link.now.get(),
            begin,
            done,
        });
        let waker = pending.waker.take();
        if !pending.running {
            pending.running = true;
            self.link.spawn(Rc::clone(self).run());
        }
        drop(pending);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Connects and serves as long as there are requests; ends with the connection.
    async fn run(self: Rc<Connection>) {
        while !self.pending.borrow().in_flight.is_empty() {
            let (mut stream, understood) = match self.connect().await {
                Ok(connected) => connected,
                Err(end) => {
                    tracing::debug!(server = %self.server.address.place, %end, "connect");
                    self.server.failed(&end);
                    self.fail_all(Failure::Down);
                    continue;
                }
            };
            self.dialect.set(Some(understood.dialect));
            self.server.understands(understood);
            // Before anything is sent on it: see `Server::connections_made`.
            self.server.stats.connects.fetch_add(1, AcqRel);
            let end = self.drive(&mut stream).await;
            self.ended(&end);
            if !end.is_ordinary() {
                // What is still in the kernel's buffers must not reach the server any more.
                stream.reset_on_close();
            }
        }
        self.pending.borrow_mut().running = false;
    }

    async fn connect(&self) -> Result<(Stream, Understood), End> {
        let _unsettled = Unsettled::new(&self.link);
        let (stream, understood) = connect(&self.server).await?;
        Ok((stream.settle(&self.link)?, understood))
    }

    /// Accounts for the end of a connection and fails what was sent on it, or has waited for too long by now: it would
    /// time out on the next one as well, perhaps before it was sent there.
    fn ended(&self, end: &End) {
        let now = Instant::now();
        self.link.now.set(now);
        let mut failed = {
            let pending = &mut *self.pending.borrow_mut();
            let sent_to = pending.begin + pending.sent as u64;
            let over = pending.in_flight.partition_point(|request| {
                request.begin < sent_to || request.since + self.server.request_timeout <= now
            });
            let failed: VecDeque<InFlight> = pending.in_flight.drain(..over).collect();
            let kept_from = pending
                .in_flight
                .front()
                .map_or(pending.begin + pending.bytes.len() as u64, |r| r.begin);
            pending.bytes.drain(..(kept_from - pending.begin) as usize);
            (pending.begin, pending.sent) = (kept_from, 0);
            failed
        };
        if end.is_ordinary() && failed.is_empty() {
            return;
        }
        tracing::warn!(server = %self.server.address.place, %end, lost = failed.len(), "upstream connection");
        if matches!(end, End::Garbled(_)) {
            self.server.stats.garbled.fetch_add(1, Relaxed);
        }
        self.server.failed(end);
        let failure = match end {
            End::TimedOut => Failure::TimedOut,
            _ => Failure::Lost,
        };
        for request in failed.drain(..) {
            self.fail(request, failure);
        }
    }

    fn fail_all(&self, failure: Failure) {
        self.link.now.set(Instant::now());
        let failed = {
            let pending = &mut *self.pending.borrow_mut();
            pending.begin += pending.bytes.len() as u64;
            pending.sent = 0;
            pending.bytes.clear();
            std::mem::take(&mut pending.in_flight)
        };
        for request in failed {
            self.fail(request, failure);
        }
    }

    fn fail(&self, request: InFlight, failure: Failure) {
        let stats = &self.server.stats;
        stats.errors.fetch_add(1, Relaxed);
        if failure == Failure::TimedOut {
            stats.timeouts.fetch_add(1, Relaxed);
        }
        // A request that failed has no answer to compare.
        let _ = hear(request.done, Outcome::Failed(failure));
    }

    /// Sends and receives until the connection ends.
    async fn drive(&self, stream: &mut Stream) -> End {
        let mut input = Replies::new(self.value_max);
        let mut timer = pin!(self.link.timer());
        let mut armed = None;
        self.last_used.set(Instant::now());
        let mut blocked = None;
        poll_fn(|cx| {
            loop {
                if let Err(end) = self.poll_send(cx, stream) {
                    return Poll::Ready(end);
                }
                match self.poll_replies(cx, stream, &mut input) {
                    Err(end) => return Poll::Ready(end),
                    // The answers may have led to new requests.
                    Ok(()) if self.has_unsent() && !stream.write_blocked => {}
                    Ok(()) => break,
                }
            }
            match stream.write_blocked && !stream.is_at_home() {
                true => _ = blocked.get_or_insert_with(|| Unsettled::new(&self.link)),
                false => blocked = None,
            }
            if let Some(end) = self.poll_timer(cx, timer.as_mut(), &mut armed) {
                return Poll::Ready(end);
            }
            let mut pending = self.pending.borrow_mut();
            if self.retired.get() && pending.in_flight.is_empty() {
                return Poll::Ready(End::Retired);
            }
            if stream.leaving && !pending.awaits_answers() {
                return Poll::Ready(End::Moved);
            }
            pending.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn has_unsent(&self) -> bool {
        let pending = self.pending.borrow();
        pending.sent < pending.bytes.len()
    }

    fn poll_send(&self, cx: &mut Context<'_>, stream: &mut Stream) -> Result<(), End> {
        let pending = &mut *self.pending.borrow_mut();
        stream.write_blocked = false;
        // Between two requests, what follows can go to where the server is now.
        stream.leaving = pending.sent == 0 && stream.is_elsewhere(&self.server);
        if stream.leaving {
            stream.write_blocked = true;
            return match stream.poll_flush(cx) {
                Poll::Ready(Err(error)) => Err(error.into()),
                _ => Ok(()),
            };
        }
        while pending.sent < pending.bytes.len() {
            match stream.poll_write(cx, &pending.bytes[pending.sent..]) {
                Poll::Ready(Ok(0)) => return Err(End::Closed),
                Poll::Ready(Ok(count)) => pending.sent += count,
                Poll::Ready(Err(error)) => return Err(error.into()),
                Poll::Pending => {
                    stream.write_blocked = true;
                    pending.drop_sent();
                    return Ok(());
                }
            }
        }
        pending.begin += pending.bytes.len() as u64;
        pending.sent = 0;
        pending.bytes.clear();
        if pending.bytes.capacity() > BUFFER_KEPT_BYTES_MAX {
            pending.bytes = Vec::new();
        }
        match stream.poll_flush(cx) {
            Poll::Ready(Err(error)) => return Err(error.into()),
            Poll::Ready(Ok(())) => {}
            Poll::Pending => stream.write_blocked = true,
        }
        Ok(())
    }

    fn poll_replies(
        &self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        input: &mut Replies,
    ) -> Result<(), End> {
        for _ in 0..READS_PER_TURN {
            match input.poll_read(cx, stream) {
                Poll::Ready(Ok(0)) => return Err(End::Closed),
                Poll::Ready(Ok(_)) => self.answer(input)?,
                Poll::Ready(Err(error)) => return Err(error.into()),
                Poll::Pending => return Ok(()),
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Hands each whole reply to the oldest request in flight.
    fn answer(&self, input: &mut Replies) -> Result<(), End> {
        let now = Instant::now();
        self.link.now.set(now);
        self.last_used.set(now);
        loop {
            if !input.has_dropped() {
                return Ok(());
            }
            let waiting = &input.bytes[input.start..];
            let (reply, size, fits) = match input.decoder.decode(waiting) {
                DecodedReply::Reply { reply, consumed } => (reply, consumed, true),
                DecodedReply::More { total } => {
                    input.total = total;
                    return Ok(());
                }
                DecodedReply::Invalid { reason } => match input.decoder.oversized(waiting) {
                    // Only its own request fails: many others wait behind it.
                    Some((reply, size)) if reason == InvalidReply::ValueTooLarge => {
                        (reply, size, false)
                    }
                    _ => return Err(End::Garbled(reason.to_string())),
                },
            };
            let oldest = {
                let pending = &mut *self.pending.borrow_mut();
                if !pending.awaits_answers() {
                    return Err(End::Garbled("an answer that nobody asked for".into()));
                }
                if !opaque_fits(&reply, pending.in_flight.front().map_or(0, |r| r.opaque)) {
                    return Err(End::Garbled("the answer to another request".into()));
                }
                pending.in_flight.pop_front()
            };
            if let Some(request) = oldest {
                self.server.succeeded();
                self.server.stats.answered_after(now - request.since);
                let outcome = if fits {
                    Outcome::Reply(&reply)
                } else {
                    self.server.stats.too_large.fetch_add(1, Relaxed);
                    Outcome::Failed(Failure::TooLarge)
                };
                if hear(request.done, outcome) == Verdict::Garbled {
                    return Err(End::Garbled("no answer to what was asked".into()));
                }
            }
            input.drop_front(size);
        }
    }

    /// Ends the connection if the oldest request has waited for too long, or if there was none for too long.
    fn poll_timer(
        &self,
        cx: &mut Context<'_>,
        mut timer: Pin<&mut Sleep>,
        armed: &mut Option<Instant>,
    ) -> Option<End> {
        let (deadline, end) = match self.pending.borrow().in_flight.front() {
            Some(oldest) => (oldest.since + self.server.request_timeout, End::TimedOut),
            None if self.server.idle_timeout.is_zero() => return None,
            None => (self.last_used.get() + self.server.idle_timeout, End::Idle),
        };
        match *armed {
            // Armed for something older, it fires too early and is set again: once in a timeout's time instead of once
            // for each request. Until then the waker of an idle connection is in it already.
            Some(at) if at <= deadline => {
                if matches!(end, End::Idle) && !timer.is_elapsed() {
                    return None;
                }
            }
            // Armed for the end of an idle time, which a request has cut short.
            _ => {
                timer.as_mut().reset(deadline.into());
                *armed = Some(deadline);
            }
        }
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Some(end);
            }
            timer.as_mut().reset(deadline.into());
            *armed = Some(deadline);
        }
        None
    }
}

/// Has a request's outcome heard. A panic is a bug of whoever hears it; the other requests have nothing to do with that.
fn hear(done: Done, outcome: Outcome<'_>) -> Verdict {
    catch_unwind(AssertUnwindSafe(|| done(outcome))).unwrap_or(Verdict::Fits)
}

/// The opaque token of request number `opaque`.
fn opaque_text(opaque: u32) -> [u8; 8] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    std::array::from_fn(|digit| HEX[(opaque >> (28 - 4 * digit)) as usize & 15])
}

/// Whether a reply may be the answer to request number `opaque`. Classic replies and errors have no
/// token, and versions before 1.6.19 leave it out where there is no item.
fn opaque_fits(reply: &Reply<'_>, opaque: u32) -> bool {
    match reply {
        Reply::Meta(reply) => match reply.flags.opaque() {
            Some(token) => token == opaque_text(opaque),
            None => !matches!(reply.status, MetaStatus::Value | MetaStatus::Done),
        },
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST_BYTES: usize = 100_000;

    #[test]
    fn whole_requests_that_are_sent_are_forgotten() {
        let mut pending = Pending::default();
        for number in 0..10 {
            pending.in_flight.push_back(InFlight {
                opaque: 0,
                since: Instant::now(),
                begin: pending.bytes.len() as u64,
                done: Box::new(|_| Verdict::Fits),
            });
            pending
                .bytes
                .resize((number + 1) * REQUEST_BYTES, number as u8);
        }
        let mut after = |sent| {
            pending.sent = sent;
            pending.drop_sent();
            let first = pending.bytes[0];
            (pending.begin, pending.sent, pending.bytes.len(), first)
        };
        assert_eq!(after(450_000), (0, 450_000, 1_000_000, 0));
        assert_eq!(after(650_000), (600_000, 50_000, 400_000, 6));
        assert_eq!(after(250_000), (600_000, 250_000, 400_000, 6));
        // Between two requests nothing is sent, which lets the connection go elsewhere.
        assert_eq!(after(300_000), (900_000, 0, 100_000, 9));
    }
}

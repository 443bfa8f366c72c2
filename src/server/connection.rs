//! One connection: receive, decode, execute, send; replies in the order of the requests.
//!
//! ```text
//!   receive once ─▶ decode ─▶ execute ─┬ Done ──▶ next request ── none left ─▶ send once ─▶ receive
//!                                      ├ Flush ─▶ send, the same request goes on
//!                                      ├ Wait ──▶ the others of this worker go on; then the same request again
//!                                      └ Close ─▶ send, end
//! ```

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;

use tiercache_protocol::{Decoded, Decoder, Request};
use tokio::io::{AsyncRead, AsyncWrite};

use super::held::Why;
use super::input::Input;
use super::watching::stream_events;
use super::worker::{Client, Place, Worker};
use crate::clients::Doing;
use crate::command::{Flow, Late, Progress};
use crate::ratelimit::RateLimit;
use crate::watch::{Kinds, Subscription};

/// Answers that are not sent yet beyond this keep the connection from decoding further requests.
const UNSENT_BYTES_SOFT: usize = 64 * 1024;
/// Answers of one connection that are sent before the others have their turn: a thousand clients that
/// ask for large values must not keep one that asks for a small one waiting for all of theirs.
const TURN_ANSWER_BYTES_MAX: usize = 256 * 1024;
/// How often a connection lets others go first while those that were told to end still hold too much.
const CROWDED_YIELDS_MAX: usize = 1024;

/// Connections that come and go, in lines of the log a second; beyond it they are counted.
const LOGGED_PER_SECOND: u32 = 100;

static LOGGED: RateLimit = RateLimit::new(LOGGED_PER_SECOND);

/// Serves a client until it leaves or has to leave. Its stream holds up to `stream_bytes` of unread
/// answers beside those that are not sent.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    place: Place,
    stream_bytes: usize,
) {
    let mut connection = Connection {
        stream,
        worker: Rc::clone(&place.worker),
        client: Rc::clone(&place.client),
        answers: Vec::new(),
        stream_bytes,
        late: place.worker.executor.borrow().late(),
    };
    let id = place.client.id();
    log(
        &place,
        || tracing::debug!(connection = id, peer = %place.client.peer(), "opened"),
    );
    match connection.run().await {
        Ok(()) => log(&place, || tracing::debug!(connection = id, "closed")),
        Err(error) => {
            place.client.fail();
            if error.kind() == io::ErrorKind::InvalidData {
                let counters = &place.worker.site.shared.metrics.server;
                counters.ssl_proto_errors.fetch_add(1, Relaxed);
            }
            // Clients vanish all the time; only somebody who looks for it wants to read of it.
            log(&place, || tracing::debug!(connection = id, %error, "lost"));
        }
    }
}

/// Logs that a connection came or went.
fn log(place: &Place, write: impl FnOnce()) {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    if let Some(left_out) = LOGGED.pass(place.worker.site.shared.clock.recent()) {
        if left_out > 0 {
            tracing::debug!(left_out, "connections that are not logged");
        }
        write();
    }
}

pub(super) struct Connection<S> {
    pub(super) stream: S,
    pub(super) worker: Rc<Worker>,
    pub(super) client: Rc<Client>,
    /// Replies that are not sent yet; lent by the worker for one turn.
    answers: Vec<u8>,
    /// Unread answers that the stream may hold beside.
    stream_bytes: usize,
    /// Answers among them that come later, if the server answers from pools.
    late: Option<Rc<Late>>,
}

/// Whether the connection goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    Goon,
    End,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    async fn run(&mut self) -> io::Result<()> {
        let site = Arc::clone(&self.worker.site);
        let mut decoder =
            Decoder::with_item_size_max(site.config.item_size_max).speaking(site.config.syntax);
        let mut input = Input::default();
        let mut holding = false;
        if let Some(users) = &site.shared.users
            && self.authenticate(users, &mut input).await? == After::End
        {
            return Ok(());
        }
        // What came behind an authentication is served before more is asked for.
        let mut received = input.unconsumed().len();
        loop {
            if received == 0 {
                received = self.receive(&mut input).await?;
            }
            if received == 0 {
                return Ok(());
            }
            self.begin(std::mem::take(&mut received));
            let (after, total) = self.turn(&mut decoder, &mut input).await?;
            if !self.answers.is_empty() || self.has_holes() {
                self.send().await?;
            }
            self.worker
                .buffers
                .give_answer(std::mem::take(&mut self.answers));
            if after == After::End || self.worker.stopping() {
                return Ok(());
            }
            input.settle(&self.worker.buffers, total);
            match decoder.pending() {
                Some(_) => {
                    let item_size_max = self.worker.site.config.item_size_max;
                    let bytes = total.unwrap_or(0).min(item_size_max);
                    self.worker.half_received(&self.client, bytes);
                }
                None => self.client.whole_request(),
            }
            match (input.held_bytes(), self.client.abort_handle()) {
                (Some(bytes), Some(abort)) => {
                    self.worker
                        .site
                        .held
                        .hold(self.client.id(), bytes, Why::HalfRequest, abort);
                    holding = true;
                }
                _ if holding => {
                    self.worker.site.held.release(self.client.id());
                    holding = false;
                }
                _ => {}
            }
        }
    }

    /// Waits for bytes and takes what one `recv` gives.
    async fn receive(&mut self, input: &mut Input) -> io::Result<usize> {
        self.client.set_doing(Doing::Receiving);
        let (stream, buffers) = (&mut self.stream, &self.worker.buffers);
        let received = poll_fn(|cx| input.poll_receive(cx, stream, buffers)).await?;
        self.client.set_doing(Doing::Working);
        self.worker.progress(&self.client);
        Ok(received)
    }

    fn begin(&mut self, received: usize) {
        self.answers = self.worker.buffers.take_answer();
        let mut executor = self.worker.executor.borrow_mut();
        executor.begin_batch(self.client.fd());
        executor.counters().bytes_read.add(received as u64);
    }

    /// After others of the worker had their turn.
    fn begin_again(&self) {
        let mut executor = self.worker.executor.borrow_mut();
        executor.begin_batch(self.client.fd());
    }

    /// Answers all whole requests of the input. Tells how many bytes the half one behind them has
    /// in all, where that is known.
    async fn turn(
        &mut self,
        decoder: &mut Decoder,
        input: &mut Input,
    ) -> io::Result<(After, Option<usize>)> {
        let mut requests_left = self.worker.site.config.turn_requests_max;
        let mut looked_at = input.unconsumed().len().min(1);
        let mut sent_bytes = 0;
        if self.worker.site.held.is_crowded() {
            self.give_way().await?;
        }
        while !input.unconsumed().is_empty() {
            let decoded = decoder.decode(input.unconsumed());
            let consumed = match &decoded {
                Decoded::Request { request, consumed } => {
                    self.client.whole_request();
                    if self.answer(request).await? == After::End {
                        return Ok((After::End, None));
                    }
                    *consumed
                }
                Decoded::Reject {
                    reply,
                    consumed,
                    key_to_delete,
                } => {
                    self.client.whole_request();
                    if reply.is_none_or(|refusal| refusal.is_line()) {
                        self.tell_reject(input.unconsumed());
                    }
                    if let Some(key) = key_to_delete {
                        let (late, at) = (self.late.as_ref(), self.answers.len());
                        let mut executor = self.worker.executor.borrow_mut();
                        executor.reject_store(key, late, at);
                    }
                    if let Some(refusal) = reply {
                        refusal.encode(&mut self.answers);
                    }
                    *consumed
                }
                Decoded::Skip { consumed } => *consumed,
                Decoded::More { total } => return Ok((After::Goon, *total)),
                Decoded::Close { reply, reason } => {
                    self.client.fail();
                    tracing::debug!(connection = self.client.id(), %reason, "closed by its input");
                    if let Some(refusal) = reply {
                        refusal.encode(&mut self.answers);
                    }
                    return Ok((After::End, None));
                }
            };
            input.consume(consumed);
            looked_at = looked_at.saturating_sub(consumed);
            if looked_at == 0 && !input.unconsumed().is_empty() {
                looked_at = self.worker.executor.borrow().look_ahead(input.unconsumed());
            }
            if self.answers.len() >= UNSENT_BYTES_SOFT {
                sent_bytes += self.answers.len();
                self.send().await?;
            }
            requests_left -= 1;
            let over = requests_left == 0 || sent_bytes >= TURN_ANSWER_BYTES_MAX;
            if over && !input.unconsumed().is_empty() {
                requests_left = self.worker.site.config.turn_requests_max;
                sent_bytes = 0;
                self.give_way().await?;
            }
        }
        Ok((After::Goon, None))
    }

    /// Tells whoever wants to hear of requests about one that is none.
    fn tell_reject(&self, bytes: &[u8]) {
        let watch = &self.worker.site.shared.watch;
        if watch.wants(Kinds::COMMANDS) {
            self.worker.executor.borrow().tell_line(bytes);
        }
    }

    /// Executes one request; most are done at the first try.
    #[inline]
    async fn answer(&mut self, request: &Request<'_>) -> io::Result<After> {
        let mut progress = Progress::with_late(self.late.clone());
        loop {
            // The borrow ends before anything is awaited.
            let flow = self.worker.executor.borrow_mut().execute(
                request,
                &mut progress,
                &mut self.answers,
            );
            match flow {
                Flow::Done => return Ok(After::Goon),
                Flow::Flush => self.give_way().await?,
                Flow::Wait(wait) => {
                    self.worker.wait(wait, &mut progress).await;
                    self.begin_again();
                }
                Flow::Close => return Ok(After::End),
                Flow::Watch(subscription) => {
                    self.watch(subscription).await?;
                    return Ok(After::End);
                }
            }
        }
    }

    /// Streams events from here on.
    async fn watch(&mut self, subscription: Box<Subscription>) -> io::Result<()> {
        self.send().await?;
        self.client.set_doing(Doing::Watching);
        stream_events(&mut self.stream, subscription).await
    }

    /// Sends what there is and lets the other connections of the worker have their turn.
    async fn give_way(&mut self) -> io::Result<()> {
        self.send().await?;
        self.worker.executor.borrow().counters().conn_yields.bump();
        // Whoever waits for its turn holds no buffer for answers.
        let buffers = &self.worker.buffers;
        buffers.give_answer(std::mem::take(&mut self.answers));
        for _ in 0..CROWDED_YIELDS_MAX {
            tokio::task::yield_now().await;
            if !self.worker.site.held.is_crowded() {
                break;
            }
        }
        self.answers = self.worker.buffers.take_answer();
        self.begin_again();
        Ok(())
    }

    fn has_holes(&self) -> bool {
        self.late.as_ref().is_some_and(|late| late.has_holes())
    }

    /// Sends the answers; with one call where the socket takes them all. Waits for those that come
    /// later first.
    async fn send(&mut self) -> io::Result<()> {
        if let Some(late) = self.late.as_ref().filter(|late| late.has_holes()) {
            late.settle(&mut self.answers).await;
            self.begin_again();
        }
        let Connection {
            stream,
            worker,
            client,
            answers,
            stream_bytes,
            late: _,
        } = self;
        let mut sent = 0;
        let mut stalled = false;
        poll_fn(|cx| {
            while sent < answers.len() {
                match Pin::new(&mut *stream).poll_write(cx, &answers[sent..]) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(count)) => sent += count,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => break,
                }
                worker.progress(client);
            }
            // What was taken may still wait in an encrypted stream.
            if sent == answers.len()
                && let Poll::Ready(flushed) = Pin::new(&mut *stream).poll_flush(cx)
            {
                return Poll::Ready(flushed);
            }
            stalled = true;
            client.set_doing(Doing::Sending);
            if let Some(abort) = client.abort_handle() {
                let bytes = answers.capacity() + *stream_bytes;
                worker
                    .site
                    .held
                    .hold(client.id(), bytes, Why::Unread, abort);
            }
            Poll::Pending
        })
        .await?;
        if stalled {
            client.set_doing(Doing::Working);
            worker.site.held.release(client.id());
        }
        worker
            .executor
            .borrow()
            .counters()
            .bytes_written
            .add(sent as u64);
        answers.clear();
        Ok(())
    }
}

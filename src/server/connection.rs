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
use std::task::{Context, Poll, ready};

use tiercache_protocol::{Decoded, Decoder, Refusal, Request};

use super::aside::Share;
use super::buffers::AtOnce;
use super::held::Why;
use super::input::Input;
use super::stream::Transport;
use super::watching::stream_events;
use super::worker::{Client, Place, Worker};
use crate::clients::Doing;
use crate::command::{Answered, Flow, Late, Progress};
use crate::ratelimit::RateLimit;
use crate::watch::{Kinds, Subscription};

/// Answers that are not sent yet beyond this keep the connection from decoding further requests.
const UNSENT_BYTES_SOFT: usize = 64 * 1024;
/// Answers of one connection that are sent before the others have their turn: a thousand clients that
/// ask for large values must not keep one that asks for a small one waiting for all of theirs.
const TURN_ANSWER_BYTES_MAX: usize = 256 * 1024;
/// The same where many have long turns: a request that has just come waits for one of them.
const CROWDED_TURN_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Requests beyond so many bytes wait until smaller ones are answered, where many connections are ready at once.
const RUSHED_BYTES_MAX: usize = 8 * 1024;
/// Requests of no more bytes are answered while those that were told to end still hold too much: these may be another
/// worker's, which has to be scheduled first. What the answers take beyond the bound goes with the next turn.
const SMALL_BYTES_MAX: usize = 1024;
/// How often a connection lets others go first while those that were told to end still hold too much.
const CROWDED_YIELDS_MAX: usize = 1024;

/// Connections that come and go, in lines of the log a second; beyond it they are counted.
const LOGGED_PER_SECOND: u32 = 100;

static LOGGED: RateLimit = RateLimit::new(LOGGED_PER_SECOND);

/// Serves a client until it leaves or has to leave. Its stream holds up to `stream_bytes` of unread
/// answers beside those that are not sent.
pub(super) async fn serve<S: Transport>(stream: S, place: Place, stream_bytes: usize) {
    let mut connection = Connection {
        stream,
        worker: Rc::clone(&place.worker),
        client: Rc::clone(&place.client),
        answers: Vec::new(),
        stream_bytes,
        late: place.worker.executor.borrow().late(),
        had_turn: false,
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
    /// It has just had a turn: the others come first before it has another.
    had_turn: bool,
}

/// What was received.
struct Received {
    bytes: usize,
    /// What of it is answered already, if that was tried.
    at_once: Option<Answered>,
}

/// Whether the connection goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    Goon,
    End,
}

impl<S: Transport> Connection<S> {
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
        let mut entered = Some(input.unconsumed().len()).filter(|bytes| *bytes > 0);
        loop {
            let received = match entered.take() {
                Some(bytes) => Received {
                    bytes,
                    at_once: None,
                },
                None => self.receive(&decoder, &mut input).await?,
            };
            if received.bytes == 0 {
                return Ok(());
            }
            if received.at_once.is_none() {
                self.begin(received.bytes);
            }
            let (after, total) = self
                .turn(&mut decoder, &mut input, received.at_once)
                .await?;
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
            match (input.held_bytes(), self.client.closer()) {
                (Some(bytes), Some(closer)) => {
                    self.worker
                        .site
                        .held
                        .hold(self.client.id(), bytes, Why::HalfRequest, closer);
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

    /// Waits for bytes and takes what one `recv` gives. Plain gets are answered at once, and where
    /// that is all there is it waits on.
    async fn receive(&mut self, decoder: &Decoder, input: &mut Input) -> io::Result<Received> {
        self.client.set_doing(Doing::Receiving);
        let received = poll_fn(|cx| self.poll_receive(cx, decoder, input)).await?;
        self.client.set_doing(Doing::Working);
        self.worker.progress(&self.client);
        Ok(received)
    }

    #[inline]
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        decoder: &Decoder,
        input: &mut Input,
    ) -> Poll<io::Result<Received>> {
        loop {
            if std::mem::take(&mut self.had_turn) && self.stream.may_have_more() {
                self.worker.tasks.will_step_aside(Share::Part);
                return Poll::Pending;
            }
            let at_once = decoder.is_between_lines()
                && input.unconsumed().is_empty()
                && self.worker.executor.borrow().answers_plain()
                && !self.worker.site.held.is_crowded();
            if !at_once {
                let buffers = &self.worker.buffers;
                let bytes = ready!(input.poll_receive(cx, &mut self.stream, buffers))?;
                self.had_turn = true;
                let at_once = None;
                return Poll::Ready(Ok(Received { bytes, at_once }));
            }
            if let Some(received) = ready!(self.poll_at_once(cx, input))? {
                return Poll::Ready(Ok(received));
            }
        }
    }

    /// Receives once and answers plain gets at once. None if that was all.
    #[inline]
    fn poll_at_once(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut Input,
    ) -> Poll<io::Result<Option<Received>>> {
        let buffers = &self.worker.buffers;
        let mut lent = buffers.at_once();
        lent.received.clear();
        let bytes = ready!(self.stream.poll_receive(cx, &mut lent.received))?;
        self.had_turn = true;
        if self.lets_others_first(bytes) {
            let received = std::mem::replace(&mut lent.received, buffers.take_receive());
            *input = Input::holding(received);
            let at_once = None;
            return Poll::Ready(Ok(Some(Received { bytes, at_once })));
        }
        self.worker.progress(&self.client);
        let mut executor = self.worker.executor.borrow_mut();
        executor.begin_batch(self.client.fd());
        executor.counters().bytes_read.add(bytes as u64);
        let AtOnce { received, answers } = &mut *lent;
        let requests_max = self.worker.site.config.turn_requests_max;
        let answered = executor.answer_plain(received, requests_max, answers);
        let mut sent = 0;
        if bytes > 0 && answered.consumed == bytes {
            sent = self.stream.send_now(answers).unwrap_or(0);
            executor.counters().bytes_written.add(sent as u64);
            if sent == answers.len() {
                lent.clear();
                return Poll::Ready(Ok(None));
            }
        }
        let received = std::mem::replace(received, buffers.take_receive());
        *input = Input::consumed_to(received, answered.consumed);
        self.answers = std::mem::replace(answers, buffers.take_answer());
        self.answers.drain(..sent);
        let at_once = Some(answered);
        Poll::Ready(Ok(Some(Received { bytes, at_once })))
    }

    /// Whether so many bytes of requests wait until smaller ones are answered.
    #[inline]
    fn lets_others_first(&self, bytes: usize) -> bool {
        bytes > RUSHED_BYTES_MAX && self.worker.tasks.is_rushed()
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
        executor.tick();
        executor.begin_batch(self.client.fd());
    }

    /// Answers all whole requests of the input, of which some are answered already. Tells how many
    /// bytes the half one behind them has in all, where that is known.
    async fn turn(
        &mut self,
        decoder: &mut Decoder,
        input: &mut Input,
        mut at_once: Option<Answered>,
    ) -> io::Result<(After, Option<usize>)> {
        let mut requests_left = self.worker.site.config.turn_requests_max;
        let mut looked_at = 0;
        let mut sent_bytes = 0;
        if input.unconsumed().len() > SMALL_BYTES_MAX && self.worker.site.held.is_crowded() {
            self.give_way(Share::Nothing).await?;
        } else if decoder.pending().is_none() && self.lets_others_first(input.unconsumed().len()) {
            self.give_way(Share::Full).await?;
        }
        while !input.unconsumed().is_empty() {
            let plain = match at_once.take() {
                Some(plain) => plain,
                None if looked_at == 0 && decoder.is_between_lines() => {
                    self.answer_plain(input, requests_left)
                }
                None => Answered {
                    looked_at,
                    ..Answered::default()
                },
            };
            looked_at = plain.looked_at;
            requests_left -= plain.requests;
            if plain.requests == 0 || plain.keys_done > 0 {
                let consumed = match decoder.decode(input.unconsumed()) {
                    Decoded::Request { request, consumed } => {
                        self.client.whole_request();
                        let progress = Progress::with_late(self.late.clone());
                        let progress = progress.behind_keys(plain.keys_done);
                        if self.answer(&request, progress).await? == After::End {
                            return Ok((After::End, None));
                        }
                        consumed
                    }
                    Decoded::Reject {
                        reply,
                        consumed,
                        key_to_delete,
                    } => {
                        self.reject(input.unconsumed(), reply, key_to_delete);
                        consumed
                    }
                    Decoded::Skip { consumed } => consumed,
                    Decoded::More { total } => return Ok((After::Goon, total)),
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
                requests_left -= 1;
                looked_at = looked_at.saturating_sub(consumed);
            }
            if looked_at == 0 && !input.unconsumed().is_empty() {
                looked_at = self.worker.executor.borrow().look_ahead(input.unconsumed());
            }
            if self.answers.len() >= UNSENT_BYTES_SOFT {
                sent_bytes += self.answers.len();
                self.send().await?;
            }
            let over = requests_left == 0
                || sent_bytes >= TURN_ANSWER_BYTES_MAX
                || (sent_bytes >= CROWDED_TURN_ANSWER_BYTES_MAX && self.worker.tasks.is_crowded());
            if over && !input.unconsumed().is_empty() {
                requests_left = self.worker.site.config.turn_requests_max;
                sent_bytes = 0;
                self.give_way(Share::Full).await?;
            }
        }
        Ok((After::Goon, None))
    }

    /// Answers what is plain at the front of the input.
    #[inline]
    fn answer_plain(&mut self, input: &mut Input, requests_max: usize) -> Answered {
        let mut executor = self.worker.executor.borrow_mut();
        let answered = executor.answer_plain(input.unconsumed(), requests_max, &mut self.answers);
        input.consume(answered.consumed);
        answered
    }

    /// Answers what is no request.
    fn reject(&mut self, bytes: &[u8], reply: Option<Refusal>, key_to_delete: Option<&[u8]>) {
        self.client.whole_request();
        if reply.is_none_or(|refusal| refusal.is_line()) {
            self.tell_reject(bytes);
        }
        if let Some(key) = key_to_delete {
            let (late, at) = (self.late.as_ref(), self.answers.len());
            let mut executor = self.worker.executor.borrow_mut();
            executor.reject_store(key, late, at);
        }
        if let Some(refusal) = reply {
            refusal.encode(&mut self.answers);
        }
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
    async fn answer(&mut self, request: &Request<'_>, mut progress: Progress) -> io::Result<After> {
        loop {
            // The borrow ends before anything is awaited.
            let flow = self.worker.executor.borrow_mut().execute(
                request,
                &mut progress,
                &mut self.answers,
            );
            match flow {
                Flow::Done => return Ok(After::Goon),
                Flow::Flush => self.give_way(Share::Full).await?,
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
    async fn give_way(&mut self, used: Share) -> io::Result<()> {
        self.send().await?;
        self.worker.executor.borrow().counters().conn_yields.bump();
        // Whoever waits for its turn holds no buffer for answers.
        let buffers = &self.worker.buffers;
        buffers.give_answer(std::mem::take(&mut self.answers));
        for _ in 0..CROWDED_YIELDS_MAX {
            self.worker.tasks.step_aside(used).await;
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
            had_turn: _,
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
            if let Some(closer) = client.closer() {
                let bytes = answers.capacity() + *stream_bytes;
                worker
                    .site
                    .held
                    .hold(client.id(), bytes, Why::Unread, closer);
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

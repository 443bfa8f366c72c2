//! The same bytes given whole and in pieces to two decoders, which must yield the same.
//!
//! What they yield is compared as it is yielded, borrowed: nothing is allocated and nothing written out, which
//! makes an input many times cheaper than comparing lists of what two sessions yielded.

use tiercache_protocol::limits::GET_LINE_WHOLE_MAX;
use tiercache_protocol::{
    Decoded, DecodedReply, Decoder, PacketDecoder, ReplyDecoder, Request, encode_request,
};

use crate::arriving::{Arriving, Pieces};
use crate::session::VALUE_MAX;

/// Whether a connection goes on behind what was yielded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    GoOn,
    /// The bytes end.
    End,
    /// The connection is closed; what its decoder knows counts no more.
    Closed,
}

/// Checks that the requests in `bytes` are the same when they arrive in `pieces`.
#[track_caller]
pub fn check_requests(bytes: &[u8], pieces: Pieces) {
    let mut whole = Requests::new(bytes, Pieces::Whole);
    let mut split = Requests::new(bytes, pieces);
    let mut then = Then::GoOn;
    while then == Then::GoOn {
        then = whole.next(|skipped, yielded| {
            split.next(|others_skipped, others| {
                assert_eq!(others_skipped, skipped, "before {yielded:?}");
                // How long a request that is not whole will be, a decoder knows sooner or later.
                if !matches!(
                    (yielded, others),
                    (Decoded::More { .. }, Decoded::More { .. })
                ) {
                    assert_eq!(others, yielded);
                }
            });
        });
    }
    if then == Then::End {
        assert_eq!(split.decoder.pending(), whole.decoder.pending());
    }
}

/// Decodes all requests in `bytes`; each must be decoded to itself once it is written anew into `written`.
#[track_caller]
pub fn check_rewritten(bytes: &[u8], written: &mut Vec<u8>) {
    let mut requests = Requests::new(bytes, Pieces::Whole);
    while requests.next(|_, yielded| {
        if let Decoded::Request { request, .. } = yielded {
            check_one_rewritten(request, written);
        }
    }) == Then::GoOn
    {}
}

#[track_caller]
fn check_one_rewritten(request: &Request<'_>, written: &mut Vec<u8>) {
    written.clear();
    encode_request(written, request);
    let mut decoder = Decoder::new(VALUE_MAX);
    // A part of a long `get` line is written as a line with its command, which may be as long again; the last part may
    // have no key.
    let is_part = matches!(request, Request::Get(get)
        if get.keys.is_empty() || written.len() > GET_LINE_WHOLE_MAX);
    match decoder.decode(written) {
        Decoded::Request {
            request: again,
            consumed,
        } if consumed == written.len() => assert_eq!(again, alone(request)),
        _ => assert!(is_part, "{} is no request", written.escape_ascii()),
    }
}

/// A request as it is when nothing comes before or behind it.
fn alone<'a>(request: &Request<'a>) -> Request<'a> {
    let mut request = request.clone();
    match &mut request {
        Request::Get(get) => get.last = true,
        // A token that was dropped is written as an empty one.
        Request::Sasl(sasl) => sasl.token = Some(sasl.token.unwrap_or_default()),
        _ => {}
    }
    request
}

/// A connection's requests.
struct Requests<'a> {
    decoder: Decoder,
    arriving: Arriving<'a>,
}

impl<'a> Requests<'a> {
    fn new(bytes: &'a [u8], pieces: Pieces) -> Self {
        Self {
            decoder: Decoder::new(VALUE_MAX),
            arriving: Arriving::new(bytes, pieces),
        }
    }

    /// Shows what is yielded next and how many bytes were dropped before it; at the end that is
    /// [`Decoded::More`].
    #[track_caller]
    fn next(&mut self, show: impl FnOnce(usize, &Decoded<'_>)) -> Then {
        let mut skipped = 0;
        loop {
            let decoded = self.decoder.decode(self.arriving.buffer());
            match decoded {
                Decoded::Skip { consumed } => {
                    skipped += consumed;
                    self.arriving.consume(consumed);
                }
                Decoded::More { total } => {
                    check_more(total, self.arriving.buffer());
                    if !self.arriving.more() {
                        show(skipped, &decoded);
                        return Then::End;
                    }
                }
                Decoded::Request { consumed, .. } | Decoded::Reject { consumed, .. } => {
                    show(skipped, &decoded);
                    self.arriving.consume(consumed);
                    return Then::GoOn;
                }
                Decoded::Close { .. } => {
                    show(skipped, &decoded);
                    return Then::Closed;
                }
            }
        }
    }
}

/// Checks that the replies in `bytes` are the same when they arrive in `pieces`.
#[track_caller]
pub fn check_replies(bytes: &[u8], pieces: Pieces) {
    check_answers(|| ReplyDecoder::new(VALUE_MAX), bytes, pieces);
}

/// Checks that the packets in `bytes` are the same when they arrive in `pieces`.
#[track_caller]
pub fn check_packets(bytes: &[u8], pieces: Pieces) {
    check_answers(|| PacketDecoder::new(VALUE_MAX), bytes, pieces);
}

#[track_caller]
fn check_answers<D: Answers>(decoder: impl Fn() -> D, bytes: &[u8], pieces: Pieces) {
    let (mut whole, mut split) = (decoder(), decoder());
    let mut all = Arriving::new(bytes, Pieces::Whole);
    let mut parts = Arriving::new(bytes, pieces);
    loop {
        let yielded = whole.next(&mut all);
        assert_eq!(split.next(&mut parts), yielded);
        if !matches!(yielded, DecodedReply::Reply { .. }) {
            return;
        }
    }
}

/// A decoder of replies.
trait Answers {
    fn decode<'a>(&mut self, buffer: &'a [u8]) -> DecodedReply<'a>;

    /// What is yielded next; at the end that is [`DecodedReply::More`] of no total.
    #[track_caller]
    fn next<'a>(&mut self, arriving: &mut Arriving<'a>) -> DecodedReply<'a> {
        loop {
            let decoded = self.decode(arriving.buffer());
            match decoded {
                DecodedReply::More { total } => {
                    check_more(total, arriving.buffer());
                    if !arriving.more() {
                        return DecodedReply::More { total: None };
                    }
                }
                DecodedReply::Reply { consumed, .. } => {
                    arriving.consume(consumed);
                    return decoded;
                }
                DecodedReply::Invalid { .. } => return decoded,
            }
        }
    }
}

impl Answers for ReplyDecoder {
    fn decode<'a>(&mut self, buffer: &'a [u8]) -> DecodedReply<'a> {
        ReplyDecoder::decode(self, buffer)
    }
}

impl Answers for PacketDecoder {
    fn decode<'a>(&mut self, buffer: &'a [u8]) -> DecodedReply<'a> {
        PacketDecoder::decode(self, buffer)
    }
}

#[track_caller]
fn check_more(total: Option<usize>, buffer: &[u8]) {
    assert!(
        total.is_none_or(|total| total > buffer.len()),
        "asks for what is there"
    );
}

//! A connection played against the decoder: chunks in, what it yielded out.

use tiercache_protocol::limits::LINE_MAX;
use tiercache_protocol::{
    Decoded, DecodedReply, Decoder, PacketDecoder, Reply, ReplyDecoder, Request, encode_request,
};

/// Largest value of the sessions, in bytes.
pub const VALUE_MAX: usize = 1000;

/// The commonest error.
pub const BAD: &str = "CLIENT_ERROR bad command line format\r\n";

/// What a decoder yielded, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A request, as its bytes would be written anew, and as it is.
    Request { bytes: Vec<u8>, debug: String },
    /// An error reply, empty if hidden, and the key that has to go.
    Reject {
        reply: &'static str,
        key_to_delete: Option<Vec<u8>>,
    },
    /// Bytes that were dropped; neighbours are one.
    Skip(usize),
    /// The connection was closed.
    Close(String),
}

/// Everything that a connection yields for `chunks`, and whether a request is half received at
/// their end.
pub fn play<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Event>, Option<usize>) {
    let mut decoder = Decoder::new(VALUE_MAX);
    let mut events = Vec::new();
    let mut buf = Vec::new();
    for chunk in chunks {
        buf.extend_from_slice(chunk);
        let closed = drain(&mut decoder, &mut buf, &mut events);
        if closed {
            break;
        }
    }
    (events, decoder.pending())
}

/// Decodes until more bytes are needed; true if the connection is to be closed.
fn drain(decoder: &mut Decoder, buf: &mut Vec<u8>, events: &mut Vec<Event>) -> bool {
    loop {
        let consumed = match decoder.decode(buf) {
            Decoded::Request { request, consumed } => {
                events.push(request_event(&request));
                consumed
            }
            Decoded::Reject {
                reply,
                consumed,
                key_to_delete,
            } => {
                let reply = reply.map_or("", |refusal| refusal.reject.text());
                let key_to_delete = key_to_delete.map(<[u8]>::to_vec);
                events.push(Event::Reject {
                    reply,
                    key_to_delete,
                });
                consumed
            }
            Decoded::Skip { consumed } => {
                match events.last_mut() {
                    Some(Event::Skip(bytes)) => *bytes += consumed,
                    _ => events.push(Event::Skip(consumed)),
                }
                consumed
            }
            Decoded::More { total } => {
                assert!(
                    total.is_none_or(|total| total > buf.len()),
                    "asks for what is there"
                );
                return false;
            }
            Decoded::Close { reply, reason } => {
                if let Some(refusal) = reply {
                    events.push(Event::Reject {
                        reply: refusal.reject.text(),
                        key_to_delete: None,
                    });
                }
                events.push(Event::Close(reason.to_string()));
                return true;
            }
        };
        assert!(consumed > 0, "no progress");
        buf.drain(..consumed);
    }
}

fn request_event(request: &Request<'_>) -> Event {
    let mut bytes = Vec::new();
    encode_request(&mut bytes, request);
    Event::Request {
        bytes,
        debug: format!("{request:?}"),
    }
}

/// Checks that the requests among `events` are decoded to themselves once they are written anew.
#[track_caller]
pub fn check_round_trips(events: &[Event]) {
    for event in events {
        let Event::Request { bytes, debug } = event else {
            continue;
        };
        let mut decoder = Decoder::new(VALUE_MAX);
        let Decoded::Request { request, consumed } = decoder.decode(bytes) else {
            // A part of a long `get` line is written as a line, which is yielded in parts again.
            assert!(
                bytes.len() > LINE_MAX,
                "{} is no request",
                bytes.escape_ascii()
            );
            continue;
        };
        assert_eq!(consumed, bytes.len());
        assert_eq!(
            format!("{request:?}"),
            debug
                .replace("last: false", "last: true")
                .replace("token: None", "token: Some([])")
        );
        let mut again = Vec::new();
        encode_request(&mut again, &request);
        assert_eq!(&again, bytes);
    }
}

/// Every reply that an upstream connection yields for `bytes` in chunks of `size`, as text.
pub fn play_replies(bytes: &[u8], size: usize) -> Vec<String> {
    let mut decoder = ReplyDecoder::new(VALUE_MAX);
    let mut buf = Vec::new();
    let mut replies = Vec::new();
    for chunk in bytes.chunks(size) {
        buf.extend_from_slice(chunk);
        loop {
            match decoder.decode(&buf) {
                DecodedReply::Reply { reply, consumed } => {
                    assert!(consumed > 0, "no progress");
                    replies.push(format!("{reply:?}"));
                    buf.drain(..consumed);
                }
                DecodedReply::More { total } => {
                    assert!(
                        total.is_none_or(|total| total > buf.len()),
                        "asks for what is there"
                    );
                    break;
                }
                DecodedReply::Invalid { reason } => {
                    replies.push(reason.to_string());
                    return replies;
                }
            }
        }
    }
    replies
}

/// Every packet that an upstream connection yields for `bytes` in chunks of `size`: opcode, status,
/// `cas` and `flags` if there are any, `key=` if there is one, the value.
pub fn play_packets(bytes: &[u8], size: usize) -> Vec<String> {
    let decoder = PacketDecoder::new(VALUE_MAX);
    let mut buf = Vec::new();
    let mut replies = Vec::new();
    for chunk in bytes.chunks(size) {
        buf.extend_from_slice(chunk);
        loop {
            match decoder.decode(&buf) {
                DecodedReply::Reply {
                    reply: Reply::Packet(packet),
                    consumed,
                } => {
                    let mut text = format!("{:?} {}", packet.opcode, packet.status);
                    if packet.cas != 0 {
                        text += &format!(" cas{}", packet.cas);
                    }
                    if let Some(flags) = packet.flags {
                        text += &format!(" flags{flags}");
                    }
                    if !packet.key.is_empty() {
                        text += &format!(" {}=", packet.key.escape_ascii());
                    } else if !packet.value.is_empty() {
                        text += " ";
                    }
                    text += &packet.value.escape_ascii().to_string();
                    replies.push(text);
                    buf.drain(..consumed);
                }
                DecodedReply::Reply { reply, .. } => panic!("{reply:?} is no packet"),
                DecodedReply::More { total } => {
                    assert!(
                        total.is_none_or(|total| total > buf.len()),
                        "asks for what is there"
                    );
                    break;
                }
                DecodedReply::Invalid { reason } => {
                    replies.push(reason.to_string());
                    return replies;
                }
            }
        }
    }
    replies
}

/// The events as one text: requests as their canonical bytes, errors as replies, dropped bytes as
/// `(n)`, a close as `<reason>`, a hidden error as `!`, a key to delete as `~key`.
pub fn transcript(events: &[Event]) -> String {
    let mut text = String::new();
    for event in events {
        match event {
            Event::Request { bytes, .. } => text += &bytes.escape_ascii().to_string(),
            Event::Reject {
                reply: "",
                key_to_delete: None,
            } => text += "!",
            Event::Reject {
                reply,
                key_to_delete,
            } => {
                if !reply.is_empty() {
                    text += &format!("{reply}\\r\\n");
                }
                if let Some(key) = key_to_delete {
                    text += &format!("~{}", key.escape_ascii());
                }
            }
            Event::Skip(bytes) => text += &format!("({bytes})"),
            Event::Close(reason) => text += &format!("<{reason}>"),
        }
    }
    text
}

/// Checks what the decoder makes of each input, given at once and byte by byte.
#[track_caller]
pub fn check(cases: &[(&str, &str)]) {
    for (input, expected) in cases {
        check_bytes(input.as_bytes(), &expected.escape_default().to_string());
    }
}

/// Checks one input against a transcript.
#[track_caller]
pub fn check_bytes(input: &[u8], expected: &str) {
    let (events, _) = play([input]);
    assert_eq!(
        transcript(&events),
        expected,
        "for {}",
        input.escape_ascii()
    );
    let (bytewise, _) = play(input.chunks(1));
    assert_eq!(
        bytewise,
        events,
        "byte by byte, for {}",
        input.escape_ascii()
    );
}

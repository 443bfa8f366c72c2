//! Replies of an upstream server.

use crate::session::play_replies;
use proptest::prelude::*;
use tiercache_protocol::encode::{self, DebugFacts};
use tiercache_protocol::limits::{REPLY_LINE_MAX, VALUE_LEN_MAX};
use tiercache_protocol::reply::{ErrorKind, InvalidReply, MetaStatus};
use tiercache_protocol::{DecodedReply, Reject, Reply, ReplyDecoder};

/// Checks that `bytes` are one reply, and that splits do not matter.
#[track_caller]
fn decodes_to(bytes: &[u8], expected: &Reply<'_>) {
    let mut decoder = ReplyDecoder::new(1000);
    match decoder.decode(bytes) {
        DecodedReply::Reply { reply, consumed } => {
            assert_eq!((&reply, consumed), (expected, bytes.len()));
        }
        other => panic!("{} is {other:?}", bytes.escape_ascii()),
    }
    assert_eq!(play_replies(bytes, 1), [format!("{expected:?}")]);
}

#[track_caller]
fn is_invalid(bytes: &[u8], reason: InvalidReply) {
    let mut decoder = ReplyDecoder::new(1000);
    assert_eq!(
        decoder.decode(bytes),
        DecodedReply::Invalid { reason },
        "{}",
        bytes.escape_ascii()
    );
}

// The replies of one word.
#[test]
fn words_are_decoded() {
    for (bytes, reply) in [
        (&b"STORED\r\n"[..], Reply::Stored),
        (b"NOT_STORED\r\n", Reply::NotStored),
        (b"EXISTS\r\n", Reply::Exists),
        (b"NOT_FOUND\r\n", Reply::NotFound),
        (b"DELETED\r\n", Reply::Deleted),
        (b"TOUCHED\r\n", Reply::Touched),
        (b"OK\r\n", Reply::Ok),
        (b"RESET\r\n", Reply::Reset),
        (b"END\r\n", Reply::End),
        (b"END\n", Reply::End),
        (b"0\r\n", Reply::Number(0)),
        // Older servers pad a number that lost a digit.
        (b"9 \r\n", Reply::Number(9)),
        (b"18446744073709551615\r\n", Reply::Number(u64::MAX)),
        (b"VERSION 1.6.45\r\n", Reply::Version(b"1.6.45")),
        (
            b"STAT pid 1\r\n",
            Reply::Stat {
                name: b"pid",
                value: b"1",
            },
        ),
        (
            b"STAT version a b\r\n",
            Reply::Stat {
                name: b"version",
                value: b"a b",
            },
        ),
        (
            b"STAT inter \r\n",
            Reply::Stat {
                name: b"inter",
                value: b"",
            },
        ),
    ] {
        decodes_to(bytes, &reply);
    }
}

// Errors keep their message.
#[test]
fn errors_are_decoded() {
    let error = |kind, message| Reply::Error { kind, message };
    decodes_to(b"ERROR\r\n", &error(ErrorKind::Unknown, b""));
    decodes_to(
        b"ERROR Too many open connections\r\n",
        &error(ErrorKind::Unknown, b"Too many open connections"),
    );
    decodes_to(
        b"SERVER_ERROR: shutdown not enabled\r\n",
        &error(ErrorKind::Server, b"shutdown not enabled"),
    );
    for reject in Reject::ALL {
        let (kind, message) = match reject.text().split_once(' ') {
            None => (ErrorKind::Unknown, ""),
            Some(("CLIENT_ERROR", message)) => (ErrorKind::Client, message),
            Some((_, message)) => (ErrorKind::Server, message),
        };
        decodes_to(reject.as_bytes(), &error(kind, message.as_bytes()));
    }
}

// A value is whole before it is yielded, whatever bytes it holds.
#[test]
fn values_are_decoded() {
    let value = |key, flags, cas, value| Reply::Value {
        key,
        flags,
        cas,
        value,
    };
    decodes_to(
        b"VALUE a 5 3\r\n\r\n\n\r\n",
        &value(b"a", 5, None, b"\r\n\n"),
    );
    decodes_to(b"VALUE a 0 0 7\r\n\r\n", &value(b"a", 0, Some(7), b""));
    decodes_to(b"VALUE a 0 4\r\nEND\r\r\n", &value(b"a", 0, None, b"END\r"));
}

// Meta replies with their flags.
#[test]
fn meta_replies_are_decoded() {
    let mut decoder = ReplyDecoder::new(1000);
    let DecodedReply::Reply {
        reply: Reply::Meta(meta),
        consumed,
    } = decoder.decode(b"VA 2 s2 t-1 f0 c202 kZm9v b O123 W\r\nhi\r\nEN\r\n")
    else {
        panic!("VA is a meta reply");
    };
    assert_eq!(consumed, 40);
    assert_eq!(
        (meta.status, meta.value),
        (MetaStatus::Value, Some(&b"hi"[..]))
    );
    assert_eq!(
        (meta.flags.cas(), meta.flags.client_flags()),
        (Some(202), Some(0))
    );
    assert_eq!(
        (meta.flags.ttl(), meta.flags.opaque()),
        (Some(None), Some(&b"123"[..]))
    );
    assert_eq!(meta.flags.token(b'k'), Some(&b"Zm9v"[..]));
    assert_eq!(
        (meta.flags.token(b'W'), meta.flags.token(b'Z')),
        (Some(&b""[..]), None)
    );
    for (bytes, status) in [
        (&b"HD\r\n"[..], MetaStatus::Done),
        (b"HD t5\r\n", MetaStatus::Done),
        (b"EN\r\n", MetaStatus::Miss),
        (b"NS\r\n", MetaStatus::NotStored),
        (b"EX ka\r\n", MetaStatus::Exists),
        (b"NF O1\r\n", MetaStatus::NotFound),
        (b"MN\r\n", MetaStatus::Noop),
    ] {
        match decoder.decode(bytes) {
            DecodedReply::Reply {
                reply: Reply::Meta(meta),
                ..
            } => {
                assert_eq!((meta.status, meta.value), (status, None));
            }
            other => panic!("{other:?}"),
        }
    }
    let facts = b"exp=-1 la=3 cas=24 fetch=no cls=1 size=62";
    let mut out = Vec::new();
    let debug = DebugFacts {
        ttl: None,
        since_access: 3,
        cas: 24,
        fetched: false,
        class: 1,
        size: 62,
        key_base64: true,
    };
    encode::meta_debug(&mut out, b"foo", Some(&debug));
    decodes_to(
        &out,
        &Reply::Debug {
            key: b"Zm9v",
            facts,
        },
    );
    out.clear();
    encode::meta_debug(&mut out, b"foo", None);
    assert_eq!(out, b"EN\r\n");
}

// An upstream is not believed: what is no reply ends the connection.
#[test]
fn nonsense_is_refused() {
    for line in [
        "",
        " ",
        "FOO",
        "STOREDX",
        "STORED x",
        "HDX",
        "E",
        "END x",
        "VALUE",
        "VALUE a 0",
        "VALUE a x 1",
        "VALUE a 0 -1",
        "VALUE a 0 1 x",
        "VALUE a 0 1 2 3",
        "VALUE a 4294967296 1",
        "VA",
        "VA x",
        "VA -1",
        "1x",
        "-1",
        "18446744073709551616",
        "STAT",
        "ERRORS",
        "ME",
        "get a",
        "VERSION",
    ] {
        is_invalid(format!("{line}\r\n").as_bytes(), InvalidReply::UnknownLine);
    }
    let key = "k".repeat(251);
    is_invalid(
        format!("VALUE {key} 0 1\r\n").as_bytes(),
        InvalidReply::UnknownLine,
    );
    is_invalid(b"VALUE a 0 1\r\nabc\r\n", InvalidReply::BadValueEnd);
    is_invalid(b"VA 1\r\nx\n\r\n", InvalidReply::BadValueEnd);
}

// A value that is too large can be stepped over: its line tells how long it is, and what follows is read as ever.
#[test]
fn a_value_that_is_too_large_can_be_stepped_over() {
    let value = "x".repeat(1001);
    let input = format!("VA 1001 kbig O7\r\n{value}\r\nHD O8\r\n");
    let input = input.as_bytes();
    let head = "VA 1001 kbig O7\r\n".len();
    let mut decoder = ReplyDecoder::new(1000);
    // Byte by byte nothing is known before the line is whole.
    for end in 0..head {
        let decoded = decoder.decode(&input[..end]);
        assert_eq!(decoded, DecodedReply::More { total: None }, "{end}");
    }
    let reason = InvalidReply::ValueTooLarge;
    let decoded = decoder.decode(&input[..head]);
    assert_eq!(decoded, DecodedReply::Invalid { reason });
    let (reply, size) = decoder.oversized(&input[..head]).unwrap();
    let Reply::Meta(reply) = reply else {
        panic!("{reply:?}");
    };
    assert_eq!((reply.value, reply.flags.opaque()), (None, Some(&b"7"[..])));
    assert_eq!(size, head + 1001 + 2);
    let DecodedReply::Reply { reply, .. } = decoder.decode(&input[size..]) else {
        panic!("what follows is whole");
    };
    assert!(matches!(reply, Reply::Meta(reply) if reply.flags.opaque() == Some(b"8")));
    // Other lines cannot.
    for line in ["VALUE a 0 1001\r\n", "HD\r\n", "VA x\r\n", "VA 1001"] {
        assert_eq!(decoder.oversized(line.as_bytes()), None, "{line:?}");
    }
}

// No length is believed before it is compared with the bound.
#[test]
fn reply_lengths_are_bounded() {
    for header in ["VALUE a 0 {}\r\n", "VA {} s\r\n"] {
        let header = |len: usize| header.replace("{}", &len.to_string());
        let mut decoder = ReplyDecoder::new(1000);
        let fitting = header(1000);
        let decoded = decoder.decode(fitting.as_bytes());
        assert!(matches!(decoded, DecodedReply::More { total: Some(_) }));
        is_invalid(header(1001).as_bytes(), InvalidReply::ValueTooLarge);
        is_invalid(
            header(VALUE_LEN_MAX).as_bytes(),
            InvalidReply::ValueTooLarge,
        );
        is_invalid(
            header(VALUE_LEN_MAX + 1).as_bytes(),
            InvalidReply::UnknownLine,
        );
    }
    for (len, fits) in [(REPLY_LINE_MAX, true), (REPLY_LINE_MAX + 1, false)] {
        let line = format!("STAT a {}", "x".repeat(len - "STAT a ".len()));
        let mut decoder = ReplyDecoder::new(1000);
        assert_eq!(
            decoder.decode(line.as_bytes()) == DecodedReply::More { total: None },
            fits
        );
        let line = line + "\n";
        let mut decoder = ReplyDecoder::new(1000);
        let decoded = decoder.decode(line.as_bytes());
        assert_eq!(matches!(decoded, DecodedReply::Reply { .. }), fits);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    // What is encoded is decoded, and splits do not matter.
    #[test]
    fn values_round_trip(
        key in "[!-~]{1,250}",
        flags in any::<u32>(),
        cas in any::<Option<u64>>(),
        value in proptest::collection::vec(any::<u8>(), 0..300),
        size in 1usize..50,
    ) {
        let mut out = Vec::new();
        encode::value_line(&mut out, key.as_bytes(), flags, value.len(), cas);
        out.extend_from_slice(&value);
        out.extend_from_slice(b"\r\n");
        let expected = Reply::Value { key: key.as_bytes(), flags, cas, value: &value };
        prop_assert_eq!(play_replies(&out, out.len()), [format!("{:?}", expected)]);
        prop_assert_eq!(play_replies(&out, size), [format!("{:?}", expected)]);
    }

    // Random lines are survived, and splits do not matter.
    #[test]
    fn reply_noise(
        lines in proptest::collection::vec(
            "(VALUE|VA|HD|EN|STAT|END|STORED|ERROR|SERVER_ERROR|VERSION|ME|NF|[0-9]{1,21})( [a-z0-9]{0,5}){0,5}\r?\n", 1..6),
        size in 1usize..50,
    ) {
        let input = lines.concat();
        let whole = play_replies(input.as_bytes(), input.len());
        prop_assert_eq!(play_replies(input.as_bytes(), size), whole);
    }
}

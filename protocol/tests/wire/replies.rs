//! Replies in both directions.

use crate::session::play_replies;
use proptest::prelude::*;
use tiercache_protocol::encode::{
    self, ArithmeticReply, DebugFacts, DeleteReply, ItemFacts, StoreFacts, StoreReply, TouchReply,
};
use tiercache_protocol::limits::{REPLY_LINE_MAX, VALUE_LEN_MAX};
use tiercache_protocol::reply::{ErrorKind, InvalidReply, MetaStatus};
use tiercache_protocol::{
    Decoded, DecodedReply, Decoder, Form, Reject, Reply, ReplyDecoder, Request,
};

/// Decodes one request and passes its form, or panics.
fn with_form(line: &str, answer: impl FnOnce(&Form<'_>)) {
    let mut decoder = Decoder::new(1000);
    match decoder.decode(line.as_bytes()) {
        Decoded::Request { request, .. } => match request {
            Request::Retrieve(retrieve) => answer(&Form::Meta(retrieve.form)),
            Request::Store(store) => answer(&store.form),
            Request::Delete(delete) => answer(&delete.form),
            Request::Arithmetic(arithmetic) => answer(&arithmetic.form),
            Request::Touch(touch) => answer(&touch.form),
            other => panic!("{other:?} has no form"),
        },
        other => panic!("{line:?} is {other:?}"),
    }
}

#[track_caller]
fn check(line: &str, expected: &str, answer: impl FnOnce(&mut Vec<u8>, &Form<'_>)) {
    let mut out = Vec::new();
    with_form(line, |form| answer(&mut out, form));
    assert_eq!(
        out.escape_ascii().to_string(),
        expected.escape_default().to_string(),
        "{line:?}"
    );
}

fn facts() -> ItemFacts {
    ItemFacts {
        flags: 5,
        cas: 202,
        ttl: Some(29),
        size: 2,
        since_access: 3,
        hit_before: true,
        ..ItemFacts::default()
    }
}

// The tail of a hit follows the request's order; Z, X and W come last and W never with Z.
#[test]
fn hits_answer_flags_in_request_order() {
    let hit = |line, expected, facts: ItemFacts| {
        check(line, expected, |out, form| {
            let Form::Meta(form) = form else {
                panic!("meta")
            };
            encode::meta_hit(out, form, &facts, form.returns.contains(b'v'));
        });
    };
    hit(
        "mg a s t f c k O123 v\r\n",
        "VA 2 s2 t29 f5 c202 ka O123\r\n",
        facts(),
    );
    hit("mg a h l q\r\n", "HD h1 l3\r\n", facts());
    hit(
        "mg a t\r\n",
        "HD t-1\r\n",
        ItemFacts {
            ttl: None,
            ..facts()
        },
    );
    hit(
        "mg Zm9v k O b\r\n",
        "HD kZm9v b O\r\n",
        ItemFacts {
            key_base64: true,
            ..facts()
        },
    );
    hit("mg Zm9v k b\r\n", "HD kfoo\r\n", facts());
    hit(
        "mg a N30 T5 R6\r\n",
        "HD W\r\n",
        ItemFacts {
            won: true,
            ..facts()
        },
    );
    let stale = ItemFacts {
        stale: true,
        ..facts()
    };
    hit("mg a\r\n", "HD X W\r\n", ItemFacts { won: true, ..stale });
    hit(
        "mg a\r\n",
        "HD Z X\r\n",
        ItemFacts {
            won: true,
            token_sent: true,
            ..stale
        },
    );
}

// A miss reflects key and opaque token; `q` hides it.
#[test]
fn misses_reflect_key_and_opaque() {
    let miss = |line, expected| {
        check(line, expected, |out, form| {
            let Form::Meta(form) = form else {
                panic!("meta")
            };
            encode::meta_miss(out, form);
        });
    };
    miss("mg miss v k O123\r\n", "EN kmiss O123\r\n");
    miss("mg Zm9v b v O1 k\r\n", "EN O1 kZm9v b\r\n");
    miss("mg a f c s t\r\n", "EN\r\n");
    miss("mg a k q\r\n", "");
}

// Stores, classic and meta; what noreply and `q` hide.
#[test]
fn stores_are_answered() {
    let facts = StoreFacts { cas: 7, size: 3 };
    let store = |line: &str, reply, expected: &str| {
        let line = format!("{line}\r\nabc\r\n");
        check(&line, expected, |out, form| {
            encode::store(out, form, facts, reply)
        });
    };
    for (reply, classic, meta) in [
        (StoreReply::Stored, "STORED\r\n", "HD"),
        (StoreReply::NotStored, "NOT_STORED\r\n", "NS"),
        (StoreReply::Exists, "EXISTS\r\n", "EX"),
        (StoreReply::NotFound, "NOT_FOUND\r\n", "NF"),
    ] {
        store("set a 0 0 3", reply, classic);
        store("set a 0 0 3 noreply", reply, "");
        store("ms a 3", reply, &format!("{meta}\r\n"));
        store(
            "ms a 3 k s f t v h c O5",
            reply,
            &format!("{meta} ka s3 c7 O5\r\n"),
        );
        store("ms Zm9v 3 b k s", reply, &format!("{meta} kZm9v b s3\r\n"));
        let quiet = if meta == "HD" {
            String::new()
        } else {
            format!("{meta}\r\n")
        };
        store("ms a 3 q", reply, &quiet);
    }
    const LARGE: &str = "SERVER_ERROR object too large for cache\r\n";
    store("set a 0 0 3", StoreReply::TooLarge, LARGE);
    store("set a 0 0 3 noreply", StoreReply::TooLarge, "");
    store("ms a 3 q k", StoreReply::TooLarge, LARGE);
    store(
        "ms a 3",
        StoreReply::OutOfMemory,
        "SERVER_ERROR out of memory storing object\r\n",
    );
}

// Deletes and touches.
#[test]
fn deletes_and_touches_are_answered() {
    let delete = |line, reply, expected| {
        check(line, expected, |out, form| encode::delete(out, form, reply));
    };
    delete("delete a\r\n", DeleteReply::Deleted, "DELETED\r\n");
    delete("delete a\r\n", DeleteReply::NotFound, "NOT_FOUND\r\n");
    delete("delete a noreply\r\n", DeleteReply::NotFound, "");
    delete("md a q\r\n", DeleteReply::Deleted, "");
    delete("md a q k O1\r\n", DeleteReply::NotFound, "NF ka O1\r\n");
    delete("md a O1 k c\r\n", DeleteReply::Exists, "EX O1 ka\r\n");
    delete("md Zm9v b k\r\n", DeleteReply::Deleted, "HD kZm9v b\r\n");
    let touch = |line, reply, expected| {
        check(line, expected, |out, form| encode::touch(out, form, reply));
    };
    touch("touch a 0\r\n", TouchReply::Touched, "TOUCHED\r\n");
    touch("touch a 0\r\n", TouchReply::NotFound, "NOT_FOUND\r\n");
    touch("touch a 0 noreply\r\n", TouchReply::Touched, "");
}

// Numbers; `q` hides success only.
#[test]
fn numbers_are_answered() {
    let arithmetic = |line, reply, expected| {
        check(line, expected, |out, form| {
            encode::arithmetic(out, form, reply)
        });
    };
    let value = ArithmeticReply::Value {
        value: 105,
        cas: 21,
        ttl: None,
    };
    arithmetic("incr a 1\r\n", value, "105\r\n");
    arithmetic("incr a 1 noreply\r\n", value, "");
    arithmetic("ma a\r\n", value, "HD\r\n");
    arithmetic(
        "ma a v c t k O2 f s\r\n",
        value,
        "VA 3 c21 t-1 ka O2\r\n105\r\n",
    );
    arithmetic("ma a v q\r\n", value, "");
    arithmetic("incr a 1\r\n", ArithmeticReply::NotFound, "NOT_FOUND\r\n");
    arithmetic("ma a q k O1\r\n", ArithmeticReply::NotFound, "NF ka O1\r\n");
    arithmetic("ma a q k O1\r\n", ArithmeticReply::Exists, "EX ka O1\r\n");
    arithmetic("ma a\r\n", ArithmeticReply::NotStored, "NS\r\n");
    const NON_NUMERIC: &str = "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n";
    arithmetic("ma a q\r\n", ArithmeticReply::NonNumeric, NON_NUMERIC);
    arithmetic("incr a 1\r\n", ArithmeticReply::NonNumeric, NON_NUMERIC);
    arithmetic("incr a 1 noreply\r\n", ArithmeticReply::NonNumeric, "");
    arithmetic(
        "decr a 1\r\n",
        ArithmeticReply::OutOfMemory,
        "SERVER_ERROR out of memory\r\n",
    );
}

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
        prop_assert!(out.len() <= encode::value_line_len_max(key.len()));
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

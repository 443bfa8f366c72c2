//! Answers to clients, by the form of their request and the outcome.

use tiercache_protocol::encode::{
    self, ArithmeticReply, DeleteReply, ItemFacts, StoreFacts, StoreReply, TouchReply,
};
use tiercache_protocol::{Decoded, Decoder, Form, Request};

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
    let touched = TouchReply::Touched { flags: 5, cas: 9 };
    touch("touch a 0\r\n", touched, "TOUCHED\r\n");
    touch("touch a 0\r\n", TouchReply::NotFound, "NOT_FOUND\r\n");
    touch("touch a 0 noreply\r\n", touched, "");
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

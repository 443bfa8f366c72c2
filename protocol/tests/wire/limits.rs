//! Every bound at its value, one below and one above.

use crate::session::{BAD, Event, VALUE_MAX, check, play, transcript};
use tiercache_protocol::limits::{
    GET_LINE_WHOLE_MAX, ITEM_FLAGS_BYTES, ITEM_HEADER_BYTES, KEY_MAX, LINE_MAX, META_TOKENS_MAX,
    OPAQUE_MAX, VALUE_LEN_MAX,
};
use tiercache_protocol::{Decoded, Decoder, Reject};

/// The three lengths around a bound.
fn around(bound: usize) -> [(usize, bool); 3] {
    [(bound - 1, true), (bound, true), (bound + 1, false)]
}

#[test]
fn key_max() {
    for (len, fits) in around(KEY_MAX) {
        let key = "k".repeat(len);
        for line in [
            format!("get {key}\r\n"),
            format!("get {key} a {key}\r\n"),
            format!("gats 5 {key}\r\n"),
            format!("delete {key}\r\n"),
            format!("mg {key} v\r\n"),
            format!("me {key}\r\n"),
        ] {
            check(&[(&line, if fits { &line } else { BAD })]);
        }
        let store = format!("set {key} 0 0 1\r\nx\r\n");
        check(&[(
            &store,
            &if fits {
                store.clone()
            } else {
                format!("{BAD}(3)")
            },
        )]);
    }
}

#[test]
fn line_max() {
    // Without its `\n`; the argument of `stats` may be anything.
    for (len, fits) in around(LINE_MAX) {
        let line = format!("stats {}\n", "x".repeat(len - "stats ".len()));
        let (events, _) = play([line.as_bytes()]);
        let closes = events == [Event::Close("command line too long".into())];
        assert_eq!(!closes, fits, "{len}");
        // The same, decided before the end of the line is there.
        let (events, pending) = play(line.as_bytes()[..len].chunks(7));
        assert_eq!(events.is_empty(), fits, "{len}");
        assert!(pending.is_some());
    }
}

#[test]
fn long_lines_are_for_gets_only() {
    for word in ["get", "gets", "gat 0", "gats 0"] {
        let line = format!("{word}{}\r\n", " key".repeat(2_000));
        check(&[(&line, &line)]);
    }
    let line = format!("mg{}\r\n", " key".repeat(2_000));
    check(&[(&line, "<command line too long>")]);
}

#[test]
fn get_line_whole_max() {
    for (len, whole) in around(GET_LINE_WHOLE_MAX) {
        // With its `\n`; keys of one byte, the last one longer where needed.
        let keys = (len - "get\n".len()) / 2;
        let mut line = format!("get{}", " k".repeat(keys));
        line += &"k".repeat(len - line.len() - 1);
        line += "\n";
        let (events, pending) = play([line.as_bytes()]);
        assert_eq!(events.len() == 1, whole, "{len}");
        assert_eq!(keys_of(&events), keys, "{len}");
        assert_eq!(pending, None);
        assert_eq!(play(line.as_bytes().chunks(1000)).0, events, "{len}");
    }
}

/// How many keys the gets among `events` have.
fn keys_of(events: &[Event]) -> usize {
    let gets = events.iter().filter_map(|event| match event {
        Event::Request { bytes, .. } => Some(bytes),
        _ => None,
    });
    gets.map(|bytes| bytes.iter().filter(|byte| **byte == b' ').count())
        .sum()
}

// A bad key within the first 64 KiB is the only answer; behind them the keys before it were
// answered already. The rest of the line is dropped either way.
#[test]
fn a_bad_key_in_a_long_line() {
    let bad = "k".repeat(KEY_MAX + 1);
    let rest = " key".repeat(50_000);
    let early = format!("get a {bad}{rest}\r\nmn\r\n");
    let (events, _) = play([early.as_bytes()]);
    let skipped = early.len() - GET_LINE_WHOLE_MAX - "mn\r\n".len();
    let expected = format!("{BAD}({skipped})mn\r\n")
        .escape_default()
        .to_string();
    assert_eq!(transcript(&events), expected);

    let late = format!("get{rest} {bad} {rest}\r\nmn\r\n");
    let (events, _) = play(late.as_bytes().chunks(999));
    let rejects = |event: &&Event| matches!(event, Event::Reject { .. });
    assert_eq!(events.iter().filter(rejects).count(), 1);
    assert!(transcript(&events).ends_with(r"mn\r\n"));
    assert!(keys_of(&events) < 50_000);
}

// At the end of the window a `\r` may be the last key's or the line's.
#[test]
fn a_longest_key_may_end_with_the_window() {
    let last = "k".repeat(KEY_MAX);
    let front = format!("get{}", " k".repeat(GET_LINE_WHOLE_MAX));
    let front = &front[..GET_LINE_WHOLE_MAX - 1 - KEY_MAX - 1];
    let front = front.trim_end();
    let spaces = " ".repeat(GET_LINE_WHOLE_MAX - 1 - KEY_MAX - front.len());
    let line = format!("{front}{spaces}{last}\r\n");
    let (events, _) = play([line.as_bytes()]);
    assert_eq!(events.len(), 2);
    assert_eq!(transcript(&events[1..]), format!("get {last}\\r\\n"));
    let (events, _) = play([line.replace("\r\n", "\rx\r\n").as_bytes()]);
    assert!(matches!(events[1], Event::Reject { .. }));
}

// A key without end is not waited for, and not held.
#[test]
fn an_endless_key_is_refused_after_the_window() {
    let line = format!("get {}\r\nmn\r\n", "k".repeat(5 * GET_LINE_WHOLE_MAX));
    let (events, _) = play(line.as_bytes().chunks(4096));
    assert!(matches!(&events[0], Event::Reject { reply, .. } if BAD.starts_with(reply)));
    assert!(transcript(&events).ends_with(r")mn\r\n"));
    let spaces = format!("get {}\r\nmn\r\n", " ".repeat(5 * GET_LINE_WHOLE_MAX));
    let (events, _) = play(spaces.as_bytes().chunks(4096));
    assert!(transcript(&events).starts_with("CLIENT_ERROR"));
}

#[test]
fn meta_tokens_max() {
    // Command and key count.
    let flags = "c f h k l s t v q P L O C1 E1 u x I F1 D1";
    for (count, fits) in around(META_TOKENS_MAX) {
        let flags: Vec<_> = flags.split(' ').take(count - 2).collect();
        let line = format!("mg a {}\r\n", flags.join(" "));
        let (events, _) = play([line.as_bytes()]);
        assert_eq!(matches!(events[0], Event::Request { .. }), fits, "{count}");
        if !fits {
            let too_long = "CLIENT_ERROR options flags are too long\r\n";
            check(&[(&line, too_long)]);
        }
    }
}

#[test]
fn opaque_max() {
    // With its letter.
    for (len, fits) in around(OPAQUE_MAX) {
        let opaque = "o".repeat(len - 1);
        for line in [
            format!("mg a O{opaque}"),
            format!("md a O{opaque}"),
            format!("ma a O{opaque}"),
        ] {
            let too_long = "CLIENT_ERROR opaque token too long\r\n";
            let line = format!("{line}\r\n");
            check(&[(&line, if fits { &line } else { too_long })]);
        }
    }
}

#[test]
fn value_max() {
    for (len, fits) in around(VALUE_MAX) {
        let store = format!("add a 0 0 {len}\r\n{}\r\n", "x".repeat(len));
        let refused = format!("SERVER_ERROR object too large for cache\r\n({})", len + 2);
        check(&[(&store, if fits { &store } else { &refused })]);
    }
}

// With memcached's way of counting an item.
#[test]
fn item_size_max() {
    const ITEM_MAX: usize = 1024;
    for flags in [0, 1] {
        let flags_bytes = if flags == 0 { 0 } else { ITEM_FLAGS_BYTES };
        let value_max = ITEM_MAX - ITEM_HEADER_BYTES - "key".len() - flags_bytes;
        for (len, fits) in around(value_max) {
            let mut decoder = Decoder::with_item_size_max(ITEM_MAX);
            let header = format!("set key {flags} 0 {len}\r\n");
            let decoded = decoder.decode(header.as_bytes());
            assert_eq!(
                matches!(decoded, Decoded::More { .. }),
                fits,
                "{flags} {len}"
            );
        }
    }
}

#[test]
fn value_len_max() {
    for (len, fits) in around(VALUE_LEN_MAX) {
        let mut decoder = Decoder::new(VALUE_MAX);
        let header = format!("add key 0 0 {len}\r\n");
        let Decoded::Reject { reply, .. } = decoder.decode(header.as_bytes()) else {
            panic!("far too large");
        };
        let reject = reply.map(|refusal| refusal.reject);
        assert_eq!(reject == Some(Reject::TooLarge), fits, "{len}");
        // What has to be swallowed counts as still to come.
        assert_eq!(decoder.pending(), fits.then_some(len + 2));
    }
}

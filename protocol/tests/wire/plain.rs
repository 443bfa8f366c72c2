//! What is found without the decoder is what the decoder would find.

use crate::soup::soup;
use proptest::prelude::*;
use tiercache_protocol::{Decoded, Decoder, PlainGets, Request};

/// The keys of the plain lines at the front of `input`, by line, and the bytes of these lines.
fn plain(input: &[u8]) -> (Vec<Vec<Vec<u8>>>, usize) {
    let mut gets = PlainGets::new(input);
    let (mut lines, mut line) = (Vec::new(), Vec::new());
    for get in gets.by_ref() {
        assert_eq!(&input[get.at..get.at + get.key.len()], get.key);
        line.push(get.key.to_vec());
        if get.last {
            lines.push(std::mem::take(&mut line));
        }
    }
    (lines, gets.whole())
}

/// The keys that the decoder finds in the first `bytes`, all of which must be plain gets.
fn decoded(input: &[u8], bytes: usize) -> Vec<Vec<Vec<u8>>> {
    // Any line, so that the syntax is known.
    let mut decoder = Decoder::new(1 << 20);
    assert!(matches!(
        decoder.decode(b"mn\r\n"),
        Decoded::Request { consumed: 4, .. }
    ));
    let (mut at, mut lines) = (0, Vec::new());
    while at < bytes {
        assert!(decoder.is_between_lines());
        match decoder.decode(&input[at..]) {
            Decoded::Request {
                request: Request::Get(get),
                consumed,
            } => {
                assert!(get.last && !get.with_cas && get.touch.is_none());
                lines.push(get.keys.map(<[u8]>::to_vec).collect());
                at += consumed;
            }
            other => panic!("{other:?} in {}", input.escape_ascii()),
        }
    }
    assert_eq!(at, bytes);
    lines
}

fn check(input: &[u8]) {
    let (lines, whole) = plain(input);
    assert_eq!(lines, decoded(input, whole), "{}", input.escape_ascii());
}

/// Lines that are almost all plain, with keys of lengths around the bounds.
fn gets() -> impl Strategy<Value = Vec<u8>> {
    let key = prop_oneof![
        20 => proptest::collection::vec(b'!'..=255, 1..40),
        1 => proptest::collection::vec(b'a'..=b'z', 245..255),
        1 => proptest::collection::vec(any::<u8>(), 0..3),
    ];
    let end =
        prop_oneof![8 => Just("\r\n"), 3 => Just("\n"), 1 => Just(" \r\n"), 1 => Just("\r\r\n")];
    let line = (proptest::collection::vec(key, 1..20), end)
        .prop_map(|(keys, end)| [b"get ".to_vec(), keys.join(&b' '), end.into()].concat());
    proptest::collection::vec(line, 0..6).prop_map(|lines| lines.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    // Also cut off anywhere.
    #[test]
    fn plain_gets_are_gets(input in gets(), cut in any::<prop::sample::Index>()) {
        check(&input);
        check(&input[..cut.index(input.len() + 1)]);
    }

    #[test]
    fn nothing_else_is_plain(input in soup()) {
        check(&input);
    }
}

// The usual lines are found; the others are left alone.
#[test]
fn usual_lines_are_plain() {
    for (input, whole) in [
        (&b"get a\r\n"[..], 7),
        (b"get key:000000000001 key:000000000002\r\n", 39),
        (b"get a\nget b\r\n", 13),
        (b"get a\r\nset b 0 0 1\r\n1\r\n", 7),
        (b"get a\r\nget b", 7),
        (b"get a\r\nget b\r", 7),
        (b"get  a\r\n", 0),
        (b"get a \r\n", 0),
        (b"get a\x01\r\n", 0),
        (b"gets a\r\n", 0),
        (b"get \r\n", 0),
        (b"get", 0),
        (b"", 0),
    ] {
        assert_eq!(plain(input).1, whole, "{}", input.escape_ascii());
    }
    for (len, plain_bytes) in [(250, 256), (251, 0)] {
        let input = [b"get ", &b"k".repeat(len)[..], b"\r\n"].concat();
        assert_eq!(plain(&input).1, plain_bytes);
    }
}

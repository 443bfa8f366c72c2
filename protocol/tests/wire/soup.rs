//! Random input that is often almost right: words, keys, numbers and flags in any order.

use proptest::prelude::*;
use proptest::sample::select;

const WORDS: &[&str] = &[
    "get",
    "gets",
    "gat",
    "gats",
    "set",
    "add",
    "replace",
    "append",
    "prepend",
    "cas",
    "incr",
    "decr",
    "touch",
    "delete",
    "flush_all",
    "verbosity",
    "version",
    "stats",
    "shutdown",
    "cache_memlimit",
    "lru_crawler",
    "lru",
    "slabs",
    "watch",
    "refresh_certs",
    "mg",
    "ms",
    "md",
    "ma",
    "mn",
    "me",
    "mx",
    "GET",
    "foo",
    "",
];

const TOKENS: &[&str] = &[
    "a",
    "key",
    "Zm9v",
    "Zm8=",
    "!",
    "0",
    "1",
    "3",
    "5",
    "10",
    "-1",
    "-",
    "+1",
    "1000",
    "1001",
    "2147483647",
    "4294967296",
    "18446744073709551615",
    "noreply",
    "b",
    "c",
    "f",
    "h",
    "k",
    "l",
    "q",
    "s",
    "t",
    "u",
    "v",
    "x",
    "I",
    "O",
    "Oopaque",
    "T30",
    "T",
    "Tx",
    "T-1",
    "N0",
    "N60",
    "R30",
    "C5",
    "Cx",
    "E7",
    "F9",
    "Fx",
    "J13",
    "D2",
    "ME",
    "MA",
    "MP",
    "MR",
    "MS",
    "MD",
    "MI",
    "M",
    "Mz",
    "Pproxy",
    "Lpath",
    "z",
    "_",
    "~",
    "HTTP/1.1",
    "graceful",
    "\r",
    "\u{1}",
];

/// One line, sometimes with a body behind it, which is sometimes right.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        20 => select(TOKENS).prop_map(str::to_owned),
        1 => (245usize..256).prop_map(|len| "k".repeat(len)),
    ];
    let tokens = proptest::collection::vec(token, 0..7);
    let end = select(&["\r\n", "\r\n", "\r\n", "\n", "", "\r"][..]);
    let body = prop_oneof![
        Just(String::new()),
        select(
            &[
                "\r\n",
                "x\r\n",
                "abc\r\n",
                "01234\r\n",
                "0123456789\r\n",
                "abc",
                "a\nb\r\n"
            ][..]
        )
        .prop_map(str::to_owned),
    ];
    (select(WORDS), tokens, end, body).prop_map(|(word, tokens, end, body)| {
        let mut line = word.to_owned();
        for token in tokens {
            line += " ";
            line += &token;
        }
        (line + end + &body).into_bytes()
    })
}

/// A store whose body has the length it says, with random bytes in it.
fn store() -> impl Strategy<Value = Vec<u8>> {
    let body = proptest::collection::vec(any::<u8>(), 0..40);
    let header = select(
        &[
            "set a 5 60",
            "add b 0 0",
            "append c 0 -1",
            "ms Zm9v",
            "ms a",
        ][..],
    );
    let tail = select(&["", " noreply", " q", " b k", " MA N5", " T30 F7 c"][..]);
    (header, body, tail).prop_map(|(header, body, tail)| {
        let mut bytes = format!("{header} {}{tail}\r\n", body.len()).into_bytes();
        bytes.extend_from_slice(&body);
        bytes.extend_from_slice(b"\r\n");
        bytes
    })
}

/// Several lines and stores.
pub fn soup() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![4 => line(), 2 => store()];
    proptest::collection::vec(part, 1..8).prop_map(|parts| parts.concat())
}

//! Classic requests and the framing of both syntaxes. The replies are those of memcached 1.6.45,
//! asked with the same bytes, where a comment says nothing else.

use crate::session::{BAD, check, check_bytes, play};
use tiercache_protocol::{Decoded, Decoder, Request};

/// A key that is one byte too long.
fn long_key() -> String {
    "k".repeat(251)
}

// The commands as clients send them; `\r` is optional, more spaces are no matter.
#[test]
fn classic_commands_are_understood() {
    check(&[
        ("get a\r\n", "get a\r\n"),
        ("get a\n", "get a\r\n"),
        ("get  a   b \r\n", "get a b\r\n"),
        ("gets a b c\r\n", "gets a b c\r\n"),
        ("gat 10 a b\r\n", "gat 10 a b\r\n"),
        ("gats -1 a\r\n", "gats -1 a\r\n"),
        ("set a 1 2 3\r\nabc\r\n", "set a 1 2 3\r\nabc\r\n"),
        ("set a 0 0 0\r\n\r\n", "set a 0 0 0\r\n\r\n"),
        (
            "set a 0 0 2 noreply\r\n\r\n\r\n",
            "set a 0 0 2 noreply\r\n\r\n\r\n",
        ),
        (
            "set  a  1  2  3  noreply \r\nabc\r\n",
            "set a 1 2 3 noreply\r\nabc\r\n",
        ),
        ("add a 0 0 1\nx\r\n", "add a 0 0 1\r\nx\r\n"),
        ("replace a 0 0 1\r\nx\r\n", "replace a 0 0 1\r\nx\r\n"),
        ("append a 0 0 1\r\nx\r\n", "append a 0 0 1\r\nx\r\n"),
        ("prepend a 0 0 1\r\nx\r\n", "prepend a 0 0 1\r\nx\r\n"),
        ("cas a 0 0 1 7\r\nx\r\n", "cas a 0 0 1 7\r\nx\r\n"),
        (
            "cas a 0 0 1 7 noreply\r\nx\r\n",
            "cas a 0 0 1 7 noreply\r\nx\r\n",
        ),
        ("incr a 5\r\n", "incr a 5\r\n"),
        (
            "decr a 18446744073709551615 noreply\r\n",
            "decr a 18446744073709551615 noreply\r\n",
        ),
        ("touch a 60\r\n", "touch a 60\r\n"),
        ("delete a\r\n", "delete a\r\n"),
        ("delete a noreply\r\n", "delete a noreply\r\n"),
        ("flush_all\r\n", "flush_all\r\n"),
        ("flush_all 0\r\n", "flush_all\r\n"),
        ("flush_all -5 noreply\r\n", "flush_all noreply\r\n"),
        ("flush_all 10\r\n", "flush_all 10\r\n"),
        ("flush_all 0 b\r\n", "flush_all\r\n"),
        ("verbosity 1\r\n", "verbosity 1\r\n"),
        ("  verbosity 1 noreply\r\n", "verbosity 1 noreply\r\n"),
        ("version\r\nversion x\r\n", "version\r\nversion\r\n"),
        ("stats\r\nstats  items \r\n", "stats\r\nstats items\r\n"),
        ("quit\r\n", "quit\r\n"),
        (
            "shutdown\r\nshutdown graceful\r\n",
            "shutdown\r\nshutdown graceful\r\n",
        ),
        ("cache_memlimit 64\r\n", "cache_memlimit 64\r\n"),
        (
            "lru_crawler metadump all\r\n",
            "lru_crawler metadump all\r\n",
        ),
        ("lru mode flat\r\n", "lru mode flat\r\n"),
        ("slabs automove 1\r\n", "slabs automove 1\r\n"),
        ("watch fetchers\r\n", "watch fetchers\r\n"),
        ("refresh_certs\r\n", "refresh_certs\r\n"),
    ]);
}

// Any byte above a space, and any below but the separators, may stand in a key.
#[test]
fn keys_may_hold_control_bytes() {
    check_bytes(b"get \x01\t\x00\xff\x7f\r\n", r"get \x01\t\x00\xff\x7f\r\n");
    check_bytes(b"get a\r\r\n", r"get a\r\r\n");
    check_bytes(b"delete \x01\r\n", r"delete \x01\r\n");
}

// The word `noreply` is only that in the last place; elsewhere it is a key or nothing.
#[test]
fn noreply_counts_as_the_last_token_only() {
    check(&[
        ("get noreply\r\n", "get noreply\r\n"),
        ("delete noreply\r\n", "delete noreply noreply\r\n"),
        ("set a 0 0 1 noreply foo\r\nx\r\n", "set a 0 0 1\r\nx\r\n"),
        (
            "set a 0 0 1 foo noreply\r\nx\r\n",
            "set a 0 0 1 noreply\r\nx\r\n",
        ),
        ("foo noreply\r\n", "!"),
        ("mx a noreply\r\n", "!"),
        ("touch a noreply\r\n", "!"),
        ("touch noreply\r\n", BAD),
        ("incr a x noreply\r\n", "!"),
        ("verbosity noreply\r\n", "!"),
        ("flush_all x noreply\r\n", "!"),
        ("shutdown x noreply\r\n", "!"),
        ("cas a 0 0 1 noreply\r\nx\r\nmn\r\n", "!(3)mn\r\n"),
        (
            "gat a b noreply\r\n",
            "CLIENT_ERROR invalid exptime argument\r\n",
        ),
    ]);
}

// Lines that no command begins, or that end too early.
#[test]
fn incomplete_and_unknown_lines_are_refused() {
    check(&[
        ("\r\n", BAD),
        ("\n", BAD),
        ("a\r\n", BAD),
        ("ab\n", BAD),
        ("ab\r\n", "ERROR\r\n"),
        ("abc\n", "ERROR\r\n"),
        ("mn\n", BAD),
        ("mx a\r\n", "ERROR\r\n"),
        ("    \r\n", "ERROR\r\n"),
        ("GET a\r\n", "ERROR\r\n"),
        (" get a\r\n", "ERROR\r\n"),
        ("getx a\r\n", "ERROR\r\n"),
        (
            "statsx\r\nversionx\r\nquitx\r\n",
            "ERROR\r\nERROR\r\nERROR\r\n",
        ),
        ("get\r\nget \r\ngets\r\n", &BAD.repeat(3)),
        ("gat\r\ngat 0\r\ngat 0 \r\n", &BAD.repeat(3)),
        ("touch a\r\nincr a\r\ndecr\r\ndelete\r\n", &BAD.repeat(4)),
        ("set\r\nset a 0 0\r\nset a 0 0 noreply\r\n", &BAD.repeat(3)),
        (
            "verbosity\r\nverbosity a\r\nverbosity -1\r\n",
            &BAD.repeat(3),
        ),
        (
            "cache_memlimit\r\ncache_memlimit x\r\n",
            "ERROR\r\nERROR\r\n",
        ),
        ("HTTP/1.1\r\n", "ERROR\r\n"),
        ("POST /\r\n", "ERROR\r\n"),
    ]);
}

// Numbers that are none, or do not fit.
#[test]
fn bad_numbers_are_refused() {
    const EXPTIME: &str = "CLIENT_ERROR invalid exptime argument\r\n";
    const DELTA: &str = "CLIENT_ERROR invalid numeric delta argument\r\n";
    check(&[
        ("touch a x\r\n", EXPTIME),
        ("touch a 2147483648\r\n", EXPTIME),
        ("touch a 2147483647\r\n", "touch a 2147483647\r\n"),
        ("gat x a\r\n", EXPTIME),
        ("gat - a\r\n", "gat 0 a\r\n"),
        ("flush_all x\r\n", EXPTIME),
        ("flush_all a b\r\n", EXPTIME),
        ("incr a x\r\n", DELTA),
        ("incr a -1\r\n", DELTA),
        ("incr a 18446744073709551616\r\n", DELTA),
    ]);
}

// While the length is not known nothing can be swallowed, and noreply hides nothing.
#[test]
fn a_bad_length_swallows_nothing() {
    for length in ["x", "-1", "+1", "2147483647", "2147483646", "99999999999"] {
        let input = format!("set a 0 0 {length} noreply\r\nget a\r\n");
        check(&[(&input, &format!("{BAD}get a\r\n"))]);
        let input = format!("ms a {length} q\r\nget a\r\n");
        check(&[(&input, &format!("{BAD}get a\r\n"))]);
    }
    check(&[("set a 0 0 -\r\n\r\n", "set a 0 0 0\r\n\r\n")]);
}

// Behind a bad header with a good length the body is dropped. Flags over 32 bits are refused here;
// memcached cuts them.
#[test]
fn a_bad_store_header_swallows_its_body() {
    for header in [
        "set a -1 0 3",
        "set a x 0 3",
        "set a 4294967296 0 3",
        "set a 0 x 3",
        "set a 0 9223372036854775808 3",
        "cas a 0 0 3",
        "cas a 0 0 3 x",
        "cas a 0 0 3 -1",
        &format!("set {} 0 0 3", long_key()),
    ] {
        let input = format!("{header}\r\nmn\r\r\nmn\r\n");
        check(&[(&input, &format!("{BAD}(5)mn\r\n"))]);
    }
    let hidden = format!("set {} 0 0 3 noreply\r\nabc\r\nmn\r\n", long_key());
    check(&[(&hidden, "!(5)mn\r\n")]);
    check(&[
        ("set a +1 +2 1\r\nx\r\n", "set a 1 2 1\r\nx\r\n"),
        ("set a 0 2147483648 1\r\nx\r\n", "set a 0 -1 1\r\nx\r\n"),
    ]);
}

// A value that does not end as it has to; what is left over is the next line.
#[test]
fn a_bad_data_chunk_leaves_the_rest_to_the_next_line() {
    const CHUNK: &str = "CLIENT_ERROR bad data chunk\r\n";
    check(&[
        ("set a 0 0 1\r\nabc\r\n", &format!("{CHUNK}{BAD}")),
        (
            "set a 0 0 1 noreply\r\nabc\r\nmn\r\n",
            &format!("!{BAD}mn\r\n"),
        ),
        (
            "set a 0 0 1\r\nx\nmn\r\nmn\r\n",
            &format!("{CHUNK}{BAD}mn\r\n"),
        ),
        ("ms a 1 q\r\nabc\r\nmn\r\n", &format!("{CHUNK}{BAD}mn\r\n")),
    ]);
}

// The body is dropped as it comes, and the old value must not outlive the answer.
#[test]
fn a_value_too_large_is_swallowed_and_its_key_deleted() {
    const LARGE: &str = "SERVER_ERROR object too large for cache\r\n";
    let body = "x".repeat(1001);
    let after = |header: &str, yields: &str| {
        let input = format!("{header}\r\n{body}\r\nmn\r\n");
        check(&[(&input, &format!("{yields}(1003)mn\r\n"))]);
    };
    after("set a 0 0 1001", &format!("{LARGE}~a"));
    after("set a 0 0 1001 noreply", "~a");
    after("add a 0 0 1001", LARGE);
    after("append a 0 0 1001 noreply", "!");
    after("cas a 0 0 1001 1", LARGE);
    after("ms a 1001 q", &format!("{LARGE}~a"));
    after("ms Zm9v 1001 b MA", &format!("{LARGE}~foo"));
}

// Old clients send a delay of 0; anything else behind the key is refused. memcached 1.6.45 takes
// all of them, 1.6.18 answers as here.
#[test]
fn delete_takes_nothing_but_a_zero() {
    const USAGE: &str = "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n";
    check(&[
        ("delete a 0\r\n", "delete a\r\n"),
        ("delete a 0 noreply\r\n", "delete a noreply\r\n"),
        ("delete a 1\r\n", USAGE),
        ("delete a b c d e\r\n", USAGE),
        ("delete a 1 noreply\r\n", "!"),
    ]);
}

// A browser that was made to send a request must not reach the commands in its body.
#[test]
fn http_closes_the_connection() {
    check(&[
        (
            "GET / HTTP/1.1\r\nset a 0 0 1\r\nx\r\n",
            "<HTTP request on a memcached port>",
        ),
        (
            "mn\r\nPOST /x HTTP/1.0\r\n",
            "mn\r\n<HTTP request on a memcached port>",
        ),
        ("mx / HTTP/1.1\r\n", "<HTTP request on a memcached port>"),
        ("get / HTTP/1.1\r\n", "get / HTTP/1.1\r\n"),
    ]);
}

// A key too long is refused, with one line, whatever stood before it.
#[test]
fn long_keys_are_refused() {
    let key = long_key();
    for line in [
        format!("get {key}"),
        format!("get a {key}"),
        format!("get {key} a"),
        format!("gats 0 a {key} b"),
        format!("delete {key}"),
        format!("touch {key} 0"),
        format!("incr {key} x"),
        format!("mg {key}"),
        format!("md {key} b"),
        format!("me {key}"),
    ] {
        check(&[(&format!("{line}\r\n"), BAD)]);
    }
    check(&[(
        &format!("gat x {key}\r\n"),
        "CLIENT_ERROR invalid exptime argument\r\n",
    )]);
    check(&[(
        &format!("ma {key}\r\n"),
        "CLIENT_ERROR invalid or duplicate flag\r\n",
    )]);
}

// An answer may be unwanted for the commands whose arguments are passed on raw.
#[test]
fn admin_commands_know_noreply() {
    for (line, noreply) in [
        ("lru mode flat noreply\r\n", true),
        ("lru mode flat\r\n", false),
        ("slabs automove 0 noreply\r\n", true),
        ("lru_crawler enable noreply\r\n", true),
        ("verbosity 1 noreply\r\n", true),
        ("stats noreply\r\n", false),
    ] {
        let mut decoder = Decoder::new(100);
        let Decoded::Request {
            request: Request::Admin(admin),
            ..
        } = decoder.decode(line.as_bytes())
        else {
            panic!("{line} is an admin command");
        };
        assert_eq!(admin.noreply(), noreply, "{line}");
    }
}

// What is half received is told, for the accounting of idle connections.
#[test]
fn pending_counts_what_is_to_come() {
    let pending = |input: &[u8]| play([input]).1;
    assert_eq!(pending(b""), None);
    assert_eq!(pending(b"get a\r\n"), None);
    assert_eq!(pending(b"get a"), Some(0));
    assert_eq!(pending(b"set a 0 0 10\r\n"), Some(12));
    assert_eq!(pending(b"set a 0 0 10\r\nabc"), Some(9));
    assert_eq!(pending(b"set a 0 x 10\r\nabc"), Some(9));
    assert_eq!(play([&b"set a 0 0 10\r\n"[..], b"ab", b"c"]).1, Some(9));
    assert_eq!(pending(b"set a 0 0 3\r\nabc\r\n"), None);
}

// The connection learns how much buffer a request needs once its header is there.
#[test]
fn more_names_the_total_of_a_store() {
    let mut decoder = Decoder::new(100);
    assert_eq!(
        decoder.decode(b"set a 0 0 10"),
        Decoded::More { total: None }
    );
    assert_eq!(
        decoder.decode(b"set a 0 0 10\r\n"),
        Decoded::More { total: Some(26) }
    );
    assert_eq!(
        decoder.decode(b"set a 0 0 10\r\nabc"),
        Decoded::More { total: Some(26) }
    );
}

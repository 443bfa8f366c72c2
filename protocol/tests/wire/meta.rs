//! Meta requests. The replies are those of memcached 1.6.45, asked with the same bytes, but for `me`
//! with `b`: there a third token has to follow before it takes the key for base64.

use crate::session::{BAD, check};
use tiercache_protocol::request::{Returns, StoreMode};
use tiercache_protocol::{Decoded, Decoder, Exptime, Form, MetaForm, Request};

// The meta commands with every flag that has a meaning for them.
#[test]
fn meta_commands_are_understood() {
    check(&[
        ("mn\r\nmn x\r\n", "mn\r\nmn\r\n"),
        ("mg a\r\n", "mg a\r\n"),
        ("mg  a  v\r\n", "mg a v\r\n"),
        (
            "mg a s v t T30 f c k O123 N60 R5 q u C7 E8 h l\r\n",
            "mg a s v t T30 f c k O123 N60 R5 h l q u C7 E8\r\n",
        ),
        ("mg Zm9v b k v O1\r\n", "mg Zm9v b k v O1\r\n"),
        ("mg Zm9v k b\r\n", "mg Zm9v k b\r\n"),
        ("mg a Pfoo Lbar v\r\n", "mg a v\r\n"),
        ("mg a v x S\r\n", "CLIENT_ERROR invalid flag\r\n"),
        ("mg a v x F1 I MZ J1 D1\r\n", "mg a v\r\n"),
        ("ms a 1\r\nx\r\n", "ms a 1\r\nx\r\n"),
        (
            "ms a 2 b T30 F5 C7 E9 I q O1 k s c ME\r\nxy\r\n",
            "CLIENT_ERROR error decoding key\r\n(4)",
        ),
        (
            "ms Zm9v 2 b T30 F5 C7 E9 I q O1 k s c ME\r\nxy\r\n",
            "ms Zm9v 2 b O1 k s c q I C7 E9 F5 T30 ME\r\nxy\r\n",
        ),
        ("ms a 1 MS\r\nx\r\n", "ms a 1\r\nx\r\n"),
        ("ms a 1 MSET\r\nx\r\n", "ms a 1\r\nx\r\n"),
        ("ms a 1 MR\r\nx\r\n", "ms a 1 MR\r\nx\r\n"),
        ("ms a 1 MA N30\r\nx\r\n", "ms a 1 N30 MA\r\nx\r\n"),
        ("ms a 1 N30\r\nx\r\n", "ms a 1\r\nx\r\n"),
        ("ms a 1 T0\r\nx\r\n", "ms a 1\r\nx\r\n"),
        ("md a\r\n", "md a\r\n"),
        (
            "md a q I T30 x C1 E2 O9 k\r\n",
            "md a O9 k q I x C1 E2 T30\r\n",
        ),
        ("ma a\r\n", "ma a\r\n"),
        (
            "ma a MI\r\nma a M+\r\nma a MINCR\r\n",
            "ma a\r\nma a\r\nma a\r\n",
        ),
        (
            "ma a MD D5 N60 J13 T9 t c v k O1 q\r\n",
            "ma a N60 T9 t c v k O1 q J13 D5 MD\r\n",
        ),
        ("ma a M-\r\n", "ma a MD\r\n"),
        ("ma a J5\r\n", "ma a\r\n"),
        ("me a\r\n", "me a\r\n"),
        ("me Zm9v b\r\n", "me Zm9v b\r\n"),
    ]);
}

// Which of several errors is told, and that `q` hides none.
#[test]
fn meta_errors_are_those_of_memcached() {
    const TOKEN: &str = "CLIENT_ERROR bad token in command line format\r\n";
    const INVALID: &str = "CLIENT_ERROR invalid flag\r\n";
    const DUPLICATE: &str = "CLIENT_ERROR duplicate flag\r\n";
    const INITIAL: &str = "CLIENT_ERROR invalid numeric initial value\r\n";
    const BOTH: &str = "CLIENT_ERROR invalid or duplicate flag\r\n";
    const BASE64: &str = "CLIENT_ERROR error decoding key\r\n";
    check(&[
        ("mg\r\nms a\r\nmd\r\nma\r\nme\r\n", &BAD.repeat(5)),
        (
            "mg a -\r\nmg a {\r\nma a +\r\nmd a \u{80}\r\n",
            &BAD.repeat(4),
        ),
        ("ms a 1 -\r\nmn\r\n", &format!("{BAD}mn\r\n")),
        ("mg a 5\r\nmg a _\r\nmg a S5 q\r\n", &INVALID.repeat(3)),
        (
            "mg a v v q\r\nmg a Nx v v\r\nmg a v c v\r\n",
            &DUPLICATE.repeat(3),
        ),
        (
            "mg a Tx\r\nmg a T\r\nmg a Cx\r\nmg a C-1\r\nmg a E\r\n",
            &TOKEN.repeat(5),
        ),
        ("mg a T2147483648\r\nmg a R+1\r\n", &TOKEN.repeat(2)),
        ("mg a Jx Tx\r\nmg a Tx Jx\r\n", &format!("{TOKEN}{INITIAL}")),
        (
            "mg a Dx\r\n",
            "CLIENT_ERROR invalid numeric delta value\r\n",
        ),
        (
            "mg a Fx\r\nmg a Jx Fx\r\nmg a Fx Jx\r\n",
            &format!("{BAD}{INITIAL}{INITIAL}"),
        ),
        ("mg !!! b\r\nmg Zg b\r\nmd Zm9v= b\r\n", &BASE64.repeat(3)),
        ("me !!! b\r\n", BAD),
        (
            "ma a Jx\r\nma a Dx\r\nma a v v\r\nma a z\r\nma ! b\r\n",
            &BOTH.repeat(5),
        ),
        (
            "ma a Mz\r\nma a M\r\n",
            &"CLIENT_ERROR invalid mode for ma M token\r\n".repeat(2),
        ),
        (
            "ms a 1 Mx\r\nx\r\n",
            "CLIENT_ERROR invalid mode for ms M token\r\n(3)",
        ),
        (
            "ms a 1 M q\r\nx\r\n",
            "CLIENT_ERROR invalid mode for ms M token\r\n(3)",
        ),
        ("ms a 1 F4294967296\r\nx\r\n", &format!("{BAD}(3)")),
        ("ms a 1 z\r\nx\r\n", &format!("{INVALID}(3)")),
    ]);
}

// A decoded key is the key; how it came is kept for the answer.
#[test]
fn base64_keys_are_decoded() {
    let mut decoder = Decoder::new(100);
    let Decoded::Request {
        request: Request::Store(store),
        consumed,
    } = decoder.decode(b"ms Zm9v 1 b k MA N-1\r\nx\r\nrest")
    else {
        panic!("ms is a store");
    };
    assert_eq!(consumed, 25);
    assert_eq!(
        (store.key, store.value, store.mode),
        (&b"foo"[..], &b"x"[..], StoreMode::Append)
    );
    assert_eq!(store.vivify, Some(Exptime::Expired));
    let mut returns = Returns::default();
    returns.push(b'b');
    returns.push(b'k');
    let form = MetaForm {
        key: b"foo",
        key_base64: true,
        quiet: false,
        opaque: None,
        returns,
    };
    assert_eq!(store.form, Form::Meta(form));
}

// Whether `t` is told before or after a touch depends on where it stands.
#[test]
fn the_place_of_exptime_flags_is_kept() {
    for (line, before) in [
        ("mg a t T30\r\n", true),
        ("mg a T30 t\r\n", false),
        ("mg a t\r\n", false),
    ] {
        let mut decoder = Decoder::new(100);
        let Decoded::Request {
            request: Request::Retrieve(retrieve),
            ..
        } = decoder.decode(line.as_bytes())
        else {
            panic!("mg is a retrieve");
        };
        assert_eq!(retrieve.form.stands_before(b't', b'T'), before, "{line}");
    }
}

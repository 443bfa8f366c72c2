//! The binary protocol: packets in, requests out; outcomes in, packets out.

use crate::session::{VALUE_MAX, check_round_trips, play, play_packets, transcript};
use proptest::prelude::*;
use proptest::sample::select;
use tiercache_protocol::binary::Opcode;
use tiercache_protocol::encode::{
    self, ArithmeticReply, DeleteReply, StoreFacts, StoreReply, TouchReply,
};
use tiercache_protocol::limits::{AUTH_TOKEN_MAX, BODY_LEN_MAX, KEY_MAX};
use tiercache_protocol::request::{Request, Sasl};
use tiercache_protocol::{BinaryForm, Decoded, Decoder, Form, Syntax};

/// A packet with lengths that may lie.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) magic: u8,
    pub(crate) opcode: u8,
    pub(crate) key_len: usize,
    pub(crate) extras_len: usize,
    pub(crate) body_len: usize,
    pub(crate) cas: u64,
    pub(crate) body: Vec<u8>,
}

impl Packet {
    fn new(opcode: Opcode, extras: &[u8], key: &[u8], value: &[u8]) -> Self {
        let body = [extras, key, value].concat();
        Self {
            magic: 0x80,
            opcode: opcode.0,
            key_len: key.len(),
            extras_len: extras.len(),
            body_len: body.len(),
            cas: 0,
            body,
        }
    }

    fn with_cas(self, cas: u64) -> Self {
        Self { cas, ..self }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.magic, self.opcode];
        bytes.extend((self.key_len as u16).to_be_bytes());
        bytes.extend([self.extras_len as u8, 0, 0, 0]);
        bytes.extend((self.body_len as u32).to_be_bytes());
        bytes.extend(*b"opaq");
        bytes.extend(self.cas.to_be_bytes());
        bytes.extend(&self.body);
        bytes
    }
}

const OPAQUE: u32 = u32::from_be_bytes(*b"opaq");

/// Flags 5, expiring in 60 s.
const STORE: &[u8] = &[0, 0, 0, 5, 0, 0, 0, 60];
const MINUTE: &[u8] = &[0, 0, 0, 60];

/// Decodes the one request of a packet, checks that it is written as it came, and shows it.
#[track_caller]
fn request(packet: &Packet) -> String {
    let bytes = packet.bytes();
    let mut decoder = Decoder::new(VALUE_MAX);
    let Decoded::Request { request, consumed } = decoder.decode(&bytes) else {
        panic!("{packet:?} is no request");
    };
    assert_eq!(consumed, bytes.len());
    let mut again = Vec::new();
    tiercache_protocol::encode_request(&mut again, &request);
    assert_eq!(again, bytes, "{request:?}");
    format!("{request:?}")
}

/// What the decoder makes of bytes, given at once and one by one.
#[track_caller]
fn outcome(bytes: &[u8]) -> String {
    let (events, _) = play([bytes]);
    assert_eq!(play(bytes.chunks(1)).0, events);
    transcript(&events)
}

// Every command has its lengths, is decoded, and is written as it came.
#[test]
fn every_opcode_is_decoded_and_encoded_alike() {
    let counting = [[0; 7].as_slice(), &[2], &[0; 7], &[9], MINUTE].concat();
    for opcode in Opcode::ALL {
        let name = opcode.name().unwrap_or_default();
        let (extras, key, value, kind): (&[u8], &[u8], &[u8], _) = match name {
            "get" | "getq" | "getk" | "getkq" => (b"", b"a b\r\n", b"", "GetOne"),
            "gat" | "gatq" | "gatk" | "gatkq" => (MINUTE, b"key", b"", "GetOne"),
            "touch" => (MINUTE, b"key", b"", "Touch"),
            "set" | "setq" | "add" | "addq" | "replace" | "replaceq" => {
                (STORE, b"key", b"value", "Store")
            }
            "append" | "appendq" | "prepend" | "prependq" => (b"", b"key", b"", "Store"),
            "delete" | "deleteq" => (b"", b"key", b"", "Delete"),
            "incr" | "incrq" | "decr" | "decrq" => (&counting, b"key", b"", "Arithmetic"),
            "flush" | "flushq" => (MINUTE, b"", b"", "FlushAll"),
            "verbosity" => (MINUTE, b"", b"", "Admin"),
            "stat" => (b"", b"items", b"", "Admin"),
            "version" => (b"", b"", b"", "Admin"),
            "noop" => (b"", b"", b"", "Noop"),
            "quit" | "quitq" => (b"", b"", b"", "Quit"),
            "sasl list" => (b"", b"", b"", "Sasl"),
            _ => (b"", b"PLAIN", b"\0user\0pass", "Sasl"),
        };
        let shown = request(&Packet::new(*opcode, extras, key, value));
        assert!(shown.starts_with(kind), "{name}: {shown}");
    }
}

// Numbers are big endian and have no sign; a CAS unique of 0 is none, another makes any store a `cas`.
#[test]
fn fields_are_decoded() {
    let has = |packet: &Packet, parts: &[&str]| {
        let shown = request(packet);
        for part in parts {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    };
    let store = |opcode, extras| Packet::new(opcode, extras, b"key", b"");
    has(
        &store(Opcode::ADDQ, STORE),
        &["mode: Add", "flags: 5", "Relative(60)", "compare: None"],
    );
    has(
        &store(Opcode::ADD, STORE).with_cas(7),
        &["mode: Set", "compare: Some(7)"],
    );
    has(
        &store(Opcode::APPEND, b"").with_cas(7),
        &["mode: Append", "compare: Some(7)"],
    );
    has(&store(Opcode::SET, &[0; 8]), &["exptime: Never"]);
    has(&store(Opcode::SET, &[0xff; 8]), &["Absolute(4294967295)"]);
    let counting = |exptime: &[u8]| [[0; 7].as_slice(), &[2], &[0; 7], &[9], exptime].concat();
    has(
        &Packet::new(Opcode::DECREMENT, &counting(MINUTE), b"n", b""),
        &["decrement: true", "delta: 2", "Some((9, Relative(60)))"],
    );
    // Without creation the initial number is nothing, and is written as 0.
    let extras = [[0; 7].as_slice(), &[2], &[0; 8], &[0xff; 4]].concat();
    has(
        &Packet::new(Opcode::INCREMENT, &extras, b"n", b""),
        &["vivify: None"],
    );
    has(&Packet::new(Opcode::FLUSH, b"", b"", b""), &["Expired"]);
}

// What contradicts itself is answered with its opcode and opaque, and ends the connection.
#[test]
fn malformed_packets_close() {
    const INVALID: &str = "CLIENT_ERROR bad command line format\\r\\n<malformed packet>";
    let good = |opcode: Opcode| Packet::new(opcode, b"", b"key", b"");
    for packet in [
        Packet::new(Opcode::GET, b"", b"", b""),
        Packet::new(Opcode::GET, b"xxxx", b"key", b""),
        Packet::new(Opcode::GETQ, b"", b"key", b"v"),
        Packet::new(Opcode::SET, STORE, b"", b"v"),
        Packet::new(Opcode::SET, b"xxxx", b"key", b"v"),
        Packet::new(Opcode::APPEND, STORE, b"key", b"v"),
        Packet::new(Opcode::INCREMENT, STORE, b"key", b""),
        Packet::new(Opcode::TOUCH, b"", b"key", b""),
        Packet::new(Opcode::GAT, STORE, b"key", b""),
        Packet::new(Opcode::FLUSH, b"", b"key", b""),
        Packet::new(Opcode::FLUSH, STORE, b"", b""),
        Packet::new(Opcode::NOOP, b"", b"", b"v"),
        Packet::new(Opcode::QUIT, b"", b"k", b""),
        Packet::new(Opcode::VERSION, b"xxxx", b"", b""),
        Packet::new(Opcode::VERBOSITY, b"", b"", b""),
        Packet::new(Opcode::STAT, b"xxxx", b"", b""),
        Packet::new(Opcode::SASL_AUTH, b"", b"", b"token"),
        Packet::new(Opcode::SASL_LIST, b"", b"key", b""),
        Packet::new(Opcode::GET, b"", &[b'k'; KEY_MAX + 1], b""),
        Packet {
            body_len: BODY_LEN_MAX + 1,
            ..good(Opcode::SET)
        },
    ] {
        assert_eq!(outcome(&packet.bytes()), INVALID, "{packet:?}");
    }
    let lying = Packet {
        body_len: 2,
        ..good(Opcode::GET)
    };
    assert_eq!(
        outcome(&lying.bytes()),
        "ERROR\\r\\n<malformed packet>",
        "a key longer than its body"
    );
    let mut two = Packet::new(Opcode::NOOP, b"", b"", b"").bytes();
    let noop = two.escape_ascii().to_string();
    two.extend([b'x'; 24]);
    assert_eq!(
        outcome(&two),
        format!("{noop}<no packet of the binary protocol>")
    );
}

// An unknown command and a value that is too large are answered, their bodies dropped.
#[test]
fn refused_bodies_are_dropped() {
    let noop = Packet::new(Opcode::NOOP, b"", b"", b"").bytes();
    let then_noop = |packet: Packet| outcome(&[packet.bytes(), noop.clone()].concat());
    let noop = noop.escape_ascii();
    assert_eq!(
        then_noop(Packet::new(Opcode(0x77), b"xx", b"key", b"value")),
        format!("ERROR\\r\\n(5){noop}")
    );
    let large = vec![b'v'; VALUE_MAX + 1];
    let refused = format!("SERVER_ERROR object too large for cache\\r\\n~key({VALUE_MAX}+1)");
    let refused = refused.replace(&format!("{VALUE_MAX}+1"), &(VALUE_MAX + 1).to_string());
    assert_eq!(
        then_noop(Packet::new(Opcode::SETQ, STORE, b"key", &large)),
        format!("{refused}{noop}")
    );
    assert_eq!(
        then_noop(Packet::new(Opcode::ADD, STORE, b"key", &large)),
        format!("{}{noop}", refused.replace("~key", "")),
        "only a set takes the old value with it"
    );
    let fits = Packet::new(Opcode::SET, STORE, b"key", &large[..VALUE_MAX]);
    assert!(request(&fits).starts_with("Store"));
}

// A token that is too long leaves the step without one.
#[test]
fn sasl_token_max() {
    for (len, fits) in [(AUTH_TOKEN_MAX, true), (AUTH_TOKEN_MAX + 1, false)] {
        let bytes = Packet::new(Opcode::SASL_AUTH, b"", b"PLAIN", &vec![0; len]).bytes();
        let mut decoder = Decoder::new(VALUE_MAX);
        let Decoded::Request {
            request: Request::Sasl(Sasl { token, .. }),
            consumed,
        } = decoder.decode(&bytes)
        else {
            panic!("a step of {len} bytes");
        };
        assert_eq!(token.is_some(), fits);
        assert_eq!(bytes.len() - consumed, if fits { 0 } else { len });
    }
}

// The first byte decides, unless one syntax was asked for.
#[test]
fn the_first_byte_tells_the_syntax() {
    let version = Packet::new(Opcode::VERSION, b"", b"", b"").bytes();
    let decodes = |syntax, bytes: &[u8]| {
        let mut decoder = Decoder::new(VALUE_MAX).speaking(syntax);
        format!("{:?}", decoder.decode(bytes))
    };
    assert!(decodes(Syntax::Auto, &version).contains("Version"));
    assert!(decodes(Syntax::Auto, b"mn\r\n").contains("Noop"));
    assert!(decodes(Syntax::Binary, &version).contains("Version"));
    assert!(decodes(Syntax::Text, b"mn\r\n").contains("Noop"));
    assert!(decodes(Syntax::Text, &version).contains("More"));
    assert!(decodes(Syntax::Binary, b"get a\r\n").contains("More"));
    let long = b"get this_is_a_very_long_key\r\n";
    assert!(decodes(Syntax::Binary, long).contains("BadMagic"));
    // What is half received is told, for the accounting of idle connections.
    let set = Packet::new(Opcode::SET, STORE, b"key", b"value").bytes();
    for at in 1..set.len() {
        assert!(play([&set[..at]]).1.is_some_and(|missing| missing > 0));
    }
    assert_eq!(play([&set[..]]).1, None);
    assert_eq!(play([&set[..set.len() - 2]]).1, Some(2));
}

/// What a reply says, in one line.
#[track_caller]
fn reply(opcode: Opcode, answer: impl FnOnce(&mut Vec<u8>, BinaryForm)) -> String {
    let form = BinaryForm {
        opcode,
        opaque: OPAQUE,
    };
    let mut out = Vec::new();
    answer(&mut out, form);
    let replies = play_packets(&out, out.len().max(1));
    assert_eq!(play_packets(&out, 1), replies);
    replies.join(" ")
}

// Success is empty but for the CAS unique, or hidden; errors say what is wrong, quiet or not.
#[test]
fn outcomes_are_answered() {
    let store = |opcode, outcome| {
        reply(opcode, |out, form| {
            let facts = StoreFacts { cas: 9, size: 1 };
            encode::store(out, &Form::Binary(form), facts, outcome);
        })
    };
    assert_eq!(store(Opcode::SET, StoreReply::Stored), "set 0 cas9");
    assert_eq!(store(Opcode::SETQ, StoreReply::Stored), "");
    for (opcode, outcome, status) in [
        (
            Opcode::ADDQ,
            StoreReply::NotStored,
            "2 Data exists for key.",
        ),
        (Opcode::REPLACE, StoreReply::NotStored, "1 Not found"),
        (Opcode::APPEND, StoreReply::NotStored, "5 Not stored."),
        (Opcode::SET, StoreReply::Exists, "2 Data exists for key."),
        (Opcode::SET, StoreReply::NotFound, "1 Not found"),
        (Opcode::SET, StoreReply::TooLarge, "3 Too large."),
        (
            Opcode::SETQ,
            StoreReply::OutOfMemory,
            "130 Out of memory allocating item",
        ),
    ] {
        assert_eq!(store(opcode, outcome), format!("{opcode:?} {status}"));
    }
    let delete = |opcode, outcome| {
        reply(opcode, |out, form| {
            encode::delete(out, &Form::Binary(form), outcome);
        })
    };
    assert_eq!(delete(Opcode::DELETE, DeleteReply::Deleted), "delete 0");
    assert_eq!(delete(Opcode::DELETEQ, DeleteReply::Deleted), "");
    assert_eq!(
        delete(Opcode::DELETEQ, DeleteReply::NotFound),
        "deleteq 1 Not found"
    );
    let count = |opcode, outcome| {
        reply(opcode, |out, form| {
            encode::arithmetic(out, &Form::Binary(form), outcome);
        })
    };
    let value = ArithmeticReply::Value {
        value: 0x41,
        cas: 3,
        ttl: None,
    };
    assert_eq!(
        count(Opcode::INCREMENT, value),
        "incr 0 cas3 \\x00\\x00\\x00\\x00\\x00\\x00\\x00A"
    );
    assert_eq!(count(Opcode::DECREMENTQ, value), "");
    assert_eq!(
        count(Opcode::DECREMENTQ, ArithmeticReply::NonNumeric),
        "decrq 6 Non-numeric server-side value for incr or decr"
    );
    let touch = |outcome| {
        reply(Opcode::TOUCH, |out, form| {
            encode::touch(out, &Form::Binary(form), outcome);
        })
    };
    assert_eq!(
        touch(TouchReply::Touched { flags: 5, cas: 2 }),
        "touch 0 cas2 flags5"
    );
    assert_eq!(touch(TouchReply::NotFound), "touch 1 Not found");
}

// A hit answers flags, CAS unique and, where asked for, the key; a quiet miss nothing.
#[test]
fn gets_are_answered() {
    let hit = |opcode| {
        reply(opcode, |out, form| {
            encode::binary_item_head(out, form, b"key", 5, 9, 5);
            out.extend_from_slice(b"value");
        })
    };
    assert_eq!(hit(Opcode::GETQ), "getq 0 cas9 flags5 value");
    assert_eq!(hit(Opcode::GATK), "gatk 0 cas9 flags5 key=value");
    let miss = |opcode| reply(opcode, |out, form| encode::binary_miss(out, form, b"key"));
    assert_eq!(miss(Opcode::GET), "get 1 Not found");
    assert_eq!(miss(Opcode::GETK), "getk 1 key=");
    assert_eq!(miss(Opcode::GETKQ), "");
}

// Statistics are a packet each; the last is empty.
#[test]
fn statistics_end_with_an_empty_packet() {
    let rows = reply(Opcode::STAT, |out, form| {
        let mut rows = encode::Statistics::new(out, &Form::Binary(form));
        rows.row(b"version", b"1");
        rows.number(b"pid", 12);
        rows.end();
    });
    assert_eq!(rows, "stat 0 version=1 stat 0 pid=12 stat 0");
}

/// Packets that are often almost right. The first begins like one.
fn packets() -> impl Strategy<Value = Vec<u8>> {
    let lengths = select(vec![0usize, 0, 0, 0, 1, 3, 250, 251, 1000, 1001, 70_000]);
    let packet = (
        0u8..0x28,
        select(vec![0usize, 0, 4, 8, 20, 1]),
        select(vec![&b""[..], b"k", b"key", b"a b\n", &[b'k'; 251]]),
        lengths,
        0u8..20,
        select(vec![0u64, 0, 1, u64::MAX]),
        any::<u8>(),
    );
    let packet = packet.prop_map(|(opcode, extras_len, key, value_len, lie, cas, fill)| {
        let extras = vec![fill; extras_len];
        let value = vec![fill; value_len];
        let mut packet = Packet::new(Opcode(opcode), &extras, key, &value).with_cas(cas);
        match lie {
            0 => packet.body_len = packet.body_len.saturating_sub(2),
            1 => packet.body_len += 1,
            2 => packet.key_len += 1,
            3 => packet.extras_len += 1,
            4 => packet.magic = 0x81,
            _ => {}
        }
        packet.bytes()
    });
    proptest::collection::vec(packet, 1..6).prop_map(|packets| {
        let mut bytes = packets.concat();
        bytes[0] = 0x80;
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    // Any split of the packets yields the same, and what was decoded is written and decoded alike.
    #[test]
    fn packets_split_anywhere(
        input in packets(),
        places in proptest::collection::vec(any::<usize>(), 0..12),
        size in 1usize..40,
    ) {
        let whole = play([&input[..]]);
        prop_assert_eq!(&play(crate::splits::cut(&input, &places)), &whole);
        prop_assert_eq!(&play(input.chunks(size)), &whole);
        check_round_trips(&whole.0);
    }

    // Random bytes behind the first are survived.
    #[test]
    fn binary_noise(mut input in proptest::collection::vec(any::<u8>(), 1..400)) {
        input[0] = 0x80;
        prop_assert_eq!(play(input.chunks(3)), play([&input[..]]));
        input[0] = 0x81;
        prop_assert_eq!(play_packets(&input, 3), play_packets(&input, 1000));
    }
}

//! Nanoseconds per request of the decoder and per reply of the encoders, without a framework.
//!
//! `cargo bench -p tiercache-protocol [NAME]`; `ROUNDS=N` changes how often each case runs, so that
//! two runs under an instruction counter tell the instructions per request.

use std::hint::black_box;
use std::time::Instant;
use tiercache_protocol::binary::Opcode;
use tiercache_protocol::encode::{self, ItemFacts, StoreFacts, StoreReply};
use tiercache_protocol::{BinaryForm, Decoded, Decoder, Form, Request};

const ROUNDS_DEFAULT: u32 = 2_000_000;
const ITEM_VALUE_MAX: usize = 1024 * 1024;

fn main() {
    let rounds = std::env::var("ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let rounds = rounds.unwrap_or(ROUNDS_DEFAULT);
    let filter = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let keys: Vec<String> = (0..16).map(|n| format!("memtier-{n:08}")).collect();
    let cases = [
        ("get", b"get memtier-00000001\r\n".to_vec()),
        ("get16", format!("get {}\r\n", keys.join(" ")).into_bytes()),
        (
            "set",
            [
                b"set memtier-00000001 0 0 100\r\n",
                &[b'x'; 100][..],
                b"\r\n",
            ]
            .concat(),
        ),
        ("mg", b"mg memtier-00000001 v f t\r\n".to_vec()),
        (
            "ms",
            [
                b"ms memtier-00000001 100 T60\r\n",
                &[b'x'; 100][..],
                b"\r\n",
            ]
            .concat(),
        ),
        ("delete", b"delete memtier-00000001\r\n".to_vec()),
        ("incr", b"incr memtier-00000001 1\r\n".to_vec()),
        ("binary get", packet(0x00, &[], &[])),
        ("binary set", packet(0x01, &[0; 8], &[b'x'; 100])),
    ];
    for (name, bytes) in &cases {
        if filter.as_ref().is_some_and(|filter| filter != name) {
            continue;
        }
        let mut decoder = Decoder::new(ITEM_VALUE_MAX);
        let start = Instant::now();
        for _ in 0..rounds {
            decode(&mut decoder, black_box(bytes));
        }
        report(name, start, rounds);
    }
    if filter.as_ref().is_none_or(|filter| filter == "reply") {
        replies(rounds);
    }
}

/// A packet with the key that the lines have.
fn packet(opcode: u8, extras: &[u8], value: &[u8]) -> Vec<u8> {
    let key = b"memtier-00000001";
    let body_len = (extras.len() + key.len() + value.len()) as u32;
    let mut bytes = vec![
        0x80,
        opcode,
        0,
        key.len() as u8,
        extras.len() as u8,
        0,
        0,
        0,
    ];
    bytes.extend(body_len.to_be_bytes());
    bytes.extend([0; 12]);
    [&bytes, extras, key, value].concat()
}

/// Decodes one request and looks at each of its keys.
#[inline]
fn decode(decoder: &mut Decoder, bytes: &[u8]) {
    match decoder.decode(bytes) {
        Decoded::Request {
            request: Request::Get(get),
            ..
        } => {
            for key in get.keys {
                black_box(key);
            }
        }
        Decoded::Request { request, .. } => {
            black_box(&request);
        }
        other => panic!("{other:?}"),
    }
}

fn replies(rounds: u32) {
    let mut out = Vec::with_capacity(4096);
    let start = Instant::now();
    for _ in 0..rounds {
        out.clear();
        encode::value_line(&mut out, black_box(b"memtier-00000001"), 0, 100, None);
        encode::end(&mut out);
        black_box(&out);
    }
    report("reply: value line", start, rounds);

    let start = Instant::now();
    for _ in 0..rounds {
        out.clear();
        let form = black_box(BinaryForm {
            opcode: Opcode::GETK,
            opaque: 1,
        });
        encode::binary_item_head(&mut out, form, black_box(b"memtier-00000001"), 0, 9, 100);
        black_box(&out);
    }
    report("reply: binary item", start, rounds);

    let start = Instant::now();
    for _ in 0..rounds {
        out.clear();
        let form = black_box(Form::Classic { noreply: false });
        encode::store(&mut out, &form, StoreFacts::default(), StoreReply::Stored);
        black_box(&out);
    }
    report("reply: stored", start, rounds);

    let mut decoder = Decoder::new(ITEM_VALUE_MAX);
    let Decoded::Request {
        request: Request::Retrieve(retrieve),
        ..
    } = decoder.decode(b"mg memtier-00000001 v f t O123\r\n")
    else {
        panic!("mg is a retrieve");
    };
    let facts = ItemFacts {
        size: 100,
        ttl: Some(60),
        ..ItemFacts::default()
    };
    let start = Instant::now();
    for _ in 0..rounds {
        out.clear();
        encode::meta_hit(&mut out, black_box(&retrieve.form), black_box(&facts), true);
        black_box(&out);
    }
    report("reply: meta hit", start, rounds);
}

fn report(name: &str, start: Instant, rounds: u32) {
    let ns = start.elapsed().as_secs_f64() * 1e9 / f64::from(rounds);
    println!("{name:<20} {ns:>8.1} ns");
}

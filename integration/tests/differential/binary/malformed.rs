//! Binary requests that are wrong in one nameable way each.
//!
//! memcached closes the connection after most of them, so most end their pipeline.

use tiercache_integration::binary::{Packet, REPLY_MAGIC, opcode};

use super::super::generate::Generator;
use super::super::script::Cas;
use super::super::script::{Ending, Request};
use super::generate::{arithmetic_extras, exptime, key, push, store_extras};

type Make = fn(&mut Generator) -> (Packet, Ending);

/// Opcodes by the parts that they want: all of them want no other.
const KEYED: &[u8] = {
    use opcode::*;
    &[
        GET, GETQ, GETK, GETKQ, DELETE, DELETEQ, SET, SETQ, ADD, ADDQ, REPLACE, REPLACEQ, APPEND,
        APPENDQ, PREPEND, PREPENDQ, INCREMENT, INCREMENTQ, DECREMENT, DECREMENTQ, TOUCH, GAT, GATQ,
        GATK, GATKQ,
    ]
};
const KEYLESS: &[u8] = {
    use opcode::*;
    &[NOOP, VERSION, FLUSH, FLUSHQ, QUIT, QUITQ, SASL_LIST]
};
/// Those that memcached refuses a value for; behind a touch it reads it as the next request.
const VALUELESS: &[u8] = {
    use opcode::*;
    &[
        GET, GETQ, GETK, GETKQ, DELETE, DELETEQ, INCREMENT, INCREMENTQ, DECREMENT, DECREMENTQ,
        NOOP, VERSION, FLUSH, FLUSHQ, QUIT, QUITQ, SASL_LIST,
    ]
};
/// How memcached carries them out depends on replies that are still under way.
const ARITHMETIC: &[u8] = {
    use opcode::*;
    &[INCREMENT, INCREMENTQ, DECREMENT, DECREMENTQ]
};
const STORES: &[u8] = {
    use opcode::*;
    &[SET, SETQ, ADD, ADDQ, REPLACE, REPLACEQ]
};
/// Opcodes that nobody answers: unassigned ones, and those of protocols that memcached never spoke.
const UNKNOWN: &[u8] = &[0x1f, 0x25, 0x30, 0x31, 0x3c, 0x3d, 0x40, 0x48, 0x80, 0xff];
/// Beyond this body length memcached does not even look at the rest.
const BODY_BYTES_MAX: u32 = 1 << 30;

pub fn request(generator: &mut Generator) -> Request {
    // Before 1.6.32 a body of 2 GiB was taken for one of a negative length, and waited for: a known difference.
    let ways = if generator.profile.modern {
        WAYS
    } else {
        &WAYS[..WAYS.len() - 1]
    };
    let (how, make) = generator.random.pick(ways);
    let (packet, ending) = make(generator);
    let mut request = Request::new("malformed");
    request.malformed(how);
    request.ending = ending;
    // memcached throws unsent replies away when it closes for one of these.
    request.fresh = how == "magic"
        || ending == Ending::Finishes
        || (ending == Ending::Open && ARITHMETIC.contains(&packet.opcode));
    push(generator, &mut request, &packet, Cas::Foreign(0));
    if how == "cut off" {
        let bytes = request.bytes(&[]);
        let length = generator.random.between(1, bytes.len() as u64 - 1) as usize;
        request.pieces.clear();
        request.push(&bytes[..length]);
    }
    request
}

const WAYS: &[(&str, Make)] = &[
    ("magic", |generator| {
        let mut packet = any(generator);
        packet.magic = generator
            .random
            .pick(&[REPLY_MAGIC, 0, 1, 0x7f, 0x82, 0xff, b'g', b'\n']);
        (packet, Ending::Closes)
    }),
    ("unknown opcode", |generator| {
        let code = generator.random.pick(UNKNOWN);
        (Packet::request(code, &[], &[], &[]), Ending::Open)
    }),
    ("unknown opcode with a body", |generator| {
        let (code, value) = (generator.random.pick(UNKNOWN), generator.value());
        (Packet::request(code, &[], &[], &value), Ending::Open)
    }),
    ("data type", |generator| {
        let mut packet = any(generator);
        packet.data_type = generator.random.between(1, 255) as u8;
        (packet, Ending::Open)
    }),
    ("vbucket", |generator| {
        let mut packet = any(generator);
        packet.status = generator.random.between(1, 65535) as u16;
        (packet, Ending::Open)
    }),
    ("extras", |generator| {
        let code = generator.random.pick(&[KEYED, KEYLESS].concat());
        let right = extras(generator, code).len();
        let mut lengths = vec![1, 2, 3, 5, 7, 9, 12, 16, 19, 21, 24, 255];
        lengths.extend([0, 4, 8, 20]);
        // A flush takes both.
        lengths.retain(|&length| {
            length != right && !(matches!(code, opcode::FLUSH | opcode::FLUSHQ) && length == 4)
        });
        let extras = vec![0; generator.random.pick(&lengths)];
        let key = if KEYED.contains(&code) {
            key(generator)
        } else {
            Vec::new()
        };
        (Packet::request(code, &extras, &key, &[]), Ending::Closes)
    }),
    ("no key", |generator| {
        let code = generator.random.pick(KEYED);
        let extras = extras(generator, code);
        (Packet::request(code, &extras, &[], &[]), Ending::Closes)
    }),
    ("no key but a value", |generator| {
        let code = generator.random.pick(STORES);
        let (extras, value) = (extras(generator, code), generator.value());
        (Packet::request(code, &extras, &[], &value), Ending::Closes)
    }),
    ("unwanted key", |generator| {
        let (code, key) = (generator.random.pick(KEYLESS), key(generator));
        (Packet::request(code, &[], &key, &[]), Ending::Closes)
    }),
    ("unwanted value", |generator| {
        let code = generator.random.pick(VALUELESS);
        let mut packet = keyed(generator, code, b"value");
        if KEYLESS.contains(&code) {
            packet = Packet::request(code, &[], &[], b"value");
        }
        (packet, Ending::Closes)
    }),
    ("key longer than the body", |generator| {
        let code = generator.random.pick(KEYED);
        let mut packet = keyed(generator, code, &[]);
        packet.body_length = generator.random.below(u64::from(packet.key_length)) as u32;
        (packet, Ending::Closes)
    }),
    ("key and extras longer than the body", |generator| {
        let code = generator
            .random
            .pick(&[STORES, &[opcode::INCREMENT, opcode::GAT]].concat());
        let mut packet = keyed(generator, code, &[]);
        packet.body_length -= generator.random.between(1, packet.extras_length.into()) as u32;
        (packet, Ending::Closes)
    }),
    ("long key", |generator| {
        let code = generator.random.pick(KEYED);
        let extras = extras(generator, code);
        let length = generator
            .random
            .pick(&[251, 252, 255, 256, 300, 2048, 8192]);
        let key = vec![b'k'; length];
        (Packet::request(code, &extras, &key, &[]), Ending::Closes)
    }),
    ("longest key", |generator| {
        // Not wrong: the neighbour of the one above.
        let code = generator
            .random
            .pick(&[opcode::GET, opcode::GETK, opcode::TOUCH]);
        let extras = extras(generator, code);
        (
            Packet::request(code, &extras, &[b'k'; 250], &[]),
            Ending::Open,
        )
    }),
    ("cut off", |generator| (any(generator), Ending::Finishes)),
    ("random lengths", |generator| {
        let code = generator.random.pick(&[KEYED, KEYLESS].concat());
        let mut packet = keyed(generator, code, b"");
        packet.key_length = generator.random.below(300) as u16;
        // More than any request has: one that fits by chance would be done, and its answer lost with what follows.
        packet.extras_length = generator.random.between(21, 30) as u8;
        packet.body_length = generator.random.below(400) as u32;
        // Enough for what memcached waits for before it looks at the lengths.
        packet.body = vec![0; 400];
        (packet, Ending::Finishes)
    }),
    ("huge body", |generator| {
        let code = generator.random.pick(KEYED);
        let mut packet = keyed(generator, code, &[]);
        packet.body_length =
            generator
                .random
                .pick(&[BODY_BYTES_MAX + 1, 0x7fff_ffff, 0x8000_0000, u32::MAX]);
        (packet, Ending::Closes)
    }),
];

/// A well-formed request of any keyed kind.
fn any(generator: &mut Generator) -> Packet {
    let code = generator.random.pick(KEYED);
    let value = if STORES.contains(&code) {
        generator.value()
    } else {
        Vec::new()
    };
    keyed(generator, code, &value)
}

fn keyed(generator: &mut Generator, code: u8, value: &[u8]) -> Packet {
    let (extras, key) = (extras(generator, code), key(generator));
    Packet::request(code, &extras, &key, value)
}

/// The extras that an opcode wants.
fn extras(generator: &mut Generator, code: u8) -> Vec<u8> {
    use opcode::*;
    match code {
        SET | SETQ | ADD | ADDQ | REPLACE | REPLACEQ => store_extras(generator).to_vec(),
        INCREMENT | INCREMENTQ | DECREMENT | DECREMENTQ => arithmetic_extras(generator),
        TOUCH | GAT | GATQ | GATK | GATKQ => exptime(generator).to_vec(),
        _ => Vec::new(),
    }
}

//! Random binary requests: every opcode, hits and misses, right and wrong CAS values.

use tiercache_integration::binary::{CAS_AT, HEADER_BYTES, Packet, opcode};

use super::super::generate::{Generator, LARGE_VALUE_BYTES, TOO_LARGE_VALUE_BYTES};
use super::super::script::{Cas, CasForm, Ending, Request};
use super::{MARK_OPAQUE, malformed};

/// An increment with this exptime does not create its item.
const CREATE_NEVER: u32 = u32::MAX;
/// Exptimes that only this protocol can spell, all of them absolute and far away.
const EXPTIMES_FAR: &[u32] = &[0x8000_0000, 0xffff_fffe, u32::MAX];

pub fn request(generator: &mut Generator) -> Request {
    match generator.random.below(1000) {
        0..270 => malformed::request(generator),
        270..273 => large(generator),
        273..276 => quit(generator),
        _ => well_formed(generator),
    }
}

/// A request that memcached accepts; some of them end up cut off or with a wrong field in [`malformed`].
fn well_formed(generator: &mut Generator) -> Request {
    match generator.random.below(20) {
        0..3 => get(generator),
        3 => many_gets(generator),
        4..6 => get_and_touch(generator),
        6 => touch(generator),
        7..12 => store(generator),
        12..14 => concatenate(generator),
        14 => delete(generator),
        15..18 => arithmetic(generator),
        _ => others(generator),
    }
}

/// The packet with a random opaque and, now and then, a CAS, as a request about `key`.
pub fn send(
    generator: &mut Generator,
    command: &'static str,
    packet: &Packet,
    key: Option<&[u8]>,
) -> Request {
    let mut request = Request::new(command);
    if is_quiet(packet.opcode) {
        request.flag("quiet");
    }
    let cas = match key {
        Some(key) if generator.random.chance(15) => {
            let (cas, name) = generator.cas(key);
            request.flag(name);
            cas
        }
        _ => Cas::Foreign(0),
    };
    request.key = key.map(<[u8]>::to_vec);
    push(generator, &mut request, packet, cas);
    request
}

pub fn push(generator: &mut Generator, request: &mut Request, packet: &Packet, cas: Cas) {
    let bytes = packet.clone().with_opaque(opaque(generator)).bytes();
    request
        .push(&bytes[..CAS_AT])
        .push_cas(cas, CasForm::BigEndian)
        .push(&bytes[HEADER_BYTES..]);
}

fn opaque(generator: &mut Generator) -> u32 {
    let opaque = generator.random.bits() as u32;
    if opaque == MARK_OPAQUE { 0 } else { opaque }
}

fn is_quiet(code: u8) -> bool {
    use opcode::*;
    matches!(code, GETQ | GETKQ | SETQ..=PREPENDQ | GATQ | GATKQ)
}

/// Keys of the epoch, some of them with bytes that text cannot spell.
pub fn key(generator: &mut Generator) -> Vec<u8> {
    let mut key = generator.key();
    if generator.random.chance(10) {
        key.extend_from_slice(b" \0\r\n\xff");
    }
    key
}

pub fn exptime(generator: &mut Generator) -> [u8; 4] {
    if generator.random.chance(10) {
        return generator.random.pick(EXPTIMES_FAR).to_be_bytes();
    }
    // Text's negative exptimes are times of the next century here.
    (generator.exptime() as u32).to_be_bytes()
}

fn get(generator: &mut Generator) -> Request {
    use opcode::*;
    let (code, key) = (
        generator.random.pick(&[GET, GET, GETQ, GETK, GETKQ]),
        key(generator),
    );
    send(
        generator,
        "get",
        &Packet::request(code, &[], &key, &[]),
        Some(&key),
    )
}

/// What clients make of a get of many keys: quiet ones, and sometimes one at the end that always answers.
fn many_gets(generator: &mut Generator) -> Request {
    let mut request = Request::new("get");
    request.flag("many keys");
    for _ in 0..generator.random.between(2, 60) {
        let packet = Packet::request(opcode::GETKQ, &[], &key(generator), &[]);
        push(generator, &mut request, &packet, Cas::Foreign(0));
    }
    if generator.random.chance(50) {
        let packet = Packet::request(opcode::GETK, &[], &key(generator), &[]);
        push(generator, &mut request, &packet, Cas::Foreign(0));
    }
    request
}

fn get_and_touch(generator: &mut Generator) -> Request {
    use opcode::*;
    let (code, key) = (
        generator.random.pick(&[GAT, GATQ, GATK, GATKQ]),
        key(generator),
    );
    let packet = Packet::request(code, &exptime(generator), &key, &[]);
    send(generator, "gat", &packet, Some(&key))
}

fn touch(generator: &mut Generator) -> Request {
    let key = key(generator);
    let packet = Packet::request(opcode::TOUCH, &exptime(generator), &key, &[]);
    send(generator, "touch", &packet, Some(&key))
}

fn store(generator: &mut Generator) -> Request {
    use opcode::*;
    let (command, code) = generator.random.pick(&[
        ("set", SET),
        ("set", SET),
        ("set", SETQ),
        ("add", ADD),
        ("add", ADDQ),
        ("replace", REPLACE),
        ("replace", REPLACEQ),
    ]);
    let (key, value) = (key(generator), generator.value());
    let extras = store_extras(generator);
    send(
        generator,
        command,
        &Packet::request(code, &extras, &key, &value),
        Some(&key),
    )
}

/// Client flags and exptime.
pub fn store_extras(generator: &mut Generator) -> [u8; 8] {
    let mut extras = [0; 8];
    extras[..4].copy_from_slice(&generator.client_flags().to_be_bytes());
    extras[4..].copy_from_slice(&exptime(generator));
    extras
}

fn concatenate(generator: &mut Generator) -> Request {
    use opcode::*;
    let (command, code) = generator.random.pick(&[
        ("append", APPEND),
        ("append", APPENDQ),
        ("prepend", PREPEND),
        ("prepend", PREPENDQ),
    ]);
    let (key, value) = (key(generator), generator.value());
    let packet = Packet::request(code, &[], &key, &value);
    send(generator, command, &packet, Some(&key))
}

fn delete(generator: &mut Generator) -> Request {
    let (code, key) = (
        generator.random.pick(&[opcode::DELETE, opcode::DELETEQ]),
        key(generator),
    );
    send(
        generator,
        "delete",
        &Packet::request(code, &[], &key, &[]),
        Some(&key),
    )
}

fn arithmetic(generator: &mut Generator) -> Request {
    use opcode::*;
    let (command, code) = generator.random.pick(&[
        ("incr", INCREMENT),
        ("incr", INCREMENTQ),
        ("decr", DECREMENT),
        ("decr", DECREMENTQ),
    ]);
    let key = key(generator);
    let extras = arithmetic_extras(generator);
    let packet = Packet::request(code, &extras, &key, &[]);
    let mut request = send(generator, command, &packet, Some(&key));
    request.fresh = true;
    request
}

/// Delta, initial value and exptime.
pub fn arithmetic_extras(generator: &mut Generator) -> Vec<u8> {
    let mut extras = Vec::with_capacity(20);
    for _ in 0..2 {
        let number: u64 = generator.delta().parse().expect("a delta is a number");
        extras.extend(number.to_be_bytes());
    }
    if generator.random.chance(40) {
        extras.extend(CREATE_NEVER.to_be_bytes());
    } else {
        extras.extend(exptime(generator));
    }
    extras
}

fn others(generator: &mut Generator) -> Request {
    use opcode::*;
    let plain = |code| Packet::request(code, &[], &[], &[]);
    let (command, packet) = match generator.random.below(12) {
        0..3 => ("noop", plain(NOOP)),
        // Its text changes with the version.
        3 if generator.profile.modern => ("version", plain(VERSION)),
        4 => return flush(generator),
        5 => ("sasl", plain(SASL_LIST)),
        6 => {
            let code = generator.random.pick(&[SASL_AUTH, SASL_STEP]);
            let token = generator.value();
            ("sasl", Packet::request(code, &[], b"PLAIN", &token))
        }
        _ => {
            let name = generator.random.pick(&[
                "reset",
                "nonsense",
                "detail off",
                "detail",
                "detail nonsense",
            ]);
            ("stat", Packet::request(STAT, &[], name.as_bytes(), &[]))
        }
    };
    send(generator, command, &packet, None)
}

fn flush(generator: &mut Generator) -> Request {
    // Thinned out as in text: on a flushed cache everything else only misses.
    if generator.random.chance(80) {
        let packet = Packet::request(opcode::NOOP, &[], &[], &[]);
        return send(generator, "noop", &packet, None);
    }
    let code = generator.random.pick(&[opcode::FLUSH, opcode::FLUSHQ]);
    // In memcached a delayed flush takes back what an earlier one has not yet cleared away.
    let delays = if generator.flush() {
        &[None, Some(0)][..]
    } else {
        &[None, Some(0_u32), Some(90_000)][..]
    };
    let delay = generator.random.pick(delays);
    let extras = delay.map(u32::to_be_bytes);
    let extras = extras.as_ref().map_or(&[][..], |bytes| &bytes[..]);
    send(
        generator,
        "flush",
        &Packet::request(code, extras, &[], &[]),
        None,
    )
}

/// Values around the item size limit, on a key of their own.
fn large(generator: &mut Generator) -> Request {
    let mut request = Request::new("set");
    let key = format!("{}:large", generator.epoch).into_bytes();
    let extras = [0; 8];
    let bytes = |length| vec![b'x'; length];
    let packets = match generator.random.below(3) {
        0 => {
            request.flag("large");
            vec![Packet::request(
                opcode::SET,
                &extras,
                &key,
                &bytes(LARGE_VALUE_BYTES),
            )]
        }
        1 => {
            request.flag("too large");
            let code = generator
                .random
                .pick(&[opcode::SET, opcode::SETQ, opcode::ADD]);
            vec![Packet::request(
                code,
                &extras,
                &key,
                &bytes(TOO_LARGE_VALUE_BYTES),
            )]
        }
        _ => {
            request.flag("grown too large");
            vec![
                Packet::request(opcode::SET, &extras, &key, &bytes(LARGE_VALUE_BYTES)),
                Packet::request(opcode::APPEND, &[], &key, &bytes(4096)),
            ]
        }
    };
    for packet in packets {
        push(generator, &mut request, &packet, Cas::Foreign(0));
    }
    let packet = Packet::request(opcode::GET, &[], &key, &[]);
    push(generator, &mut request, &packet, Cas::Foreign(0));
    request
}

fn quit(generator: &mut Generator) -> Request {
    let code = generator.random.pick(&[opcode::QUIT, opcode::QUITQ]);
    let mut request = send(
        generator,
        "quit",
        &Packet::request(code, &[], &[], &[]),
        None,
    );
    request.ending = Ending::Closes;
    request
}

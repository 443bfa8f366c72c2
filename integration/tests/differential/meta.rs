//! Random meta commands with every flag and mode that the profile knows.

use super::generate::Generator;
use super::reply::EXPLICIT_CAS_MIN;
use super::script::Request;

/// Most flags on one request; each is drawn at most once.
const FLAGS_MAX: u64 = 6;

pub fn request(generator: &mut Generator) -> Request {
    match generator.random.below(20) {
        0..7 => flagged(generator, "mg"),
        7..12 => flagged(generator, "ms"),
        12..15 => flagged(generator, "md"),
        15..19 => flagged(generator, "ma"),
        _ => debug(generator),
    }
}

fn debug(generator: &mut Generator) -> Request {
    let mut request = Request::new("me");
    request.alone = true;
    let key = generator.key();
    request.push("me ").push(&key);
    generator.end_line(&mut request);
    request
}

fn flagged(generator: &mut Generator, command: &'static str) -> Request {
    let mut request = Request::new(command);
    request.fresh = command == "ma";
    let key = generator.key();
    let binary = generator.random.chance(8);
    request.push(command).push(" ");
    if binary {
        request.push(base64(&key));
    } else {
        request.push(&key);
    }
    let value = (command == "ms").then(|| {
        // Numbers and text in about equal parts; the length is announced as it is.
        let value = generator.value();
        request.push(format!(" {}", value.len()));
        value
    });
    let mut flags = letters(generator, command);
    if binary {
        flags.push(b'b');
    }
    let mut told = false;
    for flag in shuffled(generator, flags) {
        request.push(" ");
        told |= flag == b'c';
        push_flag(generator, &mut request, command, flag, &key);
    }
    request.key = told.then_some(key);
    generator.end_line(&mut request);
    if let Some(value) = value {
        request.push(&value).push("\r\n");
    }
    request
}

/// The flags of one request, each letter once.
fn letters(generator: &mut Generator, command: &str) -> Vec<u8> {
    let all: &[u8] = match (command, generator.profile.modern) {
        ("mg", true) => b"cfhklOqstvvvvNRTECPLs",
        ("mg", false) => b"cfhklOqstvvvvNRTs",
        ("ms", true) => b"cccCCEFIkOqsTMMN",
        ("ms", false) => b"cccCCFIkOqTMM",
        ("md", true) => b"CCEIkOqTxPL",
        ("md", false) => b"CCkOq",
        // Not E and T: memcached forgets them when the number grows, a known difference.
        ("ma", true) => b"CNJJDDMMOqtcvvvkPL",
        (_, _) => b"CNJJDDMMOqtcvvvk",
    };
    let count = generator.random.below(FLAGS_MAX + 1);
    let mut chosen = Vec::new();
    for _ in 0..count {
        let letter = generator.random.pick(all);
        if !chosen.contains(&letter) {
            chosen.push(letter);
        }
    }
    chosen
}

fn shuffled(generator: &mut Generator, mut flags: Vec<u8>) -> Vec<u8> {
    for index in (1..flags.len()).rev() {
        flags.swap(index, generator.random.below(index as u64 + 1) as usize);
    }
    flags
}

fn push_flag(
    generator: &mut Generator,
    request: &mut Request,
    command: &str,
    flag: u8,
    key: &[u8],
) {
    let letter = char::from(flag);
    match flag {
        b'C' => {
            request.push("C");
            request.flag("C");
            generator.push_cas(request, key);
            return;
        }
        b'M' => {
            let modes: &[u8] = if command == "ms" {
                b"EAPRSeaprs"
            } else {
                b"ID+-id"
            };
            let mode = char::from(generator.random.pick(modes));
            request.push(format!("M{mode}")).flag(format!("M{mode}"));
            return;
        }
        b'E' => {
            let value = match generator.random.below(4) {
                0 => generator.random.between(1, 1000),
                _ => EXPLICIT_CAS_MIN + generator.random.below(1000),
            };
            request.push(format!("E{value}"));
        }
        b'F' => {
            let client_flags = generator.client_flags();
            request.push(format!("F{client_flags}"));
        }
        b'O' => {
            let opaque = generator.random.below(100_000);
            request.push(format!("O{opaque}"));
        }
        b'T' | b'N' => {
            let exptime = generator.exptime();
            request.push(format!("{letter}{exptime}"));
        }
        // Between the short and the long exptimes, so that a clock tick does not decide.
        b'R' => {
            let below = generator.random.between(50, 70);
            request.push(format!("R{below}"));
        }
        b'J' | b'D' => {
            let number = generator.delta();
            request.push(format!("{letter}{number}"));
        }
        b'P' => {
            request.push("Ptype=thumbnail");
        }
        b'L' => {
            request.push("Lpath");
        }
        _ => {
            request.push([flag]);
        }
    }
    request.flag(letter.to_string());
}

/// Standard base64 with padding.
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = u32::from_be_bytes([
            0,
            chunk[0],
            chunk.get(1).copied().unwrap_or(0),
            chunk.get(2).copied().unwrap_or(0),
        ]);
        for position in 0..4 {
            if position <= chunk.len() {
                let index = (group >> (18 - 6 * position)) & 63;
                text.push(char::from(ALPHABET[index as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

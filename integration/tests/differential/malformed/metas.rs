//! Meta commands that are wrong in one nameable way each.

use super::super::meta::base64;
use super::{Generator, Make, Request, absent_key, key, line, long_key, refused_key, spaced_key};

pub const METAS: &[(&str, Make)] = &[
    ("bare", |generator, request| {
        let command = meta_command(generator);
        line(generator, request, command);
    }),
    ("long key", |generator, request| {
        let key = long_key(generator);
        let form = generator
            .random
            .pick(&["mg A v", "md A", "ma A", "mg A", "me A"]);
        line(generator, request, &form.replace('A', &key));
    }),
    ("long key of ms", |generator, request| {
        let key = long_key(generator);
        request.push(format!("ms {key} 5\r\nhello\r\n"));
    }),
    ("repeated flag", |generator, request| {
        let (command, key) = (keyed_command(generator), key(generator));
        let flag = generator.random.pick(&["q q", "k k", "O1 O2", "q k q"]);
        header(generator, request, command, &key, flag);
    }),
    ("unknown flag", |generator, request| {
        let (command, key) = (keyed_command(generator), key(generator));
        let flag = generator.random.pick(&["!", "z", "G", "9", "Y5", "~"]);
        header(generator, request, command, &key, flag);
    }),
    ("bad number", |generator, request| {
        let (command, key) = (keyed_command(generator), refused_key(generator));
        let flags: &[&str] = match command {
            "mg" => &["Tabc", "Nxyz", "R1x", "T", "T99999999999", "N"],
            "ms" => &["Tabc", "Cxyz", "C", "Fabc", "F-1", "T1x", "C-1"],
            "md" => &["Cxyz", "C", "I Tabc", "C1x"],
            _ => &["Tabc", "Nxyz", "Cabc", "N", "N1x"],
        };
        let flag = generator.random.pick(flags);
        header(generator, request, command, &key, flag);
    }),
    ("bad arithmetic number", |generator, request| {
        let key = key(generator);
        let flag = generator.random.pick(&[
            "Dabc",
            "D-1",
            "N0 Jabc",
            "D",
            "J-1",
            "D99999999999999999999",
        ]);
        line(generator, request, &format!("ma {key} {flag}"));
    }),
    ("bad mode", |generator, request| {
        let (command, key) = (generator.random.pick(&["ms", "ma"]), key(generator));
        let mode = generator.random.pick(&["MX", "M9", "M"]);
        header(generator, request, command, &key, mode);
    }),
    ("bad base64", |generator, request| {
        let command = keyed_command(generator);
        let key = generator.random.pick(&["!!!!", "a", "abc", "ab=c", "===="]);
        header(generator, request, command, key, "b");
    }),
    ("long opaque", |generator, request| {
        // memcached notices it after it has carried out ma, and after mg has marked its item as fetched: see the known
        // differences.
        let command = generator.random.pick(&["mg", "ms", "md"]);
        let key = if command == "mg" {
            absent_key(generator)
        } else {
            key(generator)
        };
        let opaque = format!("O{}", "1234567890".repeat(4));
        header(generator, request, command, &key, &opaque);
        if command == "ms" {
            take_refused_number(generator, request);
        }
    }),
    ("too many flags", |generator, request| {
        let (command, key) = (keyed_command(generator), key(generator));
        let flags = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJ"
            .chars()
            .map(|flag| format!("{flag} "))
            .collect::<String>();
        header(generator, request, command, &key, flags.trim_end());
    }),
    ("long binary key", |generator, request| {
        let command = keyed_command(generator);
        let key = base64(&[7; 251]);
        header(generator, request, command, &key, "b");
    }),
    ("length of ms", |generator, request| {
        let key = key(generator);
        let length =
            generator
                .random
                .pick(&["-1", "abc", "2147483648", "", "99999999999999999999"]);
        line(generator, request, &format!("ms {key} {length}"));
    }),
    ("block of ms", |generator, request| {
        let key = key(generator);
        let quiet = generator.random.pick(&["", " q", " O7", " k"]);
        request.push(format!("ms {key} 3{quiet}\r\nabcdefg\r\n"));
        take_refused_number(generator, request);
    }),
    ("spaces", |generator, request| {
        let form = generator
            .random
            .pick(&["mg  A v", "mg A  v", "mg A v ", " mg A v", "md A  q "]);
        let key = spaced_key(generator, form);
        line(generator, request, &form.replace('A', &key));
    }),
];

/// Stores what nobody reads: memcached gives the CAS value of an `ms` that it refused late to the next store, whose
/// item then seems older than it is. See the known differences.
fn take_refused_number(generator: &mut Generator, request: &mut Request) {
    let epoch = &generator.epoch;
    request.push(format!("set {epoch}:taker 0 0 1 noreply\r\n1\r\n"));
}

fn meta_command(generator: &mut Generator) -> &'static str {
    generator.random.pick(&["mg", "ms", "md", "ma", "me"])
}

fn keyed_command(generator: &mut Generator) -> &'static str {
    generator.random.pick(&["mg", "ms", "md", "ma"])
}

/// A meta command with `flags`; for `ms` with a data block.
fn header(generator: &mut Generator, request: &mut Request, command: &str, key: &str, flags: &str) {
    if command == "ms" {
        request.push(format!("ms {key} 5 {flags}\r\nhello\r\n"));
    } else {
        line(generator, request, &format!("{command} {key} {flags}"));
    }
}

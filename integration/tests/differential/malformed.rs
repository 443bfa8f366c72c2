//! Requests that are wrong in one nameable way each; what is announced as a data block is always sent, so that both
//! servers are in step again at the next mark.

mod metas;

use super::generate::Generator;
use super::script::Request;
use metas::METAS;

type Make = fn(&mut Generator, &mut Request);

pub fn request(generator: &mut Generator) -> Request {
    let groups: &[(&'static str, &[(&str, Make)])] = &[
        ("store", STORES),
        ("retrieve", RETRIEVES),
        ("other", OTHERS),
        ("meta", METAS),
        ("meta", METAS),
    ];
    let (command, ways) = generator.random.pick(groups);
    let (how, make) = generator.random.pick(ways);
    let mut request = Request::new(command);
    make(generator, &mut request);
    request.malformed(how);
    request
}

const STORES: &[(&str, Make)] = &[
    ("bare", |generator, request| {
        let command = store_command(generator);
        line(generator, request, command);
    }),
    ("few words", |generator, request| {
        let (command, key) = (store_command(generator), key(generator));
        let rest = generator.random.pick(&["", " 0", " 0 0"]);
        line(generator, request, &format!("{command} {key}{rest}"));
    }),
    ("long key", |generator, request| {
        let (command, key) = (store_command(generator), long_key(generator));
        block(generator, request, &format!("{command} {key} 0 0 "), 5, 5);
    }),
    ("client flags", |generator, request| {
        let (command, key) = (store_command(generator), key(generator));
        let flags = generator
            .random
            .pick(&["-1", "abc", "1x", "99999999999999999999"]);
        block(
            generator,
            request,
            &format!("{command} {key} {flags} 0 "),
            5,
            5,
        );
    }),
    ("exptime", |generator, request| {
        let (command, key) = (store_command(generator), key(generator));
        let exptime = generator
            .random
            .pick(&["abc", "1x", "99999999999999999999", "-"]);
        block(
            generator,
            request,
            &format!("{command} {key} 0 {exptime} "),
            5,
            5,
        );
    }),
    ("length", |generator, request| {
        let (command, key) = (store_command(generator), key(generator));
        let length = generator.random.pick(&[
            "-1",
            "abc",
            "2147483648",
            "-2147483648",
            "99999999999999999999",
        ]);
        line(generator, request, &format!("{command} {key} 0 0 {length}"));
    }),
    ("cas value", |generator, request| {
        let key = key(generator);
        let cas = generator
            .random
            .pick(&["abc", "1x", "-", "99999999999999999999999"]);
        request.push(format!("cas {key} 0 0 5 {cas}\r\nhello\r\n"));
    }),
    ("block too long", |generator, request| {
        let (command, key) = (store_command(generator), key(generator));
        block(generator, request, &format!("{command} {key} 0 0 "), 3, 9);
    }),
    ("block too short", |generator, request| {
        let (command, key) = (store_command(generator), key(generator));
        // What follows completes the block, and its rest is a line of its own.
        block(generator, request, &format!("{command} {key} 0 0 "), 9, 5);
        line(generator, request, "abcdefghijklmnop");
    }),
    ("bare newline after block", |generator, request| {
        let (command, key) = (store_command(generator), key(generator));
        request.push(format!("{command} {key} 0 0 5\r\nhello\nx\r\n"));
    }),
];

const RETRIEVES: &[(&str, Make)] = &[
    ("bare", |generator, request| {
        let command = generator
            .random
            .pick(&["get", "gets", "gat", "gats", "get ", "gat 0"]);
        line(generator, request, command);
    }),
    ("long key", |generator, request| {
        (request.fresh, request.alone) = (true, true);
        // memcached touches what stands before the bad key.
        let (first, long) = (absent_key(generator), long_key(generator));
        let command = generator.random.pick(&["get", "gets", "gat 0", "gats 0"]);
        line(generator, request, &format!("{command} {first} {long}"));
    }),
    ("exptime", |generator, request| {
        let key = refused_key(generator);
        let command = generator
            .random
            .pick(&["gat abc", "gats 1x", "gat -", "gat 99999999999"]);
        line(generator, request, &format!("{command} {key}"));
    }),
    ("spaces", |generator, request| {
        let form = generator.random.pick(&[
            "get  A",
            " get A",
            "get A ",
            "get A  B ",
            "get\tA",
            "get A\tB",
        ]);
        let (first, second) = (spaced_key(generator, form), key(generator));
        line(
            generator,
            request,
            &form.replace('A', &first).replace('B', &second),
        );
    }),
    ("control bytes in key", |generator, request| {
        let key = key(generator);
        line(generator, request, &format!("get {key}\u{1}\u{7f}\u{e9}"));
    }),
];

const OTHERS: &[(&str, Make)] = &[
    ("empty line", |generator, request| {
        let text = generator.random.pick(&["", "", " ", "  "]);
        line(generator, request, text);
    }),
    ("unknown command", |generator, request| {
        let text = generator.random.pick(&[
            "GET a",
            "SET a 0 0 1",
            "hello",
            "gett a",
            "mgx a",
            "mx a",
            "m",
            "\u{1}\u{2}",
            "0",
            "gets_",
            "MG a v",
        ]);
        line(generator, request, text);
    }),
    ("arithmetic words", |generator, request| {
        // Some of these are carried out.
        request.fresh = true;
        let key = refused_key(generator);
        let rest = generator.random.pick(&["", " A", " A 1 2", " A 1 2 3"]);
        let command = generator.random.pick(&["incr", "decr"]);
        line(
            generator,
            request,
            &format!("{command}{}", rest.replace('A', &key)),
        );
    }),
    ("arithmetic delta", |generator, request| {
        let key = key(generator);
        let delta = generator
            .random
            .pick(&["-1", "abc", "1x", "99999999999999999999", "1.5"]);
        let command = generator.random.pick(&["incr", "decr"]);
        let noreply = generator.random.pick(&["", "", " noreply"]);
        line(
            generator,
            request,
            &format!("{command} {key} {delta}{noreply}"),
        );
    }),
    ("touch words", |generator, request| {
        let key = refused_key(generator);
        let rest = generator
            .random
            .pick(&["", " A", " A abc", " A 1x noreply", " A 99999999999"]);
        line(
            generator,
            request,
            &format!("touch{}", rest.replace('A', &key)),
        );
    }),
    ("delete words", |generator, request| {
        request.alone = true;
        // memcached deletes in spite of some of these words; on a key that is never there both go on alike.
        let key = absent_key(generator);
        let rest = generator
            .random
            .pick(&["", " A 5", " A abc", " A 0 0", " A noreply 0"]);
        line(
            generator,
            request,
            &format!("delete{}", rest.replace('A', &key)),
        );
    }),
    ("long key", |generator, request| {
        let key = long_key(generator);
        let form = generator.random.pick(&[
            "incr A 1",
            "decr A 1",
            "touch A 0",
            "delete A",
            "incr A 1 noreply",
        ]);
        line(generator, request, &form.replace('A', &key));
    }),
    ("admin words", |generator, request| {
        let text = generator.random.pick(&[
            "flush_all abc",
            "flush_all 1x noreply",
            "verbosity",
            "verbosity a",
            "cache_memlimit",
            "cache_memlimit abc",
            "cache_memlimit 0",
            "stats detail",
            "stats detail maybe",
            "stats cachedump",
            "stats cachedump 1",
        ]);
        line(generator, request, text);
    }),
];

fn key(generator: &mut Generator) -> String {
    String::from_utf8(generator.key()).expect("keys of the generator are text")
}

/// A key for requests that an old memcached does not refuse: it must not have an item to change.
fn refused_key(generator: &mut Generator) -> String {
    if generator.profile.modern {
        key(generator)
    } else {
        absent_key(generator)
    }
}

/// A key for `form`: an old memcached skips spaces in front of a command and marks the item as fetched.
fn spaced_key(generator: &mut Generator, form: &str) -> String {
    if form.starts_with(' ') {
        refused_key(generator)
    } else {
        key(generator)
    }
}

/// A key that nothing stores.
fn absent_key(generator: &mut Generator) -> String {
    format!("{}:absent", generator.epoch)
}

fn long_key(generator: &mut Generator) -> String {
    let length = generator.random.pick(&[251, 252, 300, 600]);
    "k".repeat(length)
}

fn store_command(generator: &mut Generator) -> &'static str {
    generator
        .random
        .pick(&["set", "add", "replace", "append", "prepend"])
}

fn line(generator: &mut Generator, request: &mut Request, text: &str) {
    request.push(text);
    generator.end_line(request);
}

/// A line that ends in the length `declared`, and a data block of `sent` bytes.
fn block(
    generator: &mut Generator,
    request: &mut Request,
    line: &str,
    declared: usize,
    sent: usize,
) {
    request.push(line).push(declared.to_string());
    generator.noreply(request);
    generator.end_line(request);
    request.push(&b"helloxyzw"[..sent]).push("\r\n");
}

//! Debian's memcached-tool, which operators look into a cache with.

use std::process::Command;

use tiercache_integration::client::set_request;
use tiercache_integration::server::Server;

const SCRIPT: &str = "/usr/share/memcached/scripts/memcached-tool";
/// Items that the server holds; a dump shows all of them.
const ITEMS: usize = 20;

// The four modes that people use, each with what they look for.
#[test]
fn memcached_tool_shows_stats_settings_dump_and_display() {
    let server = Server::tiercache(&["-m", "128"]);
    let mut client = server.connect();
    for number in 0..ITEMS {
        let set = set_request(
            format!("tool:{number}").as_bytes(),
            format!("value {number}").as_bytes(),
        );
        assert_eq!(client.ask(&set).expect("the server answers"), b"STORED");
    }

    let stats = run(&server, "stats");
    assert_eq!(
        word_after(&stats, "curr_items"),
        Some(ITEMS.to_string().as_str()),
        "{stats}"
    );
    assert_eq!(
        word_after(&stats, "cmd_set"),
        Some(ITEMS.to_string().as_str()),
        "{stats}"
    );

    let settings = run(&server, "settings");
    assert_eq!(
        word_after(&settings, "maxbytes"),
        Some((128 << 20).to_string().as_str()),
        "{settings}"
    );

    // A dump is a script of `add` commands.
    let dump = run(&server, "dump");
    for number in 0..ITEMS {
        let value = format!("value {number}");
        let add = format!("add tool:{number} 0 0 {}\r\n{value}\r\n", value.len());
        assert!(dump.contains(&add), "{add:?} is not in {dump:?}");
    }

    let display = run(&server, "display");
    assert!(display.contains("Item_Size"), "{display}");
    let count: usize = display
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(4)?.parse::<usize>().ok())
        .sum();
    assert_eq!(count, ITEMS, "{display}");
}

fn run(server: &Server, mode: &str) -> String {
    let output = Command::new("perl")
        .args([SCRIPT, &server.address().to_string(), mode])
        .output()
        .expect("perl runs: `apt-get install perl memcached`");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "memcached-tool {mode}: {text}\n{errors}"
    );
    text
}

/// The word behind `name` in a table of two columns.
fn word_after<'a>(table: &'a str, name: &str) -> Option<&'a str> {
    table.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == name).then(|| words.next())?
    })
}

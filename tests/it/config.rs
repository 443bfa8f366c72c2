//! The configuration: file, flags, defaults, and errors that name the line.

use std::path::Path;

use tiercache::config::{Config, Layer, Machine, load};
use tiercache::units::ByteSize;

use crate::support::program;

const EXAMPLE: &str = include_str!("../../example.toml");

/// A machine whose memory does not cut the defaults.
const MACHINE: Machine = Machine {
    memory: ByteSize::gib(64),
    cores: 4,
};

fn resolve(text: &str) -> Config {
    Config::resolve(toml::from_str(text).unwrap(), MACHINE).unwrap()
}

/// What `load` says about a file with this text.
fn refusal(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    std::fs::write(&path, text).unwrap();
    load(Some(&path), Layer::default(), MACHINE)
        .unwrap_err()
        .to_string()
}

// As it stands, the example changes nothing.
#[test]
fn the_example_is_the_default() {
    assert_eq!(resolve(EXAMPLE), resolve(""));
}

// Every option has its line in the example, with a sentence above it; those without a default that
// is the same everywhere are commented out as `#key = value` and parse once they are not.
#[test]
fn the_example_has_every_option() {
    let whole: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(option) if option.starts_with(|first: char| first.is_ascii_lowercase()) => option,
            _ => line,
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let table: toml::Table = whole.parse().unwrap();
    for (section, keys) in Layer::SECTIONS {
        for key in keys {
            let name = format!("{section}.{key}");
            let written = table
                .get(section)
                .and_then(|section| section.get(key))
                .is_some();
            assert_eq!(
                written,
                !Layer::NOT_BUILT.contains(&name.as_str()),
                "{name}"
            );
        }
    }
    let _: Layer = toml::from_str(&whole).unwrap();
    let mut above = "";
    for line in EXAMPLE.lines() {
        let option = line.trim_start_matches('#');
        if option.starts_with(|first: char| first.is_ascii_lowercase()) && option.contains(" = ") {
            assert!(above.starts_with("# "), "no sentence above {line:?}");
        }
        above = line;
    }
}

// What print-config prints means the same configuration.
#[test]
fn the_printed_configuration_reads_back() {
    let full = "[memory]\nlimit = \"64m\"\nevict = false\n[dry]\npath = \"d\"\nsegment_size = \"2m\"\n\
                ahead = \"off\"\nadmission = \"seen-twice\"\ndurability = \"power\"\n[server]\nlisten = [\"127.0.0.1\", \"[::1]:5\"]\n\
                idle_timeout = \"90s\"\nhardened = true\nkeys_per_get_max = 7\nprefix_delimiter = \"/\"\n[tracking]\nrows = false\n";
    let s3 = "[dry]\nbackend = \"s3\"\nspool = \"d\"\nspool_size = \"64m\"\noptional = true\n[s3]\nbucket = \"b\"\n\
              prefix = \"p/q\"\nendpoint = \"http://h:1\"\npath_style = true\nchecksums = \"when_required\"\n";
    let mongodb = "[dry]\nbackend = \"mongodb\"\nspool = \"d\"\n[mongodb]\nuri = \"mongodb://u:p@h:1/cache?w=1\"\n";
    let pool = "[cold]\nbackend = \"memcached\"\n[memcached]\nstate = \"s\"\nservers = [\"[::1]:1:2\", \"unix:/s:3\"]\n\
                tls = true\nca_cert = \"ca\"\ncert = \"c\"\nverify = \"chain\"\nusername = \"u\"\npassword_file = \"p\"\n";
    for text in [
        "",
        full,
        s3,
        mongodb,
        pool,
        "[server]\nunix_socket = \"s\"\n",
    ] {
        let config = resolve(text);
        assert_eq!(resolve(&config.to_toml()), config, "{}", config.to_toml());
    }
}

#[test]
fn errors_name_the_line() {
    for (text, line) in [
        ("[server]\nport = 1\nprot = 2\n", "line 3"),
        ("[server]\n\nport = 70000\n", ":3: server.port"),
        ("[hot]\nsize = \"3 apples\"\n", "line 2"),
        (
            "[hot]\nsize = \"3m\"\n[memory]\nlimit = \"64m\"\n",
            ":4: memory.limit",
        ),
        ("[server]\ntls = true\n", "line 2"),
        ("[s3]\nbucket = \"b\"\n", ":2: s3.bucket"),
        ("[dry]\nbackend = \"s3\"\nspool = \"d\"\n", "needs a bucket"),
        ("[dry]\n\nspool = \"d\"\n", ":3: dry.spool"),
        ("[dry]\nsize = \"1g\"\n", ":2: dry.size"),
        (
            "[memory]\nlimit = \"64m\"\nitem_size_max = \"1000\"\n",
            ":3: memory.item_size_max",
        ),
        ("nonsense\n", "line 1"),
    ] {
        let said = refusal(text);
        assert!(said.contains(line), "{text:?}: {said}");
    }
}

// Copies do not outlive a connection under strict: there, none is closed unless that is asked for.
#[test]
fn idle_connections_to_servers_are_closed_where_that_costs_no_copies() {
    for (sharing, options, idle_timeout) in [
        ("private", "", "1m"),
        ("through", "", "1m"),
        ("strict", "", "0s"),
        ("strict", "idle_timeout = \"5m\"\n", "5m"),
        ("through", "idle_timeout = \"0s\"\n", "0s"),
    ] {
        let text = format!(
            "[cold]\nbackend = \"memcached\"\nsharing = \"{sharing}\"\n\
             [memcached]\nstate = \"s\"\nservers = [\"h\"]\n{options}"
        );
        let upstream = resolve(&text).upstream.unwrap();
        let expected = idle_timeout.parse().unwrap();
        assert_eq!(upstream.pools[0].idle_timeout, expected, "{text}");
    }
}

// What memcached servers are shown makes sense as a whole, or is refused.
#[test]
fn access_to_servers_is_whole() {
    let pool = "[hot]\nbackend = \"memcached\"\n[memcached]\nstate = \"s\"\nservers = [\"h\"]\n";
    for (options, said) in [
        ("tls = true\n", "memcached.tls: needs authorities"),
        ("tls = true\nverify = \"chain\"\n", "needs authorities"),
        ("ca_cert = \"ca\"\n", "memcached.ca_cert: has no effect"),
        ("verify = \"none\"\n", "memcached.verify: has no effect"),
        (
            "tls = true\nca_cert = \"ca\"\nkey = \"k\"\n",
            "memcached.key: needs memcached.cert",
        ),
        ("username = \"u\"\n", "needs memcached.password_file"),
        ("password_file = \"p\"\n", "needs memcached.username"),
        (
            "username = \"u v\"\npassword_file = \"p\"\n",
            "memcached.username: must be one word",
        ),
    ] {
        let refused = refusal(&format!("{pool}{options}"));
        assert!(refused.contains(said), "{options:?}: {refused}");
    }
    let refused = refusal("[memcached]\ntls = true\nverify = \"none\"\n");
    assert!(
        refused.contains("memcached.tls: has no effect"),
        "{refused}"
    );
}

#[test]
fn a_missing_file_is_named() {
    let error = load(Some(Path::new("no/such.toml")), Layer::default(), MACHINE).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("read configuration no/such.toml"),
        "{error}"
    );
}

// -m divides exactly; without it the defaults stay within the machine's memory.
#[test]
fn memory_is_divided() {
    let sizes = |text: &str, memory| {
        let machine = Machine { memory, ..MACHINE };
        let tier = Config::resolve(toml::from_str(text).unwrap(), machine)
            .unwrap()
            .tier;
        (tier.hot_size, tier.cold_size)
    };
    let all = ByteSize::gib(64);
    assert_eq!(sizes("", all), (ByteSize::gib(2), ByteSize::gib(10)));
    assert_eq!(
        sizes("[memory]\nlimit = \"600m\"", all),
        (ByteSize::mib(100), ByteSize::mib(500))
    );
    let (hot, cold) = sizes("", ByteSize::gib(10));
    assert!(hot.0 + cold.0 <= ByteSize::gib(6).0 && hot.0 + cold.0 > ByteSize::gib(5).0);
    assert_eq!(
        sizes("[hot]\nsize = \"1g\"", all),
        (ByteSize::gib(1), ByteSize::gib(10))
    );
    assert_eq!(
        sizes("[hot]\nsize = \"1g\"", ByteSize::gib(10)).0,
        ByteSize::gib(1)
    );
}

// Flags win over the file, option by option.
#[test]
fn flags_win() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    std::fs::write(
        &path,
        "[server]\nport = 1\nmax_connections = 5\n[memory]\nlimit = \"64m\"\n",
    )
    .unwrap();
    let output = program()
        .args(["print-config", "-c", "6", "-m", "32", "--config"])
        .arg(&path)
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let config: toml::Table = printed.parse().unwrap();
    assert_eq!(config["server"]["max_connections"].as_integer(), Some(6));
    assert_eq!(config["server"]["listen"][0].as_str(), Some("*:1"));
    assert_eq!(
        config["hot"]["size"].as_str(),
        Some((ByteSize::mib(32).0 / 6).to_string().as_str())
    );
    let check = |path: &Path| {
        program()
            .arg("check-config")
            .arg(path)
            .status()
            .unwrap()
            .success()
    };
    assert!(check(&path));
    std::fs::write(&path, "[server]\nport = \"x\"\n").unwrap();
    assert!(!check(&path));
}

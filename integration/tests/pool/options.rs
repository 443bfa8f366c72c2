//! Options that a reload takes, and those that it names because they need a restart.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tiercache_integration::client::Client;
use tiercache_integration::eventually;
use tiercache_integration::pool::Pool;
use tiercache_integration::server::Server;

use super::NOTICED;

/// A proxy whose options can be changed.
struct Optional {
    server: Server,
    folder: TempDir,
}

impl Optional {
    /// With the sections `tiers`, and `options` behind the servers of the section `memcached`.
    fn start(tiers: &str, servers: &[String], options: &str) -> Optional {
        let folder = TempDir::new().expect("a temporary folder can be made");
        write(&folder, tiers, servers, options);
        let file = folder.path().join("c.toml").display().to_string();
        Optional {
            server: Server::tiercache(&["--config", &file]),
            folder,
        }
    }

    fn reload(&self, tiers: &str, servers: &[String], options: &str) {
        write(&self.folder, tiers, servers, options);
        let pid = Pid::from_raw(self.server.pid().cast_signed()).expect("it has a process id");
        kill_process(pid, Signal::HUP).expect("an own child can be signalled");
    }
}

fn write(folder: &TempDir, tiers: &str, servers: &[String], options: &str) {
    let state = folder.path().join("state");
    let text = format!("{tiers}[memcached]\nservers = {servers:?}\nstate = {state:?}\n{options}");
    fs::write(folder.path().join("c.toml"), text).expect("it can be written");
}

// The story of an option that had no effect: the log said that all was read again, and the servers were ejected as before.
#[test]
fn another_number_of_failures_takes_effect() {
    const HOT: &str = "[hot]\nbackend = \"memcached\"\n";
    const PATIENT: &str = "connect_timeout = \"10s\"\nrequest_timeout = \"10s\"\n";
    let mut pool = Pool::of_memcached(&[1]);
    let options = |eject_after: u32| format!("{PATIENT}eject_after = {eject_after}\n");
    let proxy = Optional::start(HOT, &pool.names(), &options(1_000_000));
    let mut client = proxy.server.connect();
    let address = pool.servers[0].address().to_string();
    pool.servers[0].kill9();
    for _ in 0..10 {
        assert_eq!(client.get(b"k").expect("it answers"), None);
    }
    let ejections = |client: &mut Client| {
        let stats = client.stats("upstream").expect("it answers");
        stats.number(&format!("{address}:ejections"))
    };
    assert_eq!(ejections(&mut client), 0);
    proxy.reload(HOT, &pool.names(), &options(1));
    let ejected = eventually(NOTICED, || {
        assert_eq!(client.get(b"k").expect("it answers"), None);
        ejections(&mut client) > 0
    });
    assert!(ejected, "{}", proxy.server.log());
}

// What cannot change while the proxy runs is named, and nothing else changes with it.
#[test]
fn what_needs_a_restart_is_named_and_nothing_changes() {
    const COLD: &str = "[cold]\nbackend = \"memcached\"\n";
    let pool = Pool::of_memcached(&[1, 1]);
    let names = pool.names();
    let proxy = Optional::start(COLD, &names[..1], "");
    let mut client = proxy.server.connect();
    let state = "[hot]\nbackend = \"memcached\"\n".to_owned();
    for (tier, said) in [
        (format!("{COLD}sharing = \"private\"\n"), "cold.sharing"),
        (format!("{COLD}fresh = \"5s\"\n"), "cold.fresh"),
        (
            format!("{COLD}sharing = \"strict\"\nfresh = \"5s\"\n"),
            "cold.sharing, cold.fresh",
        ),
        (state, "hot.backend and cold.backend"),
    ] {
        proxy.reload(&tier, &names, "");
        let said = format!("stay: another value needs a restart: {said}\n");
        let told = eventually(NOTICED, || proxy.server.log().contains(&said));
        assert!(told, "{said}: {}", proxy.server.log());
        for number in 0..50 {
            let stored = client.set(format!("key{number}").as_bytes(), b"v");
            assert_eq!(stored.expect("it answers"), b"STORED");
        }
        assert_eq!(pool.servers[1].stats().number("curr_items"), 0, "{said}");
    }
    proxy.reload(COLD, &names, "");
    let moved = eventually(NOTICED, || {
        for number in 0..50 {
            let stored = client.set(format!("key{number}").as_bytes(), b"v");
            assert_eq!(stored.expect("it answers"), b"STORED");
        }
        pool.servers[1].stats().number("curr_items") > 0
    });
    assert!(moved, "{}", proxy.server.log());
}

//! Proxies in front of one pool of three servers, each of which is behind a link of the proxy's own that can fail.

use std::fs;

use tempfile::TempDir;
use tiercache_integration::faulty::Link;
use tiercache_integration::server::Server;

use super::load::PREFIXES;

/// A tiercache and its links to the servers.
pub struct Proxy {
    pub server: Server,
    pub links: Vec<Link>,
    _folder: TempDir,
}

impl Proxy {
    /// A near cache for `servers`. Which of them has a key is said by its prefix, because rings name servers by their
    /// addresses and every proxy has links of its own.
    pub fn start(
        servers: &[Server],
        tier: &str,
        options: &str,
        arguments: &[&str],
        seed: u64,
    ) -> Proxy {
        let links: Vec<Link> = servers
            .iter()
            .map(|server| Link::to(server.address(), seed))
            .collect();
        let folder = TempDir::new().expect("a temporary folder can be made");
        let pools: Vec<String> = links
            .iter()
            .zip(PREFIXES)
            .map(|(link, prefix)| format!("{} = [\"{}\"]", &prefix[..1], link.address()))
            .collect();
        let routes: Vec<String> = PREFIXES
            .iter()
            .map(|prefix| format!("\"{prefix}\" = \"{}\"", &prefix[..1]))
            .collect();
        let text = format!(
            "[{tier}]\nbackend = \"memcached\"\n[memcached]\nservers = [\"{}\"]\npools = {{ {} }}\nroutes = {{ {} }}\n\
             state = {:?}\n{options}",
            links[0].address(),
            pools.join(", "),
            routes.join(", "),
            folder.path().join("state")
        );
        let file = folder.path().join("c.toml");
        fs::write(&file, text).expect("it can be written");
        let file = file.display().to_string();
        let server =
            Server::tiercache(&[&["--config", file.as_str(), "-t", "2"], arguments].concat());
        Proxy {
            server,
            links,
            _folder: folder,
        }
    }

    /// Whether a server is used, and nothing is kept for it.
    pub fn is_up(&self, server: usize) -> bool {
        let stats = self.server.connect().stats("upstream").expect("it answers");
        stats.text(&format!("{}:state", self.links[server].address())) == Some("up")
    }

    /// A figure of `stats upstream` of one server.
    pub fn figure(&self, server: usize, figure: &str) -> u64 {
        let stats = self.server.connect().stats("upstream").expect("it answers");
        stats.number(&format!("{}:{figure}", self.links[server].address()))
    }
}

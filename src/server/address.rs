//! memcached's notation for a place to listen on: `[notls:|btls:|mtls:][proto[ascii]:][tag[name]:]host[:port]`.

use std::fmt;

use super::config::{Address, Encryption};
use crate::host;

impl Address {
    /// Reads one listener of `-l`. `default_port` is used where the text names no port; a text
    /// without a port is refused if there is none (`-p 0`).
    ///
    /// # Errors
    /// Says what about the text is not understood or not built.
    pub fn parse(text: &str, default_port: Option<u16>) -> Result<Address, String> {
        let (encryption, rest) = Encryption::PREFIXES
            .iter()
            .find_map(|(prefix, encryption)| Some((*encryption, text.strip_prefix(prefix)?)))
            .unwrap_or((Encryption::Default, text));
        let (protocol, rest) = prefix(rest, "proto")?;
        match protocol {
            None | Some("ascii" | "negotiating") => {}
            Some(other) => return Err(format!("{text:?}: protocol {other} is not built yet")),
        }
        // A tag names the listener in memcached's `stats conns`; it changes nothing else.
        let (_, rest) = prefix(rest, "tag")?;
        let (host, port) = match rest.strip_prefix('[') {
            Some(bracketed) => match bracketed.split_once(']') {
                Some((host, "")) => (host, None),
                Some((host, rest)) => match rest.strip_prefix(':') {
                    Some(port) => (host, Some(port)),
                    None => return Err(format!("{text:?}: no : after the IPv6 address")),
                },
                None => return Err(format!("{text:?}: no ] after the IPv6 address")),
            },
            // More than one colon: an IPv6 address without brackets, so without a port.
            None => match rest.split_once(':') {
                Some((host, port)) if !port.contains(':') => (host, Some(port)),
                _ => (rest, None),
            },
        };
        let port = match port {
            Some(port) => port
                .parse()
                .map_err(|_| format!("{text:?}: {port:?} is no TCP port"))?,
            None => default_port.ok_or_else(|| format!("{text:?} needs a port where -p is 0"))?,
        };
        let host = match host {
            "" | "*" => None,
            host => Some(named(host).map_err(|what| format!("{text:?}: {what}"))?),
        };
        Ok(Address {
            host,
            port,
            encryption,
        })
    }
}

/// The name of a host to listen on, which must not read as a prefix.
fn named(text: &str) -> Result<String, String> {
    let mut prefixes = Encryption::PREFIXES.iter();
    if prefixes.any(|(prefix, _)| prefix.strip_suffix(':') == Some(text))
        || text.starts_with("proto_")
        || text.starts_with("tag_")
    {
        return Err(format!("{text:?} is a prefix where a host was expected"));
    }
    host::checked(text).map(str::to_owned)
}

/// Splits `word[name]:rest` (or memcached's newer `word_name_:rest`).
fn prefix<'a>(text: &'a str, word: &str) -> Result<(Option<&'a str>, &'a str), String> {
    let Some(after) = text.strip_prefix(word) else {
        return Ok((None, text));
    };
    let close = match after.bytes().next() {
        Some(b'[') => ']',
        Some(b'_') => '_',
        // A host whose name only begins like the word.
        _ => return Ok((None, text)),
    };
    let (name, rest) = after[1..]
        .split_once(close)
        .ok_or_else(|| format!("{text:?}: no {close} after {word}"))?;
    Ok((Some(name), rest.strip_prefix(':').unwrap_or(rest)))
}

impl fmt::Display for Address {
    /// In the form that [`Address::parse`] reads.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.encryption.prefix())?;
        match self.host.as_deref() {
            None => write!(out, "*:{}", self.port),
            Some(host) if host.contains(':') => write!(out, "[{host}]:{}", self.port),
            Some(host) => write!(out, "{host}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_notation_is_read() {
        for (text, shown) in [
            ("127.0.0.1", "127.0.0.1:11211"),
            ("localhost:1", "localhost:1"),
            ("[::1]:5", "[::1]:5"),
            ("[::1]", "[::1]:11211"),
            ("fe80::1", "[fe80::1]:11211"),
            ("*:7", "*:7"),
            ("proto[ascii]:tag[a]:10.0.0.1:9", "10.0.0.1:9"),
            ("tag_tools_:10.0.0.1", "10.0.0.1:11211"),
            ("notls:tag[a]:h", "notls:h:11211"),
            ("btls:[::1]:5", "btls:[::1]:5"),
            ("mtls:*:7", "mtls:*:7"),
            ("tagged.example", "tagged.example:11211"),
        ] {
            assert_eq!(
                Address::parse(text, Some(11211)).unwrap().to_string(),
                shown
            );
        }
    }

    #[test]
    fn what_cannot_be_served_is_refused() {
        for text in [
            "proto[binary]:h",
            "proto[ascii",
            "[::1",
            "h:port",
            "h:70000",
            "[::1]5",
            "U::1]:5",
            "127.0.0.1 :5",
            "tag[a]:btls:5",
            "tag[a]:tag_b:5",
        ] {
            assert!(Address::parse(text, Some(11211)).is_err(), "{text}");
        }
        assert!(Address::parse("h", None).is_err());
    }
}

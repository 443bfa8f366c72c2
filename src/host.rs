//! Names and addresses of hosts, as listeners and upstream servers are given.

use std::net::Ipv6Addr;

/// `text`, if a host can be called that: an IPv6 address without brackets, perhaps with a zone (`fe80::1%eth0`), or
/// anything made of letters, digits, `-`, `.` and `_`, which an IPv4 address is too. Beyond ASCII only blanks and control
/// characters are refused. Whether it exists is not looked up.
///
/// # Errors
/// Says what about it no host has.
pub(crate) fn checked(text: &str) -> Result<&str, String> {
    if text.contains(':') {
        let (address, zone) = text.split_once('%').unwrap_or((text, "0"));
        return match address.parse::<Ipv6Addr>() {
            Ok(_) if is_name(zone) => Ok(text),
            _ => Err(format!("{text:?} is no IPv6 address")),
        };
    }
    match is_name(text) {
        true => Ok(text),
        false => Err(format!("{text:?} is no name of a host")),
    }
}

fn is_name(text: &str) -> bool {
    let is_part = |c: char| match c.is_ascii() {
        true => c.is_ascii_alphanumeric() || "-._".contains(c),
        false => !c.is_whitespace() && !c.is_control(),
    };
    !text.is_empty() && text.chars().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_and_addresses() {
        for text in [
            "a",
            "10.0.0.1",
            "cache_1.example-2.org",
            "::1",
            "fe80::1%eth0",
            "::ffff:1.2.3.4",
            "हिन्दी.example",
        ] {
            assert_eq!(checked(text), Ok(text));
        }
        for text in [
            "",
            "a b",
            "a[",
            "[::1]",
            "U::1]:5",
            "a:1",
            "::1%",
            "fe80::1%a:b",
            "a\n",
            "a/b",
            "a\u{a0}b",
        ] {
            assert!(checked(text).is_err(), "{text:?}");
        }
    }
}

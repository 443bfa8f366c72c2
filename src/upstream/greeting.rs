//! The first words on a connection: showing that we may use the server, and seeing what it
//! understands.
//!
//! ```text
//!   login   version ─▶ an error: store user and password ─▶ STORED
//!   greet   version ─▶ a version, or CLIENT_ERROR unauthenticated
//!           mg with flag C, mn ─▶ an answer or an error ─▶ MN
//! ```

use std::future::poll_fn;

use tiercache_protocol::DecodedReply;
use tiercache_protocol::reply::{ErrorKind, MetaStatus, Reply};
use tokio::time::timeout;

use super::access::Login;
use super::connection::{Dialect, End};
use super::server::Server;
use super::stream::{Replies, Stream};

const VERSION: &[u8] = b"version\r\n";
/// `mn` ends the answers, and a flag that is not known is an error before it.
const PROBE: &[u8] = b"mg tiercache-probe q s C1\r\nmn\r\n";

/// memcached's first version with the meta commands as they are today.
const META_SINCE: [u32; 3] = [1, 6, 10];
/// The first one that compares for flag `C` of `mg`; earlier ones may take the flag and ignore it.
const COMPARE_SINCE: [u32; 3] = [1, 6, 41];
/// Characters of a version that are kept.
const VERSION_CHARS_MAX: usize = 64;

/// What a server showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Understood {
    pub(super) dialect: Dialect,
    /// Its version in its own words; empty if it did not tell.
    pub(super) version: String,
}

/// Connects to a server and finds out what it understands, within the time it has for that.
pub(super) async fn connect(server: &Server) -> Result<(Stream, Understood), End> {
    let connected = timeout(server.connect_timeout, async {
        let mut stream = Stream::connect(server).await?;
        if let Some(as_user) = &server.access.login {
            login(&mut stream, as_user).await?;
        }
        let understood = greet(&mut stream).await?;
        Ok((stream, understood))
    });
    let connected = connected.await.unwrap_or(Err(End::ConnectTimedOut));
    if let (Err(End::Io(_) | End::ConnectTimedOut), Some(name)) = (&connected, server.way.name()) {
        name.look_again();
    }
    connected
}

/// Shows a server who we are, if it wants to know.
async fn login(stream: &mut Stream, login: &Login) -> Result<(), End> {
    let mut input = Replies::new(0);
    // A server that lets everybody in would keep the password as an item that everybody can read.
    send(stream, VERSION).await?;
    let wants_login = input
        .next(stream, |reply| !matches!(reply, Reply::Version(_)))
        .await?;
    if !wants_login {
        return Ok(());
    }
    send(stream, &login.request()).await?;
    let let_in = input.next(stream, |reply| *reply == Reply::Stored).await?;
    // What the server says about it stays unsaid: it might repeat the password.
    let_in.then_some(()).ok_or(End::LoginRefused)
}

/// Finds out what the server understands.
async fn greet(stream: &mut Stream) -> Result<Understood, End> {
    // Alone: a memcached that wants a login closes connections that send more before it (1.6.45), and says nothing.
    send(stream, VERSION).await?;
    let mut input = Replies::new(0);
    let mut version = String::new();
    let mut dialect = Dialect::MetaCompare;
    let mut probed = false;
    loop {
        let done = input
            .next(stream, |reply| match reply {
                Reply::Version(text) => {
                    version = printable(text);
                    Ok(false)
                }
                Reply::Meta(reply) if reply.status == MetaStatus::Noop => Ok(true),
                // Somebody has stored an item of that name.
                Reply::Meta(_) => Ok(false),
                Reply::Error { kind, message } => match (*kind, *message) {
                    (ErrorKind::Unknown, []) => Err(End::NoMeta(std::mem::take(&mut version))),
                    // Too many connections, for instance.
                    (ErrorKind::Unknown, message) => Err(End::Garbled(printable(message))),
                    (ErrorKind::Client, b"unauthenticated") => Err(End::LoginWanted),
                    _ => {
                        dialect = Dialect::Meta;
                        Ok(false)
                    }
                },
                _ => Err(End::Garbled("no answer to a greeting".into())),
            })
            .await??;
        if done {
            break;
        }
        if !std::mem::replace(&mut probed, true) {
            send(stream, PROBE).await?;
        }
    }
    match numbers(&version) {
        Some(numbers) if numbers < META_SINCE => Err(End::NoMeta(version)),
        Some(numbers) if numbers < COMPARE_SINCE => Ok(Understood {
            dialect: Dialect::Meta,
            version,
        }),
        _ => Ok(Understood { dialect, version }),
    }
}

pub(super) async fn send(stream: &mut Stream, bytes: &[u8]) -> Result<(), End> {
    let mut sent = 0;
    while sent < bytes.len() {
        sent += poll_fn(|cx| stream.poll_write(cx, &bytes[sent..])).await?;
    }
    poll_fn(|cx| stream.poll_flush(cx)).await?;
    Ok(())
}

impl Replies {
    /// Waits for the next reply and lets `read` look at it.
    pub(super) async fn next<T>(
        &mut self,
        stream: &mut Stream,
        read: impl FnOnce(&Reply<'_>) -> T,
    ) -> Result<T, End> {
        loop {
            match self.decoder.decode(&self.bytes[self.start..]) {
                DecodedReply::Reply { reply, consumed } => {
                    self.start += consumed;
                    return Ok(read(&reply));
                }
                DecodedReply::More { .. } => {
                    if poll_fn(|cx| self.poll_read(cx, stream)).await? == 0 {
                        return Err(End::Closed);
                    }
                }
                DecodedReply::Invalid { reason } => return Err(End::Garbled(reason.to_string())),
            }
        }
    }
}

/// The beginning of what a server says, as text that can be shown.
fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let shown = text.chars().filter(|c| !c.is_control());
    shown.take(VERSION_CHARS_MAX).collect()
}

/// The numbers of a version `a.b.c`, whatever follows it; none of another one.
fn numbers(version: &str) -> Option<[u32; 3]> {
    let mut parts = version.split('.');
    let mut number = || {
        let part = parts.next()?;
        let end = part
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(part.len());
        part[..end].parse().ok()
    };
    Some([number()?, number()?, number()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        for (version, numbers_are) in [
            ("1.6.45", Some([1, 6, 45])),
            ("1.4.15", Some([1, 4, 15])),
            ("1.6.10-beta2", Some([1, 6, 10])),
            ("1.6.0_beta1", Some([1, 6, 0])),
            ("1", None),
            ("mcrouter 1.0", None),
            ("", None),
        ] {
            assert_eq!(numbers(version), numbers_are, "{version:?}");
        }
        assert!([1, 6, 9] < META_SINCE && [1, 6, 10] >= META_SINCE && [2, 0, 0] > META_SINCE);
    }
}

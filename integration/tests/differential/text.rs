//! The text protocol, classic and meta commands alike, as the comparison sees it.

use std::io;

use tiercache_integration::client::Client;

use super::generate::Generator;
use super::known;
use super::reply::{self, CasNames, Reply, data_length};
use super::script::Request;
use super::syntax::Syntax;

#[derive(Debug)]
pub struct Text;

impl Syntax for Text {
    type Reply = Reply;

    const MARK: &'static [u8] = b"mn\r\n";

    fn is_mark(reply: &Reply) -> bool {
        reply.line == b"MN"
    }

    fn request(generator: &mut Generator) -> Request {
        generator.request()
    }

    fn read(client: &mut Client) -> io::Result<Reply> {
        let line = client.line()?;
        let data = match data_length(&line) {
            Some(length) => Some(client.exact(length + 2)?),
            None => None,
        };
        Ok(Reply { line, data })
    }

    fn same(names: &mut CasNames, left: &Reply, right: &Reply) -> bool {
        reply::same(names, left, right)
    }

    fn cas_values(reply: &Reply) -> Vec<u64> {
        reply::cas_values(&reply.line)
    }

    fn bytes(reply: &Reply) -> Vec<u8> {
        let mut bytes = reply.line.clone();
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(reply.data.as_deref().unwrap_or_default());
        bytes
    }

    /// Error lines are kept as they are.
    fn kind(replies: &[Reply]) -> String {
        match replies {
            [] => String::from("(none)"),
            [reply] => kind_of_line(&reply.line),
            [first, .., last] if first.line.starts_with(b"VALUE") => {
                format!("hit..{}", kind_of_line(&last.line))
            }
            [first, .., last] => format!(
                "{}..{}",
                kind_of_line(&first.line),
                kind_of_line(&last.line)
            ),
        }
    }

    fn explains(
        version: (u32, u32, u32),
        request: &[u8],
        memcached: &[Reply],
        tiercache: &[Reply],
    ) -> bool {
        known::explains(version, request, memcached, tiercache)
    }
}

fn kind_of_line(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    if text.starts_with("CLIENT_ERROR") || text.starts_with("SERVER_ERROR") {
        return text.into_owned();
    }
    if text
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_digit())
    {
        return String::from("number");
    }
    text.split(' ').next().unwrap_or_default().to_owned()
}

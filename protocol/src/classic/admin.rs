//! Commands about the server, and lines that are no command at all.

use super::{looks_like_http, reject_unless};
use crate::decoder::CloseReason;
use crate::error::Reject;
use crate::exptime::Exptime;
use crate::lexer::{has_noreply, token, trimmed};
use crate::number::{parse_i32, parse_u32};
use crate::parsed::Parsed;
use crate::request::{Admin, Form, Request, Shutdown};

/// Unlike the commands on items, these may have spaces in front.
pub(super) fn parse(line: &[u8]) -> Parsed<'_> {
    let Ok((arguments, word)) = token(line) else {
        return Parsed::reject(Reject::Unknown);
    };
    let arguments = trimmed(arguments);
    let noreply = has_noreply(line);
    let admin = match word {
        b"flush_all" => return flush_all(arguments, noreply),
        b"verbosity" => match first_number(arguments) {
            Some(level) => Admin::Verbosity {
                level,
                form: Form::Classic { noreply },
            },
            None => return reject_unless(noreply, Reject::BadFormat),
        },
        b"cache_memlimit" => match first_number(arguments) {
            Some(megabytes) => Admin::MemoryLimit { megabytes, noreply },
            None => return reject_unless(noreply, Reject::Unknown),
        },
        b"shutdown" => match arguments {
            b"" => Admin::Shutdown(Shutdown::Now),
            b"graceful" => Admin::Shutdown(Shutdown::Graceful),
            _ if noreply => return reject_unless(noreply, Reject::InvalidShutdownMode),
            _ => Admin::Shutdown(Shutdown::Unknown),
        },
        b"lru_crawler" => Admin::LruCrawler(arguments),
        b"lru" => Admin::Lru(arguments),
        b"slabs" => Admin::Slabs(arguments),
        b"refresh_certs" => Admin::RefreshCerts,
        _ if looks_like_http(arguments) => return Parsed::Close(CloseReason::Http),
        _ => return reject_unless(noreply, Reject::Unknown),
    };
    Parsed::Request(Request::Admin(admin))
}

fn first_number(arguments: &[u8]) -> Option<u32> {
    parse_u32(token(arguments).ok()?.1)
}

/// `flush_all [DELAY] [noreply]`.
fn flush_all(arguments: &[u8], noreply: bool) -> Parsed<'_> {
    let raw = match arguments {
        b"" | b"noreply" => Some(0),
        _ => token(arguments)
            .ok()
            .and_then(|(_, delay)| parse_i32(delay)),
    };
    let delay = match raw.map(Exptime::from_raw) {
        None => return reject_unless(noreply, Reject::InvalidExptime),
        // Without a delay, and with one that is over, it takes effect at once.
        Some(Exptime::Never | Exptime::Expired) => Exptime::Expired,
        Some(delay) => delay,
    };
    Parsed::Request(Request::FlushAll {
        delay,
        form: Form::Classic { noreply },
    })
}

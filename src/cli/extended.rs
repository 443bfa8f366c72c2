//! memcached's `-o`: a comma separated list of further options.

use std::path::PathBuf;

use crate::config::layer::Tls;
use crate::tls::{ClientCertificate, KeyFormat, MinVersion};
use crate::units::{ByteSize, Span};

/// Options of memcached that tune its slabs, LRU lists, hash table and log buffers. There is
/// nothing here that they could tune.
const WITHOUT_EFFECT: &[&str] = &[
    "hashpower",
    "no_hashexpand",
    "slab_reassign",
    "no_slab_reassign",
    "slab_automove",
    "no_slab_automove",
    "slab_automove_ratio",
    "slab_automove_window",
    "slab_automove_freeratio",
    "slab_sizes",
    "slab_chunk_max",
    "no_chunked_items",
    "tail_repair_time",
    "hash_algorithm",
    "lru_crawler",
    "no_lru_crawler",
    "lru_crawler_sleep",
    "lru_crawler_tocrawl",
    "lru_maintainer",
    "no_lru_maintainer",
    "hot_lru_pct",
    "warm_lru_pct",
    "hot_max_factor",
    "warm_max_factor",
    "temporary_ttl",
    "worker_logbuf_size",
    "inline_ascii_resp",
    "no_inline_ascii_resp",
    "modern",
    "resp_obj_mem_limit",
    "read_buf_mem_limit",
    // A batch of answers is encrypted as a whole.
    "ssl_wbuf_size",
];

/// What the list asks for.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Extended {
    pub(super) tls: Tls,
    pub(super) refuse_beyond_limit: Option<bool>,
    pub(super) idle_timeout: Option<Span>,
    pub(super) watch_buffer: Option<ByteSize>,
    pub(super) track_sizes: bool,
    /// Names of options without effect here.
    pub(super) without_effect: Vec<String>,
}

/// Reads all `-o` lists; later options win.
pub(super) fn read(lists: &[String]) -> Result<Extended, String> {
    let mut extended = Extended::default();
    for option in lists
        .iter()
        .flat_map(|list| list.split(','))
        .filter(|option| !option.is_empty())
    {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        };
        match name {
            "maxconns_fast" => extended.refuse_beyond_limit = Some(true),
            "no_maxconns_fast" => extended.refuse_beyond_limit = Some(false),
            "idle_timeout" => extended.idle_timeout = Some(Span::seconds(number(name, value)?)),
            "watcher_logbuf_size" => {
                let kibibytes: u64 = number(name, value)?;
                extended.watch_buffer = Some(ByteSize(kibibytes.saturating_mul(1 << 10)));
            }
            "track_sizes" => extended.track_sizes = true,
            "no_drop_privileges" => {}
            "no_modern" => {
                extended.refuse_beyond_limit = Some(false);
                extended.without_effect.push(name.to_owned());
            }
            "ssl_session_cache" => extended.tls.session_cache = Some(true),
            _ if WITHOUT_EFFECT.contains(&name) => extended.without_effect.push(name.to_owned()),
            _ if name.starts_with("ssl_") => ssl(&mut extended.tls, name, value)?,
            _ => return Err(refusal(name)),
        }
    }
    Ok(extended)
}

fn number(name: &str, value: Option<&str>) -> Result<u64, String> {
    let value = value.ok_or_else(|| format!("-o {name}: missing numeric argument"))?;
    value
        .parse()
        .map_err(|_| format!("-o {name}: {value:?} is no number"))
}

/// An option of encryption, with memcached's numbers.
fn ssl(tls: &mut Tls, name: &str, value: Option<&str>) -> Result<(), String> {
    if name == "ssl_kernel_tls" {
        return Err(format!("-o {name}: the kernel takes no part in encryption"));
    }
    let value = value.ok_or_else(|| format!("-o {name}: missing argument"))?;
    let path = || Some(PathBuf::from(value));
    match name {
        "ssl_chain_cert" => tls.chain_cert = path(),
        "ssl_key" => tls.key = path(),
        "ssl_ca_cert" => tls.ca_cert = path(),
        "ssl_ciphers" => tls.ciphers = Some(value.split(':').map(str::to_owned).collect()),
        "ssl_verify_mode" => {
            tls.verify = Some(match value {
                "0" => ClientCertificate::None,
                "1" => ClientCertificate::Request,
                // There is no second handshake on a connection that could ask again.
                "2" | "3" => ClientCertificate::Require,
                _ => return Err(format!("-o {name}: expected 0, 1, 2 or 3")),
            });
        }
        "ssl_keyformat" => {
            tls.key_format = Some(match value.to_ascii_uppercase().as_str() {
                "PEM" | "1" => KeyFormat::Pem,
                "DER" | "2" => KeyFormat::Der,
                _ => return Err(format!("-o {name}: expected PEM or DER")),
            });
        }
        "ssl_min_version" => {
            tls.min_version = Some(match value {
                "2" => MinVersion::V1_2,
                "3" => MinVersion::V1_3,
                "0" | "1" => return Err(format!("-o {name}: TLS before 1.2 is not spoken")),
                _ => return Err(format!("-o {name}: expected 2 (TLS 1.2) or 3 (TLS 1.3)")),
            });
        }
        _ => return Err(refusal(name)),
    }
    Ok(())
}

/// Why an option is refused.
fn refusal(name: &str) -> String {
    if name.starts_with("ext_") {
        format!("-o {name}: there is no extstore here; --dry DIR is what keeps items on disk")
    } else if name.starts_with("proxy_") {
        format!("-o {name}: memcached's proxy is not part of tiercache")
    } else if name == "drop_privileges" {
        format!("-o {name}: a system call filter is not built yet")
    } else if name == "sock_cookie_id" {
        format!("-o {name}: sockets are not marked for a firewall")
    } else {
        format!("-o {name}: unknown option")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_options_win() {
        let read = |list: &str| read(&[list.to_owned()]);
        let extended =
            read("maxconns_fast,idle_timeout=5,no_maxconns_fast,slab_automove=1").unwrap();
        assert_eq!(extended.refuse_beyond_limit, Some(false));
        assert_eq!(extended.idle_timeout, Some(Span::seconds(5)));
        assert_eq!(extended.without_effect, ["slab_automove"]);
    }

    // What would be silently missing is refused with the reason.
    #[test]
    fn what_is_missing_is_refused() {
        for (list, reason) in [
            ("ext_path=/tmp/x:1G", "--dry"),
            ("ssl_key", "missing"),
            ("ssl_verify_mode=4", "expected 0, 1"),
            ("ssl_min_version=1", "before 1.2"),
            ("ssl_kernel_tls", "the kernel"),
            ("ssl_nonsense=1", "unknown"),
            ("drop_privileges", "not built yet"),
            ("idle_timeout", "missing"),
            ("idle_timeout=x", "no number"),
            ("nonsense", "unknown"),
        ] {
            let error = read(&[list.to_owned()]).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}

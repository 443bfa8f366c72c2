//! Encryption and users, of this server and of those upstream: what their options amount to, and what
//! they mean for listeners and protocols.

use crate::auth::AuthConfig;
use crate::config::ConfigError;
use crate::config::layer::{self, Protocol};
use crate::config::resolve::refuse;
use crate::server::ServerConfig;
use crate::server::config::Encryption;
use crate::tls::{ClientCertificate, ConnectorConfig, ServerCertificate, TlsConfig};
use crate::upstream::{AccessConfig, LoginConfig, is_username};

/// Encryption, if it is asked for.
pub(super) fn tls(tls: layer::Tls) -> Result<Option<TlsConfig>, ConfigError> {
    if tls.enabled != Some(true) {
        let set = [
            ("tls.chain_cert", tls.chain_cert.is_some()),
            ("tls.key", tls.key.is_some()),
            (
                "tls.verify",
                tls.verify
                    .is_some_and(|verify| verify != ClientCertificate::None),
            ),
            ("tls.ca_cert", tls.ca_cert.is_some()),
        ];
        return match set.into_iter().find(|(_, set)| *set) {
            Some((key, _)) => refuse(key, "has no effect without encryption (tls.enabled, -Z)"),
            None => Ok(None),
        };
    }
    let Some(chain_cert) = tls.chain_cert else {
        return refuse(
            "tls.enabled",
            "needs a certificate (tls.chain_cert, -o ssl_chain_cert)",
        );
    };
    let verify = tls.verify.unwrap_or_default();
    if verify != ClientCertificate::None && tls.ca_cert.is_none() {
        return refuse(
            "tls.verify",
            "needs authorities (tls.ca_cert, -o ssl_ca_cert)",
        );
    }
    Ok(Some(TlsConfig {
        key: tls.key.unwrap_or_else(|| chain_cert.clone()),
        chain_cert,
        key_format: tls.key_format.unwrap_or_default(),
        verify,
        ca_cert: tls.ca_cert,
        ciphers: tls.ciphers.unwrap_or_default(),
        session_cache: tls.session_cache.unwrap_or(false),
        min_version: tls.min_version.unwrap_or_default(),
    }))
}

/// What listeners and encryption have to do with each other.
pub(super) fn check_listeners(
    server: &ServerConfig,
    tls: Option<&TlsConfig>,
) -> Result<(), ConfigError> {
    let listens = |wanted: Encryption| {
        let mut listen = server.listen.iter();
        listen.any(|address| address.encryption == wanted)
    };
    match tls {
        None if server
            .listen
            .iter()
            .any(|address| address.encryption != Encryption::Default) =>
        {
            refuse(
                "server.listen",
                "notls, btls and mtls are for encrypted servers (tls.enabled, -Z)",
            )
        }
        Some(_) if server.listen.is_empty() => {
            refuse("tls.enabled", "there is no TCP listener to encrypt")
        }
        Some(tls) if listens(Encryption::Mutual) && tls.ca_cert.is_none() => refuse(
            "server.listen",
            "mtls needs authorities (tls.ca_cert, -o ssl_ca_cert)",
        ),
        _ => Ok(()),
    }
}

/// Users, and what can be spoken where clients authenticate: text, or with SASL packets, as in
/// memcached; both if both are asked for.
pub(super) fn auth(
    auth: layer::Auth,
    protocol: &mut Option<Protocol>,
) -> Result<Option<AuthConfig>, ConfigError> {
    let sasl = auth.sasl.unwrap_or(false);
    let Some(file) = auth.file else {
        if sasl {
            return refuse("auth.sasl", "needs users (auth.file, -Y FILE)");
        }
        return Ok(None);
    };
    *protocol = Some(match (sasl, *protocol) {
        (false, None | Some(Protocol::Auto | Protocol::Ascii)) => Protocol::Ascii,
        (true, None | Some(Protocol::Binary)) => Protocol::Binary,
        (true, Some(Protocol::Auto)) => Protocol::Auto,
        (false, Some(Protocol::Binary)) => {
            return refuse(
                "server.protocol",
                "binary needs SASL where clients authenticate (auth.sasl, -S)",
            );
        }
        (true, Some(Protocol::Ascii)) => {
            return refuse(
                "auth.sasl",
                "is for the binary protocol, not for ascii alone",
            );
        }
    });
    Ok(Some(AuthConfig { file, sasl }))
}

/// What memcached servers are shown.
pub(super) fn access(memcached: &layer::Memcached) -> Result<AccessConfig, ConfigError> {
    let login = match (&memcached.username, &memcached.password_file) {
        (None, None) => None,
        (Some(username), Some(password_file)) if is_username(username) => Some(LoginConfig {
            username: username.clone(),
            password_file: password_file.clone(),
        }),
        (Some(_), Some(_)) => {
            return refuse(
                "memcached.username",
                "must be one word of at most 500 bytes",
            );
        }
        (Some(_), None) => return refuse("memcached.username", "needs memcached.password_file"),
        (None, Some(_)) => return refuse("memcached.password_file", "needs memcached.username"),
    };
    let tls = connector(memcached)?;
    Ok(AccessConfig { tls, login })
}

fn connector(memcached: &layer::Memcached) -> Result<Option<ConnectorConfig>, ConfigError> {
    let layer::Memcached {
        ca_cert, cert, key, ..
    } = memcached;
    if memcached.tls != Some(true) {
        let set = [
            ("memcached.ca_cert", ca_cert.is_some()),
            ("memcached.cert", cert.is_some()),
            ("memcached.key", key.is_some()),
            ("memcached.verify", memcached.verify.is_some()),
        ];
        return match set.into_iter().find(|(_, set)| *set) {
            Some((key, _)) => refuse(key, "has no effect without memcached.tls"),
            None => Ok(None),
        };
    }
    let verify = memcached.verify.unwrap_or_default();
    if verify != ServerCertificate::None && ca_cert.is_none() {
        return refuse(
            "memcached.tls",
            "needs authorities (memcached.ca_cert), or memcached.verify = \"none\"",
        );
    }
    if key.is_some() && cert.is_none() {
        return refuse("memcached.key", "needs memcached.cert");
    }
    Ok(Some(ConnectorConfig {
        ca_cert: ca_cert.clone(),
        key: key.clone().or_else(|| cert.clone()),
        cert: cert.clone(),
        verify,
    }))
}

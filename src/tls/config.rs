//! What is told about encryption at start.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Encryption of the TCP listeners; `-Z` and `-o ssl_*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// PEM file of the server's certificate and those that vouch for it.
    pub chain_cert: PathBuf,
    /// The certificate's private key. Default the file of the chain.
    pub key: PathBuf,
    /// How the key is written. Default PEM.
    pub key_format: KeyFormat,
    /// Whether clients show a certificate. Default none.
    pub verify: ClientCertificate,
    /// PEM file of the authorities that clients' certificates come from.
    pub ca_cert: Option<PathBuf>,
    /// OpenSSL names of the cipher suites to offer; empty for all.
    pub ciphers: Vec<String>,
    /// Whether sessions are resumed. Default no.
    pub session_cache: bool,
    /// The oldest version spoken. Default TLS 1.2.
    pub min_version: MinVersion,
}

/// How a private key is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyFormat {
    /// Base64 between lines.
    #[default]
    Pem,
    /// Bytes.
    Der,
}

/// Whether a client shows a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificate {
    /// It is not asked for.
    #[default]
    None,
    /// It is asked for, and checked if it comes.
    Request,
    /// Nobody comes in without it.
    Require,
}

/// The oldest version spoken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum MinVersion {
    /// TLS 1.2.
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    V1_3,
}

/// Encryption of connections to servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectorConfig {
    /// PEM file of the authorities that servers' certificates come from. Needed unless nothing is
    /// verified.
    pub ca_cert: Option<PathBuf>,
    /// PEM file of the certificate that is shown to servers that ask for one. Default none.
    pub cert: Option<PathBuf>,
    /// PEM file of its private key. Default the file of the certificate.
    pub key: Option<PathBuf>,
    /// What has to be true of a server's certificate. Default all of it.
    pub verify: ServerCertificate,
}

/// What has to be true of a server's certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerCertificate {
    /// It comes from a known authority, and the server's name is in it.
    #[default]
    Full,
    /// It comes from a known authority.
    Chain,
    /// Nothing: whoever is in between can read and change everything.
    None,
}

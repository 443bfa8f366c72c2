//! Encrypted connections: certificates from files, read again while clients are served.
//!
//! Built with the feature `tls`; without it [`Tls`] and [`Connector`] cannot exist and opening one
//! says so.

#[cfg(feature = "tls")]
mod ciphers;
#[cfg(feature = "tls")]
mod client;
pub mod config;
#[cfg(feature = "tls")]
pub mod files;
#[cfg_attr(not(feature = "tls"), path = "absent.rs")]
mod server;

use std::path::PathBuf;

#[cfg(feature = "tls")]
pub use client::{ClientStream, Connector, client_socket};
pub use config::{
    ClientCertificate, ConnectorConfig, KeyFormat, MinVersion, ServerCertificate, TlsConfig,
};
#[cfg(not(feature = "tls"))]
pub use server::{ClientStream, Connector, client_socket};
pub use server::{Stream, Tls, is_new_session, socket};

/// Encrypted bytes that wait for a client to read: beyond it no further answers are encrypted.
pub const UNSENT_BYTES_MAX: usize = 64 * 1024;

/// Why encryption cannot be had: which file, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be used.
    #[error("load the {what} {}: {reason}", path.display())]
    File {
        /// What is in the file.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Options that cannot be honoured.
    #[error("tls: {0}")]
    Options(String),
}

impl TlsError {
    /// memcached's sentence for it, as `refresh_certs` answers.
    pub fn sentence(&self) -> String {
        match self {
            TlsError::File { what, path, reason } => {
                format!("Error loading the {what}: {} : {reason}", path.display())
            }
            TlsError::Options(reason) => format!("Error {reason}"),
        }
    }
}

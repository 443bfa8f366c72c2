//! Certificates, keys and authorities from files. For servers and for clients of servers.

use std::path::Path;

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{KeyFormat, TlsError};

/// What the error messages call the files, in memcached's words.
pub(super) const CHAIN: &str = "certificate chain";
const KEY: &str = "key";
const AUTHORITIES: &str = "CA certificate";

/// The certificates of a PEM file, in its order.
///
/// # Errors
/// The file cannot be read or has no certificate.
pub fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    certificates(CHAIN, path)
}

/// The authorities of a PEM file.
///
/// # Errors
/// The file cannot be read, or one of its certificates cannot vouch for others.
pub fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(AUTHORITIES, path)? {
        store
            .add(certificate)
            .map_err(|error| refuse(AUTHORITIES, path, error))?;
    }
    Ok(store)
}

/// The first private key of a file.
///
/// # Errors
/// The file cannot be read or has no key.
pub fn key(path: &Path, format: KeyFormat) -> Result<PrivateKeyDer<'static>, TlsError> {
    match format {
        KeyFormat::Pem => {
            PrivateKeyDer::from_pem_file(path).map_err(|error| unreadable(KEY, path, error))
        }
        KeyFormat::Der => {
            let bytes = std::fs::read(path).map_err(|error| refuse(KEY, path, error))?;
            PrivateKeyDer::try_from(bytes).map_err(|error| refuse(KEY, path, error))
        }
    }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(what, path, error))?;
    if certificates.is_empty() {
        return Err(unreadable(what, path, PemError::NoItemsFound));
    }
    Ok(certificates)
}

fn unreadable(what: &'static str, path: &Path, error: PemError) -> TlsError {
    match error {
        PemError::Io(error) => refuse(what, path, error),
        PemError::NoItemsFound => refuse(what, path, "there is none in the file"),
        // The parser's own words may carry bytes of a key.
        _ => refuse(what, path, "not in PEM format"),
    }
}

pub(super) fn refuse(what: &'static str, path: &Path, reason: impl ToString) -> TlsError {
    TlsError::File {
        what,
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

//! The client's side: whom servers have to be certified by, what is shown to them, and the handshake
//! with one of them.

use std::io;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use super::{ConnectorConfig, KeyFormat, ServerCertificate, TlsError, UNSENT_BYTES_MAX, files};

/// An encrypted connection to a server.
pub type ClientStream = tokio_rustls::client::TlsStream<TcpStream>;

/// Makes encrypted connections to servers.
#[derive(Debug)]
pub struct Connector {
    config: ConnectorConfig,
    loaded: RwLock<Arc<ClientConfig>>,
}

impl Connector {
    /// Reads all files.
    ///
    /// # Errors
    /// Names the first file that cannot be used, or the option.
    pub fn open(config: &ConnectorConfig) -> Result<Connector, TlsError> {
        let loaded = RwLock::new(read(config)?);
        let config = config.clone();
        Ok(Connector { config, loaded })
    }

    /// Reads all files again, for connections that are made from now on.
    ///
    /// # Errors
    /// As at the start; then what was read before stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        let loaded = read(&self.config)?;
        *self.loaded.write() = loaded;
        Ok(())
    }

    /// Shakes hands with the server `host`, a name or an IP address.
    ///
    /// # Errors
    /// The server is gone, does not speak TLS, or is not certified as it has to be.
    pub async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<ClientStream> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::clone(&self.loaded.read()));
        let connecting = connector.connect_with(name, stream, |session| {
            session.set_buffer_limit(Some(UNSENT_BYTES_MAX));
        });
        connecting.await
    }
}

/// What an encrypted connection goes over.
pub fn client_socket(stream: &ClientStream) -> &TcpStream {
    stream.get_ref().0
}

fn read(config: &ConnectorConfig) -> Result<Arc<ClientConfig>, TlsError> {
    let options = |error: &dyn ToString| TlsError::Options(error.to_string());
    let provider = Arc::new(ring::default_provider());
    let authorities = match &config.ca_cert {
        Some(path) => files::authorities(path)?,
        None => RootCertStore::empty(),
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| options(&error))?;
    let certified = || {
        WebPkiServerVerifier::builder_with_provider(authorities.into(), Arc::clone(&provider))
            .build()
            .map_err(|error| options(&error))
    };
    let builder = match config.verify {
        ServerCertificate::Full => builder.with_webpki_verifier(certified()?),
        ServerCertificate::Chain | ServerCertificate::None => {
            let certified = match config.verify {
                ServerCertificate::None => None,
                _ => Some(certified()?),
            };
            let lenient = Lenient {
                certified,
                provider: Arc::clone(&provider),
            };
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(lenient))
        }
    };
    let client = match (&config.cert, &config.key) {
        (Some(cert), Some(key)) => {
            let key = files::key(key, KeyFormat::Pem)?;
            builder
                .with_client_auth_cert(files::chain(cert)?, key)
                .map_err(|error| files::refuse(files::CHAIN, cert, error))?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(client))
}

/// Believes a server whatever its name is, if it is certified at all or does not have to be.
#[derive(Debug)]
struct Lenient {
    /// Checks the chain; none believes everybody.
    certified: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(certified) = &self.certified else {
            return Ok(ServerCertVerified::assertion());
        };
        let verified = certified.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            // The name is compared last: everything else is as it has to be.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

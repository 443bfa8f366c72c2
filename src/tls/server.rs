//! The server's side: what is shown to clients, and the handshake with one of them.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::RwLock;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::server::{
    NoServerSessionStorage, ServerSessionMemoryCache, WebPkiClientVerifier,
};
use tokio_rustls::rustls::{
    HandshakeKind, RootCertStore, ServerConfig, SupportedProtocolVersion, version,
};

use super::{ClientCertificate, MinVersion, TlsConfig, TlsError, UNSENT_BYTES_MAX, ciphers, files};

/// Sessions that can be resumed, of each kind of listener.
const SESSIONS_MAX: usize = 4096;

/// Tickets that a client gets, where sessions are resumed.
const TICKETS: usize = 2;

/// An encrypted connection.
pub type Stream<S> = tokio_rustls::server::TlsStream<S>;

/// The server's certificates.
#[derive(Debug)]
pub struct Tls {
    config: TlsConfig,
    loaded: RwLock<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    /// By what clients have to show. Without authorities nobody can be asked.
    none: Arc<ServerConfig>,
    request: Option<Arc<ServerConfig>>,
    require: Option<Arc<ServerConfig>>,
    at: Instant,
}

impl Tls {
    /// Reads all files.
    ///
    /// # Errors
    /// Names the first file that cannot be used, or the option.
    pub fn open(config: &TlsConfig) -> Result<Tls, TlsError> {
        let loaded = RwLock::new(Loaded::read(config)?);
        let config = config.clone();
        Ok(Tls { config, loaded })
    }

    /// Reads all files again, for connections that come from now on.
    ///
    /// # Errors
    /// As at the start; then what was read before stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        let loaded = Loaded::read(&self.config)?;
        *self.loaded.write() = loaded;
        Ok(())
    }

    /// Age of what is shown to clients.
    pub fn seconds_since_load(&self) -> u64 {
        self.loaded.read().at.elapsed().as_secs()
    }

    /// Shakes hands with a client.
    ///
    /// # Errors
    /// The client is gone, does not speak TLS, or has not the certificate that is wanted.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        wanted: ClientCertificate,
        stream: S,
    ) -> io::Result<Stream<S>> {
        let config = self.loaded.read().config(wanted);
        let config = config.ok_or_else(|| {
            io::Error::other("no authorities (ssl_ca_cert) to check a client's certificate with")
        })?;
        let accepting = TlsAcceptor::from(config).accept_with(stream, |session| {
            session.set_buffer_limit(Some(UNSENT_BYTES_MAX));
        });
        accepting.await
    }
}

/// Whether the connection's session is no resumed one.
pub fn is_new_session<S>(stream: &Stream<S>) -> bool {
    stream.get_ref().1.handshake_kind() != Some(HandshakeKind::Resumed)
}

/// What carries the connection.
pub fn socket<S>(stream: &Stream<S>) -> &S {
    stream.get_ref().0
}

impl Loaded {
    fn read(config: &TlsConfig) -> Result<Loaded, TlsError> {
        let mut provider = ring::default_provider();
        ciphers::choose(&mut provider.cipher_suites, &config.ciphers)?;
        let provider = Arc::new(provider);
        let none = server_config(config, &provider, ClientCertificate::None, None)?;
        let asking = |wanted| match &config.ca_cert {
            None => Ok(None),
            Some(path) => {
                let authorities = files::authorities(path)?;
                server_config(config, &provider, wanted, Some(authorities)).map(Some)
            }
        };
        Ok(Loaded {
            none,
            request: asking(ClientCertificate::Request)?,
            require: asking(ClientCertificate::Require)?,
            at: Instant::now(),
        })
    }

    fn config(&self, wanted: ClientCertificate) -> Option<Arc<ServerConfig>> {
        match wanted {
            ClientCertificate::None => Some(Arc::clone(&self.none)),
            ClientCertificate::Request => self.request.clone(),
            ClientCertificate::Require => self.require.clone(),
        }
    }
}

static SINCE_1_2: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
static SINCE_1_3: [&SupportedProtocolVersion; 1] = [&version::TLS13];

fn versions(config: &TlsConfig) -> &'static [&'static SupportedProtocolVersion] {
    match config.min_version {
        MinVersion::V1_2 => &SINCE_1_2,
        MinVersion::V1_3 => &SINCE_1_3,
    }
}

fn server_config(
    config: &TlsConfig,
    provider: &Arc<CryptoProvider>,
    wanted: ClientCertificate,
    authorities: Option<RootCertStore>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let options = |error: &dyn ToString| TlsError::Options(error.to_string());
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions(config))
        .map_err(|error| options(&error))?;
    let builder = match authorities {
        None => builder.with_no_client_auth(),
        Some(authorities) => {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(authorities.into(), provider.clone());
            let verifier = match wanted {
                ClientCertificate::Require => verifier,
                _ => verifier.allow_unauthenticated(),
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| options(&error))?)
        }
    };
    let key = files::key(&config.key, config.key_format)?;
    let mut server = builder
        .with_single_cert(files::chain(&config.chain_cert)?, key)
        .map_err(|error| files::refuse(files::CHAIN, &config.chain_cert, error))?;
    if config.session_cache {
        server.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
        server.send_tls13_tickets = TICKETS;
    } else {
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
    }
    Ok(Arc::new(server))
}

//! Stands in for encryption in a program that is built without it.

use std::io;

use tokio::net::TcpStream;

use super::{ClientCertificate, ConnectorConfig, TlsConfig, TlsError};

/// Never exists.
#[derive(Debug)]
pub enum Tls {}

/// Never comes from [`Tls::accept`].
pub type Stream<S> = S;

impl Tls {
    /// Refuses.
    ///
    /// # Errors
    /// Always.
    pub fn open(_: &TlsConfig) -> Result<Tls, TlsError> {
        Err(absent())
    }

    /// Cannot be called.
    pub fn reload(&self) -> Result<(), TlsError> {
        match *self {}
    }

    /// Cannot be called.
    pub fn seconds_since_load(&self) -> u64 {
        match *self {}
    }

    /// Cannot be called.
    pub async fn accept<S>(&self, _: ClientCertificate, _: S) -> io::Result<Stream<S>> {
        match *self {}
    }
}

/// Never exists.
#[derive(Debug)]
pub enum Connector {}

/// Never comes from [`Connector::connect`].
pub type ClientStream = TcpStream;

impl Connector {
    /// Refuses.
    ///
    /// # Errors
    /// Always.
    pub fn open(_: &ConnectorConfig) -> Result<Connector, TlsError> {
        Err(absent())
    }

    /// Cannot be called.
    pub fn reload(&self) -> Result<(), TlsError> {
        match *self {}
    }

    /// Cannot be called.
    pub async fn connect(&self, _: &str, _: TcpStream) -> io::Result<ClientStream> {
        match *self {}
    }
}

/// Cannot be called.
pub fn client_socket(stream: &ClientStream) -> &TcpStream {
    stream
}

fn absent() -> TlsError {
    TlsError::Options("this program is built without encryption (feature tls)".to_owned())
}

/// Cannot be called.
pub fn is_new_session<S>(_: &Stream<S>) -> bool {
    false
}

/// Cannot be called.
pub fn socket<S>(stream: &Stream<S>) -> &S {
    stream
}

//! Sockets to listen on: bound early, so that a taken port is known before a long recovery, and
//! listening late, so that no client waits for it.

use std::fmt;
use std::fs;
use std::io;
use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::config::{Address, ServerConfig};
use super::inherited;
use crate::tls::ClientCertificate;

/// Why the server does not listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A name that stands for no address.
    #[error("resolve {host}: {error}")]
    Resolve {
        /// The name.
        host: String,
        /// The resolver's reason.
        error: io::Error,
    },
    /// A TCP address that cannot be had.
    #[error("listen on {address}: {error}")]
    Tcp {
        /// The address.
        address: String,
        /// The operating system's reason.
        error: io::Error,
    },
    /// A unix socket that cannot be had.
    #[error("listen on unix socket {}: {error}", path.display())]
    Unix {
        /// The socket's path.
        path: PathBuf,
        /// The operating system's reason.
        error: io::Error,
    },
    /// A socket of whoever started the process that cannot be used.
    #[error("use inherited socket {number} (LISTEN_FDS): {error}")]
    Inherited {
        /// Its place among those handed over.
        number: usize,
        /// What is wrong with it.
        error: io::Error,
    },
    /// A thread or its runtime that cannot be started.
    #[error("start a thread: {0}")]
    Thread(io::Error),
}

/// Bound sockets.
#[derive(Debug)]
pub struct Listeners {
    sockets: Vec<(Socket, Place)>,
    backlog: i32,
}

/// Where a socket is bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A TCP address where connections are encrypted.
    Tls(SocketAddr, ClientCertificate),
    /// A unix socket.
    Unix(PathBuf),
    /// A unix socket that whoever started the process has bound, and will remove.
    Given(PathBuf),
}

impl Place {
    /// A TCP address, encrypted if clients are told which certificate to show.
    pub(super) fn of_tcp(address: SocketAddr, tls: Option<ClientCertificate>) -> Place {
        match tls {
            None => Place::Tcp(address),
            Some(wanted) => Place::Tls(address, wanted),
        }
    }
}

impl Listeners {
    /// The sockets that whoever started the process listens on already (`LISTEN_FDS`), instead of
    /// those that are configured; none if there are none. To be called before there are other
    /// threads.
    ///
    /// # Errors
    /// The first one that cannot be used.
    pub fn inherited(config: &ServerConfig) -> Result<Option<Listeners>, ListenError> {
        let sockets = inherited::take(config.tls)?;
        let backlog = i32::try_from(config.backlog).unwrap_or(i32::MAX);
        Ok((!sockets.is_empty()).then_some(Listeners { sockets, backlog }))
    }

    /// Binds all addresses, or the unix socket.
    ///
    /// # Errors
    /// The first address that cannot be had. For all interfaces it is enough that one of IPv4 and
    /// IPv6 can be.
    pub fn bind(config: &ServerConfig) -> Result<Listeners, ListenError> {
        let mut sockets = Vec::new();
        if let Some(path) = &config.unix_socket {
            let socket = bind_unix(path, config.unix_mask).map_err(|error| ListenError::Unix {
                path: path.clone(),
                error,
            })?;
            sockets.push((socket, Place::Unix(path.clone())));
        }
        for address in &config.listen {
            bind_address(address, config.tls, &mut sockets)?;
        }
        let backlog = i32::try_from(config.backlog).unwrap_or(i32::MAX);
        Ok(Listeners { sockets, backlog })
    }

    /// Where the sockets are bound, with the ports that the kernel chose.
    pub fn places(&self) -> impl Iterator<Item = &Place> {
        self.sockets.iter().map(|(_, place)| place)
    }

    /// Starts listening.
    pub(super) fn listen(self) -> Result<Vec<(Socket, Place)>, ListenError> {
        for (socket, place) in &self.sockets {
            socket.listen(self.backlog).map_err(|error| match place {
                Place::Tcp(address) | Place::Tls(address, _) => ListenError::Tcp {
                    address: address.to_string(),
                    error,
                },
                Place::Unix(path) | Place::Given(path) => ListenError::Unix {
                    path: path.clone(),
                    error,
                },
            })?;
        }
        Ok(self.sockets)
    }
}

/// Writes memcached's `TCP INET: <port>` lines to the file that `MEMCACHED_PORT_FILENAME` names,
/// which appears when it is complete.
///
/// # Errors
/// The file system's.
pub fn write_port_file(path: &Path, places: &[Place]) -> io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".lck");
    let mut file = fs::File::create(&unfinished)?;
    for place in places {
        if let Place::Tcp(address) | Place::Tls(address, _) = place {
            let family = if address.is_ipv4() { "INET" } else { "INET6" };
            writeln!(file, "TCP {family}: {}", address.port())?;
        }
    }
    fs::rename(&unfinished, path)
}

fn bind_address(
    address: &Address,
    tls: Option<ClientCertificate>,
    sockets: &mut Vec<(Socket, Place)>,
) -> Result<(), ListenError> {
    let tls = address.tls(tls);
    let error = |error| ListenError::Tcp {
        address: address.to_string(),
        error,
    };
    let Some(host) = &address.host else {
        // IPv4 first: where the kernel chooses the port, IPv6 takes the same one.
        let v4 = bind_tcp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port)), tls);
        let port = match &v4 {
            Ok((_, Place::Tcp(bound) | Place::Tls(bound, _))) => bound.port(),
            _ => address.port,
        };
        let v6 = bind_tcp(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), tls);
        match (v4, v6) {
            (Err(reason), Err(_)) => return Err(error(reason)),
            // A port taken for one family must not be served for the other alone.
            (Err(reason), _) | (_, Err(reason)) if reason.kind() == io::ErrorKind::AddrInUse => {
                return Err(error(reason));
            }
            (v4, v6) => sockets.extend(v4.into_iter().chain(v6)),
        }
        return Ok(());
    };
    let resolved = (host.as_str(), address.port)
        .to_socket_addrs()
        .map_err(|error| ListenError::Resolve {
            host: host.clone(),
            error,
        })?;
    for resolved in resolved {
        sockets.push(bind_tcp(resolved, tls).map_err(error)?);
    }
    Ok(())
}

fn bind_tcp(address: SocketAddr, tls: Option<ClientCertificate>) -> io::Result<(Socket, Place)> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit these: replies leave at once, and vanished peers are noticed.
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    socket.bind(&SockAddr::from(address))?;
    let bound = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok((socket, Place::of_tcp(bound, tls)))
}

fn bind_unix(path: &Path, mask: u32) -> io::Result<Socket> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Nobody can connect before `listen`, so setting the bits after `bind` leaves no gap.
    fs::set_permissions(path, fs::Permissions::from_mode(mask))?;
    Ok(socket)
}

/// Removes what an earlier process left, but only a socket, and only if nobody listens on it.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "there is a file that is no socket",
            ));
        }
        Ok(_) => {}
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process listens on it",
        ));
    }
    fs::remove_file(path)
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Tcp(address) => write!(out, "{address}"),
            Place::Tls(address, _) => write!(out, "{address} (TLS)"),
            Place::Unix(path) | Place::Given(path) => write!(out, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A leftover socket goes, somebody else's file stays.
    #[test]
    fn only_a_stale_socket_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(bind_unix(&path, 0o700).unwrap());
        assert!(path.exists());
        drop(bind_unix(&path, 0o640).unwrap());
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o640
        );
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(bind_unix(&path, 0o700).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn one_port_serves_both_families() {
        let config = ServerConfig {
            listen: vec![Address {
                host: None,
                port: 0,
                encryption: Default::default(),
            }],
            ..ServerConfig::default()
        };
        let listeners = Listeners::bind(&config).unwrap();
        let ports: Vec<_> = listeners
            .places()
            .map(|place| match place {
                Place::Tcp(address) | Place::Tls(address, _) => address.port(),
                Place::Unix(_) | Place::Given(_) => 0,
            })
            .collect();
        assert!(
            ports[0] > 0 && ports.iter().all(|port| *port == ports[0]),
            "{ports:?}"
        );
    }
}

//! Sockets that whoever started the process listens on already: `LISTEN_FDS`, as systemd hands them over.

use std::io;

use listenfd::ListenFd;
use socket2::Socket;

use super::listener::{ListenError, Place};
use crate::tls::ClientCertificate;

/// The sockets that were handed over, none if there was no handing over; `tls` tells how those of
/// TCP are encrypted. To be called before there are other threads: it removes the variables, so that no child takes the sockets for its own.
pub(super) fn take(tls: Option<ClientCertificate>) -> Result<Vec<(Socket, Place)>, ListenError> {
    let mut given = ListenFd::from_env();
    (0..given.len())
        .map(|number| {
            take_one(&mut given, number, tls)
                .map_err(|error| ListenError::Inherited { number, error })
        })
        .collect()
}

fn take_one(
    given: &mut ListenFd,
    number: usize,
    tls: Option<ClientCertificate>,
) -> io::Result<(Socket, Place)> {
    // What is no TCP socket stays in its place.
    let socket = match given.take_tcp_listener(number) {
        Ok(listener) => listener.map(Socket::from),
        Err(_) => given.take_unix_listener(number)?.map(Socket::from),
    };
    let socket = socket.ok_or_else(|| io::Error::other("there is none"))?;
    if !socket.is_listener()? {
        return Err(io::Error::other("it does not listen"));
    }
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    let place = match address.as_socket() {
        Some(address) => {
            socket.set_tcp_nodelay(true)?;
            socket.set_keepalive(true)?;
            Place::of_tcp(address, tls)
        }
        None => Place::Given(address.as_pathname().unwrap_or("".as_ref()).to_owned()),
    };
    Ok((socket, place))
}

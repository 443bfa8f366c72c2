//! Telling the service manager how far the start and the stop have come: `NOTIFY_SOCKET`, as systemd has it.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Names the service manager's socket: a path, or `@` and an abstract name.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// Clients are served.
pub(super) fn ready() {
    tell("READY=1");
}

/// The process ends, within `at_most`.
pub(super) fn stopping(at_most: Duration) {
    tell(&format!(
        "STOPPING=1\nEXTEND_TIMEOUT_USEC={}",
        at_most.as_micros()
    ));
}

fn tell(state: &str) {
    let Some(place) = std::env::var_os(VARIABLE).filter(|place| !place.is_empty()) else {
        return;
    };
    if let Err(error) = send(&place, state) {
        tracing::warn!(%error, socket = %place.display(), "tell the service manager");
    }
}

fn send(place: &OsStr, state: &str) -> io::Result<()> {
    let address = match place.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(place)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_socket_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("tiercache-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let by_name = UnixDatagram::bind_addr(&address).unwrap();
        let abstract_place = format!("@{name}");
        for (socket, place) in [
            (by_path, path.as_os_str()),
            (by_name, OsStr::new(&abstract_place)),
        ] {
            send(place, "READY=1").unwrap();
            let mut received = [0; 64];
            let count = socket.recv(&mut received).unwrap();
            assert_eq!(&received[..count], b"READY=1");
        }
    }
}

//! Tells a service manager how we are.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends one line to the socket that systemd names. Without one, nobody wants to know.
pub(crate) fn notify(socket: Option<&str>, state: &str) {
    let Some(socket) = socket.filter(|socket| !socket.is_empty()) else {
        return;
    };
    if let Err(error) = send(socket, state) {
        tracing::warn!(target: "backup", %error, "the service manager cannot be told {state}");
    }
}

fn send(socket: &str, state: &str) -> std::io::Result<()> {
    let address = match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_arrives_at_either_kind_of_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let file = UnixDatagram::bind(&path).unwrap();
        let name = format!("backup-server-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let named = UnixDatagram::bind_addr(&address).unwrap();
        for (socket, text) in [
            (&file, path.to_str().unwrap().to_owned()),
            (&named, format!("@{name}")),
        ] {
            notify(Some(&text), "READY=1");
            let mut buffer = [0; 32];
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"READY=1");
        }
        notify(None, "READY=1");
        notify(Some("/nowhere/at/all"), "READY=1");
    }
}

//! Loopback ports for servers that cannot be told to take any free one.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Result, bail};
use rand::RngExt as _;

/// Where ports are drawn from: below the range that the kernel gives to outgoing connections, and
/// low enough for the ports that `SeaweedFS` opens 10,000 above the ones it was given.
const RANGE: std::ops::Range<u16> = 15_000..22_000;

/// How many ports to try before saying that something else is wrong.
const ATTEMPTS: usize = 200;

/// Draws a port that is free on loopback right now, together with those at `offsets` above it.
///
/// Another process may take one before the caller does: start the server, and draw again if it
/// says that the port is taken.
pub(crate) fn free(offsets: &[u16]) -> Result<u16> {
    for _ in 0..ATTEMPTS {
        let port = rand::rng().random_range(RANGE);
        if is_free(port) && offsets.iter().all(|offset| is_free(port + offset)) {
            return Ok(port);
        }
    }
    bail!("no free port on loopback in {ATTEMPTS} attempts")
}

/// A port that is free right now, for a server of ours.
///
/// # Errors
///
/// When there is none.
pub fn free_port() -> Result<u16> {
    free(&[])
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_ok()
}

//! Loopback ports for servers that cannot be told to take any free one.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};
use nix::unistd::Uid;
use rand::RngExt as _;

use crate::servers;

/// Where ports are drawn from: below the range that the kernel gives to outgoing connections, and
/// low enough for the ports that `SeaweedFS` opens 10,000 above the ones it was given.
const RANGE: std::ops::Range<u16> = 15_000..22_000;

/// How many ports to try before saying that something else is wrong.
const ATTEMPTS: usize = 200;

/// The locks of all ports that this process has drawn.
static DRAWN: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// Draws a port that is free on loopback right now, together with those at `offsets` above it. No
/// other test draws one of them as long as this process lives.
///
/// Something else may take one before the caller does: start the server, and draw again if it
/// says that the port is taken.
pub(crate) fn free(offsets: &[u16]) -> Result<u16> {
    for _ in 0..ATTEMPTS {
        let first = rand::rng().random_range(RANGE);
        let above = offsets.iter().map(|offset| first + offset);
        let ports: BTreeSet<u16> = above.chain([first]).collect();
        let mut locks = Vec::new();
        for port in &ports {
            locks.extend(lock(*port)?);
        }
        if locks.len() == ports.len() && ports.into_iter().all(is_free) {
            let mut drawn = DRAWN.lock().unwrap_or_else(PoisonError::into_inner);
            drawn.extend(locks);
            return Ok(first);
        }
    }
    bail!("no free port on loopback in {ATTEMPTS} attempts")
}

/// Keeps a port from all others, unless one of them has it.
fn lock(port: u16) -> Result<Option<File>> {
    let folder = servers::scratch_base().join(format!("pgb-{}-ports", Uid::effective()));
    fs::create_dir_all(&folder)?;
    let file = File::create(folder.join(port.to_string()))?;
    Ok(file.try_lock().is_ok().then_some(file))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_draws_what_was_drawn() {
        let port = free(&[0, 1]).unwrap();
        assert!(lock(port).unwrap().is_none());
        assert!(lock(port + 1).unwrap().is_none());
        assert!(is_free(port));
    }
}

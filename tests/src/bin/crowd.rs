//! Fills a store with backups that nobody took, to look at how listings do.
//!
//! `crowd COUNT DIRECTORY` writes files; `crowd COUNT` starts a `SeaweedFS`, fills `s3://crowd/place`
//! in it, prints the variables that lead there, and runs until standard input ends.

use std::io::{Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use backup_e2e::crowd;
use backup_e2e::s3::{Kind, Server};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let count = arguments.next();
    let count = count.context("usage: crowd COUNT [DIRECTORY]")?.parse()?;
    let members = crowd::members(count)?;
    if let Some(directory) = arguments.next() {
        return crowd::into_directory(Path::new(&directory), &members);
    }
    let server = Server::start(Kind::SeaweedFs)?;
    server.create_bucket("crowd")?;
    crowd::into_bucket(&server, "crowd", "place", &members)?;
    let mut out = std::io::stdout();
    writeln!(out, "AWS_ENDPOINT_URL={}", server.endpoint())?;
    writeln!(out, "AWS_ACCESS_KEY_ID={}", server.access_key())?;
    writeln!(out, "AWS_SECRET_ACCESS_KEY={}", server.secret_key())?;
    writeln!(out, "AWS_REGION={}", server.region())?;
    out.flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

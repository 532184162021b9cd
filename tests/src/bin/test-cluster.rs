//! Runs a throw-away cluster by hand: `test-cluster MAJOR`, until standard input ends.
//!
//! It prints the variables that lead `psql` and friends there, and the data directory.

use std::io::{Read as _, Write as _};

use anyhow::{Context as _, Result};
use backup_e2e::pg::{Cluster, ClusterOptions};

fn main() -> Result<()> {
    let major = std::env::args()
        .nth(1)
        .context("usage: test-cluster MAJOR")?;
    let major = major
        .parse()
        .with_context(|| format!("{major} is no major version"))?;
    let cluster = Cluster::start(major, &ClusterOptions::default())?;
    let mut out = std::io::stdout();
    for (name, value) in cluster.env("postgres") {
        writeln!(out, "{name}={value}")?;
    }
    writeln!(out, "PGDATA={}", cluster.data_dir().display())?;
    out.flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

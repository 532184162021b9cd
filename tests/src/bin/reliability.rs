//! Prints the report on the acceptance checks: `reliability FOLDER DAY VERSION`.
//!
//! The folder has `pass-N.log` and `pass-N.jsonl`, which `scripts/reliability` writes.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::reliability::{Pass, page};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = || {
        arguments
            .next()
            .context("usage: reliability FOLDER DAY VERSION")
    };
    let (folder, day, version) = (argument()?, argument()?, argument()?);
    let passes = passes(Path::new(&folder))?;
    ensure!(!passes.is_empty(), "{folder} has no pass-1.log");
    let by_hand = concat!(env!("CARGO_MANIFEST_DIR"), "/by_hand.md");
    let by_hand = fs::read_to_string(by_hand).context(by_hand)?;
    let page = page(&passes, &day, &version, &by_hand);
    Ok(std::io::stdout().write_all(page.as_bytes())?)
}

fn passes(folder: &Path) -> Result<Vec<Pass>> {
    let mut passes = Vec::new();
    for number in 1.. {
        let log = folder.join(format!("pass-{number}.log"));
        if !log.exists() {
            break;
        }
        let notes = fs::read_to_string(log.with_extension("jsonl")).unwrap_or_default();
        passes.push(Pass::read(&fs::read_to_string(&log)?, &notes)?);
    }
    Ok(passes)
}

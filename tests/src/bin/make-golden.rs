//! Makes the golden backups of a format: `make-golden v2`. Done once, when a format is new; what is
//! there is never made again. `tests/golden/README.md` says how to run it.

use anyhow::{Context as _, Result};
use backup_e2e::golden;

fn main() -> Result<()> {
    let format = std::env::args().nth(1);
    golden::make(&format.context("usage: make-golden FORMAT")?)
}

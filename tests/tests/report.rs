//! The report on the acceptance checks names each test that there is.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use backup_e2e::checks::CHECKS;
use backup_e2e::reliability::number_of;

/// The functions of this suite that are tests of a check.
fn functions(folder: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let path: PathBuf = entry?.path();
        if path.is_dir() {
            found.extend(functions(&path)?);
            continue;
        }
        let text = fs::read_to_string(&path)?;
        let names = text.lines().filter_map(|line| {
            let (_, rest) = line.split_once("fn ")?;
            let name = rest.split(['(', '<']).next()?;
            number_of(name).map(|_| name.to_owned())
        });
        found.extend(names);
    }
    Ok(found)
}

#[test]
fn each_check_has_a_test_and_each_test_is_in_the_report() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let functions = functions(&root.join("tests/survive"))?;
    let numbers: BTreeSet<_> = functions
        .iter()
        .filter_map(|name| number_of(name))
        .collect();
    let missing: Vec<_> = CHECKS
        .iter()
        .filter(|check| !numbers.contains(&check.number))
        .map(|check| check.number)
        .collect();
    ensure!(missing.is_empty(), "no test of {missing:?}");
    let report = root.with_file_name("docs").join("RELIABILITY.md");
    let report = fs::read_to_string(&report).context("docs/RELIABILITY.md")?;
    let unknown: Vec<_> = functions
        .iter()
        .filter(|name| !report.contains(name.as_str()))
        .collect();
    ensure!(
        unknown.is_empty(),
        "docs/RELIABILITY.md knows nothing of {unknown:?}: run scripts/reliability"
    );
    Ok(())
}

//! The programs under test.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use crate::servers;

/// Prometheus' tool, which reads rules and metrics.
///
/// # Errors
///
/// When it is not there.
pub fn promtool() -> Result<PathBuf> {
    servers::path("PGB_TEST_PROMTOOL")
}

/// The tool that asks a server all that its description allows.
///
/// # Errors
///
/// When it is not there.
pub fn schemathesis() -> Result<PathBuf> {
    servers::path("PGB_TEST_SCHEMATHESIS")
}

/// What finds fault with files that make container images.
///
/// # Errors
///
/// When it is not there.
pub fn hadolint() -> Result<PathBuf> {
    servers::path("PGB_TEST_HADOLINT")
}

/// What reads Compose files as the specification says.
///
/// # Errors
///
/// When it is not there.
pub fn compose_reader() -> Result<PathBuf> {
    servers::path("PGB_TEST_COMPOSE")
}

/// The command line of Apache Airflow.
///
/// # Errors
///
/// When it is not there.
pub fn airflow() -> Result<PathBuf> {
    servers::path("PGB_TEST_AIRFLOW")
}

/// What compares manifests with the schemas of Kubernetes.
///
/// # Errors
///
/// When it is not there.
pub fn kubernetes_validate() -> Result<PathBuf> {
    servers::path("PGB_TEST_KUBERNETES_VALIDATE")
}

/// One of the workspace's programs, such as `backup-cli`, as built in the profile of this test.
///
/// # Errors
///
/// When it has not been built: cargo builds the programs of a test's own package only.
pub fn binary(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    // Tests lie in `deps`, beside which the programs are; programs of this package are there too.
    let folder = test
        .ancestors()
        .skip(1)
        .find(|folder| !folder.ends_with("deps"))
        .context("a test program lies in a folder")?;
    let path = folder.join(name);
    ensure!(
        path.exists(),
        "{} is not built: run cargo build --workspace --bins",
        path.display()
    );
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_says_how_to_build_it() {
        let error = binary("no-such-program").unwrap_err().to_string();
        assert!(error.contains("cargo build"), "{error}");
    }
}

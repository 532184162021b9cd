//! Where the servers are.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

/// The path that `scripts/test-servers` printed for `key`.
pub(crate) fn path(key: &str) -> Result<PathBuf> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the servers' places are the test runner's business, not the product's configuration"
    )]
    let value = std::env::var_os(key);
    let path = PathBuf::from(value.with_context(|| {
        format!(
            "{key} is not set: run ./scripts/test, or export what ./scripts/test-servers prints"
        )
    })?);
    ensure!(
        path.exists(),
        "{key} names {}, which does not exist",
        path.display()
    );
    Ok(path)
}

/// The folder for everything that fixtures write, if the runner chose one.
pub(crate) fn scratch_base() -> PathBuf {
    #[expect(
        clippy::disallowed_methods,
        reason = "the test runner says where scratch data goes"
    )]
    let chosen = std::env::var_os("PGB_TEST_TMP");
    chosen.map_or_else(std::env::temp_dir, PathBuf::from)
}

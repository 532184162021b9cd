//! The environment of a child.

use std::any::Any;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::sync::Arc;

/// The whole environment of a child: nothing is inherited.
#[derive(Clone, Default)]
pub struct ToolEnv {
    vars: Vec<(OsString, OsString)>,
    /// Lives as long as any child may need it.
    kept: Option<Arc<dyn Any + Send + Sync>>,
}

impl fmt::Debug for ToolEnv {
    /// Names only: a value may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.vars.iter().map(|(name, _)| name);
        f.debug_list().entries(names).finish()
    }
}

impl ToolEnv {
    /// The same with one more variable.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.vars.retain(|(known, _)| known != name);
        self.vars.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// The same with something that must not go before the last child, such as a file that a
    /// variable names.
    #[must_use]
    pub fn keeping(mut self, kept: Arc<dyn Any + Send + Sync>) -> Self {
        self.kept = Some(kept);
        self
    }

    /// The variables.
    pub fn vars(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.vars
            .iter()
            .map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }
}

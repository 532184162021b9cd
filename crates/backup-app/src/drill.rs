//! What a drill of one source runs on, and what it asks.

use std::sync::Arc;
use std::time::Duration;

use backup_core::backup::SourceName;
use backup_core::drill::{Assertion, DrillServer};
use backup_core::engine::DrillOptions;
use backup_pg_process::{DrillCluster, DrillClusterConfig, PgInspector};

use crate::App;
use crate::connection::tools;
use crate::error::AppError;

/// One drill, ready to run.
#[derive(Debug)]
pub struct DrillSetup {
    /// Gives the server.
    pub server: Box<dyn DrillServer>,
    /// How.
    pub options: DrillOptions,
    /// How long it may take altogether.
    pub timeout: Duration,
}

impl App {
    /// The server and the questions for a drill of `source`.
    ///
    /// # Errors
    /// When the settings make no sense.
    pub fn drill(&self, source: &SourceName) -> Result<DrillSetup, AppError> {
        let settings = &self.config().drill;
        let about = settings.assertions.iter();
        let about = about.filter(|assertion| assertion.source == source.as_str());
        let options = DrillOptions {
            jobs: self.jobs(None)?,
            assertions: about
                .map(|assertion| Assertion {
                    sql: assertion.sql.clone(),
                    timeout: settings.assertion_timeout,
                })
                .collect(),
            inspector: Arc::new(PgInspector),
        };
        let own = self.server_of(source.as_str());
        let own = own.and_then(|name| self.config().server.get(&name));
        let mut locator = tools(own, self.environment());
        if let Some(directory) = &settings.bin_dir {
            locator.bin_dirs.insert(0, directory.clone());
        }
        let server = DrillCluster::new(DrillClusterConfig {
            tools: locator,
            directory: settings.directory.clone(),
            account: settings.user.clone(),
            extensions: settings.extensions.clone(),
        });
        Ok(DrillSetup {
            server: Box::new(server),
            options,
            timeout: settings.timeout,
        })
    }
}

//! What a drill of one source runs on, and what it asks.

use std::sync::Arc;
use std::time::Duration;

use backup_core::backup::SourceName;
use backup_core::drill::{Assertion, DrillServer};
use backup_core::engine::DrillOptions;
use backup_pg_process::{DrillCluster, DrillClusterConfig, PgInspector, StandingServer};

use crate::App;
use crate::connection::{ServerOverrides, tools};
use crate::error::AppError;
use crate::families::is_about;

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
        let about = about.filter(|assertion| is_about(&assertion.source, source.as_str()));
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
        Ok(DrillSetup {
            server: self.drill_server(source)?,
            options,
            timeout: settings.timeout,
        })
    }

    fn drill_server(&self, source: &SourceName) -> Result<Box<dyn DrillServer>, AppError> {
        let settings = &self.config().drill;
        let servers = &self.config().server;
        if let Some(name) = &settings.server {
            let server = servers.get(name);
            let connection = ServerOverrides::default().connection(server, self.environment())?;
            return Ok(Box::new(StandingServer {
                name: name.clone(),
                connection,
                tools: tools(server, self.environment()),
                production: server.is_some_and(|server| server.production),
            }));
        }
        let own = self.server_of(source.as_str());
        let own = own.and_then(|name| servers.get(&name));
        let mut locator = tools(own, self.environment());
        if let Some(directory) = &settings.bin_dir {
            locator.bin_dirs.insert(0, directory.clone());
        }
        Ok(Box::new(DrillCluster::new(DrillClusterConfig {
            tools: locator,
            directory: settings.directory.clone(),
            account: settings.user.clone(),
            extensions: settings.extensions.clone(),
        })))
    }
}

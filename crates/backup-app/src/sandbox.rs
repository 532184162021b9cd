//! Where sandboxes are made, and how many.

use backup_core::sandbox::SandboxLimits;
use backup_pg_process::PgSandboxes;

use crate::compose::App;
use crate::connection::ServerOverrides;
use crate::error::AppError;

/// A server for sandboxes, with what people may have there.
#[derive(Debug)]
pub struct SandboxSetup {
    /// Makes and drops them.
    pub server: PgSandboxes,
    /// The limits.
    pub limits: SandboxLimits,
    /// Parts at the same time.
    pub jobs: usize,
}

impl App {
    /// The configured server for sandboxes, if there is one.
    ///
    /// # Errors
    /// When its settings make no sense.
    pub fn sandboxes(&self) -> Result<Option<SandboxSetup>, AppError> {
        let settings = &self.config().sandbox;
        let Some(name) = &settings.server else {
            return Ok(None);
        };
        let server = self.config().server.get(name);
        let overrides = ServerOverrides::default();
        let connection = overrides.connection(server, self.environment())?;
        let admin = overrides.admin(&connection, server, self.environment())?;
        let target = self.restore_target(Some(name))?;
        let production = server.is_some_and(|server| server.production);
        Ok(Some(SandboxSetup {
            server: PgSandboxes::new(name, target.restorer, admin, production),
            limits: SandboxLimits {
                per_person: settings.per_person,
                total: settings.total,
                max_bytes: settings.max_size.bytes(),
                ttl: settings.ttl,
            },
            jobs: target.jobs,
        }))
    }
}

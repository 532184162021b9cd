//! [`DrillCluster`]: a PostgreSQL cluster that is made for one drill and thrown away.
//!
//! It runs under an account of its own when we are root, listens on nothing but a socket in a
//! private directory, asks everybody for a password that nobody knows, and is kept away from every
//! network where the system lets us. The restore logs in as a role that is no superuser, because a
//! backup runs code of whoever owned its objects.

mod ask;
mod globals;
mod host;
mod owners;
mod postmaster;
mod standing;
mod structure;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use backup_core::drill::{
    Answer, Assertion, DrillServer, DrillSession, ServerFacts, StructureReport,
};
use backup_core::error::{ErrorKind, PortError};
use backup_core::manifest::Manifest;
use backup_core::restorer::Restorer;
use tokio_util::sync::CancellationToken;

pub use standing::StandingServer;

use crate::{PgRestorer, PgRestorerConfig, Rehearsal, ToolLocator};
use host::Host;
use owners::WithOwners;
use postmaster::{Postmaster, Roles};

/// Extensions that only a superuser may make, and that neither reach out of the server nor run
/// programs: a drill makes them unasked, as it does those that are marked as trusted.
pub(crate) const HARMLESS_EXTENSIONS: &[&str] = &[
    "amcheck",
    "bloom",
    "earthdistance",
    "intagg",
    "pageinspect",
    "pg_buffercache",
    "pg_freespacemap",
    "pg_prewarm",
    "pg_stat_statements",
    "pg_surgery",
    "pg_visibility",
    "pg_walinspect",
    "pgrowlocks",
    "pgstattuple",
    "postgis",
    "sslinfo",
    "vector",
    "xml2",
];

/// How to make clusters.
#[derive(Debug, Clone)]
pub struct DrillClusterConfig {
    /// Where the programs are.
    pub tools: ToolLocator,
    /// Where its directory is made, which will hold the whole database; among temporary files if
    /// absent.
    pub directory: Option<PathBuf>,
    /// The account that it runs as when we are root: `postgres` if absent, else `nobody`.
    pub account: Option<String>,
    /// Extensions that may be made besides those that are trusted or harmless.
    pub extensions: Vec<String>,
}

/// Makes a cluster for each drill.
#[derive(Debug, Clone)]
pub struct DrillCluster {
    config: DrillClusterConfig,
}

impl DrillCluster {
    /// Clusters as `config` says; nothing is made before the first drill.
    #[must_use]
    pub fn new(config: DrillClusterConfig) -> Self {
        Self { config }
    }
}

#[async_trait]
impl DrillServer for DrillCluster {
    async fn start(
        &self,
        backup: &Manifest,
        jobs: usize,
        cancel: &CancellationToken,
    ) -> Result<Box<dyn DrillSession>, PortError> {
        let major = leading_number(&backup.server_version);
        let located = self.config.tools.locate_server(major, cancel).await?;
        let Some((bin_dir, tools)) = located else {
            return Err(no_programs(major, &self.config.tools, cancel).await);
        };
        // It may wait for the processes of a dead drill.
        let config = self.config.clone();
        let bytes = backup.totals.raw_bytes;
        let prepare = move || {
            let (directory, account) = (config.directory.as_deref(), config.account.as_deref());
            Host::prepare(directory, account, bytes)
        };
        let host = tokio::task::spawn_blocking(prepare).await.map_err(|e| {
            PortError::new(ErrorKind::Internal, "the preparation died").with_source(e)
        })??;
        let account = host.account_name();
        let roles = Roles::new();
        let postmaster = Postmaster::start(host, &bin_dir, (&roles, jobs), cancel).await?;
        let facts = ServerFacts {
            kind: "a throw-away cluster".to_owned(),
            server_version: tools.version.to_string(),
            tool_version: tools.version.to_string(),
            account,
            network: Some(postmaster.has_network()),
        };
        let allowed = HARMLESS_EXTENSIONS.iter().map(ToString::to_string);
        let allowed: BTreeSet<String> = allowed.chain(self.config.extensions.clone()).collect();
        let rehearsal = Rehearsal::new(postmaster.admin(&roles), &roles.helper, allowed);
        let mut config = PgRestorerConfig::new(postmaster.login(&roles), self.config.tools.clone());
        config.rehearsal = Some(rehearsal.clone());
        config.work_dir = Some(postmaster.private_directory().to_owned());
        Ok(Box::new(Session {
            facts,
            restorer: WithOwners {
                inner: PgRestorer::new(config),
                rehearsal,
                login: roles.login.clone(),
            },
            postmaster: Mutex::new(Some(postmaster)),
            database: database_for(&backup.database),
            roles,
            jobs,
        }))
    }
}

#[derive(Debug)]
struct Session {
    facts: ServerFacts,
    database: String,
    restorer: WithOwners,
    /// Until it is stopped.
    postmaster: Mutex<Option<Postmaster>>,
    roles: Roles,
    jobs: usize,
}

#[async_trait]
impl DrillSession for Session {
    fn facts(&self) -> &ServerFacts {
        &self.facts
    }

    fn database(&self) -> &str {
        &self.database
    }

    fn restorer(&self) -> &dyn Restorer {
        &self.restorer
    }

    fn left_out(&self) -> Vec<String> {
        self.restorer.rehearsal.left_out()
    }

    async fn check(&self, cancel: &CancellationToken) -> Result<StructureReport, PortError> {
        let check = structure::Check {
            rehearsal: self.restorer.rehearsal.clone(),
            login: self.restorer.connection().clone(),
            database: self.database.clone(),
            schema: self.roles.helper.clone(),
            jobs: self.jobs.max(1),
        };
        tokio::select! {
            done = check.run() => Ok(done?),
            () = cancel.cancelled() => Err(PortError::cancelled()),
        }
    }

    async fn ask(
        &self,
        assertion: &Assertion,
        cancel: &CancellationToken,
    ) -> Result<Answer, PortError> {
        let connection = self.restorer.connection();
        tokio::select! {
            done = ask::ask(connection, &self.database, assertion) => Ok(done?),
            () = cancel.cancelled() => Err(PortError::cancelled()),
        }
    }

    async fn stop(&self) -> Result<(), PortError> {
        let postmaster = self
            .postmaster
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match postmaster {
            Some(postmaster) => postmaster.stop().await,
            None => Ok(()),
        }
    }
}

/// The name that the database had, unless a new cluster has one of that name.
fn database_for(name: &str) -> String {
    match name {
        "postgres" | "template0" | "template1" => "drill".to_owned(),
        name => name.to_owned(),
    }
}

async fn no_programs(major: u32, tools: &ToolLocator, cancel: &CancellationToken) -> PortError {
    let installed = tools.installed(cancel).await.unwrap_or_default();
    let clients: BTreeSet<String> = installed.iter().map(|t| t.version.to_string()).collect();
    let found = if clients.is_empty() {
        "no programs of PostgreSQL were found".to_owned()
    } else {
        let clients: Vec<String> = clients.into_iter().collect();
        format!("client programs were found of {}", clients.join(", "))
    };
    PortError::new(
        ErrorKind::ToolMissing,
        format!("no server programs of PostgreSQL {major} or newer are installed: {found}"),
    )
    .with_hint(format!(
        "install the server (postgresql-{major} on Debian, postgresql{major}-server on Red Hat; it \
         need not run), or name the directory with initdb and postgres in bin_dir of [drill]"
    ))
}

fn leading_number(version: &str) -> u32 {
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_keeps_its_name_unless_it_is_taken() {
        for (name, expected) in [
            ("shop", "shop"),
            ("a \"b\"", "a \"b\""),
            ("postgres", "drill"),
        ] {
            assert_eq!(database_for(name), expected);
        }
    }

    #[tokio::test]
    async fn without_server_programs_somebody_is_told_what_to_install() {
        let empty = tempfile::tempdir().unwrap();
        let tools = ToolLocator::only_in([empty.path().to_owned()]);
        let cancel = CancellationToken::new();
        assert!(tools.locate_server(18, &cancel).await.unwrap().is_none());
        let error = no_programs(18, &tools, &cancel).await;
        assert_eq!(error.kind(), ErrorKind::ToolMissing);
        assert!(
            error.to_string().contains("PostgreSQL 18 or newer"),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("postgresql-18"));
    }
}

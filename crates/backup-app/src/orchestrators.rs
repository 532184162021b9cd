//! What the configuration says, for those who run backups instead of a server.

use std::path::{Path, PathBuf};

use backup_config::{Config, SecretRef};
use backup_core::run_record::Operation;
use backup_generate::{
    Generated, Opens, Orchestrator, Plan, PlannedSource, PlannedUpkeep, Secret, SecretPlace, When,
    generate,
};

use crate::compose::App;
use crate::error::AppError;
use crate::schedules::Scheduled;

/// Where the programs of others find ours.
#[derive(Debug, Clone)]
pub struct Installation {
    /// The command line program.
    pub program: String,
    /// The image with both programs.
    pub image: String,
    /// The configuration file, instead of the one that is in force.
    pub config: Option<PathBuf>,
}

impl App {
    /// The files by which somebody else runs what is configured.
    ///
    /// # Errors
    /// When a path has no text.
    pub fn generate(
        &self,
        orchestrator: Orchestrator,
        installation: &Installation,
    ) -> Result<Generated, AppError> {
        let config = match &installation.config {
            Some(path) => Some(path.clone()),
            None => Config::file_in_use(self.environment()),
        };
        let config = config.map(|path| absolute(&path)).transpose()?;
        Ok(generate(
            orchestrator,
            &self.plan(installation, config, &self.schedules()?),
        ))
    }

    fn plan(
        &self,
        installation: &Installation,
        config: Option<String>,
        schedules: &[Scheduled],
    ) -> Plan {
        let sources = self.config().source.iter().map(|(name, source)| {
            let values = self.config().resolved(source).values;
            let own = |one: &&Scheduled| one.source.as_ref() == Some(name);
            PlannedSource {
                name: name.clone(),
                when: schedules
                    .iter()
                    .find(own)
                    .map(|one| when(one, values.jitter.as_secs())),
                timeout_seconds: values.timeout.as_secs(),
            }
        });
        let jitter = self.config().defaults.jitter.as_secs();
        let upkeep = schedules
            .iter()
            .filter(|one| one.operation != Operation::Backup);
        let upkeep = upkeep.map(|one| PlannedUpkeep {
            operation: one.operation.to_string(),
            when: when(one, jitter),
        });
        Plan {
            program: installation.program.clone(),
            image: installation.image.clone(),
            config,
            sources: sources.collect(),
            upkeep: upkeep.collect(),
            secrets: secrets(self.config()),
            directories: directories(self.config()),
            is_reachable: {
                let http = &self.config().server_http;
                http.tls_cert.is_some() || http.behind_tls_proxy
            },
        }
    }
}

fn when(scheduled: &Scheduled, jitter_seconds: u64) -> When {
    let job = &scheduled.job;
    When {
        expression: job.schedule.to_string(),
        zone: job.schedule.zone().name().to_owned(),
        catches_up: job.catch_up > chrono::TimeDelta::zero(),
        jitter_seconds,
    }
}

fn absolute(path: &Path) -> Result<String, AppError> {
    let found = std::path::absolute(path).map_err(|source| AppError::File {
        operation: format!("find {}", path.display()),
        source,
    })?;
    let text = found.into_os_string().into_string();
    text.map_err(|_| AppError::usage("the path of the configuration file is no text"))
}

/// Where secrets are. What a program prints needs no help.
fn secrets(config: &Config) -> Vec<Secret> {
    let mut found = Vec::new();
    let mut add = |opens: Opens, reference: Option<&SecretRef>| {
        let place = match reference {
            Some(SecretRef::File(path)) => SecretPlace::File(path.display().to_string()),
            Some(SecretRef::Env(name)) => SecretPlace::Variable(name.clone()),
            Some(SecretRef::Credential(name)) => SecretPlace::Credential(name.clone()),
            Some(SecretRef::Command(_)) | None => return,
        };
        found.push(Secret { opens, place });
    };
    for (name, server) in &config.server {
        add(Opens::Server(name.clone()), server.password.as_ref());
        let admin = server.admin.as_ref();
        add(
            Opens::Restores,
            admin.and_then(|admin| admin.password.as_ref()),
        );
    }
    for source in config.source.values() {
        add(Opens::Other, source.password.as_ref());
    }
    for notifier in config.notify.values() {
        let own = [
            &notifier.password,
            &notifier.url,
            &notifier.secret,
            &notifier.token,
        ];
        for secret in own {
            add(Opens::Other, secret.as_ref());
        }
    }
    let bot = config.telegram_bot.as_ref();
    add(Opens::Serving, bot.map(|bot| &bot.token));
    for (name, destination) in &config.destination {
        let (id, key) = (
            destination.access_key_id.as_ref(),
            destination.secret_access_key.as_ref(),
        );
        add(Opens::DestinationId(name.clone()), id);
        add(Opens::DestinationKey(name.clone()), key);
        for other in [
            &destination.session_token,
            &destination.service_account,
            &destination.access_key,
            &destination.sas_token,
        ] {
            add(Opens::Other, other.as_ref());
        }
    }
    add(Opens::Restores, config.encryption.identities.as_ref());
    found
}

fn directories(config: &Config) -> Vec<(String, String)> {
    let destinations = config.destination.iter();
    let directories = destinations.filter_map(|(name, destination)| {
        let path = destination.url.strip_prefix("file://")?;
        Some((name.clone(), path.to_owned()))
    });
    directories.collect()
}

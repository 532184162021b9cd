//! What would keep backups and restores from working here, in the form that JSON and text share.
//! Every part is looked at by itself, and what does not answer keeps no other from being looked at.

mod local;
mod members;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use backup_config::{EncryptionMode, SourceConfig, SourceKind, names};
use backup_core::backup::SourceName;
use backup_core::clock::Clock as _;
use backup_core::doctor::{Finding, Level, StoreTrial, examine_store, worst};
use backup_core::error::chain;
use backup_pg_process::{PgDoctor, PgDoctorConfig};
use chrono::{DateTime, Utc};
use futures::future::join_all;
use futures::stream::{self, StreamExt as _};
use serde::Serialize;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::clock::SystemClock;
use crate::compose::App;
use crate::connection::tools;
use crate::error::AppError;
use crate::place::Place;
use crate::text::{as_time, as_word};

/// How long one part may take.
const LIMIT: Duration = Duration::from_secs(30);
/// Databases that are looked at at the same time: each takes sessions of a server.
const AT_ONCE: usize = 4;
/// For how long a store is asked again that does not answer, so that it can be told why.
const RETRY: Duration = Duration::from_secs(8);

/// Everything that was looked at.
#[derive(Debug, Serialize)]
pub struct DoctorReport {
    /// The worst of all.
    #[serde(serialize_with = "as_word")]
    pub status: Level,
    /// When.
    #[serde(serialize_with = "as_time")]
    pub checked_at: DateTime<Utc>,
    /// One for each server's database, each destination, the keys and this machine.
    pub sections: Vec<DoctorSection>,
}

/// One part of it.
#[derive(Debug, Serialize)]
pub struct DoctorSection {
    /// `server`, `destination`, `keys` or `machine`.
    pub section: &'static str,
    /// Of the source, or of the destination.
    pub name: Option<String>,
    /// The worst of its findings.
    #[serde(serialize_with = "as_word")]
    pub status: Level,
    /// What was found.
    pub findings: Vec<DoctorFinding>,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the documented JSON")]
pub struct DoctorFinding {
    pub id: &'static str,
    #[serde(serialize_with = "as_word")]
    pub level: Level,
    pub message: String,
    pub remedy: Option<String>,
}

impl DoctorSection {
    fn new(section: &'static str, name: Option<String>, findings: Vec<Finding>) -> Self {
        let status = worst(&findings);
        let view = |finding: Finding| DoctorFinding {
            id: finding.id,
            level: finding.level,
            message: finding.message,
            remedy: finding.remedy,
        };
        Self {
            section,
            name,
            status,
            findings: findings.into_iter().map(view).collect(),
        }
    }
}

/// What is backed up: a configured source, or the database that flags and variables name.
struct Examined {
    name: String,
    settings: SourceConfig,
    is_configured: bool,
}

impl App {
    /// Looks at these sources, or at all that are configured, at the places where their backups go,
    /// at the keys and at this machine.
    ///
    /// # Errors
    /// When a name or a setting makes no sense; what does not work is in the report.
    pub async fn doctor(
        &self,
        asked: &[String],
        cancel: &CancellationToken,
    ) -> Result<DoctorReport, AppError> {
        let checked_at = SystemClock.now();
        let examined = self.examined(asked)?;
        let (examined, families) = self.with_members(examined, cancel).await;
        let servers = stream::iter(&examined)
            .map(|source| self.examine_server(source, cancel))
            .buffered(AT_ONCE);
        let (places, nowhere) = self.places_examined(&examined);
        let trials = join_all(
            places
                .values()
                .map(|place| self.examine_place(place, &examined, cancel)),
        );
        let machine = self.examine_machine(&examined, cancel);
        let (servers, mut trials, machine) =
            tokio::join!(servers.collect::<Vec<_>>(), trials, machine);
        self.compare_repositories(&examined, &mut trials);
        let mut sections = families;
        sections.extend(servers);
        if sections.is_empty() {
            sections.push(DoctorSection::new("server", None, vec![no_source()]));
        }
        if !nowhere.is_empty() {
            sections.push(DoctorSection::new("destination", None, nowhere));
        }
        sections.extend(
            trials
                .into_iter()
                .map(|(name, findings, _)| DoctorSection::new("destination", Some(name), findings)),
        );
        sections.push(DoctorSection::new(
            "keys",
            None,
            self.examine_keys(&examined),
        ));
        sections.push(machine);
        let levels = sections.iter().map(|section| section.status);
        Ok(DoctorReport {
            status: levels.max().unwrap_or(Level::Ok),
            checked_at,
            sections,
        })
    }

    fn examined(&self, asked: &[String]) -> Result<Vec<Examined>, AppError> {
        let names = if asked.is_empty() {
            self.sources()
        } else {
            asked.to_vec()
        };
        let variable = match names.as_slice() {
            [] => self.database_variable()?,
            _ => None,
        };
        let given = self.overrides().database.as_deref();
        if let Some(database) = given.or(variable) {
            return Ok(vec![Examined {
                name: database.to_owned(),
                settings: SourceConfig::default(),
                is_configured: false,
            }]);
        }
        let source = |name: String| {
            let settings = match self.config().settings_of(&name) {
                Some(settings) => settings.clone(),
                None => self.config().source(&name)?.clone(),
            };
            Ok(Examined {
                name,
                settings,
                is_configured: true,
            })
        };
        names.into_iter().map(source).collect()
    }

    async fn examine_server(&self, source: &Examined, cancel: &CancellationToken) -> DoctorSection {
        let mut findings = Vec::new();
        if source.settings.kind == SourceKind::Redis {
            match self.redis_connection(&source.settings) {
                Ok(connection) => {
                    let tools = self.redis_tools(Some(&source.settings));
                    let work = backup_redis_process::probe(&connection, &tools, cancel);
                    findings = timeout(LIMIT, work)
                        .await
                        .unwrap_or_else(|_| vec![silent()]);
                }
                Err(error) => findings.push(failed("connection-settings", &error)),
            }
            return DoctorSection::new("server", Some(source.name.clone()), findings);
        }
        match self.server_doctor(source) {
            Ok(doctor) => {
                let work = doctor.examine(&SystemClock, &mut findings, cancel);
                if timeout(LIMIT, work).await.is_err() {
                    findings.push(silent());
                }
            }
            Err(error) => findings.push(failed("connection-settings", &error)),
        }
        DoctorSection::new("server", Some(source.name.clone()), findings)
    }

    fn server_doctor(&self, source: &Examined) -> Result<PgDoctor, AppError> {
        let settings = &source.settings;
        let server = settings.server.as_ref();
        let server = server.and_then(|name| self.config().server.get(name));
        let given = &self.overrides().server;
        let connection = given.connection(server, self.environment())?;
        // Of one that does not tell its databases, the one where they are asked for.
        let database = match (settings.is_family(), source.name.split_once('/')) {
            (true, Some((_, database))) => database,
            (true, None) => &connection.maintenance_database,
            // One database is as good as any to ask how the server is configured.
            (false, _) if settings.kind == SourceKind::ServerConfig => {
                &connection.maintenance_database
            }
            (false, _) => settings.database.as_ref().unwrap_or(&source.name),
        };
        Ok(PgDoctor::new(PgDoctorConfig {
            database: database.to_owned(),
            connection,
            tools: tools(server, self.environment()),
            jobs: self.jobs(settings.jobs)?,
            filter: self.dump_filter(settings),
        }))
    }

    /// The places of these sources, each once, and why a backup would go to none.
    fn places_examined(&self, sources: &[Examined]) -> (BTreeMap<String, Place>, Vec<Finding>) {
        let mut places = BTreeMap::new();
        let mut nowhere: Vec<Finding> = Vec::new();
        let mut add = |found: Result<Vec<Place>, AppError>| match found {
            Ok(found) => places.extend(found.into_iter().map(|place| (place.name.clone(), place))),
            Err(error) => {
                let finding = failed("no-destination", &error);
                if !nowhere.contains(&finding) {
                    nowhere.push(finding);
                }
            }
        };
        if sources.is_empty() {
            add(self.places());
        }
        for source in sources {
            add(self.places_of_examined(source));
            if source.is_configured {
                // Of what is read every place counts; what is written wants to be told.
                let name = source.name.split_once('/').map_or(&*source.name, |of| of.0);
                let name = SourceName::new(name).map_err(|e| AppError::usage(e.to_string()));
                add(name.and_then(|name| self.places_for(&source.settings, &name)));
            }
        }
        (places, nowhere)
    }

    fn places_of_examined(&self, source: &Examined) -> Result<Vec<Place>, AppError> {
        let name = SourceName::new(&source.name).map_err(|e| AppError::usage(e.to_string()))?;
        if source.is_configured {
            self.places_of_source(&name)
        } else {
            self.places()
        }
    }

    /// What was found of a place, and the id of the repository there.
    async fn examine_place(
        &self,
        place: &Place,
        sources: &[Examined],
        cancel: &CancellationToken,
    ) -> (String, Vec<Finding>, Option<String>) {
        let mut findings = Vec::new();
        let mut repository = None;
        let mut hasty = place.clone();
        let patience = hasty.settings.retry_timeout.unwrap_or(RETRY).min(RETRY);
        hasty.settings.retry_timeout = Some(patience);
        let root = place.local_root(self.environment());
        let goes_on = root.is_none_or(|root| {
            let limit = self.config().defaults.warn_used_percent;
            local::directory(&root, limit, &mut findings)
        });
        if goes_on {
            findings.extend(self.room(place, sources));
        }
        match hasty.open(self.environment()) {
            Ok(store) if goes_on => {
                let work = examine_store(store.as_ref(), &SystemClock, &mut findings, cancel);
                match timeout(LIMIT, work).await {
                    Ok(StoreTrial { repository: found }) => repository = found,
                    Err(_) => findings.push(silent()),
                }
            }
            Ok(_) => {}
            Err(error) => findings.push(failed("destination-settings", &error)),
        }
        (place.name.clone(), findings, repository)
    }

    /// Copies between places with one id are known to belong together.
    fn compare_repositories(
        &self,
        sources: &[Examined],
        trials: &mut [(String, Vec<Finding>, Option<String>)],
    ) {
        let mut told = BTreeSet::new();
        for source in sources {
            let places = self.places_of_examined(source).unwrap_or_default();
            let mut first: Option<(String, String)> = None;
            for place in places {
                let found = trials.iter_mut().find(|(name, ..)| *name == place.name);
                let Some((name, findings, Some(id))) = found else {
                    continue;
                };
                match &first {
                    None => first = Some((name.clone(), id.clone())),
                    Some((other, known)) if known != id && told.insert(name.clone()) => {
                        let text = format!(
                            "it is another repository than that of {other}, where backups of {} \
                             go too: what is copied from one to the other gives a warning",
                            source.name
                        );
                        let remedy = "nothing, if both had backups before; an empty place takes \
                                      the id of the others";
                        findings.push(Finding::note("different-repositories", text).remedy(remedy));
                    }
                    Some(_) => {}
                }
            }
        }
    }

    /// The keys of all sources; where some have their own, each finding says whose it is.
    fn examine_keys(&self, sources: &[Examined]) -> Vec<Finding> {
        let mut groups: BTreeMap<(bool, Vec<String>), Vec<&str>> = BTreeMap::new();
        for source in sources {
            let own = source.is_configured.then_some(&source.settings);
            let names = groups.entry(self.encryption_of(own)).or_default();
            names.push(&source.name);
        }
        if groups.is_empty() {
            groups.insert(self.encryption_of(None), Vec::new());
        }
        let several = groups.len() > 1;
        let (mut findings, mut recipients) = (Vec::new(), Vec::new());
        for ((off, keys), names) in groups {
            let (mut found, texts) = local::encryption(off, &keys);
            if several {
                let finding =
                    |f: &mut Finding| f.message = format!("{}: {}", names.join(", "), f.message);
                found.iter_mut().for_each(finding);
            }
            findings.extend(found);
            recipients.extend(texts);
        }
        match self.loaded_identities() {
            Ok(identities) => {
                let own = identities.recipients().to_texts();
                findings.extend(local::identities(&own, &recipients, recipients.is_empty()));
            }
            Err(error) => findings.push(failed("identity-unreadable", &error)),
        }
        findings
    }

    /// Whether backups of a source are not encrypted, and to whom they are else.
    fn encryption_of(&self, source: Option<&SourceConfig>) -> (bool, Vec<String>) {
        let settings = self.settings(source);
        let asked = !self.overrides().recipients.is_empty();
        let off =
            self.overrides().no_encryption || (!asked && settings.mode == EncryptionMode::None);
        (off, settings.recipients)
    }

    /// What a backup refuses before it begins.
    fn room(&self, place: &Place, sources: &[Examined]) -> Option<Finding> {
        let goes_there = |source: &&Examined| {
            let places = self.places_of_examined(source).unwrap_or_default();
            places.iter().any(|known| known.name == place.name)
        };
        let mut wanted = sources.iter().filter(goes_there).map(|source| {
            let own = source.is_configured.then_some(&source.settings);
            self.settings(own).values.min_free_space
        });
        let refused = wanted.find_map(|size| place.check_room(self.environment(), size).err());
        refused.map(|error| failed("too-little-room", &error))
    }

    /// The programs that run around backups of these sources, and whether one that is lacking
    /// keeps a backup from being taken.
    fn hooks_of(&self, sources: &[Examined]) -> BTreeMap<String, bool> {
        let mut programs = BTreeMap::new();
        for source in sources.iter().filter(|source| source.is_configured) {
            let hooks = self.settings(Some(&source.settings)).hooks;
            let others = hooks.after_backup.iter().chain(&hooks.on_failure);
            let others = others.map(|argv| (argv, false));
            for (argv, is_needed) in hooks
                .before_backup
                .iter()
                .map(|argv| (argv, true))
                .chain(others)
            {
                if let Some(program) = argv.first() {
                    *programs.entry(program.clone()).or_default() |= is_needed;
                }
            }
        }
        programs
    }

    async fn examine_machine(
        &self,
        sources: &[Examined],
        cancel: &CancellationToken,
    ) -> DoctorSection {
        let mut locator = tools(None, self.environment());
        let servers = self.config().server.values();
        locator.bin_dirs = servers
            .filter_map(|server| server.bin_dir.clone())
            .collect();
        let mut findings = Vec::new();
        let installed = timeout(LIMIT, locator.installed(cancel));
        match installed.await {
            Ok(Ok(installed)) => findings.push(local::programs(&installed)),
            Ok(Err(_)) | Err(_) => findings.push(silent()),
        }
        findings.extend(local::temporary_directory());
        findings.extend(local::open_files());
        let path = self.environment().get(names::PATH).unwrap_or_default();
        for (program, is_needed) in self.hooks_of(sources) {
            findings.extend(local::hook(&program, path, is_needed));
        }
        DoctorSection::new("machine", None, findings)
    }
}

fn no_source() -> Finding {
    let text = "no source is configured and no database is given, so no server was looked at";
    Finding::note("no-source", text).remedy("configure a [source.NAME], or say -d NAME")
}

fn silent() -> Finding {
    let text = format!(
        "no answer within {} s: the rest was not looked at",
        LIMIT.as_secs()
    );
    let finding = Finding::problem("no-answer", text);
    finding.remedy("see whether it hangs, or a firewall drops what is sent")
}

fn failed(id: &'static str, error: &AppError) -> Finding {
    let finding = Finding::problem(id, chain(error));
    match error.hint() {
        Some(hint) => finding.remedy(hint),
        None => finding,
    }
}

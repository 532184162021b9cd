//! What somebody needs who has lost everything but the places and the private key.

use std::collections::BTreeMap;

use backup_config::DestinationConfig;
use backup_core::backup::SourceName;
use backup_core::catalog::ListRequest;
use backup_core::clock::Clock as _;
use backup_core::error::{Error as CoreError, chain};
use backup_core::history::{HistoryRequest, Proofs};
use backup_core::manifest::{Content, Manifest};
use serde::Serialize;

use crate::clock::SystemClock;
use crate::compose::App;
use crate::error::AppError;
use crate::place::Place;
use crate::text::{shell_word, shown, time};

/// A sheet to print, and to keep with the private key. It has no secret on it.
#[derive(Debug, Clone, Serialize)]
pub struct RecoverySheet {
    /// When it was made.
    pub made_at: String,
    /// By which release.
    pub tool_version: &'static str,
    /// The newest major of PostgreSQL among the servers; whose programs read all backups.
    pub newest_major: Option<u32>,
    /// Public keys whose private ones open the newest backup of every source that is encrypted.
    pub opens_all: Vec<String>,
    /// Where backups are.
    pub places: Vec<PlaceSheet>,
    /// What there is of each source.
    pub sources: Vec<SourceSheet>,
}

/// How to reach one place.
#[derive(Debug, Clone, Serialize)]
pub struct PlaceSheet {
    /// Its name.
    pub name: String,
    /// Its URL.
    pub url: String,
    /// What to set before; values that are secret are not there.
    pub variables: Vec<(&'static str, Option<String>)>,
    /// Why it could not be read now.
    pub error: Option<String>,
}

/// What there is of one source.
#[derive(Debug, Clone, Serialize)]
pub struct SourceSheet {
    /// Its name.
    pub source: String,
    /// The database.
    pub database: String,
    /// How many backups there are.
    pub backups: usize,
    /// The newest one.
    pub newest: String,
    /// When that was taken.
    pub started_at: String,
    /// Its size when it is restored, in COPY text.
    pub raw_bytes: u64,
    /// Its size as it is stored.
    pub stored_bytes: u64,
    /// What it is a backup of.
    pub content: &'static str,
    /// Of which server.
    pub server_version: String,
    /// Public keys whose private ones open it; none where it is in the clear.
    pub recipients: Vec<String>,
    /// Whether it can be read without a key.
    pub is_clear: bool,
    /// The newest backup of which every byte was found good, and when.
    pub proved: Option<(String, String)>,
    /// The place that the commands read.
    pub place: String,
    /// Proves what is stored.
    pub verify: String,
    /// Brings it back, beside whatever is there.
    pub restore: String,
}

/// The newest backup of a source, at the place where it was found first.
struct Newest {
    manifest: Manifest,
    place: Place,
    count: usize,
    proved: Option<(String, String)>,
}

impl App {
    /// The sheet, of what the places have now. A place that cannot be read is on it, with the reason.
    ///
    /// # Errors
    /// When the settings make no sense, or no place has a backup: such a sheet would help nobody.
    pub async fn recovery_sheet(&self) -> Result<RecoverySheet, AppError> {
        let mut newest = BTreeMap::new();
        let mut places = Vec::new();
        for place in self.places()? {
            let read = self.newest_at(&place, &mut newest).await;
            let error = read.err().map(|error| shown(&chain(&error)));
            places.push(place_sheet(&place, error));
        }
        if newest.is_empty() {
            let what = "backup at any place".to_owned();
            return Err(CoreError::NotFound { what }.into());
        }
        let databases = newest.values().map(|one| &one.manifest);
        let databases = databases.filter(|manifest| manifest.content() == Content::Database);
        let majors = databases.filter_map(major);
        Ok(RecoverySheet {
            made_at: time(SystemClock.now()),
            tool_version: env!("CARGO_PKG_VERSION"),
            newest_major: majors.max(),
            opens_all: opens_all(newest.values().map(|one| &one.manifest)),
            places,
            sources: newest.into_values().map(source_sheet).collect(),
        })
    }

    async fn newest_at(
        &self,
        place: &Place,
        newest: &mut BTreeMap<SourceName, Newest>,
    ) -> Result<(), AppError> {
        let lister = self.lister(place).await?;
        let listing = lister
            .engine
            .catalog()
            .list(&ListRequest::default())
            .await?;
        let runs = match listing.backups.last() {
            Some(oldest) => {
                let since = Some(oldest.started_at);
                let request = HistoryRequest {
                    since,
                    ..HistoryRequest::default()
                };
                lister.engine.history().list(&request).await?.runs
            }
            None => Vec::new(),
        };
        let proofs = Proofs::new(runs);
        for manifest in listing.backups.iter().filter(|found| !found.filtered) {
            let is_whole = listing.lacking(manifest).is_none() && !proofs.is_damaged(manifest);
            if !is_whole {
                continue;
            }
            let proved = proofs
                .verified_at(manifest)
                .map(|at| (manifest.id.to_string(), time(at)));
            let known = newest
                .entry(manifest.source.clone())
                .or_insert_with(|| Newest {
                    manifest: manifest.clone(),
                    place: place.clone(),
                    count: 0,
                    proved: None,
                });
            if known.manifest.id < manifest.id {
                if known.place.name != place.name {
                    known.count = 0;
                }
                known.manifest = manifest.clone();
                known.place = place.clone();
            }
            // Several places have the same backups: those of the one that is named are counted.
            if known.place.name == place.name {
                known.count += 1;
            }
            // Ids sort by age.
            known.proved = known.proved.take().max(proved);
        }
        Ok(())
    }
}

fn place_sheet(place: &Place, error: Option<String>) -> PlaceSheet {
    PlaceSheet {
        name: place.name.clone(),
        url: place.settings.url.clone(),
        variables: variables(&place.settings),
        error,
    }
}

/// What a machine without the configuration has to be told, in the variables that every program for
/// that service knows.
fn variables(settings: &DestinationConfig) -> Vec<(&'static str, Option<String>)> {
    let mut all = Vec::new();
    match settings
        .url
        .split_once("://")
        .map_or("", |(scheme, _)| scheme)
    {
        "s3" => {
            if let Some(endpoint) = &settings.endpoint {
                all.push(("AWS_ENDPOINT_URL", Some(endpoint.clone())));
            }
            if settings.allow_http == Some(true) {
                all.push(("AWS_ALLOW_HTTP", Some("true".to_owned())));
            }
            if let Some(region) = &settings.region {
                all.push(("AWS_REGION", Some(region.clone())));
            }
            all.push(("AWS_ACCESS_KEY_ID", None));
            all.push(("AWS_SECRET_ACCESS_KEY", None));
        }
        "gs" => all.push(("GOOGLE_APPLICATION_CREDENTIALS", None)),
        "az" => {
            all.push(("AZURE_STORAGE_ACCOUNT_NAME", settings.account.clone()));
            all.push(("AZURE_STORAGE_ACCOUNT_KEY", None));
        }
        _ => {}
    }
    all
}

fn source_sheet(newest: Newest) -> SourceSheet {
    let Newest {
        manifest,
        place,
        count,
        proved,
    } = newest;
    let source = shell_word(manifest.source.as_str());
    let url = shell_word(&place.settings.url);
    let is_clear = manifest.encryption.is_none();
    let key = if is_clear {
        ""
    } else {
        " --identity identity.txt"
    };
    let restore = format!(
        "backup-cli restore {} --source {source} --from {url}{key}",
        manifest.id
    );
    let restore = match manifest.content() {
        Content::Database => {
            let target = shell_word(&manifest.database);
            format!("{restore} \\\n    -h HOST -U USER --create-roles --target-db {target}")
        }
        _ => format!("{restore} \\\n    --target-dir restored-{}", manifest.id),
    };
    SourceSheet {
        verify: format!("backup-cli verify {} --from {url}{key}", manifest.id),
        restore,
        content: manifest.content().words(),
        source: manifest.source.to_string(),
        database: manifest.database.clone(),
        backups: count,
        newest: manifest.id.to_string(),
        started_at: time(manifest.started_at),
        raw_bytes: manifest.totals.raw_bytes,
        stored_bytes: manifest.totals.stored_bytes,
        server_version: manifest.server_version.clone(),
        recipients: recipients(&manifest),
        is_clear,
        proved,
        place: place.name,
    }
}

fn recipients(manifest: &Manifest) -> Vec<String> {
    let encryption = manifest.encryption.as_ref();
    encryption.map_or_else(Vec::new, |record| record.recipients.clone())
}

/// The keys that every one of these is encrypted to.
fn opens_all<'a>(manifests: impl Iterator<Item = &'a Manifest>) -> Vec<String> {
    let mut encrypted = manifests
        .filter(|manifest| manifest.encryption.is_some())
        .map(recipients);
    let mut common = encrypted.next().unwrap_or_default();
    for others in encrypted {
        common.retain(|key| others.contains(key));
    }
    common
}

fn major(manifest: &Manifest) -> Option<u32> {
    let version = manifest.server_version.split(['.', ' ']).next()?;
    version.parse().ok()
}

//! Who does what with which settings.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backup_compress::Compression;
use backup_config::{
    Config, Environment, RetentionConfig, RetryConfig, SourceConfig, SourceKind, SourceSettings,
    names,
};
use backup_core::backup::SourceName;
use backup_core::catalog::Catalog;
use backup_core::dumper::Dumper;
use backup_core::engine::{BackupRequest, Engine};
use backup_core::fan_out::FanOut;
use backup_core::lease::{GivenUp, LeaseSettings};
use backup_core::observer::Observer;
use backup_core::retention::Extent;
use backup_core::store::Store;
use backup_crypt::{AgeCipher, Identities, parse_recipients};
use backup_pg_process::{
    ConnectionConfig, DumpFilter, PgDatabases, PgDumper, PgDumperConfig, PgReplacer, PgRestorer,
    PgRestorerConfig, PgSettingsDumper,
};
use backup_redis_process::RedisDumper;
use backup_store::CachedStore;

use crate::clock::SystemClock;
use crate::connection::{ServerOverrides, tools};
use crate::database_name::refuse_password;
use crate::error::AppError;
use crate::journal::Mark;
use crate::keys::{Keys, unusable_keys};
use crate::place::Place;
use crate::processes::SystemProcesses;
use crate::redis;
use crate::who::who;

/// What the user said on the command line; it wins over variables and file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Where backups are, as a URL.
    pub url: Option<String>,
    /// The server.
    pub server: ServerOverrides,
    /// The database.
    pub database: Option<String>,
    /// `zstd:3`, `gzip:6`, `none`.
    pub compression: Option<String>,
    /// Parts at the same time.
    pub jobs: Option<usize>,
    /// Whom to encrypt to.
    pub recipients: Vec<String>,
    /// Write without encryption.
    pub no_encryption: bool,
    /// Files with private keys.
    pub identities: Vec<PathBuf>,
    /// What to leave out.
    pub filter: DumpFilterOverrides,
    /// Make roles that a restore needs.
    pub create_roles: bool,
    /// Restore whatever free space there is.
    pub no_space_check: bool,
    /// What to keep.
    pub retention: RetentionConfig,
    /// Backups at the same time.
    pub concurrent: Option<usize>,
}

/// `-n -N -t -T`.
#[derive(Debug, Clone, Default)]
pub struct DumpFilterOverrides {
    /// Only these schemas.
    pub schemas: Vec<String>,
    /// Not these schemas.
    pub exclude_schemas: Vec<String>,
    /// Only these tables.
    pub tables: Vec<String>,
    /// Not these tables.
    pub exclude_tables: Vec<String>,
}

impl DumpFilterOverrides {
    /// Whether anything was said.
    fn is_some(&self) -> bool {
        let said = [
            &self.schemas,
            &self.exclude_schemas,
            &self.tables,
            &self.exclude_tables,
        ];
        said.iter().any(|patterns| !patterns.is_empty())
    }
}

/// One backup to be taken.
#[derive(Debug)]
pub struct BackupJob {
    /// The source.
    pub source: SourceName,
    /// Its database.
    pub database: String,
    /// Takes the dump.
    pub dumper: Box<dyn Dumper>,
    /// How.
    pub request: BackupRequest,
    /// Where it goes: at least one.
    pub places: Vec<Place>,
    /// What goes for the source.
    pub settings: SourceSettings,
    /// What belongs into its record.
    pub mark: Mark,
    /// How much of the database it takes.
    pub(crate) extent: Extent,
    /// The configured server.
    pub(crate) server: Option<String>,
}

/// What [`App::lister`] makes.
#[derive(Debug)]
pub struct Lister {
    /// Lists.
    pub engine: Engine,
    cached: Option<Arc<CachedStore>>,
}

impl Lister {
    /// Whether it remembers anything.
    pub(crate) fn remembers(&self) -> bool {
        self.cached.is_some()
    }

    /// Remembers what was read, for the next time.
    pub fn remember(&self) {
        if let Some(cached) = &self.cached {
            cached.save();
        }
    }
}

/// Where restores go.
#[derive(Debug)]
pub struct RestoreTarget {
    /// Does it.
    pub restorer: PgRestorer,
    /// Puts what was restored into the place of what is there.
    pub replacer: PgReplacer,
    /// Parts at the same time.
    pub jobs: usize,
}

/// Settings of one process.
#[derive(Debug, Clone)]
pub struct App {
    config: Config,
    environment: Environment,
    overrides: Overrides,
    given_up: GivenUp,
}

impl App {
    /// Loads the configuration.
    ///
    /// # Errors
    /// When a named file is missing, private where it must be, or wrong; when a password is given
    /// where a database is to be named.
    pub fn load(
        file: Option<&Path>,
        environment: Environment,
        overrides: Overrides,
    ) -> Result<Self, AppError> {
        if let Some(database) = &overrides.database {
            refuse_password("-d", database)?;
        }
        let config = Config::load(file, &environment)?;
        crate::values::check(&config)
            .map_err(|wrong| Config::refuse(file, &environment, &wrong.path, &wrong.message))?;
        Ok(Self {
            config,
            environment,
            overrides,
            given_up: GivenUp::default(),
        })
    }

    /// Whose turn it is, told in the store.
    fn leases(&self, ttl: Duration) -> LeaseSettings {
        LeaseSettings {
            who: who(),
            processes: Arc::new(SystemProcesses),
            ttl,
            given_up: self.given_up.clone(),
        }
    }

    /// The configuration file's content.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn overrides(&self) -> &Overrides {
        &self.overrides
    }

    /// The variables of this process.
    #[must_use]
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Every place where backups may be: the given URL, else all configured destinations.
    ///
    /// # Errors
    /// When there is none.
    pub fn places(&self) -> Result<Vec<Place>, AppError> {
        if let Some(url) = &self.overrides.url {
            return Ok(vec![Place::from_url(url)]);
        }
        let configured = self.config.destination.iter();
        let mut places: Vec<_> = configured
            .map(|(name, settings)| Place {
                name: name.clone(),
                settings: settings.clone(),
            })
            .collect();
        if places.is_empty() {
            places.extend(Place::from_environment(&self.environment));
        }
        if places.is_empty() {
            return Err(AppError::usage_hint(
                "no place for backups is given",
                "configure a [destination.NAME], or say --to or --from to backup-cli, with a URL \
                 like file:///var/lib/backups or s3://bucket/prefix",
            ));
        }
        Ok(places)
    }

    /// The configured destination of that name, or the place that a URL names.
    ///
    /// # Errors
    /// When no destination has the name.
    pub fn place(&self, text: &str) -> Result<Place, AppError> {
        if text.contains('/') {
            return Ok(Place::from_url(text));
        }
        let found = self.config.destination.get_key_value(text);
        let (name, settings) = found.ok_or_else(|| {
            backup_config::Error::undefined("destination", text, self.config.destination.keys())
        })?;
        Ok(Place {
            name: name.clone(),
            settings: settings.clone(),
        })
    }

    /// The configured source names.
    #[must_use]
    pub fn sources(&self) -> Vec<String> {
        self.config.source.keys().cloned().collect()
    }

    /// Whether there is a source of that name.
    #[must_use]
    pub fn is_configured(&self, source: &SourceName) -> bool {
        self.config.settings_of(source.as_str()).is_some()
    }

    /// Refuses a name that nobody configured, where some are and nothing is stored under it.
    ///
    /// # Errors
    /// `Undefined`.
    pub fn refuse_unknown(&self, source: &str) -> Result<(), AppError> {
        if self.config.source.is_empty() || self.config.settings_of(source).is_some() {
            return Ok(());
        }
        let known = self.config.source.keys();
        Err(backup_config::Error::undefined("source", source, known).into())
    }

    /// An engine over `place`.
    ///
    /// # Errors
    /// When the place or the keys cannot be used.
    pub fn engine(
        &self,
        place: &Place,
        keys: Keys,
        observer: Arc<dyn Observer>,
    ) -> Result<Engine, AppError> {
        if keys != Keys::Recipients {
            place.check_readable(&self.environment)?;
        }
        let store = place.open(&self.environment)?;
        let defaults = &self.config.defaults;
        let mut engine = Engine::new(store, Arc::new(SystemClock))
            .with_observer(observer)
            .with_leases(self.leases(defaults.lease));
        for algorithm in backup_compress::Algorithm::ALL {
            engine = engine.with_compressor(algorithm.compressor(0));
        }
        if let Some(cipher) = self.cipher(keys)? {
            engine = engine.with_cipher(cipher);
        }
        Ok(engine)
    }

    /// An engine that writes a backup to `places`, some or all of the job's, at once; with one
    /// place, it has no fan-out.
    ///
    /// # Errors
    /// When a place or the keys cannot be used.
    pub fn backup_engine(
        &self,
        job: &BackupJob,
        places: &[Place],
        observer: Arc<dyn Observer>,
    ) -> Result<(Engine, Option<Arc<FanOut>>), AppError> {
        let [first, others @ ..] = places else {
            return Err(AppError::usage("no place for backups"));
        };
        let lease = job.settings.values.lease;
        let mut engine = self
            .engine(first, Keys::Recipients, observer)?
            .with_leases(self.leases(lease));
        let recipients = parse_recipients(&job.settings.recipients).map_err(unusable_keys)?;
        if !recipients.is_empty() {
            engine =
                engine.with_cipher(Arc::new(AgeCipher::new(recipients, Identities::default())));
        }
        if others.is_empty() {
            return Ok((engine, None));
        }
        let open = |place: &Place| Ok((place.name.clone(), place.open(&self.environment)?));
        let stores: Result<Vec<_>, AppError> = places.iter().map(open).collect();
        // One that hangs is given up before the whole backup counts as stalled.
        let stall = job.request.stall_timeout / 3;
        let fan_out = Arc::new(FanOut::new(stores?, stall));
        Ok((engine.over(fan_out.clone()), Some(fan_out)))
    }

    /// An engine over `place` that lists and reads records and does nothing else. Records of a
    /// remote place that were read before are remembered in a private file.
    ///
    /// # Errors
    /// When the place cannot be used.
    pub async fn lister(&self, place: &Place) -> Result<Lister, AppError> {
        place.check_readable(&self.environment)?;
        self.unchecked_lister(place).await
    }

    /// The same over a place that may not be there yet.
    pub(crate) async fn unchecked_lister(&self, place: &Place) -> Result<Lister, AppError> {
        let store = place.open(&self.environment)?;
        let cached = match self.cache_directory().filter(|_| !place.is_local()) {
            // What is wrong with the place shows when it is listed.
            Some(directory) => match Catalog::new(&*store).existing_repository().await {
                Ok(Some(id)) => Some(CachedStore::open(Arc::clone(&store), &directory, &id)),
                _ => None,
            },
            None => None,
        };
        let cached = cached.map(Arc::new);
        let store = match &cached {
            Some(cached) => Arc::clone(cached) as Arc<dyn Store>,
            None => store,
        };
        Ok(Lister {
            engine: Engine::new(store, Arc::new(SystemClock)),
            cached,
        })
    }

    fn cache_directory(&self) -> Option<PathBuf> {
        let variable = |name| self.environment.get(name).map(PathBuf::from);
        let home = || variable(names::HOME).map(|home| home.join(".cache"));
        let caches = variable(names::XDG_CACHE_HOME).or_else(home)?;
        caches.is_absolute().then(|| caches.join("backup"))
    }

    /// What goes for a source, with what the command line says over it. What is not configured is
    /// not tried again: somebody is waiting for the answer.
    pub(crate) fn settings(&self, source: Option<&SourceConfig>) -> SourceSettings {
        let mut settings = match source {
            Some(source) => self.config.resolved(source),
            None => self.config.resolved(&SourceConfig::default()),
        };
        if source.is_none() {
            settings.values.retry = RetryConfig::never();
        }
        if !self.overrides.recipients.is_empty() {
            settings.recipients.clone_from(&self.overrides.recipients);
        }
        if let Some(compression) = &self.overrides.compression {
            settings.values.compression.clone_from(compression);
        }
        settings
    }

    /// The job for a configured source, or for the database that flags and variables name.
    ///
    /// # Errors
    /// When something is missing or makes no sense.
    pub fn backup_job(&self, source: Option<&str>) -> Result<BackupJob, AppError> {
        refuse_password("SOURCE", source.unwrap_or_default())?;
        let configured = match source {
            Some(name) => match self.config.settings_of(name) {
                Some(settings) => Some(settings.clone()),
                None => Some(self.config.source(name)?.clone()),
            },
            None => None,
        };
        let database = match (source, &configured) {
            (Some(name), Some(settings)) if settings.is_family() => {
                let member = name
                    .split_once('/')
                    .map(|(_, database)| database.to_owned());
                member.ok_or_else(|| {
                    AppError::usage(format!("{name} stands for several databases"))
                })?
            }
            (_, Some(settings)) if settings.kind == SourceKind::Redis => redis::DATABASE.to_owned(),
            _ => self.database(source, configured.as_ref())?,
        };
        let name = source.unwrap_or(&database);
        let source = SourceName::new(name).map_err(|e| AppError::usage(e.to_string()))?;
        let settings = self.settings(configured.as_ref());
        let configured = configured.unwrap_or_default();
        Ok(BackupJob {
            dumper: match configured.kind {
                SourceKind::Redis => {
                    let connection = self.redis_connection(&configured)?;
                    Box::new(RedisDumper::new(
                        connection,
                        self.redis_tools(Some(&configured)),
                    ))
                }
                SourceKind::ServerConfig => {
                    Box::new(PgSettingsDumper::new(self.server_connection(&configured)?))
                }
                SourceKind::Postgres => Box::new(self.dumper(&configured, &settings, &database)?),
            },
            request: self.request(&configured, &settings, &source)?,
            places: self.places_for(&configured, &source)?,
            extent: match (configured.is_partial(), self.overrides.filter.is_some()) {
                (_, true) => Extent::Part,
                (true, false) => Extent::Set,
                (false, false) => Extent::Whole,
            },
            settings,
            mark: Mark::default(),
            server: configured.server.clone(),
            source,
            database,
        })
    }

    fn database(
        &self,
        source: Option<&str>,
        settings: Option<&SourceConfig>,
    ) -> Result<String, AppError> {
        let given = self.overrides.database.clone();
        let configured = settings.and_then(|settings| settings.database.clone());
        let found = given.or(configured).or_else(|| source.map(str::to_owned));
        let found = match found {
            Some(name) => Some(name),
            None => self.database_variable()?.map(str::to_owned),
        };
        found.ok_or_else(|| {
            AppError::usage_hint(
                "no database is given",
                "say -d NAME, or name a configured source, or --all",
            )
        })
    }

    /// What `PGDATABASE` and the like name.
    pub(crate) fn database_variable(&self) -> Result<Option<&str>, AppError> {
        let named = self.environment.first(names::PG_DATABASE);
        named
            .map(|name| refuse_password(names::PG_DATABASE[0], name).map(|()| name))
            .transpose()
    }

    /// Tells the databases of a source's server.
    pub(crate) fn database_finder(&self, settings: &SourceConfig) -> Result<PgDatabases, AppError> {
        Ok(PgDatabases::new(self.server_connection(settings)?))
    }

    /// The server of a source.
    fn server_connection(&self, settings: &SourceConfig) -> Result<ConnectionConfig, AppError> {
        let server = settings.server.as_ref();
        let server = server.and_then(|name| self.config.server.get(name));
        self.overrides.server.connection(server, &self.environment)
    }

    fn dumper(
        &self,
        source: &SourceConfig,
        settings: &SourceSettings,
        database: &str,
    ) -> Result<PgDumper, AppError> {
        let server = match &source.server {
            Some(name) => self.config.server.get(name),
            None => None,
        };
        let connection = self
            .overrides
            .server
            .connection(server, &self.environment)?;
        let locator = tools(server, &self.environment);
        let mut config = PgDumperConfig::new(connection, database, locator);
        config.filter = self.dump_filter(source);
        config.lock_wait_timeout = settings.values.lock_wait_timeout;
        Ok(PgDumper::new(config))
    }

    /// What of a source is dumped: each flag stands in the place of its line in the file.
    pub(crate) fn dump_filter(&self, source: &SourceConfig) -> DumpFilter {
        let either = |flags: &[String], file: &[String]| {
            if flags.is_empty() {
                file.to_vec()
            } else {
                flags.to_vec()
            }
        };
        let flags = &self.overrides.filter;
        DumpFilter {
            schemas: either(&flags.schemas, &source.schemas),
            exclude_schemas: either(&flags.exclude_schemas, &source.exclude_schemas),
            tables: either(&flags.tables, &source.tables),
            exclude_tables: either(&flags.exclude_tables, &source.exclude_tables),
        }
    }

    pub(crate) fn request(
        &self,
        configured: &SourceConfig,
        settings: &SourceSettings,
        source: &SourceName,
    ) -> Result<BackupRequest, AppError> {
        let compression = Compression::parse(&settings.values.compression);
        let compression = compression.map_err(|e| AppError::usage(e.to_string()))?;
        Ok(BackupRequest {
            jobs: self.jobs(configured.jobs)?,
            compression: compression.algorithm().name().to_owned(),
            level: compression.level(),
            encrypt: self.encrypts(settings)?,
            stall_timeout: settings.values.stall_timeout,
            as_configured: configured.is_partial() && !self.overrides.filter.is_some(),
            ..BackupRequest::new(source.clone())
        })
    }

    pub(crate) fn jobs(&self, configured: Option<usize>) -> Result<usize, AppError> {
        let variable = self.environment.first(names::JOBS);
        let variable = variable
            .map(|text| {
                text.parse()
                    .map_err(|_| AppError::usage(format!("{text:?} is not a number of jobs")))
            })
            .transpose()?;
        let jobs = self.overrides.jobs.or(configured).or(variable);
        match jobs.unwrap_or(self.config.defaults.jobs) {
            0 => Err(AppError::usage("at least one job is needed")),
            jobs => Ok(jobs),
        }
    }

    /// Every place where backups of a source may be: the given URL, else its own destinations,
    /// else all.
    ///
    /// # Errors
    /// When there is none.
    pub fn places_of_source(&self, source: &SourceName) -> Result<Vec<Place>, AppError> {
        match self.config.settings_of(source.as_str()) {
            Some(settings) => self.places_of(settings),
            None => self.places(),
        }
    }

    fn places_of(&self, settings: &SourceConfig) -> Result<Vec<Place>, AppError> {
        let mut places = self.places()?;
        if self.overrides.url.is_none() && !settings.destinations.is_empty() {
            // In the order of the source: what is read goes to the first.
            let wanted = &settings.destinations;
            places.retain(|place| wanted.contains(&place.name));
            places.sort_by_key(|place| wanted.iter().position(|name| *name == place.name));
        }
        Ok(places)
    }

    pub(crate) fn places_for(
        &self,
        settings: &SourceConfig,
        source: &SourceName,
    ) -> Result<Vec<Place>, AppError> {
        let places = self.places_of(settings)?;
        if settings.destinations.is_empty() && places.len() > 1 {
            return Err(AppError::usage_hint(
                format!(
                    "source {source} has no destinations, and {} are configured",
                    places.len()
                ),
                "name those that it goes to under destinations, or say --to URL",
            ));
        }
        Ok(places)
    }

    /// A restorer for a configured server, or for the one that flags and variables name.
    ///
    /// # Errors
    /// When the server is not configured or its settings make no sense.
    pub fn restore_target(&self, server: Option<&str>) -> Result<RestoreTarget, AppError> {
        let configured = match server {
            Some(name) => Some(self.config.server.get(name).ok_or_else(|| {
                backup_config::Error::undefined("server", name, self.config.server.keys())
            })?),
            None => None,
        };
        let connection = self
            .overrides
            .server
            .connection(configured, &self.environment)?;
        let locator = tools(configured, &self.environment);
        let server = &self.overrides.server;
        let admin = server.admin(&connection, configured, &self.environment)?;
        let replacer = PgReplacer::new(connection.clone());
        let mut config = PgRestorerConfig::new(connection, locator);
        config.create_roles = self.overrides.create_roles;
        if self.overrides.no_space_check {
            config.free_bytes = None;
        }
        config.admin = admin;
        config
            .admin_extensions
            .clone_from(&self.config.restore.extensions);
        Ok(RestoreTarget {
            replacer,
            restorer: PgRestorer::new(config),
            jobs: self.jobs(None)?,
        })
    }

    /// The server of a configured source, for a restore that names none.
    #[must_use]
    pub fn server_of(&self, source: &str) -> Option<String> {
        self.config.settings_of(source)?.server.clone()
    }
}

//! One database, one place for backups, and the program under test between them.
//!
//! A scene begins with one good backup. Whatever a test then does to the next run,
//! [`Scene::assert_nothing_published`] says whether the promise was kept: no new object but the
//! record of the run, no open upload, no child process, no session, and the older backup as good
//! as before.

mod place;
mod process;

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use crate::cli::ATTEMPTS;
use crate::pg::{Cluster, SUPERUSER, quote_literal};
use crate::s3::{self, Upload};
use crate::scratch::Scratch;
use crate::{binary, canary, child};

pub use place::Place;
pub use process::{Done, Process, Run, processes_with, wait_for_silence};

/// The name of the configured source.
pub const SOURCE: &str = "shop";

/// How long any run of these tests may take; each test has its own, shorter limits beside.
pub const RUN_LIMIT: Duration = Duration::from_mins(5);

/// How long processes and sessions may outlive a run.
const GONE_LIMIT: Duration = Duration::from_mins(1);

/// Marks the processes of a scene.
const MARK: &str = "PGB_E2E_SCENE";

/// The kind of place that a scene has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// A folder.
    Local,
    /// A bucket of the shared server.
    S3(s3::Kind),
}

/// What the configuration file says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the client programs are.
    pub bin_dir: PathBuf,
    /// The database server's port, or that of a proxy in front of it.
    pub pg_port: u16,
    /// The login.
    pub user: String,
    /// Its password.
    pub password: Option<String>,
    /// The database.
    pub database: String,
    /// The S3 server's port, or that of a proxy in front of it.
    pub store_port: u16,
    /// The bucket, or the folder's path.
    pub store: String,
    /// The access key id for a bucket.
    pub access_key: String,
    /// The secret key for a bucket.
    pub secret_key: String,
    /// The file with the private key.
    pub identity: Option<PathBuf>,
    /// How long a request to a bucket is repeated.
    pub retry_timeout: String,
    /// Lines below `[defaults]`.
    pub defaults: Vec<String>,
    /// More variables for the program.
    pub env: Vec<(String, String)>,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Scene<'a> {
    /// What the next runs are configured with; change it at will.
    pub settings: Settings,
    /// Where backups go.
    pub place: Place,
    cluster: &'a Cluster,
    healthy: Settings,
    recipient: String,
    older: String,
    runs: AtomicU32,
    scratch: Scratch,
}

/// What there is before a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Of the place.
    pub keys: Vec<String>,
    /// Of the place.
    pub uploads: Vec<Upload>,
}

impl<'a> Scene<'a> {
    /// Takes a first backup of `database` into a new place.
    ///
    /// # Errors
    ///
    /// When that does not work.
    pub fn new(cluster: &'a Cluster, database: &str, store: Store) -> Result<Self> {
        Self::with(cluster, database, store, |_| {})
    }

    /// As [`Scene::new`], with other settings from the start.
    ///
    /// # Errors
    ///
    /// As [`Scene::new`].
    pub fn with(
        cluster: &'a Cluster,
        database: &str,
        store: Store,
        change: impl FnOnce(&mut Settings),
    ) -> Result<Self> {
        let scratch = Scratch::new()?;
        let place = match store {
            Store::Local => Place::local(&scratch),
            Store::S3(kind) => Place::bucket(kind, &new_bucket())?,
        };
        let (store_port, store, access_key, secret_key) = match &place {
            Place::Local(root) => (0, root.display().to_string(), "", ""),
            Place::Bucket { server, bucket } => {
                let keys = (server.access_key(), server.secret_key());
                (server.port(), bucket.clone(), keys.0, keys.1)
            }
        };
        let mut settings = Settings {
            bin_dir: cluster.bin_dir().to_owned(),
            pg_port: cluster.port(),
            user: SUPERUSER.to_owned(),
            password: cluster.password().map(str::to_owned),
            database: database.to_owned(),
            store_port,
            store,
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
            identity: Some(scratch.path().join("identity")),
            retry_timeout: "5s".to_owned(),
            defaults: Vec::new(),
            env: Vec::new(),
        };
        change(&mut settings);
        for folder in ["tmp", "home"] {
            let path = scratch.path().join(folder);
            fs::DirBuilder::new().mode(0o700).create(path)?;
        }
        let mut scene = Self {
            healthy: settings.clone(),
            settings,
            place,
            cluster,
            recipient: String::new(),
            older: String::new(),
            runs: AtomicU32::new(0),
            scratch,
        };
        scene.recipient = scene.new_identity("identity")?;
        scene.older = scene.good_backup()?;
        Ok(scene)
    }

    /// Makes a key pair whose private half is in the file `name`; returns the public half.
    ///
    /// # Errors
    ///
    /// When the program does not make one.
    pub fn new_identity(&self, name: &str) -> Result<String> {
        let path = self.path(name).display().to_string();
        let done = self.run(&["keygen", "-o", &path])?.expect(0, &["age1"])?;
        let text = done.text();
        let found = text.split_whitespace().find(|w| w.starts_with("age1"));
        found
            .map(str::to_owned)
            .context("keygen names no recipient")
    }

    /// A path in the scene's private folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// The folder for temporary files of the program under test.
    #[must_use]
    pub fn tmp(&self) -> PathBuf {
        self.path("tmp")
    }

    /// The id of the backup that was there first.
    #[must_use]
    pub fn older(&self) -> &str {
        &self.older
    }

    /// The public key that backups are encrypted to.
    #[must_use]
    pub fn recipient(&self) -> &str {
        &self.recipient
    }

    /// Starts the program with the scene's configuration.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start(&self, arguments: &[&str]) -> Result<Run> {
        self.start_with(&self.settings, arguments)
    }

    /// Runs the program to its end.
    ///
    /// # Errors
    ///
    /// When it does not start or end.
    pub fn run(&self, arguments: &[&str]) -> Result<Done> {
        self.start(arguments)?.finish(RUN_LIMIT)
    }

    /// Takes a backup that must work, with the settings that the scene began with.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn good_backup(&self) -> Result<String> {
        let run = self.start_with(&self.healthy, &["backup", SOURCE, "--json"])?;
        let done = run.finish(RUN_LIMIT)?.expect(0, &["success"])?;
        let view: serde_json::Value = serde_json::from_str(&done.stdout)?;
        let id = view["id"].as_str().context("a backup has an id")?;
        Ok(id.to_owned())
    }

    /// What there is now. Records of runs are left out: each run leaves one, however it ends.
    ///
    /// # Errors
    ///
    /// When the place does not tell.
    pub fn state(&self) -> Result<State> {
        let mut keys = self.place.keys()?;
        keys.retain(|key| !is_note(key));
        Ok(State {
            keys,
            uploads: self.place.uploads()?,
        })
    }

    /// The newest record of a run, as it is stored.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn newest_record(&self) -> Result<serde_json::Value> {
        let mut keys = self.place.keys()?;
        keys.retain(|key| is_record(key));
        let mut records = Vec::new();
        for key in keys {
            let record: serde_json::Value = serde_json::from_slice(&self.place.get(&key)?)?;
            records.push(record);
        }
        // Names tell seconds, and a test is quicker.
        let began = |record: &serde_json::Value| record["started_at"].as_str().map(str::to_owned);
        let newest = records.into_iter().max_by_key(began);
        newest.context("a run leaves a record")
    }

    /// The keys of the objects of one backup.
    ///
    /// # Errors
    ///
    /// When the place does not tell.
    pub fn objects_of(&self, id: &str) -> Result<Vec<String>> {
        let mut keys = self.place.keys()?;
        keys.retain(|key| key.contains(id));
        Ok(keys)
    }

    /// Says whether a run that was to fail failed as it must. See the [module](self).
    ///
    /// # Errors
    ///
    /// With what it left behind.
    pub fn assert_nothing_published(&self, before: &State) -> Result<()> {
        self.assert_nobody_left()?;
        let after = self.state()?;
        ensure!(
            after == *before,
            "left behind: {}",
            difference(before, &after)
        );
        self.assert_proved(&self.older)
    }

    /// Says whether a backup is complete and holds what was dumped.
    ///
    /// # Errors
    ///
    /// With what is wrong.
    pub fn assert_proved(&self, id: &str) -> Result<()> {
        let arguments = ["verify", id, "--source", SOURCE, "--level", "decoded"];
        let run = self.start_with(&self.healthy, &arguments)?;
        let done = run.finish(RUN_LIMIT)?.expect(0, &["ok", id]);
        done.map(drop).with_context(|| format!("verify {id}"))
    }

    /// Waits, shortly, until no process and no session of a run is left.
    ///
    /// # Errors
    ///
    /// With those that are left.
    pub fn assert_nobody_left(&self) -> Result<()> {
        wait_for_silence(GONE_LIMIT, || {
            let left = self.processes();
            Ok((!left.is_empty()).then(|| format!("processes: {left:?}")))
        })?;
        wait_for_silence(GONE_LIMIT, || {
            let left = self.sessions()?;
            Ok((!left.is_empty()).then(|| format!("sessions: {left}")))
        })
    }

    /// The processes of the scene's runs: the program itself, and what it started.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        processes_with(&[
            format!("{MARK}={}", self.mark()),
            format!("PGDATABASE={}", self.healthy.database),
            format!("PGDATABASE={}", self.target()),
        ])
    }

    /// The database that restores of this scene make.
    #[must_use]
    pub fn target(&self) -> String {
        format!("{}_restored", self.healthy.database)
    }

    /// The server's sessions in the scene's databases, one a line.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub fn sessions(&self) -> Result<String> {
        let sql = format!(
            "SELECT pid, application_name, state, query FROM pg_stat_activity
             WHERE pid <> pg_backend_pid() AND datname IN ({}, {})",
            quote_literal(&self.healthy.database),
            quote_literal(&self.target())
        );
        self.cluster.query("postgres", &sql)
    }

    fn mark(&self) -> String {
        self.scratch.path().display().to_string()
    }

    fn start_with(&self, settings: &Settings, arguments: &[&str]) -> Result<Run> {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let config = self.path(&format!("config-{number}.toml"));
        write_private(&config, &self.config(settings)?)?;
        let mut command = child::command_as_self(binary("backup-cli")?, Signal::SIGKILL);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .env(ATTEMPTS, "1")
            .env("HOME", self.path("home"))
            .env("TMPDIR", self.tmp())
            .env("E2E_ACCESS_KEY", &settings.access_key)
            .env("E2E_SECRET_KEY", &settings.secret_key)
            .env(MARK, self.mark())
            .envs(settings.env.iter().cloned())
            .current_dir(self.scratch.path())
            .arg("--config")
            .arg(config)
            .args(arguments);
        Run::start(command)
    }

    fn config(&self, settings: &Settings) -> Result<String> {
        let mut text = format!("[defaults]\n{}\n", settings.defaults.join("\n"));
        if !self.recipient.is_empty() {
            writeln!(text, "[encryption]\nrecipients = ['{}']", self.recipient)?;
            if let Some(path) = &settings.identity {
                writeln!(text, "identities = {{ file = '{}' }}", path.display())?;
            }
        }
        writeln!(
            text,
            "[server.main]\nhost = '127.0.0.1'\nport = {}\nuser = '{}'\nbin_dir = '{}'",
            settings.pg_port,
            settings.user,
            settings.bin_dir.display()
        )?;
        if let Some(password) = &settings.password {
            canary::keep_if_any(password);
            let path = self.path("password");
            write_private(&path, password)?;
            writeln!(text, "password = {{ file = '{}' }}", path.display())?;
        }
        writeln!(
            text,
            "[source.{SOURCE}]\nserver = 'main'\ndatabase = '{}'\ndestinations = ['store']",
            settings.database
        )?;
        text += "[destination.store]\n";
        match &self.place {
            Place::Local(_) => writeln!(text, "url = 'file://{}'", settings.store)?,
            Place::Bucket { .. } => writeln!(
                text,
                "url = 's3://{}/prefix'\nendpoint = 'http://127.0.0.1:{}'\n\
                 retry_timeout = '{}'\n\
                 access_key_id = {{ env = 'E2E_ACCESS_KEY' }}\n\
                 secret_access_key = {{ env = 'E2E_SECRET_KEY' }}",
                settings.store, settings.store_port, settings.retry_timeout
            )?,
        }
        Ok(text)
    }
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        if let Place::Local(root) = &self.place {
            canary::folder(root);
        }
        canary::complain();
    }
}

/// Whether this is the key of a run's record, whatever prefix it has.
#[must_use]
pub fn is_record(key: &str) -> bool {
    key.starts_with("_runs/") || key.contains("/_runs/")
}

/// Whether this is nothing of a backup, and what runs leave behind: a record, a lease, a line of the
/// audit, whatever prefix it has.
#[must_use]
pub fn is_note(key: &str) -> bool {
    let lies_below = |folder: &str| key.starts_with(folder) || key.contains(&format!("/{folder}"));
    is_record(key) || lies_below("_leases/") || lies_below("_audit/") || lies_below("_notify/")
}

/// The beginning of a database's name that no other test process uses: processes of a scene are
/// known by it.
#[must_use]
pub fn unique(prefix: &str) -> String {
    format!("{prefix}_{}", std::process::id())
}

/// A bucket's name that no other scene of this process has.
fn new_bucket() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("scene-{}-{number}", std::process::id())
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options
        .open(path)
        .with_context(|| format!("write {}", path.display()))?;
    Ok(file.write_all(text.as_bytes())?)
}

fn difference(before: &State, after: &State) -> String {
    let more = after.keys.iter().filter(|key| !before.keys.contains(key));
    let less = before.keys.iter().filter(|key| !after.keys.contains(key));
    let uploads = after.uploads.iter().filter(|u| !before.uploads.contains(u));
    format!(
        "new keys {:?}, lost keys {:?}, open uploads {:?}",
        more.collect::<Vec<_>>(),
        less.collect::<Vec<_>>(),
        uploads.collect::<Vec<_>>()
    )
}

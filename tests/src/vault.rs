//! A place for backups and the key to them, used through the program alone.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cli::{Cli, Keys, Run};
use crate::pg::Cluster;
use crate::s3::{Kind, Server};
use crate::scene::is_note;

/// What every key of a vault in a bucket begins with.
const PREFIX: &str = "some/prefix";

/// A place for backups, the key to them, and the program set to reach a server.
#[derive(Debug)]
pub struct Vault {
    /// The program.
    pub cli: Cli,
    /// The place, for `--to` and `--from`.
    pub url: String,
    /// The key pair.
    pub keys: Keys,
    bucket: Option<(&'static Server, String)>,
}

impl Vault {
    /// An empty folder.
    ///
    /// # Errors
    ///
    /// When no key pair can be made.
    pub fn local(cluster: &Cluster) -> Result<Self> {
        let cli = Cli::new(cluster)?;
        let (url, keys) = (cli.local_store(), cli.keys()?);
        let bucket = None;
        Ok(Self {
            cli,
            url,
            keys,
            bucket,
        })
    }

    /// As [`Vault::in_bucket`], of `SeaweedFS`.
    ///
    /// # Errors
    ///
    /// When there is no such server.
    pub fn seaweedfs(cluster: &Cluster) -> Result<Self> {
        Self::in_bucket(cluster, Kind::SeaweedFs)
    }

    /// A prefix in an empty bucket of the shared server.
    ///
    /// # Errors
    ///
    /// When there is no such server.
    pub fn in_bucket(cluster: &Cluster, kind: Kind) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let bucket = format!("vault-{}-{number}", std::process::id());
        let server = Server::shared(kind)?;
        server.create_bucket(&bucket)?;
        let cli = Cli::new(cluster)?.with_s3(server);
        Ok(Self {
            keys: cli.keys()?,
            cli,
            url: format!("s3://{bucket}/{PREFIX}"),
            bucket: Some((server, bucket)),
        })
    }

    /// Any other place that `cli` is set to reach. What it holds is for the caller to ask.
    ///
    /// # Errors
    ///
    /// When no key pair can be made.
    pub fn at(cli: Cli, url: &str) -> Result<Self> {
        let (url, keys, bucket) = (url.to_owned(), cli.keys()?, None);
        Ok(Self {
            cli,
            url,
            keys,
            bucket,
        })
    }

    /// The server and the bucket, unless it is a folder.
    #[must_use]
    pub fn bucket(&self) -> Option<(&'static Server, &str)> {
        self.bucket
            .as_ref()
            .map(|(server, name)| (*server, name.as_str()))
    }

    /// The same place and key, with the program set to reach another server.
    ///
    /// # Errors
    ///
    /// When no folder can be made.
    pub fn beside(&self, cluster: &Cluster) -> Result<Self> {
        let mut cli = Cli::new(cluster)?;
        if let Some((server, _)) = &self.bucket {
            cli = cli.with_s3(server);
        }
        let (url, keys, bucket) = (self.url.clone(), self.keys.clone(), self.bucket.clone());
        Ok(Self {
            cli,
            url,
            keys,
            bucket,
        })
    }

    /// Backs `database` up, encrypted, and returns what `--json` prints.
    ///
    /// # Errors
    ///
    /// When it is not a success, with or without warnings.
    pub fn back_up(&self, database: &str, more: &[&str]) -> Result<Value> {
        // In this form a name may begin with a dash.
        let database = format!("--dbname={database}");
        let mut arguments = vec!["backup", &database, "--to", &self.url, "--json"];
        if !more.contains(&"--no-encryption") {
            arguments.extend(["--recipient", &self.keys.recipient]);
        }
        arguments.extend(more);
        success(self.cli.run(arguments)?)
    }

    /// Restores with the command that the documentation shows, and returns what `--json` prints.
    ///
    /// # Errors
    ///
    /// When it is not a success, with or without warnings.
    pub fn restore(&self, id: &str, target: &str, more: &[&str]) -> Result<Value> {
        let target = format!("--target-db={target}");
        let mut arguments = vec!["restore", id, "--from", &self.url];
        arguments.extend(["-i", &self.keys.identity, &target, "--json"]);
        arguments.extend(more);
        success(self.cli.run(arguments)?)
    }

    /// Runs any other command that reads backups, with the place and the key.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn read(&self, arguments: &[&str]) -> Result<Run> {
        let place = ["--from", &self.url, "-i", &self.keys.identity];
        self.cli.run(arguments.iter().copied().chain(place))
    }

    /// Asks for a deep verification that finds nothing wrong; returns what `--json` prints.
    ///
    /// # Errors
    ///
    /// When it finds something.
    pub fn verify(&self, id: &str) -> Result<Value> {
        let run = self.read(&["verify", id, "--level", "decoded", "--json"])?;
        let view = run.exits(0)?.json()?;
        ensure!(
            view["status"] == "ok" && view["problems"] == serde_json::json!([]),
            "{view}"
        );
        Ok(view)
    }

    /// The rows of a table in COPY text form.
    ///
    /// # Errors
    ///
    /// When there is no such table.
    pub fn cat(&self, id: &str, table: &str) -> Result<Vec<u8>> {
        Ok(self.read(&["cat", id, "--table", table])?.exits(0)?.stdout)
    }

    /// The keys of all objects but the records of runs, without the prefix; what is not below the
    /// prefix is an error.
    ///
    /// # Errors
    ///
    /// When the place does not tell.
    pub fn keys_stored(&self) -> Result<Vec<String>> {
        let mut keys = match &self.bucket {
            Some((server, bucket)) => relative(&server.list_keys(bucket, "")?)?,
            None => files_below(&self.cli.local_root())?,
        };
        keys.retain(|key| !is_note(key));
        Ok(keys)
    }

    /// An object's bytes, by its key without the prefix.
    ///
    /// # Errors
    ///
    /// When there is no such object.
    pub fn object(&self, key: &str) -> Result<Vec<u8>> {
        match &self.bucket {
            Some((server, bucket)) => server.get_object(bucket, &format!("{PREFIX}/{key}")),
            None => std::fs::read(self.cli.local_root().join(key)).context(key.to_owned()),
        }
    }
}

/// The id in what `backup --json` printed.
///
/// # Errors
///
/// When there is none.
pub fn id_of(backup: &Value) -> Result<&str> {
    backup["id"]
        .as_str()
        .with_context(|| format!("no id in {backup}"))
}

fn success(run: Run) -> Result<Value> {
    let warned = run
        .json()
        .is_ok_and(|view| view["warnings"].as_array().is_some_and(|w| !w.is_empty()));
    let run = run.exits(if warned { 3 } else { 0 })?;
    let view = run.json()?;
    ensure!(view["status"] == "success", "{view}");
    Ok(view)
}

/// The keys without the prefix, which all must have.
fn relative(keys: &[String]) -> Result<Vec<String>> {
    let relative = keys.iter().map(|key| {
        let inside = key
            .strip_prefix(PREFIX)
            .and_then(|key| key.strip_prefix('/'));
        inside
            .map(str::to_owned)
            .with_context(|| format!("{key} is outside the prefix"))
    });
    relative.collect()
}

fn files_below(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder);
        for entry in entries.with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(root)?.display().to_string());
            }
        }
    }
    found.sort();
    Ok(found)
}

//! What is there in the end, when all are gone.

use std::sync::atomic::Ordering;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::fault::Action;
use backup_e2e::scene::{processes_with, wait_for_silence};
use backup_e2e::sweep::sweep;

use crate::fate::Fate;
use crate::onlooker::Onlooker;
use crate::{GONE, Soak, restored_name, struck_by};

/// Of so many backups, each kind of fault strikes one at least.
const MANY: usize = 200;

/// Of so many tries one brings a backup at least, whatever is done to them.
const TRIES: usize = 8;

/// Where objects lie for a moment by which a store is tried.
const PROBES: &str = "/_leases/probe/";

impl Soak {
    /// Looks at all there is, also when something of it is not as it must be, and says what was seen.
    pub(crate) fn look(&self, onlooker: &Onlooker) -> String {
        let looks = [
            ("the last backup", self.back_up_last()),
            ("the last prune", self.prune_last()),
            ("a prune days later", self.sweep()),
            ("the lists", self.compare_lists()),
            ("what is kept", self.prove_all()),
            ("the server's list", self.compare_server(onlooker)),
            ("the bucket", self.search_bucket()),
            ("the leases", self.search_leases()),
            ("what a store was tried with", self.search_probes()),
            ("the machine", self.search_machine()),
            ("the ways to the store", self.search_strikes()),
        ];
        let mut seen = Vec::new();
        for (what, looked) in looks {
            match looked {
                Ok(words) => seen.push(words),
                Err(error) => self.breaks(format!("{what}: {error:#}")),
            }
        }
        seen.join("; ")
    }

    /// A soak in which nothing broke would show nothing.
    fn search_strikes(&self) -> Result<String> {
        let tally = self.tally.lock().expect("no worker panics with it");
        for action in [Action::Reset, Action::Close] {
            let struck = tally.contains_key(&struck_by(action));
            ensure!(struck || self.backups < MANY, "none was struck: {action:?}");
        }
        Ok("ways to the store were struck".to_owned())
    }

    /// Takes one more backup, as if nothing had been, and proves it: the newest one that is proved stays
    /// whatever else does, and is to be among the newest ones.
    fn back_up_last(&self) -> Result<String> {
        let run = self.back_up_once(&self.vault.cli, (Fate::Calm, true), "zstd")?;
        let view = run.context("a run")?.exits(0)?.json()?;
        let id = view["id"].as_str().context("an id")?;
        self.vault.verify(id)?;
        Ok("a last backup is well".to_owned())
    }

    fn prune_last(&self) -> Result<String> {
        let run = self.prune_once(Fate::Calm)?;
        run.context("a run")?.exits(0)?;
        Ok("a last prune is well".to_owned())
    }

    /// What dead runs have left goes days later.
    fn sweep(&self) -> Result<String> {
        let litter = self.readers_noted()?.len();
        let (server, _) = self.vault.bucket().context("a bucket")?;
        let swept = sweep(server, &self.vault.url, &self.database)?;
        let left = self.readers_noted()?;
        ensure!(left.is_empty(), "notes of readers: {left:?}");
        Ok(format!(
            "{} dead runs, {} uploads and {litter} notes of dead readers swept",
            swept.swept.len(),
            swept.aborted_uploads
        ))
    }

    /// The keys of all leases.
    fn leases(&self) -> Result<Vec<String>> {
        let (server, bucket) = self.vault.bucket().context("a bucket")?;
        let mut keys = server.list_keys(bucket, "")?;
        keys.retain(|key| key.contains("/_leases/"));
        Ok(keys)
    }

    fn readers_noted(&self) -> Result<Vec<String>> {
        let mut keys = self.leases()?;
        keys.retain(|key| key.contains("/_leases/readers/"));
        Ok(keys)
    }

    /// What is listed is what must be, and whoever looks for the first time sees the same.
    fn compare_lists(&self) -> Result<String> {
        let listed = self.listed()?;
        let words = self.ledger().settle(&listed)?;
        let taken = self.ledger().known().len();
        ensure!(
            taken >= self.backups / TRIES,
            "{taken} backups of {} tries",
            self.backups
        );
        let fresh = self.vault.beside(self.cluster)?;
        let arguments = ["list", "--json", "--from", &self.vault.url];
        let (first, again) = (fresh.cli.run(arguments)?, self.vault.cli.run(arguments)?);
        let (first, again) = (first.exits(0)?.json()?, again.exits(0)?.json()?);
        ensure!(first == again, "two lists: {first} and {again}");
        Ok(words)
    }

    /// Every backup that is kept is whole, and restores to what it was taken of.
    fn prove_all(&self) -> Result<String> {
        for id in self.listed()? {
            self.vault.verify(&id)?;
            let before = self.restored.load(Ordering::Relaxed);
            self.restore_one(&id, Fate::Calm)
                .with_context(|| format!("restore {id}"))?;
            let is_restored = self.restored.load(Ordering::Relaxed) > before;
            ensure!(is_restored, "{id} does not restore");
        }
        Ok("all kept ones verified, restored and compared".to_owned())
    }

    fn compare_server(&self, onlooker: &Onlooker) -> Result<String> {
        onlooker.shows(&self.listed()?)?;
        Ok("the server shows the same".to_owned())
    }

    /// No object is there that belongs to nothing, and no upload is open.
    fn search_bucket(&self) -> Result<String> {
        let kept = self.listed()?;
        let (server, bucket) = self.vault.bucket().context("a bucket")?;
        let mut keys = self.vault.keys_stored()?;
        let objects = keys.len();
        keys.retain(|key| key != "repository.json" && !kept.iter().any(|id| key.contains(id)));
        let (bars, orphans): (Vec<_>, Vec<_>) = keys
            .into_iter()
            .partition(|key| key.ends_with("/manifest.json"));
        ensure!(orphans.is_empty(), "orphans: {orphans:?}");
        for key in &bars {
            let text = String::from_utf8(self.vault.object(key)?)?;
            ensure!(text.contains("\"barred_at\""), "{key} is no bar: {text}");
        }
        let uploads = server.list_multipart_uploads(bucket)?;
        ensure!(uploads.is_empty(), "open uploads: {uploads:?}");
        Ok(format!(
            "{objects} objects, {} of them bars of killed runs, no orphan, no open upload",
            bars.len()
        ))
    }

    /// Nobody has a lease.
    fn search_leases(&self) -> Result<String> {
        let (server, bucket) = self.vault.bucket().context("a bucket")?;
        let mut keys = self.leases()?;
        keys.retain(|key| !key.contains(PROBES));
        for key in &keys {
            let text = String::from_utf8(server.get_object(bucket, key)?)?;
            let lease: serde_json::Value =
                serde_json::from_str(&text).with_context(|| format!("{key}: {text:?}"))?;
            ensure!(lease["state"] == "released", "{key}: {lease}");
        }
        Ok("no lease held".to_owned())
    }

    /// What killed runs have tried the store with is gone as all else that they left.
    fn search_probes(&self) -> Result<String> {
        let mut keys = self.leases()?;
        keys.retain(|key| key.contains(PROBES));
        ensure!(keys.is_empty(), "{keys:?}");
        Ok("no probe left".to_owned())
    }

    /// No process, no session and no database is left.
    fn search_machine(&self) -> Result<String> {
        let restores = self.restores.load(Ordering::Relaxed);
        let targets = (1..=restores).map(|number| restored_name(&self.database, number));
        let databases = targets.chain([self.database.clone()]);
        let variables: Vec<_> = databases.map(|name| format!("PGDATABASE={name}")).collect();
        wait_for_silence(GONE, || {
            let left = processes_with(&variables);
            Ok((!left.is_empty()).then(|| format!("processes: {left:?}")))
        })?;
        let sessions = "SELECT count(*) FROM pg_stat_activity
                        WHERE application_name = 'backup-manager'";
        wait_for_silence(GONE, || {
            let left = self.cluster.query("postgres", sessions)?;
            Ok((left != "0").then(|| format!("{left} sessions")))
        })?;
        let sql = format!(
            "SELECT string_agg(datname, ' ') FROM pg_database
             WHERE datname NOT IN ('postgres', 'template0', 'template1', '{}')",
            self.database
        );
        let left = self.cluster.query("postgres", &sql)?;
        ensure!(left.is_empty(), "databases: {left}");
        Ok("no process, no session and no database left".to_owned())
    }
}

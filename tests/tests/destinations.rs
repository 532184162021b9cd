//! One dump into several places: a folder that is near, and a bucket behind a way that breaks.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::{Cli, Keys, Run};
use backup_e2e::fault::{ALWAYS, Action, Direction, Faults, Proxy};
use backup_e2e::pg::Cluster;
use backup_e2e::s3::{Kind, Server};
use backup_e2e::sample;
use backup_e2e::scene::unique;
use rstest::rstest;
use serde_json::{Value, json};

struct Stage {
    cluster: &'static Cluster,
    server: &'static Server,
    database: String,
    bucket: String,
    proxy: Proxy,
    cli: Cli,
    keys: Keys,
    config: String,
}

impl Stage {
    fn new() -> Result<Self> {
        let cluster = Cluster::shared(17)?;
        let server = Server::shared(Kind::SeaweedFs)?;
        let database = cluster.fresh_db(&unique("spread"))?;
        cluster.psql(&database, &sample::bulk_sql("app", "bulk", 20))?;
        let bucket = database.replace('_', "-");
        server.create_bucket(&bucket)?;
        let proxy = Proxy::start(server.port())?;
        let cli = Cli::new(cluster)?
            .with_env("FAR_ID", server.access_key())
            .with_env("FAR_KEY", server.secret_key());
        let keys = cli.keys()?;
        let config = cli.folder().join("two.toml");
        let text = format!(
            "[defaults]\ncompression = 'none'\nstall_timeout = '30s'\n\
             [encryption]\nrecipients = ['{}']\n\
             [source.shop]\ndatabase = '{database}'\ndestinations = ['near', 'far']\n\
             [destination.near]\nurl = '{}'\n\
             [destination.far]\nurl = 's3://{bucket}/backups'\nendpoint = 'http://{}'\n\
             region = '{}'\nallow_http = true\nretry_timeout = '3s'\n\
             access_key_id = {{ env = 'FAR_ID' }}\nsecret_access_key = {{ env = 'FAR_KEY' }}\n",
            keys.recipient,
            cli.local_store(),
            proxy.address(),
            server.region(),
        );
        fs::write(&config, text)?;
        fs::set_permissions(&config, fs::Permissions::from_mode(0o600))?;
        Ok(Self {
            config: config.display().to_string(),
            cluster,
            server,
            database,
            bucket,
            proxy,
            cli,
            keys,
        })
    }

    fn run(&self, arguments: &[&str]) -> Result<Run> {
        let all = [&["--config", &self.config], arguments].concat();
        self.cli.run(all)
    }

    fn back_up(&self, code: i32) -> Result<Value> {
        self.run(&["backup", "shop", "--json"])?.exits(code)?.json()
    }

    fn list(&self, more: &[&str]) -> Result<Value> {
        self.run(&[&["list", "--json"], more].concat())?
            .exits(0)?
            .json()
    }

    /// The backup can be restored from this place alone, and is what was dumped.
    fn assert_restorable(&self, id: &str, place: &str) -> Result<()> {
        let scheme = place.split(':').next().unwrap_or_default();
        let target = format!("{}_{}_{scheme}", self.database, &id[id.len() - 4..]);
        let mut command = self
            .cli
            .command(["restore", id, "--from", place, "--json"])?;
        command.args(["-i", &self.keys.identity, "--target-db", &target]);
        command.envs([
            ("AWS_ENDPOINT_URL", self.server.endpoint()),
            ("AWS_ACCESS_KEY_ID", self.server.access_key().to_owned()),
            ("AWS_SECRET_ACCESS_KEY", self.server.secret_key().to_owned()),
            ("AWS_REGION", self.server.region().to_owned()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
        ]);
        let restored = backup_e2e::cli::Running::start(command)?
            .wait()?
            .exits(0)?
            .json()?;
        assert_eq!(
            restored["compare"]["tables"], restored["compare"]["equal"],
            "{restored}"
        );
        assert_eq!(restored["warnings"], json!([]));
        assert_eq!(
            self.cluster.contents(&target)?,
            self.cluster.contents(&self.database)?
        );
        self.cluster.drop_db(&target)
    }

    fn far(&self) -> String {
        format!("s3://{}/backups", self.bucket)
    }

    fn far_keys(&self) -> Result<Vec<String>> {
        let mut keys = self.server.list_keys(&self.bucket, "backups/")?;
        keys.retain(|key| key.starts_with("backups/backups/"));
        Ok(keys)
    }
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn all_places_get_the_same_backup() -> Result<()> {
    let stage = Stage::new()?;
    let backup = stage.back_up(0)?;
    assert_eq!(backup["status"], "success", "{backup}");
    assert_eq!(
        backup["destinations"],
        json!([
            { "name": "near", "status": "success", "error": null },
            { "name": "far", "status": "success", "error": null },
        ])
    );
    let id = backup["id"].as_str().context("an id")?;
    let listed = stage.list(&[])?;
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    let places = listed[0]["destinations"].as_array().context("places")?;
    let mut names: Vec<_> = places
        .iter()
        .filter_map(|place| place["name"].as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["far", "near"]);
    let folder = stage.cli.local_root();
    for key in stage.far_keys()? {
        let near = key
            .strip_prefix("backups/")
            .context("a key below the prefix")?;
        let same = fs::read(folder.join(near))? == stage.server.get_object(&stage.bucket, &key)?;
        ensure!(same, "{key}");
    }
    let runs = stage.run(&["runs", "--json"])?.exits(0)?.json()?;
    assert_eq!(runs.as_array().map(Vec::len), Some(1), "{runs}");
    stage.assert_restorable(id, &stage.cli.local_store())?;
    stage.assert_restorable(id, &stage.far())
}

/// A backup that cannot be read may be what the other place lacks.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn what_cannot_be_read_is_not_passed_over() -> Result<()> {
    let stage = Stage::new()?;
    let backup = stage.back_up(0)?;
    let id = backup["id"].as_str().context("an id")?;
    let copy = ["copy", "--missing", "--from", "near", "--to", "far"];
    let good = stage.run(&copy)?.exits(0)?;
    ensure!(
        good.stderr.contains("nothing is missing"),
        "{}",
        good.stderr
    );
    let manifest = format!("backups/shop/{id}/manifest.json");
    fs::write(stage.cli.local_root().join(manifest), "damaged")?;
    let run = stage.run(&copy)?.exits(3)?;
    ensure!(!run.stderr.contains("nothing is missing"), "{}", run.stderr);
    ensure!(run.stderr.contains("manifest.json"), "{}", run.stderr);
    Ok(())
}

/// Somebody removed an object, of which the manifest knows nothing.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn what_was_removed_from_a_copy_is_seen_and_brought_back() -> Result<()> {
    let stage = Stage::new()?;
    let backup = stage.back_up(0)?;
    let id = backup["id"].as_str().context("an id")?;
    let folder = stage.cli.local_root().join(format!("backups/shop/{id}"));
    let data = fs::read_dir(&folder)?
        .filter_map(Result::ok)
        .find(|file| file.file_name().to_string_lossy().starts_with("data-"))
        .context("a part with data")?;
    let (path, before) = (data.path(), fs::read(data.path())?);
    let name = data.file_name().to_string_lossy().into_owned();
    fs::remove_file(&path)?;

    let run = stage.run(&["list"])?.exits(3)?;
    let lost = format!("backup {id}: 1 object is not as written: {name}");
    ensure!(run.stderr.contains(&lost), "{}", run.stderr);
    let shown = String::from_utf8(run.stdout)?;
    ensure!(shown.contains("near (incomplete)"), "{shown}");
    let listed = stage.run(&["list", "--json"])?.exits(3)?.json()?;
    assert_eq!(listed[0]["status"], "partial", "{listed}");
    let check = stage.run(&["check", "shop", "--json"])?.exits(2)?.json()?;
    let found = check["sources"].as_array().context("sources")?;
    let near = found.iter().find(|source| source["destination"] == "near");
    let near = near.context("near")?;
    assert_eq!(near["findings"][0]["kind"], "incomplete", "{near}");
    assert_eq!(near["backup"], Value::Null, "{near}");

    let copy = [
        "copy",
        "--missing",
        "--from",
        "far",
        "--to",
        "near",
        "--json",
    ];
    let copied = stage.run(&copy)?.exits(0)?.json()?;
    assert_eq!(copied["objects"], 1, "{copied}");
    ensure!(fs::read(&path)? == before, "not what was there");
    stage.list(&[])?;
    stage.run(&["check", "shop"])?.exits(0)?;
    Ok(())
}

fn cut(action: Action) -> Faults {
    Faults::after(action, Direction::ToServer, 6 << 20, ALWAYS)
}

#[rstest]
#[case::that_is_not_there(Faults { refuse: true, ..Faults::default() })]
#[case::that_breaks(cut(Action::Reset))]
#[case::that_falls_silent(cut(Action::Blackhole))]
#[ignore = "needs servers: run ./scripts/test"]
fn a_place(#[case] faults: Faults) -> Result<()> {
    let stage = Stage::new()?;
    stage.proxy.set(faults);
    let backup = stage.back_up(3)?;
    assert_eq!(backup["status"], "partial", "{backup}");
    let places = &backup["destinations"];
    assert_eq!(
        places[0],
        json!({ "name": "near", "status": "success", "error": null })
    );
    assert_eq!(
        (&places[1]["name"], &places[1]["status"]),
        (&json!("far"), &json!("failed"))
    );
    ensure!(places[1]["error"].is_string(), "{places}");
    let warnings = backup["warnings"].to_string();
    ensure!(
        warnings.contains("far has not got the backup"),
        "{warnings}"
    );
    stage.proxy.heal();
    // Half a backup is nowhere, and the next one is whole everywhere.
    let id = backup["id"].as_str().context("an id")?;
    let listed = stage.list(&[])?;
    assert_eq!(
        listed[0]["destinations"].as_array().map(Vec::len),
        Some(1),
        "{listed}"
    );
    stage.assert_restorable(id, &stage.cli.local_store())?;
    let far = stage.far_keys()?;
    ensure!(
        !far.iter().any(|key| key.ends_with("manifest.json")),
        "{far:?}"
    );
    assert_eq!(stage.back_up(0)?["status"], "success");
    let copied = stage.run(&[
        "copy",
        "--missing",
        "--from",
        "near",
        "--to",
        "far",
        "--json",
    ])?;
    let copied = copied.exits(0)?.json()?;
    assert_eq!(
        (&copied["id"], &copied["status"]),
        (&json!(id), &json!("success"))
    );
    stage.assert_restorable(id, &stage.far())?;
    let again = stage.run(&[
        "copy",
        "--missing",
        "--from",
        "near",
        "--to",
        "far",
        "--json",
    ])?;
    assert_eq!(again.exits(0)?.text(), "");
    let listed = stage.list(&[])?;
    assert_eq!(
        listed[0]["destinations"].as_array().map(Vec::len),
        Some(2),
        "{listed}"
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn when_no_place_takes_it_nothing_is_published() -> Result<()> {
    let stage = Stage::new()?;
    stage.proxy.set(Faults {
        refuse: true,
        ..Faults::default()
    });
    fs::write(stage.cli.local_root(), "in the way")?;
    let backup = stage.back_up(8)?;
    assert_eq!(backup["status"], "failed", "{backup}");
    let states = backup["destinations"].as_array().context("places")?;
    ensure!(
        states.iter().all(|place| place["status"] == "failed"),
        "{backup}"
    );
    assert_eq!(
        stage.server.list_keys(&stage.bucket, "")?,
        Vec::<String>::new()
    );
    Ok(())
}

//! What a listing tells and what a policy takes away: from the place alone, and only what is ours.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::Cli;
use backup_e2e::crowd::{self, Member};
use backup_e2e::evidence;
use backup_e2e::pg::Cluster;
use backup_e2e::s3::{Kind, Server};
use backup_e2e::sample;
use backup_e2e::scene::{SOURCE, Scene, Store, is_note, unique};
use serde_json::Value;

/// Damages a file.
type Spoil<'a> = &'a dyn Fn(&PathBuf) -> std::io::Result<()>;

/// The files in which the program remembers what it read of a place.
fn cache(scene: &Scene<'_>) -> Result<Vec<PathBuf>> {
    let folder = scene.path("home").join(".cache/backup");
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    Ok(entries.into_iter().map(|entry| entry.path()).collect())
}

/// All that there is to be told of a place, as it is printed.
fn all_views(scene: &Scene<'_>, ids: &[String]) -> Result<Vec<String>> {
    let show = ids
        .iter()
        .map(|id| vec!["show", id.as_str(), "--source", SOURCE, "--json"]);
    let views = [vec!["list", "--json"], vec!["runs", "--json"]];
    views
        .into_iter()
        .chain(show)
        .map(|arguments| Ok(scene.run(&arguments)?.expect(0, &[])?.stdout))
        .collect()
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_18_what_was_remembered_is_of_no_matter() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let database = cluster.fresh_db(&unique("survive_cache"))?;
    cluster.psql(&database, &sample::bulk_sql("app", "bulk", 1))?;
    let scene = Scene::new(cluster, &database, Store::S3(Kind::SeaweedFs))?;
    let ids = [
        scene.older().to_owned(),
        scene.good_backup()?,
        scene.good_backup()?,
    ];
    let why = ["--reason", "before the migration"];
    scene
        .run(&[&["pin", &*ids[0]][..], &why].concat())?
        .expect(0, &["pinned"])?;
    scene.run(&["verify", &ids[1]])?.expect(0, &["ok"])?;
    let before = all_views(&scene, &ids)?;
    let listed: Value = serde_json::from_str(&before[0])?;
    let listed = listed.as_array().context("an array")?;
    let found: BTreeSet<_> = listed.iter().filter_map(|b| b["id"].as_str()).collect();
    ensure!(
        found == ids.iter().map(String::as_str).collect(),
        "{found:?}"
    );
    for (view, id) in before[2..].iter().zip(&ids) {
        ensure!(view.contains(id) && view.contains("sha256"), "{view}");
    }
    ensure!(
        before
            .iter()
            .any(|view| view.contains("before the migration"))
    );
    ensure!(!cache(&scene)?.is_empty(), "nothing was remembered");

    let mut ways = 0;
    let spoil: [(&str, Spoil<'_>); 4] = [
        ("gone", &|file| fs::remove_file(file)),
        ("empty", &|file| fs::write(file, "")),
        ("garbage", &|file| fs::write(file, vec![0xa5; 4096])),
        ("cut", &|file| {
            let text = fs::read(file)?;
            fs::write(file, &text[..text.len() / 2])
        }),
    ];
    for (name, spoil) in spoil {
        for file in cache(&scene)? {
            spoil(&file)?;
        }
        let after = all_views(&scene, &ids)?;
        ensure!(after == before, "{name}: {after:#?} instead of {before:#?}");
        ways += 1;
    }
    fs::remove_dir_all(scene.path("home").join(".cache"))?;
    ensure!(all_views(&scene, &ids)? == before, "without the folder");
    evidence::note(
        18,
        format!(
            "{} listings and views of {} backups, with ids, times, hashes and pins, the same to the \
             byte after the local memory was deleted, emptied, cut or overwritten ({} ways)",
            before.len(),
            ids.len(),
            ways + 1
        ),
    );
    Ok(())
}

/// Names that begin, end or are encoded alike.
const ALIKE: [&str; 6] = ["a", "a-b", "a_b", "a/b", "a b", "A"];

/// So many backups, with six objects each and records beside.
const COUNT: usize = 450;

/// More than a policy takes away here.
const DELETIONS: &str = "500";

struct Crowd {
    cli: Cli,
    server: &'static Server,
    bucket: String,
    url: String,
    members: Vec<Member>,
}

impl Crowd {
    fn new() -> Result<Self> {
        let server = Server::shared(Kind::SeaweedFs)?;
        let bucket = unique("survive-crowd").replace('_', "-");
        server.create_bucket(&bucket)?;
        let members = crowd::members_of(&ALIKE, COUNT)?;
        crowd::into_bucket(server, &bucket, "some/place", &members)?;
        Ok(Self {
            cli: Cli::without_server()?.with_s3(server),
            server,
            url: format!("s3://{bucket}/some/place"),
            bucket,
            members,
        })
    }

    /// The backups of one source, oldest first.
    fn of(&self, source: &str) -> Vec<&Member> {
        let members = self.members.iter();
        members.filter(|member| member.source == source).collect()
    }

    fn keys(&self) -> Result<BTreeSet<String>> {
        let keys = self.server.list_keys(&self.bucket, "")?;
        Ok(keys.into_iter().filter(|key| !is_note(key)).collect())
    }

    fn listed(&self, source: Option<&str>) -> Result<BTreeSet<String>> {
        let place = ["list", "--json", "--from", &self.url];
        let run = self.cli.run(place.into_iter().chain(source))?;
        let listed = run.exits(0)?.json()?;
        let listed = listed.as_array().context("an array")?;
        let name = |view: &Value| {
            Some(format!(
                "{} {}",
                view["source"].as_str()?,
                view["id"].as_str()?
            ))
        };
        Ok(listed.iter().filter_map(name).collect())
    }

    /// What others put there: beside, between and inside of what is ours.
    fn plant(&self) -> Result<usize> {
        let oldest = &self.of("a")[0].id;
        let foreign = [
            "README.txt".to_owned(),
            "other/place/backups/a/x/manifest.json".to_owned(),
            "some/place-b/notes".to_owned(),
            "some/place/backups/a/README.txt".to_owned(),
            "some/place/backups/a/not-a-backup/data.dump".to_owned(),
            format!("some/place/backups/a/{oldest}/notes.txt"),
            format!("some/place/backups/a/{oldest}x/schema.dump"),
            format!("some/place/backups/a/{oldest}-copy/manifest.json"),
        ];
        for key in &foreign {
            self.server.put_object(&self.bucket, key, b"theirs")?;
        }
        Ok(foreign.len())
    }
}

fn names(members: &[&Member]) -> BTreeSet<String> {
    let name = |member: &&Member| format!("{} {}", member.source, member.id);
    members.iter().map(name).collect()
}

/// Those that go when five stay: the newest that was verified stays too, if it is not among them.
fn expired<'a>(oldest_first: &[&'a Member]) -> Vec<&'a Member> {
    let newest_first = oldest_first.iter().rev().copied();
    let verified = newest_first.clone().find(|member| member.verified);
    let mut expired: Vec<_> = newest_first.skip(5).collect();
    expired.retain(|member| verified.is_none_or(|kept| kept.id != member.id));
    expired
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_19_only_our_own_expired_objects_go() -> Result<()> {
    let crowd = Crowd::new()?;
    let foreign = crowd.plant()?;
    let everything = crowd.server.list_keys(&crowd.bucket, "")?.len();
    let before = crowd.keys()?;
    ensure!(before.len() > 2500, "only {} objects", before.len());
    let all: Vec<_> = crowd.members.iter().collect();
    ensure!(crowd.listed(None)? == names(&all), "all");
    for source in ALIKE {
        ensure!(
            crowd.listed(Some(source))? == names(&crowd.of(source)),
            "{source}"
        );
    }

    let keep = [
        "--keep-last",
        "5",
        "--min-keep",
        "1",
        "--max-deletions",
        DELETIONS,
    ];
    let prune = [
        "prune",
        "a",
        "--yes",
        "--clock-is-right",
        "--json",
        "--from",
        &crowd.url,
    ];
    let prune: Vec<_> = prune.into_iter().chain(keep).collect();
    let done = crowd.cli.run(&prune)?.exits(0)?.json()?;
    let deleted = done["deleted"].as_array().context("deleted")?;
    let deleted: BTreeSet<_> = deleted.iter().filter_map(Value::as_str).collect();
    let of_a = crowd.of("a");
    let expired = expired(&of_a);
    ensure!(deleted == expired.iter().map(|member| member.id.as_str()).collect());

    let ours: BTreeSet<_> = expired
        .iter()
        .flat_map(|member| &member.objects)
        .map(|(key, _)| format!("some/place/{key}"))
        .filter(|key| !is_note(key))
        .collect();
    let left: BTreeSet<_> = before.difference(&ours).cloned().collect();
    ensure!(crowd.keys()? == left, "something else went, or stayed");
    let left: BTreeSet<_> = names(&all).difference(&names(&expired)).cloned().collect();
    ensure!(
        crowd.listed(None)? == left,
        "another backup went, or stayed"
    );
    evidence::note(
        19,
        format!(
            "of {everything} objects of 6 sources ({}) and {foreign} of others, all {COUNT} backups \
             were listed, and the {} objects of the {} expired backups of `a` went, no other",
            ALIKE.map(|name| format!("`{name}`")).join(", "),
            ours.len(),
            expired.len()
        ),
    );
    Ok(())
}

//! Who can write to the bucket, and what is out of his reach: Object Lock, pins, and manifests that
//! are put where they do not belong.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::Cli;
use backup_e2e::evidence;
use backup_e2e::pg::Cluster;
use backup_e2e::s3::{Kind, Server};
use backup_e2e::s3_fault::{Act, Request, Rule, S3Proxy};
use backup_e2e::sample;
use backup_e2e::scene::{SOURCE, Scene, Store, unique};
use backup_e2e::vault::{Vault, id_of};
use serde_json::Value;

use super::lies;

/// A real bucket with Object Lock, and before it what real S3 asks for beside: a checksum with
/// every upload.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_29_a_thief_removes_nothing_for_good_from_a_locked_bucket() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let database = cluster.fresh_db(&unique("survive_locked"))?;
    cluster.psql(&database, &sample::bulk_sql("app", "bulk", 20))?;
    let server = Server::shared(Kind::SeaweedFs)?;
    let bucket = unique("survive-locked").replace('_', "-");
    server.create_locked_bucket(&bucket)?;
    let proxy = S3Proxy::start(server.port())?;
    let bare = proxy.demand_checksums();
    let cli = Cli::new(cluster)?.with_s3(server);
    let cli = cli.with_env("AWS_ENDPOINT_URL", &proxy.endpoint());
    let vault = Vault::at(cli, &format!("s3://{bucket}/place"))?;
    let plain = ["--compress", "none"];
    let taken = [
        vault.back_up(&database, &plain)?,
        vault.back_up(&database, &plain)?,
    ];
    ensure!(
        bare.count() == 0,
        "{} uploads without a checksum",
        bare.count()
    );
    let uploads = proxy.count(|request| request.method == "PUT");
    ensure!(proxy.count(Request::is_part) >= 4, "no upload in parts");
    let list = || -> Result<Value> {
        let run = vault.cli.run(["list", "--from", &vault.url, "--json"])?;
        run.exits(0)?.json()
    };
    let before = list()?;

    // He has the key of the owner, which may do everything.
    let versions = server.list_versions(&bucket)?;
    let is_ours = |key: &str| key.contains("/backups/");
    let mut refused = 0;
    for version in versions
        .iter()
        .filter(|v| is_ours(&v.key) && !v.marks_deletion)
    {
        let Err(error) = server.delete_version(&bucket, version) else {
            anyhow::bail!("{} could be removed", version.key);
        };
        ensure!(format!("{error:#}").contains("403"), "{error:#}");
        refused += 1;
    }
    for key in server.list_keys(&bucket, "")? {
        server.delete_object(&bucket, &key)?;
    }
    ensure!(server.list_keys(&bucket, "")?.is_empty());
    // What says that they were deleted is no content, and goes.
    for version in server.list_versions(&bucket)? {
        if version.marks_deletion {
            server.delete_version(&bucket, &version)?;
        }
    }
    ensure!(list()? == before, "another list than before");
    for backup in &taken {
        vault.verify(id_of(backup)?)?;
    }
    let target = format!("{database}_restored");
    vault.restore(id_of(&taken[0])?, &target, &[])?;
    ensure!(cluster.contents(&target)? == cluster.contents(&database)?);
    evidence::note(
        29,
        format!(
            "with Object Lock, all {uploads} uploads had a checksum; the owner's key could remove \
             none of {refused} versions, and after it had deleted everything both backups came back, \
             verified, and one restored equal"
        ),
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_29_a_pinned_backup_is_deleted_by_nothing() -> Result<()> {
    let (scene, proxy) = lies::behind_proxy("2s")?;
    let pinned = scene.older().to_owned();
    let mut all = vec![pinned.clone()];
    for _ in 0..3 {
        // Of two that begin in one second, neither is the newer one.
        std::thread::sleep(Duration::from_millis(1100));
        all.push(scene.good_backup()?);
    }
    let why = ["--reason", "the law"];
    scene
        .run(&[&["pin", &*pinned][..], &why].concat())?
        .expect(0, &["pinned"])?;
    let prune = |policy: &str, code, word| {
        let policy: Vec<_> = policy.split(' ').collect();
        let all = [&["prune", SOURCE, "--yes", "--clock-is-right"][..], &policy].concat();
        scene.run(&all)?.expect(code, &[word])
    };

    // Where nothing may be deleted, nothing is, and that is said once.
    let before = scene.state()?;
    let kept = proxy.add(Rule::new(
        Request::is_delete,
        Act::error(403, "AccessDenied"),
    ));
    let run = prune("--keep-last 1 --min-keep 1", 3, "pinned: the law")?;
    ensure!(
        run.text().contains("the store keeps 2 of the backups"),
        "{}",
        run.text()
    );
    ensure!(kept.count() >= 2, "{} deletions were tried", kept.count());
    ensure!(scene.state()? == before, "something went");
    proxy.clear();

    // One that keeps nothing by itself is refused, pinned or not.
    let daily = "--keep-daily 1 --keep-weekly none --keep-monthly none --keep-yearly none";
    let policies = [
        ("--keep-last 1 --min-keep 1", 0, "pinned: the law"),
        ("--keep-within 1s --min-keep 1", 12, "keeps none"),
        (daily, 0, "pinned: the law"),
    ];
    for (policy, code, word) in policies {
        prune(policy, code, word)?;
        scene.assert_proved(&pinned)?;
    }
    for old in &all[1..3] {
        ensure!(scene.objects_of(old)?.is_empty(), "{old} is still there");
    }
    scene.assert_proved(&all[3])?;
    evidence::note(
        29,
        format!(
            "a pinned backup outlived {} policies, of which those that were not refused let go all \
             others but the newest; where the bucket forbids deletions nothing went, and {} refusals \
             were told once",
            policies.len(),
            kept.count()
        ),
    );
    Ok(())
}

/// Everything of one backup but its name, in the place of another.
fn put_in_its_place(scene: &Scene<'_>, victim: &str, twin: &str, only: &str) -> Result<()> {
    for key in scene.objects_of(twin)? {
        if key.ends_with(only) {
            let bytes = scene.place.get(&key)?;
            scene.place.put(&key.replace(twin, victim), &bytes)?;
        }
    }
    Ok(())
}

/// Gives the manifest that is there some fields of the right one.
fn correct(scene: &Scene<'_>, right: &[(String, Vec<u8>)], fields: &[&str]) -> Result<()> {
    let mut objects = right.iter();
    let manifest = objects.find(|(key, _)| key.ends_with("/manifest.json"));
    let (key, right) = manifest.context("a manifest")?;
    let right: Value = serde_json::from_slice(right)?;
    let mut found: Value = serde_json::from_slice(&scene.place.get(key)?)?;
    for field in fields {
        found[*field] = right[*field].clone();
    }
    scene.place.put(key, &serde_json::to_vec(&found)?)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_29_a_swapped_or_replayed_manifest_is_refused() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let database = cluster.fresh_db(&unique("survive_swapped"))?;
    cluster.psql(&database, &sample::bulk_sql("app", "bulk", 1))?;
    let scene = Scene::new(cluster, &database, Store::S3(Kind::SeaweedFs))?;
    // The old one is played again as the newest, with another content than the newest has.
    let old = scene.older().to_owned();
    cluster.psql(&database, "DELETE FROM app.bulk WHERE id % 2 = 0")?;
    let victim = scene.good_backup()?;
    let contents = cluster.contents(&database)?;
    let mut objects = Vec::new();
    for key in scene.objects_of(&victim)? {
        objects.push((key.clone(), scene.place.get(&key)?));
    }
    let rows: [(&str, &str, &[&str]); 4] = [
        ("the manifest", "/manifest.json", &[]),
        (
            "the manifest with its name corrected",
            "/manifest.json",
            &["id"],
        ),
        ("all of it", "", &[]),
        (
            "all of it with name and times corrected",
            "",
            &["id", "started_at", "finished_at"],
        ),
    ];
    for (name, only, corrected) in rows {
        put_in_its_place(&scene, &victim, &old, only)?;
        correct(&scene, &objects, corrected)?;
        let target = scene.target();
        let verify = scene.run(&["verify", &victim, "--source", SOURCE, "--level", "decoded"])?;
        let restore = scene.run(&["restore", &victim, "--target-db", &target])?;
        let over = [
            "restore",
            &victim,
            "--target-db",
            &database,
            "--swap",
            "--yes",
        ];
        for run in [verify, restore, scene.run(&over)?] {
            ensure!(run.code == 6, "{name}: code {}: {}", run.code, run.text());
        }
        ensure!(!cluster.has_db(&target)?, "{name}: a database was made");
        ensure!(
            cluster.contents(&database)? == contents,
            "{name}: live was touched"
        );
        for (key, bytes) in &objects {
            scene.place.put(key, bytes)?;
        }
    }
    scene.assert_proved(&victim)?;
    scene.assert_proved(&old)?;
    evidence::note(
        29,
        format!(
            "an old backup played as the newest in {} ways: verify and both kinds of restore refused \
             it with 6, and the live database stayed as it was",
            rows.len()
        ),
    );
    Ok(())
}

//! Dumps that stock `pg_dump` took, made backups.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::{Cli, Keys, Run, Running};
use backup_e2e::pg::Cluster;
use backup_e2e::sample;
use rstest::rstest;

/// A database, and a program that adopts dumps of it.
struct Kit {
    cluster: &'static Cluster,
    database: String,
    cli: Cli,
    keys: Keys,
    store: String,
}

impl Kit {
    fn new(major: u16) -> Result<Self> {
        let cluster = Cluster::shared(major)?;
        let database = cluster.fresh_db("adopted")?;
        cluster.psql(&database, &sample::everything_sql(major))?;
        let cli = Cli::new(cluster)?;
        let (keys, store) = (cli.keys()?, cli.local_store());
        Ok(Self {
            cluster,
            database,
            cli,
            keys,
            store,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.cli.folder().join(name)
    }

    /// What a shell makes of a command line, as in anybody's script.
    fn shell(&self, line: &str) -> Result<()> {
        let mut command = Command::new("sh");
        command.args(["-c", line]).env_clear().envs(self.cli.env());
        command.env("PGDATABASE", &self.database);
        command.current_dir(self.cli.folder());
        Running::start(command)?.wait()?.exits(0)?;
        Ok(())
    }

    fn adopt(&self, file: &str, more: &[&str]) -> Result<Run> {
        let words = [
            "adopt",
            file,
            "--source",
            "old",
            "--to",
            &self.store,
            "--recipient",
            &self.keys.recipient,
            "--json",
        ];
        self.cli.run([&words, more].concat())
    }

    fn adopted(&self, file: &str) -> Result<String> {
        let backup = self.adopt(file, &[])?.exits(0)?.json()?;
        assert_eq!(backup["status"], "success");
        Ok(backup["id"].as_str().context("an id")?.to_owned())
    }

    fn read(&self, words: &[&str]) -> Result<Run> {
        let place = ["--from", &self.store, "--identity", &self.keys.identity];
        self.cli.run([words, &place].concat())
    }

    fn cut(&self, file: &str) -> Result<()> {
        let content = fs::read(self.path(file))?;
        let length = content.len() * 6 / 10;
        fs::write(self.path("cut"), &content[..length])?;
        Ok(())
    }
}

#[rstest]
#[case::gzip_inside(15, "pg_dump -Fc -f old.dump", "old.dump")]
#[case::redirected(18, "pg_dump -Fc > old.dump", "old.dump")]
#[case::piped_into_gzip(17, "pg_dump -Fc | gzip > old.dump.gz", "old.dump.gz")]
#[case::zstd_inside(16, "pg_dump -Fc --compress=zstd -f old.dump", "old.dump")]
#[case::nothing_inside(14, "pg_dump -Fc -Z0 | zstd > old.dump.zst", "old.dump.zst")]
#[ignore = "needs servers: run ./scripts/test"]
fn a_custom_archive_is_as_good_as_a_backup(
    #[case] major: u16,
    #[case] line: &str,
    #[case] file: &str,
) -> Result<()> {
    let kit = Kit::new(major)?;
    kit.shell(line)?;
    let id = kit.adopted(file)?;
    let shown = kit.read(&["show", &id, "--json"])?.exits(0)?.json()?;
    assert_eq!(shown["adopted"], true);
    assert_eq!(shown["database"], kit.database.as_str());
    assert_eq!(shown["parts"][1]["name"], "data");
    ensure!(shown["rows"].as_u64() > Some(0), "{shown}");
    kit.read(&["verify", &id, "--level", "decoded"])?.exits(0)?;
    let target = format!("{}_back", kit.database);
    let restored = kit.read(&["restore", &id, "--target-db", &target, "--json"])?;
    let view = restored.json()?;
    ensure!(
        matches!(restored.code, Some(0 | 3)),
        "{view} {}",
        restored.stderr
    );
    assert_eq!(
        view["compare"]["tables"], view["compare"]["equal"],
        "{view}"
    );
    assert_eq!(
        kit.cluster.contents(&target)?,
        kit.cluster.contents(&kit.database)?
    );
    // As anybody gets it back by hand.
    let part = kit.read(&["cat", &id, "--part", "data"])?.exits(0)?;
    if !file.ends_with(['z', 't']) {
        assert_eq!(part.stdout, fs::read(kit.path(file))?);
    }
    kit.cut(file)?;
    let refused = kit.adopt("cut", &[])?;
    ensure!(
        refused.code != Some(0) && refused.code != Some(3),
        "{}",
        refused.stderr
    );
    let listed = kit
        .cli
        .run(["list", "--from", &kit.store, "--json"])?
        .exits(0)?
        .json()?;
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn an_adopted_archive_can_be_drilled() -> Result<()> {
    let mut kit = Kit::new(17)?;
    // What a drill restores has nothing that only a superuser may make.
    kit.database = kit.cluster.fresh_db("plain")?;
    let sql = "CREATE TABLE orders (id int PRIMARY KEY, what text, at date DEFAULT '2025-01-01');
               CREATE INDEX ON orders (what); CREATE SEQUENCE tickets START 7;
               INSERT INTO orders SELECT n, 'order ' || n FROM generate_series(1, 5000) n;
               SELECT nextval('tickets'), lo_from_bytea(0, 'content')";
    kit.cluster.psql(&kit.database, sql)?;
    kit.shell("pg_dump -Fc -f old.dump")?;
    let id = kit.adopted("old.dump")?;
    let drilled = kit.read(&["drill", "--backup", &id, "--json"])?;
    let report = drilled.json()?;
    ensure!(
        matches!(drilled.code, Some(0 | 3)),
        "{report}\n{}",
        drilled.stderr
    );
    ensure!(
        ["compared", "checked"].contains(&report["level"].as_str().unwrap_or_default()),
        "{report}"
    );
    Ok(())
}

#[rstest]
#[case::tar("pg_dump -Ft -f old.tar", "old.tar", None)]
#[case::sql("pg_dump -f old.sql", "old.sql", None)]
#[case::gzipped(
    "pg_dump | tee old.sql | gzip > old.sql.gz",
    "old.sql.gz",
    Some("old.sql")
)]
#[case::tar_gzipped(
    "pg_dump -Ft | tee old.tar | zstd > old.tar.zst",
    "old.tar.zst",
    Some("old.tar")
)]
#[ignore = "needs servers: run ./scripts/test"]
fn other_forms_are_kept_and_given_back(
    #[case] line: &str,
    #[case] file: &str,
    #[case] within: Option<&str>,
) -> Result<()> {
    let kit = Kit::new(16)?;
    kit.shell(line)?;
    let id = kit.adopted(file)?;
    kit.read(&["verify", &id, "--level", "decoded"])?.exits(0)?;
    let text = kit.read(&["show", &id])?.exits(0)?.text();
    ensure!(text.contains("adopted"), "{text}");
    let original = fs::read(kit.path(within.unwrap_or(file)))?;
    let part = kit.read(&["cat", &id, "--part", "dump"])?.exits(0)?;
    ensure!(part.stdout == original, "cat gives something else");
    let back = kit.path("back").display().to_string();
    kit.read(&["restore", &id, "--target-dir", &back])?
        .exits(0)?;
    let written = fs::read_dir(kit.path("back"))?
        .next()
        .context("a file")??
        .path();
    ensure!(
        fs::read(written)? == original,
        "restore gives something else"
    );
    let refused = kit.read(&["restore", &id, "--target-db", "x"])?.exits(2)?;
    ensure!(
        refused.stderr.contains("--target-dir"),
        "{}",
        refused.stderr
    );
    let refused = kit.read(&["drill", "--backup", &id])?.exits(2)?;
    ensure!(
        refused.stderr.contains("nothing to rehearse"),
        "{}",
        refused.stderr
    );
    kit.cut(file)?;
    let cut = kit.adopt("cut", &[])?;
    ensure!(cut.code != Some(0) && cut.code != Some(3), "{}", cut.stderr);
    let listed = kit
        .cli
        .run(["list", "--from", &kit.store, "--json"])?
        .exits(0)?
        .json()?;
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn what_is_no_dump_is_refused_and_the_time_can_be_said() -> Result<()> {
    let kit = Kit::new(15)?;
    kit.shell(
        "pg_dump -Fd -f old.d; pg_dump -Fc --data-only -f rows.dump; pg_dump -Fc -f old.dump",
    )?;
    File::create(kit.path("empty"))?;
    fs::write(kit.path("text"), "no dump at all")?;
    for file in [
        "old.d",
        "old.d/toc.dat",
        "rows.dump",
        "empty",
        "text",
        "no such file",
    ] {
        let refused = kit.adopt(file, &[])?;
        ensure!(
            matches!(refused.code, Some(1 | 2 | 9)),
            "{file}: {:?} {}",
            refused.code,
            refused.stderr
        );
    }
    ensure!(
        !Path::new(&kit.cli.local_root())
            .join("backups/old")
            .exists(),
        "something is stored"
    );
    let said = kit
        .adopt("old.dump", &["--at", "2024-05-06T07:08:09Z"])?
        .exits(0)?
        .json()?;
    assert_eq!(said["started_at"], "2024-05-06T07:08:09Z");
    ensure!(
        said["id"]
            .as_str()
            .is_some_and(|id| id.starts_with("20240506T070809Z")),
        "{said}"
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn the_configuration_of_a_server_is_kept_as_far_as_the_login_may_read_it() -> Result<()> {
    let cluster = Cluster::shared(16)?;
    let limited = "limited_reader";
    cluster.psql("postgres", &format!("CREATE ROLE {limited} LOGIN"))?;
    let cli = Cli::new(cluster)?;
    let keys = cli.keys()?;
    let text = |user: &str| {
        format!(
            "[encryption]\nrecipients = [\"{}\"]\nidentities = {{ file = \"{}\" }}\n\
             [destination.local]\nurl = \"{}\"\n[server.main]\nhost = \"{}\"\nport = {}\n\
             user = \"{user}\"\n[source.main-config]\nkind = \"server-config\"\nserver = \"main\"\n",
            keys.recipient,
            keys.identity,
            cli.local_store(),
            cluster.host(),
            cluster.port(),
        )
    };
    let config = cli.private_file("backup.toml", &text("postgres"))?;
    let run = |words: &[&str]| cli.run([&["--config", &config], words].concat());
    let backup = run(&["backup", "main-config", "--json"])?
        .exits(0)?
        .json()?;
    let id = backup["id"].as_str().context("an id")?;
    assert_eq!(backup["parts"][0]["kind"], "settings");
    let document = run(&["cat", id, "--part", "settings"])?.exits(0)?.json()?;
    let port = document["settings"].as_array().context("settings")?;
    let port = port.iter().find(|setting| setting["name"] == "port");
    assert_eq!(
        port.context("its port")?["setting"],
        cluster.port().to_string()
    );
    ensure!(
        document["hba"]
            .as_array()
            .is_some_and(|rules| !rules.is_empty()),
        "{document}"
    );
    run(&["verify", id, "--level", "decoded"])?.exits(0)?;
    run(&["restore", id, "--target-db", "x"])?.exits(2)?;
    run(&["check"])?.exits(0)?;
    cli.private_file("backup.toml", &text(limited))?;
    let partly = run(&["backup", "main-config", "--json"])?
        .exits(3)?
        .json()?;
    let warnings = partly["warnings"].to_string();
    ensure!(warnings.contains("hba is missing"), "{warnings}");
    ensure!(warnings.contains("pg_read_all_settings"), "{warnings}");
    Ok(())
}

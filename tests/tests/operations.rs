//! `docs/OPERATIONS.md` to the letter: its commands are run as they stand there, with its logins.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::{Cli, Run, Running};
use backup_e2e::pg::{Cluster, ClusterOptions};
use backup_e2e::s3::{Kind, Login};
use backup_e2e::vault::Vault;
use backup_e2e::{binary, sample};
use serde_json::Value;

const DOCUMENT: &str = include_str!("../../docs/OPERATIONS.md");

/// The code blocks of one kind, by the chapter that they are in.
fn blocks(kind: &str) -> BTreeMap<&'static str, Vec<&'static str>> {
    let mut blocks = BTreeMap::new();
    for chapter in DOCUMENT.split("\n## ").skip(1) {
        let (title, text) = chapter.split_once('\n').unwrap_or((chapter, ""));
        let begin = format!("```{kind}\n");
        let found = text.split(begin.as_str()).skip(1);
        let found: Vec<_> = found
            .filter_map(|block| Some(block.split_once("```")?.0))
            .collect();
        blocks.insert(title, found);
    }
    blocks
}

/// Somebody with the page, a key and the programs.
struct Desk<'a> {
    cli: Cli,
    vault: &'a Vault,
}

impl<'a> Desk<'a> {
    fn new(cluster: &Cluster, vault: &'a Vault) -> Result<Self> {
        let cli = vault.beside(cluster)?.cli;
        fs::copy(&vault.keys.identity, cli.folder().join("identity.txt"))?;
        Ok(Self { cli, vault })
    }

    /// Types a block; the first command that fails ends it.
    fn types(&self, block: &str) -> Result<Run> {
        let own = binary("backup-cli")?;
        let own = own.parent().context("a directory")?;
        let env = self.cli.env();
        let path = env.get("PATH").map_or("/usr/bin:/bin", String::as_str);
        let mut shell = Command::new("bash");
        shell.args(["-eu", "-c", block]);
        shell.env_clear().envs(env);
        shell
            .env("PATH", format!("{}:{path}:/usr/bin:/bin", own.display()))
            .env("REPO", &self.vault.url)
            .env("RECIPIENT", &self.vault.keys.recipient)
            .current_dir(self.cli.folder());
        Running::start(shell)?.wait()?.exits(0)
    }
}

const SHOP: &str = "
CREATE ROLE app;
CREATE TABLE public.orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text NOT NULL, at timestamptz);
INSERT INTO public.orders (what, at)
    SELECT 'order ' || n, '2026-02-05 03:00:00Z'::timestamptz + n * interval '1 minute'
    FROM generate_series(1, 2000) n;
ALTER TABLE public.orders OWNER TO app;
";

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn what_was_lost_comes_back_by_the_page() -> Result<()> {
    let cluster = Cluster::start(17, &ClusterOptions::default())?;
    let vault = Vault::seaweedfs(&cluster)?;
    for database in ["shop", "crm"] {
        cluster.create_db(database)?;
    }
    cluster.psql("shop", SHOP)?;
    cluster.psql("crm", &sample::bulk_sql("app", "people", 1))?;
    let before = cluster.contents("shop")?;
    for database in ["shop", "crm"] {
        vault.back_up(database, &[])?;
    }
    let desk = Desk::new(&cluster, &vault)?;
    let blocks = blocks("sh");
    let chapter = |title: &str| {
        blocks
            .get(title)
            .with_context(|| format!("chapter {title}"))
    };

    // Rows of one table; one that changed since stays as it is.
    let lost = "DELETE FROM public.orders WHERE id % 3 = 0; UPDATE public.orders SET what = 'new' WHERE id = 1";
    cluster.psql("shop", lost)?;
    for block in chapter("Rows of one table")? {
        desk.types(block)?;
    }
    cluster.psql(
        "shop",
        "UPDATE public.orders SET what = 'order 1' WHERE id = 1",
    )?;
    assert_eq!(cluster.contents("shop")?, before);

    for block in chapter("One table, or one schema, to look at")? {
        let said = desk.types(block)?.text();
        ensure!(said.contains("2000"), "{said}");
    }

    cluster.psql("shop", "DROP TABLE public.orders")?;
    for block in chapter("One database")? {
        // Nobody is there to be asked.
        desk.types(&block.replace("--swap", "--swap --yes"))?;
    }
    assert_eq!(cluster.contents("shop_looked_at")?, before);
    assert_eq!(cluster.contents("shop")?, before);

    // Nothing is left but the bucket and the key.
    let crm = cluster.contents("crm")?;
    let bare = Cluster::start(17, &ClusterOptions::default())?;
    let desk = Desk::new(&bare, &vault)?;
    for block in chapter("A whole server, on a bare machine")? {
        desk.types(block)?;
    }
    assert_eq!(bare.contents("shop")?, before);
    assert_eq!(bare.contents("crm")?, crm);
    let owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'orders'";
    assert_eq!(bare.query("shop", owner)?, "app");
    let login = "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'app'";
    assert_eq!(bare.query("postgres", login)?, "t");
    Ok(())
}

/// What the sheet says is enough, on another machine, with nothing but the key and the bucket.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn the_sheet_brings_everything_back() -> Result<()> {
    let cluster = Cluster::start(17, &ClusterOptions::default())?;
    let vault = Vault::seaweedfs(&cluster)?;
    cluster.create_db("it's shop")?;
    cluster.psql("it's shop", SHOP)?;
    let before = cluster.contents("it's shop")?;
    vault.back_up("it's shop", &[])?;
    let sheet = vault.cli.run(["recovery-sheet", "--from", &vault.url])?;
    let sheet = sheet.exits(0)?.text();
    ensure!(sheet.contains(&vault.keys.recipient), "{sheet}");
    ensure!(sheet.contains("NO BACKUP OF IT WAS EVER PROVED"), "{sheet}");
    ensure!(sheet.contains("pg_restore -d shop_restored"), "{sheet}");
    for secret in [
        vault.bucket().context("a bucket")?.0.secret_key(),
        "AGE-SECRET",
    ] {
        ensure!(!sheet.contains(secret), "{sheet}");
    }
    let (_, chapter) = sheet
        .split_once("## Source it's shop\n")
        .context("a chapter")?;
    let (_, block) = chapter.split_once("```sh\n").context("a block")?;
    let (block, _) = block.split_once("```").context("an end")?;
    let bare = Cluster::start(17, &ClusterOptions::default())?;
    let desk = Desk::new(&bare, &vault)?;
    let env = desk.cli.env();
    let (host, user) = (&env["PGHOST"], &env["PGUSER"]);
    desk.types(&block.replace("HOST", host).replace("USER", user))?;
    assert_eq!(bare.contents("it's shop")?, before);
    // Where the sheet was proved, it says so, and what it is made of is there for programs.
    let sheet = vault
        .cli
        .run(["recovery-sheet", "--from", &vault.url, "--json"])?;
    let sheet = sheet.exits(0)?.json()?;
    assert_eq!(sheet["sources"][0]["source"], "it's shop", "{sheet:#}");
    assert_eq!(sheet["sources"][0]["backups"], 1);
    ensure!(sheet["sources"][0]["proved"][1].is_string(), "{sheet:#}");
    assert_eq!(sheet["opens_all"][0], vault.keys.recipient.as_str());
    // Of nothing there is no sheet.
    let nothing = vault.cli.local_store();
    vault
        .cli
        .run(["recovery-sheet", "--from", &nothing])?
        .exits(4)?;
    Ok(())
}

/// The policy of the page for one login, for the bucket of a vault.
fn policy(kind: &str, vault: &Vault) -> Result<String> {
    let found = blocks(&format!("json {kind}"))
        .into_values()
        .flatten()
        .next();
    let found = found.with_context(|| format!("the policy of a {kind}"))?;
    let (_, bucket) = vault.bucket().context("a bucket")?;
    let place = vault.url.strip_prefix("s3://").context("a URL")?;
    let text = found
        .replace(":::backups/postgres/", &format!(":::{place}/"))
        .replace(":::backups\"", &format!(":::{bucket}\""));
    // It is JSON, and nothing of another bucket is left in it.
    let value: Value = serde_json::from_str(&text)?;
    ensure!(!text.contains("backups"), "{text}");
    Ok(value.to_string())
}

/// The program with a login of the bucket and one of the database.
fn as_login(vault: &Vault, cluster: &Cluster, kind: &str, role: &str) -> Result<Cli> {
    let (server, _) = vault.bucket().context("a bucket")?;
    let Login {
        access_key,
        secret_key,
        session_token,
    } = server.assume(&policy(kind, vault)?)?;
    let cli = Cli::new(cluster)?.with_s3(server);
    Ok(cli
        .with_env("AWS_ACCESS_KEY_ID", &access_key)
        .with_env("AWS_SECRET_ACCESS_KEY", &secret_key)
        .with_env("AWS_SESSION_TOKEN", &session_token)
        .with_env("PGUSER", role))
}

fn published(vault: &Vault) -> Result<usize> {
    let keys = vault.keys_stored()?;
    let manifests = keys.iter().filter(|key| key.ends_with("/manifest.json"));
    Ok(manifests.count())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn each_login_does_its_work_and_no_more() -> Result<()> {
    let cluster = Cluster::start(17, &ClusterOptions::default())?;
    let vault = Vault::in_bucket(&cluster, Kind::MinIo)?;
    cluster.create_db("shop")?;
    cluster.psql("shop", SHOP)?;
    for sql in blocks("sql").into_values().flatten() {
        cluster.psql("postgres", sql)?;
    }
    let url = vault.url.as_str();
    let (identity, recipient) = (&vault.keys.identity, &vault.keys.recipient);
    let identity = Path::new(identity).display().to_string();
    let back_up = [
        "backup",
        "-d",
        "shop",
        "--to",
        url,
        "--recipient",
        recipient,
        "--json",
    ];

    let writer = as_login(&vault, &cluster, "writer", "backup")?;
    for _ in 0..2 {
        let taken = writer.run(back_up)?.exits(0)?.json()?;
        assert_eq!(taken["status"], "success", "{taken:#}");
        assert_eq!(taken["rows"], 2000, "{taken:#}");
    }
    assert_eq!(published(&vault)?, 2);
    let doctor = [
        "doctor",
        "-d",
        "shop",
        "--to",
        url,
        "--recipient",
        recipient,
    ];
    let found = writer.run(doctor)?.exits(0)?.text();
    ensure!(found.contains("0 problems, 0 warnings"), "{found}");
    let prune = [
        "prune",
        "--from",
        url,
        "--keep-last",
        "1",
        "--min-keep",
        "1",
        "--yes",
    ];
    let refused = writer.run(prune)?;
    ensure!(
        refused.code != Some(0),
        "a writer deletes nothing: {}",
        refused.text()
    );
    assert_eq!(published(&vault)?, 2);

    let reader = as_login(&vault, &cluster, "reader", "restorer")?;
    let listed = reader
        .run(["list", "--from", url, "--json"])?
        .exits(0)?
        .json()?;
    assert_eq!(listed.as_array().map(Vec::len), Some(2), "{listed:#}");
    let restore = [
        "restore",
        "latest",
        "--source",
        "shop",
        "--from",
        url,
        "--identity",
        &identity,
        "--no-owner",
        "--target-db",
        "looked_at",
        "--json",
    ];
    let restored = reader.run(restore)?.exits(0)?.json()?;
    assert_eq!(restored["compare"]["different"], serde_json::json!([]));
    assert_eq!(
        cluster.query("looked_at", "SELECT count(*) FROM orders")?,
        "2000"
    );
    reader.run(back_up)?.exits(8)?;
    assert_eq!(published(&vault)?, 2);

    let verify = [
        "verify",
        "--all",
        "--from",
        url,
        "--identity",
        &identity,
        "--level",
        "decoded",
    ];
    let verify_runs = ["runs", "--operation", "verify", "--from", url, "--json"];
    reader.run(verify)?.exits(0)?;
    let runs = writer.run(verify_runs)?.exits(0)?.json()?;
    assert_eq!(runs, serde_json::json!([]), "a reader leaves no record");
    let prover = as_login(&vault, &cluster, "prover", "restorer")?;
    prover.run(verify)?.exits(0)?;
    let runs = writer.run(verify_runs)?.exits(0)?.json()?;
    assert_eq!(runs.as_array().map(Vec::len), Some(2), "{runs:#}");
    prover.run(back_up)?.exits(8)?;

    let pruner = as_login(&vault, &cluster, "pruner", "restorer")?;
    pruner.run(back_up)?.exits(8)?;
    assert_eq!(published(&vault)?, 2);
    pruner.run(prune)?.exits(0)?;
    assert_eq!(published(&vault)?, 1);
    Ok(())
}

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

/// A database and a bucket with the logins of the page.
struct House {
    cluster: Cluster,
    vault: Vault,
    identity: String,
}

impl House {
    fn new() -> Result<Self> {
        let cluster = Cluster::start(17, &ClusterOptions::default())?;
        let vault = Vault::in_bucket(&cluster, Kind::MinIo)?;
        cluster.create_db("shop")?;
        cluster.psql("shop", SHOP)?;
        for sql in blocks("sql").into_values().flatten() {
            cluster.psql("postgres", sql)?;
        }
        let identity = Path::new(&vault.keys.identity).display().to_string();
        Ok(Self {
            cluster,
            vault,
            identity,
        })
    }

    /// The program with a login of the bucket and one of the database.
    fn as_login(&self, kind: &str, role: &str) -> Result<Cli> {
        let (server, _) = self.vault.bucket().context("a bucket")?;
        let login: Login = server.assume(&policy(kind, &self.vault)?)?;
        let cli = Cli::new(&self.cluster)?.with_s3(server);
        Ok(cli
            .with_env("AWS_ACCESS_KEY_ID", &login.access_key)
            .with_env("AWS_SECRET_ACCESS_KEY", &login.secret_key)
            .with_env("AWS_SESSION_TOKEN", &login.session_token)
            .with_env("PGUSER", role))
    }

    fn published(&self) -> Result<usize> {
        let keys = self.vault.keys_stored()?;
        let manifests = keys.iter().filter(|key| key.ends_with("/manifest.json"));
        Ok(manifests.count())
    }

    /// What a login is told who would take a backup, or do something else with the place.
    fn backs_up(&self, cli: &Cli) -> Result<Run> {
        let (url, recipient) = (&self.vault.url, &self.vault.keys.recipient);
        let source = [
            "backup",
            "-d",
            "shop",
            "--to",
            url,
            "--recipient",
            recipient,
        ];
        cli.run(source.into_iter().chain(["--json"]))
    }

    /// The database would let it, and the bucket does not.
    fn publishes_nothing(&self, kind: &str) -> Result<()> {
        let before = self.published()?;
        self.backs_up(&self.as_login(kind, "backup")?)?.exits(8)?;
        assert_eq!(self.published()?, before, "by a {kind}");
        Ok(())
    }

    fn prunes(&self, cli: &Cli) -> Result<Run> {
        let policy = ["--keep-last", "1", "--min-keep", "1", "--yes"];
        let prune = ["prune", "--from", &self.vault.url];
        cli.run(prune.into_iter().chain(policy))
    }

    fn verifies(&self, cli: &Cli) -> Result<Run> {
        let how = ["--level", "decoded", "--identity", &self.identity];
        let verify = ["verify", "--all", "--from", &self.vault.url];
        cli.run(verify.into_iter().chain(how))
    }

    /// How many verifications are recorded.
    fn proofs(&self, cli: &Cli) -> Result<usize> {
        let url = self.vault.url.as_str();
        let runs = ["runs", "--operation", "verify", "--from", url, "--json"];
        let runs = cli.run(runs)?.exits(0)?.json()?;
        runs.as_array().map(Vec::len).context("an array")
    }
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn minio_lets_each_login_do_its_work_and_no_more() -> Result<()> {
    let house = House::new()?;
    let url = house.vault.url.as_str();

    let writer = house.as_login("writer", "backup")?;
    for _ in 0..2 {
        let taken = house.backs_up(&writer)?.exits(0)?.json()?;
        assert_eq!(taken["status"], "success", "{taken:#}");
        assert_eq!(taken["rows"], 2000, "{taken:#}");
    }
    let recipient = &house.vault.keys.recipient;
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
    let refused = house.prunes(&writer)?;
    ensure!(refused.code != Some(0), "a writer deletes nothing");
    assert_eq!(house.published()?, 2);

    let reader = house.as_login("reader", "restorer")?;
    let listed = reader.run(["list", "--from", url, "--json"])?.exits(0)?;
    assert_eq!(listed.json()?.as_array().map(Vec::len), Some(2));
    let restore = ["restore", "latest", "--source", "shop", "--from", url];
    let into = [
        "--identity",
        &house.identity,
        "--no-owner",
        "--target-db",
        "seen",
        "--json",
    ];
    let restored = reader.run(restore.into_iter().chain(into))?.exits(0)?;
    assert_eq!(
        restored.json()?["compare"]["different"],
        serde_json::json!([])
    );
    let count = "SELECT count(*) FROM orders";
    assert_eq!(house.cluster.query("seen", count)?, "2000");
    house.publishes_nothing("reader")?;

    house.verifies(&reader)?.exits(0)?;
    assert_eq!(house.proofs(&writer)?, 0, "a reader leaves no record");
    let prover = house.as_login("prover", "restorer")?;
    house.verifies(&prover)?.exits(0)?;
    assert_eq!(house.proofs(&writer)?, 2);
    house.publishes_nothing("prover")?;

    let pruner = house.as_login("pruner", "restorer")?;
    house.publishes_nothing("pruner")?;
    house.prunes(&pruner)?.exits(0)?;
    assert_eq!(house.published()?, 1);
    Ok(())
}

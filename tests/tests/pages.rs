//! The pages of `backup-server`, as somebody with a browser walks through them.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use backup_e2e::browser::Browser;
use backup_e2e::cli::{Cli, Running};
use backup_e2e::free_port;
use backup_e2e::pg::{Cluster, ClusterOptions};
use chrono::{DateTime, TimeDelta, Utc};
use nix::sys::signal::Signal;
use serde_json::Value;

const LIMIT: Duration = Duration::from_mins(2);
const ADMIN: &str = "the admin's own c4n4ry77a2";
const RESTORER: &str = "weak-c4n4ry5d1e";

/// Names that a page must not take for its own.
const DATABASE: &str = "shop <b>\"x\"</b> & \u{202e}pohs";

/// How many days ago backups were taken.
const DAYS: [i64; 10] = [33, 27, 20, 13, 9, 6, 4, 3, 2, 1];

const SHOP: &str = "
CREATE ROLE shop_owner;
CREATE TABLE orders (id int PRIMARY KEY, customer text, note text);
INSERT INTO orders SELECT n, 'customer ' || n % 97, repeat(md5(n::text), 4)
    FROM generate_series(1, 4000) n;
CREATE INDEX ON orders (customer);
ALTER TABLE orders OWNER TO shop_owner;
";

/// A server with a source that has a history, and others that visitors must not see.
struct Stage {
    cluster: Cluster,
    cli: Cli,
    running: Running,
    url: String,
    anna: String,
    olga: String,
}

impl Stage {
    fn new() -> Result<Self> {
        let cluster = Cluster::start(17, &ClusterOptions::default().scram(ADMIN))?;
        for database in [DATABASE, "secret"] {
            cluster.create_db(database)?;
        }
        cluster.psql(DATABASE, SHOP)?;
        cluster.psql("secret", "CREATE TABLE plans (id int)")?;
        let login = format!("CREATE ROLE restorer LOGIN CREATEDB PASSWORD '{RESTORER}'");
        cluster.psql("postgres", &login)?;
        let cli = Cli::new(&cluster)?.with_env("PGPASSWORD", ADMIN);
        let settings = settings(&cluster, &cli)?;
        let config = cli.private_file("backup.toml", &settings)?;
        history(&cluster, &cli, &config)?;
        let (anna, for_anna) = token(&cli, "anna", "restorer", "shop*")?;
        let (olga, for_olga) = token(&cli, "olga", "operator", "*")?;
        let config = cli.private_file(
            "server.toml",
            &format!("{settings}\n{for_anna}\n{for_olga}"),
        )?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let arguments = ["--config", &config, "serve", "--listen", &address];
        let running = Running::start(cli.command_of("backup-server", arguments)?)?;
        let url = format!("http://{address}");
        let deadline = Instant::now() + LIMIT;
        while ureq::get(format!("{url}/readyz")).call().is_err() {
            ensure!(Instant::now() < deadline, "the server is still not ready");
            thread::sleep(Duration::from_millis(100));
        }
        Ok(Self {
            cluster,
            cli,
            running,
            url,
            anna,
            olga,
        })
    }

    fn open(&self, browser: &Browser, path: &str) -> Result<()> {
        browser.open(&format!("{}{path}", self.url))
    }

    fn sign_in(&self, browser: &Browser, token: &str) -> Result<()> {
        self.open(browser, "/sign-in")?;
        browser.write("#token", token)?;
        browser.click("main button")?;
        browser.wait_until("signed in", |browser| Ok(browser.path()? == "/"))
    }

    /// What somebody gets for a statement.
    fn visit(&self, database: &str, password: &str, sql: &str) -> Result<String> {
        let mut command = self.cluster.tool("psql", database);
        command
            .args(["-XAtw", "-v", "ON_ERROR_STOP=1", "-c", sql])
            .env("PGUSER", database)
            .env("PGPASSWORD", password);
        let run = Running::start(command)?.wait()?.exits(0)?;
        Ok(String::from_utf8_lossy(&run.stdout).trim().to_owned())
    }

    /// The server ends in good order, and its log has nothing that is nobody's business.
    fn end(self, secrets: &[&str]) -> Result<()> {
        self.running.signal(Signal::SIGTERM)?;
        let ended = self.running.wait_at_most(LIMIT)?.exits(0)?;
        for secret in secrets
            .iter()
            .chain([&self.anna.as_str(), &self.olga.as_str()])
        {
            ensure!(!ended.stderr.contains(secret), "a secret is in the log");
        }
        drop(self.cli);
        Ok(())
    }
}

fn settings(cluster: &Cluster, cli: &Cli) -> Result<String> {
    let far = cli.folder().join("far");
    std::fs::create_dir_all(&far)?;
    let drills = cli.folder().join("drills");
    std::fs::create_dir_all(&drills)?;
    let weak = cli.private_file("weak", RESTORER)?;
    let admin = cli.private_file("admin", ADMIN)?;
    let (host, port) = (cluster.host(), cluster.port());
    Ok(format!(
        "[encryption]\nmode = 'none'\n[destination.near]\nurl = '{near}'\n\
         [destination.far]\nurl = 'file://{far}'\n\
         [source.shop]\ndatabase = '{DATABASE}'\ndestinations = ['near', 'far']\n\
         schedule = '0 3 * * *'\ntimezone = 'Europe/Berlin'\n\
         retention = 'standard'\n[retention.standard]\ndaily = 5\nweekly = 4\nmonthly = 3\n\
         [source.secret]\ndatabase = 'secret'\ndestinations = ['near']\n\
         [source.'shop-with-a-very-long-name-{long}']\ndatabase = 'later'\ndestinations = ['near']\n\
         [drill]\ndirectory = '{drills}'\nbin_dir = '{bin}'\n\
         [server.looking]\nhost = '{host}'\nport = {port}\nuser = 'restorer'\n\
         password = {{ file = '{weak}' }}\nsslmode = 'disable'\n\
         admin = {{ user = 'postgres', password = {{ file = '{admin}' }} }}\n\
         [sandbox]\nserver = 'looking'\nttl = '4h'\n",
        near = cli.local_store(),
        far = far.display(),
        drills = drills.display(),
        bin = cluster.bin_dir().display(),
        long = "and-so-on-".repeat(8),
    ))
}

/// Backups of some weeks, each a little larger than the one before.
fn history(cluster: &Cluster, cli: &Cli, config: &str) -> Result<()> {
    let now = DateTime::<Utc>::from(SystemTime::now());
    for days in DAYS {
        let more = format!(
            "INSERT INTO orders SELECT n, 'more', repeat(md5(n::text), 4) \
             FROM generate_series({days}00001, {days}00001 + 1500 - {days} * 30) n"
        );
        cluster.psql(DATABASE, &more)?;
        let arguments = ["--config", config, "backup", "shop"];
        cli.run_at(now - TimeDelta::days(days), arguments)?
            .exits(0)?;
    }
    cli.run(["--config", config, "backup", "secret"])?
        .exits(0)?;
    let verify = ["verify", "--source", "shop", "latest", "--level", "decoded"];
    let verify = [&["--config", config][..], &verify].concat();
    cli.run(verify)?.exits(0)?;
    Ok(())
}

/// A token, and what the configuration says of it.
fn token(cli: &Cli, name: &str, role: &str, source: &str) -> Result<(String, String)> {
    let made = cli.run(["token", name, "--role", role, "--source", source, "--json"])?;
    let made = made.exits(0)?.json()?;
    let text = |key: &str| made[key].as_str().map(str::to_owned).context("a text");
    Ok((text("token")?, text("toml")?))
}

/// Where pictures go, for those who want to look at them.
fn pictures() -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Nothing on the page is wider than the screen, and the browser has no complaint.
fn is_tidy(browser: &Browser, path: &str) -> Result<()> {
    let wide = browser.ask(
        "const room = document.documentElement.clientWidth; \
         return [...document.querySelectorAll('body *')] \
             .filter(e => e.getBoundingClientRect().right > room + 1 && !e.closest('.scroll, pre, .unseen')) \
             .map(e => e.outerHTML.slice(0, 120)).concat( \
             document.documentElement.scrollWidth > room ? ['the page itself'] : [])",
    )?;
    ensure!(
        wide.as_array().is_some_and(Vec::is_empty),
        "{path}: {wide:#}"
    );
    let complaints = browser.complaints()?;
    ensure!(complaints.is_empty(), "{path}: {complaints:#?}");
    Ok(())
}

fn number(browser: &Browser, script: &str) -> Result<u64> {
    browser.ask(script)?.as_u64().context("a number")
}

/// A wrong token first, then the right one.
fn come_in(stage: &Stage, browser: &Browser) -> Result<()> {
    // Whoever comes without a session comes back to where he wanted to go.
    stage.open(browser, "/storage")?;
    ensure!(
        browser.path()?.starts_with("/sign-in"),
        "{}",
        browser.path()?
    );
    browser.write("#token", "backup_token_of_somebody_else")?;
    browser.click("main button")?;
    browser.wait_until("refused", |browser| {
        Ok(browser.text("#error")?.contains("not known here"))
    })?;
    // The browser notes the status of that answer.
    browser.complaints()?;
    browser.write("#token", &stage.anna)?;
    browser.click("main button")?;
    browser.wait_until("signed in", |browser| Ok(browser.path()? == "/storage"))?;
    let cookie = browser.ask("return document.cookie")?;
    assert_eq!(cookie, "", "a script reads the session");
    Ok(())
}

/// From all sources to one backup.
fn look_around(stage: &Stage, browser: &Browser) -> Result<()> {
    stage.open(browser, "/")?;
    let text = browser.text("main")?;
    ensure!(text.contains("shop") && !text.contains("secret"), "{text}");
    ensure!(text.contains("CET") || text.contains("CEST"), "{text}");
    stage.open(browser, "/sources/secret")?;
    ensure!(browser.text("h1")?.contains("no such page"), "it is seen");
    browser.complaints()?;

    stage.open(browser, "/sources/shop")?;
    let listed = number(
        browser,
        "return document.querySelectorAll('.list tbody tr').length",
    )?;
    assert_eq!(listed, DAYS.len() as u64);
    let charts = number(
        browser,
        "return document.querySelectorAll('.chart svg polyline').length",
    )?;
    ensure!(charts >= 2, "{charts} lines");
    browser.click(".list tbody tr:first-child a")?;
    browser.wait_until("a backup", |browser| {
        Ok(browser.path()?.starts_with("/backups/"))
    })?;
    let text = browser.text("main")?;
    // Nobody's name is taken for a tag, and none turns the text around it.
    ensure!(text.contains("shop <b>\"x\"</b> & \\u{202e}pohs"), "{text}");
    ensure!(text.contains("content read"), "{text}");
    let forms = number(
        browser,
        "return document.querySelectorAll('main form').length",
    )?;
    assert_eq!(forms, 0, "anna may neither drill nor verify");
    is_tidy(browser, "a backup")?;
    Ok(())
}

/// Out of the backup that is shown; the database and the password.
fn restore(stage: &Stage, browser: &Browser) -> Result<(String, String)> {
    browser.click("#restore")?;
    browser.wait_until("a form", |browser| {
        Ok(browser.path()?.starts_with("/restore?"))
    })?;
    browser.click("#start")?;
    browser.wait_until("a run", |browser| Ok(browser.path()?.starts_with("/runs/")))?;
    browser.wait_until("done", |browser| Ok(!browser.text("#compared")?.is_empty()))?;
    let compared = browser.text("#compared")?;
    ensure!(
        compared.contains("equal") && compared.contains("1 table"),
        "{compared}"
    );
    browser.wait_until("the end", |browser| {
        Ok(!browser.text("#show-access")?.is_empty())
    })?;
    is_tidy(browser, "a run")?;
    browser.click("#show-access")?;
    browser.wait_until("told", |browser| Ok(!browser.text("#password")?.is_empty()))?;
    let (database, password) = (browser.text("#database")?, browser.text("#password")?);
    assert_eq!(browser.text("#port")?, stage.cluster.port().to_string());
    browser.picture(&pictures()?.join("run.png"))?;
    let found = stage.visit(
        &database,
        &password,
        "SELECT customer FROM orders WHERE id = 42",
    )?;
    assert_eq!(found, "customer 42");
    Ok((database, password))
}

/// The password is told once, and the database goes when it is not needed any more.
fn leave(stage: &Stage, browser: &Browser, (database, password): (&str, &str)) -> Result<()> {
    // It is told once.
    let run = browser.path()?.replace("/access", "");
    stage.open(browser, &run)?;
    browser.click("#show-access")?;
    browser.wait_until("refused", |browser| {
        Ok(browser.text("main")?.contains("shown once already"))
    })?;
    ensure!(
        !browser.text("body")?.contains(password),
        "it is told twice"
    );
    stage.open(browser, "/sandboxes")?;
    ensure!(browser.text("main")?.contains(database), "it is not listed");
    is_tidy(browser, "/sandboxes")?;
    browser.click("main form button")?;
    browser.wait_until("dropped", |browser| {
        Ok(!browser.text("main")?.contains(database))
    })?;
    ensure!(!stage.cluster.has_db(database)?, "it is still there");
    browser.click(".person button")?;
    browser.wait_until("signed out", |browser| Ok(browser.path()? == "/sign-in"))?;
    stage.open(browser, "/")?;
    ensure!(
        browser.path()?.starts_with("/sign-in"),
        "{}",
        browser.path()?
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn somebody_without_sql_gets_his_rows_back() -> Result<()> {
    let stage = Stage::new()?;
    let browser = Browser::start()?;
    come_in(&stage, &browser)?;
    look_around(&stage, &browser)?;
    let (database, password) = restore(&stage, &browser)?;
    leave(&stage, &browser, (&database, &password))?;
    stage.end(&[&password])
}

/// A drill of an operator, which leaves a record; the backup.
fn drill(stage: &Stage, browser: &Browser) -> Result<String> {
    stage.open(browser, "/sources/shop")?;
    let first = browser.ask("return document.querySelector('.list a').getAttribute('href')")?;
    let backup = first.as_str().context("a backup")?.to_owned();
    stage.open(browser, &backup)?;
    browser.click("form[action$='/drill'] button")?;
    browser.wait_until("a run", |browser| Ok(browser.path()?.starts_with("/runs/")))?;
    browser.wait_until("drilled", |browser| {
        Ok(!browser
            .ask("return !!document.querySelector('[data-live]')")?
            .as_bool()
            .unwrap_or(true))
    })?;
    let end = browser.text("main")?;
    ensure!(end.contains("success"), "{end}");
    browser.wait_until("recorded", |browser| {
        stage.open(browser, "/drills")?;
        Ok(browser.text("main")?.contains("equal"))
    })?;
    Ok(backup)
}

/// Wide and narrow, light and dark, in both languages.
fn fit_every_screen(stage: &Stage, browser: &Browser, pages: &[(&str, &str)]) -> Result<()> {
    let folder = pictures()?;
    for (look, width, dark, language) in [
        ("light", 1280, false, "en"),
        ("dark", 1280, true, "en"),
        ("phone", 360, false, "en"),
        ("russian", 360, true, "ru"),
        ("russian-wide", 1280, false, "ru"),
    ] {
        browser.size(width, 800)?;
        browser.dark(dark)?;
        browser.speak(language)?;
        for (name, path) in pages {
            stage.open(browser, path)?;
            browser.picture(&folder.join(format!("{name}-{look}.png")))?;
            is_tidy(browser, &format!("{path} {look}"))?;
            assert_eq!(
                browser.ask("return document.documentElement.lang")?,
                language
            );
        }
    }
    Ok(())
}

/// All that is to be read.
fn read_without_scripts(stage: &Stage, browser: &Browser, pages: &[(&str, &str)]) -> Result<()> {
    // Reading needs no script.
    browser.speak("en")?;
    browser.allow_scripts(false)?;
    for (_, path) in pages {
        stage.open(browser, path)?;
        ensure!(browser.text("h1")?.len() > 3, "{path} is empty");
        ensure!(!browser.text("main")?.is_empty(), "{path} is empty");
    }
    assert_eq!(browser.complaints()?, Vec::<String>::new());
    browser.allow_scripts(true)?;
    Ok(())
}

/// A manifest somewhere below a folder.
fn first_manifest(folder: &Path) -> Result<PathBuf> {
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.ends_with("manifest.json") {
                return Ok(path);
            }
        }
    }
    anyhow::bail!("there is no manifest")
}

/// What cannot be read any more is said to be so.
fn damage_a_place(stage: &Stage, browser: &Browser) -> Result<()> {
    let folder = pictures()?;
    let far = stage.cli.folder().join("far");
    std::fs::write(first_manifest(&far)?, "no manifest")?;
    browser.size(1280, 800)?;
    browser.dark(false)?;
    browser.wait_until("incomplete", |browser| {
        stage.open(browser, "/")?;
        Ok(browser
            .text("main")?
            .contains("Not everything could be read"))
    })?;
    browser.picture(&folder.join("incomplete-light.png"))?;
    is_tidy(browser, "incomplete")?;
    let value: Value = browser.ask("return document.querySelectorAll('h1').length")?;
    assert_eq!(value, 1);
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn pages_fit_every_screen_and_can_be_read_without_a_script() -> Result<()> {
    let stage = Stage::new()?;
    let browser = Browser::start()?;
    stage.sign_in(&browser, &stage.olga)?;
    let backup = drill(&stage, &browser)?;
    let pages = [
        ("overview", "/"),
        ("source", "/sources/shop"),
        (
            "empty",
            "/sources/shop-with-a-very-long-name-and-so-on-and-so-on-and-so-on-and-so-on-and-so-on-and-so-on-and-so-on-and-so-on-",
        ),
        ("backup", backup.as_str()),
        ("restore", "/restore"),
        ("restoring", "/restore?source=shop"),
        ("history", "/runs"),
        ("drills", "/drills"),
        ("storage", "/storage"),
        ("sandboxes", "/sandboxes"),
    ];
    fit_every_screen(&stage, &browser, &pages)?;
    read_without_scripts(&stage, &browser, &pages)?;
    damage_a_place(&stage, &browser)?;
    stage.end(&[])
}

//! Who is told how runs end: over real mail and web servers, once for each trouble, and without a
//! secret in what anybody reads.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::{Cli, Run};
use backup_e2e::http::Server;
use backup_e2e::mailbox::{KeptMail, Mailbox};
use backup_e2e::pg::{Cluster, quote_identifier};
use backup_e2e::receiver::{KeptRequest, Receiver};
use backup_e2e::sample;
use backup_e2e::scene::unique;
use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// In every secret of these tests, and in nothing that anybody reads.
const CANARY: &str = "canary7f3a09c2";

/// A source, and those who are told of it.
struct Stage {
    cluster: &'static Cluster,
    cli: Cli,
    database: String,
}

impl Stage {
    fn new() -> Result<Self> {
        let cluster = Cluster::shared(17)?;
        let database = cluster.fresh_db(&unique("notify"))?;
        cluster.psql(&database, &sample::bulk_sql("app", "bulk", 1))?;
        Ok(Self {
            cluster,
            cli: Cli::new(cluster)?.with_env("MAIL_PASSWORD", &format!("{CANARY}-mail")),
            database,
        })
    }

    fn settings(&self, notify: &str) -> String {
        format!(
            "[encryption]\nmode = 'none'\n[source.shop]\ndatabase = '{}'\nretention = 'all'\n\
             schedule = '0 3 * * *'\n[retention.all]\ndaily = 7\n\
             [destination.near]\nurl = '{}'\n{notify}\n",
            self.database,
            self.cli.local_store(),
        )
    }

    fn config(&self, notify: &str) -> Result<String> {
        self.cli.private_file("backup.toml", &self.settings(notify))
    }

    /// A notifier by mail.
    fn mail(&self, mailbox: &Mailbox, more: &str) -> Result<String> {
        self.config(&format!(
            "[notify.noc]\nkind = 'mail'\nhost = 'localhost'\nport = {}\nca_file = '{}'\n\
             from = 'Backups <backup@example.com>'\nto = ['noc@example.com', 'Ops <ops@example.com>']\n\
             user = 'backup'\npassword = {{ env = 'MAIL_PASSWORD' }}\n{more}",
            mailbox.port(),
            mailbox.ca().display(),
        ))
    }

    /// A notifier by HTTP, whose address is in a variable.
    fn web(&mut self, kind: &str, url: &str, more: &str) -> Result<String> {
        let cli = std::mem::replace(&mut self.cli, Cli::without_server()?);
        self.cli = cli.with_env("NOTIFY_URL", url);
        self.config(&format!(
            "[notify.web]\nkind = '{kind}'\nurl = {{ env = 'NOTIFY_URL' }}\nallow_plain = true\n{more}"
        ))
    }

    /// Runs the program; nothing that it says or writes down has a secret.
    fn run(&self, config: &str, arguments: &[&str], code: i32) -> Result<Run> {
        let all = [&["--config", config], arguments].concat();
        Self::clean(self.cli.run(all)?, code)
    }

    fn run_later(&self, hours: i64, config: &str, arguments: &[&str], code: i32) -> Result<Run> {
        let all = [&["--config", config], arguments].concat();
        let then = now() + TimeDelta::hours(hours);
        Self::clean(self.cli.run_at(then, all)?, code)
    }

    fn clean(run: Run, code: i32) -> Result<Run> {
        let said = format!("{}{}", run.text(), run.stderr);
        ensure!(!said.contains(CANARY), "{said}");
        run.exits(code)
    }

    fn back_up(&self, config: &str, code: i32) -> Result<Run> {
        self.run(config, &["-v", "backup", "shop"], code)
    }

    /// The database is there under another name.
    fn hide(&self) -> Result<()> {
        self.rename(&self.database, &format!("{}_away", self.database))
    }

    fn show(&self) -> Result<()> {
        self.rename(&format!("{}_away", self.database), &self.database)
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (quote_identifier(from), quote_identifier(to));
        let sql = format!("ALTER DATABASE {from} RENAME TO {to}");
        self.cluster.psql("postgres", &sql).map(drop)
    }

    /// No secret lies in the store.
    fn assert_store_is_clean(&self) -> Result<()> {
        let mut open = vec![self.cli.local_root()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
                    ensure!(!text.contains(CANARY), "{}", path.display());
                }
            }
        }
        Ok(())
    }
}

fn now() -> DateTime<Utc> {
    SystemTime::now().into()
}

fn subjects(mails: &[KeptMail]) -> Vec<&str> {
    mails.iter().map(|mail| mail.subject.as_str()).collect()
}

fn events(requests: &[KeptRequest]) -> Result<Vec<String>> {
    let bodies = requests.iter().map(KeptRequest::json);
    let events = bodies.map(|body| Ok(body?["event"].as_str().unwrap_or_default().to_owned()));
    events.collect()
}

fn paths(requests: &[KeptRequest]) -> Vec<&str> {
    requests
        .iter()
        .map(|request| request.path.as_str())
        .collect()
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_database_that_goes_away_is_one_mail_and_its_return_another() -> Result<()> {
    let stage = Stage::new()?;
    let mailbox = Mailbox::start("starttls", &format!("{CANARY}-mail"))?;
    let config = stage.mail(&mailbox, "on = ['success', 'failure', 'recovered']")?;
    stage.back_up(&config, 0)?;
    let mails = mailbox.mails()?;
    assert_eq!(subjects(&mails), ["[OK] Backup of shop succeeded"]);
    let mail = &mails[0];
    ensure!(
        mail.tls && mail.login.as_deref() == Some("backup"),
        "{mail:?}"
    );
    assert_eq!(mail.from, "backup@example.com");
    assert_eq!(mail.to, ["noc@example.com", "ops@example.com"]);
    let digest = manifest_digest(&stage)?;
    for known in [
        &stage.database,
        "Rows",
        "Indexes",
        "Raw size",
        "Compression",
        "near: success",
        "Next backup",
        "Kept at least until",
        &digest,
    ] {
        ensure!(mail.text.contains(known), "{known}: {}", mail.text);
        ensure!(mail.html.contains(known), "{known}: {}", mail.html);
    }
    stage.hide()?;
    for _ in 0..3 {
        let run = stage.back_up(&config, 9)?;
        ensure!(!run.stderr.contains("was not told"), "{}", run.stderr);
    }
    let mails = mailbox.mails()?;
    assert_eq!(mails.len(), 2, "{:?}", subjects(&mails));
    let mail = &mails[1];
    assert_eq!(mail.subject, "[FAILED] Backup of shop failed");
    ensure!(mail.text.contains("Error: "), "{}", mail.text);
    ensure!(mail.text.contains("Last good backup"), "{}", mail.text);
    let priority = ("X-Priority".to_owned(), "1".to_owned());
    ensure!(mail.headers.contains(&priority), "{:?}", mail.headers);
    // It lasts, and a day later that is said once more.
    for _ in 0..2 {
        stage.run_later(25, &config, &["backup", "shop"], 9)?;
    }
    stage.show()?;
    stage.run_later(26, &config, &["backup", "shop"], 0)?;
    stage.run_later(27, &config, &["backup", "shop"], 0)?;
    let mails = mailbox.mails()?;
    let expected = [
        "[OK] Backup of shop succeeded",
        "[FAILED] Backup of shop failed",
        "[FAILED] Still: Backup of shop failed",
        "[RECOVERED] Backup of shop works again",
        "[OK] Backup of shop succeeded",
        "[OK] Backup of shop succeeded",
    ];
    assert_eq!(subjects(&mails), expected);
    ensure!(mails[3].text.contains("for 26 h"), "{}", mails[3].text);
    for mail in &mails {
        ensure!(!format!("{mail:?}").contains(CANARY), "{mail:?}");
    }
    stage.assert_store_is_clean()
}

/// The digest of the only manifest.
fn manifest_digest(stage: &Stage) -> Result<String> {
    use sha2::Digest as _;
    let backups = stage.cli.local_root().join("backups/shop");
    let backup = fs::read_dir(backups)?.next().context("a backup")??;
    let text = fs::read(backup.path().join("manifest.json"))?;
    Ok(hex(&Sha256::digest(text)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_mail_server_that_refuses_fails_no_backup_and_is_seen_by_check() -> Result<()> {
    let stage = Stage::new()?;
    let mailbox = Mailbox::start("starttls", "another-password")?;
    let config = stage.mail(&mailbox, "on = ['success', 'failure']")?;
    let run = stage.back_up(&config, 0)?;
    let said = "notifier noc: \"Backup of shop succeeded\" was not told";
    ensure!(run.stderr.contains(said), "{}", run.stderr);
    ensure!(run.stderr.contains("535"), "{}", run.stderr);
    let checked = stage.run(&config, &["check"], 1)?;
    let found = "notifier noc: not-told";
    ensure!(checked.text().contains(found), "{}", checked.text());
    let checked = stage.run(&config, &["check", "--json"], 1)?.json()?;
    assert_eq!(checked["notifiers"][0]["status"], "warning");
    let test = stage.run(&config, &["notify", "test"], 1)?;
    ensure!(
        test.text().contains("noc (mail): it was NOT taken"),
        "{}",
        test.text()
    );
    // The right one, and it is well again.
    let right = Mailbox::start("starttls", &format!("{CANARY}-mail"))?;
    let config = stage.mail(&right, "on = ['success', 'failure']")?;
    let test = stage.run(&config, &["notify", "test", "noc"], 0)?;
    ensure!(test.text().contains("it was taken"), "{}", test.text());
    assert_eq!(right.mails()?.len(), 1);
    stage.run(&config, &["check"], 0)?;
    let unknown = stage.run(&config, &["notify", "test", "nobody"], 2)?;
    ensure!(unknown.stderr.contains("\"nobody\""), "{}", unknown.stderr);
    stage.assert_store_is_clean()
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_password_crosses_no_network_in_the_clear_unless_that_is_meant() -> Result<()> {
    let stage = Stage::new()?;
    let password = format!("{CANARY}-mail");
    let mailbox = Mailbox::start("implicit", &password)?;
    let config = stage.mail(&mailbox, "tls = 'implicit'")?;
    stage.run(&config, &["notify", "test"], 0)?;
    ensure!(mailbox.mails()?[0].tls, "{:?}", mailbox.mails()?);
    // Of an authority that nobody knows.
    let stranger = Mailbox::start("starttls", &password)?;
    let own = mailbox.ca().display().to_string();
    let other = stage.mail(&stranger, "")?;
    let swapped = fs::read_to_string(&other)?.replace(&stranger.ca().display().to_string(), &own);
    let other = stage.cli.private_file("other.toml", &swapped)?;
    let test = stage.run(&other, &["notify", "test"], 1)?;
    ensure!(test.text().contains("certificate"), "{}", test.text());
    ensure!(stranger.mails()?.is_empty());
    // One that knows no TLS.
    let plain = Mailbox::start("none", &password)?;
    let config = stage.mail(&plain, "")?;
    stage.run(&config, &["notify", "test"], 1)?;
    ensure!(plain.mails()?.is_empty());
    let config = stage.mail(&plain, "tls = 'none'")?;
    let refused = stage.run(&config, &["notify", "test"], 2)?;
    ensure!(refused.stderr.contains("allow_plain"), "{}", refused.stderr);
    let config = stage.mail(&plain, "tls = 'none'\nallow_plain = true")?;
    stage.run(&config, &["notify", "test"], 0)?;
    ensure!(!plain.mails()?[0].tls);
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_webhook_is_signed_patient_and_never_named() -> Result<()> {
    let mut stage = Stage::new()?;
    let receiver = Receiver::start()?;
    let key = format!("{CANARY}-key");
    let cli = std::mem::replace(&mut stage.cli, Cli::without_server()?);
    stage.cli = cli.with_env("NOTIFY_KEY", &key);
    let url = receiver.url(&format!("/hooks/{CANARY}-hook?token={CANARY}-token"));
    let more = "secret = { env = 'NOTIFY_KEY' }\non = ['success', 'failure', 'recovered']";
    let config = stage.web("webhook", &url, more)?;
    receiver.answer_next(&[(429, "Retry-After: 2\r\n\r\nslowly"), (503, "\r\n")]);
    stage.back_up(&config, 0)?;
    let requests = receiver.take();
    assert_eq!(requests.len(), 3);
    for request in &requests {
        let timestamp = request.header("x-backup-timestamp");
        let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes())?;
        mac.update(format!("{timestamp}.{}", request.body).as_bytes());
        let expected = format!("sha256={}", hex(&mac.finalize().into_bytes()));
        assert_eq!(request.header("x-backup-signature"), expected);
        let age = now().timestamp() - timestamp.parse::<i64>()?;
        ensure!((0..60).contains(&age), "{age}");
    }
    let sent = |index: usize| requests[index].header("x-backup-timestamp").parse::<i64>();
    ensure!(sent(1)? - sent(0)? >= 2, "it came back too early");
    let body = requests[2].json()?;
    assert_eq!(body["event"], "success");
    assert_eq!(body["source"], "shop");
    assert_eq!(body["facts"]["database"], stage.database);
    assert_eq!(body["facts"]["destinations"][0]["status"], "success");
    ensure!(body["facts"]["rows"].as_u64() > Some(0), "{body}");
    ensure!(body["facts"]["next_run"].is_string(), "{body}");
    // It leads elsewhere, is gone, or says its own address: nobody follows, and nobody reads it.
    let echo = format!("\r\nno hook at {url}");
    receiver.answer_next(&[(302, "Location: /elsewhere\r\n\r\n")]);
    let run = stage.back_up(&config, 0)?;
    ensure!(run.stderr.contains("was not told"), "{}", run.stderr);
    assert_eq!(receiver.take().len(), 1);
    receiver.answer_next(&[(404, &echo)]);
    let run = stage.back_up(&config, 0)?;
    ensure!(
        run.stderr.contains("the answer is 404: no hook at ***"),
        "{}",
        run.stderr
    );
    let checked = stage.run(&config, &["check"], 1)?;
    ensure!(checked.text().contains("not-told"), "{}", checked.text());
    let config = stage.web("webhook", &format!("http://127.0.0.1:1/{CANARY}"), more)?;
    let run = stage.back_up(&config, 0)?;
    ensure!(run.stderr.contains("refused"), "{}", run.stderr);
    let shown = stage.run(&config, &["config", "show"], 0)?;
    ensure!(shown.text().contains("NOTIFY_URL"), "{}", shown.text());
    stage.assert_store_is_clean()
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_service_that_waits_is_pinged_when_a_backup_begins_and_ends() -> Result<()> {
    let mut stage = Stage::new()?;
    let receiver = Receiver::start()?;
    let base = format!("/{CANARY}-check");
    let config = stage.web("ping", &receiver.url(&base), "")?;
    stage.back_up(&config, 0)?;
    let pings = receiver.take();
    assert_eq!(paths(&pings), [&format!("{base}/start"), &base]);
    ensure!(
        pings[1].body.contains("Backup of shop succeeded"),
        "{}",
        pings[1].body
    );
    stage.hide()?;
    for _ in 0..2 {
        stage.back_up(&config, 9)?;
        let pings = receiver.take();
        assert_eq!(
            paths(&pings),
            [format!("{base}/start"), format!("{base}/fail")]
        );
    }
    stage.show()?;
    // Other work is none of its business.
    stage.run(&config, &["verify", "latest", "--source", "shop"], 0)?;
    assert_eq!(paths(&receiver.take()), [""; 0]);
    stage.back_up(&config, 0)?;
    assert_eq!(paths(&receiver.take()), [&format!("{base}/start"), &base]);
    stage.assert_store_is_clean()
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn what_check_finds_is_told_once_and_when_it_is_over() -> Result<()> {
    let mut stage = Stage::new()?;
    let receiver = Receiver::start()?;
    let config = stage.web("webhook", &receiver.url("/"), "")?;
    stage.back_up(&config, 0)?;
    stage.run(&config, &["check", "--notify"], 0)?;
    assert_eq!(events(&receiver.take())?, [""; 0]);
    stage.run_later(30, &config, &["check"], 2)?;
    assert_eq!(events(&receiver.take())?, [""; 0]);
    for _ in 0..2 {
        stage.run_later(30, &config, &["check", "--notify"], 2)?;
    }
    let requests = receiver.take();
    assert_eq!(events(&requests)?, ["stale"]);
    let body = requests[0].json()?;
    assert_eq!(body["title"], "shop has no fresh backup");
    ensure!(
        body["remarks"][0]
            .as_str()
            .is_some_and(|text| text.contains("30 h old")),
        "{body}"
    );
    stage.run_later(31, &config, &["backup", "shop"], 0)?;
    assert_eq!(events(&receiver.take())?, [""; 0]);
    stage.run_later(31, &config, &["check", "--notify"], 0)?;
    stage.run_later(32, &config, &["check", "--notify"], 0)?;
    let requests = receiver.take();
    assert_eq!(events(&requests)?, ["recovered"]);
    assert_eq!(
        requests[0].json()?["title"],
        "shop is as it should be again"
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn without_a_store_it_is_told_all_the_same() -> Result<()> {
    let mut stage = Stage::new()?;
    let receiver = Receiver::start()?;
    let config = stage.web("webhook", &receiver.url("/"), "")?;
    stage.back_up(&config, 0)?;
    let root = stage.cli.local_root();
    let away = root.with_extension("away");
    fs::rename(&root, &away)?;
    // Somebody put a file where the directory was.
    fs::write(&root, "")?;
    stage.run(&config, &["backup", "shop"], 8)?;
    let requests = receiver.take();
    assert_eq!(events(&requests)?, ["failure"]);
    assert_eq!(requests[0].json()?["title"], "Backup of shop failed");
    fs::remove_file(&root)?;
    fs::rename(&away, &root)?;
    stage.back_up(&config, 0)?;
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_chat_of_telegram_is_told_and_the_token_is_not() -> Result<()> {
    let stage = Stage::new()?;
    let receiver = Receiver::start()?;
    let token = format!("123456:{CANARY}");
    let file = stage.cli.private_file("token", &token)?;
    let notify = |url: &str| {
        format!(
            "[notify.chat]\nkind = 'telegram'\ntoken = {{ file = '{file}' }}\nchat_id = -1007\n\
             on = ['success', 'failure']\nbase_url = '{url}'\n"
        )
    };
    let config = stage.config(&notify(&receiver.url("")))?;
    let accepted = "\r\n{\"ok\":true,\"result\":{\"message_id\":7,\"date\":1770260400,\
                 \"chat\":{\"id\":-1007,\"type\":\"group\"}}}";
    receiver.answer_next(&[(200, accepted)]);
    stage.back_up(&config, 0)?;
    let requests = receiver.take();
    assert_eq!(paths(&requests), [format!("/bot{token}/sendMessage")]);
    let body = requests[0].json()?;
    assert_eq!(body["chat_id"], -1007);
    ensure!(body.get("parse_mode").is_none(), "{body}");
    let text = body["text"].as_str().context("a text")?;
    ensure!(text.starts_with("Backup of shop succeeded\n"), "{text}");
    // Its answer names the token, and nobody listens.
    let echo = format!("\r\n{{\"ok\":false,\"description\":\"no bot {token}\"}}");
    receiver.answer_next(&[(401, &echo)]);
    let run = stage.back_up(&config, 0)?;
    ensure!(
        run.stderr.contains("does not know this token"),
        "{}",
        run.stderr
    );
    // It wants more time than a notice has.
    let busy = "\r\n{\"ok\":false,\"error_code\":429,\"description\":\"Too Many Requests\",\
                \"parameters\":{\"retry_after\":45}}";
    let _ = receiver.take();
    receiver.answer_next(&[(429, busy)]);
    let run = stage.back_up(&config, 0)?;
    let said = "the bot API wants to be left alone for 45 s";
    ensure!(run.stderr.contains(said), "{}", run.stderr);
    assert_eq!(receiver.take().len(), 1);
    let config = stage.config(&notify("http://127.0.0.1:1"))?;
    stage.run(&config, &["notify", "test"], 1)?;
    stage.assert_store_is_clean()
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_name_that_is_markup_and_headers_is_only_a_name() -> Result<()> {
    let stage = Stage::new()?;
    let mailbox = Mailbox::start("starttls", &format!("{CANARY}-mail"))?;
    let config = stage.mail(&mailbox, "on = ['success']")?;
    let text = fs::read_to_string(config)?;
    let name = "\"sh\\r\\nBcc: eve@example.com\\n<img src=x onerror=alert(1)>\"";
    let text = text.replace("[source.shop]", &format!("[source.{name}]"));
    let config = stage.cli.private_file("hostile.toml", &text)?;
    stage.run(&config, &["backup", "--all"], 0)?;
    let mails = mailbox.mails()?;
    let mail = mails.first().context("a mail")?;
    assert_eq!(mail.to, ["noc@example.com", "ops@example.com"]);
    let has_bcc = mail
        .headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("bcc"));
    ensure!(!has_bcc, "{:?}", mail.headers);
    ensure!(
        mail.subject.contains("sh\\r\\nBcc: eve@example.com\\n<img"),
        "{}",
        mail.subject
    );
    ensure!(!mail.html.contains("<img"), "{}", mail.html);
    ensure!(
        mail.html.contains("&#60;img") || mail.html.contains("&lt;img"),
        "{}",
        mail.html
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_server_tells_what_its_jobs_do_once() -> Result<()> {
    let mut stage = Stage::new()?;
    let receiver = Receiver::start()?;
    stage.web(
        "webhook",
        &receiver.url(&format!("/{CANARY}")),
        "on = ['success', 'failure', 'recovered']",
    )?;
    let text = fs::read_to_string(stage.cli.folder().join("backup.toml"))?;
    let server = Server::start(&stage.cli, &text, &[("ann", "operator")])?;
    let mut told = Vec::new();
    let order = |wanted: &str| -> Result<()> {
        let done = server.order("/api/v1/sources/shop/backups", "ann", "{}")?;
        ensure!(done["state"] == wanted, "{done}");
        Ok(())
    };
    order("success")?;
    stage.hide()?;
    order("failed")?;
    order("failed")?;
    stage.show()?;
    order("success")?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while events(&told)?
        .iter()
        .filter(|event| *event == "success")
        .count()
        < 2
    {
        ensure!(Instant::now() < deadline, "{:?}", events(&told)?);
        told.extend(receiver.take());
        std::thread::sleep(Duration::from_millis(50));
    }
    let stopped = server.stop()?;
    ensure!(!stopped.stderr.contains(CANARY), "{}", stopped.stderr);
    told.extend(receiver.take());
    let expected = ["success", "failure", "recovered", "success"];
    assert_eq!(events(&told)?, expected);
    Ok(())
}

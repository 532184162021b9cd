//! The bot: a whole conversation until somebody is in a sandbox; and, for check 25, all those who get
//! no answer.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::bot_api::{BotApi, Sent, now};
use backup_e2e::cli::{Cli, Run, Running};
use backup_e2e::evidence;
use backup_e2e::fault::{Faults, Proxy};
use backup_e2e::http::Server;
use backup_e2e::pg::{Cluster, ClusterOptions, SUPERUSER};
use backup_e2e::sample;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const ADMIN: &str = "the admin's own c4n4ry77a2";
const RESTORER: &str = "weak-c4n4ry5d1e";
const SECRET: &str = "canary_AAE-of_the_bot";
const OWNER: i64 = 120_012;
const RUSSIAN: i64 = 120_013;
const STRANGER: i64 = 660_066;

struct Stage {
    cluster: Cluster,
    cli: Cli,
    api: BotApi,
}

impl Stage {
    fn new() -> Result<Self> {
        let cluster = Cluster::start(17, &ClusterOptions::default().scram(ADMIN))?;
        cluster.create_db("shop")?;
        cluster.psql("shop", &sample::bulk_sql("app", "bulk", 1))?;
        let login = format!("CREATE ROLE restorer LOGIN CREATEDB PASSWORD '{RESTORER}'");
        cluster.psql("postgres", &login)?;
        Ok(Self {
            cli: Cli::new(&cluster)?.with_env("PGPASSWORD", ADMIN),
            cluster,
            api: BotApi::start(&format!("4711:{SECRET}"))?,
        })
    }

    /// The configuration, with a bot that asks at this address.
    fn settings(&self, base_url: &str) -> Result<String> {
        let (host, port) = (self.cluster.host(), self.cluster.port());
        let admin = self.cli.private_file("admin", ADMIN)?;
        let restorer = self.cli.private_file("restorer", RESTORER)?;
        let token = self.cli.private_file("bot", &format!("4711:{SECRET}\n"))?;
        Ok(format!(
            "[encryption]\nmode = 'none'\n[destination.near]\nurl = '{}'\n\
             [server_http]\nmetrics = true\n\
             [server.main]\nhost = '{host}'\nport = {port}\nuser = '{SUPERUSER}'\n\
             password = {{ file = '{admin}' }}\n\
             [server.box]\nhost = '{host}'\nport = {port}\nuser = 'restorer'\n\
             password = {{ file = '{restorer}' }}\n\
             [server.box.admin]\nuser = '{SUPERUSER}'\npassword = {{ file = '{admin}' }}\n\
             [sandbox]\nserver = 'box'\n\
             [source.shop]\nserver = 'main'\ndatabase = 'shop'\ndestinations = ['near']\n\
             [telegram_bot]\ntoken = {{ file = '{token}' }}\nbase_url = '{base_url}'\n\
             allow = [\n\
             {{ user_id = {OWNER}, role = 'restorer', sources = ['shop'] }},\n\
             {{ user_id = {RUSSIAN}, role = 'viewer', sources = ['*'], language = 'ru' }},\n]\n",
            self.cli.local_store()
        ))
    }

    fn start(&self) -> Result<Server> {
        self.start_at(&self.api.url())
    }

    fn start_at(&self, base_url: &str) -> Result<Server> {
        let settings = self.settings(base_url)?;
        Server::start(&self.cli, &settings, &[("olga", "operator")])
    }

    /// Takes a backup, and waits until everybody can see it.
    fn backup(server: &Server) -> Result<()> {
        let taken = server.order("/api/v1/sources/shop/backups", "olga", "{}")?;
        let id = taken["backup"].as_str().context("a backup")?.to_owned();
        server.wait_until(|server| {
            // Not the latest one: of two that begin within a second, that may be either.
            let all = server.get("/api/v1/sources/shop/backups", "olga")?;
            let mut all = all["items"].as_array().context("items")?.iter();
            Ok(all.any(|one| one["id"] == *id))
        })
    }

    /// As far as the question whether to do it.
    fn until_confirmation(&self) -> Result<Sent> {
        let api = &self.api;
        api.says(OWNER, "/start");
        let said = api.wait_for(OWNER, "Choose a source")?;
        api.presses(OWNER, &said, said.button("shop")?);
        let said = api.wait_for_change(&said, "Choose a backup")?;
        api.presses(OWNER, &said, said.button("KiB")?);
        api.wait_for_change(&said, "Restore this backup?")
    }

    /// The sandboxes that are there, or are being made.
    fn sandboxes(server: &Server) -> Result<Vec<Value>> {
        let page = server.get("/api/v1/sandboxes", "olga")?;
        let items = page["items"].as_array().context("items")?;
        Ok(items.clone())
    }

    fn visit(&self, access: &BTreeMap<String, String>, sql: &str) -> Result<String> {
        let text = |name: &str| access.get(name).cloned().unwrap_or_default();
        let mut command = self.cluster.tool("psql", &text("Database"));
        command
            .args(["-XAtw", "-v", "ON_ERROR_STOP=1", "-c", sql])
            .env("PGHOST", text("Host"))
            .env("PGPORT", text("Port"))
            .env("PGUSER", text("User"))
            .env("PGPASSWORD", text("Password"));
        let run = Running::start(command)?.wait()?.exits(0)?;
        Ok(String::from_utf8_lossy(&run.stdout).trim().to_owned())
    }
}

/// The lines of a message that name something.
fn named(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    lines
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// All that a bot can do but listen, and how often it was done.
fn answers(api: &BotApi) -> [(&'static str, usize); 7] {
    [
        "sendMessage",
        "editMessageText",
        "answerCallbackQuery",
        "deleteMessage",
        "deleteWebhook",
        "setMyCommands",
        "getMe",
    ]
    .map(|method| (method, api.calls(method).len()))
}

/// How many restores were asked for.
fn restores(server: &Server) -> Result<usize> {
    let runs = server.get("/api/v1/runs?operation=restore", "olga")?;
    Ok(runs["items"].as_array().context("items")?.len())
}

/// How much was not answered.
fn ignored(server: &Server) -> Result<u64> {
    let metrics = server.ask("GET", "/metrics", "", "")?.is(200)?.text;
    let name = r#"backup_telegram_updates_total{result="ignored"} "#;
    let mut lines = metrics.lines().filter_map(|line| line.strip_prefix(name));
    Ok(lines.next().with_context(|| metrics.clone())?.parse()?)
}

fn tells_no_token(ended: &Run) -> Result<()> {
    let stdout = String::from_utf8_lossy(&ended.stdout);
    for text in [ended.stderr.as_str(), &stdout] {
        ensure!(!text.contains(SECRET), "the token is told: {text}");
        ensure!(
            !text.contains("canary"),
            "some of the token is told: {text}"
        );
    }
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_person_gets_from_start_into_a_sandbox_and_twice_yes_is_one() -> Result<()> {
    let stage = Stage::new()?;
    let server = stage.start()?;
    Stage::backup(&server)?;
    let api = &stage.api;
    let said = stage.until_confirmation()?;
    let yes = said.button("YES")?.to_owned();
    api.presses(OWNER, &said, &yes);
    api.presses(OWNER, &said, &yes);
    let ready = api.wait_for(OWNER, "The sandbox is ready.")?;
    assert_eq!(ready.id, said.id, "all of it is told in one message");
    let password = api.wait_for_calls("sendMessage", 2)?.pop().context("it")?;
    assert_eq!(password["protect_content"], true);
    assert_eq!(password["entities"][0]["type"], "code");
    let password = password["text"].as_str().context("a password")?.to_owned();
    let mut access = named(&ready.text);
    access.insert("Password".to_owned(), password.clone());
    ensure!(!ready.text.contains(&password), "{ready:?}");
    let rows = stage.visit(&access, "SELECT count(*) FROM app.bulk")?;
    let live = "SELECT count(*) FROM app.bulk";
    assert_eq!(rows, stage.cluster.query("shop", live)?.trim());
    assert_eq!(rows, "4096");

    let made = Stage::sandboxes(&server)?;
    ensure!(made.len() == 1, "{made:?}");
    assert_eq!(made[0]["person"], format!("telegram:{OWNER}"));
    assert_eq!(made[0]["database"], access["Database"]);
    api.says(OWNER, "/status");
    let status = api.wait_for(OWNER, "Sandboxes:")?;
    ensure!(status.text.contains(&access["Database"]), "{status:?}");
    // The second press was told so, and did nothing.
    let answers = api.calls("answerCallbackQuery");
    let expired = |answer: &&Value| answer["text"].is_string();
    assert_eq!(answers.iter().filter(expired).count(), 1, "{answers:?}");
    let metrics = server.ask("GET", "/metrics", "", "")?.is(200)?.text;
    ensure!(metrics.contains("backup_telegram_bot_up 1\n"), "{metrics}");

    // He sees what there is in his own language, and cannot restore it.
    api.says(RUSSIAN, "/start");
    let said = api.wait_for(RUSSIAN, "Выберите источник")?;
    api.presses(RUSSIAN, &said, said.button("shop")?);
    let said = api.wait_for(RUSSIAN, "shop\n")?;
    ensure!(said.text.contains("КиБ"), "{said:?}");
    let labels: Vec<_> = said.buttons.iter().map(|(label, _)| label).collect();
    assert_eq!(labels, ["↩ Источники", "Отменить"]);

    let config = server.config.clone();
    let ended = server.stop()?;
    tells_no_token(&ended)?;
    ensure!(
        !ended.stderr.contains(&password),
        "a password is in the log"
    );
    // What can still be read there opens nothing.
    let left = api.messages();
    let left = left.iter().find(|sent| sent.text == password);
    ensure!(left.is_some_and(|sent| sent.is_deleted), "{left:?}");
    let audit = ["runs", "--audit", "--json", "--config", &config];
    let audit = stage.cli.run(audit)?.exits(0)?.text();
    let person = format!("\"person\":\"telegram:{OWNER}\"");
    ensure!(audit.contains(&person), "{audit}");
    println!("{}", api.transcript());
    Ok(())
}

/// What Telegram can tell besides messages, queries and presses, and something that it cannot yet.
const OTHER_KINDS: [&str; 20] = [
    "edited_message",
    "channel_post",
    "edited_channel_post",
    "business_connection",
    "business_message",
    "edited_business_message",
    "deleted_business_messages",
    "my_chat_member",
    "chat_member",
    "chat_join_request",
    "chat_boost",
    "removed_chat_boost",
    "message_reaction",
    "message_reaction_count",
    "shipping_query",
    "pre_checkout_query",
    "purchased_paid_media",
    "poll",
    "poll_answer",
    "something_new",
];

/// Everything that must not be answered, the owner's own button included; how much that is.
fn push_all_else(api: &BotApi, said: &Sent, yes: &str) -> u64 {
    let mut pushed = 0;
    let mut push = |kind: &str, content: &Value| {
        pushed += 1;
        api.push(kind, content);
    };
    let of = |person: i64, chat: (i64, &str)| {
        let mut message = api.message_of(person, "/start");
        message["chat"] = json!({ "id": chat.0, "type": chat.1 });
        message
    };
    push("message", &of(STRANGER, (STRANGER, "private")));
    for kind in ["group", "supergroup", "channel"] {
        push("message", &of(OWNER, (-100, kind)));
        push("message", &of(STRANGER, (-100, kind)));
    }
    push("message", &of(STRANGER, (OWNER, "private")));
    let mut forwarded = of(OWNER, (OWNER, "private"));
    forwarded["forward_origin"] = json!({ "type": "hidden_user", "sender_user_name": "x" });
    push("message", &forwarded);
    let mut anonymous = of(OWNER, (OWNER, "private"));
    anonymous["sender_chat"] = json!({ "id": -100, "type": "supergroup" });
    push("message", &anonymous);
    let mut program = of(OWNER, (OWNER, "private"));
    program["from"]["is_bot"] = json!(true);
    push("message", &program);
    for kind in OTHER_KINDS {
        push(kind, &of(OWNER, (OWNER, "private")));
        push(kind, &of(OWNER, (-100, "supergroup")));
        push(kind, &of(STRANGER, (STRANGER, "private")));
    }
    for person in [OWNER, STRANGER] {
        let from = json!({ "id": person, "is_bot": false });
        let query = json!({ "id": "1", "from": from, "query": "/start" });
        push("inline_query", &query);
        push("chosen_inline_result", &query);
    }
    // The owner's own button, pressed by others and elsewhere.
    let stolen = [
        api.press_of(STRANGER, (OWNER, said.id), yes),
        api.press_of(STRANGER, (STRANGER, said.id), yes),
        api.press_of(OWNER, (-100, said.id), yes),
    ];
    for press in &stolen {
        push("callback_query", press);
    }
    let mut inline = api.press_of(OWNER, (OWNER, said.id), yes);
    inline["message"] = Value::Null;
    inline["inline_message_id"] = json!("x");
    push("callback_query", &inline);
    pushed
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_25_nobody_else_gets_an_answer_whatever_he_does() -> Result<()> {
    let stage = Stage::new()?;
    let server = stage.start()?;
    Stage::backup(&server)?;
    let api = &stage.api;
    let said = stage.until_confirmation()?;
    let yes = said.button("YES")?.to_owned();
    let before = answers(api);

    let sent = push_all_else(api, &said, &yes);
    api.wait_until_heard()?;
    assert_eq!(answers(api), before);
    ensure!(Stage::sandboxes(&server)?.is_empty());
    assert_eq!(ignored(&server)?, sent);

    assert_eq!(restores(&server)?, 0);

    // All that has used up nothing: it is still the owner's to press, and once.
    let press = api.press_of(OWNER, (OWNER, said.id), &yes);
    api.push("callback_query", &press);
    api.wait_for(OWNER, "The sandbox is ready.")?;
    // The second message is the password.
    api.wait_for_calls("sendMessage", 2)?;
    let before = answers(api);
    let others = push_all_else(api, &said, &yes);
    api.wait_until_heard()?;
    assert_eq!(answers(api), before);
    for again in [&press, &api.press_of(OWNER, (OWNER, said.id), &yes)] {
        api.push("callback_query", again);
    }
    api.wait_until_heard()?;
    let sent = sent + others;
    assert_eq!(ignored(&server)?, sent);
    ensure!(Stage::sandboxes(&server)?.len() == 1);
    assert_eq!(restores(&server)?, 1);

    // Until he is taken off the list.
    let config = std::fs::read_to_string(&server.config)?;
    std::fs::write(&server.config, config.replace(&OWNER.to_string(), "5"))?;
    server.signal(Signal::SIGHUP)?;
    server.wait_until(|server| {
        api.says(OWNER, "/help");
        api.wait_until_heard()?;
        Ok(ignored(server)? > sent)
    })?;
    // And the others stay on it.
    api.says(RUSSIAN, "/help");
    api.wait_for(RUSSIAN, "/cancel — ")?;
    let ended = server.stop()?;
    tells_no_token(&ended)?;
    ensure!(
        ended.stderr.contains(&STRANGER.to_string()),
        "{}",
        ended.stderr
    );
    evidence::note(
        25,
        format!(
            "{sent} updates of {} kinds from strangers, from groups and by others' buttons had no answer and \
             made no job; the owner's own press, sent three times, made one",
            OTHER_KINDS.len() + 4
        ),
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_25_nothing_is_done_again_after_a_restart() -> Result<()> {
    let stage = Stage::new()?;
    let server = stage.start()?;
    Stage::backup(&server)?;
    let api = &stage.api;
    let said = stage.until_confirmation()?;
    let yes = said.button("YES")?.to_owned();
    server.signal(Signal::SIGKILL)?;
    drop(server);
    // Said while nobody was there, and long ago.
    api.presses(OWNER, &said, &yes);
    let mut old = api.message_of(OWNER, "/start");
    old["date"] = json!(now() - 3600);
    api.push("message", &old);
    let before = api.calls("sendMessage").len();

    let server = stage.start()?;
    api.wait_until_heard()?;
    let answers = api.wait_for_calls("answerCallbackQuery", 3)?;
    let told = answers[2]["text"].as_str().unwrap_or_default();
    ensure!(told.contains("used or expired"), "{answers:?}");
    // What is asked now is answered, so what came before would have been.
    api.says(OWNER, "/help");
    api.wait_for(OWNER, "/cancel — ")?;
    assert_eq!(api.calls("sendMessage").len(), before + 1);
    ensure!(Stage::sandboxes(&server)?.is_empty());

    // While one is made, the server is stopped: he is told.
    let lock = "BEGIN; LOCK TABLE pg_database IN SHARE MODE; SELECT pg_sleep(600)";
    let mut holder = stage.cluster.tool("psql", "postgres");
    holder.env("PGPASSWORD", ADMIN).args(["-XAtw", "-c", lock]);
    let holder = Running::start(holder)?;
    let held = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK%'
                AND wait_event = 'PgSleep'";
    server.wait_until(|_| Ok(stage.cluster.query("postgres", held)?.trim() == "1"))?;
    let said = stage.until_confirmation()?;
    api.presses(OWNER, &said, said.button("YES")?);
    api.wait_for_change(&said, "✓ Asked for.")?;
    let ended = server.stop()?;
    tells_no_token(&ended)?;
    api.wait_for_change(&said, "The server stopped before that was over.")?;
    api.wait_until_heard()?;
    holder.signal(Signal::SIGTERM)?;
    holder.wait()?;
    let said = "a press and a message of before a restart made no job, and nothing was done twice";
    evidence::note(25, said);
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_25_a_bot_that_nobody_may_talk_to_does_not_begin() -> Result<()> {
    let stage = Stage::new()?;
    let settings = stage.settings(&stage.api.url())?;
    let (before, list) = settings.split_once("allow = [").context("a list")?;
    let (_, after) = list.split_once("\n]\n").context("its end")?;
    for none in ["", "allow = []\n"] {
        let settings = format!("{before}{none}{after}");
        let server = Server::start(&stage.cli, &settings, &[("olga", "operator")])?;
        stage.api.says(STRANGER, "/start");
        stage.api.says(OWNER, "/start");
        // Everything else is there, and has been for a while.
        Stage::backup(&server)?;
        for method in ["getMe", "getUpdates", "sendMessage"] {
            assert_eq!(stage.api.calls(method), [] as [Value; 0], "{method}");
        }
        let ended = server.stop()?;
        let words = "nobody may talk to it, so there is none";
        ensure!(ended.stderr.contains(words), "{}", ended.stderr);
    }
    let said =
        "without a list and with an empty one the bot did not begin: it called its API not once";
    evidence::note(25, said);
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn an_api_in_trouble_is_waited_for_and_its_token_is_told_nobody() -> Result<()> {
    let stage = Stage::new()?;
    let api = &stage.api;
    let proxy = Proxy::start(api.port())?;
    proxy.set(Faults {
        refuse: true,
        ..Faults::default()
    });
    let url = format!("http://127.0.0.1:{}", proxy.port());
    // Nothing else waits for it.
    let server = stage.start_at(&url)?;
    Stage::backup(&server)?;
    server.wait_until(|_| Ok(proxy.connections() > 1))?;
    let refusal = |code: u16, text: &str| {
        let text = format!("{text} {SECRET}");
        json!({ "ok": false, "error_code": code, "description": text })
    };
    api.fail("getMe", 401, refusal(401, "Unauthorized"), 1);
    api.fail(
        "getUpdates",
        409,
        refusal(
            409,
            "Conflict: can't use getUpdates method while webhook is active",
        ),
        1,
    );
    api.fail("getUpdates", 502, refusal(502, "Bad Gateway"), 1);
    let mut wait = refusal(429, "Too Many Requests: retry after 1");
    wait["parameters"] = json!({ "retry_after": 1 });
    api.fail("getUpdates", 429, wait.clone(), 1);
    api.fail("sendMessage", 429, wait, 2);
    proxy.heal();
    api.says(OWNER, "/start");
    let said = api.wait_for(OWNER, "Choose a source")?;
    assert_eq!(api.calls("deleteWebhook").len(), 1);
    assert_eq!(api.calls("sendMessage").len(), 3);

    // In the middle of a conversation, too.
    api.presses(OWNER, &said, said.button("shop")?);
    let said = api.wait_for(OWNER, "Choose a backup")?;
    api.presses(OWNER, &said, said.button("KiB")?);
    let said = api.wait_for(OWNER, "Restore this backup?")?;
    api.presses(OWNER, &said, said.button("YES")?);
    api.wait_for(OWNER, "Asked for.")?;
    proxy.set(Faults {
        refuse: true,
        ..Faults::default()
    });
    proxy.cut();
    server.wait_until(|server| {
        let all = Stage::sandboxes(server)?;
        Ok(all.first().is_some_and(|one| one["ready"] == true))
    })?;
    thread::sleep(Duration::from_millis(500));
    proxy.heal();
    api.wait_for(OWNER, "The sandbox is ready.")?;
    api.wait_for_calls("sendMessage", 4)?;

    let asked = server.stop()?;
    tells_no_token(&asked)?;
    for words in [
        "the bot API cannot be reached",
        "does not know this token",
        "it had a webhook, which is removed",
        "telegram bot: listening",
        "it is heard again",
    ] {
        ensure!(asked.stderr.contains(words), "{words}: {}", asked.stderr);
    }
    Ok(())
}

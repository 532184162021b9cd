//! Check 24. Every route of a server that listens, asked over its socket by everybody about everything: the
//! answers are those of `docs/ACCESS.md`, which the server's own tests hold against its description.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use backup_e2e::canary::{self, Kind};
use backup_e2e::cli::Cli;
use backup_e2e::evidence;
use backup_e2e::http::{LIMIT, Server, start};
use backup_e2e::pg::{Cluster, ClusterOptions, SUPERUSER};
use serde_json::Value;
use tokio::net::TcpSocket;

const PAGE: &str = include_str!("../../../docs/ACCESS.md");

/// So many lines the page has at least; from one that cannot be read nothing would be asked.
const ROUTES: usize = 23;

/// In the order of the page.
const ROLES: [&str; 4] = ["viewer", "restorer", "operator", "admin"];

const ADMIN: &str = "the admin's own c4n4ry24aa";
const RESTORER: &str = "weak-c4n4ry24bb";

/// What stands in a path for something that is none, and for somebody who tries.
const WRONG: [&str; 18] = [
    "absent",
    "..%2F..%2Fetc%2Fpasswd",
    "../../etc/passwd",
    "..;/..;/etc/passwd",
    "%2e%2e",
    "%2Fetc%2Fpasswd",
    "%252e%252e%252fetc%252fpasswd",
    "..%5C..%5Cpasswd",
    "x'%20OR%201=1--",
    "%22%3B%20DROP%20DATABASE%20shop%3B--",
    "$(touch%20passwd)",
    "%3Cscript%3Ealert(1)%3C%2Fscript%3E",
    "%00",
    "%FF%FE",
    "*",
    "a%0D%0ASet-Cookie:%20x=y",
    "-Fp",
    "20260205T030000Z-",
];

/// A line of the page.
struct Row {
    method: String,
    path: String,
    own: [u16; 4],
    /// Unless what is another source's is left out of the answer.
    foreign: Option<u16>,
}

fn rows() -> Result<Vec<Row>> {
    let lines = PAGE.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = lines.map(|line| {
        let (route, rest) = line.split_once("` | ").context("a route")?;
        let (method, path) = route.split_once(' ').context("a method")?;
        let cells: Vec<_> = rest.trim_end_matches(" |").split(" | ").collect();
        let [viewer, restorer, operator, admin, foreign] = cells[..] else {
            bail!("{line}");
        };
        Ok(Row {
            method: method.to_owned(),
            path: format!("/api/v1{path}"),
            own: [
                viewer.parse()?,
                restorer.parse()?,
                operator.parse()?,
                admin.parse()?,
            ],
            foreign: foreign.parse().ok(),
        })
    });
    let rows: Vec<_> = rows.collect::<Result<_>>()?;
    ensure!(rows.len() >= ROUTES, "only {} routes", rows.len());
    Ok(rows)
}

impl Row {
    /// What a right order of this kind says.
    fn body(&self) -> &'static str {
        let last = self.path.rsplit('/').next().unwrap_or_default();
        match (self.method.as_str(), last) {
            ("POST", "restores") => r#"{"target":"archive"}"#,
            ("POST", "verifications") => r#"{"level":"stored"}"#,
            ("POST", _) => "{}",
            ("PUT", _) => r#"{"reason":"law"}"#,
            _ => "",
        }
    }

    /// The path about a source, a backup and a run.
    fn about(&self, source: &str, (backup, run): (&str, &str)) -> String {
        let id = if self.path.contains("/runs/") {
            run
        } else {
            backup
        };
        let path = self.path.replace("{source}", source).replace("{id}", id);
        let path = path.replace("{name}", "restore_shop_20260205_0000beef");
        if path.contains("/pg-dump/") {
            format!("{path}?source={source}")
        } else {
            path
        }
    }
}

/// What came over the socket.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// A server over two sources with a backup and a run each.
struct Stage {
    // Order matters: the server ends before its files go.
    server: Server,
    cluster: Cluster,
    _cli: Cli,
    ids: [(String, String); 2],
    asked: AtomicU32,
}

impl Stage {
    fn new() -> Result<Self> {
        let cluster = Cluster::start(17, &ClusterOptions::default().scram(ADMIN))?;
        for database in ["shop", "other"] {
            cluster.create_db(database)?;
            cluster.psql(database, "CREATE TABLE t AS SELECT 1 AS a")?;
        }
        let login = format!("CREATE ROLE restorer LOGIN CREATEDB PASSWORD '{RESTORER}'");
        cluster.psql("postgres", &login)?;
        let cli = Cli::new(&cluster)?.with_env("PGPASSWORD", ADMIN);
        let (host, port) = (cluster.host(), cluster.port());
        let admin = cli.private_file("admin", ADMIN)?;
        let restorer = cli.private_file("restorer", RESTORER)?;
        let settings = format!(
            "[encryption]\nmode = 'none'\n[destination.near]\nurl = '{}'\n\
             [server.main]\nhost = '{host}'\nport = {port}\nuser = '{SUPERUSER}'\n\
             password = {{ file = '{admin}' }}\n\
             [server.box]\nhost = '{host}'\nport = {port}\nuser = 'restorer'\n\
             password = {{ file = '{restorer}' }}\n\
             [server.box.admin]\nuser = '{SUPERUSER}'\npassword = {{ file = '{admin}' }}\n\
             [sandbox]\nserver = 'box'\n[drill]\nserver = 'box'\n\
             [source.shop]\nserver = 'main'\ndatabase = 'shop'\ndestinations = ['near']\n\
             [source.other]\nserver = 'main'\ndatabase = 'other'\ndestinations = ['near']\n",
            cli.local_store()
        );
        let mut people = vec![("root".to_owned(), "admin", "*")];
        for role in ROLES {
            for source in ["shop", "*"] {
                people.push((format!("{role} of {source}"), role, source));
            }
        }
        let people: Vec<_> = people
            .iter()
            .map(|(name, role, source)| (name.as_str(), *role, *source))
            .collect();
        let server = Server::start_for(&cli, &settings, &people)?;
        let ids = [taken(&server, "shop")?, taken(&server, "other")?];
        Ok(Self {
            server,
            cluster,
            _cli: cli,
            ids,
            asked: AtomicU32::new(0),
        })
    }

    fn own(&self, row: &Row) -> String {
        row.about("shop", (&self.ids[0].0, &self.ids[0].1))
    }

    fn foreign(&self, row: &Row) -> String {
        row.about("other", (&self.ids[1].0, &self.ids[1].1))
    }

    /// Sends exactly this, from an address of loopback that has not asked for anything yet.
    fn ask(&self, row: &Row, path: &str, token: &str) -> Result<Answer> {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let [_, b, c, d] = (number + 256).to_be_bytes();
        let mut text = format!("{} {path} HTTP/1.1\r\nHost: backups\r\n", row.method);
        if !token.is_empty() {
            write!(text, "Authorization: Bearer {token}\r\n")?;
        }
        let body = row.body();
        if !body.is_empty() {
            text += "Content-Type: application/json\r\n";
        }
        write!(text, "Content-Length: {}\r\n", body.len())?;
        write!(text, "Connection: close\r\n\r\n{body}")?;
        let mut stream = connect(&self.server.url, Ipv4Addr::new(127, b, c, d))?;
        stream.write_all(text.as_bytes())?;
        let mut said = Vec::new();
        stream.read_to_end(&mut said)?;
        let what = format!("{} {path}", row.method);
        canary::look(Kind::Answer, &what, &said)?;
        let said = String::from_utf8(said).with_context(|| what.clone())?;
        let (head, body) = said.split_once("\r\n\r\n").context(what)?;
        let status = head.split(' ').nth(1).context("a status")?.parse()?;
        let (head, body) = (head.to_ascii_lowercase(), body.to_owned());
        Ok(Answer { status, head, body })
    }

    /// Waits for the end of what was ordered.
    fn wait_for_end(&self, run: &str) -> Result<()> {
        self.server.wait_until(|server| {
            let state = server.get(run, "root")?["state"].clone();
            Ok(state != "queued" && state != "running")
        })
    }
}

/// A connection from `from`.
fn connect(url: &str, from: Ipv4Addr) -> Result<TcpStream> {
    let address: SocketAddr = url.trim_start_matches("http://").parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let stream = runtime.block_on(async {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((from, 0)))?;
        socket.connect(address).await?.into_std()
    })?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// Takes a backup of a source, and waits until everybody can see it; its id, and the run's.
fn taken(server: &Server, source: &str) -> Result<(String, String)> {
    let path = format!("/api/v1/sources/{source}/backups");
    let run = server.order(&path, "root", "{}")?;
    let text = |name: &str| run[name].as_str().map(str::to_owned);
    let (id, run) = text("backup").zip(text("id")).context("a backup")?;
    server.wait_until(|server| {
        let latest = server.ask("GET", &format!("{path}/latest"), "root", "")?;
        let over = server.ask("GET", &format!("/api/v1/runs/{run}"), "root", "")?;
        Ok(latest.text.contains(&id) && over.status == 200)
    })?;
    Ok((id, run))
}

/// A refusal has a form, and tells nothing of anybody else.
fn assert_answer(answer: &Answer, status: u16, what: &str) -> Result<()> {
    ensure!(
        answer.status == status,
        "{what}: {} instead of {status}: {}",
        answer.status,
        answer.body
    );
    if status >= 400 {
        let form = "content-type: application/problem+json";
        ensure!(answer.head.contains(form), "{what}: {}", answer.head);
    }
    ensure!(
        !answer.head.contains("set-cookie"),
        "{what}: {}",
        answer.head
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_24_every_route_answers_everybody_as_the_page_says() -> Result<()> {
    let (rows, stage) = (rows()?, Stage::new()?);
    let (mut orders, mut strangers) = (0, 0);
    for (index, role) in ROLES.into_iter().enumerate() {
        let person = format!("{role} of shop");
        let token = stage.server.token(&person).to_owned();
        for row in &rows {
            let path = stage.own(row);
            let what = format!("{role} {} {path}", row.method);
            let answer = stage.ask(row, &path, &token)?;
            assert_answer(&answer, row.own[index], &what)?;
            if answer.status == 202 {
                let (_, rest) = answer.head.split_once("\r\nlocation: ").context("where")?;
                // Ids are in capitals, and the head was made small.
                let run: Value = serde_json::from_str(&unchunked(&answer.body)?)?;
                let id = run["id"].as_str().context("an id")?;
                let place = format!("/api/v1/runs/{id}");
                ensure!(rest.starts_with(&place.to_ascii_lowercase()), "{rest}");
                stage.wait_for_end(&place)?;
                orders += 1;
            }
            let path = stage.foreign(row);
            let what = format!("{role} {} {path}", row.method);
            let Some(status) = row.foreign else {
                let answer = stage.ask(row, &stage.own(row), &token)?;
                ensure!(!answer.body.contains("other"), "{what}: {}", answer.body);
                continue;
            };
            let answer = stage.ask(row, &path, &token)?;
            assert_answer(&answer, status, &what)?;
            ensure!(!answer.body.contains("other"), "{what}: {}", answer.body);
        }
    }
    let good = stage.server.token("admin of *").to_owned();
    for row in &rows {
        for path in [stage.own(row), stage.foreign(row)] {
            for token in ["", "wrong", &good[1..]] {
                let what = format!("{} {path} with {}", row.method, token.len());
                assert_answer(&stage.ask(row, &path, token)?, 401, &what)?;
                strangers += 1;
            }
        }
    }
    // Whatever was refused was not done.
    let runs = stage.server.get("/api/v1/runs?source=other", "root")?;
    assert_eq!(runs["items"].as_array().map(Vec::len), Some(1), "{runs:#}");
    let left = "SELECT count(*) FROM pg_database WHERE datname IN ('shop', 'other')";
    assert_eq!(stage.cluster.query("postgres", left)?.trim(), "2");
    let asked = stage.asked.load(Ordering::Relaxed);
    let routes = rows.len();
    stage.server.stop()?;
    evidence::note(
        24,
        format!(
            "{asked} requests over sockets, for each of {routes} routes by {} roles about their own source \
             and another one's, had the status of the page; {orders} were orders that were taken; {strangers} \
             without a token or with a wrong one had 401",
            ROLES.len()
        ),
    );
    Ok(())
}

/// A body that comes in pieces, put together.
fn unchunked(body: &str) -> Result<String> {
    let (begin, end) = (body.find('{'), body.rfind('}'));
    let (begin, end) = begin.zip(end).with_context(|| body.to_owned())?;
    Ok(body[begin..=end].to_owned())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_24_what_is_no_name_names_nothing() -> Result<()> {
    let (rows, stage) = (rows()?, Stage::new()?);
    let long = "x".repeat(5000);
    let mut refused = 0;
    for (index, role) in ROLES.into_iter().enumerate() {
        for sources in ["shop", "*"] {
            let token = stage
                .server
                .token(&format!("{role} of {sources}"))
                .to_owned();
            for row in rows.iter().filter(|row| row.path.contains('{')) {
                let (begin, rest) = row.path.split_once('{').context("a name")?;
                let (_, end) = rest.split_once('}').context("its end")?;
                for wrong in WRONG.iter().copied().chain([long.as_str()]) {
                    let path = format!("{begin}{wrong}{end}");
                    let what = format!("{role} of {sources} {} {path}", row.method);
                    let answer = stage.ask(row, &path, &token)?;
                    // Who may see all is told what he may not do with any.
                    let told = sources == "*" && row.own[index] == 403 && answer.status == 403;
                    let status = if told { 403 } else { 404 };
                    assert_answer(&answer, status, &what)?;
                    for said in ["root:", "passwd", "script", "DROP", "panick"] {
                        ensure!(!answer.body.contains(said), "{what}: {}", answer.body);
                    }
                    refused += 1;
                }
            }
        }
    }
    // Nothing was made, and nothing is gone.
    let runs = stage.server.get("/api/v1/runs", "root")?;
    assert_eq!(runs["items"].as_array().map(Vec::len), Some(2), "{runs:#}");
    for (id, _) in &stage.ids {
        stage.server.get(&format!("/api/v1/backups/{id}"), "root")?;
    }
    stage.server.stop()?;
    evidence::note(
        24,
        format!(
            "{refused} requests with {} names that are none, paths out of the tree and pieces of SQL, shells \
             and pages among them, named nothing",
            WRONG.len() + 1
        ),
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_24_it_does_not_start_where_tokens_would_be_seen() -> Result<()> {
    let cli = Cli::without_server()?;
    let settings = "[destination.near]\nurl = 'file:///nowhere'";
    let config = cli.private_file("server.toml", settings)?;
    let addresses = ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[2001:db8::1]:0"];
    for address in addresses {
        let run = start(&cli, &config, address)?;
        let run = run.wait_at_most(LIMIT)?.exits(2)?;
        let words = "server_http.listen: others can reach this address";
        ensure!(run.stderr.contains(words), "{}", run.stderr);
    }
    let count = addresses.len();
    let said =
        format!("without TLS it refused to listen at {count} addresses that others can reach");
    evidence::note(24, said);
    Ok(())
}

//! Golden backups: real ones that are kept in the repository, made once when their format was new, with
//! what must come back out of them. `tests/golden/README.md` tells of them.
//!
//! Making them is `cargo run -p backup-e2e --bin make-golden`, and is done once a format.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use backup_core::body::ObjectHasher;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::{Cli, Keys, Running};
use crate::pg::{Cluster, Contents};
use crate::redis::{self, Redis};
use crate::vault::{Vault, id_of};

/// The private key of all golden backups; a test key that everybody can read.
pub const KEY_FILE: &str = "TEST-KEY-NOT-A-SECRET.txt";

/// What must be equal, beside the store.
const EXPECTED_FILE: &str = "expected.json";

/// The folder with the store's files as they are.
const STORE: &str = "store";

/// One golden backup.
#[derive(Debug)]
pub struct Golden {
    /// Its folder's name.
    pub name: String,
    /// What must come out of it.
    pub expected: Expected,
    folder: PathBuf,
}

/// What a golden backup must say and give back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// The backup's id.
    pub id: String,
    /// Its source.
    pub source: String,
    /// The server that it was taken of.
    pub server_version: String,
    /// How it is compressed.
    pub compression: String,
    /// Whether it is encrypted, to the test key.
    pub encrypted: bool,
    /// Whether another tool had taken the dump.
    pub adopted: bool,
    /// Why it is pinned, if it is.
    pub pinned: Option<String>,
    /// What it holds.
    pub content: Content,
}

/// What a golden backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// A database.
    Database {
        /// The major that it was dumped by.
        major: u16,
        /// What is stored, as [`Cluster::contents`] tells it.
        contents: Contents,
        /// What is defined, as [`definitions`] tells it.
        definitions: Vec<(String, String)>,
    },
    /// What Redis answers.
    Redis {
        /// Questions and their answers.
        answers: Vec<(Vec<String>, String)>,
    },
    /// A file that is given back as it was.
    File {
        /// How long it is.
        bytes: u64,
        /// Its SHA-256.
        sha256: String,
    },
}

impl Golden {
    /// All that lie in a format's folder, by name.
    ///
    /// # Errors
    ///
    /// When one of them lacks something.
    pub fn all(format: &str) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(folder_of(format))? {
            let folder = entry?.path();
            if !folder.is_dir() {
                continue;
            }
            let name = folder.file_name().context("a name")?.to_string_lossy();
            let expected = fs::read(folder.join(EXPECTED_FILE)).context(name.to_string())?;
            all.push(Self {
                name: name.to_string(),
                expected: serde_json::from_slice(&expected).context(name.to_string())?,
                folder,
            });
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// A copy of it to work with, opened by the test key.
    ///
    /// # Errors
    ///
    /// When it cannot be copied.
    pub fn opened(&self, format: &str, cli: Cli) -> Result<Vault> {
        copy_tree(&self.folder.join(STORE), &cli.local_root())?;
        with_test_key(format, cli)
    }
}

/// Where a format's golden backups lie.
#[must_use]
pub fn folder_of(format: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(format)
}

/// Creates the roles that own what is in golden backups of databases.
///
/// # Errors
///
/// When the server refuses.
pub fn create_roles(cluster: &Cluster) -> Result<()> {
    let roles = cluster.psql("postgres", include_str!("golden/roles.sql"));
    roles.map(drop)
}

/// What is defined in a database, read without any of the code under test: one thing each, in words that
/// all majors have alike.
///
/// # Errors
///
/// When the server refuses.
pub fn definitions(cluster: &Cluster, database: &str) -> Result<Vec<(String, String)>> {
    let output = cluster.psql(database, include_str!("golden/definitions.sql"))?;
    let line = |line| serde_json::from_str(line).with_context(|| format!("psql printed {line:?}"));
    output.lines().map(line).collect()
}

/// What is asked of Redis, in words of which each answer has its order.
fn questions() -> Vec<Vec<String>> {
    let asked = [
        "GET text",
        "GET number",
        "STRLEN long",
        "GETRANGE long 39000 39010",
        "EXPIRETIME ending",
        "LRANGE list 0 -1",
        "SMEMBERS numbers",
        "SORT names ALPHA",
        "ZRANGE sorted 0 -1 WITHSCORES",
        "HGETALL hash",
        "HLEN big",
        "HGET big 699",
        "XRANGE stream - +",
        "XPENDING stream group",
        "PFCOUNT hyper",
        "DBSIZE",
        "-n 3 GET elsewhere",
        "-n 3 DBSIZE",
    ];
    let words = |line: &str| line.split(' ').map(str::to_owned).collect();
    asked.iter().map(|line| words(line)).collect()
}

/// What Redis answers to everything that is asked of a golden one.
///
/// # Errors
///
/// When it does not.
pub fn answers(redis: &Redis) -> Result<Vec<(Vec<String>, String)>> {
    let ask = |question: Vec<String>| {
        let words: Vec<_> = question.iter().map(String::as_str).collect();
        let answer = redis.ask(&words)?;
        Ok((question, answer))
    };
    questions().into_iter().map(ask).collect()
}

/// The SHA-256 of a file's content, in hex.
#[must_use]
pub fn sha256(content: &[u8]) -> String {
    let mut hasher = ObjectHasher::default();
    hasher.update(content);
    hasher.finish().sha256
}

/// Makes golden backups of every kind in a format's folder, which must have none but its key.
///
/// # Errors
///
/// When one is there already, or cannot be made.
pub fn make(format: &str) -> Result<()> {
    for case in CASES {
        let database = Database::create(case)?;
        let vault = with_test_key(format, Cli::new(&database.cluster)?)?;
        let backup = vault.back_up(NAME, &words(case.options))?;
        case.after(&vault, id_of(&backup)?)?;
        let content = database.content()?;
        save(format, case.name, &vault, content)?;
    }
    make_adopted(format)?;
    make_redis(format)
}

/// The database that is backed up.
const NAME: &str = "shop";
const PIN: &str = "kept for ever";

/// How golden backups of databases differ.
struct Case {
    name: &'static str,
    major: u16,
    options: &'static str,
    /// One table is so large that it is a part of its own.
    large: bool,
    pinned: bool,
    rekeyed: bool,
}

const CASES: &[Case] = &[
    Case {
        name: "postgresql-14-zstd-encrypted",
        major: 14,
        options: "-Z zstd:3",
        large: false,
        pinned: true,
        rekeyed: false,
    },
    Case {
        name: "postgresql-16-uncompressed-clear",
        major: 16,
        options: "-Z none --no-encryption",
        large: false,
        pinned: false,
        rekeyed: false,
    },
    Case {
        name: "postgresql-17-zstd-encrypted-in-parts",
        major: 17,
        options: "-Z zstd:3 --jobs 3",
        large: true,
        pinned: false,
        rekeyed: false,
    },
    Case {
        name: "postgresql-18-gzip-encrypted-rekeyed",
        major: 18,
        options: "-Z gzip:6",
        large: false,
        pinned: false,
        rekeyed: true,
    },
];

impl Case {
    /// What is done to a backup once it is there.
    fn after(&self, vault: &Vault, id: &str) -> Result<()> {
        if self.pinned {
            vault
                .cli
                .run(["pin", id, "--reason", PIN, "--from", &vault.url])?
                .exits(0)?;
        }
        if self.rekeyed {
            let other = vault.cli.keys()?;
            let to = [&other.recipient, &vault.keys.recipient];
            vault
                .read(&["rekey", id, "--recipient", to[0], "--recipient", to[1]])?
                .exits(0)?;
        }
        Ok(())
    }
}

struct Database {
    cluster: Cluster,
}

impl Database {
    fn create(case: &Case) -> Result<Self> {
        let cluster = Cluster::start(case.major, &crate::pg::ClusterOptions::default())?;
        create_roles(&cluster)?;
        cluster.create_db(NAME)?;
        cluster.psql(NAME, include_str!("golden/database.sql"))?;
        if case.large {
            // Much in the table, and little once it is compressed.
            let sql = "CREATE TABLE shop.large (id int PRIMARY KEY, note text);
                ALTER TABLE shop.large ALTER note SET STORAGE EXTERNAL;
                INSERT INTO shop.large SELECT i, repeat('golden ', 150000) FROM generate_series(1, 66) AS i;";
            cluster.psql(NAME, sql)?;
        }
        Ok(Self { cluster })
    }

    /// What `pg_dump` alone carries: nothing that belongs to the database as a whole.
    fn content_without_settings(&self) -> Result<Content> {
        let mut content = self.content()?;
        if let Content::Database { definitions, .. } = &mut content {
            definitions.retain(|(what, _)| what != "setting");
        }
        Ok(content)
    }

    fn content(&self) -> Result<Content> {
        Ok(Content::Database {
            major: self.cluster.major(),
            contents: self.cluster.contents(NAME)?,
            definitions: definitions(&self.cluster, NAME)?,
        })
    }
}

/// Of dumps that stock `pg_dump` took.
fn make_adopted(format: &str) -> Result<()> {
    for (name, options, more, majors) in [
        ("adopted-custom-zstd-encrypted", "-Fc", "-Z zstd:3", 15),
        (
            "adopted-sql-gzip-clear",
            "-Fp",
            "-Z gzip:6 --no-encryption",
            16,
        ),
    ] {
        let case = Case {
            major: majors,
            ..CASES[1]
        };
        let database = Database::create(&case)?;
        let vault = with_test_key(format, Cli::new(&database.cluster)?)?;
        let file = vault.cli.folder().join("old.dump");
        let mut dump = database.cluster.tool("pg_dump", NAME);
        dump.arg(options).arg("-f").arg(&file);
        Running::start(dump)?.wait()?.exits(0)?;
        let path = file.display().to_string();
        let mut arguments = vec!["adopt", &path, "--source", NAME, "--to", &vault.url];
        arguments.extend(words(more));
        if !more.contains("--no-encryption") {
            arguments.extend(["--recipient", &vault.keys.recipient]);
        }
        vault.cli.run(&arguments)?.exits(0)?;
        let content = if options == "-Fc" {
            database.content_without_settings()?
        } else {
            let dump = fs::read(&file)?;
            Content::File {
                bytes: dump.len() as u64,
                sha256: sha256(&dump),
            }
        };
        save(format, name, &vault, content)?;
    }
    Ok(())
}

fn make_redis(format: &str) -> Result<()> {
    let redis = Redis::start(&[], &[], |_| Ok(()))?;
    let long = "abcdefgh".repeat(5000);
    let filling = format!(
        "SET text hello\nSET number 12345\nSET long {long}\nSET ending later EXAT 4102444800\n\
         RPUSH list a 1 -2 99999999999 {long}\nSADD numbers 1 2 70000\nSADD names x y\n\
         ZADD sorted 1.5 a -inf b 3 c\nHSET hash field value n 7\n\
         XADD stream 1-1 k v\nXADD stream 2-1 k v2 k2 w\nXGROUP CREATE stream group 0\n\
         XREADGROUP GROUP group me COUNT 1 STREAMS stream >\nPFADD hyper a b c\n-n 3 SET elsewhere x"
    );
    let mut commands: Vec<Vec<String>> = Vec::new();
    for line in filling.lines() {
        commands.push(line.split(' ').map(str::to_owned).collect());
    }
    let fields = (0..700).flat_map(|n| [n.to_string(), format!("value {n}")]);
    let big = ["HSET", "big"].map(str::to_owned).into_iter();
    commands.push(big.chain(fields).collect());
    for command in &commands {
        let command: Vec<_> = command.iter().map(String::as_str).collect();
        let answer = redis.ask(&command)?;
        ensure!(!answer.contains("ERR"), "{command:?}: {answer}");
    }
    let vault = with_test_key(format, Cli::without_server()?)?;
    let config = format!(
        "[encryption]\nrecipients = [\"{}\"]\n[destination.local]\nurl = \"{}\"\n[source.cache]\n\
         kind = \"redis\"\nbin_dir = \"{}\"\nurl = \"redis://127.0.0.1:{}\"\n",
        vault.keys.recipient,
        vault.url,
        redis::bin_dir()?.display(),
        redis.port()
    );
    let config = vault.cli.private_file("backup.toml", &config)?;
    vault
        .cli
        .run(["--config", &config, "backup", "cache"])?
        .exits(0)?;
    let answers = answers(&redis)?;
    save(
        format,
        "redis-7-zstd-encrypted",
        &vault,
        Content::Redis { answers },
    )
}

/// Puts the one backup of a vault beside the others, with what must come out of it.
fn save(format: &str, name: &str, vault: &Vault, content: Content) -> Result<()> {
    let list = vault.cli.run(["list", "--from", &vault.url, "--json"])?;
    let list = list.exits(0)?.json()?;
    let backup = list.get(0).context("a backup")?;
    let shown = vault.read(&["show", id_of(backup)?, "--json"])?;
    let shown = shown.exits(0)?.json()?;
    let text = |field: &str| -> Result<String> {
        let value = shown[field].as_str();
        Ok(value.with_context(|| format!("{field}: {shown}"))?.into())
    };
    let expected = Expected {
        id: text("id")?,
        source: text("source")?,
        server_version: text("server_version")?,
        compression: text("compression")?,
        encrypted: shown["recipients"] != Value::Null,
        adopted: shown["adopted"] == true,
        pinned: shown["pin"]["reason"].as_str().map(str::to_owned),
        content,
    };
    let folder = folder_of(format).join(name);
    fs::create_dir(&folder).with_context(|| format!("{} is there already", folder.display()))?;
    copy_tree(&vault.cli.local_root(), &folder.join(STORE))?;
    let mut text = serde_json::to_string_pretty(&expected)?;
    text.push('\n');
    fs::write(folder.join(EXPECTED_FILE), text)?;
    Ok(())
}

fn with_test_key(format: &str, cli: Cli) -> Result<Vault> {
    let text = fs::read_to_string(folder_of(format).join(KEY_FILE)).context(KEY_FILE)?;
    let recipient = text
        .lines()
        .find_map(|line| line.strip_prefix("# public key: "));
    let keys = Keys {
        recipient: recipient.context("a public key")?.to_owned(),
        identity: cli.private_file("identity.txt", &text)?,
    };
    let url = cli.local_store();
    let mut vault = Vault::at(cli, &url)?;
    vault.keys = keys;
    Ok(vault)
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

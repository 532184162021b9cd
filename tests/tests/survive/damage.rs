//! A stored backup that is not what was written is never restored, and whoever looks is told which
//! part it is.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use anyhow::{Context as _, Result, ensure};
use backup_e2e::evidence;
use backup_e2e::pg::{Cluster, Contents, quote_literal};
use backup_e2e::s3::Kind;
use backup_e2e::sample;
use backup_e2e::scene::{Done, SOURCE, Scene, Store, unique};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Bytes of an age chunk as stored, and of the nonce between header and chunks.
///
/// <https://github.com/C2SP/C2SP/blob/main/age.md#payload>
const CHUNK: usize = (64 << 10) + 16;
const NONCE: usize = 16;

/// Two backups of one database, of which one is damaged, and what must not suffer from it.
struct Theatre {
    scene: Scene<'static>,
    cluster: &'static Cluster,
    database: String,
    victim: String,
    twin: String,
    /// All objects of the victim, as they were.
    objects: Vec<(String, Vec<u8>)>,
    /// What the live database holds.
    content: Contents,
    /// How often the programs refused what they had to refuse.
    refused: Cell<usize>,
}

impl Theatre {
    fn new(store: Store, sql: &str, defaults: &[&str]) -> Result<Self> {
        let cluster = Cluster::shared(17)?;
        let database = cluster.fresh_db(&unique("damaged"))?;
        cluster.psql(&database, sql)?;
        let scene = Scene::with(cluster, &database, store, |settings| {
            settings.defaults = defaults.iter().map(ToString::to_string).collect();
        })?;
        let (victim, twin) = (scene.good_backup()?, scene.good_backup()?);
        let keys = scene.objects_of(&victim)?.into_iter();
        let objects: Result<_> = keys
            .map(|key| scene.place.get(&key).map(|bytes| (key, bytes)))
            .collect();
        Ok(Self {
            objects: objects?,
            content: cluster.contents(&database)?,
            refused: Cell::new(0),
            scene,
            cluster,
            database,
            victim,
            twin,
        })
    }

    fn manifest_key(&self) -> Result<&str> {
        let mut keys = self.objects.iter().map(|(key, _)| key.as_str());
        keys.find(|key| key.ends_with("/manifest.json"))
            .context("a manifest")
    }

    fn manifest(&self) -> Result<Value> {
        let key = self.manifest_key()?;
        Ok(serde_json::from_slice(&self.scene.place.get(key)?)?)
    }

    fn write_manifest(&self, manifest: &Value) -> Result<()> {
        let text = serde_json::to_vec_pretty(manifest)?;
        self.scene.place.put(self.manifest_key()?, &text)
    }

    /// Puts everything back as it was.
    fn heal(&self) -> Result<()> {
        for (key, bytes) in &self.objects {
            self.scene.place.put(key, bytes)?;
        }
        Ok(())
    }

    fn verify(&self, level: &str) -> Result<Done> {
        let arguments = ["verify", &self.victim, "--source", SOURCE];
        self.scene
            .run(&[&arguments[..], &["--level", level]].concat())
    }

    fn restore(&self) -> Result<Done> {
        let target = self.scene.target();
        self.scene
            .run(&["restore", &self.victim, "--target-db", &target])
    }

    /// Over the database that the backup is of, as somebody would who lost something in it.
    fn restore_over(&self) -> Result<Done> {
        let arguments = ["--target-db", &self.database, "--swap", "--yes"];
        self.scene
            .run(&[&["restore", &self.victim][..], &arguments].concat())
    }

    /// The database, whatever is called after it or was made of its backups, and what belongs to
    /// them.
    fn databases(&self) -> Result<String> {
        let name = quote_literal(&self.database);
        let sql = format!(
            "SELECT to_jsonb(d) - 'datfrozenxid' - 'datminmxid', shobj_description(oid, 'pg_database')
             FROM pg_database d
             WHERE starts_with(datname, {name})
                OR strpos(shobj_description(oid, 'pg_database'), {victim}) > 0 ORDER BY oid",
            victim = quote_literal(&self.victim)
        );
        self.cluster.query("postgres", &sql)
    }

    /// Roles are for the whole server: a restore of one database does without them.
    fn assert_globals_are_missed(&self) -> Result<()> {
        self.verify("decoded")?.expect(6, &["globals"])?;
        self.restore()?.expect(0, &["equal in content"])?;
        self.refused.set(self.refused.get() + 1);
        let content = self.cluster.contents(&self.database)?;
        ensure!(content == self.content, "the live database changed");
        self.cluster.drop_db(&self.scene.target())
    }

    /// Both commands refuse with `code` and say `word`, and leave every database as it was.
    fn assert_refused(&self, code: i32, word: &str) -> Result<()> {
        let before = self.databases()?;
        for run in [self.verify("decoded")?, self.restore_over()?] {
            run.expect(code, &[word])?;
            self.refused.set(self.refused.get() + 1);
        }
        let after = self.databases()?;
        ensure!(
            after == before,
            "databases before:\n{before}\nafter:\n{after}"
        );
        let content = self.cluster.contents(&self.database)?;
        ensure!(content == self.content, "the live database changed");
        self.scene.assert_nobody_left()
    }

    fn assert_no_target(&self) -> Result<()> {
        ensure!(
            !self.cluster.has_db(&self.scene.target())?,
            "a database is left"
        );
        self.scene.assert_nobody_left()
    }

    /// After all the damage: the source, the other backup and, put back, the victim are as before.
    fn assert_no_harm(&self) -> Result<()> {
        self.heal()?;
        ensure!(
            self.cluster.contents(&self.database)? == self.content,
            "the source changed"
        );
        for id in [self.scene.older(), &self.victim, &self.twin] {
            self.scene.assert_proved(id)?;
        }
        let target = self.scene.target();
        self.restore()?.expect(0, &["equal in content"])?;
        ensure!(
            self.cluster.contents(&target)? == self.content,
            "another content"
        );
        self.cluster.drop_db(&target)
    }
}

/// Some rows, an index, a sequence and a large object: something of every part.
fn small_sql() -> String {
    sample::bulk_sql("app", "bulk", 1)
        + "CREATE INDEX ON app.bulk (at);
           CREATE TABLE app.small (id serial PRIMARY KEY, note text);
           INSERT INTO app.small (note) SELECT 'note ' || i FROM generate_series(1, 300) AS i;
           SELECT lo_from_bytea(0, convert_to(repeat('large ', 5000), 'UTF8'));"
}

/// The part that an object's key is of, as messages name it.
fn part_of(key: &str) -> &str {
    let name = key.rsplit('/').next().unwrap_or(key);
    match name.split('.').next() {
        Some("key") => "key.age",
        Some(part) => part,
        None => name,
    }
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1 << rand::random_range(0..8);
    bytes
}

/// Every way in which one object can be wrong; `None` is its absence.
fn mutilations(bytes: &[u8], twin: Vec<u8>) -> Vec<(String, Option<Vec<u8>>)> {
    let length = bytes.len();
    let mut ways = vec![("removed".to_owned(), None)];
    let mut cuts = vec![0, 1, length / 2, length - 1];
    cuts.dedup();
    ways.extend(
        cuts.into_iter()
            .map(|at| (format!("cut at {at}"), Some(bytes[..at].to_vec()))),
    );
    for _ in 0..3 {
        let at = rand::random_range(0..length);
        ways.push((format!("flipped at {at}"), Some(flipped(bytes, at))));
    }
    ways.push(("extended".to_owned(), Some([bytes, b"x"].concat())));
    ways.push(("doubled".to_owned(), Some([bytes, bytes].concat())));
    ways.push(("swapped".to_owned(), Some(twin)));
    ways
}

fn check_objects(store: Store) -> Result<()> {
    let mut theatre = Theatre::new(store, &small_sql(), &[])?;
    let mut ways = 0;
    let objects = theatre.objects.iter();
    for (key, bytes) in objects.filter(|(key, _)| !key.ends_with("manifest.json")) {
        let part = part_of(key);
        let twin = theatre
            .scene
            .place
            .get(&key.replace(&theatre.victim, &theatre.twin))?;
        for (name, damaged) in mutilations(bytes, twin) {
            match &damaged {
                Some(damaged) => theatre.scene.place.put(key, damaged)?,
                None => theatre.scene.place.delete(key)?,
            }
            let context = || format!("{part} {name}");
            let check = match (part, name.as_str()) {
                ("globals", _) => theatre.assert_globals_are_missed(),
                // Which of the two is not of this backup, nobody can tell.
                ("key.age", "swapped") => theatre.assert_refused(6, "not of this backup"),
                _ => theatre.assert_refused(6, part),
            };
            check.with_context(context)?;
            theatre.scene.place.put(key, bytes)?;
            ways += 1;
        }
    }
    check_keys(&mut theatre)?;
    theatre.assert_no_harm()?;
    evidence::note(
        1,
        format!(
            "{ways} damaged objects, a wrong key, no key and no manifest in a {}: {} commands \
             refused, and after each the live database had the same content and no other was made; \
             damaged roles are found by verify, and a restore to a new database, which does not need \
             them, has all the same content",
            place_of(store),
            theatre.refused.get()
        ),
    );
    Ok(())
}

/// A backup needs its key and its manifest.
fn check_keys(theatre: &mut Theatre) -> Result<()> {
    theatre.scene.new_identity("stranger")?;
    let right = theatre.scene.settings.identity.clone();
    for (identity, word) in [
        (
            Some(theatre.scene.path("stranger")),
            "one of its recipients: age1",
        ),
        (None, "one of its recipients: age1"),
    ] {
        theatre.scene.settings.identity = identity;
        theatre
            .assert_refused(10, word)
            .with_context(|| word.to_owned())?;
    }
    theatre.scene.settings.identity = right;

    theatre.scene.place.delete(theatre.manifest_key()?)?;
    theatre.assert_refused(4, &theatre.victim)
}

fn place_of(store: Store) -> &'static str {
    match store {
        Store::Local => "folder",
        Store::S3(_) => "bucket",
    }
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_01_no_damaged_object_of_a_folder_is_restored() -> Result<()> {
    check_objects(Store::Local)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_01_no_damaged_object_of_a_bucket_is_restored() -> Result<()> {
    check_objects(Store::S3(Kind::SeaweedFs))
}

/// Where the payload of an encrypted object begins.
fn payload_of(bytes: &[u8]) -> Result<usize> {
    let mac = bytes.windows(5).position(|window| window == b"\n--- ");
    let mac = mac.context("an age header")? + 1;
    let line = bytes[mac..].iter().position(|byte| *byte == b'\n');
    Ok(mac + line.context("the header's last line")? + 1 + NONCE)
}

/// The manifest as it would be if the rows had been stored as `bytes`.
fn fitting(manifest: &Value, bytes: &[u8]) -> Result<Value> {
    let mut manifest = manifest.clone();
    let mut digest = String::new();
    for byte in Sha256::digest(bytes) {
        write!(digest, "{byte:02x}")?;
    }
    let at = of_rows(&manifest, "objects/0")?;
    set(&mut manifest, &format!("{at}/bytes"), bytes.len())?;
    set(&mut manifest, &format!("{at}/sha256"), digest)?;
    let sum = format!("{:08x}", crc32(bytes));
    set(&mut manifest, &format!("{at}/crc32"), sum)?;
    Ok(manifest)
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32| (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg());
    let add = |sum: u32, byte: &u8| (0..8).fold(sum ^ u32::from(*byte), |sum, _| step(sum));
    !bytes.iter().fold(u32::MAX, add)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_05_a_cut_at_any_border_of_the_encryption_is_found() -> Result<()> {
    let sql = sample::bulk_sql("app", "bulk", 1);
    let theatre = Theatre::new(Store::Local, &sql, &["compression = 'none'"])?;
    let rows = theatre
        .objects
        .iter()
        .find(|(key, _)| part_of(key) == "data-rest");
    let (key, bytes) = rows.context("rows")?;
    let right = theatre.manifest()?;
    let payload = payload_of(bytes)?;
    let stored: Vec<_> = (payload..bytes.len()).step_by(CHUNK).collect();
    ensure!(stored.len() > 10, "{} bytes", bytes.len());
    let plain = (64 << 10..bytes.len()).step_by(64 << 10);
    let mut cuts = 0;
    for border in stored.iter().copied().chain(plain) {
        for at in [border - 1, border, border + 1] {
            theatre.scene.place.put(key, &bytes[..at])?;
            let run = theatre.verify("hashed")?;
            run.expect(6, &["data-rest"])
                .with_context(|| format!("cut at {at}"))?;
            cuts += 1;
        }
    }
    // Whoever cuts it may know what the manifest has to say then.
    for border in &stored {
        let cut = &bytes[..*border];
        theatre.scene.place.put(key, cut)?;
        theatre.write_manifest(&fitting(&right, cut)?)?;
        let run = theatre.verify("decoded")?;
        run.expect(6, &["data-rest"])
            .with_context(|| format!("cut at {border}, with a manifest to fit"))?;
    }
    theatre.write_manifest(&right)?;
    // The last border, where everything but the end is right, before a database is at stake.
    let last = stored.last().context("a border")?;
    theatre.scene.place.put(key, &bytes[..*last])?;
    theatre.restore()?.expect(6, &["data-rest"])?;
    theatre.assert_no_target()?;
    theatre.assert_no_harm()?;
    evidence::note(
        5,
        format!(
            "{cuts} cuts of an encrypted object of {} KiB at its borders of 64 KiB, one byte before \
             and one after, and {} more with a manifest to fit, each found and named",
            bytes.len() >> 10,
            stored.len()
        ),
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_05_each_flipped_byte_is_found() -> Result<()> {
    const FLIPS: usize = 200;
    let theatre = Theatre::new(Store::Local, &small_sql(), &[])?;
    let objects: Vec<_> = theatre
        .objects
        .iter()
        .filter(|(key, _)| !key.ends_with("manifest.json"))
        .collect();
    let mut struck = BTreeMap::new();
    // Each object in its turn, small as it may be; where in it, chance says.
    for (key, bytes) in objects.iter().cycle().take(FLIPS) {
        let part = part_of(key);
        let at = rand::random_range(0..bytes.len());
        let damaged = flipped(bytes, at);
        theatre.scene.place.put(key, &damaged)?;
        let run = theatre.verify("hashed")?;
        run.expect(6, &[part])
            .with_context(|| format!("{key}: {:#04x} at {at}", damaged[at]))?;
        theatre.scene.place.put(key, bytes)?;
        *struck.entry(part).or_insert(0) += 1;
    }
    ensure!(struck.len() >= 5, "{struck:?}");
    theatre.assert_no_harm()?;
    evidence::note(
        5,
        format!(
            "{FLIPS} flipped bits over the {} objects of a backup, each found and its object named",
            struck.len()
        ),
    );
    Ok(())
}

type Edit<'a> = &'a dyn Fn(&mut Value) -> Result<()>;

fn set(value: &mut Value, pointer: &str, new: impl Into<Value>) -> Result<()> {
    let place = value.pointer_mut(pointer);
    *place.with_context(|| format!("the manifest has {pointer}"))? = new.into();
    Ok(())
}

/// The position of a part in the manifest.
fn position(manifest: &Value, part: &str) -> Result<usize> {
    let parts = manifest["parts"].as_array().context("parts")?;
    let found = parts.iter().position(|record| record["name"] == part);
    found.with_context(|| format!("part {part}"))
}

fn of_rows(manifest: &Value, field: impl Display) -> Result<String> {
    Ok(format!(
        "/parts/{}/{field}",
        position(manifest, "data-rest")?
    ))
}

fn check_manifests(store: Store) -> Result<()> {
    let theatre = Theatre::new(store, &small_sql(), &[])?;
    let right = theatre.manifest()?;
    let twin = theatre.twin.clone();
    let other = "0".repeat(64);
    let rows: [(&str, &str, Edit<'_>); 10] = [
        ("another digest", "data-rest", &|m| {
            let at = of_rows(m, "objects/0/sha256")?;
            set(m, &at, other.as_str())
        }),
        ("another raw length", "data-rest", &|m| {
            let at = of_rows(m, "raw_bytes")?;
            set(m, &at, 5)
        }),
        ("another stored length", "data-rest", &|m| {
            let at = of_rows(m, "objects/0/bytes")?;
            set(m, &at, 5)
        }),
        ("another raw hash", "data-rest", &|m| {
            let at = of_rows(m, "raw_xxh3")?;
            set(m, &at, &other[..32])
        }),
        ("without the rows", "lacks objects", &|m| {
            let at = position(m, "data-rest")?;
            m["parts"].as_array_mut().context("parts")?.remove(at);
            Ok(())
        }),
        ("without facts", "facts", &|m| {
            let at = position(m, "facts")?;
            m["parts"].as_array_mut().context("parts")?.remove(at);
            Ok(())
        }),
        ("with a part twice", "", &|m| {
            let at = position(m, "data-rest")?;
            let parts = m["parts"].as_array_mut().context("parts")?;
            let copy = parts[at].clone();
            parts.insert(at, copy);
            Ok(())
        }),
        ("without encryption", "facts", &|m| {
            m.as_object_mut().context("an object")?.remove("encryption");
            Ok(())
        }),
        ("another compression", "facts", &|m| {
            set(m, "/compression", "none")
        }),
        ("another id", "", &|m| set(m, "/id", twin.as_str())),
    ];
    for (name, word, edit) in rows {
        let mut manifest = right.clone();
        edit(&mut manifest)?;
        theatre.write_manifest(&manifest)?;
        theatre
            .assert_refused(6, word)
            .with_context(|| name.to_owned())?;
    }
    check_broken_manifests(&theatre)?;
    theatre.assert_no_harm()?;
    evidence::note(
        1,
        format!(
            "{} edited or broken manifests in a {}, each refused by verify and by restore --swap",
            theatre.refused.get() / 2,
            place_of(store)
        ),
    );
    Ok(())
}

fn check_broken_manifests(theatre: &Theatre) -> Result<()> {
    for (name, text) in [
        ("empty", ""),
        ("no JSON", "{\"format\": 1"),
        ("zeros", "\0\0\0\0"),
    ] {
        theatre
            .scene
            .place
            .put(theatre.manifest_key()?, text.as_bytes())?;
        theatre
            .assert_refused(6, "manifest")
            .with_context(|| name.to_owned())?;
    }
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_01_an_edited_manifest_of_a_folder_is_found() -> Result<()> {
    check_manifests(Store::Local)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_01_an_edited_manifest_of_a_bucket_is_found() -> Result<()> {
    check_manifests(Store::S3(Kind::SeaweedFs))
}

/// Somebody who can write to the store puts another backup in the place of this one.
fn check_replay(store: Store) -> Result<()> {
    let theatre = Theatre::new(store, &small_sql(), &[])?;
    for with_new_id in [false, true] {
        for (key, _) in &theatre.objects {
            let twin = theatre
                .scene
                .place
                .get(&key.replace(&theatre.victim, &theatre.twin))?;
            theatre.scene.place.put(key, &twin)?;
        }
        if with_new_id {
            let mut manifest = theatre.manifest()?;
            set(&mut manifest, "/id", theatre.victim.as_str())?;
            theatre.write_manifest(&manifest)?;
        }
        let twin = theatre.twin.as_str();
        let check = theatre.assert_refused(6, if with_new_id { twin } else { "" });
        check.with_context(|| format!("with the id corrected: {with_new_id}"))?;
    }
    theatre.assert_no_harm()?;
    evidence::note(
        29,
        format!(
            "another backup in the place of this one in a {}, with its own id and with the right \
             one, each refused by verify and by restore --swap",
            place_of(store)
        ),
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_29_another_backup_in_the_same_folder_is_found() -> Result<()> {
    check_replay(Store::Local)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_29_another_backup_in_the_same_bucket_is_found() -> Result<()> {
    check_replay(Store::S3(Kind::SeaweedFs))
}

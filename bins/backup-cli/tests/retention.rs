//! Retention as a user meets it, as far as that needs no database.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, SystemTime};

use assert_cmd::Command;
use serde_json::Value;

/// A directory of its own with repositories whose backups have one part each.
struct Bench {
    dir: tempfile::TempDir,
}

const DAY: Duration = Duration::from_hours(24);

impl Bench {
    fn new() -> std::io::Result<Self> {
        let dir = tempfile::tempdir()?;
        Ok(Self { dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Backups of a source at these ages in days, at a place; their ids.
    fn backups(&self, place: &str, source: &str, ages: &[u32]) -> std::io::Result<Vec<String>> {
        let root = self.path(place);
        let mut ids = Vec::new();
        for age in ages {
            let time = stamp(*age);
            let id = format!("{time}-00aa");
            let folder = root.join("backups").join(source).join(&id);
            std::fs::create_dir_all(&folder)?;
            let manifest = MANIFEST.replace("SOURCE", source).replace("ID", &id);
            let day = format!("{}-{}-{}", &time[..4], &time[4..6], &time[6..8]);
            let manifest = manifest.replace("DAY", &day);
            std::fs::write(folder.join("manifest.json"), manifest)?;
            std::fs::write(folder.join("data-rest.dump"), "0123456789")?;
            ids.push(id);
        }
        let record = r#"{"format":1,"repository":"r","created_at":"2026-02-05T03:00:00Z"}"#;
        std::fs::write(root.join("repository.json"), record)?;
        Ok(ids)
    }

    fn config(&self, text: &str) -> std::io::Result<String> {
        let path = self.path("backup.toml");
        let text = text.replace("ROOT", &format!("file://{}", self.dir.path().display()));
        std::fs::write(&path, format!("[encryption]\nmode = 'none'\n{text}"))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(path.display().to_string())
    }

    fn run(&self, said: &str) -> std::io::Result<Output> {
        let root = format!("file://{}", self.dir.path().display());
        let said = said.replace("ROOT", &root);
        let mut command = Command::new(env!("CARGO_BIN_EXE_backup-cli"));
        command
            .env_clear()
            .env("HOME", self.dir.path())
            .args(said.split_whitespace())
            .output()
    }

    /// What a run prints as JSON, a value a line.
    fn json(&self, said: &str, code: i32) -> std::io::Result<Vec<Value>> {
        let output = self.run(&format!("{said} --json"))?;
        assert_eq!(
            output.status.code(),
            Some(code),
            "{said}: {}",
            shown(&output)
        );
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect())
    }

    /// The ids that a source has at a place, oldest first.
    fn left(&self, place: &str, source: &str) -> std::io::Result<Vec<String>> {
        let folder = self.path(place).join("backups").join(source);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }
}

/// The time so many days ago as in a name, at noon, so that no midnight comes between.
fn stamp(days_ago: u32) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let today = now.expect("after 1970").as_secs() / DAY.as_secs();
    let day = i64::try_from(today).expect("a day") - i64::from(days_ago) - 1;
    let date = civil(day);
    format!("{:04}{:02}{:02}T120000Z", date.0, date.1, date.2)
}

/// Year, month and day of a day since 1970.
fn civil(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let date = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    (year + era * 400 + i64::from(month <= 2), month, date)
}

const MANIFEST: &str = r#"{"format":1,"id":"ID","source":"SOURCE","database":"d","repository":"r",
"started_at":"DAYT12:00:00Z","finished_at":"DAYT12:00:01Z","server_version":"17.2",
"tool_version":"17.2","filtered":false,"compression":"none","parts":[{"name":"data-rest",
"kind":"data","format":"custom","raw_bytes":10,"raw_xxh3":"00000000000000000000000000000000",
"objects":[{"name":"data-rest.dump","bytes":10,
"sha256":"84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882",
"crc32":"a684c7c6"}]}],"totals":{"tables":0,"rows":0,"large_objects":0,"objects":{},
"raw_bytes":10,"stored_bytes":10},"warnings":0}"#;

fn shown(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn exists(path: &Path) -> bool {
    path.exists()
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_touched() -> std::io::Result<()> {
    let bench = Bench::new()?;
    let ids = bench.backups("one", "shop", &[0, 1, 2, 3, 4, 5])?;
    bench.backups("two", "shop", &[0])?;
    bench.backups("two", "blog", &[0])?;
    let config = bench.config("[source.shop]\n[destination.one]\nurl = 'ROOT/one'\n")?;
    for (said, expected, words) in [
        (
            "prune --from ROOT/one",
            2,
            &["what to keep", "--keep-daily"][..],
        ),
        ("prune --from ROOT/one --min-keep 1", 2, &["not said"]),
        ("prune --from ROOT/one --keep-daily 0", 2, &["unlimited"]),
        (
            "prune --from ROOT/one --keep-last none --yes",
            2,
            &["keeps nothing"],
        ),
        (
            "prune --from ROOT/one --keep-last 1 --timezone Mars/Base",
            2,
            &["no time zone", "Mars/Base"],
        ),
        ("prune --from ROOT/two --keep-last 1", 2, &["2 sources"]),
        ("prune nope --from ROOT/one --keep-last 1", 4, &["nope"]),
        (
            "prune --from ROOT/one --keep-last 1 --min-keep 1",
            12,
            &["5 backups of shop", "nobody confirmed", "--yes"],
        ),
        (
            "prune --config CONFIG",
            2,
            &["shop", "[retention.NAME]", "retention = "],
        ),
        ("simulate", 2, &["no policy", "--retention"]),
        ("simulate --retention nope", 2, &["retention \"nope\""]),
        ("pin nonsense --from ROOT/one", 2, &["nonsense"]),
        (
            "pin latest --from ROOT/one --until 2020-01-01",
            2,
            &["past"],
        ),
        (
            "pin latest --from ROOT/one --until soon",
            2,
            &["2027-01-31"],
        ),
        ("unpin latest --from ROOT/one", 4, &["pin of backup"]),
    ] {
        let output = bench.run(&said.replace("CONFIG", &config))?;
        let text = shown(&output);
        assert_eq!(output.status.code(), Some(expected), "{said}: {text}");
        for word in words {
            assert!(text.contains(word), "{said}: {word}: {text}");
        }
    }
    let mut all = ids;
    all.sort();
    assert_eq!(bench.left("one", "shop")?, all);
    Ok(())
}

#[test]
fn a_dry_run_says_why_and_a_real_one_does_it_and_is_recorded() -> std::io::Result<()> {
    let bench = Bench::new()?;
    let ages: Vec<u32> = (0..40).collect();
    let ids = bench.backups("one", "shop", &ages)?;
    bench.backups("one", "shop-x", &ages)?;
    let policy = "prune shop --from ROOT/one --keep-daily 5 --keep-weekly none \
                  --keep-monthly none --keep-yearly none --min-keep 2";
    let output = bench.run(&format!("{policy} --dry-run"))?;
    let text = shown(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("35 of 40 backups may go (350 B)"), "{text}");
    let line = |id: &str| {
        let line = text.lines().find(|line| line.starts_with(id));
        line.unwrap_or_default().to_owned()
    };
    let day = format!("{}-{}-{}", &ids[1][..4], &ids[1][4..6], &ids[1][6..8]);
    let newest = line(&ids[1]);
    assert!(
        newest.contains(&format!("daily {day}, min_keep")),
        "{newest}"
    );
    assert!(line(&ids[5]).contains("expire"), "{text}");
    assert_eq!(bench.left("one", "shop")?.len(), 40);
    assert!(!exists(&bench.path("one/_runs")), "a dry run left a record");

    let done = bench.json(&format!("{policy} --yes --max-deletions 30"), 3)?;
    let view = &done[0];
    assert_eq!(view["status"], "warnings", "{view}");
    assert_eq!(view["deleted"].as_array().map(Vec::len), Some(30));
    assert_eq!(view["freed_bytes"], 300);
    assert_eq!((&view["kept"], &view["expired"]), (&5.into(), &35.into()));
    let backups = view["backups"].as_array().expect("backups");
    assert_eq!(backups[0]["verdict"], "keep");
    assert_eq!(backups[0]["tiers"], serde_json::json!(["daily"]));
    assert_eq!(backups[39]["reasons"], serde_json::json!([]));
    assert_eq!(bench.left("one", "shop")?.len(), 10);
    let runs = bench.json("runs --operation prune --from ROOT/one", 0)?;
    let run = &runs[0][0];
    assert_eq!(run["id"], view["run_id"]);
    assert_eq!(
        (&run["source"], &run["result"]),
        (&"shop".into(), &"warnings".into())
    );
    assert_eq!(run["prune"]["deleted"], 30);
    assert_eq!(run["prune"]["backups"][0], ids[39]);

    let done = bench.json(&format!("{policy} --yes"), 0)?;
    assert_eq!(done[0]["status"], "success");
    let mut expected = ids[..5].to_vec();
    expected.reverse();
    assert_eq!(bench.left("one", "shop")?, expected);
    assert_eq!(bench.left("one", "shop-x")?.len(), 40);
    Ok(())
}

#[test]
fn a_pin_is_shown_wins_and_its_end_is_recorded() -> std::io::Result<()> {
    let bench = Bench::new()?;
    let ids = bench.backups("one", "shop", &[0, 1, 2, 3, 4])?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_backup-cli"));
    let from = format!("file://{}", bench.path("one").display());
    let pinned = command
        .env_clear()
        .args(["pin", &ids[4], "--from", &from, "--until", "2999-12-31"])
        .args(["--reason", "legal hold 7", "--json"])
        .output()?;
    assert_eq!(pinned.status.code(), Some(0), "{}", shown(&pinned));
    let view: Value = serde_json::from_slice(&pinned.stdout).expect("JSON");
    assert_eq!(view["pin"]["until"], "2999-12-31T23:59:59Z");
    assert_eq!(view["pin"]["reason"], "legal hold 7");
    let key = format!("one/_pins/shop/{}.json", ids[4]);
    assert!(exists(&bench.path(&key)));

    let listed = bench.json("list --from ROOT/one", 0)?;
    let pinned: Vec<_> = listed[0]
        .as_array()
        .expect("an array")
        .iter()
        .map(|view| view["pinned"] == true)
        .collect();
    assert_eq!(pinned, [false, false, false, false, true]);
    let text = shown(&bench.run("list --from ROOT/one")?);
    let kept = text.lines().filter(|line| line.contains("pinned"));
    assert_eq!(kept.count(), 1, "{text}");

    let prune = "prune --from ROOT/one --keep-last 1 --min-keep 1 --yes";
    let text = shown(&bench.run(prune)?);
    let words = "pinned until 2999-12-31T23:59:59Z: legal hold 7";
    assert!(text.contains(words), "{text}");
    assert_eq!(bench.left("one", "shop")?, [&*ids[4], &ids[0]]);
    let unpin = format!("unpin {} --from ROOT/one", ids[4]);
    let text = shown(&bench.run(&unpin)?);
    assert!(text.contains("not pinned"), "{text}");
    assert!(!exists(&bench.path(&key)));
    for operation in ["pin", "unpin"] {
        let said = format!("runs --operation {operation} --from ROOT/one");
        let runs = bench.json(&said, 0)?;
        assert_eq!(runs[0][0]["backup"], ids[4]);
        assert_eq!(runs[0][0]["result"], "success");
    }
    bench.run(prune)?;
    assert_eq!(bench.left("one", "shop")?, ids[..1]);
    Ok(())
}

#[test]
fn policies_come_from_source_destination_and_defaults() -> std::io::Result<()> {
    let bench = Bench::new()?;
    let ages: Vec<u32> = (0..10).collect();
    for (place, source) in [("one", "shop"), ("one", "blog"), ("two", "shop")] {
        bench.backups(place, source, &ages)?;
    }
    let config = bench.config(
        "[defaults]\nretention = 'one'\n[retention.one]\nkeep_last = 1\nmin_keep = 1\n\
         [retention.three]\nkeep_last = 3\nmin_keep = 1\n\
         [retention.days]\nkeep_within = '5d'\nmin_keep = 1\n\
         [source.shop]\nretention = 'three'\n[source.blog]\ndestinations = ['one']\n\
         [source.new]\ndestinations = ['one']\n\
         [destination.one]\nurl = 'ROOT/one'\n\
         [destination.two]\nurl = 'ROOT/two'\nretention = 'days'\n",
    )?;
    let listed = bench.json(&format!("--config {config} list shop"), 0)?;
    let listed = listed[0].as_array().expect("an array");
    assert_eq!(listed.len(), 10);
    assert!(listed.iter().all(|view| view["pinned"] == false));
    let plans = bench.json(&format!("--config {config} prune --dry-run"), 0)?;
    let kept: Vec<_> = plans
        .iter()
        .map(|plan| {
            let text = |field: &str| plan[field].as_str().unwrap_or_default().to_owned();
            (text("source"), text("destination"), plan["kept"].as_u64())
        })
        .collect();
    let row = |source: &str, place: &str, kept| (source.to_owned(), place.to_owned(), Some(kept));
    // A day more or less is the time of day at which this runs.
    assert!(kept[3].2 == Some(4) || kept[3].2 == Some(5), "{kept:?}");
    assert_eq!(
        kept[..3],
        [
            row("blog", "one", 1),
            row("new", "one", 0),
            row("shop", "one", 3)
        ]
    );
    assert_eq!((&*kept[3].0, &*kept[3].1), ("shop", "two"));
    Ok(())
}

#[test]
fn a_clock_that_jumped_deletes_nothing() -> std::io::Result<()> {
    let bench = Bench::new()?;
    let ages: Vec<u32> = (400..410).collect();
    bench.backups("one", "shop", &ages)?;
    let prune = "prune --from ROOT/one --keep-last 1 --min-keep 1 --yes";
    let view = bench.json(prune, 12)?;
    assert_eq!(view[0]["error"]["kind"], "refused", "{view:?}");
    assert_eq!(bench.left("one", "shop")?.len(), 10);
    let runs = bench.json("runs --operation prune --from ROOT/one", 0)?;
    assert_eq!(runs[0][0]["result"], "failed");
    bench.json(&format!("{prune} --clock-is-right"), 0)?;
    assert_eq!(bench.left("one", "shop")?.len(), 1);
    Ok(())
}

#[test]
fn a_policy_is_simulated_by_name_or_as_it_is_said() -> std::io::Result<()> {
    let bench = Bench::new()?;
    let config = bench.config("[retention.standard]\n")?;
    let said = format!("--config {config} simulate --retention standard --years 3");
    let years = bench.json(&said, 0)?;
    let years = years[0].as_array().expect("an array");
    assert_eq!(years.len(), 3);
    for (index, year) in years.iter().enumerate() {
        assert_eq!((&year["daily"], &year["weekly"]), (&4.into(), &4.into()));
        assert_eq!(year["monthly"], 4, "{year}");
        // The year in which it begins, and those in which it goes on.
        let yearly = year["yearly"].as_u64().unwrap_or_default();
        assert!(
            (index as u64 + 1..=index as u64 + 2).contains(&yearly),
            "{year}"
        );
        assert_eq!(year["oldest"], years[0]["oldest"]);
    }
    let text = shown(&bench.run("simulate --keep-within 30d --years 2")?);
    let header = "AFTER";
    assert!(text.starts_with(header) && text.contains("30"), "{text}");
    Ok(())
}

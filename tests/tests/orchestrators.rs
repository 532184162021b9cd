//! What `generate` makes, read and run by those who are to read and run it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::{Cli, Run, Running};
use backup_e2e::pg::Cluster;
use backup_e2e::{binary, compose_reader, kubernetes_validate};
use chrono::{DateTime, Utc};
use serde_json::Value;

/// Names that break what does not quote them.
const HOSTILE: [&str; 6] = [
    "shop",
    "two words",
    "a 'b' \"c\" `d` $(touch pwned) ${HOME} $HOME",
    "%d %% \\% \\\\%n 100%",
    "#x; rm -rf & | < > * ? [a] {b} ~ ! = ,",
    "\u{e9}\u{1f418} -- --all",
];

const SCHEDULES: &str = "
[source.often]
server = 'main'
schedule = '*/20 8-10 * * 1-5'
[source.either]
server = 'main'
schedule = '30 2 1,15 * MON'
timezone = 'Asia/Kathmandu'
[source.yearly]
server = 'main'
schedule = '@yearly'
timezone = 'America/St_Johns'
[prune]
schedule = '0 12 * * 7'
[drill]
schedule = '0 6 1 */3 *'
[verify]
schedule = '0 5 * * *'
";

/// A configuration, and where the files go that are made of it.
struct Stage {
    cli: Cli,
    config: String,
}

impl Stage {
    fn new(server: &str, sources: &str) -> Result<Self> {
        let cli = Cli::without_server()?;
        let text = format!(
            "[encryption]\nmode = 'none'\n[server.main]\n{server}\n\
             [destination.local]\nurl = '{}'\n{sources}",
            cli.local_store()
        );
        let config = cli.private_file("a 'b' %c.toml", &text)?;
        Ok(Self { cli, config })
    }

    /// Sources of hostile names, each at its own minute.
    fn hostile() -> Result<Self> {
        let sources = HOSTILE.iter().enumerate().map(|(minute, name)| {
            format!("[source.{name:?}]\nserver = 'main'\nschedule = '{minute} 3 * * *'\n")
        });
        let sources: String = sources.collect();
        Self::new(
            "password = { env = 'PG_PASSWORD' }",
            &sources.replace("\\u{1f418}", "\u{1f418}"),
        )
    }

    /// One source of a real database.
    fn real(cluster: &Cluster, database: &str) -> Result<Self> {
        let server = format!(
            "host = '{}'\nport = {}\nuser = 'postgres'\nbin_dir = '{}'",
            cluster.host(),
            cluster.port(),
            cluster.bin_dir().display()
        );
        let source = format!("[source.'my shop']\nserver = 'main'\ndatabase = '{database}'\n");
        Self::new(&server, &source)
    }

    fn run(&self, arguments: &[&str]) -> Result<Run> {
        let config = ["--config", &self.config];
        self.cli.run(config.iter().chain(arguments))
    }

    /// Makes the files of one orchestrator, which call the program of that path.
    fn made(&self, orchestrator: &str, program: &str, code: i32) -> Result<PathBuf> {
        let folder = self.cli.folder().join(orchestrator);
        let output = format!("{}/", folder.display());
        let arguments = [
            "generate",
            orchestrator,
            "--program",
            program,
            "--output",
            &output,
        ];
        self.run(&arguments)?.exits(code)?;
        Ok(folder)
    }

    /// A program that writes its arguments into a file, each ended by a zero.
    fn recorder(&self) -> Result<String> {
        let path = self.cli.folder().join("record er");
        let script = format!(
            "#!/bin/sh\nprintf '%s\\0' \"$@\" >> '{}'\n",
            self.cli.folder().join("recorded").display()
        );
        fs::write(&path, script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path.display().to_string())
    }

    /// What it wrote since the last time.
    fn recorded(&self) -> Result<Vec<String>> {
        let path = self.cli.folder().join("recorded");
        let text = fs::read_to_string(&path)?;
        fs::remove_file(path)?;
        Ok(text.split_terminator('\0').map(str::to_owned).collect())
    }

    fn tool(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Result<Run> {
        let mut command = Command::new(program.as_ref());
        command.args(arguments).env_clear().envs(self.cli.env());
        command.current_dir(self.cli.folder());
        Running::start(command)?.wait()
    }

    /// The sources of what is stored.
    fn backups(&self) -> Result<usize> {
        let listed = self.run(&["list", "--json"])?.exits(0)?.json()?;
        Ok(listed.as_array().context("an array")?.len())
    }
}

/// What cron passes to its shell, as its manual says: `%` ends a command, and a backslash before one goes.
fn cron_passes(command: &str) -> String {
    let (mut passed, mut escaped) = (String::new(), false);
    for c in command.chars() {
        match (escaped, c) {
            (true, '%') => {
                passed.pop();
                passed.push(c);
            }
            (false, '%') => break,
            _ => passed.push(c),
        }
        escaped = !escaped && c == '\\';
    }
    passed
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_crontab_calls_the_program_with_each_name_as_it_is() -> Result<()> {
    let stage = Stage::hostile()?;
    let folder = stage.made("cron", &stage.recorder()?, 0)?;
    let text = fs::read_to_string(folder.join("backup.crontab"))?;
    ensure!(text.contains("\nCRON_TZ=UTC\n"), "{text}");
    let lines = text.lines().filter(|line| line.contains(" 3 * * * "));
    let lines: Vec<_> = lines.collect();
    assert_eq!(lines.len(), HOSTILE.len());
    for line in lines {
        let mut fields = line.splitn(6, ' ');
        let minute: usize = fields.next().context("a minute")?.parse()?;
        let command = cron_passes(fields.last().context("a command")?);
        stage.tool("/bin/sh", &["-c", &command])?.exits(0)?;
        let expected = [
            "--config",
            &stage.config,
            "--quiet",
            "backup",
            "--",
            HOSTILE[minute],
        ];
        assert_eq!(stage.recorded()?, expected, "{line}");
    }
    let check = text.lines().last().context("a line")?;
    let command = check.strip_prefix("17 * * * * ").context("hourly")?;
    stage
        .tool("/bin/sh", &["-c", &cron_passes(command)])?
        .exits(0)?;
    assert_eq!(stage.recorded()?, ["--config", &stage.config, "check"]);
    ensure!(!stage.cli.folder().join("pwned").exists(), "a name was run");
    Ok(())
}

/// The units below a folder, by their ends.
fn units(folder: &Path, end: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(end) {
            found.push(path);
        }
    }
    Ok(found)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn systemd_understands_the_units_and_reads_each_name_as_it_is() -> Result<()> {
    let stage = Stage::hostile()?;
    // Variables are not set in units, which is said.
    let folder = stage.made("systemd", "/bin/true", 3)?;
    let all = units(&folder, "")?;
    let mut arguments = vec!["verify", "--man=no"];
    arguments.extend(all.iter().filter_map(|path| path.to_str()));
    let verified = stage.tool("systemd-analyze", &arguments)?.exits(0)?;
    assert_eq!(
        (verified.text(), verified.stderr),
        (String::new(), String::new())
    );
    let mut names = Vec::new();
    for path in units(&folder, ".timer")? {
        let name = path
            .file_name()
            .context("a name")?
            .to_string_lossy()
            .into_owned();
        if let Some(instance) = name.strip_prefix("backup-cli@") {
            let instance = instance.trim_end_matches(".timer");
            let run = stage
                .tool("systemd-escape", &["--unescape", "--", instance])?
                .exits(0)?;
            names.push(run.text().trim_end_matches('\n').to_owned());
        }
    }
    names.sort_unstable();
    let mut expected = HOSTILE;
    expected.sort_unstable();
    assert_eq!(names, expected);
    let service = fs::read_to_string(folder.join("backup-cli@.service"))?;
    // The name comes whole, whatever is in it, and no variable in it is replaced.
    ensure!(
        service.contains("ExecStart=:\"/bin/true\" --config \"%d/backup.toml\" backup -- %I\n"),
        "{service}"
    );
    Ok(())
}

/// When a timer elapses next, by systemd's own reckoning.
fn next_of(stage: &Stage, timer: &Path) -> Result<DateTime<Utc>> {
    let text = fs::read_to_string(timer)?;
    let mut next = Vec::new();
    for line in text
        .lines()
        .filter_map(|line| line.strip_prefix("OnCalendar="))
    {
        let told = stage
            .tool("systemd-analyze", &["calendar", line])?
            .exits(0)?
            .text();
        let field = |name: &str| {
            let line = told.lines().find_map(|line| line.trim().strip_prefix(name));
            line.map(|line| line.trim().to_owned())
        };
        // On a machine whose zone is another, that in UTC has a line of its own.
        let at = field("(in UTC):").or_else(|| field("Next elapse:"));
        let at = at.with_context(|| told.clone())?;
        let (_, at) = at.split_once(' ').context("a day of the week")?;
        let at = at.trim_end_matches(" UTC");
        next.push(chrono::NaiveDateTime::parse_from_str(at, "%Y-%m-%d %H:%M:%S")?.and_utc());
    }
    next.into_iter().min().context("a time")
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn timers_elapse_when_the_schedules_say() -> Result<()> {
    let stage = Stage::new("", SCHEDULES)?;
    let folder = stage.made("systemd", "/bin/true", 0)?;
    let checked = stage
        .run(&["config", "check", "--json"])?
        .exits(0)?
        .json()?;
    let schedules = checked["schedules"].as_array().context("schedules")?;
    assert_eq!(schedules.len(), 6, "{checked}");
    for schedule in schedules {
        let timer = match schedule["source"].as_str() {
            Some(source) => format!("backup-cli@{source}.timer"),
            None => format!(
                "backup-cli-{}.timer",
                schedule["operation"].as_str().context("what")?
            ),
        };
        let expected: DateTime<Utc> = serde_json::from_value(schedule["next"][0]["utc"].clone())?;
        assert_eq!(next_of(&stage, &folder.join(&timer))?, expected, "{timer}");
    }
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn kubernetes_takes_the_manifests_and_each_name_as_it_is() -> Result<()> {
    let stage = Stage::hostile()?;
    // A destination in a directory wants a volume, which is said.
    let file = stage
        .made("kubernetes", "backup-cli", 3)?
        .join("backup.yaml");
    let file = file.display().to_string();
    let validator = kubernetes_validate()?;
    let validated = stage.tool(&validator, &["--strict", &file])?.exits(0)?;
    let said = validated.text() + &validated.stderr;
    let passed = said
        .lines()
        .filter(|line| line.contains(" passed for resource "))
        .count();
    assert_eq!(passed, HOSTILE.len() + 2, "{said}");
    let script =
        "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let library = validator.parent().context("a folder")?.join("lib");
    let mut command = Command::new("python3");
    command
        .args(["-c", script, &file])
        .env("PYTHONPATH", library);
    let read = Running::start(command)?.wait()?.exits(0)?.json()?;
    let mut names = Vec::new();
    for job in read
        .as_array()
        .context("documents")?
        .iter()
        .filter(|one| one["kind"] == "CronJob")
    {
        let pod = &job["spec"]["jobTemplate"]["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
        let secret = &container["env"][2]["valueFrom"]["secretKeyRef"];
        assert_eq!(secret["key"], "PG_PASSWORD");
        let arguments = container["args"].as_array().context("arguments")?;
        assert_eq!(
            arguments[..5],
            ["backup-cli", "--log-format", "json", "backup", "--"].map(Value::from)
        );
        // The two signs are one again when variables are filled in, and none is filled in.
        let name = arguments[5].as_str().context("a name")?.replace("$$", "$");
        assert_eq!(job["metadata"]["annotations"]["backup/source"], *name);
        names.push(name);
    }
    names.sort_unstable();
    let mut expected = HOSTILE;
    expected.sort_unstable();
    assert_eq!(names, expected);
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn the_compose_reader_takes_the_file() -> Result<()> {
    let stage = Stage::hostile()?;
    let file = stage.made("compose", "backup-cli", 3)?.join("compose.yaml");
    let file = file.display().to_string();
    let read = stage.tool(
        compose_reader()?,
        &["-no-interpolation", "-format", "json", &file],
    )?;
    let read = read.exits(0)?.json()?;
    let service = &read["services"]["backup"];
    assert_eq!(service["read_only"], true);
    assert_eq!(service["cap_drop"][0], "ALL");
    assert_eq!(service["ports"][0]["host_ip"], "127.0.0.1");
    let password = service["environment"]["PG_PASSWORD"].as_str();
    assert_eq!(password, Some("${PG_PASSWORD:?say it in .env}"));
    assert_eq!(read["configs"]["backup"]["file"], *stage.config);
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn python_reads_each_name_as_it_is() -> Result<()> {
    let stage = Stage::hostile()?;
    let file = stage
        .made("airflow", "backup-cli", 0)?
        .join("backup_dags.py");
    let script = "import ast, json, sys
tree = ast.parse(open(sys.argv[1], encoding='utf-8').read())
values = {n.targets[0].id: n.value for n in tree.body if isinstance(n, ast.Assign)}
print(json.dumps([ast.literal_eval(values[name]) for name in ('CONFIG', 'ROUNDS')]))";
    let file = file.display().to_string();
    let read = stage
        .tool("python3", &["-c", script, &file])?
        .exits(0)?
        .json()?;
    assert_eq!(read[0], *stage.config);
    let rounds = read[1].as_array().context("rounds")?;
    let mut names: Vec<_> = rounds
        .iter()
        .filter_map(|round| round[3][0].as_str())
        .collect();
    names.sort_unstable();
    let mut expected = HOSTILE;
    expected.sort_unstable();
    assert_eq!(names, expected);
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn the_makefile_backs_up_lists_verifies_checks_and_restores() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let database = cluster.fresh_db("make")?;
    let schema = "odd 'schema' $x";
    let sql = format!(
        "CREATE SCHEMA \"{schema}\"; CREATE TABLE \"{schema}\".t AS SELECT generate_series(1, 7) AS n; \
         CREATE TABLE other AS SELECT 1 AS n"
    );
    cluster.psql(&database, &sql)?;
    let stage = Stage::real(cluster, &database)?;
    let program = binary("backup-cli")?.display().to_string();
    let folder = stage.made("makefile", &program, 0)?;
    let folder = folder.display().to_string();
    let make = |words: &[&str]| {
        let fixed = ["--no-print-directory", "-C", &folder];
        let arguments: Vec<_> = fixed.iter().chain(words).copied().collect();
        stage.tool("make", &arguments)
    };
    make(&["backup"])?.exits(0)?;
    assert_eq!(stage.backups()?, 1);
    let listed = make(&["list"])?.exits(0)?.text();
    ensure!(listed.contains("my shop"), "{listed}");
    make(&["verify"])?.exits(0)?;
    make(&["check"])?.exits(0)?;
    make(&["restore"])?.exits(2)?;
    let target = format!("{database} 'restored' $y");
    let schema_said = format!("SCHEMA={}", schema.replace('$', "$$"));
    let target_said = format!("TARGET={}", target.replace('$', "$$"));
    make(&["restore", &schema_said, "FILE=latest", &target_said])?.exits(0)?;
    let sql = format!("SELECT count(*), to_regclass('public.other') IS NULL FROM \"{schema}\".t");
    assert_eq!(cluster.query(&target, &sql)?.trim(), "7|t");
    // What a database without a backup ends with, make ends with too.
    cluster.drop_db(&database)?;
    let failed = make(&["backup"])?;
    ensure!(failed.code != Some(0), "a lie: {}", failed.text());
    cluster.drop_db(&target)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn teamcity_is_told_progress_numbers_and_problems() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let database = cluster.fresh_db("teamcity")?;
    cluster.psql(
        &database,
        "CREATE TABLE t AS SELECT generate_series(1, 7) AS n",
    )?;
    let stage = Stage::real(cluster, &database)?;
    let program = binary("backup-cli")?.display().to_string();
    let script = stage
        .made("teamcity", &program, 0)?
        .join("backup_restore.sh");
    ensure!(
        fs::metadata(&script)?.permissions().mode() & 0o111 == 0o111,
        "no program"
    );
    let run = |words: &[&str]| stage.tool(&script, words);
    let text = run(&["backup"])?.exits(0)?.text();
    let messages: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("##teamcity["))
        .collect();
    assert_eq!(
        messages[0], "##teamcity[progressMessage 'backup my shop']",
        "{text}"
    );
    let statistics = ["duration_seconds", "raw_bytes", "stored_bytes", "rows"];
    assert_eq!(messages.len(), 1 + statistics.len(), "{text}");
    for (message, key) in messages[1..].iter().zip(statistics) {
        let begin = format!("##teamcity[buildStatisticValue key='backup.my shop.{key}' value='");
        let value = message
            .strip_prefix(&begin)
            .and_then(|rest| rest.strip_suffix("']"));
        let value: f64 = value.with_context(|| (*message).to_owned())?.parse()?;
        ensure!(value > 0.0, "{message}");
    }
    ensure!(
        messages.contains(&"##teamcity[buildStatisticValue key='backup.my shop.rows' value='7']"),
        "{text}"
    );
    run(&["verify"])?.exits(0)?;
    let listed = run(&["list", "my shop"])?.exits(0)?.text();
    ensure!(listed.contains("my shop"), "{listed}");
    let target = format!("{database} restored");
    run(&["restore", "latest", &target, "my shop"])?.exits(0)?;
    assert_eq!(
        cluster.query(&target, "SELECT count(*) FROM t")?.trim(),
        "7"
    );
    cluster.drop_db(&target)?;

    cluster.drop_db(&database)?;
    let failed = run(&["backup", "my shop"])?;
    ensure!(failed.code != Some(0), "a lie: {}", failed.text());
    let text = failed.text();
    let problem = text
        .lines()
        .find(|line| line.starts_with("##teamcity[buildProblem description='"));
    let problem = problem.with_context(|| text.clone())?;
    ensure!(
        problem.contains("backup of my shop: ") && problem.ends_with("']"),
        "{problem}"
    );
    run(&["restore", "latest"])?.exits(2)?;
    // A result in JSON is one line of JSON and nothing else.
    stage
        .run(&["--log-format", "teamcity", "list", "--json"])?
        .exits(2)
        .map(drop)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn what_is_there_is_written_over_only_when_told_so() -> Result<()> {
    let stage = Stage::hostile()?;
    let file = stage.cli.folder().join("Makefile.mine");
    let path = file.display().to_string();
    fs::write(&file, "mine")?;
    let arguments = ["generate", "makefile", "--output", &path];
    let refused = stage.run(&arguments)?.exits(2)?;
    ensure!(
        refused
            .stderr
            .contains("is there already, and nothing was written"),
        "{}",
        refused.stderr
    );
    assert_eq!(fs::read_to_string(&file)?, "mine");
    let forced: Vec<_> = arguments.iter().copied().chain(["--force"]).collect();
    stage.run(&forced)?.exits(0)?;
    let printed = stage.run(&["generate", "makefile"])?.exits(0)?.text();
    assert_eq!(fs::read_to_string(&file)?, printed);
    Ok(())
}

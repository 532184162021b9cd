//! The configuration as a user meets it: what is wrong with it, what is in force, a first one.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;

type Tested = Result<(), Box<dyn std::error::Error>>;

fn run(
    home: &Path,
    variables: &[(&str, &str)],
    arguments: &[&str],
) -> std::io::Result<(Option<i32>, String, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backup-cli"));
    let command = command.env_clear().env("HOME", home).current_dir(home);
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .envs(variables.iter().copied())
        .args(arguments)
        .output()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((status.code(), text(stdout), text(stderr)))
}

fn write(home: &Path, toml: &str) -> std::io::Result<PathBuf> {
    let path = home.join("backup.toml");
    std::fs::write(&path, toml)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(path)
}

/// What stands in the file, and what follows the file's name in the message.
const WRONG: &[(&str, &str)] = &[
    (
        "[destination.a]\nurl = 's3://b'\nendpoint = 'http://u:hunter2@h'",
        "destination.a.endpoint: a URL holds no login",
    ),
    (
        "[defaults]\nlease = '4s'",
        "defaults.lease: must be between 5s and 1h",
    ),
    (
        "[defaults]\njobs = 'many'",
        "defaults.jobs: expected a whole number",
    ),
    (
        "[defaults]\njobs = -1",
        "defaults.jobs: expected a whole number",
    ),
    ("[defaults]\njobs = 0", "defaults.jobs: must be at least 1"),
    (
        "[defaults]\ntimeout = 30",
        "defaults.timeout: expected a duration such as \"90s\", \"6h\" or \"30d\"",
    ),
    (
        "[defaults]\nstall_timeout = '999999999999999999999y'",
        "defaults.stall_timeout: expected a duration such as",
    ),
    (
        "[defaults]\njbos = 2",
        "unknown key \"jbos\" in defaults\nhint: did you mean \"jobs\"?",
    ),
    (
        "[defaults]\nzzzzzzzz = 2",
        "unknown key \"zzzzzzzz\" in defaults; expected one of compression,",
    ),
    ("[defaults]\ncompression = 'zip'", "defaults.compression: "),
    (
        "[source.a]\ndatabase = 'postgresql://u:hunter2@h/shop'",
        "source.a.database: a connection string with a password; allowed is the name of a database",
    ),
    (
        "[source.a]\ncompression = 'zstd:99'",
        "source.a.compression: level `99` is not possible",
    ),
    ("[source.a]\njobs = 0", "source.a.jobs: must be at least 1"),
    (
        "[source.a]\nlease = '2h'",
        "source.a.lease: must be between 5s and 1h",
    ),
    (
        "[source.a]\ntimeout = 'long'",
        "source.a.timeout: expected a duration such as",
    ),
    (
        "[source.a]\nstall_timeout = 5",
        "source.a.stall_timeout: expected a duration such as",
    ),
    (
        "[source.a]\nlock_wait_timeout = true",
        "source.a.lock_wait_timeout: expected a duration such as",
    ),
    (
        "[defaults]\nmin_free_space = 10",
        "defaults.min_free_space: expected a size such as \"500MB\", \"10GB\" or \"10GiB\"",
    ),
    (
        "[source.a]\nmin_free_space = '10 apples'",
        "source.a.min_free_space: expected a size such as",
    ),
    (
        "[defaults]\nmin_free_space = '-1GB'",
        "defaults.min_free_space: expected a size such as",
    ),
    (
        "[defaults]\nwarn_used_percent = 300",
        "defaults.warn_used_percent: expected a whole number from 0 to 255",
    ),
    ("[defaults]\nretry = 3", "defaults.retry: expected a table"),
    (
        "[defaults]\nretry = { attempts = 0 }",
        "defaults.retry.attempts: must be at least 1",
    ),
    (
        "[source.a]\nretry = { attempts = 0 }",
        "source.a.retry.attempts: must be at least 1",
    ),
    (
        "[defaults]\nretry = { attempts = -1 }",
        "defaults.retry.attempts: expected a whole number from 1",
    ),
    (
        "[defaults]\nretry = { delays = '5s' }",
        "defaults.retry.delays: expected an array",
    ),
    (
        "[defaults]\nretry = { delays = ['5s', 'soon'] }",
        "defaults.retry.delays.1: expected a duration such as",
    ),
    (
        "[defaults]\nretry = { delay = ['5s'] }",
        "unknown key \"delay\" in defaults.retry\nhint: did you mean \"delays\"?",
    ),
    (
        "[source.a]\nencryption = { mode = 'none', recipients = ['age1x'] }",
        "source.a.encryption: it has recipients and mode \"none\"",
    ),
    (
        "[source.a]\nencryption = { recipients = ['age1no'] }",
        "source.a.encryption.recipients: ",
    ),
    (
        "[source.a]\nencryption = 'none'",
        "source.a.encryption: expected a table",
    ),
    (
        "[hooks]\nbefore_backup = ['/bin/true']",
        "hooks.before_backup.0: expected an array",
    ),
    (
        "[hooks]\nbefore_backup = '/bin/true'",
        "hooks.before_backup: expected an array",
    ),
    (
        "[hooks]\nafter_backup = [['/bin/true'], ['true']]",
        "hooks.after_backup.1: must begin with the absolute path of a program",
    ),
    (
        "[hooks]\non_failure = [[]]",
        "hooks.on_failure.0: must begin with the absolute path of a program",
    ),
    (
        "[hooks]\nbefore_backup = [['/bin/true', \"a\\u0000b\"]]",
        "hooks.before_backup.0: holds a NUL",
    ),
    (
        "[hooks]\ntimeout = '0s'",
        "hooks.timeout: must be longer than nothing",
    ),
    (
        "[source.a.hooks]\nbefore_backup = [['x']]",
        "source.a.hooks.before_backup.0: must begin with the absolute path",
    ),
    (
        "[hooks]\nbefore = []",
        "unknown key \"before\" in hooks; expected one of before_backup,",
    ),
    (
        "[source.a]\ndestinations = 'x'",
        "source.a.destinations: expected an array",
    ),
    (
        "[source.a]\nserver = 'x'",
        "source.a.server: server \"x\" is not configured",
    ),
    (
        "[server.a]\nport = 99999",
        "server.a.port: expected a whole number from 0 to 65535",
    ),
    (
        "[server.a]\nproduction = 'yes'",
        "server.a.production: expected true or false",
    ),
    (
        "[server.a]\nhost = 5",
        "server.a.host: expected text in quotes",
    ),
    ("[server.a]\nadmin = {}", "server.a.admin: user is missing"),
    ("server = 5", "server: expected a table"),
    (
        "[server.a]\npassword = 'hunter2'",
        "server.a.password: expected { file = \"…\" }, { env = \"…\" }, { command = [\"…\"] } or",
    ),
    (
        "[server.a]\npassword = { file = 'x', env = 'Y' }",
        "server.a.password: expected one place: { file",
    ),
    (
        "[server.a]\npassword = {}",
        "server.a.password: expected one place: { file",
    ),
    (
        "[server.a]\npassword = { command = 'pass show \"a b\"' }",
        "server.a.password.command: expected an array, such as",
    ),
    (
        "[server.a]\npassword = { command = 7 }",
        "server.a.password.command: expected an array of a program",
    ),
    (
        "[encryption]\nmode = 'gpg'",
        "encryption.mode: expected one of age, none",
    ),
    (
        "[encryption]\nrecipients = ['age1no']",
        "encryption.recipients: ",
    ),
    (
        "[encryption]\nrecipients = [5]",
        "encryption.recipients.0: expected text in quotes",
    ),
    (
        "[destination.a]\ntiers = 'weekly'",
        "destination.a.tiers: expected an array",
    ),
    (
        "[destination.a]\ntiers = ['hourly']",
        "destination.a.tiers.0: expected one of daily, weekly, monthly, yearly",
    ),
    (
        "[destination.a]\nurl = 'file:///a'\ntiers = ['weekly']\n[source.s]\ndestinations = ['a']",
        "source.s.destinations: one without tiers is needed, which gets every backup",
    ),
    (
        "[destination.a]\nregion = 'x'",
        "destination.a.url: the store is neither a URL nor",
    ),
    (
        "[destination.a]\nurl = 'ftp://x'",
        "destination.a.url: there are no stores at ftp:// URLs",
    ),
    (
        "[destination.a]\nurl = 's3://u:hunter2@h/b'",
        "destination.a.url: a URL holds no login",
    ),
    (
        "[retention.a]\ndaily = 0",
        "retention.a.daily: expected a number from 1, \"none\" or \"unlimited\"",
    ),
    (
        "[retention.a]\nmin_keep = 0",
        "retention.a.min_keep: expected a whole number from 1",
    ),
    (
        "[retention.a]\ntimezone = 'x/y'",
        "retention.a.timezone: there is no such time zone; say",
    ),
    (
        "[retention.a]\nkeep_within = '0s'",
        "retention.a: keep_within is no time at all",
    ),
    (
        "[server_http]\nlisten = '0.0.0.0:8000'",
        "server_http.listen: others can reach this address",
    ),
    (
        "[server_http]\nlisten = '[::]:8000'",
        "server_http.listen: others can reach this address",
    ),
    (
        "[server_http]\ntls_cert = '/c'",
        "server_http.tls_cert: needs a tls_key beside it",
    ),
    (
        "[server_http]\ntls_key = '/c'",
        "server_http.tls_key: needs a tls_cert beside it",
    ),
    (
        "[[access]]\nname = 'a'\ntoken_sha256 = 'hunter2'\nrole = 'viewer'\nsources = ['*']",
        "access.0.token_sha256: expected 64 hexadecimal digits",
    ),
    (
        "[[access]]\nname = 'schedule'\ntoken_sha256 = 'x'\nrole = 'admin'\nsources = ['*']",
        "access.0.name: is what schedules are called",
    ),
    (
        "[[access]]\nname = 'a'\ntoken_sha256 = 'x'\nrole = 'root'\nsources = ['*']",
        "access.0.role: expected one of viewer, restorer, operator, admin",
    ),
    (
        "[[access]]\nname = 'a'\ntoken_sha256 = 'x'\nrole = 'viewer'",
        "access.0: sources is missing",
    ),
    (
        "[source.a]\nschedule = 'hunter2'",
        "source.a.schedule: expected five fields (minute, hour, day of the month, month",
    ),
    (
        "[source.a]\nschedule = '0 25 * * *'",
        "source.a.schedule: the hour is wrong: allowed are 0-23, with",
    ),
    (
        "[source.a]\nschedule = '0 0 30 2 *'",
        "source.a.schedule: that day never comes",
    ),
    (
        "[source.a]\ntimezone = 'x/y'",
        "source.a.timezone: there is no such time zone; say one like UTC or Europe/Berlin",
    ),
    (
        "[source.a]\ntolerance = '10s'",
        "source.a.tolerance: must be between 1m and 1d",
    ),
    (
        "[source.a]\ncatch_up = '32d'",
        "source.a.catch_up: must be at most 31d",
    ),
    (
        "[defaults]\njitter = '25h'",
        "defaults.jitter: must be at most 1d",
    ),
    (
        "[defaults]\ntimezone = 'x/y'",
        "defaults.timezone: there is no such time zone",
    ),
    (
        "[drill]\nschedule = '* * *'",
        "drill.schedule: expected five fields",
    ),
    (
        "[verify]\nschedule = '@reboot'",
        "verify.schedule: expected five fields",
    ),
    (
        "[prune]\ntimezone = 'CETT'",
        "prune.timezone: there is no such time zone",
    ),
    (
        "[prune]\nshedule = '@daily'",
        "unknown key \"shedule\" in prune\nhint: did you mean \"schedule\"?",
    ),
    (
        "[drill]\nassertions = [{ source = 'a' }]",
        "drill.assertions.0: sql is missing",
    ),
    (
        "[defaults]\njobs = 99999999999999999999999",
        "TOML parse error at line 2",
    ),
    ("[defaults\n", "TOML parse error at line 1"),
    (
        "[defaults]\njobs = 1\njobs = 2",
        "TOML parse error at line 3, column 1: duplicate key",
    ),
];

#[test]
fn a_wrong_value_is_named_with_its_file_its_key_and_what_is_allowed() -> Tested {
    let home = tempfile::tempdir()?;
    for (toml, says) in WRONG {
        let path = write(home.path(), toml)?;
        let name = path.to_string_lossy();
        let (code, out, err) = run(home.path(), &[], &["--config", &name, "config", "show"])?;
        let expected = format!("error: configuration: {name}: {says}");
        assert!(err.starts_with(&expected), "{toml}\n{err}\n{expected}");
        assert_eq!((code, out.as_str()), (Some(2), ""), "{toml}");
        assert!(!err.contains("hunter2"), "{err}");
    }
    Ok(())
}

#[test]
fn a_wrong_variable_is_named_by_its_name() -> Tested {
    let home = tempfile::tempdir()?;
    let path = write(
        home.path(),
        "[encryption]\nmode = 'none'\n[server.a]\npassword = { file = '/p' }\n",
    )?;
    let name = path.to_string_lossy();
    for (variable, value, says) in [
        (
            "BACKUP_DEFAULTS__JOBS",
            "x",
            "BACKUP_DEFAULTS__JOBS: defaults.jobs: expected a whole",
        ),
        (
            "BACKUP_DEFAULTS__JOBS",
            "0",
            "BACKUP_DEFAULTS__JOBS: defaults.jobs: must be at least 1",
        ),
        (
            "BACKUP_DEFAUTS__JOBS",
            "1",
            "BACKUP_DEFAUTS__JOBS: unknown key \"defauts\"\nhint: did",
        ),
        (
            "BACKUP_DEFAULTS__COMPRESSION",
            "zip",
            "BACKUP_DEFAULTS__COMPRESSION: defaults.compr",
        ),
        (
            "BACKUP_SERVER__A__PASSWORD",
            "hunter2",
            "BACKUP_SERVER__A__PASSWORD: server.a.password: expected { file",
        ),
        (
            "BACKUP_SERVER__A__PASSWORD__ENV",
            "PW",
            "FILE and BACKUP_SERVER__A__PASSWORD__ENV: server.a.password: expected one place",
        ),
        (
            "BACKUP_ENCRYPTION__RECIPIENTS",
            "[age1x]",
            "FILE and BACKUP_ENCRYPTION__RECIPIENTS: encryption: it has recipients and mode",
        ),
    ] {
        let arguments = ["--config", &name, "config", "check"];
        let (code, _, err) = run(home.path(), &[(variable, value)], &arguments)?;
        let says = format!("error: configuration: {}", says.replace("FILE", &name));
        assert!(err.starts_with(&says), "{variable}={value}\n{err}\n{says}");
        assert_eq!(code, Some(2), "{variable}");
        assert!(!err.contains("hunter2"), "{err}");
    }
    Ok(())
}

#[test]
fn what_is_in_force_is_shown_with_where_it_comes_from() -> Tested {
    let home = tempfile::tempdir()?;
    let toml = "[defaults]\njobs = 2\n[server.m]\npassword = { command = ['vault', 'hunter2'] }\n";
    let path = write(home.path(), toml)?;
    let name = path.to_string_lossy();
    let variables = [("BACKUP_DEFAULTS__TIMEOUT", "2h")];
    let arguments = ["--config", &name, "config", "show", "--origin"];
    let (code, out, err) = run(home.path(), &variables, &arguments)?;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let lines: Vec<_> = out.lines().collect();
    for line in [
        format!("defaults.jobs = 2    # {name}").as_str(),
        "defaults.timeout = \"2h\"    # BACKUP_DEFAULTS__TIMEOUT",
        "defaults.compression = \"zstd:2\"    # default",
        format!("server.m.password = \"command vault\"    # {name}").as_str(),
    ] {
        assert!(lines.contains(&line), "{line}\n{out}");
    }
    assert!(!out.contains("hunter2"), "{out}");
    let (_, out, _) = run(
        home.path(),
        &variables,
        &[&arguments[..], &["--json"]].concat(),
    )?;
    let values: serde_json::Value = serde_json::from_str(&out)?;
    for expected in [
        serde_json::json!({"key": "defaults.jobs", "value": 2,
            "origin": {"kind": "file", "name": name}}),
        serde_json::json!({"key": "defaults.timeout", "value": "2h",
            "origin": {"kind": "variable", "name": "BACKUP_DEFAULTS__TIMEOUT"}}),
        serde_json::json!({"key": "defaults.compression", "value": "zstd:2",
            "origin": {"kind": "default"}}),
    ] {
        let list = values.as_array().ok_or("no array")?;
        assert!(list.contains(&expected), "{expected}\n{out}");
    }
    Ok(())
}

#[test]
fn a_first_configuration_is_private_loads_and_is_never_written_over() -> Tested {
    let home = tempfile::tempdir()?;
    let (code, out, err) = run(home.path(), &[], &["init", "new dir"])?;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let config = home.path().join("new dir/backup.toml");
    let identity = home.path().join("new dir/identity.txt");
    let mut texts = Vec::new();
    for path in [&config, &identity] {
        let mode = std::fs::metadata(path)?.permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
        texts.push(std::fs::read_to_string(path)?);
    }
    let key = texts[1]
        .lines()
        .find(|line| line.starts_with("AGE-SECRET-KEY-1"));
    let recipient = texts[1]
        .split("# public key: ")
        .nth(1)
        .and_then(|rest| rest.lines().next());
    let (key, recipient) = (key.ok_or("no key")?, recipient.ok_or("no recipient")?);
    assert!(texts[0].contains(recipient) && !texts[0].contains(key));
    assert!(!out.contains(key), "the private key is printed");
    let command = format!("  backup-cli --config '{}' ", config.display());
    for says in [
        &format!("public key:    {recipient}"),
        "nobody can restore them without it",
        &format!("{command}config check\n{command}doctor\n{command}backup --all\n"),
        &format!("{command}drill --all -i '"),
    ] {
        assert!(out.contains(says), "{says}\n{out}");
    }
    let name = config.to_string_lossy();
    let (code, out, _) = run(home.path(), &[], &["--config", &name, "config", "check"])?;
    assert_eq!(
        (code, out.as_str()),
        (Some(0), "ok: 0 sources, 0 servers, 0 destinations\n")
    );

    // Whichever of the two is there, nothing is written.
    for gone in [None, Some(&config)] {
        if let Some(gone) = gone {
            std::fs::remove_file(gone)?;
        }
        let (code, _, err) = run(home.path(), &[], &["init", "new dir"])?;
        assert_eq!(code, Some(2), "{err}");
        assert!(
            err.contains("is there already, and nothing was written"),
            "{err}"
        );
        assert_eq!(std::fs::read_to_string(&identity)?, texts[1]);
        assert_eq!(config.exists(), gone.is_none());
    }
    Ok(())
}

#[test]
fn a_check_shows_when_things_run_next() -> Tested {
    let home = tempfile::tempdir()?;
    let toml = "
        [encryption]
        mode = 'none'
        [source.shop]
        server = 'main'
        destinations = ['local']
        schedule = '0 3 * * *'
        timezone = 'Asia/Kathmandu'
        [source.idle]
        server = 'main'
        destinations = ['local']
        [server.main]
        host = '/nowhere'
        [destination.local]
        url = 'file:///var/lib/backups'
        [drill]
        schedule = '@weekly'";
    let path = write(home.path(), toml)?;
    let name = path.to_string_lossy();
    let arguments = ["--config", &name, "config", "check"];
    let (code, out, err) = run(home.path(), &[], &[&arguments[..], &["--json"]].concat())?;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let found: serde_json::Value = serde_json::from_str(&out)?;
    assert_eq!(found["unscheduled"], serde_json::json!(["idle"]));
    let [shop, drill] = found["schedules"].as_array().ok_or("no array")?.as_slice() else {
        return Err(format!("two schedules are expected\n{out}").into());
    };
    assert_eq!(shop["operation"], "backup");
    assert_eq!(shop["source"], "shop");
    assert_eq!(shop["schedule"], "0 3 * * *");
    assert_eq!(shop["description"], "At 03:00");
    assert_eq!(shop["timezone"], "Asia/Kathmandu");
    assert_eq!(shop["catch_up_seconds"], 7200);
    let next = shop["next"].as_array().ok_or("no array")?;
    assert_eq!(next.len(), 3);
    for run in next {
        let (local, utc) = (run["local"].as_str(), run["utc"].as_str());
        assert!(local.is_some_and(|at| at.ends_with("T03:00:00+05:45")));
        assert!(utc.is_some_and(|at| at.ends_with("T21:15:00Z")));
    }
    assert_eq!(drill["operation"], "drill");
    assert_eq!(drill["source"], serde_json::Value::Null);
    assert_eq!(drill["timezone"], "UTC");

    let (code, out, err) = run(home.path(), &[], &arguments)?;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[0], "ok: 2 sources, 1 server, 1 destination");
    assert!(
        lines[2].starts_with("RUN     SOURCE  SCHEDULE   TIME ZONE"),
        "{out}"
    );
    assert!(
        lines[3].starts_with("backup  shop    0 3 * * *  Asia/Kathmandu  "),
        "{out}"
    );
    assert!(lines[4].trim_start().ends_with("T21:15:00Z"), "{out}");
    assert_eq!(lines.last(), Some(&"without a schedule: idle"));
    Ok(())
}

#[test]
fn the_schema_is_printed_even_where_the_file_is_wrong() -> Tested {
    let home = tempfile::tempdir()?;
    let path = write(home.path(), "[defaults]\njobs = 0")?;
    let name = path.to_string_lossy();
    let (code, out, err) = run(home.path(), &[], &["--config", &name, "config", "schema"])?;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let schema: serde_json::Value = serde_json::from_str(&out)?;
    assert_eq!(
        schema["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
    let jobs = &schema["$defs"]["DefaultsConfig"]["properties"]["jobs"];
    assert_eq!(jobs["description"], "Parts at the same time.");
    assert_eq!((&jobs["minimum"], &jobs["default"]), (&1.into(), &4.into()));
    Ok(())
}

#[test]
fn a_token_is_printed_once_and_its_hash_loads() -> Tested {
    let home = tempfile::tempdir()?;
    let arguments = [
        "token",
        "night \"shift\"",
        "--role",
        "operator",
        "--source",
        "app-*",
    ];
    let (code, out, _) = run(home.path(), &[], &arguments)?;
    assert_eq!(code, Some(0));
    let (token, toml) = out.split_once("\n\n").ok_or("no configuration")?;
    assert!(
        token.starts_with("backup_token_") && token.len() == 77,
        "{token}"
    );
    assert!(!toml.contains(token), "{toml}");
    let path = write(home.path(), toml)?;
    let name = path.to_string_lossy();
    let shown = ["--config", &name, "config", "show", "--json"];
    let (code, out, err) = run(home.path(), &[], &shown)?;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let config: serde_json::Value = serde_json::from_str(&out)?;
    let entry = &config["access"][0];
    assert_eq!(entry["name"], "night \"shift\"");
    assert_eq!(entry["role"], "operator");
    assert_eq!(entry["sources"], serde_json::json!(["app-*"]));

    let (_, out, _) = run(home.path(), &[], &[&arguments[..], &["--json"]].concat())?;
    let other: serde_json::Value = serde_json::from_str(&out)?;
    assert_ne!(other["token"], token);
    assert_ne!(other["token_sha256"], entry["token_sha256"]);
    for wrong in [
        &["token", "a"][..],
        &["token", "a", "--role", "root"],
        &["token", " ", "--role", "viewer"],
    ] {
        assert_eq!(run(home.path(), &[], wrong)?.0, Some(2), "{wrong:?}");
    }
    Ok(())
}

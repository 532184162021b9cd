use proptest::prelude::*;

use super::*;

fn source(name: &str, expression: &str) -> PlannedSource {
    PlannedSource {
        name: name.to_owned(),
        when: Some(When {
            expression: expression.to_owned(),
            zone: "Europe/Berlin".to_owned(),
            catches_up: true,
            jitter_seconds: 60,
        }),
        timeout_seconds: 3600,
    }
}

fn plan(sources: Vec<PlannedSource>) -> Plan {
    Plan {
        program: "/usr/local/bin/backup-cli".to_owned(),
        config: Some("/etc/backup/backup.toml".to_owned()),
        image: "backup:1".to_owned(),
        sources,
        is_reachable: true,
        ..Plan::default()
    }
}

const ALL: [Orchestrator; 7] = [
    Orchestrator::Cron,
    Orchestrator::Systemd,
    Orchestrator::Teamcity,
    Orchestrator::Airflow,
    Orchestrator::Kubernetes,
    Orchestrator::Compose,
    Orchestrator::Makefile,
];

/// What `sh` makes of one word of ours.
fn unquoted(word: &str) -> String {
    let mut text = String::new();
    let mut quoted = false;
    let mut chars = word.chars();
    while let Some(c) = chars.next() {
        match (c, quoted) {
            ('\'', _) => quoted = !quoted,
            ('\\', false) => text.extend(chars.next()),
            (c, _) => text.push(c),
        }
    }
    assert!(!quoted, "{word}");
    text
}

/// What cron passes to the shell: the command up to a bare `%`.
fn cron_reads(line: &str) -> String {
    let (mut command, mut escaped) = (String::new(), false);
    for c in line.chars() {
        if escaped {
            if c == '%' {
                command.pop();
            }
            command.push(c);
            escaped = false;
        } else if c == '%' {
            break;
        } else {
            escaped = c == '\\';
            command.push(c);
        }
    }
    command
}

#[test]
fn nothing_that_is_generated_has_a_place_left_to_fill() {
    let hostile = source(
        "a 'b' \"c\" %d $e \\%f @COMMAND@ `g` $(h) \u{1f418}",
        "0 3 * * *",
    );
    for orchestrator in ALL {
        let made = generate(
            orchestrator,
            &plan(vec![hostile.clone(), source("shop", "@daily")]),
        );
        assert_eq!(made.notes, Vec::<String>::new(), "{orchestrator:?}");
        for file in made.files {
            for place in [
                "@PROGRAM@",
                "@CONFIG@",
                "@SECRETS@",
                "@VOLUMES@",
                "@IMAGE@",
                "@BACKUP@",
            ] {
                assert!(!file.text.contains(place), "{}: {place}", file.name);
            }
        }
    }
}

#[test]
fn a_schedule_that_a_format_has_no_words_for_is_told_and_not_run_at_another_time() {
    let plan = plan(vec![
        source("last", "0 3 L * *"),
        source("shop", "0 3 * * *"),
    ]);
    for (orchestrator, name) in [
        (Orchestrator::Cron, "cron"),
        (Orchestrator::Systemd, "systemd"),
        (Orchestrator::Airflow, "Airflow"),
        (Orchestrator::Kubernetes, "Kubernetes"),
    ] {
        let made = generate(orchestrator, &plan);
        let note = format!(
            "source \"last\" is left out: its schedule \"0 3 L * *\" cannot be said to {name}"
        );
        assert_eq!(made.notes, [note]);
        let text: String = made
            .files
            .iter()
            .flat_map(|file| [file.name.as_str(), "\n", &file.text])
            .collect();
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        assert!(
            text.contains("shop") && !lines.any(|line| line.contains(" L ")),
            "{text}"
        );
    }
}

#[test]
fn a_crontab_has_a_line_for_each_schedule_and_says_where_zones_differ() {
    let mut plan = plan(vec![
        source("shop", "0 3 * * *"),
        source("two\nlines", "0 4 * * *"),
    ]);
    plan.upkeep.push(PlannedUpkeep {
        operation: "prune".to_owned(),
        when: When {
            expression: "0 12 * * 7".to_owned(),
            zone: "UTC".to_owned(),
            ..When::default()
        },
    });
    let made = generate(Orchestrator::Cron, &plan);
    let text = &made.files[0].text;
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .collect();
    let command = "/usr/local/bin/backup-cli --config /etc/backup/backup.toml";
    assert_eq!(
        lines,
        [
            "SHELL=/bin/sh",
            "PATH=/usr/local/bin:/usr/bin:/bin",
            "CRON_TZ=Europe/Berlin",
            &format!("0 3 * * * {command} --quiet backup -- shop > /dev/null"),
            "CRON_TZ=UTC",
            &format!("0 12 * * 0 {command} --quiet prune --yes > /dev/null"),
            &format!("17 * * * * said=$({command} check 2>&1) || echo \"$said\""),
        ]
    );
    assert_eq!(made.notes.len(), 2);
    assert!(made.notes[0].contains("2 time zones"), "{:?}", made.notes);
    assert!(
        made.notes[1].contains("a crontab cannot say its name"),
        "{:?}",
        made.notes
    );
}

#[test]
fn services_are_confined_as_the_server_is() {
    let made = generate(
        Orchestrator::Systemd,
        &plan(vec![source("my shop", "0 3 * * *")]),
    );
    let names: Vec<_> = made.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "backup-cli@.service",
            "backup-cli@my\\x20shop.timer",
            "backup-cli-check.service",
            "backup-cli-check.timer"
        ]
    );
    let service = &made.files[0].text;
    for wanted in [
        "\nType=oneshot\n",
        "\nExecStart=:\"/usr/local/bin/backup-cli\" --config \"%d/backup.toml\" backup -- %I\n",
        "\nLoadCredential=backup.toml:/etc/backup/backup.toml\n",
        "\nDynamicUser=yes\n",
        "\nProtectSystem=strict\n",
        "\nProtectProc=default\n",
        "\nSystemCallFilter=~@privileged\n",
    ] {
        assert!(service.contains(wanted), "{wanted}{service}");
    }
    assert!(
        !service.contains("Restart") && !service.contains("notify"),
        "{service}"
    );
    let timer = &made.files[1].text;
    assert!(
        timer.contains("\nOnCalendar=*-*-* 03:00:00 Europe/Berlin\n"),
        "{timer}"
    );
    assert!(timer.contains("\nPersistent=yes\n"), "{timer}");
}

#[test]
fn a_compose_file_is_confined_as_the_packaged_one() {
    let made = generate(Orchestrator::Compose, &plan(Vec::new()));
    for wanted in [
        "    read_only: true\n",
        "    cap_drop: [ALL]\n",
        "no-new-privileges:true",
    ] {
        assert!(made.files[0].text.contains(wanted), "{wanted}");
    }
}

#[test]
fn secrets_are_named_and_sources_of_connections_told_apart() {
    let secret = |opens, name: &str| Secret {
        opens,
        place: SecretPlace::Variable(name.to_owned()),
    };
    let mut plan = plan(vec![source("shop", "0 3 * * *")]);
    plan.secrets = vec![
        secret(Opens::Server("main".to_owned()), "PG_PASSWORD"),
        secret(Opens::DestinationId("s3".to_owned()), "ID"),
        secret(Opens::DestinationKey("s3".to_owned()), "KEY"),
        secret(Opens::Server("other".to_owned()), "OTHER_PASSWORD"),
    ];
    let dags = generate(Orchestrator::Airflow, &plan).files.remove(0).text;
    for line in [
        "    \"PG_PASSWORD\": (\"postgres_main\", \"password\"),\n",
        "    \"OTHER_PASSWORD\": (\"postgres_other\", \"password\"),\n",
        "    \"ID\": (\"minio_default\", \"login\"),\n",
        "    \"KEY\": (\"minio_default\", \"password\"),\n",
    ] {
        assert!(dags.contains(line), "{line}{dags}");
    }
    let manifests = generate(Orchestrator::Kubernetes, &plan)
        .files
        .remove(0)
        .text;
    assert!(manifests.contains("secretKeyRef: { name: backup-secrets, key: \"OTHER_PASSWORD\" }"));
}

/// Who takes backups need not be able to read them.
#[test]
fn a_job_gets_no_more_secrets_than_it_wants() {
    let secret = |opens, name: &str| Secret {
        opens,
        place: SecretPlace::Credential(name.to_owned()),
    };
    let mut plan = plan(vec![source("shop", "0 3 * * *")]);
    plan.upkeep = vec![PlannedUpkeep {
        operation: "drill".to_owned(),
        when: source("shop", "0 5 * * 0").when.unwrap(),
    }];
    plan.secrets = vec![
        secret(Opens::Server("main".to_owned()), "pg"),
        secret(Opens::Restores, "identity"),
        secret(Opens::Serving, "bot"),
    ];
    let made = generate(Orchestrator::Systemd, &plan);
    let unit = |what: &str| {
        let mut services = made
            .files
            .iter()
            .filter(|file| file.name.ends_with(".service"));
        services
            .find(|file| file.name.contains(what))
            .unwrap()
            .text
            .clone()
    };
    let loads = |text: &str, name: &str| text.contains(&format!("LoadCredential={name}"));
    for (what, expected) in [("@", [true, false, false]), ("drill", [true, true, false])] {
        let text = unit(what);
        let found = ["pg", "identity", "bot"].map(|name| loads(&text, name));
        assert_eq!(found, expected, "{what}: {text}");
    }
    plan.is_reachable = false;
    let manifests = generate(Orchestrator::Kubernetes, &plan);
    let text = &manifests.files[0].text;
    // What lies above the first of them is the head.
    let documents: Vec<_> = text.split("\n---\n").skip(1).collect();
    let sees = |begin: &str, key: &str| {
        let mut found = documents.iter();
        let found = found.find(|text| text.contains(begin)).unwrap();
        found.contains(&format!("{{ key: \"{key}\", path: \"{key}\" }}"))
    };
    for (begin, expected) in [
        ("name: backup-shop\n", [true, false, false]),
        ("name: backup--drill\n", [true, true, false]),
        ("kind: Deployment", [true, true, true]),
    ] {
        let found = ["pg", "identity", "bot"].map(|key| sees(begin, key));
        assert_eq!(found, expected, "{begin}: {text}");
    }
    // Nobody could reach the server, and that is said.
    assert!(
        manifests
            .notes
            .iter()
            .any(|note| note.contains("behind_tls_proxy"))
    );
    plan.is_reachable = true;
    let notes = generate(Orchestrator::Compose, &plan).notes;
    assert!(
        !notes.iter().any(|note| note.contains("behind_tls_proxy")),
        "{notes:?}"
    );
}

proptest! {
    #[test]
    fn a_shell_reads_every_word_as_it_was(text in "\\PC*") {
        prop_assert_eq!(unquoted(&quote::shell(&text)), text);
    }

    #[test]
    fn cron_and_its_shell_read_every_name_as_it_was(text in "[a\\\\%' \"$\u{e9}]{0,12}") {
        let line = quote::crontab(&quote::shell(&text)).unwrap();
        prop_assert_eq!(unquoted(&cron_reads(&line)), text);
    }

    #[test]
    fn slugs_have_their_form_and_tell_names_apart(one in "\\PC{1,80}", other in "\\PC{1,80}") {
        let slug = quote::slug(&one, 40);
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        prop_assert!(slug.chars().all(is_plain) && slug.len() <= 40 && !slug.starts_with('-') && !slug.ends_with('-'), "{}", slug);
        prop_assert!(one == other || slug != quote::slug(&other, 40));
    }
}

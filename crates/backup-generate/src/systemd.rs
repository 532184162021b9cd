//! Units and timers of systemd.

use crate::{
    Artifact, Calendar, Generated, Plan, Secret, SecretPlace, When, in_comment, put, quote,
    unsayable, upkeep_arguments,
};

/// The unit of the server, whose confinement these share.
const SERVER: &str = include_str!("../../../packaging/systemd/backup-server.service");

/// What a service that ends says otherwise than a server.
const OWN: [&str; 6] = [
    "Type=",
    "ExecStart=",
    "Restart=",
    "RestartPreventExitStatus=",
    "RestartSec=",
    "LoadCredential=",
];

/// systemd takes no longer name of a unit.
const LONGEST: usize = 255;

const HEAD: &str = "\
# Made by `backup-cli generate systemd` from the configuration; make it again when that has changed.
";

const INSTALL: &str = "\
#
#   backup-cli generate systemd --output /etc/systemd/system
#   systemctl daemon-reload
#   systemctl enable --now TIMER…       # each file that ends with .timer
#
# A run that fails leaves a failed unit: systemctl --failed. A warning is a failure too (code 3).
# Do not let backup-server run the same schedules; it does by itself what is in here.
#
# The service manager reads the configuration and the secrets as root. Say `{ credential = \"NAME\" }` there
# for each LoadCredential= below; `{ file = … }` works only for files that the account can read.
";

pub(crate) fn units(plan: &Plan) -> Generated {
    let mut made = Generated {
        files: Vec::new(),
        notes: plan.secrets.iter().filter_map(unreadable).collect(),
    };
    let backup = service(plan, "Backup of %I", &["backup", "--", "%I"]);
    add(
        &mut made,
        "backup-cli@.service",
        format!("{HEAD}{INSTALL}{backup}"),
    );
    for (source, when) in plan.scheduled() {
        let what = format!("source {:?}", source.name);
        let unit = format!("backup-cli@{}", quote::systemd_instance(&source.name));
        if unit.len() + ".service".len() > LONGEST {
            let note = format!("{what} is left out: its name is too long for a unit");
            made.notes.push(note);
            continue;
        }
        let title = in_comment(&source.name).replace('%', "%%");
        match timer(&format!("When {title} is backed up"), when) {
            Some(text) => add(&mut made, &format!("{unit}.timer"), text),
            None => made.notes.push(unsayable(&what, when, "systemd")),
        }
    }
    for upkeep in &plan.upkeep {
        let operation = upkeep.operation.as_str();
        let Some(timer) = timer(&format!("When a {operation} is due"), &upkeep.when) else {
            made.notes
                .push(unsayable(operation, &upkeep.when, "systemd"));
            continue;
        };
        let title = format!("{operation} of all backups");
        let service = service(plan, &title, upkeep_arguments(operation));
        add(
            &mut made,
            &format!("backup-cli-{operation}.service"),
            format!("{HEAD}{service}"),
        );
        add(&mut made, &format!("backup-cli-{operation}.timer"), timer);
    }
    let check = service(plan, "Whether backups are fresh and healthy", &["check"]);
    add(
        &mut made,
        "backup-cli-check.service",
        format!("{HEAD}{check}"),
    );
    add(&mut made, "backup-cli-check.timer", hourly());
    made
}

fn add(made: &mut Generated, name: &str, text: String) {
    made.files.push(Artifact::new(name, text));
}

/// Why a service cannot have a secret where it is.
fn unreadable(secret: &Secret) -> Option<String> {
    let say = "say { credential = \"…\" } instead";
    match &secret.place {
        SecretPlace::File(path) => Some(format!(
            "{path}: the account of the services may not read it; {say}"
        )),
        SecretPlace::Variable(name) => Some(format!("the services have no variable {name}; {say}")),
        SecretPlace::Credential(_) => None,
    }
}

/// A service that ends, confined as the server is.
fn service(plan: &Plan, title: &str, arguments: &[&str]) -> String {
    let program = quote::systemd(&plan.program);
    let config = plan.config.as_ref().map(|_| "--config \"%d/backup.toml\"");
    let words = [program.as_str()].into_iter().chain(config);
    let words: Vec<_> = words.chain(arguments.iter().copied()).collect();
    let exec = words.join(" ");
    let mut text = format!(
        "[Unit]\nDescription={title}\nWants=network-online.target\nAfter=network-online.target\n\n\
         [Service]\nType=oneshot\nExecStart=:{exec}\n"
    );
    if let Some(config) = &plan.config {
        text += &credential("backup.toml", config);
    }
    for name in plan.wanted_by(arguments).credentials() {
        text += &credential(name, &format!("/etc/backup/{name}"));
    }
    text + &confinement()
}

/// A credential cannot have a path with a line end; a path of nobody's has one.
fn credential(name: &str, path: &str) -> String {
    let path = in_comment(path).replace('%', "%%");
    format!(
        "LoadCredential={}:{path}\n",
        in_comment(name).replace('%', "%%")
    )
}

/// All settings of the server's service but those that make it a server.
fn confinement() -> String {
    let (_, service) = SERVER.split_once("[Service]\n").unwrap_or_default();
    let (service, _) = service.split_once("[Install]").unwrap_or_default();
    let settings = service
        .lines()
        .filter(|line| line.contains('=') && !line.starts_with('#'));
    let kept = settings.filter(|line| !OWN.iter().any(|own| line.starts_with(own)));
    let kept = kept.filter(|line| !line.starts_with("Environment=BACKUP_CONFIG"));
    kept.flat_map(|line| [line, "\n"]).collect()
}

fn timer(title: &str, when: &When) -> Option<String> {
    let calendar = Calendar::parse(&when.expression)?;
    let mut text = format!("{HEAD}[Unit]\nDescription={title}\n\n[Timer]\n");
    for line in calendar.systemd(&when.zone) {
        put(&mut text, format_args!("OnCalendar={line}\n"));
    }
    if when.jitter_seconds > 0 {
        // The same delay each time, so that a day stays a day.
        put(
            &mut text,
            format_args!(
                "RandomizedDelaySec={}s\nFixedRandomDelay=yes\n",
                when.jitter_seconds
            ),
        );
    }
    text += "AccuracySec=1s\n";
    put(
        &mut text,
        format_args!(
            "Persistent={}\n",
            if when.catches_up { "yes" } else { "no" }
        ),
    );
    text += "\n[Install]\nWantedBy=timers.target\n";
    Some(text)
}

fn hourly() -> String {
    format!(
        "{HEAD}[Unit]\nDescription=When backups are looked at\n\n[Timer]\nOnCalendar=*-*-* *:17:00\n\
         Persistent=yes\n\n[Install]\nWantedBy=timers.target\n"
    )
}

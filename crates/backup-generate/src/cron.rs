//! A crontab.

use std::collections::BTreeSet;

use crate::{
    Artifact, Calendar, Generated, Plan, When, in_comment, put, quote, unsayable, upkeep_arguments,
};

const HEAD: &str = "\
# Backups by cron, as the configuration said when this was made by `backup-cli generate cron`.
#
#   crontab -u backup FILE          # replaces what that user's crontab holds
#
# Cron mails what a command prints: nothing while all is well. Set MAILTO to somebody who reads it.
# Runs that meet do no harm, on this machine or another: whoever comes second ends with code 5.
# Do not let backup-server run the same schedules; it does by itself what is in here.
";

/// What to know of time zones.
const ZONE: &str = "\
#
# CRON_TZ is obeyed by cronie (Fedora, RHEL, SUSE, Arch). Cron of Debian and Ubuntu passes over it and
# goes by the zone of the machine: there, set that to the same zone (timedatectl set-timezone), or use
# `backup-cli generate systemd`, whose timers know zones everywhere.
";

pub(crate) fn crontab(plan: &Plan) -> Generated {
    let mut made = Generated::default();
    let zones: BTreeSet<_> = all(plan).map(|(_, when)| when.zone.as_str()).collect();
    if zones.len() > 1 {
        made.notes.push(format!(
            "schedules are in {} time zones, which cron of Debian and Ubuntu cannot keep apart: use systemd there",
            zones.len()
        ));
    }
    let mut text = format!("{HEAD}{ZONE}\nSHELL=/bin/sh\nPATH=/usr/local/bin:/usr/bin:/bin\n");
    let command = plan.shell_command();
    for zone in zones {
        put(&mut text, format_args!("\nCRON_TZ={zone}\n"));
        for (source, when) in plan.scheduled().filter(|(_, when)| when.zone == zone) {
            let name = quote::shell(&source.name);
            let command = format!("{command} --quiet backup -- {name} > /dev/null");
            let what = format!("source {:?}", source.name);
            add(&mut text, &mut made.notes, (&what, when), &command);
        }
        for upkeep in plan.upkeep.iter().filter(|upkeep| upkeep.when.zone == zone) {
            let arguments = upkeep_arguments(&upkeep.operation).join(" ");
            let command = format!("{command} --quiet {arguments} > /dev/null");
            add(
                &mut text,
                &mut made.notes,
                (&upkeep.operation, &upkeep.when),
                &command,
            );
        }
    }
    // What it says is of use only when something is wrong.
    let check = format!("said=$({command} check 2>&1) || echo \"$said\"");
    text += "\n# Are backups fresh and healthy? Mails what is not.\n";
    match quote::crontab(&check) {
        Some(check) => put(&mut text, format_args!("17 * * * * {check}\n")),
        None => made
            .notes
            .push("check is left out: a crontab cannot say the path".to_owned()),
    }
    made.files.push(Artifact::new("backup.crontab", text));
    made
}

fn all(plan: &Plan) -> impl Iterator<Item = (&str, &When)> {
    let sources = plan
        .scheduled()
        .map(|(source, when)| (source.name.as_str(), when));
    let upkeep = plan
        .upkeep
        .iter()
        .map(|one| (one.operation.as_str(), &one.when));
    sources.chain(upkeep)
}

/// A line, or a comment in its place.
fn add(text: &mut String, notes: &mut Vec<String>, (what, when): (&str, &When), command: &str) {
    let line = Calendar::parse(&when.expression).map(|calendar| calendar.cron());
    match (line, quote::crontab(command)) {
        (Some(line), Some(command)) => put(text, format_args!("{line} {command}\n")),
        (None, _) => left_out(text, notes, unsayable(what, when, "cron")),
        (_, None) => left_out(
            text,
            notes,
            format!("{what} is left out: a crontab cannot say its name"),
        ),
    }
}

fn left_out(text: &mut String, notes: &mut Vec<String>, note: String) {
    put(text, format_args!("# {}\n", in_comment(&note)));
    notes.push(note);
}

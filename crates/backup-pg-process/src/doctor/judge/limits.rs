//! Limits of the server that a dump can run into.

use backup_core::doctor::Finding;

use super::{Setting, counted};
use crate::doctor::facts::Facts;
use crate::quote_ident;

/// Sessions of a dump besides one for each part: the one that holds the snapshot, and the one that
/// watches it.
const OWN_SESSIONS: i64 = 2;
/// A server stops writing at two thousand million.
const AGE_NOTE: u64 = 1_000_000_000;
const AGE_WARNING: u64 = 1_600_000_000;

pub(super) fn judge(facts: &Facts, setting: &Setting<'_>, findings: &mut Vec<Finding>) {
    findings.push(Finding::ok(
        "database-size",
        format!(
            "{}, {} bytes on the server",
            counted(facts.tables, "table"),
            facts.database_bytes
        ),
    ));
    connections(facts, setting, findings);
    locks(facts, findings);
    session_limits(facts, findings);
    age(facts, findings);
}

fn number(facts: &Facts, name: &str) -> i64 {
    let text = facts.settings.get(name);
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Whether there is room for as many sessions as a dump opens.
fn connections(facts: &Facts, setting: &Setting<'_>, findings: &mut Vec<Finding>) {
    let jobs = i64::try_from(setting.jobs).unwrap_or(i64::MAX);
    let needed = jobs.saturating_add(OWN_SESSIONS);
    let reserved = if facts.role.is_superuser {
        0
    } else {
        number(facts, "superuser_reserved_connections") + number(facts, "reserved_connections")
    };
    let role = quote_ident(&facts.user);
    // Our own session is among those that are there.
    let free = [
        (
            number(facts, "max_connections") - reserved - facts.sessions + 1,
            "the server has".to_owned(),
            "ALTER SYSTEM SET max_connections = …; and restart, or use fewer elsewhere".to_owned(),
        ),
        (
            limited(facts.role_limit, facts.role_sessions),
            format!("role {role} has"),
            format!("ALTER ROLE {role} CONNECTION LIMIT -1;"),
        ),
        (
            limited(facts.database_limit, facts.database_sessions),
            "the database has".to_owned(),
            format!(
                "ALTER DATABASE {} CONNECTION LIMIT -1;",
                quote_ident(&facts.database)
            ),
        ),
    ];
    for (free, who, remedy) in free {
        if free >= needed {
            continue;
        }
        let text = format!(
            "{who} room for {} more sessions, and a backup with {jobs} jobs opens {needed}",
            free.max(0)
        );
        let finding = Finding::warning("too-few-connections", text);
        findings.push(finding.remedy(format!("{remedy} Or lower jobs.")));
    }
}

/// What a limit leaves; -1 is none, and superusers have none.
fn limited(limit: i64, taken: i64) -> i64 {
    if limit < 0 {
        i64::MAX
    } else {
        limit - taken + 1
    }
}

/// A dump locks every table at the same time.
fn locks(facts: &Facts, findings: &mut Vec<Finding>) {
    let sessions = number(facts, "max_connections") + number(facts, "max_prepared_transactions");
    let each = number(facts, "max_locks_per_transaction");
    let room = u64::try_from(each.saturating_mul(sessions)).unwrap_or(0);
    if room == 0 || facts.tables.saturating_mul(5) <= room.saturating_mul(4) {
        return;
    }
    let text = format!(
        "a dump locks all {} tables at once, and the server has room for about {room} locks",
        facts.tables
    );
    let wanted = facts.tables.saturating_mul(2) / u64::try_from(sessions.max(1)).unwrap_or(1) + 64;
    findings.push(Finding::warning("too-few-locks", text).remedy(format!(
        "ALTER SYSTEM SET max_locks_per_transaction = {wanted}; and restart the server"
    )));
}

/// Our sessions switch them off for themselves, which every role may.
fn session_limits(facts: &Facts, findings: &mut Vec<Finding>) {
    if facts.limits.is_empty() {
        return;
    }
    let limits: Vec<String> = facts
        .limits
        .iter()
        .map(|(name, ms)| format!("{name} = {ms} ms"))
        .collect();
    let role = quote_ident(&facts.user);
    let first = facts.limits.first().map_or("", |(name, _)| name.as_str());
    findings.push(
        Finding::note(
            "session-limits",
            format!(
                "sessions of role {role} are ended by {}; those of backups switch that off for \
                 themselves",
                limits.join(", ")
            ),
        )
        .remedy(format!("to be sure: ALTER ROLE {role} SET {first} = 0;")),
    );
}

fn age(facts: &Facts, findings: &mut Vec<Finding>) {
    if facts.frozen_age < AGE_NOTE {
        return;
    }
    let text = format!(
        "the oldest transaction of the database is {} million back; at 2000 million the server \
         stops writing",
        facts.frozen_age / 1_000_000
    );
    let finding = if facts.frozen_age >= AGE_WARNING {
        Finding::warning("wraparound", text)
    } else {
        Finding::note("wraparound", text)
    };
    findings.push(finding.remedy("VACUUM (FREEZE); and see why autovacuum does not keep up"));
}

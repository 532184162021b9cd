//! From what the server said to what it means for backups. Pure.

mod limits;
#[cfg(test)]
mod tests;

use backup_core::doctor::Finding;

use super::facts::{Facts, LargeObjects, Lock, Named};
use crate::{ToolVersion, Tools, quote_ident};

/// A password that ends sooner is worth a warning.
const PASSWORD_DAYS: i64 = 14;
/// A lock that is held for so long is not just somebody's moment.
const LOCKED_SECONDS: i64 = 60;

pub(crate) const AROUND_POOLER: &str =
    "connect to the server itself: give host and port of PostgreSQL, not those of the pooler";

/// What the judgement depends on besides the facts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting<'a> {
    pub(super) jobs: usize,
    /// Whether a filter leaves something out.
    pub(super) filtered: bool,
    /// Whether the filter names what is dumped.
    pub(super) names_all: bool,
    pub(super) version_num: u32,
    pub(super) host: &'a str,
}

/// Everything about login, database and server.
pub(super) fn judge(
    facts: &Facts,
    objects: &LargeObjects,
    locks: &[Lock],
    setting: &Setting<'_>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    rights(facts, setting, &mut findings);
    large_objects(facts, objects, setting, &mut findings);
    outside(facts, setting, &mut findings);
    replica(facts, &mut findings);
    locked(facts, locks, &mut findings);
    limits::judge(facts, setting, &mut findings);
    traffic(facts, setting, &mut findings);
    findings
}

/// Of the server's version alone.
pub(super) fn version(version_num: u32, oldest: u32) -> Option<Finding> {
    let version = ToolVersion::from_num(version_num);
    if version_num < oldest {
        let oldest = oldest / 10_000;
        let text = format!("PostgreSQL {version} is older than {oldest}, and is not backed up");
        let finding = Finding::problem("server-too-old", text);
        return Some(finding.remedy(format!("upgrade the server to {oldest} or later")));
    }
    // https://www.postgresql.org/docs/release/14.4/
    if (140_000..140_004).contains(&version_num) {
        let text = format!(
            "PostgreSQL {version} can corrupt indexes that are made with CONCURRENTLY, so a \
             restore can find rows that break them"
        );
        let finding = Finding::warning("server-release-corrupts-indexes", text);
        return Some(finding.remedy("update to 14.4 or later, then REINDEX what was made so"));
    }
    None
}

/// The client programs that were chosen.
pub(super) fn tools(tools: &Tools, version_num: u32) -> Finding {
    let (major, place) = (version_num / 10_000, tools.pg_dump.display());
    if tools.version.major == major {
        let text = format!("pg_dump {} at {place}", tools.version);
        return Finding::ok("client-programs", text);
    }
    Finding::note(
        "client-programs-newer",
        format!(
            "pg_dump {} at {place} is newer than the server: a server of version {major} may not \
             take back what it writes",
            tools.version
        ),
    )
    .remedy(format!(
        "install the client programs of PostgreSQL {major} (postgresql-client-{major} on Debian, \
         postgresql{major} on Red Hat), or name their directory in bin_dir"
    ))
}

pub(super) fn pooler(server: &str) -> Finding {
    let text = format!(
        "{server} is a connection pooler that gives one session of the server to several clients: \
         a dump loses its snapshot there, and others get its settings"
    );
    Finding::problem("pooler", text).remedy(AROUND_POOLER)
}

fn rights(facts: &Facts, setting: &Setting<'_>, findings: &mut Vec<Finding>) {
    let role = quote_ident(&facts.user);
    if facts.role.is_superuser {
        findings.push(
            Finding::note(
                "role-is-superuser",
                format!("role {role} is a superuser, which is more than backups need"),
            )
            .remedy(
                "CREATE ROLE backup LOGIN BYPASSRLS PASSWORD '…'; GRANT pg_read_all_data TO backup;",
            ),
        );
    }
    let unreadable = [
        ("role-cannot-read-tables", &facts.unreadable, "table"),
        (
            "role-cannot-read-sequences",
            &facts.unreadable_sequences,
            "sequence",
        ),
    ];
    let mut all_read = true;
    for (id, found, what) in unreadable {
        if found.count == 0 {
            continue;
        }
        all_read = false;
        let text = format!(
            "role {role} may not read {}: {}",
            counted(found.count, what),
            found.examples()
        );
        let grant = format!("run as a superuser: GRANT pg_read_all_data TO {role};");
        findings.push(filtered(id, text, setting).remedy(grant));
    }
    if facts.hidden.count > 0 {
        all_read = false;
        findings.push(row_security(&facts.hidden, &role, setting));
    }
    if all_read {
        let text = format!("role {role} can read {}", counted(facts.tables, "table"));
        findings.push(Finding::ok("role-reads-everything", text));
    }
    if !facts.role.is_superuser && !facts.role.reads_all && all_read {
        findings.push(
            Finding::note(
                "role-reads-by-single-grants",
                format!("role {role} reads by single grants: a table that comes new may lack one"),
            )
            .remedy(format!("GRANT pg_read_all_data TO {role};")),
        );
    }
    passwords(facts, &role, findings);
}

/// Those of the roles on the server, and the login's own.
fn passwords(facts: &Facts, role: &str, findings: &mut Vec<Finding>) {
    if !facts.role.reads_passwords {
        findings.push(
            Finding::note(
                "passwords-not-in-backups",
                format!(
                    "role {role} cannot read the passwords of roles: they are backed up without, \
                     which each backup says as a warning, and are set anew after a disaster"
                ),
            )
            .remedy(format!(
                "where backups are encrypted and passwords are wanted: \
                 GRANT SELECT ON pg_catalog.pg_authid TO {role};"
            )),
        );
    }
    if let Some(days) = facts.password_days.filter(|days| *days < PASSWORD_DAYS) {
        findings.push(
            Finding::warning(
                "password-ends",
                format!("the password of role {role} ends in {days} days"),
            )
            .remedy(format!("ALTER ROLE {role} VALID UNTIL 'infinity';")),
        );
    }
}

fn row_security(hidden: &Named, role: &str, setting: &Setting<'_>) -> Finding {
    let text = format!(
        "row-level security hides rows of {} from role {role}: {}",
        counted(hidden.count, "table"),
        hidden.examples()
    );
    let finding = filtered("row-security-hides-rows", text, setting);
    finding.remedy(format!("run as a superuser: ALTER ROLE {role} BYPASSRLS;"))
}

/// A filter may leave out what would make a whole dump fail.
fn filtered(id: &'static str, text: String, setting: &Setting<'_>) -> Finding {
    if setting.filtered {
        let text = format!("{text}; the backup fails unless its filter leaves them out");
        Finding::note(id, text)
    } else {
        Finding::problem(id, text)
    }
}

fn large_objects(
    facts: &Facts,
    objects: &LargeObjects,
    setting: &Setting<'_>,
    findings: &mut Vec<Finding>,
) {
    let compatible = facts
        .settings
        .get("lo_compat_privileges")
        .is_some_and(|value| value == "on");
    // https://www.postgresql.org/docs/devel/predefined-roles.html
    let read_by_role = facts.role.reads_all && setting.version_num >= 190_000;
    if facts.role.is_superuser || compatible || read_by_role || objects.foreign == 0 {
        return;
    }
    let role = quote_ident(&facts.user);
    let count = u64::try_from(objects.foreign).unwrap_or_default();
    let text = format!(
        "role {role} may not read {} of {}, which pg_read_all_data does not cover",
        counted(count, "large object"),
        objects.all,
    );
    findings.push(
        filtered("role-cannot-read-large-objects", text, setting).remedy(format!(
            "run as a superuser: ALTER ROLE {role} SET lo_compat_privileges = on;"
        )),
    );
}

/// What is no part of a dump. A filter that names what is dumped leaves out all that has no schema.
fn outside(facts: &Facts, setting: &Setting<'_>, findings: &mut Vec<Finding>) {
    let wanted = !facts.role.is_superuser && !setting.names_all;
    if facts.subscriptions > 0 && wanted {
        findings.push(
            Finding::warning(
                "subscriptions-not-in-backups",
                format!(
                    "{} of logical replication are not in the backups: only a superuser can dump \
                     them",
                    counted(facts.subscriptions, "subscription")
                ),
            )
            .remedy("keep their CREATE SUBSCRIPTION statements, or back up as a superuser"),
        );
    }
    if facts.bare_mappings > 0 && wanted {
        findings.push(
            Finding::warning(
                "user-mappings-without-options",
                format!(
                    "the options of {} (names and passwords at other servers), if they have any, are \
                     not in the backups: only a superuser can dump them",
                    counted(facts.bare_mappings, "user mapping")
                ),
            )
            .remedy("keep their CREATE USER MAPPING statements, or back up as a superuser"),
        );
    }
    if facts.foreign_tables > 0 {
        findings.push(
            Finding::note(
                "foreign-tables",
                format!(
                    "the rows of {} live on other servers and are not in the backups",
                    counted(facts.foreign_tables, "foreign table")
                ),
            )
            .remedy("back those servers up, too"),
        );
    }
    if !facts.tablespaces.is_empty() {
        findings.push(
            Finding::note(
                "tablespaces",
                format!(
                    "tables lie in tablespaces besides the default: {}",
                    facts.tablespaces.join(", ")
                ),
            )
            .remedy("make them on the server that restores, or all goes to its default tablespace"),
        );
    }
}

fn replica(facts: &Facts, findings: &mut Vec<Finding>) {
    if !facts.in_recovery {
        return;
    }
    let setting = |name: &str| facts.settings.get(name).map_or("", String::as_str);
    let feedback = setting("hot_standby_feedback") == "on";
    let patient = setting("max_standby_streaming_delay") == "-1";
    if feedback || patient {
        let text = "it is a replica, and waits with what would end a dump";
        findings.push(Finding::ok("replica", text));
    } else {
        findings.push(
            Finding::warning(
                "replica-ends-dumps",
                "it is a replica that ends queries which stand in the way of what it replays: a \
                 dump that takes longer than max_standby_streaming_delay can fail",
            )
            .remedy(
                "on the replica: ALTER SYSTEM SET hot_standby_feedback = on; (or \
                 max_standby_streaming_delay = -1 on one for backups only), then \
                 SELECT pg_reload_conf();",
            ),
        );
    }
    if facts.unlogged > 0 {
        findings.push(
            Finding::warning(
                "unlogged-tables-on-replica",
                format!(
                    "{} have no rows on a replica, so backups have none of them either",
                    counted(facts.unlogged, "unlogged table")
                ),
            )
            .remedy("back up the primary, or ALTER TABLE … SET LOGGED"),
        );
    }
}

fn locked(facts: &Facts, locks: &[Lock], findings: &mut Vec<Finding>) {
    for prepared in &facts.prepared {
        findings.push(
            Finding::warning(
                "prepared-transaction",
                format!(
                    "prepared transaction {:?} waits for its end for {} minutes, and keeps its \
                     locks",
                    prepared.gid, prepared.minutes
                ),
            )
            .remedy("COMMIT PREPARED or ROLLBACK PREPARED it, whichever its maker wants"),
        );
    }
    for lock in locks {
        let (who, remedy) = match lock.pid {
            Some(pid) => (
                format!("session {pid}"),
                format!("wait for it, or end it: SELECT pg_terminate_backend({pid});"),
            ),
            None => (
                "a prepared transaction".to_owned(),
                "see pg_prepared_xacts, and end it".to_owned(),
            ),
        };
        let since = lock.seconds.unwrap_or(0);
        let text = format!("{who} keeps everybody from table {}", lock.table);
        // A moment ago is no news: ALTER TABLE takes such a lock.
        let finding = if since >= LOCKED_SECONDS {
            let text = format!("{text}, for {since} s: a backup waits for lock_wait_timeout only");
            Finding::warning("table-locked", text)
        } else {
            Finding::note("table-locked", text)
        };
        findings.push(finding.remedy(remedy));
    }
}

fn traffic(facts: &Facts, setting: &Setting<'_>, findings: &mut Vec<Finding>) {
    let here =
        setting.host.starts_with('/') || matches!(setting.host, "localhost" | "127.0.0.1" | "::1");
    if here || facts.encrypted == Some(true) {
        return;
    }
    findings.push(
        Finding::note(
            "connection-not-encrypted",
            "the connection to the server is not encrypted: whoever can listen reads the data",
        )
        .remedy("switch ssl on in the server, and say sslmode = \"verify-full\""),
    );
}

/// `1 table`, `2 tables`.
fn counted(number: u64, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    }
}

use std::path::PathBuf;

use backup_core::doctor::{Level, worst};
use rstest::rstest;

use super::*;
use crate::doctor::facts::{Prepared, Role};

/// A server that nothing is wrong with, and the role that the manual recommends.
fn healthy() -> Facts {
    let settings = [
        ("max_connections", "100"),
        ("superuser_reserved_connections", "3"),
        ("reserved_connections", "0"),
        ("max_locks_per_transaction", "64"),
        ("max_prepared_transactions", "0"),
        ("hot_standby_feedback", "off"),
        ("max_standby_streaming_delay", "30000"),
        ("lo_compat_privileges", "off"),
    ];
    let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    Facts {
        user: "backup".to_owned(),
        database: "shop".to_owned(),
        database_bytes: 9_000_000,
        role: Role {
            is_superuser: false,
            reads_all: true,
            reads_passwords: true,
        },
        password_days: None,
        tables: 12,
        unreadable: Named::default(),
        unreadable_sequences: Named::default(),
        hidden: Named::default(),
        unlogged: 0,
        foreign_tables: 0,
        subscriptions: 0,
        bare_mappings: 0,
        reads_mappings: true,
        tablespaces: Vec::new(),
        frozen_age: 1000,
        in_recovery: false,
        encrypted: Some(true),
        prepared: Vec::new(),
        sessions: 5,
        role_limit: -1,
        role_sessions: 1,
        database_limit: -1,
        database_sessions: 3,
        settings: settings.into_iter().map(pair).collect(),
        limits: Vec::new(),
    }
}

fn setting() -> Setting<'static> {
    Setting {
        jobs: 4,
        filtered: false,
        names_all: false,
        version_num: 170_002,
        host: "db.internal",
    }
}

fn judged(change: impl FnOnce(&mut Facts)) -> Vec<Finding> {
    let mut facts = healthy();
    change(&mut facts);
    judge(&facts, &LargeObjects::default(), &[], &setting())
}

/// The one that is not ok.
fn only(findings: Vec<Finding>) -> Finding {
    let mut bad: Vec<_> = findings
        .into_iter()
        .filter(|finding| finding.level > Level::Ok)
        .collect();
    assert_eq!(bad.len(), 1, "{bad:#?}");
    bad.remove(0)
}

fn named(names: &[&str]) -> Named {
    Named {
        count: names.len() as u64,
        names: names.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn what_is_healthy_has_no_finding() {
    let findings = judged(|_| {});
    assert_eq!(worst(&findings), Level::Ok, "{findings:#?}");
    let ids: Vec<_> = findings.iter().map(|finding| finding.id).collect();
    assert_eq!(ids, ["role-reads-everything", "database-size"]);
}

type Change = fn(&mut Facts);

#[rstest]
#[case::superuser(|f: &mut Facts| f.role.is_superuser = true, Level::Note, "role-is-superuser", "GRANT pg_read_all_data")]
#[case::table(|f: &mut Facts| f.unreadable = named(&["a.b", "a.c"]), Level::Problem, "role-cannot-read-tables", "GRANT pg_read_all_data TO \"backup\"")]
#[case::sequence(|f: &mut Facts| f.unreadable_sequences = named(&["a.s"]), Level::Problem, "role-cannot-read-sequences", "GRANT pg_read_all_data TO \"backup\"")]
#[case::hidden(|f: &mut Facts| f.hidden = named(&["a.b"]), Level::Problem, "row-security-hides-rows", "ALTER ROLE \"backup\" BYPASSRLS")]
#[case::single_grants(|f: &mut Facts| f.role.reads_all = false, Level::Note, "role-reads-by-single-grants", "pg_read_all_data")]
#[case::passwords(|f: &mut Facts| f.role.reads_passwords = false, Level::Note, "passwords-not-in-backups", "pg_authid")]
#[case::password_ends(|f: &mut Facts| f.password_days = Some(3), Level::Warning, "password-ends", "VALID UNTIL")]
#[case::subscription(|f: &mut Facts| f.subscriptions = 2, Level::Warning, "subscriptions-not-in-backups", "CREATE SUBSCRIPTION")]
#[case::mappings(|f: &mut Facts| f.bare_mappings = 2, Level::Warning, "user-mappings-without-options", "CREATE USER MAPPING")]
#[case::foreign(|f: &mut Facts| f.foreign_tables = 1, Level::Note, "foreign-tables", "back those servers up")]
#[case::tablespace(|f: &mut Facts| f.tablespaces = vec!["fast".to_owned()], Level::Note, "tablespaces", "default tablespace")]
#[case::replica(|f: &mut Facts| f.in_recovery = true, Level::Warning, "replica-ends-dumps", "hot_standby_feedback = on")]
#[case::prepared(|f: &mut Facts| f.prepared = vec![Prepared { gid: "x".to_owned(), minutes: 90 }], Level::Warning, "prepared-transaction", "ROLLBACK PREPARED")]
#[case::full(|f: &mut Facts| f.sessions = 96, Level::Warning, "too-few-connections", "max_connections")]
#[case::role_full(|f: &mut Facts| f.role_limit = 5, Level::Warning, "too-few-connections", "ALTER ROLE \"backup\" CONNECTION LIMIT")]
#[case::database_full(|f: &mut Facts| f.database_limit = 7, Level::Warning, "too-few-connections", "ALTER DATABASE \"shop\" CONNECTION LIMIT")]
#[case::locks(|f: &mut Facts| f.tables = 6000, Level::Warning, "too-few-locks", "max_locks_per_transaction = 184")]
#[case::limits(|f: &mut Facts| f.limits = vec![("statement_timeout".to_owned(), 5000)], Level::Note, "session-limits", "SET statement_timeout = 0")]
#[case::old(|f: &mut Facts| f.frozen_age = 1_200_000_000, Level::Note, "wraparound", "VACUUM")]
#[case::very_old(|f: &mut Facts| f.frozen_age = 1_900_000_000, Level::Warning, "wraparound", "VACUUM")]
#[case::in_the_clear(|f: &mut Facts| f.encrypted = Some(false), Level::Note, "connection-not-encrypted", "verify-full")]
fn each_gap_has_a_name_a_level_and_a_remedy(
    #[case] change: Change,
    #[case] level: Level,
    #[case] id: &str,
    #[case] words: &str,
) {
    let found = only(judged(change));
    assert_eq!((found.id, found.level), (id, level), "{found:?}");
    let remedy = found.remedy.unwrap();
    assert!(remedy.contains(words), "{remedy}");
}

#[test]
fn large_objects_of_others_need_more_than_the_role() {
    let objects = LargeObjects { all: 9, foreign: 7 };
    let with = |change: Change, setting: &Setting<'_>| {
        let mut facts = healthy();
        change(&mut facts);
        judge(&facts, &objects, &[], setting)
    };
    let found = only(with(|_| {}, &setting()));
    assert_eq!(
        (found.id, found.level),
        ("role-cannot-read-large-objects", Level::Problem)
    );
    assert!(found.message.contains("7 large objects of 9"), "{found:?}");
    assert!(found.remedy.unwrap().contains("lo_compat_privileges = on"));
    let compatible: Change = |f| {
        f.settings
            .insert("lo_compat_privileges".to_owned(), "on".to_owned());
    };
    assert_eq!(worst(&with(compatible, &setting())), Level::Ok);
    let newer = Setting {
        version_num: 190_000,
        ..setting()
    };
    assert_eq!(worst(&with(|_| {}, &newer)), Level::Ok);
    let partly = Setting {
        filtered: true,
        ..setting()
    };
    assert_eq!(only(with(|_| {}, &partly)).level, Level::Note);
}

/// What has no schema is no part of such a dump, and nothing is said of it.
#[test]
fn who_names_what_he_wants_misses_nothing_else() {
    let mut facts = healthy();
    (facts.subscriptions, facts.bare_mappings) = (1, 1);
    let judged = |names_all| {
        let setting = Setting {
            filtered: true,
            names_all,
            ..setting()
        };
        judge(&facts, &LargeObjects::default(), &[], &setting)
    };
    assert_eq!(worst(&judged(false)), Level::Warning);
    assert_eq!(worst(&judged(true)), Level::Ok);
}

#[test]
fn a_patient_replica_is_good_but_has_no_unlogged_rows() {
    let patient = |f: &mut Facts| {
        f.in_recovery = true;
        let (name, value) = ("hot_standby_feedback", "on");
        f.settings.insert(name.to_owned(), value.to_owned());
    };
    assert_eq!(worst(&judged(patient)), Level::Ok);
    let found = only(judged(|f| {
        patient(f);
        f.unlogged = 2;
    }));
    assert_eq!(found.id, "unlogged-tables-on-replica");
}

#[test]
fn only_a_lock_that_lasts_is_a_warning() {
    let lock = |pid, seconds| Lock {
        table: "app.orders".to_owned(),
        pid,
        seconds,
    };
    for (pid, seconds, level, words) in [
        (Some(7), Some(3), Level::Note, "pg_terminate_backend(7)"),
        (
            Some(7),
            Some(600),
            Level::Warning,
            "pg_terminate_backend(7)",
        ),
        (Some(7), None, Level::Note, "pg_terminate_backend(7)"),
        (None, None, Level::Note, "pg_prepared_xacts"),
    ] {
        let locks = [lock(pid, seconds)];
        let found = only(judge(
            &healthy(),
            &LargeObjects::default(),
            &locks,
            &setting(),
        ));
        assert_eq!((found.id, found.level), ("table-locked", level));
        assert!(found.message.contains("app.orders"), "{found:?}");
        assert!(found.remedy.unwrap().contains(words));
    }
}

#[test]
fn names_are_examples() {
    let many = named(&["a", "b", "c", "d", "e", "f", "g"]);
    assert_eq!(many.examples(), "a, b, c, d, e and 2 more");
    assert_eq!(named(&["a", "b"]).examples(), "a, b");
}

#[test]
fn versions_and_programs() {
    assert_eq!(version(170_002, 140_000), None);
    assert_eq!(version(140_004, 140_000), None);
    assert_eq!(
        version(140_003, 140_000).unwrap().id,
        "server-release-corrupts-indexes"
    );
    let old = version(130_009, 140_000).unwrap();
    assert_eq!((old.id, old.level), ("server-too-old", Level::Problem));
    let chosen = |major| Tools {
        pg_dump: PathBuf::from("/bin/pg_dump"),
        pg_restore: PathBuf::new(),
        pg_dumpall: PathBuf::new(),
        version: ToolVersion { major, minor: 1 },
    };
    assert_eq!(tools(&chosen(17), 170_002).level, Level::Ok);
    let newer = tools(&chosen(18), 170_002);
    assert_eq!(
        (newer.id, newer.level),
        ("client-programs-newer", Level::Note)
    );
    assert!(newer.remedy.unwrap().contains("postgresql-client-17"));
}

use super::*;
use crate::restorer::schedule::Schedule;

fn entry(dump_id: u32, desc: &str, tag: &str, dependencies: &[u32]) -> TocEntry {
    let mut entry = TocEntry::default();
    entry.dump_id = dump_id;
    entry.desc = desc.into();
    entry.tag = tag.into();
    entry.namespace = Some("public".into());
    entry.dependencies = dependencies.to_vec();
    entry.section = match desc {
        "ACL" | "COMMENT" | "SECURITY LABEL" => Section::None,
        "ENCODING" | "TABLE" | "VIEW" | "MATERIALIZED VIEW" | "TABLE ATTACH" | "FUNCTION"
        | "DATABASE" => Section::PreData,
        _ => Section::PostData,
    };
    if desc == "CONSTRAINT" {
        entry.defn = Some("ALTER TABLE ONLY public.t ADD CONSTRAINT c PRIMARY KEY (id);".into());
    }
    entry
}

fn part(name: &str, tables: &[(&str, u64)]) -> DataPart {
    let named = |name: &str| TableName {
        schema: "public".to_owned(),
        name: name.to_owned(),
    };
    DataPart {
        name: PartName::new(name).unwrap(),
        bytes: tables.iter().map(|(_, bytes)| bytes).sum(),
        tables: tables
            .iter()
            .map(|(name, bytes)| (named(name), *bytes))
            .collect(),
        has_others: false,
    }
}

fn plan(entries: &[TocEntry], parts: &[DataPart]) -> LoadPlan {
    let omit = Omit {
        vacuum: true,
        ..Omit::default()
    };
    LoadPlan::new(entries, parts, omit)
}

/// The step that restores an entry, and the number of it.
fn step_of(plan: &LoadPlan, dump_id: u32) -> (usize, &Step) {
    let at = plan
        .work
        .iter()
        .position(|work| *work == Work::Restore(dump_id))
        .unwrap();
    (at, &plan.steps[at])
}

const MIB: u64 = 1 << 20;

#[test]
fn an_index_waits_for_its_own_table_only() {
    let entries = [
        entry(1, "TABLE", "a", &[]),
        entry(2, "TABLE", "b", &[]),
        entry(3, "INDEX", "a_idx", &[1]),
        entry(4, "INDEX", "b_idx", &[2]),
        entry(5, "CONSTRAINT", "b b_pkey", &[2, 2]),
        entry(6, "FK CONSTRAINT", "a a_b_fkey", &[1, 2, 5]),
    ];
    let parts = [
        part("data-0001", &[("a", 100 * MIB)]),
        part("data-0002", &[("b", 10 * MIB)]),
        part("data-0003", &[("b", 20 * MIB)]),
        part("data-rest", &[]),
    ];
    let plan = plan(&entries, &parts);
    assert_eq!(plan.pre_data, [1, 2]);
    assert_eq!(
        plan.work[..4],
        [Work::Load(0), Work::Load(1), Work::Load(2), Work::Load(3)]
    );

    let (_, a_idx) = step_of(&plan, 3);
    assert_eq!(a_idx.after, [0]);
    assert_eq!(a_idx.locks, Locks::Shared(vec![1]));
    let (_, b_idx) = step_of(&plan, 4);
    assert_eq!(b_idx.after, [1, 2], "both pieces");
    let (b_pkey_at, b_pkey) = step_of(&plan, 5);
    assert_eq!(b_pkey.locks, Locks::Exclusive(vec![2]));
    assert!(b_pkey.cost < b_idx.cost, "a table named twice counts once");
    assert!(a_idx.cost > 3 * b_idx.cost);
    let (_, fkey) = step_of(&plan, 6);
    let (a_idx_at, _) = step_of(&plan, 3);
    assert_eq!(
        fkey.after,
        [0, 1, 2, a_idx_at, a_idx_at + 1, b_pkey_at],
        "indexes help"
    );
    assert_eq!(fkey.locks, Locks::Exclusive(vec![1, 2]));
    Schedule::new(plan.steps, 2).unwrap();
}

#[test]
fn large_tables_are_vacuumed_between_indexes_and_foreign_keys() {
    let entries = [
        entry(1, "TABLE", "large", &[]),
        entry(2, "TABLE", "small", &[]),
        entry(3, "TABLE", "größe", &[]),
        entry(4, "TABLE", "other", &[]),
        entry(5, "INDEX", "i", &[1]),
        entry(6, "INDEX", "j", &[2]),
        entry(7, "FK CONSTRAINT", "small fk", &[1, 2, 3]),
        entry(8, "FK CONSTRAINT", "large fk", &[1, 2]),
    ];
    let parts = [
        part("data-0001", &[("large", 10 * MIB), ("other", 10 * MIB)]),
        part("data-rest", &[("small", MIB), ("größe", 10 * MIB)]),
    ];
    let plan = LoadPlan::new(&entries, &parts, Omit::default());
    let vacuum = Work::Vacuum("\"public\".\"large\"".to_owned());
    let expected = [
        Work::Load(0),
        Work::Load(1),
        Work::Restore(5),
        Work::Restore(6),
        vacuum,
        Work::Restore(7),
        Work::Restore(8),
    ];
    assert_eq!(
        plan.work, expected,
        "once, and only names that need no conversion"
    );
    assert_eq!(
        plan.steps[4].after,
        [0, 1, 2],
        "all loads and its own indexes"
    );
    assert_eq!(plan.steps[4].locks, Locks::Exclusive(vec![1]));
    assert_eq!(step_of(&plan, 7).1.after, [0, 1, 2, 3, 4]);
    assert_eq!(step_of(&plan, 8).1.after, [0, 1, 2, 3, 4]);
    assert_eq!(plan.vacuumed().len(), 1);
}

#[test]
fn partitions_count_as_their_parent() {
    let entries = [
        entry(1, "TABLE", "p", &[]),
        entry(2, "TABLE", "p1", &[]),
        entry(3, "TABLE", "p2", &[]),
        entry(4, "TABLE ATTACH", "p1", &[2, 1]),
        entry(5, "TABLE ATTACH", "p2", &[3, 1]),
        entry(6, "CONSTRAINT", "p p_pkey", &[1, 1]),
        entry(7, "CONSTRAINT", "p1 p1_pkey", &[2, 6]),
        entry(8, "INDEX ATTACH", "p1_pkey", &[6, 7, 2, 1]),
        entry(9, "TRIGGER", "p t", &[1]),
    ];
    let parts = [
        part("data-0001", &[("p1", 1)]),
        part("data-0002", &[("p2", 1)]),
    ];
    let plan = plan(&entries, &parts);
    assert_eq!(
        plan.pre_data,
        [1, 2, 3, 4, 5, 6],
        "the parent's key has no rows to wait for"
    );
    assert_eq!(
        step_of(&plan, 7).1.after,
        [0],
        "nor does its partition's wait for others"
    );
    assert_eq!(step_of(&plan, 8).1.locks, Locks::Exclusive(vec![1, 2]));
    let (_, trigger) = step_of(&plan, 9);
    assert_eq!(trigger.after, [0, 1], "it would fire in the partitions");
    assert_eq!(trigger.locks, Locks::Exclusive(vec![1, 2, 3]));
}

#[test]
fn rows_of_hash_partitions_may_go_to_any_of_them() {
    let mut root = entry(1, "TABLE", "p", &[]);
    root.defn = Some("CREATE TABLE public.p (k x NOT NULL) PARTITION BY HASH (k);".into());
    let entries = [
        root,
        entry(2, "TABLE", "p1", &[1]),
        entry(3, "TABLE", "p2", &[1]),
        entry(4, "INDEX", "p1_idx", &[2]),
    ];
    let parts = [
        part("data-0001", &[("p1", 1)]),
        part("data-0002", &[("p2", 1)]),
    ];
    assert_eq!(step_of(&plan(&entries, &parts), 4).1.after, [0, 1]);
}

#[test]
fn the_key_of_a_table_with_heirs_waits_for_its_rows() {
    let entries = [
        entry(1, "TABLE", "parent", &[]),
        entry(2, "TABLE", "child", &[1]),
        entry(3, "CONSTRAINT", "parent parent_pkey", &[1]),
    ];
    let parts = [part("data-rest", &[("parent", 1), ("child", 1)])];
    let plan = plan(&entries, &parts);
    assert_eq!(plan.pre_data, [1, 2]);
    assert_eq!(step_of(&plan, 3).1.after, [0]);
}

#[test]
fn a_table_that_no_part_names_waits_for_all() {
    let entries = [
        entry(1, "TABLE", "gr\u{fffd}\u{fffd}e", &[]),
        entry(2, "INDEX", "i", &[1]),
    ];
    let parts = [
        part("data-0001", &[("a", 1)]),
        part("data-rest", &[("b", 1)]),
    ];
    assert_eq!(step_of(&plan(&entries, &parts), 2).1.after, [0, 1]);
}

#[test]
fn privileges_and_event_triggers_come_last() {
    let entries = [
        entry(1, "TABLE", "a", &[]),
        entry(2, "COMMENT", "TABLE a", &[1]),
        entry(3, "ACL", "TABLE a", &[1]),
        entry(4, "MATERIALIZED VIEW", "m", &[1]),
        entry(5, "TRIGGER", "a t", &[1]),
        entry(6, "COMMENT", "TRIGGER t ON a", &[5]),
        entry(7, "DEFAULT ACL", "DEFAULT PRIVILEGES FOR TABLES", &[]),
        entry(8, "EVENT TRIGGER", "e", &[]),
        entry(9, "COMMENT", "EVENT TRIGGER e", &[8]),
        entry(10, "MATERIALIZED VIEW DATA", "m", &[4]),
    ];
    let plan = plan(&entries, &[part("data-rest", &[("a", 1)])]);
    assert_eq!(plan.pre_data, [1, 2, 4]);
    let passes: Vec<(u32, Pass)> = [3, 5, 6, 7, 8, 9, 10]
        .into_iter()
        .map(|id| (id, step_of(&plan, id).1.pass))
        .collect();
    let expected = [
        (3, Pass::Privileges),
        (5, Pass::Main),
        (6, Pass::Main),
        (7, Pass::Privileges),
        (8, Pass::EventTriggers),
        (9, Pass::EventTriggers),
        (10, Pass::Refresh),
    ];
    assert_eq!(passes, expected);
    let (trigger_at, trigger) = step_of(&plan, 5);
    let (_, comment) = step_of(&plan, 6);
    assert_eq!(comment.after, [trigger_at]);
    assert_eq!(comment.locks, trigger.locks, "it locks the trigger's table");
    assert_eq!(
        step_of(&plan, 3).1.locks,
        step_of(&plan, 7).1.locks,
        "GRANTs collide"
    );
}

#[test]
fn unknown_kinds_run_alone_after_the_data() {
    let entries = [
        entry(1, "TABLE", "a", &[]),
        entry(2, "PROPERTY GRAPH", "g", &[]),
    ];
    let parts = [part("data-0001", &[("a", 1)]), part("data-rest", &[])];
    let plan = plan(&entries, &parts);
    let (_, step) = step_of(&plan, 2);
    assert_eq!(step.locks, Locks::Everything);
    assert_eq!(step.after, [0, 1]);
}

#[test]
fn a_dependency_on_what_stands_later_is_none() {
    let entries = [
        entry(1, "TABLE", "a", &[]),
        entry(2, "INDEX", "i", &[3, 1]),
        entry(3, "INDEX", "j", &[2, 1]),
    ];
    let plan = plan(&entries, &[]);
    let (first, step) = step_of(&plan, 2);
    assert_eq!(step.after, [0_usize; 0]);
    assert_eq!(step_of(&plan, 3).1.after, [first]);
}

#[test]
fn what_owners_or_superusers_need_can_be_left_out() {
    let mut all = entry(4, "PUBLICATION", "everything", &[]);
    all.defn =
        Some("CREATE PUBLICATION everything FOR ALL TABLES WITH (publish = 'insert');".into());
    let entries = [
        entry(1, "DATABASE", "shop", &[]),
        entry(2, "ACL", "DATABASE shop", &[1]),
        entry(3, "ACL", "SCHEMA public", &[]),
        all,
        entry(5, "PUBLICATION", "some", &[]),
        entry(6, "EVENT TRIGGER", "e", &[]),
    ];
    let omit = Omit {
        vacuum: false,
        privileges: true,
        superuser_objects: true,
        ..Omit::default()
    };
    let plan = LoadPlan::new(&entries, &[], omit);
    assert_eq!(plan.work, [Work::Restore(5)]);
    assert_eq!(
        plan.left_out,
        ["PUBLICATION public.everything", "EVENT TRIGGER public.e"]
    );
}

#[test]
fn what_was_not_selected_delays_nothing() {
    let entries = [
        entry(1, "TABLE", "a", &[]),
        entry(2, "TABLE", "b", &[]),
        entry(3, "TABLE ATTACH", "b", &[2, 1]),
        entry(4, "INDEX", "i", &[1]),
        entry(5, "INDEX", "j", &[2]),
        entry(6, "COMMENT", "INDEX i", &[4]),
    ];
    let chosen = HashSet::from([1, 4, 6]);
    let omit = Omit {
        all_but: Some(&chosen),
        ..Omit::default()
    };
    let parts = [part("data-0001", &[("a", 1)])];
    let plan = LoadPlan::new(&entries, &parts, omit);
    assert_eq!(plan.pre_data, [1]);
    let expected = [Work::Load(0), Work::Restore(4), Work::Restore(6)];
    assert_eq!(plan.work, expected);
    assert_eq!(step_of(&plan, 4).1.after, [0]);
    let plan = LoadPlan::new(&entries, &[], omit);
    assert_eq!(step_of(&plan, 4).1.after, [0_usize; 0]);
}

#[test]
fn a_check_of_a_domain_waits_for_all_rows() {
    let mut entries = [
        entry(1, "TABLE", "a", &[]),
        entry(2, "DOMAIN", "d", &[]),
        entry(3, "CHECK CONSTRAINT", "d small", &[2]),
        entry(4, "CHECK CONSTRAINT", "a few", &[1]),
    ];
    entries[1].section = Section::PreData;
    let parts = [
        part("data-0001", &[("a", MIB)]),
        part("data-rest", &[("b", MIB)]),
    ];
    let plan = plan(&entries, &parts);
    assert_eq!(step_of(&plan, 3).1.after, [0, 1]);
    assert_eq!(step_of(&plan, 4).1.after, [0]);
}

#[test]
fn list_files_name_ids_only() {
    assert_eq!(list_file(&[7, 12]), "7;\n12;\n");
}

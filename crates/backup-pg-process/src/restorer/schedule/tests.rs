use super::*;
use proptest::prelude::*;

fn step(after: &[usize], cost: u64) -> Step {
    Step {
        after: after.to_vec(),
        pass: Pass::Main,
        locks: Locks::Exclusive(Vec::new()),
        cost,
        batchable: true,
    }
}

fn schedule(steps: Vec<Step>, jobs: usize) -> Schedule {
    Schedule::new(steps, jobs).unwrap()
}

#[test]
fn a_cycle_is_refused() {
    let steps = vec![step(&[1], 1), step(&[0], 1)];
    assert_eq!(
        Schedule::new(steps, 2).unwrap_err(),
        CycleError { step: 0, on: 1 }
    );
    let own = vec![step(&[0], 1)];
    assert!(Schedule::new(own, 2).is_err());
}

#[test]
fn nothing_to_do_is_done() {
    let mut schedule = schedule(Vec::new(), 2);
    assert!(schedule.is_finished());
    assert_eq!(schedule.next(), None);
}

#[test]
fn the_longest_chain_starts_first() {
    // 0 is larger than 1, but 2 waits for 1 and is larger than both.
    let mut schedule = schedule(
        vec![
            step(&[], 5 * ALONE),
            step(&[], 2 * ALONE),
            step(&[1], 9 * ALONE),
        ],
        1,
    );
    let mut order = Vec::new();
    while let Some(batch) = schedule.next() {
        schedule.finish(&batch);
        order.extend(batch);
    }
    assert_eq!(order, [1, 2, 0]);
}

#[test]
fn small_steps_share_a_process_and_may_build_on_each_other() {
    let mut steps = vec![step(&[], 10); 3];
    steps.push(step(&[0, 1], 10));
    steps.push(step(&[], ALONE));
    steps.push(step(&[4], 10));
    let mut schedule = schedule(steps, 2);
    assert_eq!(schedule.next().unwrap(), [4]);
    assert_eq!(schedule.next().unwrap(), [0, 1, 2, 3]);
    assert_eq!(schedule.next(), None);
    schedule.finish(&[4]);
    assert_eq!(schedule.next().unwrap(), [5]);
    schedule.finish(&[5]);
    assert!(!schedule.is_finished());
    schedule.finish(&[0, 1, 2, 3]);
    assert!(schedule.is_finished());
}

#[test]
fn many_small_steps_are_dealt_to_all_slots() {
    let steps = vec![step(&[], MEBIBYTE); 40];
    let mut schedule = schedule(steps, 4);
    let sizes: Vec<usize> = (0..3).map(|_| schedule.next().unwrap().len()).collect();
    assert_eq!(sizes, [10, 7, 5]);
}

#[test]
fn indexes_of_one_table_run_together_and_constraints_alone() {
    let lock = |locks| Step {
        locks,
        batchable: false,
        ..step(&[], 1)
    };
    let mut schedule = schedule(
        vec![
            lock(Locks::Shared(vec![7])),
            lock(Locks::Shared(vec![7])),
            lock(Locks::Exclusive(vec![7])),
            lock(Locks::Exclusive(vec![8])),
            lock(Locks::Everything),
        ],
        8,
    );
    for expected in [0, 1, 3] {
        assert_eq!(schedule.next().unwrap(), [expected]);
    }
    assert_eq!(schedule.next(), None);
    schedule.finish(&[0]);
    assert_eq!(schedule.next(), None);
    schedule.finish(&[1]);
    assert_eq!(schedule.next().unwrap(), [2]);
    schedule.finish(&[2]);
    assert_eq!(schedule.next(), None, "3 is still running");
    schedule.finish(&[3]);
    assert_eq!(schedule.next().unwrap(), [4]);
}

#[test]
fn passes_follow_each_other() {
    let pass = |pass| Step {
        pass,
        ..step(&[], 1)
    };
    let mut schedule = schedule(
        vec![
            pass(Pass::EventTriggers),
            pass(Pass::Privileges),
            pass(Pass::Main),
            pass(Pass::Refresh),
        ],
        2,
    );
    for expected in [2, 1, 3, 0] {
        assert_eq!(schedule.next().unwrap(), [expected]);
        assert_eq!(schedule.next(), None);
        schedule.finish(&[expected]);
    }
    assert!(schedule.is_finished());
}

fn any_locks() -> impl Strategy<Value = Locks> {
    let ids = || prop::collection::vec(0_u32..6, 0..3);
    prop_oneof![
        5 => ids().prop_map(Locks::Shared),
        5 => ids().prop_map(Locks::Exclusive),
        1 => Just(Locks::Everything),
    ]
}

fn any_step() -> impl Strategy<Value = (Vec<prop::sample::Index>, Step)> {
    let pass = prop_oneof![
        6 => Just(Pass::Main),
        1 => Just(Pass::Privileges),
        1 => Just(Pass::Refresh),
        1 => Just(Pass::EventTriggers),
    ];
    let after = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
    let cost = prop_oneof![0..MEBIBYTE, 0..20 * MEBIBYTE];
    (after, pass, any_locks(), cost, any::<bool>()).prop_map(
        |(after, pass, locks, cost, batchable)| {
            (
                after,
                Step {
                    after: Vec::new(),
                    pass,
                    locks,
                    cost,
                    batchable,
                },
            )
        },
    )
}

/// Steps that depend on lower numbers of the same or an earlier pass, as archives have them.
fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(any_step(), 0..60).prop_map(|drafts| {
        let mut steps = Vec::<Step>::new();
        for (after, mut step) in drafts {
            let candidates: Vec<usize> = (0..steps.len())
                .filter(|&on| steps[on].pass <= step.pass)
                .collect();
            if !candidates.is_empty() {
                step.after = after.iter().map(|index| *index.get(&candidates)).collect();
                step.after.sort_unstable();
                step.after.dedup();
            }
            steps.push(step);
        }
        steps
    })
}

fn conflict(a: &Locks, b: &Locks) -> bool {
    match (a, b) {
        (Locks::Everything, _) | (_, Locks::Everything) => true,
        (Locks::Shared(_), Locks::Shared(_)) => false,
        (Locks::Shared(a) | Locks::Exclusive(a), Locks::Shared(b) | Locks::Exclusive(b)) => {
            a.iter().any(|id| b.contains(id))
        }
    }
}

proptest! {
    #[test]
    fn each_step_runs_once_in_a_possible_order(
        steps in any_steps(),
        jobs in 1_usize..5,
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..40),
    ) {
        let mut schedule = schedule(steps.clone(), jobs);
        let mut picks = picks.into_iter().cycle();
        let mut running = Vec::<Vec<usize>>::new();
        let mut done = vec![false; steps.len()];
        let mut started = vec![false; steps.len()];
        loop {
            while running.len() < jobs
                && let Some(batch) = schedule.next()
            {
                prop_assert!(!batch.is_empty());
                for (at, &id) in batch.iter().enumerate() {
                    prop_assert!(!started[id], "{id} twice");
                    started[id] = true;
                    for on in &steps[id].after {
                        prop_assert!(done[*on] || batch[..at].contains(on), "{id} before {on}");
                    }
                    for other in running.iter().flatten() {
                        prop_assert!(!conflict(&steps[id].locks, &steps[*other].locks));
                    }
                    let earlier = (0..steps.len()).filter(|&e| steps[e].pass < steps[id].pass);
                    prop_assert!(earlier.into_iter().all(|e| done[e]));
                }
                prop_assert!(batch.len() == 1 || batch.iter().all(|&id| steps[id].is_small()));
                running.push(batch);
            }
            if running.is_empty() {
                break;
            }
            let index = picks.next().unwrap().index(running.len());
            let batch = running.swap_remove(index);
            schedule.finish(&batch);
            for id in batch {
                done[id] = true;
            }
        }
        prop_assert!(schedule.is_finished());
        prop_assert!(done.iter().all(|&done| done), "stuck");
    }

    #[test]
    fn one_heavy_chain_never_waits_for_small_steps(small in 1_usize..50) {
        let mut steps = vec![step(&[], 20 * MEBIBYTE)];
        steps.extend(vec![step(&[], 100); small]);
        steps.push(step(&[0], 20 * MEBIBYTE));
        let mut schedule = schedule(steps, 2);
        prop_assert_eq!(schedule.next().unwrap(), [0]);
        schedule.finish(&[0]);
        prop_assert_eq!(schedule.next().unwrap(), [small + 1]);
    }
}

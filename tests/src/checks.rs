//! The thirty acceptance checks that a release passes, in words.

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Its number; tests of it are called `check_NN_…`.
    pub number: u8,
    /// What it is about.
    pub title: &'static str,
    /// What is given, what happens, and what must then hold.
    pub words: &'static str,
}

const fn check(number: u8, title: &'static str, words: &'static str) -> Check {
    Check {
        number,
        title,
        words,
    }
}

/// All of them, in order.
pub const CHECKS: [Check; 30] = [
    check(
        1,
        "A damaged backup never touches live",
        "Given a live database, when the backup is cut, flipped, missing a piece or opened with the wrong \
         key, then a restore that would replace live fails, live has the content it had, and no scratch \
         database stays.",
    ),
    check(
        2,
        "A dump that fails is no backup",
        "Given a pg_dump that writes 20 MB and then fails or is killed, then nothing new is stored, no \
         upload stays open, the record says failed and why, and older backups are as good as before.",
    ),
    check(
        3,
        "Retention survives 400 days of failure",
        "Given good backups and 400 days of failing runs with daily retention, then the minimum of good \
         backups stays and there was an alarm each day.",
    ),
    check(
        4,
        "Everything comes back on a bare machine",
        "Given databases with every kind of object, and random ones, when they are restored from nothing \
         but the bucket and the key, by roles that are no superusers, then definitions and rows are equal.",
    ),
    check(
        5,
        "Every flipped bit and every cut is found",
        "Given an encrypted backup, when it is cut at every border of its encryption or any byte is \
         changed, then verify fails and names the object.",
    ),
    check(
        6,
        "A hostile name is only a name",
        "Given databases whose names are connection strings, options, paths and SQL, then each backup \
         holds its own database, and nothing connects to where a name points.",
    ),
    check(
        7,
        "No secret is ever said",
        "Given unmistakable secrets of every kind, when the suite runs with all its failures, then none \
         is in any output, log, record, message, stored object or command line.",
    ),
    check(
        8,
        "Killed anywhere, the old state or the new one",
        "Given a run that is killed before each thing it does to a store, a server or a file, then what \
         is left is whole, nobody stays behind, the next run succeeds, but for a restore \
         that finds its target there, which is refused, and what the dead left is swept.",
    ),
    check(
        9,
        "An exchange of databases is all or nothing",
        "Given clients on live, when an exchange is killed before each of its steps, then the name leads \
         to exactly one of the two, connections are allowed, owner, grants and settings are the same.",
    ),
    check(
        10,
        "Planted code gets nowhere",
        "Given a dump with functions that run programs, names with line ends and commands for psql, when \
         it is restored, then no program runs, and psql never does.",
    ),
    check(
        11,
        "A store that falls silent ends the run",
        "Given a store that stops answering with its connections open, then the run fails in bounded time \
         and the dump's transaction is gone.",
    ),
    check(
        12,
        "Refusals, resets and lies of a store",
        "Given a store that refuses, resets or confirms what it has not done, then the backup succeeds by \
         trying again and verifies; when it never stops, the run fails in time and aborts.",
    ),
    check(
        13,
        "A slow restore is no failed restore",
        "Given a download slower than every timeout of its client, and connections that are reset, then \
         the restore completes.",
    ),
    check(
        14,
        "One run at a time",
        "Given a run in progress, then a second one is refused at once and told who is at it; after the \
         first was killed, the next goes on at once.",
    ),
    check(
        15,
        "A locked table is named, and blocks nobody",
        "Given a table that is locked, then the backup fails within its limit, names the holder, and no \
         other query waited for it longer.",
    ),
    check(
        16,
        "Missing rights are found before they cost",
        "Given row security, subscriptions and large objects that a login may not read, then doctor names \
         each, and no partial dump is taken for a whole one.",
    ),
    check(
        17,
        "A wrong clock deletes nothing",
        "Given a clock ten years ahead or a day behind, then retention refuses and nothing goes.",
    ),
    check(
        18,
        "The store is the only truth",
        "Given that everything kept beside the store is lost, then the list is what it was.",
    ),
    check(
        19,
        "Thousands of objects, and none but ours",
        "Given 2,500 objects, neighbours with like names and foreign objects, then all are seen, and only \
         our own expired ones go.",
    ),
    check(
        20,
        "A full disk",
        "Given a destination without room, then the run fails, leaves no piece, older backups stay good, \
         and the next run succeeds when there is room.",
    ),
    check(
        21,
        "Asked to stop, it stops",
        "Given SIGTERM at 20 moments of a backup, then it exits with 143 in time, uploads are aborted, and \
         the turn is free.",
    ),
    check(
        22,
        "Memory is bounded",
        "Given a store that is at least five times slower than it could be, as a rule twenty, then memory stays below 256 MiB.",
    ),
    check(
        23,
        "Limits of uploads are kept",
        "Given a store that takes few parts, or equal ones only, then what is longer is split or refused \
         before the first byte, and all parts but the last are equal.",
    ),
    check(
        24,
        "Nobody does what he may not",
        "Given every route and every role, for sources of one's own and others', with hostile ids, then \
         each answer is the one in the table; without TLS no public address is served.",
    ),
    check(
        25,
        "The bot knows its people",
        "Given every kind of update from strangers, groups and replays, then there is no answer and no \
         job; without a list of people it does not start.",
    ),
    check(
        26,
        "Versions that do not fit are refused",
        "Given a client older than the server, or a dump newer than the target, then the run is refused \
         before any work, with both versions named.",
    ),
    check(
        27,
        "Every scheduled day has one run",
        "Given five zones with their changes of the hour and two years of time, then each day has exactly \
         one run, and weeks, months and years have no gap and no double.",
    ),
    check(
        28,
        "A drill tells the truth",
        "Given backups that are good, damaged or do not restore, then the drill says which level passed \
         and names what did not, metrics say so too, and nothing stays behind, even when it is killed.",
    ),
    check(
        29,
        "What is locked stays",
        "Given a store that locks objects, and a pinned backup, then uploads work, nothing pinned is ever \
         deleted, and a manifest that was exchanged is found.",
    ),
    check(
        30,
        "Old backups stay readable",
        "Given backups of every released format, when this build restores them, then they hold what they \
         held.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_order() {
        let numbers: Vec<_> = CHECKS.iter().map(|check| check.number).collect();
        assert_eq!(numbers, (1..=30).collect::<Vec<_>>());
    }
}

//! `pg_restore` played by shell scripts.

use std::time::Instant;

use backup_core::error::{ErrorKind, PortError};
use bytes::Bytes;
use futures::stream;
use rstest::rstest;
use tempfile::TempDir;

use super::*;

/// A script that plays `pg_restore`, and a directory for what it leaves.
struct Fake {
    directory: TempDir,
    pg_restore: PgRestore,
}

impl Fake {
    /// `$DIR` is the directory.
    fn new(script: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let program = directory.path().join("pg_restore");
        let place = directory.path().display();
        let text = format!("#!/bin/sh\nDIR='{place}'\n{script}\n");
        backup_testing::write_program(&program, &text).unwrap();
        let env = ToolEnv::default().set("PATH", "/usr/bin:/bin");
        let pg_restore = PgRestore::new(program, env, "it's \\ one");
        Self {
            directory,
            pg_restore,
        }
    }

    fn file(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.directory.path().join(name)).ok()
    }

    async fn entries(&self) -> Result<Vec<String>, RestoreError> {
        let cancel = CancellationToken::new();
        self.pg_restore
            .entries(Path::new("/a"), Path::new("/l"), &cancel)
            .await
    }

    async fn part(&self, body: BodyStream) -> Result<Vec<String>, RestoreError> {
        let part = PartName::new("data-0001").unwrap();
        self.pg_restore
            .part(&part, body, None, &CancellationToken::new())
            .await
    }
}

/// `chunks` times 64 KiB, and then perhaps an error.
fn body(chunks: usize, end: Option<PortError>) -> BodyStream {
    let chunk = Bytes::from(vec![b'x'; 64 << 10]);
    let whole = stream::iter(vec![chunk; chunks]).map(Ok);
    whole
        .chain(stream::iter(end.map(|error| Err(error.into_io()))))
        .boxed()
}

fn corrupt() -> PortError {
    PortError::new(ErrorKind::Corrupt, "part data-0001 is damaged")
}

#[tokio::test]
async fn the_database_is_named_as_a_connection_string() {
    let fake = Fake::new("printf '%s\\n' \"$@\" > \"$DIR/args\"");
    assert_eq!(fake.entries().await.unwrap(), [""; 0]);
    let args = fake.file("args").unwrap();
    assert!(
        args.contains("--dbname\ndbname='it\\'s \\\\ one'\n"),
        "{args}"
    );
    assert!(args.contains("--use-list\n/l\n/a\n"), "{args}");
}

#[rstest]
#[case::harmless(
    "echo 'pg_restore: error: could not execute query: ERROR:  must be owner of extension x' >&2
     echo \"Command was: COMMENT ON EXTENSION x IS 'y';\" >&2
     echo 'pg_restore: warning: errors ignored on restore: 1' >&2; exit 1",
    None
)]
#[case::warning("echo 'pg_restore: warning: odd' >&2", None)]
#[case::index(
    "echo 'pg_restore: error: could not execute query: ERROR:  could not create unique index' >&2
     echo 'Command was: CREATE UNIQUE INDEX i ON t (a);' >&2
     echo 'pg_restore: warning: errors ignored on restore: 1' >&2; exit 1",
    Some("could not create unique index")
)]
#[case::copy(
    "echo 'pg_restore: error: COPY failed for table \"t\": ERROR:  bad line' >&2
     echo 'pg_restore: warning: errors ignored on restore: 1' >&2; exit 1",
    Some("COPY failed for table")
)]
#[case::gave_up(
    "echo 'pg_restore: error: did not find magic string' >&2; exit 1",
    Some("magic")
)]
#[case::silent("exit 1", Some("exited with 1"))]
#[case::other_status("echo 'pg_restore: warning: odd' >&2; exit 3", Some("exited with 3"))]
#[case::signal("kill -9 $$", Some("signal 9"))]
#[case::flood(
    "i=0; while [ $i -lt 20000 ]; do echo 'pg_restore: warning: again and again and again' >&2
     i=$((i+1)); done; echo 'pg_restore: warning: errors ignored on restore: 1' >&2; exit 1",
    Some("exited with 1")
)]
#[tokio::test]
async fn every_end_is_judged(#[case] script: &str, #[case] failure: Option<&str>) {
    let done = Fake::new(script).entries().await;
    match (done, failure) {
        (Ok(warnings), None) => assert_eq!(warnings.len(), 1, "{warnings:?}"),
        (Err(RestoreError::Entry { words, .. }), Some(text)) => {
            assert!(words.0.contains(text), "{}", words.0);
        }
        (done, expected) => panic!("{done:?} instead of {expected:?}"),
    }
}

#[tokio::test]
async fn a_body_goes_in_whole() {
    let fake = Fake::new("wc -c > \"$DIR/count\"");
    fake.part(body(100, None)).await.unwrap();
    assert_eq!(
        fake.file("count").unwrap().trim(),
        (100 * (64 << 10)).to_string()
    );
}

#[tokio::test]
async fn some_of_a_body_is_named_by_a_list() {
    let fake = Fake::new("printf '%s\\n' \"$@\" > \"$DIR/args\"; head -c 1000 > /dev/null");
    let part = PartName::new("data-0001").unwrap();
    let some = |body| {
        let cancel = CancellationToken::new();
        let (fake, part) = (&fake, &part);
        async move {
            let list = Some(Path::new("/l"));
            fake.pg_restore.part(part, body, list, &cancel).await
        }
    };
    some(body(100, None)).await.unwrap();
    let args = fake.file("args").unwrap();
    assert!(args.ends_with("--use-list\n/l\n"), "{args}");
    let error = some(body(100, Some(corrupt()))).await.unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Corrupt,
        "behind all that is wanted"
    );
}

#[tokio::test]
async fn a_body_that_fails_is_never_ended() {
    let fake = Fake::new("cat > /dev/null; echo done > \"$DIR/end-of-file\"");
    let error = fake.part(body(3, Some(corrupt()))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(
        PortError::from(error).to_string(),
        "part data-0001 is damaged"
    );
    assert_eq!(fake.file("end-of-file"), None);
}

#[tokio::test]
async fn a_program_that_dies_early_is_the_reason() {
    let fake = Fake::new(
        "head -c 1000 > /dev/null
         echo 'pg_restore: error: connection to server was lost' >&2; exit 1",
    );
    let error = fake.part(body(1000, None)).await.unwrap_err();
    let RestoreError::Entry { what, words } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(what, "part data-0001");
    assert!(words.0.contains("connection to server was lost"));
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn damage_explains_a_failure_better_than_its_victim() {
    let fake = Fake::new(
        "head -c 1000 > /dev/null
         echo 'pg_restore: error: COPY failed for table \"t\"' >&2; exit 1",
    );
    let error = fake.part(body(100, Some(corrupt()))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn damage_after_what_the_program_reads_counts() {
    let fake = Fake::new("head -c 1000 > /dev/null");
    fake.part(body(100, None)).await.unwrap();
    let error = fake.part(body(100, Some(corrupt()))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[rstest]
#[case::obedient("exec sleep 600")]
#[case::reading("cat > /dev/null; exec sleep 600")]
#[case::deaf("trap '' TERM; while :; do sleep 1; done")]
#[tokio::test]
async fn cancelling_ends_a_program_that_hangs(#[case] script: &str) {
    let fake = Fake::new(&format!("echo $$ > \"$DIR/pid\"\n{script}"));
    let cancel = CancellationToken::new();
    let part = PartName::new("data-0001").unwrap();
    let endless = stream::once(async { Ok(Bytes::from_static(b"x")) })
        .chain(stream::pending())
        .boxed();
    let loading = fake.pg_restore.part(&part, endless, None, &cancel);
    let started = Instant::now();
    let stopper = async {
        while fake.file("pid").is_none_or(|pid| pid.trim().is_empty()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        cancel.cancel();
    };
    let (done, ()) = tokio::join!(loading, stopper);
    assert_eq!(done.unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(started.elapsed() < Duration::from_mins(2));
    let pid = fake.file("pid").unwrap();
    assert!(!Path::new("/proc").join(pid.trim()).exists());
}

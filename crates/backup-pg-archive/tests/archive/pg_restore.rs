//! Archives of our own, read by the real `pg_restore` from a pipe. No server is needed.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::writer::{spec, write};

const ROWS: &[u8] = b"1\ta\tb\tc\n2\t\\N\t\t\\\\\n";

/// Runs `$PG_RESTORE`, else the `pg_restore` of PATH, with `archive` as its standard input.
#[expect(
    clippy::disallowed_methods,
    reason = "which tool to test against is the caller's choice"
)]
fn pg_restore(archive: Vec<u8>, args: &[&str]) -> (bool, String) {
    let tool = std::env::var_os("PG_RESTORE").unwrap_or_else(|| "pg_restore".into());
    let mut child = Command::new(tool)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("pg_restore starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let feeder = std::thread::spawn(move || stdin.write_all(&archive));
    let output = child.wait_with_output().expect("its output");
    // It may stop reading early; that is not what these tests are about.
    let _ = feeder.join().expect("no panic");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    (output.status.success(), text)
}

#[test]
#[ignore = "needs pg_restore of PostgreSQL 12 or later, in PATH or as $PG_RESTORE"]
fn pg_restore_prints_our_rows() {
    let archive = write(&spec(), &[&ROWS[..5], &ROWS[5..]]).unwrap();
    let (success, script) = pg_restore(archive, &["-f", "-"]);
    assert!(success);
    assert!(
        script.contains("SET client_encoding = 'UTF8';\n"),
        "{script}"
    );
    assert!(
        script.contains("set_config('search_path', '', false);"),
        "{script}"
    );
    let statement = "COPY \"Odd \"\"schema\"\".\".\"Таблица \"\".\\ with\nnewline\" \
                     (\"select\", \"a,b\", \"c\"\"d\", \"юни код\") FROM stdin;\n";
    let rows = String::from_utf8(ROWS.to_vec()).unwrap();
    let copy = format!("{statement}{rows}\\.\n\n\n");
    assert!(script.contains(&copy), "{script}");
}

#[test]
#[ignore = "needs pg_restore of PostgreSQL 12 or later, in PATH or as $PG_RESTORE"]
fn pg_restore_refuses_our_archive_when_cut() {
    let archive = write(&spec(), &[ROWS]).unwrap();
    let cut = archive[..archive.len() - 12].to_vec();
    assert!(!pg_restore(cut, &["-f", "-"]).0);
}

#[test]
#[ignore = "needs pg_restore of PostgreSQL 12 or later, in PATH or as $PG_RESTORE"]
fn pg_restore_lists_our_entry() {
    let archive = write(&spec(), &[ROWS]).unwrap();
    let (success, list) = pg_restore(archive, &["-l"]);
    assert!(success);
    assert!(
        list.contains("4; 0 16385 TABLE DATA Odd \"schema\". "),
        "{list}"
    );
    assert!(list.contains("Compression: "), "{list}");
}

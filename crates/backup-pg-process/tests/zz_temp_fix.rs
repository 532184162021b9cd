use backup_core::body::collect;
use backup_core::dumper::*;
use backup_pg_process::*;
use tokio_util::sync::CancellationToken;
async fn psql(db: &str, sql: &str) -> String {
    let o = std::process::Command::new("/var/cache/pg-backup-test/postgresql-17.11.0/bin/psql")
        .args([
            "-XAt",
            "-h",
            "/tmp/fixd1079",
            "-p",
            "5977",
            "-U",
            "postgres",
            "-d",
            db,
            "-c",
            sql,
        ])
        .output()
        .unwrap();
    format!(
        "{}{}",
        String::from_utf8_lossy(&o.stdout),
        String::from_utf8_lossy(&o.stderr)
    )
}
fn config(user: &str, db: &str) -> PgDumperConfig {
    let mut c = ConnectionConfig::new("/tmp/fixd1079", user);
    c.port = 5977;
    let mut c = PgDumperConfig::new(
        c,
        db,
        ToolLocator::only_in(["/var/cache/pg-backup-test/postgresql-17.11.0/bin".into()]),
    );
    c.part_sizes = PartSizes {
        apart: 1 << 20,
        split: 4 << 20,
        range: 1 << 20,
    };
    c
}
#[tokio::test]
async fn latin1() {
    let cancel = CancellationToken::new();
    let s = PgDumper::new(config("postgres", "l1"))
        .open(&DumpRequest { jobs: 4 }, &cancel)
        .await
        .unwrap();
    for p in s.parts() {
        let st = s.part(p, &cancel).await.unwrap();
        let n = collect(st.body, 1 << 30).await.unwrap().len();
        let r = st.report.await.unwrap();
        println!(
            "{} {} {:?}",
            p.name,
            n,
            r.facts
                .tables
                .iter()
                .map(|t| (t.table.to_string(), t.fingerprint.rows))
                .collect::<Vec<_>>()
        );
    }
    s.finish().await.unwrap();
}
#[tokio::test]
async fn filtered() {
    let cancel = CancellationToken::new();
    let mut c = config("lim", "f");
    c.include_globals = false;
    c.filter.tables = vec!["a".into()];
    let s = PgDumper::new(c)
        .open(&DumpRequest { jobs: 4 }, &cancel)
        .await
        .unwrap();
    println!("locks: {}", psql("f", "select relation::regclass, mode from pg_locks where relation in ('a'::regclass,'secret'::regclass,'hid.t'::regclass)").await);
    println!(
        "truncate: {}",
        psql("f", "set lock_timeout='300ms'; truncate a").await
    );
    for p in s.parts() {
        let st = s.part(p, &cancel).await.unwrap();
        collect(st.body, 1 << 30).await.unwrap();
        let r = st.report.await.unwrap();
        println!(
            "{} {:?}",
            p.name,
            r.facts
                .tables
                .iter()
                .map(|t| (t.table.to_string(), t.fingerprint.rows))
                .collect::<Vec<_>>()
        );
    }
    s.finish().await.unwrap();
}

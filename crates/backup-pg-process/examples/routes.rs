//! What a large table costs by each of the two routes of `docs/adr/0001-large-table-route.md`.
//!
//! ```sh
//! cargo run --release --example routes -- HOST PORT USER DATABASE POSTMASTER_PID ROUNDS BIN_DIR
//! ```
//! The database holds one table of more than 256 MiB. Planned for one reader, it is one part by
//! `pg_dump`; planned for two, it is split into ranges that we read, here with one reader and with
//! two at once. CPU seconds are those of this program, of `pg_dump`, and of the server's sessions.
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::error::Error;
use std::time::{Duration, Instant};

use backup_core::dumper::{DumpRequest, DumpSession, Dumper, PartPlan};
use backup_core::facts::Fingerprint;
use backup_core::manifest::PartKind;
use backup_pg_process::{ConnectionConfig, PgDumper, PgDumperConfig, ToolLocator};
use futures::{StreamExt as _, TryStreamExt as _};
use tokio_util::sync::CancellationToken;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Ticks of `/proc/PID/stat`; 100 a second wherever Linux runs.
const TICK: f64 = 0.01;

#[derive(Debug, Clone, Copy)]
struct Cpu {
    own: f64,
    children: f64,
}

fn cpu(pid: &str) -> Result<Cpu> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").ok_or("no name in stat")?;
    let ticks: Vec<f64> = fields
        .split(' ')
        .skip(11)
        .take(4)
        .map(str::parse)
        .collect::<std::result::Result<_, _>>()?;
    Ok(Cpu {
        own: (ticks[0] + ticks[1]) * TICK,
        children: (ticks[2] + ticks[3]) * TICK,
    })
}

struct Route {
    name: &'static str,
    planned_for: usize,
    readers: usize,
}

const ROUTES: [Route; 3] = [
    Route {
        name: "a: pg_dump --table",
        planned_for: 1,
        readers: 1,
    },
    Route {
        name: "b: ranges, one by one",
        planned_for: 2,
        readers: 1,
    },
    Route {
        name: "b: ranges, two at once",
        planned_for: 2,
        readers: 2,
    },
];

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [host, port, user, database, postmaster, rounds, bin_dir] = args.as_slice() else {
        return Err("usage: routes HOST PORT USER DATABASE POSTMASTER_PID ROUNDS BIN_DIR".into());
    };
    let mut connection = ConnectionConfig::new(host, user);
    connection.port = port.parse()?;
    let tools = ToolLocator::only_in([bin_dir.into()]);
    let dumper = PgDumper::new(PgDumperConfig::new(connection, database, tools));
    println!("route, round, wall s, our CPU s, pg_dump CPU s, server CPU s, rows, bytes, hash");
    for round in 0..rounds.parse()? {
        for route in &ROUTES {
            measure(&dumper, route, round, postmaster).await?;
        }
    }
    Ok(())
}

async fn measure(dumper: &PgDumper, route: &Route, round: u32, postmaster: &str) -> Result<()> {
    let cancel = CancellationToken::new();
    let jobs = route.planned_for;
    let session = dumper.open(&DumpRequest { jobs }, &cancel).await?;
    let is_large =
        |part: &&PartPlan| part.kind == PartKind::Data && part.name.as_str() != "data-rest";
    let parts: Vec<PartPlan> = session.parts().iter().filter(is_large).cloned().collect();
    let (client, server, start) = (cpu("self")?, cpu(postmaster)?, Instant::now());
    let sum = futures::stream::iter(parts.iter().map(|part| read(session.as_ref(), part)))
        .buffer_unordered(route.readers)
        .try_fold(Fingerprint::default(), |mut sum, part| async move {
            sum += part;
            Ok(sum)
        })
        .await?;
    let wall = start.elapsed();
    // The server counts a session when it has gone.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (client_after, server_after) = (cpu("self")?, cpu(postmaster)?);
    println!(
        "{}, {round}, {:.2}, {:.2}, {:.2}, {:.2}, {}, {}, {}",
        route.name,
        wall.as_secs_f64(),
        client_after.own - client.own,
        client_after.children - client.children,
        server_after.children - server.children,
        sum.rows,
        sum.bytes,
        sum.hash
    );
    session.finish().await?;
    Ok(())
}

async fn read(session: &dyn DumpSession, part: &PartPlan) -> Result<Fingerprint> {
    let mut stream = session.part(part, &CancellationToken::new()).await?;
    // In a task of its own, as the engine reads it.
    let mut body = backup_core::body::in_own_task(stream.body, 4);
    while body.next().await.transpose()?.is_some() {}
    stream.body = body;
    let report = stream.report.await?;
    let mut sum = Fingerprint::default();
    for table in &report.facts.tables {
        sum += table.fingerprint;
    }
    Ok(sum)
}

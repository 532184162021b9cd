//! A server that looks at the bucket all the time, and somebody who asks it.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::http::Server;
use backup_e2e::scene::{processes_with, wait_for_silence};
use backup_e2e::vault::Vault;

/// Who asks.
const PERSON: &str = "onlooker";

/// How long what the server has open after a look may stay open.
const IDLE: Duration = Duration::from_mins(3);

/// How soon the server must see what others did.
const SOON: Duration = Duration::from_mins(1);

pub(crate) struct Onlooker {
    server: Server,
    source: String,
    pid: u32,
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Costs {
    files: usize,
    memory: u64,
}

impl Costs {
    /// What it may hold when it held `before` at first.
    fn bound(before: Self) -> Self {
        Self {
            files: before.files + 8,
            memory: 2 * before.memory + (64 << 20),
        }
    }
}

impl Display for Costs {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} descriptors and {} MiB",
            self.files,
            self.memory >> 20
        )
    }
}

impl Onlooker {
    /// Starts a server that has this source in this place.
    pub(crate) fn start(vault: &Vault, source: &str) -> Result<Self> {
        let settings = format!(
            "[encryption]\nmode = 'none'\n[destination.near]\nurl = '{}'\n\
             [source.{source}]\ndatabase = '{source}'\ndestinations = ['near']\n",
            vault.url
        );
        let server = Server::start(&vault.cli, &settings, &[(PERSON, "viewer")])?;
        let home = format!("HOME={}", vault.cli.folder().display());
        let mut processes = processes_with(&[home]);
        processes.retain(|process| process.command_line.contains(&server.config));
        ensure!(processes.len() == 1, "servers: {processes:?}");
        Ok(Self {
            pid: processes[0].pid,
            source: source.to_owned(),
            server,
        })
    }

    /// Asks for all that there is, which must be told at any time. The newest backup may be gone since.
    pub(crate) fn look(&self) -> Result<()> {
        self.server.ask("GET", "/readyz", PERSON, "")?.is(200)?;
        for path in ["/api/v1/sources", "/api/v1/runs"] {
            self.server.get(path, PERSON)?;
        }
        if let Some(newest) = self.ids()?.pop() {
            let path = format!("/api/v1/backups/{newest}");
            let answer = self.server.ask("GET", &path, PERSON, "")?;
            if answer.status != 404 {
                let view = answer.is(200)?.json()?;
                ensure!(view["id"] == *newest, "{view}");
            }
        }
        Ok(())
    }

    /// The backups that it shows, the oldest first.
    fn ids(&self) -> Result<Vec<String>> {
        let path = format!("/api/v1/sources/{}/backups?limit=1000", self.source);
        let page = self.server.get(&path, PERSON)?;
        ensure!(page["incomplete"] == serde_json::json!([]), "{page}");
        let items = page["items"].as_array().context("items")?;
        let ids = items
            .iter()
            .map(|item| item["id"].as_str().map(str::to_owned));
        let mut ids: Vec<_> = ids.collect::<Option<_>>().context("ids")?;
        ids.sort();
        Ok(ids)
    }

    /// Waits until it shows these backups.
    pub(crate) fn shows(&self, listed: &[String]) -> Result<()> {
        let mut wanted = listed.to_vec();
        wanted.sort();
        wait_for_silence(SOON, || {
            let shown = self.ids()?;
            let differs = shown != wanted;
            pause_if(differs);
            Ok(differs.then(|| format!("the server shows {shown:?} of {wanted:?}")))
        })
    }

    /// What it holds.
    pub(crate) fn costs(&self) -> Result<Costs> {
        let process = format!("/proc/{}", self.pid);
        let files = fs::read_dir(format!("{process}/fd"))?.count();
        let status = fs::read_to_string(format!("{process}/status"))?;
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let memory = memory.and_then(|text| text.trim().strip_suffix(" kB"));
        let memory: u64 = memory.context("VmRSS")?.parse()?;
        Ok(Costs {
            files,
            memory: memory << 10,
        })
    }

    /// What it holds at rest, which must not be much more than at first.
    pub(crate) fn costs_after(&self, before: Costs) -> Result<Costs> {
        let bound = Costs::bound(before);
        wait_for_silence(IDLE, || {
            let now = self.costs()?;
            let is_more = now.files > bound.files || now.memory > bound.memory;
            pause_if(is_more);
            Ok(is_more.then(|| format!("the server has {now}, and had {before}")))
        })?;
        self.costs()
    }

    pub(crate) fn stop(self) -> Result<()> {
        self.server.stop().map(drop)
    }
}

fn pause_if(again: bool) {
    if again {
        thread::sleep(Duration::from_millis(500));
    }
}

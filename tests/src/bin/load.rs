//! How the server does while many look at it and a backup runs, and what that costs the backup.
//!
//! `load [READERS [SECONDS [ROUNDS [MEGABYTES [PATH]]]]]` fills a folder with 10,000 backups, makes a
//! database, and takes a backup of it alone and while READERS ask for PATH every two seconds, in
//! turns. Without `--release`, it measures the wrong programs; on a machine that does other things,
//! it measures those.

use std::io::Write as _;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::{Cli, Running};
use backup_e2e::pg::Cluster;
use backup_e2e::{crowd, free_port, sample};
use nix::sys::signal::Signal;

const BACKUPS: usize = 10_000;
const EVERY: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_mins(2);

/// What is wanted.
struct Plan {
    readers: u32,
    time: Duration,
    rounds: usize,
    megabytes: u32,
    path: String,
}

/// What the readers saw.
#[derive(Default)]
struct Seen {
    latencies: Vec<Duration>,
    failures: usize,
}

/// The server, and how to ask it.
struct Server {
    running: Running,
    url: String,
    token: String,
    cookie: String,
}

fn main() -> Result<()> {
    let plan = Plan::from_arguments()?;
    let cluster = Cluster::shared(17)?;
    let database = cluster.fresh_db("load")?;
    cluster.psql(&database, &sample::bulk_sql("app", "bulk", plan.megabytes))?;
    let cli = Cli::new(cluster)?;
    std::fs::create_dir_all(cli.local_root())?;
    crowd::into_directory(&cli.local_root(), &crowd::members(BACKUPS)?)?;
    let settings = format!(
        "[encryption]\nmode = 'none'\n[destination.near]\nurl = '{}'\n\
         [source.load]\ndatabase = '{database}'\ndestinations = ['near']\n",
        cli.local_store()
    );
    let config = cli.private_file("backup.toml", &settings)?;
    let back_up = || -> Result<Duration> {
        let taken = cli.run(["--config", &config, "backup", "load", "--json"])?;
        Ok(taken.exits(0)?.elapsed)
    };
    back_up()?;
    let (mut alone, mut watched) = (Vec::new(), Vec::new());
    let mut all = Seen::default();
    for round in 1..=plan.rounds {
        alone.push(back_up()?);
        let server = Server::start(&cli, &settings)?;
        let (seen, elapsed) = server.watched(&plan, &back_up)?;
        watched.push(elapsed);
        let memory = server.memory()?;
        server.running.signal(Signal::SIGTERM)?;
        server.running.wait_at_most(LIMIT)?.exits(0)?;
        say(&format!("round {round}: {}; {memory}", seen.told()))?;
        all.latencies.extend(seen.latencies);
        all.failures += seen.failures;
    }
    let (alone, watched) = (median(&mut alone), median(&mut watched));
    say(&format!("all rounds: {}", all.told()))?;
    let more = 100.0 * (watched.as_secs_f64() / alone.as_secs_f64() - 1.0);
    say(&format!(
        "a backup takes {:.2} s alone and {:.2} s beside {} readers: {more:+.1} %",
        alone.as_secs_f64(),
        watched.as_secs_f64(),
        plan.readers
    ))
}

impl Plan {
    fn from_arguments() -> Result<Self> {
        fn next<T: FromStr>(said: Option<String>, default: T) -> Result<T> {
            match said {
                Some(text) => text.parse().ok().context("a number is wanted"),
                None => Ok(default),
            }
        }
        let mut said = std::env::args().skip(1);
        Ok(Self {
            readers: next(said.next(), 200)?,
            time: Duration::from_secs(next(said.next(), 60)?),
            rounds: next(said.next(), 3)?,
            megabytes: next(said.next(), 1024)?,
            path: said.next().unwrap_or_else(|| "/api/v1/sources".to_owned()),
        })
    }
}

impl Seen {
    fn told(&self) -> String {
        let mut sorted = self.latencies.clone();
        sorted.sort();
        let at = |share: usize| {
            let index = (sorted.len() * share / 100).min(sorted.len().saturating_sub(1));
            sorted.get(index).map_or(0, Duration::as_millis)
        };
        format!(
            "{} answers, {} failures, p50 {} ms, p99 {} ms, longest {} ms",
            sorted.len(),
            self.failures,
            at(50),
            at(99),
            at(100)
        )
    }
}

impl Server {
    fn start(cli: &Cli, settings: &str) -> Result<Self> {
        let made = cli.run(["token", "load", "--role", "viewer", "--json"])?;
        let made = made.exits(0)?.json()?;
        let toml = made["toml"].as_str().context("the entry")?;
        let token = made["token"].as_str().context("the token")?.to_owned();
        let config = cli.private_file("server.toml", &format!("{settings}\n{toml}"))?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let arguments = ["--config", &config, "serve", "--listen", &address];
        let mut server = Self {
            running: Running::start(cli.command_of("backup-server", arguments)?)?,
            url: format!("http://{address}"),
            token,
            cookie: String::new(),
        };
        let deadline = Instant::now() + LIMIT;
        while ureq::get(format!("{}/readyz", server.url)).call().is_err() {
            ensure!(Instant::now() < deadline, "the server is not ready");
            thread::sleep(Duration::from_millis(100));
        }
        server.sign_in()?;
        Ok(server)
    }

    /// For the pages.
    fn sign_in(&mut self) -> Result<()> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .max_redirects(0)
            .build()
            .into();
        let request = agent.post(format!("{}/sign-in", self.url));
        let request = request.header("Sec-Fetch-Site", "same-origin");
        let answer = request.send_form([("token", self.token.as_str()), ("next", "/")])?;
        let cookie = answer.headers().get("set-cookie").context("a cookie")?;
        let cookie = cookie.to_str()?.split(';').next().unwrap_or_default();
        cookie.clone_into(&mut self.cookie);
        Ok(())
    }

    /// Lets readers ask for a while, and takes a backup meanwhile.
    fn watched(
        &self,
        plan: &Plan,
        back_up: &impl Fn() -> Result<Duration>,
    ) -> Result<(Seen, Duration)> {
        let seen = Mutex::new(Seen::default());
        let stop = AtomicBool::new(false);
        let elapsed = thread::scope(|scope| {
            for number in 0..plan.readers {
                let (seen, stop) = (&seen, &stop);
                scope.spawn(move || {
                    thread::sleep(EVERY * number / plan.readers.max(1));
                    self.read(&plan.path, seen, stop);
                });
            }
            let began = Instant::now();
            thread::sleep(EVERY);
            let elapsed = back_up();
            thread::sleep(plan.time.saturating_sub(began.elapsed()));
            stop.store(true, Ordering::Relaxed);
            elapsed
        })?;
        Ok((seen.into_inner().unwrap_or_default(), elapsed))
    }

    fn read(&self, path: &str, seen: &Mutex<Seen>, stop: &AtomicBool) {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .max_redirects(0)
            .build()
            .into();
        while !stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            let request = agent.get(format!("{}{path}", self.url));
            let request = request.header("Authorization", format!("Bearer {}", self.token));
            let answered = request.header("Cookie", &self.cookie).call();
            let is_shown = answered.is_ok_and(|mut answer| {
                // Whoever is sent to sign in has seen nothing.
                answer.status() == 200 && answer.body_mut().read_to_vec().is_ok()
            });
            let latency = began.elapsed();
            if let Ok(mut seen) = seen.lock() {
                if is_shown {
                    seen.latencies.push(latency);
                } else {
                    seen.failures += 1;
                }
            }
            thread::sleep(EVERY.saturating_sub(latency));
        }
    }

    /// What the system says of its memory.
    fn memory(&self) -> Result<String> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.running.pid()))?;
        let lines = status.lines().filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            let name = match name {
                "VmRSS" => "memory now",
                "VmHWM" => "at most",
                _ => return None,
            };
            Some(format!("{name} {}", value.trim()))
        });
        Ok(lines.collect::<Vec<_>>().join(", "))
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn say(line: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{line}").context("write to standard output")
}

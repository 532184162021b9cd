//! `backup-server`, and people who ask it.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use ureq::http::{HeaderMap, Request};

use crate::canary::{self, Kind};
use crate::cli::{Cli, Run, Running};
use crate::free_port;

/// How long the server may take to do anything.
pub const LIMIT: Duration = Duration::from_mins(3);

/// The server, with a token for each person.
pub struct Server {
    running: Running,
    agent: ureq::Agent,
    tokens: BTreeMap<String, String>,
    /// Where it is.
    pub url: String,
    /// Its configuration.
    pub config: String,
}

/// What it answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub text: String,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.text).with_context(|| self.text.clone())
    }

    /// A header.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The answer, if it has that status.
    ///
    /// # Errors
    ///
    /// When it has another one.
    pub fn is(self, status: u16) -> Result<Self> {
        ensure!(self.status == status, "{} {}", self.status, self.text);
        Ok(self)
    }
}

/// Starts the program with a configuration.
///
/// # Errors
///
/// When it cannot be started.
pub fn start(cli: &Cli, config: &str, address: &str) -> Result<Running> {
    let arguments = ["--config", config, "serve", "--listen", address];
    Running::start(cli.command_of("backup-server", arguments)?)
}

impl Server {
    /// Starts it with people of these names and roles, who see all sources, and waits until it is
    /// ready.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start(cli: &Cli, settings: &str, people: &[(&str, &str)]) -> Result<Self> {
        let people = people.iter().map(|(name, role)| (*name, *role, "*"));
        Self::start_for(cli, settings, &people.collect::<Vec<_>>())
    }

    /// The same with the sources that each of them sees.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start_for(cli: &Cli, settings: &str, people: &[(&str, &str, &str)]) -> Result<Self> {
        let mut tokens = BTreeMap::new();
        let mut toml = settings.to_owned();
        for (name, role, source) in people {
            let words = ["token", name, "--role", role, "--source", source, "--json"];
            let made = cli.run(words)?;
            let made = made.exits(0)?.json()?;
            let entry = made["toml"].as_str().context("the entry")?;
            let token = made["token"].as_str().context("the token")?;
            toml = format!("{toml}\n{entry}");
            tokens.insert((*name).to_owned(), token.to_owned());
        }
        let config = cli.private_file("server.toml", &toml)?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build();
        let server = Self {
            running: start(cli, &config, &address)?,
            agent: agent.into(),
            tokens,
            url: format!("http://{address}"),
            config,
        };
        server.wait_until(|server| {
            let asked = server.ask("GET", "/readyz", "", "");
            Ok(asked.is_ok_and(|answer| answer.status == 200))
        })?;
        Ok(server)
    }

    /// Waits until something is so.
    ///
    /// # Errors
    ///
    /// When it cannot be asked, or is not so for a long time.
    pub fn wait_until(&self, done: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while !done(self)? {
            ensure!(Instant::now() < deadline, "it is still not so");
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// The token of somebody.
    #[must_use]
    pub fn token(&self, person: &str) -> &str {
        self.tokens.get(person).map_or("", String::as_str)
    }

    /// Asks as somebody, with a body in JSON if there is one.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub fn ask(&self, method: &str, path: &str, person: &str, body: &str) -> Result<Answer> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("Authorization", format!("Bearer {}", self.token(person)));
        let mut answer = if body.is_empty() {
            self.agent.run(request.body(())?)?
        } else {
            let request = request.header("Content-Type", "application/json");
            self.agent.run(request.body(body)?)?
        };
        let answer = Answer {
            status: answer.status().as_u16(),
            headers: answer.headers().clone(),
            text: answer.body_mut().read_to_string()?,
        };
        if answer.status == 200 && path.ends_with("/access") {
            // Told once, and nowhere else from now on.
            canary::keep_if_any(answer.json()?["password"].as_str().unwrap_or_default());
        } else {
            let said = format!("{:?}\n{}", answer.headers, answer.text);
            canary::look(
                Kind::Answer,
                &format!("the answer to {method} {path}"),
                &said,
            )?;
        }
        Ok(answer)
    }

    /// What somebody gets to see.
    ///
    /// # Errors
    ///
    /// When he does not.
    pub fn get(&self, path: &str, person: &str) -> Result<Value> {
        self.ask("GET", path, person, "")?.is(200)?.json()
    }

    /// Orders work as somebody, and waits for its end; how it ended.
    ///
    /// # Errors
    ///
    /// When it is not taken.
    pub fn order(&self, path: &str, person: &str, body: &str) -> Result<Value> {
        let taken = self.ask("POST", path, person, body)?.is(202)?;
        let run = taken.header("location").to_owned();
        // The stream ends with the run.
        self.ask("GET", &format!("{run}/events"), person, "")?
            .is(200)?;
        self.get(&run, person)
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.running.signal(signal)
    }

    /// Ends it in good order.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn stop(self) -> Result<Run> {
        self.running.signal(Signal::SIGTERM)?;
        self.running.wait_at_most(LIMIT)?.exits(0)
    }
}

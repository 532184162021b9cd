//! Questions to a server, by `redis-cli`.

use std::path::Path;
use std::time::Duration;

use backup_core::doctor::Finding;
use backup_core::error::{ErrorKind, PortError};
use backup_process::child::{ToolCommand, ToolOutput, run_briefly};
use tokio_util::sync::CancellationToken;

use crate::error::{advice, judged};
use crate::{RedisConnection, RedisTools};

/// How long an answer may take.
pub(crate) const ANSWER: Duration = Duration::from_secs(20);
/// What of an unexpected answer is shown.
const WORDS: usize = 200;

/// What a server says of itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Info(String);

impl Info {
    /// The value of a line `name:value`.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    }
}

/// Asks one question; the answer, once the program has succeeded.
pub(crate) async fn ask(
    (client, connection): (&Path, &RedisConnection),
    question: &[&str],
    limit: Duration,
    cancel: &CancellationToken,
) -> Result<String, PortError> {
    let command = ToolCommand::new(client, connection.env())
        .args(connection.args())
        .args(question);
    let output = run_briefly(&command, limit, cancel).await.map_err(judged)?;
    let said = complaint(&output);
    let ToolOutput { stdout, exit } = output;
    let succeeded = exit.success();
    exit.into_result().map_err(judged)?;
    match said {
        // A login that failed is said there, and the program goes on without.
        Some(words) if succeeded => Err(refused(&words)),
        _ => Ok(String::from_utf8_lossy(&stdout).into_owned()),
    }
}

/// What the program says although it succeeds when a login fails.
fn complaint(output: &ToolOutput) -> Option<String> {
    let words = output.exit.stderr.last_words();
    words.contains("AUTH failed").then_some(words)
}

fn refused(words: &str) -> PortError {
    let plain: String = words.replace(char::is_control, " ").trim().to_owned();
    let short: String = plain.chars().take(WORDS).collect();
    let (kind, hint) = advice(words);
    let error = PortError::new(kind, format!("the server says: {short}"));
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// Asks a server about itself, which shows that the login works.
pub(crate) async fn info(
    of: (&Path, &RedisConnection),
    cancel: &CancellationToken,
) -> Result<Info, PortError> {
    let answer = ask(of, &["INFO"], ANSWER, cancel).await?;
    if answer.contains("redis_version:") {
        return Ok(Info(answer));
    }
    if answer.trim().is_empty() {
        let words = "the server does not answer INFO";
        return Err(PortError::new(ErrorKind::Unavailable, words));
    }
    Err(refused(&answer))
}

/// Tries what a backup needs, for a diagnosis.
pub async fn probe(
    connection: &RedisConnection,
    tools: &RedisTools,
    cancel: &CancellationToken,
) -> Vec<Finding> {
    let client = match tools.client() {
        Ok(client) => client,
        Err(error) => return vec![Finding::failure("no-client-programs", &error)],
    };
    let info = match info((&client, connection), cancel).await {
        Ok(info) => info,
        Err(error) => return vec![Finding::failure("server-cannot-be-asked", &error)],
    };
    let version = info.get("redis_version").unwrap_or("of an unknown version");
    let text = format!("Redis {version} at {} lets us in", connection.server());
    let mut findings = vec![Finding::ok("server-reached", text)];
    findings.extend(
        warnings(&info)
            .into_iter()
            .map(|text| Finding::warning("server-state", text)),
    );
    if let Err(error) = tools.server() {
        let hint = error.hint().unwrap_or_default().to_owned();
        let text = format!("{error}: drills of its backups cannot run here");
        findings.push(Finding::warning("no-server-programs", text).remedy(hint));
    }
    findings
}

/// What is not as it should be for a backup.
pub(crate) fn warnings(info: &Info) -> Vec<String> {
    let mut warnings = Vec::new();
    if info.get("cluster_enabled") == Some("1") {
        warnings.push(
            "the server is a member of a cluster: its backup has the keys of its own slots only"
                .to_owned(),
        );
    }
    if info.get("role") == Some("slave") && info.get("master_link_status") == Some("down") {
        warnings.push("the server is a replica that has lost its master".to_owned());
    }
    warnings
}

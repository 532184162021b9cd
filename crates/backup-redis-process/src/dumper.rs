//! [`RedisDumper`]: the snapshot that a server sends to a replica, by `redis-cli --rdb`.

use std::path::PathBuf;

use async_trait::async_trait;
use backup_core::dumper::{DumpRequest, DumpSession, Dumper, PartPlan, PartStream, SourceFacts};
use backup_core::error::PortError;
use backup_core::manifest::{PartFormat, PartKind, PartName};
use backup_process::ToolEnv;
use backup_process::child::{ToolCommand, run_briefly, stdout_body};
use tokio_util::sync::CancellationToken;

use crate::ask::{ANSWER, info, warnings};
use crate::error::judged;
use crate::inspector::inspected;
use crate::{RedisConnection, RedisTools};

/// Takes dumps of one server.
#[derive(Debug, Clone)]
pub struct RedisDumper {
    connection: RedisConnection,
    tools: RedisTools,
}

impl RedisDumper {
    /// A dumper that connects when it is opened.
    #[must_use]
    pub fn new(connection: RedisConnection, tools: RedisTools) -> Self {
        Self { connection, tools }
    }
}

#[async_trait]
impl Dumper for RedisDumper {
    async fn open(
        &self,
        _request: &DumpRequest,
        cancel: &CancellationToken,
    ) -> Result<Box<dyn DumpSession>, PortError> {
        let client = self.tools.client()?;
        let info = info((&client, &self.connection), cancel).await?;
        let tool_version = version(&client, cancel).await?;
        let number = |name| info.get(name).and_then(|text| text.parse().ok());
        let source = SourceFacts {
            database: "redis".to_owned(),
            server_version: info.get("redis_version").unwrap_or_default().to_owned(),
            tool_version,
            filtered: false,
            details: serde_json::Value::Null,
            warnings: warnings(&info),
        };
        let part = PartPlan {
            name: PartName::new("redis")?,
            kind: PartKind::Data,
            format: PartFormat::Rdb,
            estimated_bytes: number("used_memory").unwrap_or_default(),
        };
        Ok(Box::new(RedisSession {
            client,
            connection: self.connection.clone(),
            source,
            parts: vec![part],
        }))
    }
}

async fn version(client: &PathBuf, cancel: &CancellationToken) -> Result<String, PortError> {
    let env = ToolEnv::default().set("LC_ALL", "C");
    let command = ToolCommand::new(client, env).args(["--version"]);
    let output = run_briefly(&command, ANSWER, cancel)
        .await
        .map_err(judged)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_whitespace().nth(1).unwrap_or_default();
    Ok(version.to_owned())
}

#[derive(Debug)]
struct RedisSession {
    client: PathBuf,
    connection: RedisConnection,
    source: SourceFacts,
    parts: Vec<PartPlan>,
}

#[async_trait]
impl DumpSession for RedisSession {
    fn source(&self) -> &SourceFacts {
        &self.source
    }

    fn parts(&self) -> &[PartPlan] {
        &self.parts
    }

    /// A second try shows a later moment than the first, which no other part has to fit.
    async fn part(
        &self,
        _part: &PartPlan,
        cancel: &CancellationToken,
    ) -> Result<PartStream, PortError> {
        let command = ToolCommand::new(&self.client, self.connection.env())
            .args(self.connection.args())
            .args(["--rdb", "-"]);
        let (body, _said) = stdout_body(&command, judged, cancel).map_err(judged)?;
        Ok(inspected(body))
    }

    async fn finish(&self) -> Result<(), PortError> {
        Ok(())
    }
}

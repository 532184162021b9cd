//! Roles and tablespaces of the whole server, by `pg_dumpall`.

use backup_core::dumper::PartStream;
use backup_process::ToolEnv;
use backup_process::child::{ToolCommand, stdout_body};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, judged};
use crate::inspector::{Script, inspected};
use crate::{Tools, conninfo_value};

/// What is said when the login cannot read the hashes.
pub(super) const NO_PASSWORDS: &str =
    "roles are backed up without their passwords: the login cannot read pg_authid";

/// Starts `pg_dumpall --globals-only`.
///
/// It connects to `postgres` unless told otherwise, where the login may have no right to connect.
/// It reads the name it is told as a connection string, so it gets one.
pub(super) fn start(
    tools: &Tools,
    env: ToolEnv,
    database: &str,
    with_passwords: bool,
    cancel: &CancellationToken,
) -> Result<PartStream, Error> {
    let mut command = ToolCommand::new(&tools.pg_dumpall, env).args([
        "--globals-only".to_owned(),
        "--no-password".to_owned(),
        format!("--database=dbname={}", conninfo_value(database)),
    ]);
    if !with_passwords {
        command = command.args(["--no-role-passwords"]);
    }
    let (body, stderr) = stdout_body(&command, judged, cancel)?;
    Ok(inspected(body, Script::default(), Some(stderr)))
}

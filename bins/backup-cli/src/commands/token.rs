//! `token`: lets somebody use the server.

use backup_app::token::new_token;
use backup_app::{AccessConfig, AppError, Role};
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::Outcome;
use crate::args::{RoleArg, TokenArgs};
use crate::{exit_code, render};

pub(super) fn run(arguments: &TokenArgs, as_json: bool) -> Outcome {
    let new = new_token();
    let entry = AccessConfig {
        name: arguments.name.clone(),
        token_sha256: new.sha256,
        role: match arguments.role {
            RoleArg::Viewer => Role::Viewer,
            RoleArg::Restorer => Role::Restorer,
            RoleArg::Operator => Role::Operator,
            RoleArg::Admin => Role::Admin,
        },
        sources: arguments.source.clone(),
    };
    let toml = entry.to_toml()?;
    let token = new.token.expose_secret();
    let text = if as_json {
        let value = json!({
            "name": entry.name,
            "role": entry.role,
            "sources": entry.sources,
            "token": token,
            "token_sha256": entry.token_sha256,
            "toml": toml,
        });
        value.to_string()
    } else {
        format!("{token}\n\n{}", toml.trim_end())
    };
    render::try_line(&text).map_err(|source| AppError::File {
        operation: "write the token".to_owned(),
        source,
    })?;
    if !as_json {
        render::note("\nthe first line is the token: keep it, nobody can show it again");
        render::note("the rest goes into the configuration of the server");
    }
    Ok(exit_code::DONE)
}

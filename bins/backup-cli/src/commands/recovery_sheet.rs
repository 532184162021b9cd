//! `recovery-sheet`: the commands that bring everything back, for a sheet of paper.

use std::fmt::Write as _;

use backup_app::{PlaceSheet, RecoverySheet, SourceSheet};
use backup_core::error::Error as CoreError;

use super::{Context, Outcome};
use crate::{exit_code, render};

/// How to do it without us, so that the sheet is enough.
const BY_HAND: &str = include_str!("../../../../docs/FORMAT.md");

pub(super) async fn run(context: &Context) -> Outcome {
    let sheet = context.app.recovery_sheet().await?;
    if context.json {
        render::json(&sheet);
    } else {
        for line in text(&sheet).lines() {
            render::line(line);
        }
    }
    let unread = sheet.places.iter().filter(|place| place.error.is_some());
    match unread.count() {
        0 => Ok(exit_code::DONE),
        unread if unread == sheet.places.len() => {
            let what = "backup at any place".to_owned();
            Err(CoreError::NotFound { what }.into())
        }
        _ => Ok(exit_code::WARNINGS),
    }
}

fn text(sheet: &RecoverySheet) -> String {
    let mut text = format!(
        "# Recovery sheet\n\nMade {} by backup-cli {}. It has no secret on it. Print it, and keep it with the \
         private key,\naway from the servers and from the backups. Make a new one when places, keys or sources \
         change.\n\n## What you need\n\n- a machine with backup-cli",
        sheet.made_at, sheet.tool_version
    );
    if let Some(major) = sheet.newest_major {
        let programs = format!(
            " and the client programs of PostgreSQL {major} or later\n\
             - a server of PostgreSQL {major} or later to restore into"
        );
        text.push_str(&programs);
    }
    text.push_str("\n- a login to one of the places, that may list and read\n");
    if !sheet.opens_all.is_empty() {
        text.push_str("- as identity.txt, the private key of any one of these:\n");
        for key in &sheet.opens_all {
            let _ = writeln!(text, "  {}", render::name(key));
        }
    }
    for place in &sheet.places {
        text.push_str(&about_place(place));
    }
    for source in &sheet.sources {
        text.push_str(&about_source(source, sheet));
    }
    text.push_str("\n## Without backup-cli\n");
    text.push_str(by_hand());
    text
}

fn about_place(place: &PlaceSheet) -> String {
    let name = render::name(&place.name);
    let url = render::name(&place.url);
    let mut text = if name == url {
        format!("\n## Place {url}\n\n")
    } else {
        format!("\n## Place {name}: {url}\n\n")
    };
    if let Some(error) = &place.error {
        let _ = writeln!(text, "IT COULD NOT BE READ when this was made: {error}\n");
    }
    text.push_str("```sh\n");
    for (name, value) in &place.variables {
        let value = match value {
            Some(value) => backup_app::text::shell_word(value),
            None => "…".to_owned(),
        };
        let _ = writeln!(text, "export {name}={value}");
    }
    let url = backup_app::text::shell_word(&place.url);
    let _ = writeln!(text, "backup-cli list --from {url}\n```");
    text
}

fn about_source(source: &SourceSheet, sheet: &RecoverySheet) -> String {
    let mut text = format!("\n## Source {}\n\n", render::name(&source.source));
    let _ = writeln!(
        text,
        "{}; the newest whole one is {},\nof {}: {}, {}, server version {}; {} raw, {} stored, at {}.",
        render::counted(source.backups as u64, "backup"),
        source.newest,
        source.started_at,
        source.content,
        render::name(&source.database),
        render::name(&source.server_version),
        render::size(source.raw_bytes),
        render::size(source.stored_bytes),
        render::name(&source.place),
    );
    let _ = match &source.proved {
        Some((id, at)) => writeln!(text, "Every byte of {id} was found good on {at}."),
        None => writeln!(text, "NO BACKUP OF IT WAS EVER PROVED."),
    };
    if source.is_clear {
        text.push_str("It is not encrypted.\n");
    } else if source.recipients != sheet.opens_all {
        text.push_str("It opens with the private key of any one of these:\n");
        for key in &source.recipients {
            let _ = writeln!(text, "  {}", render::name(key));
        }
    }
    let _ = writeln!(text, "\n```sh\n{}\n{}\n```", source.verify, source.restore);
    text
}

/// The chapter of our own description.
fn by_hand() -> &'static str {
    let (_, rest) = BY_HAND.split_once("\n## By hand\n").unwrap_or_default();
    rest.split_once("\n## ")
        .map_or(rest, |(chapter, _)| chapter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chapter_is_there() {
        let chapter = by_hand();
        assert!(chapter.contains("pg_restore") && chapter.contains("age -d -i"));
        assert!(!chapter.contains("## "), "{chapter}");
    }
}

//! `show`: one backup, with its tables if a key is at hand.

use backup_app::{AppError, Keys};
use backup_core::error::Error as CoreError;
use backup_core::facts::{Facts, TableFacts};
use backup_core::manifest::Manifest;
use backup_core::restorer::PartReader as _;
use serde_json::json;

use super::{Context, Outcome};
use crate::args::ShowArgs;
use crate::report::BackupView;
use crate::{exit_code, render};

pub(super) async fn run(context: &Context, arguments: &ShowArgs) -> Outcome {
    let found = context
        .find_quietly(
            &arguments.backup,
            arguments.source.as_deref(),
            Keys::Identities,
        )
        .await?;
    let place = found.place.name;
    let reader = match found.engine.open(found.manifest.clone()).await {
        Ok(reader) => Some(reader),
        // Without a key the public part is what can be shown, unless a key was given.
        Err(CoreError::Key { .. }) if arguments.from.identity.is_empty() => None,
        Err(error) => return Err(AppError::from(error)),
    };
    let facts = reader.as_ref().map(|reader| reader.facts());
    if context.json {
        print_json(&found.manifest, &place, facts);
    } else {
        print(&found.manifest, &place, facts);
    }
    Ok(exit_code::DONE)
}

fn print_json(manifest: &Manifest, place: &str, facts: Option<&Facts>) {
    let warnings = facts
        .map(|facts| facts.warnings.clone())
        .unwrap_or_default();
    let view = BackupView::committed(manifest, place, warnings);
    let tables = facts.map(|facts| facts.tables().values().map(table_json).collect::<Vec<_>>());
    let mut value = serde_json::to_value(view).unwrap_or_default();
    value["table_facts"] = json!(tables);
    value["compression"] = json!(manifest.compression);
    value["recipients"] = json!(manifest.encryption.as_ref().map(|e| &e.recipients));
    value["repository"] = json!(manifest.repository);
    value["objects"] = json!(manifest.totals.objects);
    render::pretty_json(&value);
}

fn table_json(table: &TableFacts) -> serde_json::Value {
    json!({
        "schema": table.table.schema,
        "table": table.table.name,
        "rows": table.fingerprint.rows,
        "bytes": table.fingerprint.bytes,
        "hash": table.fingerprint.hash.to_string(),
    })
}

fn print(manifest: &Manifest, place: &str, facts: Option<&Facts>) {
    let totals = &manifest.totals;
    let elapsed = (manifest.finished_at - manifest.started_at).as_seconds_f64();
    let encryption = match &manifest.encryption {
        Some(record) => format!("{} to {}", record.cipher, record.recipients.join(", ")),
        None => "none".to_owned(),
    };
    let scope = if manifest.filtered { " (filtered)" } else { "" };
    for (label, text) in [
        ("backup", manifest.id.to_string()),
        ("source", render::name(manifest.source.as_str())),
        (
            "database",
            format!("{}{scope}", render::name(&manifest.database)),
        ),
        ("stored at", place.to_owned()),
        ("started", render::time(manifest.started_at)),
        ("took", render::duration(elapsed)),
        (
            "server",
            format!(
                "{} (dumped with {})",
                manifest.server_version, manifest.tool_version
            ),
        ),
        ("compression", manifest.compression.clone()),
        ("encryption", encryption),
        ("raw", render::size(totals.raw_bytes)),
        ("stored", render::size(totals.stored_bytes)),
        (
            "tables",
            format!(
                "{} with {} rows",
                render::count(totals.tables),
                render::count(totals.rows)
            ),
        ),
        ("warnings", manifest.warnings.to_string()),
    ] {
        render::line(&format!("{label:<12} {text}"));
    }
    render::line("");
    print_parts(manifest);
    match facts {
        Some(facts) => print_tables(facts),
        None => render::note("\ntables are encrypted; give --identity FILE to see them"),
    }
}

fn print_parts(manifest: &Manifest) {
    let mut table = render::table(&["part", "raw", "stored", "object"], &[1, 2]);
    for part in &manifest.parts {
        for (index, object) in part.objects.iter().enumerate() {
            let first = |text: String| if index == 0 { text } else { String::new() };
            table.add_row([
                first(part.name.to_string()),
                first(render::size(part.raw_bytes)),
                render::size(object.bytes),
                object.name.clone(),
            ]);
        }
    }
    render::print(&table);
}

fn print_tables(facts: &Facts) {
    render::line("");
    let mut table = render::table(&["table", "rows", "bytes"], &[1, 2]);
    for facts in facts.tables().values() {
        table.add_row([
            render::name(&facts.table.to_string()),
            render::count(facts.fingerprint.rows),
            render::size(facts.fingerprint.bytes),
        ]);
    }
    render::print(&table);
    for warning in &facts.warnings {
        render::warn(&render::name(warning));
    }
}

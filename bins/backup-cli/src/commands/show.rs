//! `show`: one backup, with its tables if a key is at hand.

use backup_app::{AppError, BackupView, DAMAGED, DestinationView, Keys, RunView, SystemClock};
use backup_core::clock::Clock as _;
use backup_core::engine::Engine;
use backup_core::error::{Error as CoreError, chain};
use backup_core::facts::{Facts, TableFacts};
use backup_core::history::{Proof, ProofLevel};
use backup_core::manifest::{Content, Manifest};
use backup_core::pin::FoundPin;
use backup_core::restorer::PartReader as _;
use backup_core::run_record::RunRecord;
use chrono::{DateTime, Utc};
use serde_json::json;

use super::{Context, Outcome, history};
use crate::args::ShowArgs;
use crate::report::{PinView, pin_text};
use crate::{exit_code, render};

/// How many verifications and restores are shown.
const SHOWN_TRIES: usize = 5;

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
    let manifest = &found.manifest;
    let proofs = history::proofs(&found.engine, &place, manifest.started_at).await;
    let pin = holding_pin(&found.engine, manifest).await;
    let known = Known {
        pin: pin.as_ref(),
        manifest,
        place: &place,
        facts,
        proof: proofs.newest(manifest),
        damaged_at: proofs.damaged_at(manifest),
        drill: proofs.newest_drill(manifest),
        tries: proofs.tries(manifest),
    };
    if context.json {
        print_json(&known);
    } else {
        print(&known);
    }
    Ok(match known.damaged_at {
        Some(_) => exit_code::WARNINGS,
        None => exit_code::DONE,
    })
}

/// The pin of a backup, if it holds. The backup is worth showing without.
async fn holding_pin(engine: &Engine, backup: &Manifest) -> Option<FoundPin> {
    match engine.pins().get(&backup.source, &backup.id).await {
        Ok(pin) => pin.filter(|pin| pin.holds(SystemClock.now())),
        Err(error) => {
            render::warn(&format!(
                "its pin is not known: {}",
                render::name(&chain(&error))
            ));
            None
        }
    }
}

/// What is known of a backup.
struct Known<'a> {
    manifest: &'a Manifest,
    place: &'a str,
    facts: Option<&'a Facts>,
    proof: Option<Proof>,
    /// When it was found damaged, if it still counts as that.
    damaged_at: Option<DateTime<Utc>>,
    drill: Option<&'a RunRecord>,
    pin: Option<&'a FoundPin>,
    /// Runs that verified or restored it, newest first.
    tries: &'a [RunRecord],
}

fn print_json(known: &Known<'_>) {
    let Known {
        manifest,
        place,
        facts,
        ..
    } = *known;
    let warnings = facts
        .map(|facts| facts.warnings.clone())
        .unwrap_or_default();
    let at = match known.damaged_at {
        Some(_) => DestinationView::failed(place, DAMAGED.to_owned()),
        None => DestinationView::good(place),
    };
    let view = BackupView::committed(manifest, vec![at], warnings);
    let tables = facts.map(|facts| facts.tables().values().map(table_json).collect::<Vec<_>>());
    let mut value = serde_json::to_value(view).unwrap_or_default();
    value["table_facts"] = json!(tables);
    value["compression"] = json!(manifest.compression);
    value["recipients"] = json!(manifest.encryption.as_ref().map(|e| &e.recipients));
    value["repository"] = json!(manifest.repository);
    value["adopted"] = json!(manifest.adopted);
    value["objects"] = json!(manifest.totals.objects);
    value["verified_at"] = json!(known.proof.map(|proof| render::time(proof.at)));
    value["verified_level"] = json!(known.proof.map(|proof| proof.level.as_str()));
    value["drilled_at"] = json!(known.drill.map(|run| render::time(run.finished_at)));
    value["drill_status"] = json!(known.drill.map(|run| run.result.as_str()));
    value["pinned"] = json!(known.pin.is_some());
    value["pin"] = json!(known.pin.and_then(PinView::of));
    let tries = known.tries.iter().take(SHOWN_TRIES);
    let tries: Vec<_> = tries.map(|run| RunView::new(run, place)).collect();
    value["verifications"] = json!(tries);
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

fn print(known: &Known<'_>) {
    let Known {
        manifest,
        place,
        facts,
        ..
    } = *known;
    let totals = &manifest.totals;
    let elapsed = (manifest.finished_at - manifest.started_at).as_seconds_f64();
    let encryption = match &manifest.encryption {
        Some(record) => format!("{} to {}", record.cipher, record.recipients.join(", ")),
        None => "none".to_owned(),
    };
    let adopted = adopted_text(manifest);
    let (tables, rows) = match manifest.content() {
        Content::Redis => ("databases", "keys"),
        _ => ("tables", "rows"),
    };
    let scope = if manifest.filtered { " (filtered)" } else { "" };
    for (label, text) in [
        ("backup", format!("{}{adopted}", manifest.id)),
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
            tables,
            format!(
                "{} with {} {rows}",
                render::count(totals.tables),
                render::count(totals.rows)
            ),
        ),
        ("warnings", manifest.warnings.to_string()),
        ("verified", proof_text(known)),
        ("drilled", drill_text(known.drill)),
    ] {
        render::line(&format!("{label:<12} {text}"));
    }
    if let Some(pin) = known.pin {
        let text = render::name(&pin_text(pin));
        render::line(&format!("{:<12} {text}", "kept"));
    }
    if !known.tries.is_empty() {
        render::line("");
        print_tries(known.tries);
    }
    render::line("");
    print_parts(manifest);
    match facts {
        Some(facts) => print_tables(facts),
        None => render::note("\ntables are encrypted; give --identity FILE to see them"),
    }
}

fn adopted_text(manifest: &Manifest) -> &'static str {
    if manifest.adopted {
        " (adopted: another tool took it)"
    } else {
        ""
    }
}

fn proof_text(known: &Known<'_>) -> String {
    let proof = known
        .proof
        .map(|proof| format!("{} {}", render::time(proof.at), proof.level.as_str()));
    let damaged = known
        .damaged_at
        .map(|at| format!("found damaged at {}", render::time(at)));
    let both: Vec<_> = damaged.into_iter().chain(proof).collect();
    if both.is_empty() {
        "never".to_owned()
    } else {
        both.join("; since then ")
    }
}

fn drill_text(drill: Option<&RunRecord>) -> String {
    drill.map_or_else(
        || "never".to_owned(),
        |run| format!("{} {}", render::time(run.finished_at), run.result.as_str()),
    )
}

fn print_tries(tries: &[RunRecord]) {
    let mut table = render::table(&["tried", "how", "result", "who"], &[]);
    for run in tries.iter().take(SHOWN_TRIES) {
        let how = match run.verify {
            Some(found) => format!("verify {}", ProofLevel::from(found.level).as_str()),
            None => run.operation.to_string(),
        };
        table.add_row([
            render::time(run.started_at),
            how,
            run.result.as_str().to_owned(),
            render::name(&run.who.to_string()),
        ]);
    }
    render::print(&table);
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

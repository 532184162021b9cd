//! `drill`: rehearse restores.

use std::sync::Arc;

use backup_app::report::{DefinitionsView, DrillNames, DrillView, ReportPath};
use backup_app::{AppError, ChosenDrill, ChosenDrills, DrillTask, DrillWish, Keys, Mark};
use backup_core::drill::ChoiceReason;
use backup_core::engine::DrillOutcome;
use backup_core::error::Error as CoreError;
use backup_core::observer::Observer;

use super::{Context, Outcome, source_name};
use crate::args::DrillArgs;
use crate::progress::Progress;
use crate::{exit_code, render};

pub(super) async fn run(context: &Context, arguments: &DrillArgs) -> Outcome {
    let chosen = context.stoppable(choose(context, arguments)).await?;
    let drills = &chosen.drills;
    if drills.is_empty() {
        render::note("no source is due for a drill");
    }
    check_report(arguments, drills.len())?;
    let mut codes = Vec::new();
    for drill in drills {
        codes.push(match one(context, arguments, drill).await {
            Err(AppError::Engine(CoreError::Cancelled)) => {
                return Err(CoreError::Cancelled.into());
            }
            // The others are drilled all the same.
            Err(error) if drills.len() > 1 => {
                render::error(&error, context.json);
                exit_code::of(&error)
            }
            result => result?,
        });
    }
    Ok(match overall(&codes) {
        exit_code::DONE if !chosen.complete => exit_code::WARNINGS,
        code => code,
    })
}

async fn choose(context: &Context, arguments: &DrillArgs) -> Result<ChosenDrills, AppError> {
    let sources = &arguments.sources;
    let Some(backup) = &arguments.backup else {
        let sources = sources.iter().map(|name| source_name(name));
        let wish = DrillWish {
            sources: sources.collect::<Result<_, _>>()?,
            all: arguments.all,
            older_than: arguments.older_than,
            age: arguments.age,
        };
        return context.app.choose_drills(&wish, &context.journal).await;
    };
    let source = match sources.as_slice() {
        [] => None,
        [source] => Some(source.as_str()),
        _ => return Err(AppError::usage("one backup is of one source")),
    };
    let found = context.find_quietly(backup, source, Keys::None).await?;
    let chosen = ChosenDrill {
        manifest: found.manifest,
        place: found.place,
        reason: ChoiceReason::Named,
    };
    Ok(ChosenDrills {
        drills: vec![chosen],
        complete: true,
    })
}

/// Says what cannot be written before hours are spent on it.
fn check_report(arguments: &DrillArgs, drills: usize) -> Result<(), AppError> {
    let Some(path) = &arguments.report else {
        return Ok(());
    };
    let path = ReportPath::new(path);
    if drills > 1 && !matches!(path, ReportPath::Directory(_)) {
        return Err(AppError::usage_hint(
            format!("{drills} drills do not fit into one report"),
            "name a directory",
        ));
    }
    path.prepare()
}

/// One code for several: what is not proved counts most.
fn overall(codes: &[u8]) -> u8 {
    if codes.contains(&exit_code::INTEGRITY) {
        exit_code::INTEGRITY
    } else {
        exit_code::of_several(codes)
    }
}

async fn one(context: &Context, arguments: &DrillArgs, drill: &ChosenDrill) -> Outcome {
    let label = format!("drill {}", render::name(drill.manifest.source.as_str()));
    let progress = Arc::new(Progress::new(&label, context.quiet));
    let observer: Arc<dyn Observer> = Arc::<Progress>::clone(&progress);
    let task = DrillTask {
        manifest: &drill.manifest,
        place: &drill.place,
        mark: Mark::default(),
    };
    let (journal, stop) = (&context.journal, context.interrupt.token());
    let drilling = context.app.run_drill(&task, journal, observer, stop);
    let done = Box::pin(drilling).await;
    progress.finish();
    let outcome = done.result?;
    let code = code_of(&outcome);
    let view = DrillView::new(
        outcome,
        DrillNames {
            run: &done.id,
            recorded: done.recorded,
            place: &drill.place.name,
            reason: drill.reason,
        },
    );
    print(context, &view);
    report(arguments, &view)?;
    Ok(code)
}

fn report(arguments: &DrillArgs, view: &DrillView) -> Result<(), AppError> {
    let Some(path) = &arguments.report else {
        return Ok(());
    };
    for written in ReportPath::new(path).write(view)? {
        render::note(&format!("report: {}", written.display()));
    }
    Ok(())
}

fn code_of(outcome: &DrillOutcome) -> u8 {
    match &outcome.error {
        Some(error) => exit_code::of_engine(error),
        None if outcome.warnings.is_empty() => exit_code::DONE,
        None => exit_code::WARNINGS,
    }
}

fn print(context: &Context, view: &DrillView) {
    if context.json {
        render::json(view);
        return;
    }
    let time = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), render::duration);
    render::line(&format!(
        "{}  {}  {}  {}, {}  restored in {} (load {})  {}",
        view.status,
        render::name(&view.source),
        view.backup,
        render::counted(view.tables, "table"),
        render::counted(view.rows, "row"),
        time(view.rto_seconds),
        time(view.load_seconds),
        view.level.unwrap_or("nothing proved"),
    ));
    print_differences(view);
    print_checks(view);
    for text in &view.left_out {
        render::line(&format!("left out     {}", render::name(text)));
    }
    for warning in &view.warnings {
        render::warn(&render::name(warning));
    }
    if let Some(error) = &view.error {
        let causes = error.causes.iter().map(|cause| format!(": {cause}"));
        let text: String = std::iter::once(error.message.clone())
            .chain(causes)
            .collect();
        render::complain(&render::name(&text));
        if let Some(hint) = &error.hint {
            render::note(&format!("hint: {hint}"));
        }
    }
}

fn print_differences(view: &DrillView) {
    for table in view
        .table_results
        .iter()
        .filter(|t| !["equal", "not compared"].contains(&t.state))
    {
        render::line(&format!(
            "{:<12} {}: {} rows dumped, {} restored",
            table.state,
            render::name(&table.table),
            render::count(table.rows),
            table
                .restored_rows
                .map_or_else(|| "none".to_owned(), render::count),
        ));
    }
    let definitions = view.compare.iter().filter_map(|c| c.definitions.as_ref());
    for (what, name) in definitions.flat_map(DefinitionsView::differences) {
        render::line(&format!("{what:<12} {}", render::name(name)));
    }
}

fn print_checks(view: &DrillView) {
    if let Some(structure) = &view.structure {
        match &structure.unavailable {
            Some(why) => render::line(&format!("not checked  {}", render::name(why))),
            None => render::line(&format!(
                "checked      {}, {} B-tree indexes",
                render::counted(structure.tables, "table"),
                render::count(structure.indexes),
            )),
        }
        for found in &structure.problems {
            let (object, problem) = (render::name(&found.object), render::name(&found.problem));
            render::line(&format!("damaged      {object}: {problem}"));
        }
    }
    for assertion in &view.assertions {
        let sql = render::name(&assertion.sql);
        match &assertion.reason {
            None => render::line(&format!("holds        {sql}")),
            Some(why) => render::line(&format!("fails        {sql}: {}", render::name(why))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_proved_counts_most() {
        for (codes, expected) in [
            (&[0_u8][..], 0),
            (&[7], 7),
            (&[0, 0], 0),
            (&[0, 3], 3),
            (&[0, 9], 3),
            (&[9, 9], 9),
            (&[], 0),
            (&[9, 6, 0], 6),
        ] {
            assert_eq!(overall(codes), expected, "{codes:?}");
        }
    }
}

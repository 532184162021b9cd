//! `notify`: does whoever is to be told hear of it.

use backup_app::NotifyTest;

use super::{Context, Outcome};
use crate::args::NotifyCommand;
use crate::{exit_code, render};

pub(super) async fn run(context: &Context, command: &NotifyCommand) -> Outcome {
    let NotifyCommand::Test { names } = command;
    let tests = context.app.test_notifiers(names).await?;
    if context.json {
        render::json(&tests);
    } else {
        for test in &tests {
            print(test);
        }
    }
    let arrived = tests.iter().filter(|test| test.arrived).count();
    Ok(match arrived {
        0 => exit_code::FAILED,
        arrived if arrived == tests.len() => exit_code::DONE,
        _ => exit_code::WARNINGS,
    })
}

fn print(test: &NotifyTest) {
    let (name, kind) = (render::name(&test.name), test.kind);
    if let Some(said) = &test.said {
        let said = render::name(said);
        render::line(&format!("{name} ({kind}): it was taken: {said}"));
        return;
    }
    let Some(error) = &test.error else {
        return;
    };
    let mut why = error.message.clone();
    for cause in &error.causes {
        why = format!("{why}: {cause}");
    }
    let why = render::name(&why);
    render::line(&format!("{name} ({kind}): it was NOT taken: {why}"));
    if let Some(hint) = &error.hint {
        render::note(&format!("hint: {hint}"));
    }
}

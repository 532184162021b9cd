//! `doctor`: what is wrong with a set-up, and what to do about it.

use backup_app::doctor::{DoctorReport, DoctorSection};
use backup_core::doctor::Level;

use super::{Context, Outcome};
use crate::args::DoctorArgs;
use crate::{exit_code, render};

pub(super) async fn run(context: &Context, arguments: &DoctorArgs) -> Outcome {
    let token = context.interrupt.token();
    let report = context.app.doctor(&arguments.sources, token).await?;
    if context.json {
        render::json(&report);
    } else {
        print(&report);
    }
    Ok(match report.status {
        Level::Ok | Level::Note => exit_code::DONE,
        Level::Warning => exit_code::WARNINGS,
        Level::Problem => exit_code::PREFLIGHT,
    })
}

fn print(report: &DoctorReport) {
    for section in &report.sections {
        print_section(section);
        render::line("");
    }
    let count = |level: Level| {
        let findings = report.sections.iter().flat_map(|s| &s.findings);
        findings.filter(|finding| finding.level == level).count() as u64
    };
    let summary = [
        (Level::Problem, "problem"),
        (Level::Warning, "warning"),
        (Level::Note, "note"),
    ]
    .map(|(level, word)| render::counted(count(level), word));
    render::line(&summary.join(", "));
}

fn print_section(section: &DoctorSection) {
    let name = section.name.as_deref().map(render::name);
    render::line(&match name {
        Some(name) => format!("{} {name}", section.section),
        None => section.section.to_owned(),
    });
    for finding in &section.findings {
        let message = render::name(&finding.message);
        render::line(&format!("  {:<8} {message}", finding.level.as_str()));
        if let Some(remedy) = &finding.remedy {
            render::line(&format!("           -> {}", render::name(remedy)));
        }
    }
}

//! What the bot says of sources and of what it does, in the words of one language.

use backup_app::access::Principal;
use backup_app::text::shown;
use backup_app::{JobView, Role};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use super::gate::Person;
use super::machine::Knows;
use crate::pages::show::{parse, percent};
use crate::pages::words::Words;

/// How many sources, jobs or steps are told of.
const LINES: usize = 30;

/// How things stand for somebody.
pub(super) fn status(person: &Person, knows: &dyn Knows) -> String {
    let (w, now) = (person.w, knows.now());
    let jobs = knows.jobs(&person.caller);
    let mut lines = Vec::new();
    let running: Vec<_> = jobs.iter().filter(|job| !job.is_over()).collect();
    if running.is_empty() {
        lines.push(w.bot_idle.to_owned());
    } else {
        lines.push(format!("{}:", w.under_way));
        lines.extend(running.iter().take(LINES).map(|job| {
            let source = job.source.as_deref().map(shown).unwrap_or_default();
            let what = w.operation(&job.operation);
            format!(
                "{} {what} {source} {}",
                w.chip(job.state).symbol,
                done(w, job)
            )
        }));
    }
    let sandboxes = jobs.iter().filter_map(|job| {
        let sandbox = job.sandbox.as_ref()?;
        let until = parse(&sandbox.until).filter(|until| *until > now)?;
        Some(format!(
            "{} — {}",
            shown(&sandbox.database),
            w.ago(until, now)
        ))
    });
    let sandboxes: Vec<_> = sandboxes.take(LINES).collect();
    if !sandboxes.is_empty() {
        lines.extend([String::new(), format!("{}:", w.sandboxes)]);
        lines.extend(sandboxes);
    }
    lines.push(String::new());
    let Some(sources) = knows.sources(&person.caller) else {
        lines.push(w.bot_not_ready.to_owned());
        return lines.join("\n");
    };
    lines.push(format!("{}:", w.sources));
    lines.extend(sources.iter().take(LINES).map(|source| {
        let chip = w.chip(source.status);
        let latest = source.latest.map(|at| w.ago(at, now));
        let latest = latest.unwrap_or_else(|| w.none_yet.to_owned());
        format!("{} {} — {latest}", chip.symbol, shown(&source.name))
    }));
    if sources.len() > LINES {
        lines.push(format!("… +{}", sources.len() - LINES));
    }
    lines.join("\n")
}

/// What a restore is called in all that is told of it.
pub(super) fn title(w: &Words, source: &str, backup: &str) -> String {
    format!("{}: {}, {}", w.restore, shown(source), shown(backup))
}

/// How a restore goes on, with the steps that it has taken before this one.
pub(super) fn progress(w: &Words, title: &str, job: &JobView, steps: &[String]) -> String {
    let mut lines = vec![title.to_owned()];
    if job.state == "queued" {
        lines.push(format!("… {}", w.queued_note));
        return lines.join("\n");
    }
    lines.push(format!("✓ {}", w.bot_ordered));
    let (last, before) = match steps.split_last() {
        Some((last, before)) => (shown(last), before),
        None => (w.running.to_owned(), &[][..]),
    };
    let told = before.len().saturating_sub(LINES);
    lines.extend(
        before[told..]
            .iter()
            .map(|step| format!("✓ {}", shown(step))),
    );
    lines.push(format!("▶ {last}"));
    let done = done(w, job);
    if !done.is_empty() {
        lines.push(done);
    }
    lines.join("\n")
}

/// How much is done.
fn done(w: &Words, job: &JobView) -> String {
    match job.bytes_total {
        Some(total) if total > 0 && job.state == "running" => {
            let share = percent(job.bytes_done, total);
            let (done, total) = (w.size(job.bytes_done), w.size(total));
            format!("{share}% ({done} {} {total})", w.done_of)
        }
        _ => String::new(),
    }
}

/// How a restore ended, and where its database is.
pub(super) fn ended(
    w: &Words,
    title: &str,
    job: &JobView,
    who: &Principal,
    (now, zone): (DateTime<Utc>, Tz),
) -> String {
    let chip = w.chip(job.state);
    let mut lines = vec![title.to_owned()];
    let Some(sandbox) = &job.sandbox else {
        lines.push(format!("{} {}", chip.symbol, chip.word));
        if let Some(error) = &job.error {
            // As on the pages: the words of servers and stores are for operators.
            if who.role >= Role::Operator {
                lines.push(shown(&error.message));
                lines.extend(error.hint.as_deref().map(shown));
            } else {
                lines.push(w.failure(&error.kind).to_owned());
            }
        }
        return lines.join("\n");
    };
    let compared = w.chip(sandbox.compared);
    let database = shown(&sandbox.database);
    let host = shown(&sandbox.host);
    lines.push(format!("✓ {}", w.bot_ready));
    lines.push(format!(
        "{} {}: {}, {}",
        compared.symbol,
        compared.word,
        w.counted(sandbox.tables, w.n_tables),
        w.counted(sandbox.rows, w.n_rows)
    ));
    if job.state != "success" {
        lines.push(format!("{} {}", chip.symbol, chip.word));
    }
    lines.push(String::new());
    lines.push(format!("{}: {host}", w.host));
    lines.push(format!("{}: {}", w.port, sandbox.port));
    lines.push(format!("{}: {database}", w.database));
    lines.push(format!("{}: {database}", w.user));
    if let Some(until) = parse(&sandbox.until) {
        let until = w.when(until, zone, now);
        lines.push(format!("{}: {} ({})", w.until, until.text, until.ago));
    }
    lines.join("\n")
}

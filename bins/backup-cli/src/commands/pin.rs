//! `pin` and `unpin`: whether a backup stays whatever a policy says.

use backup_app::{ChangedPin, Keys, PinChange, Pinning, who};
use backup_core::error::Error as CoreError;
use backup_core::manifest::Manifest;

use super::{Context, Outcome};
use crate::args::{PinArgs, UnpinArgs};
use crate::report::{PinView, PinnedView, pin_text};
use crate::{exit_code, render};

pub(super) async fn pin(context: &Context, arguments: &PinArgs) -> Outcome {
    let (backup, source) = (&arguments.backup, arguments.source.as_deref());
    let set = PinChange::Set {
        until: arguments.until,
        reason: arguments.reason.clone(),
    };
    change(context, (backup, source), &set).await
}

pub(super) async fn unpin(context: &Context, arguments: &UnpinArgs) -> Outcome {
    let (backup, source) = (&arguments.backup, arguments.source.as_deref());
    change(context, (backup, source), &PinChange::Remove).await
}

/// Changes the pin of one backup in every place that has it.
async fn change(
    context: &Context,
    (backup, source): (&str, Option<&str>),
    change: &PinChange,
) -> Outcome {
    let found = context.find_quietly(backup, source, Keys::None).await?;
    let manifest = found.manifest;
    let pinning = Pinning {
        source: &manifest.source,
        backup: &manifest.id,
        change,
        who: &who(),
        journal: &context.journal,
    };
    let mut changed = 0;
    let mut tell = |pin: &ChangedPin| {
        changed += 1;
        show(context, &manifest, pin, *change != PinChange::Remove);
    };
    let stop = context.interrupt.token();
    context.app.change_pin(&pinning, &mut tell, stop).await?;
    if changed == 0 {
        let what = format!("pin of backup {}", manifest.id);
        return Err(CoreError::NotFound { what }.into());
    }
    Ok(exit_code::DONE)
}

fn show(context: &Context, manifest: &Manifest, changed: &ChangedPin, pinned: bool) {
    let (source, id, pin) = (&manifest.source, &manifest.id, &changed.pin);
    if context.json {
        render::json(&PinnedView {
            run_id: changed.run.as_ref().map(ToString::to_string),
            id: id.to_string(),
            source: source.to_string(),
            destination: changed.place.clone(),
            pinned,
            pin: PinView::of(pin),
        });
        return;
    }
    let state = if pinned {
        pin_text(pin)
    } else {
        format!("not {} any more", pin_text(pin))
    };
    let source = render::name(source.as_str());
    let state = render::name(&state);
    render::line(&format!("{id}  {source}  {}  {state}", changed.place));
}

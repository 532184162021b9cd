//! Whether those who are to be told can be reached, as far as the places know.

use std::collections::BTreeMap;

use backup_core::check::{Finding, Status};
use backup_core::engine::Engine;
use backup_core::notifier::board::{Delivery, Undelivered};
use futures::future::join_all;
use serde::Serialize;

use super::{FindingView, Looked, worst};
use crate::compose::App;
use crate::text::{as_word, moment, shown, time};

/// One notifier.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the documented JSON")]
pub struct NotifierCheck {
    pub name: String,
    pub kind: &'static str,
    #[serde(serialize_with = "as_word")]
    pub status: Status,
    pub findings: Vec<FindingView>,
}

/// How notices are lost, by the name of the notifier.
pub(crate) type Lost = BTreeMap<String, Undelivered>;

impl App {
    /// How notices are lost, as one place knows it. What it does not tell is not known, and no finding.
    pub(super) async fn lost_notices(&self, engine: &Engine) -> Lost {
        let board = &engine.board();
        let reading = self.config().notify.keys().map(|name| async move {
            let seen = board.delivery(name).await.ok()?;
            let Delivery { failing, .. } = seen.value;
            Some((name.clone(), failing?))
        });
        join_all(reading).await.into_iter().flatten().collect()
    }

    /// What all places know of those who are configured.
    pub(super) fn check_notifiers(&self, looked: &[Looked]) -> Vec<NotifierCheck> {
        let configured = self.config().notify.iter();
        let checks = configured.map(|(name, config)| {
            let held = looked.iter().filter_map(|looked| looked.held.as_ref().ok());
            let lost = held.filter_map(|held| held.lost_notices.get(name));
            let newest = lost.max_by_key(|lost| lost.last);
            let findings: Vec<_> = newest.map(finding).into_iter().collect();
            NotifierCheck {
                name: name.clone(),
                kind: config.kind.as_str(),
                status: worst(&findings),
                findings: findings.into_iter().map(FindingView::from).collect(),
            }
        });
        checks.collect()
    }
}

fn finding(lost: &Undelivered) -> Finding {
    let (since, tried) = (moment(&time(lost.since)), moment(&time(lost.last)));
    let why = shown(&lost.why);
    let message =
        format!("nobody was told since {since}, last tried {tried}: {why}: `notify test`");
    Finding::warning("not-told", message)
}

//! The databases that one configured source stands for.

use backup_core::databases::{ChosenDatabases, DatabaseFinder as _, FoundDatabase, choose};
use backup_core::doctor::Finding;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{DoctorSection, Examined, LIMIT};
use crate::compose::App;

impl App {
    /// These sources, each that stands for several as its databases, with what is to be said of
    /// those that are left out. One whose server does not tell them stays: why it does not, the
    /// look at the server says.
    pub(super) async fn with_members(
        &self,
        examined: Vec<Examined>,
        cancel: &CancellationToken,
    ) -> (Vec<Examined>, Vec<DoctorSection>) {
        let (mut all, mut sections) = (Vec::new(), Vec::new());
        for source in examined {
            if !source.settings.is_family() || source.name.contains('/') {
                all.push(source);
                continue;
            }
            let Some(found) = self.databases_of(&source, cancel).await else {
                all.push(source);
                continue;
            };
            let chosen = choose(&source.settings.databases, &source.settings.exclude, &found);
            let findings = left_out(&chosen);
            let members = chosen.take.into_iter().map(|database| Examined {
                name: format!("{}/{database}", source.name),
                settings: source.settings.clone(),
                is_configured: true,
            });
            all.extend(members);
            sections.push(DoctorSection::new("server", Some(source.name), findings));
        }
        (all, sections)
    }

    async fn databases_of(
        &self,
        source: &Examined,
        cancel: &CancellationToken,
    ) -> Option<Vec<FoundDatabase>> {
        let finder = self.database_finder(&source.settings).ok()?;
        timeout(LIMIT, finder.databases(cancel)).await.ok()?.ok()
    }
}

fn left_out(chosen: &ChosenDatabases) -> Vec<Finding> {
    let taken = chosen.take.len();
    let mut findings = vec![Finding::ok(
        "databases",
        format!("it stands for {taken} databases now"),
    )];
    for (database, obstacle) in &chosen.skip {
        let text = format!("database {database:?} is left out: {}", obstacle.reason());
        let remedy = "make it possible, or name it under exclude";
        findings.push(if obstacle.is_by_design() {
            Finding::note("database-left-out", text)
        } else {
            Finding::warning("database-left-out", text).remedy(remedy)
        });
    }
    for (database, reason) in &chosen.refuse {
        let text = format!("database {database:?} cannot be backed up: {reason}");
        let remedy = "correct databases, or make it possible";
        findings.push(Finding::problem("database-refused", text).remedy(remedy));
    }
    for pattern in &chosen.unmatched {
        let text = format!("no database that can be backed up matches {pattern:?}");
        let remedy = "correct databases and exclude";
        findings.push(Finding::problem("nothing-matches", text).remedy(remedy));
    }
    findings
}

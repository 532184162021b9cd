//! What `runs --audit` shows.

use backup_app::text::time;
use backup_core::audit::{AddressClass, AuditReport, Audited, ChainReport};
use backup_core::run_record::Who;
use serde::Serialize;

/// One record.
#[derive(Debug, Serialize)]
pub(crate) struct AuditedView {
    destination: String,
    chain: String,
    number: u64,
    sha256: String,
    time: String,
    person: Option<String>,
    who: Who,
    address: Option<AddressClass>,
    action: String,
    outcome: String,
    source: Option<String>,
    backups: Vec<String>,
    run_id: Option<String>,
    database: Option<String>,
    count: Option<u64>,
}

impl AuditedView {
    /// What was found at a place.
    pub(crate) fn new(audited: &Audited, place: &str) -> Self {
        let (record, entry) = (&audited.record, &audited.record.entry);
        Self {
            destination: place.to_owned(),
            chain: audited.chain.to_string(),
            number: record.number,
            sha256: audited.sha256.clone(),
            time: time(record.time),
            person: entry.person.clone(),
            who: entry.who.clone(),
            address: entry.address,
            action: entry.action.to_string(),
            outcome: entry.outcome.to_string(),
            source: entry.source.as_ref().map(ToString::to_string),
            backups: entry.backups.iter().map(ToString::to_string).collect(),
            run_id: entry.run.as_ref().map(ToString::to_string),
            database: entry.database.clone(),
            count: entry.count,
        }
    }
}

/// Whether the records of one place are what was written.
#[derive(Debug, Serialize)]
pub(crate) struct AuditView {
    destination: String,
    status: &'static str,
    chains: Vec<ChainView>,
    strangers: Vec<String>,
    lost_head: Option<String>,
}

/// One chain.
#[derive(Debug, Serialize)]
struct ChainView {
    chain: String,
    records: u64,
    head: String,
    broken: Option<BreakView>,
}

/// Where it is broken.
#[derive(Debug, Serialize)]
struct BreakView {
    number: u64,
    kind: &'static str,
    message: String,
}

impl AuditView {
    /// What was found at a place.
    pub(crate) fn new(report: &AuditReport, place: &str) -> Self {
        Self {
            destination: place.to_owned(),
            status: if report.is_whole() { "whole" } else { "broken" },
            chains: report.chains.iter().map(ChainView::from).collect(),
            strangers: report.strangers.iter().map(ToString::to_string).collect(),
            lost_head: report.lost.clone(),
        }
    }
}

impl From<&ChainReport> for ChainView {
    fn from(report: &ChainReport) -> Self {
        Self {
            chain: report.chain.to_string(),
            records: report.head.number,
            head: report.head.sha256.clone(),
            broken: report.broken.as_ref().map(|broken| BreakView {
                number: broken.number,
                kind: broken.kind.as_str(),
                message: broken.to_string(),
            }),
        }
    }
}

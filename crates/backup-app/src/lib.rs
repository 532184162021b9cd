//! The composition root of both frontends: configuration in, engine and adapters out.
//!
//! A frontend says what its user asked for ([`Overrides`]: flags over variables over file);
//! [`App`] finds the source, the place and the keys, and hands out ports and an engine.
//! Logging, signals, the clock and the text of errors are here too, so that every frontend
//! behaves alike.

pub mod access;
mod admission;
mod adopt;
mod audit;
mod backup_run;
pub mod check;
mod clock;
mod compose;
mod connection;
mod database_name;
pub mod doctor;
mod drill;
mod error;
mod extract;
mod families;
mod found;
mod hooks;
mod inspector;
mod jobs;
mod journal;
mod keys;
mod limited;
mod listing;
mod logging;
mod notices;
mod orchestrators;
mod overview;
mod pins;
mod place;
mod placement;
mod processes;
mod proof_log;
mod prune;
mod recovery;
mod redis;
pub mod report;
mod retention;
mod sandbox;
mod scheduler;
mod schedules;
mod signals;
pub mod text;
pub mod token;
mod values;
mod verify;
mod who;
mod whole_file;

pub use adopt::Adoption;
pub use audit::AuditDesk;
pub use backup_compress::Compression;
pub use backup_config::{
    AccessConfig, Config, Environment, HttpConfig, Origin, RetentionConfig, Role, SecretRef,
    Setting, TelegramBotConfig, TelegramLanguage, TelegramUserConfig, names,
    schema as config_schema, starter,
};
pub use backup_crypt::generate as generate_identity;
pub use backup_generate as generate;
pub use backup_retention::SimulatedYear;
pub use backup_run::{
    BackupQueue, BackupRun, BackupTasks, BackupView, DestinationView, RefusedBackup,
    SkippedDatabase, Turn, Whose, is_anothers,
};
pub use clock::SystemClock;
pub use compose::{App, BackupJob, DumpFilterOverrides, Lister, Overrides, RestoreTarget};
pub use connection::ServerOverrides;
pub use database_name::refuse_password;
pub use drill::{ChosenDrill, ChosenDrills, DrillRun, DrillSetup, DrillTask, DrillWish};
pub use error::{AppError, ErrorReport};
pub use extract::{ExtractedFile, Extraction, refuse_unless_database};
pub use found::{Found, Wanted, choose_found};
pub use inspector::AnyInspector;
pub use jobs::{JobError, JobRefusal, JobView, Jobs, Order, SCHEDULE, SandboxView, Work};
pub use journal::{Journal, Mark, Notice, Reading, begin};
pub use keys::Keys;
pub use listing::{DAMAGED, ListView, PlaceListing, RunView, Views, lacking, tiers};
pub use logging::{LogFormat, LogLevel, init_logging};
pub use notices::{HURRIED_LIMIT, LIMIT as NOTICES_LIMIT, Notices, NotifyTest};
pub use orchestrators::Installation;
pub use overview::{BackupEntry, Overview, SourceView, Watcher};
pub use pins::{ChangedPin, PinChange, Pinning};
pub use place::Place;
pub use prune::{PruneApproval, PruneJob, PruneRun};
pub use recovery::{PlaceSheet, RecoverySheet, SourceSheet};
pub use sandbox::{SandboxRun, SandboxSetup, SandboxTask};
pub use scheduler::{MissedSlots, Scheduler};
pub use schedules::{NextRun, ScheduleReport, Scheduled};
pub use signals::{Hangups, Interrupt, keep_private};
pub use verify::{VerifyRun, VerifyTask, sample_each};
pub use who::who;

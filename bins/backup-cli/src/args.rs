//! What can be said on the command line.

mod audit;
mod doctor;
mod files;
mod generate;
mod notify;
mod rekey;
mod retention;
mod undo;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use backup_app::{DumpFilterOverrides, Overrides, ServerOverrides};
use backup_core::restorer::{Ownership, Selection};
use chrono::TimeDelta;
use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::exit_code;

pub(crate) use audit::{AuditArgs, AuditMode};
pub(crate) use doctor::DoctorArgs;
pub(crate) use files::{AdoptArgs, PartsArgs};
pub(crate) use generate::{GenerateArgs, OrchestratorArg};
pub(crate) use notify::{NotifyArgs, NotifyCommand};
pub(crate) use rekey::RekeyArgs;
pub(crate) use retention::{PinArgs, PruneArgs, SimulateArgs, UnpinArgs};
pub(crate) use undo::UndoArgs;

/// Backups of PostgreSQL that are proved to restore.
#[derive(Debug, Parser)]
#[command(
    name = "backup-cli",
    version,
    disable_help_flag = true,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "Exit codes: 0 done, 1 failed, 2 usage, 3 done with warnings, 4 not found, \
                  5 lock held, 6 integrity, 7 preflight, 8 store, 9 database, 10 key, \
                  12 refused, 124 timeout, 130/143 signal."
)]
pub(crate) struct Cli {
    /// Configuration file [default: /etc/backup/backup.toml, then ~/.config/backup/backup.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Form of log lines on stderr
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub(crate) log_format: LogFormatArg,
    /// Log every step
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub(crate) verbose: bool,
    /// Log errors only
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Print the result as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print help
    #[arg(long, short = '?', global = true, action = ArgAction::Help)]
    help: Option<bool>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LogFormatArg {
    Text,
    Json,
    /// Text, and service messages on stdout
    Teamcity,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Take backups of configured sources, or of the database given with -d
    Backup(BackupArgs),
    /// List backups, newest first
    List(ListArgs),
    /// Show one backup: parts, tables, rows
    Show(ShowArgs),
    /// Restore a backup into a new database and compare it with the dump
    Restore(RestoreArgs),
    /// Swap back what `restore --swap` replaced
    Undo(UndoArgs),
    /// Prove stored backups without a database
    Verify(VerifyArgs),
    /// Rehearse a restore: into a throw-away cluster, compared with the dump, checked, reported
    Drill(DrillArgs),
    /// List what was done: backups, restores, verifications, drills, failures too; newest first
    Runs(RunsArgs),
    /// Say whether backups are fresh and healthy, from their places alone
    ///
    /// Exit codes as monitoring wants them: 0 ok, 1 warning, 2 critical, 3 unknown.
    Check(CheckArgs),
    /// Say what would keep backups and restores from working here, and what to do about it
    ///
    /// Exit codes: 0 all is well, 3 warnings, 7 problems.
    Doctor(DoctorArgs),
    /// Let old backups go, and say of each why it stays or goes
    Prune(PruneArgs),
    /// Say what a policy would keep over time
    Simulate(SimulateArgs),
    /// Keep a backup whatever a policy says
    Pin(PinArgs),
    /// Take that back
    Unpin(UnpinArgs),
    /// Print the rows of one table of a backup
    Cat(CatArgs),
    /// Copy backups to another place, checked and without decrypting them
    Copy(CopyArgs),
    /// Make dumps that another tool took backups like any others
    Adopt(AdoptArgs),
    /// Let others open stored backups, and no longer those who could
    Rekey(RekeyArgs),
    /// Write a configuration to fill in, and a key pair
    Init(InitArgs),
    /// Make a key pair: the private key goes to a file or stdout, the public one to stderr
    Keygen(KeygenArgs),
    /// Print what somebody needs who has lost everything but the places and the private key
    RecoverySheet(PlaceArgs),
    /// Make a token for the server: it is shown once, its hash goes into the configuration
    Token(TokenArgs),
    /// Try whether those who are told how runs end hear of it
    Notify(NotifyArgs),
    /// Look at the configuration
    Config(ConfigArgs),
    /// Print files by which cron, systemd, CI servers and schedulers run what is configured
    ///
    /// No secret is in them. Exit code 3: a schedule or a name was left out, as a warning says.
    Generate(GenerateArgs),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write man pages into a directory
    Man {
        /// The directory
        dir: PathBuf,
    },
}

/// Where a server is, as in every PostgreSQL tool.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ServerArgs {
    /// Server host or socket directory [env: PGHOST]
    #[arg(short = 'h', long, value_name = "HOST")]
    host: Option<String>,
    /// Server port [env: PGPORT]
    #[arg(short, long, value_name = "PORT")]
    port: Option<u16>,
    /// Role [env: PGUSER]
    #[arg(short = 'U', long, value_name = "NAME")]
    username: Option<String>,
    /// Never ask for a password (it never is; give it by PGPASSWORD, PGPASSFILE or ~/.pgpass)
    #[arg(short = 'w', long)]
    no_password: bool,
}

impl ServerArgs {
    pub(crate) fn overrides(&self) -> ServerOverrides {
        ServerOverrides {
            host: self.host.clone(),
            port: self.port,
            user: self.username.clone(),
        }
    }
}

/// Where backups are.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct PlaceArgs {
    /// Where backups live
    #[arg(
        long,
        value_name = "URL",
        help = "Where backups are: file:///dir, s3://bucket/prefix [default: every configured destination]"
    )]
    from: Option<String>,
}

impl PlaceArgs {
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides {
            url: self.from.clone(),
            ..Overrides::default()
        }
    }
}

/// Where backups are read from, and with which keys.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct FromArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// File with the private key of a recipient; may be repeated
    #[arg(short, long, value_name = "FILE")]
    pub(crate) identity: Vec<PathBuf>,
}

impl FromArgs {
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides {
            identities: self.identity.clone(),
            ..self.place.overrides()
        }
    }
}

/// Where backups are put, and in which form.
#[derive(Debug, Args)]
pub(crate) struct StoringArgs {
    /// Where backups live
    #[arg(
        long,
        value_name = "URL",
        help = "Where to put backups: file:///dir, s3://bucket/prefix"
    )]
    to: Option<String>,
    /// Encrypt to this public key; may be repeated
    #[arg(long, value_name = "age1…")]
    recipient: Vec<String>,
    /// Write without encryption
    #[arg(long, conflicts_with = "recipient")]
    no_encryption: bool,
    /// Compression: zstd:LEVEL, gzip:LEVEL, none [default: zstd:2]
    #[arg(short = 'Z', long, value_name = "METHOD")]
    compress: Option<String>,
}

impl StoringArgs {
    fn overrides(&self) -> Overrides {
        Overrides {
            url: self.to.clone(),
            compression: self.compress.clone(),
            recipients: self.recipient.clone(),
            no_encryption: self.no_encryption,
            ..Overrides::default()
        }
    }
}

/// `backup`
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// Configured sources
    #[arg(value_name = "SOURCE", conflicts_with = "all")]
    pub(crate) sources: Vec<String>,
    /// All configured sources
    #[arg(long)]
    pub(crate) all: bool,
    /// Database [env: PGDATABASE]
    #[arg(short, long, value_name = "NAME", conflicts_with_all = ["sources", "all"])]
    dbname: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    storing: StoringArgs,
    /// Parts at the same time [default: 4]
    #[arg(short, long, value_name = "N")]
    jobs: Option<usize>,
    /// Backups at the same time, each with its own jobs [default: 1]
    #[arg(long, value_name = "N")]
    concurrent: Option<usize>,
    /// Only of sources without a backup for so long, such as 12h. Several of these commands share the work,
    /// on any machines: each source is taken by one of them, and what one cannot finish another does
    #[arg(long, value_name = "AGE", value_parser = age, conflicts_with_all = ["dbname", "schema", "exclude_schema", "table", "exclude_table"])]
    pub(crate) older_than: Option<TimeDelta>,
    /// Only schemas that match the pattern; the backup is marked as filtered
    #[arg(short = 'n', long, value_name = "PATTERN")]
    schema: Vec<String>,
    /// Without schemas that match
    #[arg(short = 'N', long, value_name = "PATTERN")]
    exclude_schema: Vec<String>,
    /// Only tables that match the pattern
    #[arg(short = 't', long, value_name = "PATTERN")]
    table: Vec<String>,
    /// Without tables that match
    #[arg(short = 'T', long, value_name = "PATTERN")]
    exclude_table: Vec<String>,
}

impl BackupArgs {
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides {
            server: self.server.overrides(),
            database: self.dbname.clone(),
            jobs: self.jobs,
            concurrent: self.concurrent,
            filter: DumpFilterOverrides {
                schemas: self.schema.clone(),
                exclude_schemas: self.exclude_schema.clone(),
                tables: self.table.clone(),
                exclude_tables: self.exclude_table.clone(),
            },
            ..self.storing.overrides()
        }
    }
}

/// `list`
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only this source
    pub(crate) source: Option<String>,
    /// Only the last N days
    #[arg(long, value_name = "N")]
    pub(crate) days: Option<u32>,
    /// At most N backups
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// `check`
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Only these sources [default: those that are configured, else all that are there]
    #[arg(value_name = "SOURCE")]
    pub(crate) sources: Vec<String>,
    /// Write metrics for Prometheus' node exporter into this file, as a whole
    #[arg(long, value_name = "FILE")]
    pub(crate) prometheus: Option<PathBuf>,
    /// Tell those who are configured under [notify.NAME] what is new or over
    #[arg(long, conflicts_with = "from")]
    pub(crate) notify: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// `show`
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Id, the beginning of one, latest, latest-verified or oldest
    pub(crate) backup: String,
    /// The source, where such a word needs one
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Option<String>,
    #[command(flatten)]
    pub(crate) from: FromArgs,
}

/// What of a backup to restore.
#[derive(Debug, Clone, Default, Args)]
struct SelectionArgs {
    /// Only this schema, with what it needs; may be repeated
    #[arg(long, value_name = "NAME")]
    schema: Vec<String>,
    /// Only this table, with its partitions and what it needs; may be repeated
    #[arg(long, value_name = "SCHEMA.TABLE")]
    table: Vec<String>,
    /// Definitions without rows
    #[arg(long, conflicts_with = "data_only")]
    schema_only: bool,
    /// Rows only, into a database that --schema-only has made of the same backup and that is empty
    #[arg(long, conflicts_with = "create_roles")]
    data_only: bool,
}

/// Who owns what is restored.
#[derive(Debug, Clone, Default, Args)]
struct OwnershipArgs {
    /// The restoring role owns everything; no grants
    #[arg(long, conflicts_with_all = ["owner", "map_role"])]
    no_owner: bool,
    /// This role owns everything; no grants. The restoring role must be a member of it
    #[arg(long, value_name = "ROLE", conflicts_with = "map_role")]
    owner: Option<String>,
    /// Owners and grants of OLD go to NEW; may be repeated
    #[arg(long, value_name = "OLD=NEW", value_parser = renamed_role)]
    map_role: Vec<(String, String)>,
    /// Make roles that are missing, without the right to log in and without a password
    #[arg(long)]
    create_roles: bool,
}

fn renamed_role(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((old, new)) if !old.is_empty() && !new.is_empty() => {
            Ok((old.to_owned(), new.to_owned()))
        }
        _ => Err("not of the form OLD=NEW".to_owned()),
    }
}

/// `restore`
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// Id, the beginning of one, latest, latest-verified or oldest
    pub(crate) backup: String,
    /// The source, where such a word needs one
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Option<String>,
    /// The database to make; it must not exist, unless it is to be replaced or filled
    #[arg(long, value_name = "NAME", required_unless_present = "target_dir")]
    target_db: Option<String>,
    /// Write it as files into this directory instead, where none of them may be there yet
    #[arg(long, value_name = "DIR", conflicts_with_all = ["target_db", "target_server", "swap", "replace_archive", "schema", "table", "schema_only", "data_only", "no_compare"])]
    pub(crate) target_dir: Option<PathBuf>,
    /// The configured server to restore to [default: the source's own]
    #[arg(long, value_name = "NAME")]
    pub(crate) target_server: Option<String>,
    #[command(flatten)]
    pub(crate) from: FromArgs,
    #[command(flatten)]
    server: ServerArgs,
    /// Parts at the same time [default: 4]
    #[arg(short, long, value_name = "N")]
    jobs: Option<usize>,
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    ownership: OwnershipArgs,
    /// Do not ask whether the server has room for the database
    #[arg(long)]
    no_space_check: bool,
    /// Do not read the database back to compare it with the dump
    #[arg(long)]
    pub(crate) no_compare: bool,
    /// Leave a database whose restore failed
    #[arg(long)]
    pub(crate) keep_failed: bool,
    #[command(flatten)]
    pub(crate) replace: ReplaceArgs,
}

/// What becomes of a database that has the name.
#[derive(Debug, Args)]
pub(crate) struct ReplaceArgs {
    /// Once it is proved equal, put it into the place of the database that has the name now, which
    /// is kept under another name; `undo` swaps back
    #[arg(long, conflicts_with_all = ["no_compare", "no_owner", "owner", "schema", "table", "schema_only", "data_only"])]
    pub(crate) swap: bool,
    /// The same for a database that an earlier restore made, and no other; what was written to it
    /// since goes with it when the next but one takes its place
    #[arg(long, conflicts_with_all = ["swap", "no_compare", "no_owner", "owner", "schema", "table", "schema_only", "data_only"])]
    pub(crate) replace_archive: bool,
    /// Swap without asking
    #[arg(long)]
    pub(crate) yes: bool,
}

impl RestoreArgs {
    pub(crate) fn selection(&self) -> Selection {
        Selection {
            schemas: self.selection.schema.clone(),
            tables: self.selection.table.clone(),
            definitions_only: self.selection.schema_only,
            content_only: self.selection.data_only,
        }
    }

    pub(crate) fn ownership(&self) -> Ownership {
        let arguments = &self.ownership;
        if let Some(role) = &arguments.owner {
            Ownership::Role(role.clone())
        } else if arguments.no_owner {
            Ownership::Login
        } else if arguments.map_role.is_empty() {
            Ownership::Keep
        } else {
            Ownership::Renamed(arguments.map_role.iter().cloned().collect())
        }
    }

    /// The database, which is named unless files are wanted.
    pub(crate) fn target_db(&self) -> &str {
        self.target_db.as_deref().unwrap_or_default()
    }

    pub(crate) fn overrides(&self) -> Overrides {
        Overrides {
            server: self.server.overrides(),
            jobs: self.jobs,
            create_roles: self.ownership.create_roles,
            no_space_check: self.no_space_check,
            ..self.from.overrides()
        }
    }
}

/// `verify`
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Ids, beginnings of them, latest, latest-verified or oldest
    #[arg(required_unless_present_any = ["all", "sample"], conflicts_with_all = ["all", "sample"])]
    pub(crate) backups: Vec<String>,
    /// Every backup
    #[arg(long, conflicts_with = "sample")]
    pub(crate) all: bool,
    /// N backups of each source at each place, picked at random, the newest among them
    #[arg(long, value_name = "N")]
    pub(crate) sample: Option<usize>,
    /// How deep: objects are there, their bytes are right, their content is a dump that holds
    /// what was fingerprinted (needs the key)
    #[arg(long, value_enum, default_value = "hashed")]
    pub(crate) level: LevelArg,
    /// Only this source
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Option<String>,
    /// Parts at the same time
    #[arg(short, long, value_name = "N", default_value = "4")]
    pub(crate) jobs: usize,
    #[command(flatten)]
    pub(crate) from: FromArgs,
}

/// `copy`
#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// Ids, beginnings of them, latest, latest-verified or oldest
    #[arg(required_unless_present = "missing", conflicts_with = "missing")]
    pub(crate) backups: Vec<String>,
    /// Every backup that the other place lacks, the newest first
    #[arg(long)]
    pub(crate) missing: bool,
    /// Only this source
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Option<String>,
    /// A configured destination, or a URL
    #[arg(long, value_name = "PLACE")]
    pub(crate) from: String,
    /// A configured destination, or a URL
    #[arg(long, value_name = "PLACE")]
    pub(crate) to: String,
    /// Objects at the same time
    #[arg(short, long, value_name = "N", default_value = "4")]
    pub(crate) jobs: usize,
}

/// How deep to verify.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LevelArg {
    Stored,
    Hashed,
    Decoded,
}

/// `drill`
#[derive(Debug, Args)]
pub(crate) struct DrillArgs {
    /// Sources, each with one backup [default: the only one there is]
    #[arg(value_name = "SOURCE", conflicts_with = "all")]
    pub(crate) sources: Vec<String>,
    /// Every source that has backups
    #[arg(long)]
    pub(crate) all: bool,
    /// Only sources without a good drill for so long, such as 30d; the longest ago first
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub(crate) older_than: Option<TimeDelta>,
    /// The newest backup that is at least so old, such as 7d [default: the newest and a random
    /// older one in turn]
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub(crate) age: Option<TimeDelta>,
    /// This backup: an id, the beginning of one, latest or oldest
    #[arg(long, value_name = "ID", conflicts_with_all = ["all", "older_than", "age"])]
    pub(crate) backup: Option<String>,
    /// Write a page and its JSON into this directory, or one of both to this file (.html, .json)
    #[arg(long, value_name = "PATH")]
    pub(crate) report: Option<PathBuf>,
    /// Parts at the same time [default: 4]
    #[arg(short, long, value_name = "N")]
    jobs: Option<usize>,
    #[command(flatten)]
    from: FromArgs,
}

impl DrillArgs {
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides {
            jobs: self.jobs,
            ..self.from.overrides()
        }
    }
}

/// An age such as `7d` or `12h`.
fn age(text: &str) -> Result<TimeDelta, String> {
    let duration = humantime::parse_duration(text).map_err(|e| e.to_string())?;
    TimeDelta::from_std(duration).map_err(|e| e.to_string())
}

/// `runs`
#[derive(Debug, Args)]
pub(crate) struct RunsArgs {
    /// Only the last N days
    #[arg(long, value_name = "N")]
    pub(crate) days: Option<u32>,
    /// Only runs of this operation
    #[arg(long, value_enum)]
    pub(crate) operation: Option<OperationArg>,
    /// At most N runs
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    #[command(flatten)]
    pub(crate) audit: AuditArgs,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// What a run did.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum OperationArg {
    Backup,
    Adopt,
    Restore,
    Verify,
    Undo,
    Drill,
    Prune,
    Pin,
    Unpin,
    Copy,
    Rekey,
}

/// `cat`
#[derive(Debug, Args)]
pub(crate) struct CatArgs {
    /// Id, the beginning of one, latest, latest-verified or oldest
    pub(crate) backup: String,
    #[command(flatten)]
    pub(crate) what: PartsArgs,
    /// Form of the rows
    #[arg(long, value_enum, default_value = "copy")]
    pub(crate) format: RowFormatArg,
    /// The source, where such a word needs one
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Option<String>,
    #[command(flatten)]
    pub(crate) from: FromArgs,
}

/// Form of rows.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RowFormatArg {
    Copy,
    Csv,
}

/// `token`
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// Whose it is, as logs call him
    pub(crate) name: String,
    /// What he may do; each may what those before may
    #[arg(long, value_enum)]
    pub(crate) role: RoleArg,
    /// To which sources, with * for any characters; may be given more than once
    #[arg(long, value_name = "S", default_value = "*")]
    pub(crate) source: Vec<String>,
}

/// What somebody may do.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RoleArg {
    Viewer,
    Restorer,
    Operator,
    Admin,
}

/// `keygen`
#[derive(Debug, Args)]
pub(crate) struct KeygenArgs {
    /// Write the private key to this new file (0600) instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// `init`
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The directory for backup.toml and identity.txt, which must not be there yet
    #[arg(default_value = ".")]
    pub(crate) dir: PathBuf,
}

/// `config`
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

impl ConfigArgs {
    /// Whether it is asked where no file is yet, or none that can be used.
    pub(crate) fn needs_no_file(&self) -> bool {
        matches!(self.command, ConfigCommand::Schema)
    }
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say whether it can be used
    Check,
    /// Print what is in force; secrets by where they are
    Show {
        /// Say of each value whether it is a default, or which file or variable says it
        #[arg(long)]
        origin: bool,
    },
    /// Print the form of the file as JSON Schema, for editors and validators
    Schema,
}

/// The command line, or the code to end with: help and version are no errors, and a usage
/// error has a code of its own.
pub(crate) fn parse() -> Result<Cli, ExitCode> {
    Cli::try_parse().map_err(|error| {
        // Nothing can be done when even this cannot be printed.
        let _ = error.print();
        if error.use_stderr() {
            ExitCode::from(exit_code::of_usage(asks_for_check(std::env::args_os())))
        } else {
            ExitCode::SUCCESS
        }
    })
}

/// Whether what could not be parsed was to be a check, whose exit codes are its own.
fn asks_for_check(words: impl Iterator<Item = OsString>) -> bool {
    let command = command();
    let mut words = words.skip(1).filter_map(|word| word.into_string().ok());
    words.find(|word| command.find_subcommand(word).is_some()) == Some("check".to_owned())
}

/// The description of the command line, for completions and man pages.
pub(crate) fn command() -> clap::Command {
    Cli::command()
}

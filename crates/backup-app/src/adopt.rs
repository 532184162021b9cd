//! Files with dumps of other tools, on their way to become backups.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_compress::Algorithm;
use backup_config::{HooksConfig, RetryConfig};
use backup_core::backup::SourceName;
use backup_core::body::BodyStream;
use backup_core::clock::Clock as _;
use backup_core::engine::BackupRequest;
use backup_core::error::{Error as CoreError, ErrorKind, PortError};
use backup_core::retention::Extent;
use backup_pg_process::{DumpFile, PgAdopter};
use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use tokio_util::io::ReaderStream;

use crate::clock::SystemClock;
use crate::compose::{App, BackupJob};
use crate::error::AppError;
use crate::journal::Mark;

/// Bytes read at once.
const CHUNK: usize = 256 << 10;
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// A file that is to become a backup.
#[derive(Debug, Clone, Copy)]
pub struct Adoption<'a> {
    /// Which.
    pub file: &'a Path,
    /// Of which source; it need not be configured.
    pub source: &'a str,
    /// When it was dumped, if that is known better than the file does.
    pub at: Option<DateTime<Utc>>,
}

/// A file, and what it is packed with.
#[derive(Debug)]
struct Packed {
    path: PathBuf,
    bytes: u64,
    algorithm: Option<Algorithm>,
}

impl Packed {
    fn of(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        if meta.is_dir() {
            return Err(std::io::Error::other(
                "it is a directory: dumps in directory form cannot be adopted",
            ));
        }
        let mut begin = Vec::new();
        file.take(ZSTD.len() as u64).read_to_end(&mut begin)?;
        let algorithm = if begin.starts_with(GZIP) {
            Some(Algorithm::Gzip)
        } else if begin.starts_with(ZSTD) {
            Some(Algorithm::Zstd)
        } else {
            None
        };
        Ok(Self {
            path: path.to_owned(),
            bytes: meta.len(),
            algorithm,
        })
    }
}

impl DumpFile for Packed {
    fn open(&self) -> Result<BodyStream, PortError> {
        let file = File::open(&self.path).map_err(|e| {
            let what = format!("cannot open {}", self.path.display());
            PortError::new(ErrorKind::InvalidInput, what).with_source(e)
        })?;
        let file = tokio::fs::File::from_std(file);
        let body = ReaderStream::with_capacity(file, CHUNK).boxed();
        Ok(match self.algorithm {
            Some(algorithm) => algorithm.compressor(0).decompress(body),
            None => body,
        })
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl App {
    /// The job that makes a backup of a file. Hooks do not run, for nothing is dumped, and nothing is
    /// tried again.
    ///
    /// # Errors
    /// When the file is no dump, or cannot be read; when settings make no sense.
    pub async fn adopt_job(&self, adoption: &Adoption<'_>) -> Result<BackupJob, AppError> {
        let Adoption { file, source, at } = *adoption;
        let unreadable = |source| AppError::File {
            operation: format!("read {}", file.display()),
            source,
        };
        let packed = Arc::new(Packed::of(file).map_err(unreadable)?);
        let name = SourceName::new(source).map_err(|e| AppError::usage(e.to_string()))?;
        let configured = self.config().settings_of(source).cloned();
        let mut settings = self.settings(configured.as_ref());
        settings.values.retry = RetryConfig::never();
        settings.hooks = HooksConfig::default();
        let configured = configured.unwrap_or_default();
        let database = configured
            .database
            .clone()
            .unwrap_or_else(|| source.to_owned());
        let adopter = PgAdopter::new(Arc::<Packed>::clone(&packed), database.clone());
        let found = adopter.look().await.map_err(|source| CoreError::Dump {
            operation: format!("adopt {}", file.display()),
            source,
        })?;
        let now = SystemClock.now();
        let of_file = file.metadata().and_then(|meta| meta.modified());
        // A dump has the time of its host's clock and not its zone: at most half a day is wrong then.
        let said = found.created.map(|created| created.and_utc());
        let at = at.or(said).or(of_file.ok().map(DateTime::from));
        let at = at.unwrap_or(now).min(now);
        Ok(BackupJob {
            request: BackupRequest {
                adopted: Some(at),
                ..self.request(&configured, &settings, &name)?
            },
            places: self.places_for(&configured, &name)?,
            extent: Extent::Whole,
            dumper: Box::new(adopter),
            settings,
            mark: Mark::default(),
            server: None,
            source: name,
            database: found.database.unwrap_or(database),
        })
    }
}

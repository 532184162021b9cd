//! A backup as files: for what is no database that a restore could make, and for whoever restores
//! by hand.

use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use backup_core::body::RawHasher;
use backup_core::clock::Clock as _;
use backup_core::engine::{Engine, RestoreOutcome};
use backup_core::error::{Error as CoreError, ErrorKind, PortError};
use backup_core::manifest::{Content, Manifest, PartFormat, PartKind, PartRecord};
use backup_core::restorer::PartReader;
use futures::StreamExt as _;
use tempfile::NamedTempFile;
use tokio_util::sync::CancellationToken;

use crate::clock::SystemClock;
use crate::error::AppError;

/// What Redis itself calls it.
const SNAPSHOT: &str = "dump.rdb";
/// Bytes read back at once.
const CHUNK: usize = 256 << 10;

/// One file that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtractedFile {
    /// The part.
    pub part: String,
    /// Where it is.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
}

/// A backup that is to become files.
#[derive(Debug)]
pub struct Extraction<'a> {
    /// Reads it.
    pub engine: &'a Engine,
    /// Which.
    pub manifest: &'a Manifest,
    /// Where to; made if it is not there.
    pub directory: &'a Path,
}

/// Says so of a backup that is none of a database, before anything is done.
///
/// # Errors
/// With what can be done instead.
pub fn refuse_unless_database(manifest: &Manifest) -> Result<(), AppError> {
    let content = manifest.content();
    if content == Content::Database {
        return Ok(());
    }
    let what = format!(
        "backup {} is {}, which is no database",
        manifest.id,
        content.words()
    );
    let hint = "restore --target-dir DIR writes it as files";
    Err(AppError::usage_hint(what, hint))
}

impl Extraction<'_> {
    /// Writes every part into a new file that nobody else can read, and reads it back. After an
    /// error none of them is left.
    ///
    /// # Errors
    /// When a file is there already, which is found before anything is read; when something is
    /// damaged.
    pub async fn run(
        &self,
        cancel: &CancellationToken,
    ) -> Result<(RestoreOutcome, Vec<ExtractedFile>), AppError> {
        let started_at = SystemClock.now();
        let parts = self.manifest.parts.iter();
        let parts = parts.filter(|part| part.kind != PartKind::Facts);
        let targets: Vec<(&PartRecord, PathBuf)> = parts
            .map(|part| (part, self.directory.join(file_name(self.manifest, part))))
            .collect();
        for (_, path) in &targets {
            if path.symlink_metadata().is_ok() {
                return Err(AppError::usage(format!(
                    "{} is there already, and nothing is written over",
                    path.display()
                )));
            }
        }
        let failed = |source| AppError::File {
            operation: format!("make directory {}", self.directory.display()),
            source,
        };
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(self.directory).map_err(failed)?;
        let reader = tokio::select! {
            reader = self.engine.open(self.manifest.clone()) => reader?,
            () = cancel.cancelled() => return Err(CoreError::Cancelled.into()),
        };
        let mut files = Vec::new();
        for (part, path) in targets {
            let written = tokio::select! {
                written = write(reader.as_ref(), part, &path) => written,
                () = cancel.cancelled() => Err(CoreError::Cancelled.into()),
            };
            if let Err(error) = written {
                take_back(&files);
                return Err(error);
            }
            files.push(ExtractedFile {
                part: part.name.to_string(),
                path,
                bytes: part.raw_bytes,
            });
        }
        let outcome = RestoreOutcome {
            manifest: self.manifest.clone(),
            started_at,
            finished_at: SystemClock.now(),
            bytes_read: reader.bytes_read(),
            partial: false,
            compare: None,
            replaced: None,
            notes: Vec::new(),
            warnings: Vec::new(),
        };
        Ok((outcome, files))
    }
}

fn take_back(files: &[ExtractedFile]) {
    for file in files {
        if let Err(error) = std::fs::remove_file(&file.path) {
            tracing::warn!(target: "backup", path = %file.path.display(), %error, "a file is left behind");
        }
    }
}

/// What the file of a part is called.
fn file_name(manifest: &Manifest, part: &PartRecord) -> String {
    if manifest.content() == Content::Redis && part.format == PartFormat::Rdb {
        return SNAPSHOT.to_owned();
    }
    format!("{}{}", part.name, part.format.extension())
}

/// Writes one part: the file has its name only once it is whole.
async fn write(reader: &dyn PartReader, part: &PartRecord, path: &Path) -> Result<(), AppError> {
    let failed = |source| AppError::File {
        operation: format!("write {}", path.display()),
        source,
    };
    let damaged = |source: PortError| {
        let operation = format!("read part {}", part.name);
        AppError::Engine(match source.kind() {
            ErrorKind::Corrupt | ErrorKind::NotFound => CoreError::Corrupt {
                what: operation,
                source: Some(source),
            },
            _ => CoreError::Store { operation, source },
        })
    };
    let mut body = reader.open(&part.name).await.map_err(damaged)?;
    let mut file = tempfile::Builder::new()
        .prefix(".backup-")
        .tempfile_in(crate::whole_file::parent(path))
        .map_err(failed)?;
    while let Some(chunk) = body.next().await {
        let chunk = chunk
            .map_err(|e| damaged(PortError::from_io(e, ErrorKind::Corrupt, "cannot be read")))?;
        file.write_all(&chunk).map_err(failed)?;
    }
    file.as_file().sync_all().map_err(failed)?;
    let found = read_back(&mut file).map_err(failed)?;
    if found != (part.raw_bytes, part.raw_xxh3.clone()) {
        let what = "the file does not hold what was written to it";
        return Err(failed(std::io::Error::other(what)));
    }
    file.persist_noclobber(path).map_err(|e| failed(e.error))?;
    Ok(())
}

fn read_back(file: &mut NamedTempFile) -> std::io::Result<(u64, String)> {
    use std::io::{Read as _, Seek as _};
    file.rewind()?;
    let mut hasher = RawHasher::default();
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

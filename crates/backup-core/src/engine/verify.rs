//! Proving stored bytes, without a database.

use std::sync::Arc;

use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::reader::{current_key, read_error, stored_part};
use super::{BackupReader, Engine, unless};
use crate::body::{BodyStream, counted};
use crate::error::{Error, ErrorKind, PortError, chain};
use crate::inspector::Inspector;
use crate::layout;
use crate::manifest::{Manifest, PartKind, PartName, PartRecord};
use crate::observer::Event;
use crate::restorer::PartReader;

/// How deep a verification goes; each includes the ones before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum VerifyLevel {
    /// Every object is there and as long as it was written.
    Stored,
    /// Every byte was read and has the digest that was written. Needs no key.
    #[default]
    Hashed,
    /// Every part was decrypted, decompressed and read as a dump, and holds the rows and
    /// content that were fingerprinted when it was taken.
    Decoded,
}

/// How to verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyRequest {
    /// How deep.
    pub level: VerifyLevel,
    /// How many parts at a time.
    pub jobs: usize,
}

/// Something wrong with a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartProblem {
    /// Which part.
    pub part: PartName,
    /// What is wrong, with causes.
    pub problem: String,
}

/// The result of a verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyReport {
    /// How deep it went.
    pub level: VerifyLevel,
    /// Parts looked at.
    pub parts: usize,
    /// Stored bytes that were read.
    pub bytes_read: u64,
    /// What is wrong; empty = proved.
    pub problems: Vec<PartProblem>,
}

/// The result for one part: bytes read, and what is wrong.
type Checked = (u64, Option<String>);

impl Engine {
    /// Verifies one backup. Damage is in the report, not an error; that the backup comes from
    /// another repository is a warning.
    ///
    /// # Errors
    /// Only when nothing can be said: the store cannot be reached, no identity fits
    /// (`Decoded`), cancelled.
    pub async fn verify(
        &self,
        backup: &Manifest,
        request: VerifyRequest,
        inspector: Arc<dyn Inspector>,
        cancel: &CancellationToken,
    ) -> Result<VerifyReport, Error> {
        let VerifyRequest { level, jobs } = request;
        let mut report = VerifyReport {
            level,
            parts: backup.parts.len(),
            bytes_read: 0,
            problems: Vec::new(),
        };
        let beginning = async { tokio::join!(self.check_key(backup), self.repository()) };
        let (key, here) = unless(cancel, beginning).await?;
        self.tell_stranger(backup, here.as_deref());
        if let Some(problem) = key? {
            report.problems.push(problem);
            // Nothing can be decoded without it; what can be said of the parts is still said.
            if level == VerifyLevel::Decoded {
                return Ok(report);
            }
        }
        let reader = match unless(cancel, self.reader_for(backup, level)).await?? {
            Ok(reader) => reader,
            Err(problem) => {
                report.problems.push(problem);
                return Ok(report);
            }
        };
        let task = VerifyTask {
            engine: self.clone(),
            backup: Arc::new(backup.clone()),
            level,
            inspector,
            reader,
            cancel: cancel.clone(),
        };
        let mut checks = stream::iter(backup.parts.clone())
            .map(|part| task.clone().start(part))
            .buffered(jobs.max(1));
        while let Some((part, checked)) = checks.next().await {
            let (bytes, problem) = checked?;
            report.bytes_read += bytes;
            report
                .problems
                .extend(problem.map(|problem| PartProblem { part, problem }));
        }
        Ok(report)
    }

    /// Without its wrapped key a backup is lost, however good its parts are.
    async fn check_key(&self, backup: &Manifest) -> Result<Option<PartProblem>, Error> {
        let Some(record) = &backup.encryption else {
            return Ok(None);
        };
        let problem = match current_key(self, backup, record).await {
            Ok(_) => return Ok(None),
            Err(damage @ Error::Corrupt { .. }) => chain(&damage),
            Err(other) => return Err(other),
        };
        let part = PartName::key();
        Ok(Some(PartProblem { part, problem }))
    }

    /// The reader that the level needs; damage to key or facts is a finding, not an error.
    async fn reader_for(
        &self,
        backup: &Manifest,
        level: VerifyLevel,
    ) -> Result<Result<Option<Arc<BackupReader>>, PartProblem>, Error> {
        if level < VerifyLevel::Decoded {
            return Ok(Ok(None));
        }
        match BackupReader::open(self, backup.clone()).await {
            Ok(reader) => Ok(Ok(Some(Arc::new(reader)))),
            Err(e) if e.kind() == ErrorKind::Corrupt => Ok(Err(PartProblem {
                part: PartName::facts(),
                problem: chain(&e),
            })),
            Err(e) => Err(e),
        }
    }
}

/// Everything that checking one part needs, so that parts can run in tasks of their own.
#[derive(Clone)]
struct VerifyTask {
    engine: Engine,
    backup: Arc<Manifest>,
    level: VerifyLevel,
    inspector: Arc<dyn Inspector>,
    reader: Option<Arc<BackupReader>>,
    cancel: CancellationToken,
}

impl VerifyTask {
    async fn start(self, part: PartRecord) -> (PartName, Result<Checked, Error>) {
        let name = part.name.clone();
        let cancel = self.cancel.clone();
        // Ends with this future, which is dropped when another part cannot be read.
        let mut check =
            AbortOnDropHandle::new(tokio::spawn(async move { self.check(&part).await }));
        let checked = tokio::select! {
            joined = &mut check => joined.unwrap_or_else(|e| {
                let died = PortError::new(ErrorKind::Internal, "the task died").with_source(e);
                Err(Error::store("verify a part", died))
            }),
            () = cancel.cancelled() => Err(Error::Cancelled),
        };
        (name, checked)
    }

    async fn check(&self, part: &PartRecord) -> Result<Checked, Error> {
        let started = std::time::Instant::now();
        self.engine.observer.event(&Event::PartStarted {
            part: part.name.clone(),
        });
        let checked = match (&self.reader, self.level) {
            (_, VerifyLevel::Stored) => self.stored(part).await.map(|()| 0_u64),
            (Some(reader), VerifyLevel::Decoded) => self.decoded(reader, part).await,
            _ => match stored_part(&self.engine.store, &self.backup, part) {
                Ok(body) => {
                    let observer = Arc::clone(&self.engine.observer);
                    let tell = move |bytes| observer.event(&Event::RawBytes(bytes));
                    self.drain(counted(body, tell)).await
                }
                Err(e) => Err(e),
            },
        };
        self.engine.observer.event(&Event::PartFinished {
            part: part.name.clone(),
            elapsed: started.elapsed(),
        });
        match checked {
            Ok(bytes) => Ok((bytes, None)),
            Err(e) => match read_error(format!("verify part {}", part.name), e) {
                damage @ Error::Corrupt { .. } => Ok((0, Some(chain(&damage)))),
                other => Err(other),
            },
        }
    }

    async fn stored(&self, part: &PartRecord) -> Result<(), PortError> {
        for object in &part.objects {
            let key = layout::object_key(&self.backup.source, &self.backup.id, &object.name)?;
            let meta = self.engine.store.head(&key).await?;
            if meta.bytes != object.bytes {
                return Err(PortError::new(
                    ErrorKind::Corrupt,
                    format!(
                        "object {} has {} bytes, {} were written",
                        object.name, meta.bytes, object.bytes
                    ),
                ));
            }
        }
        Ok(())
    }

    async fn decoded(&self, reader: &BackupReader, part: &PartRecord) -> Result<u64, PortError> {
        let body = PartReader::open(reader, &part.name).await?;
        if part.kind == PartKind::Facts {
            self.drain(body).await?;
            return Ok(part.stored_bytes());
        }
        let inspected = self.inspector.inspect(part.format, body);
        self.drain(inspected.body).await?;
        let found = inspected.report.await?.facts;
        let expected = reader.facts().parts.get(&part.name);
        if expected != Some(&found) {
            return Err(PortError::new(
                ErrorKind::Corrupt,
                "the part does not hold what was fingerprinted when it was dumped",
            ));
        }
        Ok(part.stored_bytes())
    }

    /// Reads a body to its end; how long it is.
    async fn drain(&self, mut body: BodyStream) -> Result<u64, PortError> {
        let mut total = 0;
        while let Some(chunk) = body.next().await {
            total += chunk
                .map_err(|e| PortError::from_io(e, ErrorKind::Corrupt, "cannot be read"))?
                .len() as u64;
        }
        Ok(total)
    }
}

//! Small fakes: clock, observer, compressor, cipher.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backup_core::body::BodyStream;
use backup_core::cipher::{BackupKey, Cipher, SealedKey};
use backup_core::clock::Clock;
use backup_core::compressor::Compressor;
use backup_core::error::{ErrorKind, PortError};
use backup_core::lease::{ProcessMark, Processes};
use backup_core::observer::{Event, Observer};
use bytes::Bytes;
use chrono::{DateTime, TimeZone, Utc};

use crate::framed::{MARK, decode, encode};
use crate::lock;

/// A clock that stands still until it is moved. Clones share their time.
#[derive(Debug, Clone)]
pub struct FixedClock(Arc<Mutex<DateTime<Utc>>>);

impl FixedClock {
    /// A clock at `now`.
    #[must_use]
    pub fn new(now: DateTime<Utc>) -> Self {
        Self(Arc::new(Mutex::new(now)))
    }

    /// Moves it to `now`, back or forth.
    pub fn set(&self, now: DateTime<Utc>) {
        *lock(&self.0) = now;
    }

    /// Moves it on.
    pub fn advance(&self, by: Duration) {
        *lock(&self.0) += by;
    }
}

impl Default for FixedClock {
    /// 2026-02-05 03:00:00 UTC.
    fn default() -> Self {
        let start = Utc.with_ymd_and_hms(2026, 2, 5, 3, 0, 0);
        Self::new(start.single().expect("a valid time"))
    }
}

impl Clock for FixedClock {
    fn now(&self) -> DateTime<Utc> {
        *lock(&self.0)
    }
}

/// Processes of which some have ended. Clones share what is known of them.
#[derive(Debug, Clone)]
pub struct FakeProcesses {
    me: u32,
    table: &'static str,
    gone: Arc<Mutex<Vec<u32>>>,
}

impl FakeProcesses {
    /// The view of process `me`, while all are alive.
    #[must_use]
    pub fn new(me: u32) -> Self {
        Self {
            me,
            table: "here",
            gone: Arc::default(),
        }
    }

    /// The view of another process.
    #[must_use]
    pub fn seen_by(&self, me: u32) -> Self {
        Self { me, ..self.clone() }
    }

    /// The view of a process on another machine.
    #[must_use]
    pub fn seen_from_afar(&self, me: u32) -> Self {
        Self {
            me,
            table: "there",
            ..self.clone()
        }
    }

    /// Lets a process end.
    pub fn end(&self, pid: u32) {
        lock(&self.gone).push(pid);
    }
}

impl Processes for FakeProcesses {
    fn me(&self) -> ProcessMark {
        ProcessMark {
            pid: self.me,
            table: self.table.to_owned(),
            started: 1,
        }
    }

    fn is_gone(&self, process: &ProcessMark) -> bool {
        lock(&self.gone).contains(&process.pid)
    }
}

/// Keeps every event. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct TestObserver(Arc<Mutex<Vec<Event>>>);

impl TestObserver {
    /// The events so far.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        lock(&self.0).clone()
    }

    /// The warnings so far.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.pick(|event| match event {
            Event::Warning(text) => Some(text.clone()),
            _ => None,
        })
    }

    /// The parts that were tried again, once for each retry.
    #[must_use]
    pub fn retried(&self) -> Vec<String> {
        self.pick(|event| match event {
            Event::PartRetried { part, .. } => Some(part.to_string()),
            _ => None,
        })
    }

    /// The parts that finished.
    #[must_use]
    pub fn finished(&self) -> Vec<String> {
        self.pick(|event| match event {
            Event::PartFinished { part, .. } => Some(part.to_string()),
            _ => None,
        })
    }

    /// The sum of the raw bytes.
    #[must_use]
    pub fn raw_bytes(&self) -> u64 {
        let bytes = self.pick(|event| match event {
            Event::RawBytes(bytes) => Some(*bytes),
            _ => None,
        });
        bytes.iter().sum()
    }

    /// The sum of the stored bytes.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        let bytes = self.pick(|event| match event {
            Event::StoredBytes(bytes) => Some(*bytes),
            _ => None,
        });
        bytes.iter().sum()
    }

    fn pick<T>(&self, pick: impl Fn(&Event) -> Option<T>) -> Vec<T> {
        lock(&self.0).iter().filter_map(pick).collect()
    }
}

impl Observer for TestObserver {
    fn event(&self, event: &Event) {
        lock(&self.0).push(event.clone());
    }
}

/// Changes every byte and notices cuts and changes, at no cost. Makes nothing smaller.
#[derive(Debug, Clone, Copy, Default)]
pub struct FakeCompressor;

const COMPRESSED: [u8; MARK] = *b"FAKECOMP";

impl Compressor for FakeCompressor {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn extension(&self) -> &'static str {
        ".fake"
    }

    fn default_level(&self) -> Option<i32> {
        Some(1)
    }

    fn compress(&self, body: BodyStream, _level: Option<i32>) -> BodyStream {
        encode(body, COMPRESSED, 0x55)
    }

    fn decompress(&self, body: BodyStream) -> BodyStream {
        decode(body, COMPRESSED, 0x55, |_| ErrorKind::Corrupt)
    }
}

/// A cipher with everything but secrecy: keys of their own for each backup, recipients and
/// identities by name, and the same errors as a real one.
#[derive(Debug, Clone)]
pub struct FakeCipher {
    recipients: Vec<String>,
    identities: Vec<String>,
}

impl Default for FakeCipher {
    /// Can do both, as `operator`.
    fn default() -> Self {
        Self::new(&["operator"], &["operator"])
    }
}

impl FakeCipher {
    /// Seals to `recipients` and opens what was sealed to one of `identities`.
    #[must_use]
    pub fn new(recipients: &[&str], identities: &[&str]) -> Self {
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Self {
            recipients: owned(recipients),
            identities: owned(identities),
        }
    }
}

const WRAPPED: &str = "fake key ";

impl Cipher for FakeCipher {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn extension(&self) -> &'static str {
        ".crypt"
    }

    fn recipients(&self) -> Vec<String> {
        self.recipients.clone()
    }

    fn seal(&self) -> Result<SealedKey, PortError> {
        static LAST: AtomicU64 = AtomicU64::new(1);
        if self.recipients.is_empty() {
            return Err(PortError::new(ErrorKind::InvalidInput, "no recipients"));
        }
        let id = LAST.fetch_add(1, Ordering::Relaxed);
        let wrapped = format!("{WRAPPED}{id} for {}", self.recipients.join(","));
        Ok(SealedKey {
            key: Arc::new(FakeKey { id }),
            wrapped: wrapped.into(),
        })
    }

    fn open(&self, wrapped: &[u8]) -> Result<Arc<dyn BackupKey>, PortError> {
        let corrupt = || PortError::new(ErrorKind::Corrupt, "not a wrapped key");
        let text = std::str::from_utf8(wrapped).map_err(|_| corrupt())?;
        let (id, recipients) = text
            .strip_prefix(WRAPPED)
            .and_then(|rest| rest.split_once(" for "))
            .ok_or_else(corrupt)?;
        let id = id.parse().map_err(|_| corrupt())?;
        let fits = |name: &str| self.identities.iter().any(|identity| identity == name);
        if !recipients.split(',').any(fits) {
            return Err(PortError::new(
                ErrorKind::PermissionDenied,
                "no identity fits this key",
            ));
        }
        Ok(Arc::new(FakeKey { id }))
    }

    fn rewrap(&self, wrapped: &[u8]) -> Result<Bytes, PortError> {
        self.open(wrapped)?;
        if self.recipients.is_empty() {
            return Err(PortError::new(ErrorKind::InvalidInput, "no recipients"));
        }
        let text = String::from_utf8_lossy(wrapped);
        let (key, _) = text.split_once(" for ").unwrap_or_default();
        Ok(format!("{key} for {}", self.recipients.join(",")).into())
    }
}

#[derive(Debug)]
struct FakeKey {
    id: u64,
}

impl FakeKey {
    fn mark(&self) -> [u8; MARK] {
        let mut mark = *b"FC000000";
        mark[2..].copy_from_slice(&self.id.to_be_bytes()[2..]);
        mark
    }

    fn mask(&self) -> u8 {
        (self.id & 0x7f) as u8 | 0x80
    }
}

impl BackupKey for FakeKey {
    fn encrypt(&self, body: BodyStream) -> BodyStream {
        encode(body, self.mark(), self.mask())
    }

    fn decrypt(&self, body: BodyStream) -> BodyStream {
        decode(body, self.mark(), self.mask(), |mark| {
            if mark.starts_with(b"FC") {
                ErrorKind::PermissionDenied
            } else {
                ErrorKind::Corrupt
            }
        })
    }
}

//! [`RedisInspector`]: looks into snapshots as they pass, when they are taken and when they are read.

use std::collections::VecDeque;

use backup_core::body::BodyStream;
use backup_core::dumper::{PartReport, PartStream};
use backup_core::error::{ErrorKind, PortError};
use backup_core::facts::{ContentHash, Fingerprint, PartFacts, TableFacts, TableName};
use backup_core::inspector::{Inspector, RowFormat};
use backup_core::manifest::PartFormat;
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::rdb::{Content, Fault, Input, Keys, Tail, walk};

/// Chunks that passing on may be ahead of reading.
const AHEAD: usize = 4;

/// The schema that databases are shown under: `redis.db0`.
const SCHEMA: &str = "redis";
const FUNCTIONS: &str = "functions";

const UNSUMMED: &str = "the snapshot has no checksum (rdbchecksum no): damage on the way from the \
                        server would not be noticed";

/// Reads what [`RedisDumper`](crate::RedisDumper) wrote.
#[derive(Debug, Clone, Copy, Default)]
pub struct RedisInspector;

impl Inspector for RedisInspector {
    /// A snapshot of a server without a disk has a mark behind it; what passes has none.
    fn inspect(&self, _format: PartFormat, body: BodyStream) -> PartStream {
        inspected(body)
    }

    fn rows(&self, _table: &TableName, _format: RowFormat, _body: BodyStream) -> BodyStream {
        let error = PortError::new(
            ErrorKind::InvalidInput,
            "keys cannot be printed one by one; restore the snapshot and ask a server",
        );
        stream::iter([Err(error.into_io())]).boxed()
    }
}

/// A snapshot that passes.
struct Passing {
    body: BodyStream,
    tail: Option<Tail>,
    ready: VecDeque<Bytes>,
    reader: Option<mpsc::Sender<Bytes>>,
    walking: JoinHandle<Result<Content, Fault>>,
    done: Option<oneshot::Sender<PartReport>>,
}

pub(crate) fn inspected(body: BodyStream) -> PartStream {
    let (reader, chunks) = mpsc::channel(AHEAD);
    let walking = tokio::task::spawn_blocking(move || walk(&mut Input::new(chunks)));
    let (done, report) = oneshot::channel();
    let passing = Passing {
        body,
        tail: Some(Tail::default()),
        ready: VecDeque::new(),
        reader: Some(reader),
        walking,
        done: Some(done),
    };
    let body = stream::unfold(Some(passing), |passing| async move {
        let mut passing = passing?;
        match passing.next().await {
            Ok(Some(chunk)) => Some((Ok(chunk), Some(passing))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    let report = report.map(|report| {
        report.map_err(|_| PortError::new(ErrorKind::Internal, "part has not ended well"))
    });
    PartStream {
        body: body.boxed(),
        report: report.boxed(),
    }
}

impl Passing {
    async fn next(&mut self) -> std::io::Result<Option<Bytes>> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Ok(Some(chunk));
            }
            let Some(tail) = &mut self.tail else {
                return Ok(None);
            };
            match self.body.next().await {
                Some(chunk) => {
                    let pieces = tail.push(&chunk?).map_err(broken)?;
                    self.pass(pieces).await;
                }
                None => self.end().await?,
            }
        }
    }

    async fn pass(&mut self, pieces: impl IntoIterator<Item = Bytes>) {
        for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
            // One that read on no further has said why in its result.
            if let Some(reader) = &self.reader
                && reader.send(piece.clone()).await.is_err()
            {
                self.reader = None;
            }
            self.ready.push_back(piece);
        }
    }

    async fn end(&mut self) -> std::io::Result<()> {
        let Some(tail) = self.tail.take() else {
            return Ok(());
        };
        let ended = tail.finish().map_err(broken)?;
        self.pass([ended.rest]).await;
        self.reader = None;
        let mut report = PartReport::default();
        if !ended.summed {
            report.warnings.push(UNSUMMED.to_owned());
        }
        match (&mut self.walking).await {
            Ok(Ok(content)) => report.facts = facts(&content),
            // It is whole, as its end and its sum say; what it holds cannot be told.
            Ok(Err(fault)) if ended.summed => {
                let text =
                    format!("its keys could not be counted, nor can a drill compare them: {fault}");
                report.warnings.push(text);
            }
            Ok(Err(fault)) => return Err(broken(fault)),
            Err(died) => {
                let error = PortError::new(ErrorKind::Internal, "the reader died");
                return Err(error.with_source(died).into_io());
            }
        }
        if let Some(done) = self.done.take() {
            // Nobody need ask.
            let _ = done.send(report);
        }
        Ok(())
    }
}

fn broken(fault: Fault) -> std::io::Error {
    PortError::new(
        ErrorKind::Corrupt,
        "the snapshot is not complete and well-formed",
    )
    .with_source(fault)
    .into_io()
}

/// In the domain's words: databases are tables, and keys their rows.
pub(crate) fn facts(content: &Content) -> PartFacts {
    let table = |name: String, keys: &Keys| TableFacts {
        table: TableName {
            schema: SCHEMA.to_owned(),
            name,
        },
        columns: String::new(),
        fingerprint: Fingerprint {
            rows: keys.count,
            bytes: keys.bytes,
            hash: ContentHash(keys.hash),
        },
    };
    let databases = content.databases.iter();
    let mut tables: Vec<_> = databases
        .map(|(number, keys)| table(format!("db{number}"), keys))
        .collect();
    if content.functions.count > 0 {
        tables.push(table(FUNCTIONS.to_owned(), &content.functions));
    }
    let kinds = content
        .kinds
        .iter()
        .map(|(kind, count)| ((*kind).to_owned(), *count));
    PartFacts {
        tables,
        objects: kinds.collect(),
        ..PartFacts::default()
    }
}

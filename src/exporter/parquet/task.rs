//! The Parquet exporter's loop: each sealed segment of the outbox, in order, becomes its objects.
//!
//! The cursor moves only when all objects of a segment are where they belong; until then the segment is
//! tried again, for ever, with growing pauses. Repeating makes the same objects under the same names. Whether the
//! store can be reached is asked at start, so that a wrong key is known before the first segment is full.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use parquet::errors::ParquetError;
use prost::Message;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{error, info, warn};

use super::source::{Piece, PieceKey, Pieces, Segment};
use super::span::Contents as Spans;
use super::upload::{self, blocking, chain};
use super::{Config, EncodeError, Journal, OpenError, Store, Summary, UploadError, encode_to, name};
use crate::exporter::metrics::{Amount, Lost, Obstacle};
use crate::exporter::otlp::Stop;
use crate::exporter::outbox::{Outbox, Subscription, read_piece};
use crate::log::{File, GroupItem, GroupReader, Open, SegmentInfo, Storage, record};
use crate::proto;
use crate::trace::Position;

/// Under this name the exporter has its cursor and its counters.
pub const EXPORTER: &str = "parquet";
/// Version of the schema that segment headers name.
pub const SCHEMA_VERSION: u32 = 1;

/// The pause after a first failure; it doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// An upload that takes longer is given up and tried again.
const UPLOAD_MAX: Duration = Duration::from_secs(600);

/// See the module.
#[derive(Debug)]
pub struct Exporter {
    outbox: Arc<Outbox>,
    subscription: Subscription,
    storage: Arc<dyn Storage>,
    /// Made and filled here, then uploaded.
    temporary: PathBuf,
    journal: Journal,
    config: Config,
    upload: upload::Settings,
}

/// Why a segment has not become objects yet.
#[derive(Debug, thiserror::Error)]
pub(super) enum SegmentError {
    #[error("read the outbox: {0}")]
    Read(io::Error),
    #[error("make {}", path.display())]
    Encode { path: PathBuf, source: EncodeError },
    #[error("remove {}", path.display())]
    Temporary { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Upload(#[from] UploadError),
    #[error("upload took longer than {UPLOAD_MAX:?}")]
    Slow,
}

impl SegmentError {
    fn obstacle(&self) -> Obstacle {
        match self {
            Self::Encode { source, .. } => match source {
                EncodeError::Write(ParquetError::External(_)) => Obstacle::Disk,
                EncodeError::Write(_) | EncodeError::Compressor(_) => Obstacle::Defect,
                EncodeError::Read { .. } | EncodeError::Create(_) => Obstacle::Disk,
            },
            Self::Read(_) | Self::Temporary { .. } => Obstacle::Disk,
            Self::Upload(UploadError::Local(_) | UploadError::Note(_)) => Obstacle::Disk,
            Self::Open(_) | Self::Upload(_) | Self::Slow => Obstacle::Backend,
        }
    }
}

impl Exporter {
    /// `data`: the data folder, for the temporary file. One that a former life has left is removed.
    pub fn build(
        outbox: Arc<Outbox>,
        storage: Arc<dyn Storage>,
        data: &Path,
        config: &Config,
    ) -> io::Result<Option<Self>> {
        let Some(subscription) = outbox.subscription(EXPORTER).cloned() else { return Ok(None) };
        let temporary = data.join("parquet.part");
        if storage.exists(&temporary)? {
            storage.remove(&temporary)?;
        }
        let journal = Journal::new(storage.clone(), data);
        let (config, upload) = (config.clone(), upload::Settings::default());
        Ok(Some(Self { outbox, subscription, storage, temporary, journal, config, upload }))
    }

    /// Runs until `stop` says otherwise. Returns true if no sealed segment is left.
    pub async fn run(self, mut stop: watch::Receiver<Stop>) -> bool {
        let mut written = self.outbox.log().subscribe();
        let mut pause = PAUSE;
        let mut reached = false;
        loop {
            let phase = *stop.borrow_and_update();
            written.borrow_and_update();
            let next = self.next_segment();
            if let Some(over) = over(phase, next.is_none()) {
                return over;
            }
            if next.is_none() && reached {
                tokio::select! {
                    _ = written.changed() => {}
                    changed = stop.changed() => if changed.is_err() { return false },
                    () = until(phase) => {}
                }
                continue;
            }
            let done = tokio::select! {
                done = self.attempt(next.as_ref()) => done,
                () = deadline(stop.clone()) => return false,
            };
            match done {
                Ok(()) => {
                    reached = true;
                    pause = PAUSE;
                    self.works();
                }
                Err(error) => {
                    self.failed(&error);
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        changed = stop.changed() => if changed.is_err() { return false },
                    }
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Exports a segment; without one, asks whether the store can be reached.
    async fn attempt(&self, segment: Option<&SegmentInfo>) -> Result<(), SegmentError> {
        match segment {
            Some(segment) => self.export(segment).await?,
            None => self.open(&self.config.url)?.probe().await?,
        }
        self.abort_left_over().await;
        Ok(())
    }

    fn open(&self, url: &str) -> Result<Store, OpenError> {
        Store::open_with(url, &self.config.s3, self.upload)
    }

    /// Uploads in parts that failed, or that a former life has left.
    async fn abort_left_over(&self) {
        for begun in self.journal.list() {
            let aborted = match self.open(&begun.url) {
                Ok(store) => store.abort(&begun).await.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match aborted {
                Ok(false) => continue,
                Ok(true) => info!(exporter = EXPORTER, object = begun.path, "upload left over is aborted"),
                Err(error) => {
                    warn!(
                        exporter = EXPORTER,
                        object = begun.path,
                        id = begun.id,
                        error,
                        "parts stay in the store"
                    );
                }
            }
            let journal = self.journal.clone();
            if let Err(error) = blocking(move || journal.remove(&begun)).await {
                warn!(exporter = EXPORTER, %error, "cannot note that an upload has ended");
            }
        }
    }

    /// The oldest sealed segment that the cursor has not passed.
    pub fn next_segment(&self) -> Option<SegmentInfo> {
        let cursor = self.subscription.cursor.position();
        self.outbox.log().sealed().into_iter().find(|segment| {
            let end = Position::new(segment.number, u32::try_from(segment.len).unwrap_or(u32::MAX));
            end > cursor
        })
    }

    async fn export(&self, segment: &SegmentInfo) -> Result<(), SegmentError> {
        let attributes = proto::SegmentAttributes::decode(segment.attributes.clone()).unwrap_or_default();
        let (storage, info) = (self.storage.clone(), segment.clone());
        let contents = blocking(move || Contents::list(storage, &info)).await.map_err(SegmentError::Read)?;
        let mut spans = contents.amount.spans;
        if !attributes.parquet_url.is_empty() {
            spans = 0;
            let mut duplicate_keys = 0;
            let store = self.open(&attributes.parquet_url)?;
            for (tenant, keys) in &contents.tenants {
                let written = self.put(&store, segment, &contents, tenant, keys.clone()).await?;
                spans += written.rows;
                duplicate_keys += written.duplicate_keys;
            }
            self.subscription.metrics.replaced_keys(duplicate_keys);
        }
        self.settle(segment, &contents, spans);
        let cursor = self.subscription.cursor.clone();
        // What cannot be saved now is tried again every second, and said.
        let _ = blocking(move || cursor.save()).await;
        Ok(())
    }

    /// All objects of a segment are where they belong; so many spans are in them.
    pub fn settle(&self, segment: &SegmentInfo, contents: &Contents, spans: u64) {
        let metrics = &self.subscription.metrics;
        let unwritten = contents.amount.spans.saturating_sub(spans);
        if unwritten > 0 {
            self.tell_unwritten(contents, unwritten);
        }
        metrics.settled(segment.number, contents.amount, unwritten);
        metrics.unreadable(contents.lost_bytes);
        metrics.batch();
        self.subscription.cursor.advance(Position::new(segment.number + 1, 0));
        metrics.passed(segment.number + 1, Lost::Corrupt);
    }

    /// Makes the object of one tenant; leaves no file of this machine behind, whatever happens.
    async fn put(
        &self,
        store: &Store,
        segment: &SegmentInfo,
        contents: &Contents,
        tenant: &str,
        keys: Vec<PieceKey>,
    ) -> Result<Summary, SegmentError> {
        let header = Segment { uuid: segment.uuid, opened_ms: segment.opened_ms };
        let (storage, path, file) = (self.storage.clone(), self.temporary.clone(), contents.file.clone());
        let encoded = blocking(move || encode_to(&*storage, &path, &PieceFile(file), keys, &header)).await;
        // What it has of a full disk others need; what cannot be removed is replaced by the next attempt.
        let (encoded, summary) = encoded.map_err(|source| {
            let _ = self.storage.remove(&self.temporary);
            SegmentError::Encode { path: self.temporary.clone(), source }
        })?;
        let object = name(tenant, &header);
        let upload = store.upload(encoded, &object, &self.journal);
        let uploaded = timeout_at(Instant::now() + UPLOAD_MAX, upload).await;
        let removed = self.storage.remove(&self.temporary);
        uploaded.map_err(|_| SegmentError::Slow)??;
        removed.map_err(|source| SegmentError::Temporary { path: self.temporary.clone(), source })?;
        Ok(summary)
    }

    /// Names the first trace of which there are fewer rows than spans: its bytes are no OTLP.
    fn tell_unwritten(&self, contents: &Contents, spans: u64) {
        let first = contents.tenants.values().flatten().find(|key| {
            let piece = PieceFile(contents.file.clone()).piece(key);
            piece.is_ok_and(|piece| {
                Spans::read(&piece.otlp, Spans::default()).spans.len() < piece.spans as usize
            })
        });
        let trace = first.map(|key| key.trace_id.to_string()).unwrap_or_default();
        let error = format!("{spans} spans of a segment cannot be read, of trace {trace} and perhaps others");
        warn!(exporter = EXPORTER, trace, spans, "spans cannot be read, they are lost to Parquet");
        self.subscription.metrics.note(&error);
    }

    fn works(&self) {
        match self.subscription.metrics.works() {
            Some(Obstacle::Backend) => info!(exporter = EXPORTER, "object store takes files again"),
            Some(_) => info!(exporter = EXPORTER, "Parquet is written again"),
            None => {}
        }
    }

    fn failed(&self, error: &SegmentError) {
        let (text, obstacle) = (chain(error), error.obstacle());
        if self.subscription.metrics.failed(obstacle, &text) {
            match obstacle {
                Obstacle::Backend => {
                    warn!(
                        exporter = EXPORTER,
                        error = text,
                        "object store takes nothing, spans wait in the outbox"
                    );
                }
                Obstacle::Disk => {
                    warn!(
                        exporter = EXPORTER,
                        error = text,
                        "this machine's disk keeps Parquet from being made, spans wait in the outbox"
                    );
                }
                Obstacle::Defect => {
                    error!(
                        exporter = EXPORTER,
                        error = text,
                        "Parquet cannot be made, spans wait in the outbox"
                    );
                }
            }
        }
        self.subscription.metrics.retry();
    }
}

/// What to return, if it is time to.
fn over(phase: Stop, all_exported: bool) -> Option<bool> {
    let late = |deadline: Instant| Instant::now() >= deadline;
    match phase {
        Stop::Run => None,
        Stop::Finish { .. } => Some(all_exported),
        Stop::Drain { deadline } => (all_exported || late(deadline)).then_some(all_exported),
    }
}

/// Comes with the deadline of a stop, whenever that is said.
async fn deadline(mut stop: watch::Receiver<Stop>) {
    loop {
        let phase = *stop.borrow_and_update();
        tokio::select! {
            () = until(phase) => return,
            changed = stop.changed() => if changed.is_err() { return },
        }
    }
}

async fn until(phase: Stop) {
    match phase {
        Stop::Run => std::future::pending().await,
        Stop::Finish { deadline } | Stop::Drain { deadline } => sleep_until(deadline).await,
    }
}

/// The pieces of a sealed segment, by tenant.
#[derive(Debug)]
pub struct Contents {
    tenants: BTreeMap<String, Vec<PieceKey>>,
    file: Arc<dyn File>,
    amount: Amount,
    lost_bytes: u64,
}

impl Contents {
    /// As its records count them.
    pub fn spans(&self) -> u64 {
        self.amount.spans
    }

    pub fn list(storage: Arc<dyn Storage>, segment: &SegmentInfo) -> io::Result<Self> {
        let file = storage.open(&segment.path, Open::Read)?;
        let mut contents = Self { tenants: BTreeMap::new(), file, amount: Amount::default(), lost_bytes: 0 };
        let mut reader = GroupReader::segment(storage, segment);
        while let Some(item) = reader.next()? {
            let group = match item {
                GroupItem::Group(group) => group,
                GroupItem::Lost { bytes, .. } => {
                    contents.lost_bytes += bytes;
                    continue;
                }
            };
            for record in group.records {
                let piece = read_piece(&record);
                let Some((piece, trace_id)) = piece.and_then(|piece| piece.trace().map(|id| (piece, id)))
                else {
                    contents.lost_bytes += record.bytes.len() as u64;
                    continue;
                };
                contents.amount += Amount::of(&piece);
                let len = record.bytes.len() as u32;
                let key = PieceKey { trace_id, position: record.at, len };
                contents.tenants.entry(record.tenant).or_default().push(key);
            }
        }
        Ok(contents)
    }

    /// Tenants, and the pieces that make the object of each.
    pub fn tenants(&self) -> impl Iterator<Item = (&str, &[PieceKey])> {
        self.tenants.iter().map(|(tenant, keys)| (tenant.as_str(), keys.as_slice()))
    }

    /// The pieces themselves.
    pub fn pieces(&self) -> impl Pieces + use<> {
        PieceFile(self.file.clone())
    }
}

/// Reads single pieces of a segment file.
struct PieceFile(Arc<dyn File>);

impl Pieces for PieceFile {
    fn read(&self, key: &PieceKey) -> io::Result<Piece> {
        let piece = self.piece(key)?;
        Ok(Piece {
            reason: piece.reason().into(),
            rule: piece.weight_rule().into(),
            threshold: crate::trace::Threshold(piece.threshold),
            policy: piece.policy,
            whole: piece.whole,
            complete: piece.complete,
            decided_at_ms: piece.decided_at_ms,
            spans: piece.spans,
            otlp: piece.otlp,
        })
    }
}

impl PieceFile {
    fn piece(&self, key: &PieceKey) -> io::Result<proto::Piece> {
        let mut bytes = BytesMut::zeroed(key.len as usize);
        if self.0.read_at(u64::from(key.position.offset), &mut bytes)? != bytes.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let bytes = bytes.freeze();
        let body = record::parse_checked(&bytes).map_err(io::Error::other)?.body();
        proto::Piece::decode(bytes.slice(body)).map_err(io::Error::other)
    }
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;

//! Puts finished files where they belong.
//!
//! An object appears whole or not at all, under a name that follows from its segment. Uploading it again replaces it by the same
//! bytes, so an upload that was cut short, or whose answer was lost, is repeated.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::multipart::PartId;
use object_store::path::Path as ObjectPath;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt};

use super::cloud::{self, Objects, Patience};
use super::config::{Config, S3};
use super::journal::{Begun, Journal};
use super::object::{Target, TargetError};
use crate::log::{Disk, File, Storage};

/// An upload's parts are of this size, so that an object may have 80 GB.
const PART_BYTES: usize = 8 << 20;
/// Parts on their way at once.
const PARTS: usize = 2;
/// No object has this name: asking for it tells whether there is a store to ask.
const PROBE: &str = "tailwater-probe";

/// A store, and the path below which everything of ours lies.
pub(super) type Below = (Arc<dyn ObjectStore>, ObjectPath);

/// A place for objects, open.
#[derive(Clone, Debug)]
pub struct Store {
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    Folder(PathBuf),
    Bucket(Bucket),
}

#[derive(Clone, Debug)]
struct Bucket {
    store: Arc<dyn Objects>,
    /// As it was opened.
    url: String,
    /// Scheme and name.
    root: String,
    prefix: String,
    part_bytes: usize,
}

/// What a test may want smaller.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) part_bytes: usize,
    pub(super) patience: Patience,
}

impl Default for Settings {
    fn default() -> Self {
        Self { part_bytes: PART_BYTES, patience: Patience::default() }
    }
}

/// A store that cannot be opened: a mistake in the configuration.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("object store: {0}")]
    Cloud(String),
}

/// Why an object is not in its place.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// Somebody must change a key, a right, a clock or a bucket; trying again helps only then.
    #[error("{place} refuses: {reason}")]
    Refused { place: String, reason: String },
    /// Trying again may help.
    #[error("{place} does not take the object: {reason}")]
    Failed { place: String, reason: String },
    #[error("read the file to upload")]
    Local(#[source] io::Error),
    #[error("note on this machine's disk that an upload begins")]
    Note(#[source] io::Error),
}

impl Store {
    pub fn open(config: &Config) -> Result<Self, OpenError> {
        Self::open_at(&config.url, &config.s3)
    }

    /// As [`Self::open`], for a URL that an older segment's header names.
    pub fn open_at(url: &str, s3: &S3) -> Result<Self, OpenError> {
        Self::open_with(url, s3, Settings::default())
    }

    pub(super) fn open_with(url: &str, s3: &S3, settings: Settings) -> Result<Self, OpenError> {
        let place = match Target::parse(url)? {
            Target::Folder(folder) => Place::Folder(folder),
            Target::Bucket { cloud, bucket, prefix } => Place::Bucket(Bucket {
                store: cloud::open(cloud, &bucket, s3, settings.patience)?,
                url: url.to_owned(),
                root: format!("{}{bucket}", cloud.scheme()),
                prefix,
                part_bytes: settings.part_bytes,
            }),
        };
        Ok(Self { place })
    }

    /// To read what was put: the store, and the path below which everything lies.
    /// None: a folder that is not there yet.
    pub(super) fn objects(&self) -> Result<Option<Below>, object_store::Error> {
        Ok(match &self.place {
            Place::Folder(folder) if !folder.exists() => None,
            Place::Folder(folder) => {
                Some((Arc::new(LocalFileSystem::new_with_prefix(folder)?), ObjectPath::default()))
            }
            Place::Bucket(bucket) => Some((bucket.store.clone(), ObjectPath::parse(&bucket.prefix)?)),
        })
    }

    /// Puts the file under `name`; whatever had that name is replaced.
    pub async fn upload(
        &self,
        from: Arc<dyn File>,
        name: &str,
        journal: &Journal,
    ) -> Result<(), UploadError> {
        match &self.place {
            Place::Folder(folder) => copy(from, folder.join(name)).await,
            Place::Bucket(bucket) => bucket.put(from, name, journal).await,
        }
    }

    /// Whether there is a place that may be spoken to. Whether it takes objects only an upload can tell.
    pub(super) async fn probe(&self) -> Result<(), UploadError> {
        match &self.place {
            Place::Folder(folder) => {
                let (made, place) = (folder.clone(), folder.display().to_string());
                let probed = move || {
                    std::fs::create_dir_all(&made)?;
                    Disk.writable(&made)
                };
                blocking(probed).await.map_err(|error| local_error(&place, &error))
            }
            Place::Bucket(bucket) => bucket.probe().await,
        }
    }

    /// Has the store forget the parts of an upload that will not be completed. False: it cannot be reached now.
    pub(super) async fn abort(&self, begun: &Begun) -> Result<bool, UploadError> {
        let Place::Bucket(bucket) = &self.place else { return Ok(true) };
        bucket.abort(begun).await
    }
}

impl Bucket {
    async fn put(&self, from: Arc<dyn File>, name: &str, journal: &Journal) -> Result<(), UploadError> {
        let path = self.path(name)?;
        let put = match from.len() {
            Ok(len) if len <= self.part_bytes as u64 => self.put_whole(&path, from).await,
            Ok(len) => self.put_in_parts(&path, from, len, journal).await,
            Err(error) => Err(error.into()),
        };
        put.map_err(|error| error.into_upload_error(self.shown(&path)))
    }

    fn path(&self, name: &str) -> Result<ObjectPath, UploadError> {
        let parts = [self.prefix.as_str(), name].into_iter().filter(|part| !part.is_empty());
        self.encoded(&parts.collect::<Vec<_>>().join("/"))
    }

    /// A path as stores know it.
    fn encoded(&self, path: &str) -> Result<ObjectPath, UploadError> {
        ObjectPath::parse(path).map_err(|error| UploadError::Refused {
            place: format!("{}/{path}", self.root),
            reason: error.to_string(),
        })
    }

    fn shown(&self, path: &ObjectPath) -> String {
        format!("{}/{path}", self.root)
    }

    async fn put_whole(&self, path: &ObjectPath, from: Arc<dyn File>) -> Result<(), PutError> {
        let object = read_part(from, 0, self.part_bytes).await?;
        self.store.put(path, object.into()).await?;
        Ok(())
    }

    /// Memory: [`PARTS`] parts.
    async fn put_in_parts(
        &self,
        path: &ObjectPath,
        from: Arc<dyn File>,
        len: u64,
        journal: &Journal,
    ) -> Result<(), PutError> {
        let id = self.store.create_multipart(path).await?;
        let begun = Begun { url: self.url.clone(), path: path.to_string(), id };
        let (noted, note) = (journal.clone(), begun.clone());
        if let Err(error) = blocking(move || noted.add(note)).await {
            // Nobody would know of it later.
            let _ = self.abort(&begun).await;
            return Err(PutError::Note(error));
        }
        let put = match self.send_parts(path, &begun.id, from, len).await {
            Ok(parts) => self.store.complete_multipart(path, &begun.id, parts).await.map_err(PutError::from),
            Err(error) => Err(error),
        };
        // What a store that is down does not hear now, it is told later.
        let over = put.is_ok() || self.abort(&begun).await.unwrap_or(true);
        if over {
            let ended = journal.clone();
            // A note that stays does no harm: the store does not know that upload any more when it is asked again.
            let _ = blocking(move || ended.remove(&begun)).await;
        }
        put.map(drop)
    }

    async fn send_parts(
        &self,
        path: &ObjectPath,
        id: &String,
        from: Arc<dyn File>,
        len: u64,
    ) -> Result<Vec<PartId>, PutError> {
        let count = len.div_ceil(self.part_bytes as u64) as usize;
        let send = |index: usize| {
            let (from, at) = (from.clone(), index as u64 * self.part_bytes as u64);
            async move {
                let part = read_part(from, at, self.part_bytes).await?;
                Ok(self.store.put_part(path, id, index, part.into()).await?)
            }
        };
        futures::stream::iter((0..count).map(send)).buffered(PARTS).try_collect().await
    }

    async fn abort(&self, begun: &Begun) -> Result<bool, UploadError> {
        let path = self.encoded(&begun.path)?;
        match self.store.abort_multipart(&path, &begun.id).await {
            // It was completed or aborted, and the answer was lost.
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(true),
            Err(error) => match PutError::from(error).into_upload_error(self.shown(&path)) {
                refused @ UploadError::Refused { .. } => Err(refused),
                _ => Ok(false),
            },
        }
    }

    async fn probe(&self) -> Result<(), UploadError> {
        let path = self.path(PROBE)?;
        let asked = self.store.get_opts(&path, GetOptions::new().with_range(Some(0..1u64))).await;
        let Err(error) = asked else { return Ok(()) };
        let said = chain(&error);
        let may_only_write = MAY_ONLY_WRITE.iter().any(|code| said.contains(code));
        match error {
            object_store::Error::NotFound { .. } if meaning(&said).is_none() => Ok(()),
            object_store::Error::PermissionDenied { .. } if may_only_write => Ok(()),
            error => Err(PutError::from(error).into_upload_error(format!("{}/{}", self.root, self.prefix))),
        }
    }
}

/// How stores say that these credentials may not read, which nobody asks of them.
const MAY_ONLY_WRITE: [&str; 2] = ["AccessDenied", "AuthorizationPermissionMismatch"];

/// What it means for the one who must mend it, where the store's own words leave that open.
fn meaning(said: &str) -> Option<&'static str> {
    let known = [
        ("NoSuchBucket", "the bucket does not exist"),
        ("ContainerNotFound", "the container does not exist"),
        ("RequestTimeTooSkewed", "this machine's clock differs from the store's"),
    ];
    known.into_iter().find(|(code, _)| said.contains(code)).map(|(_, meaning)| meaning)
}

/// Does what waits for a disk where it may.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// So many bytes of the file from `at`; fewer at its end.
async fn read_part(from: Arc<dyn File>, at: u64, bytes: usize) -> io::Result<Bytes> {
    blocking(move || read_part_now(from.as_ref(), at, bytes)).await
}

fn read_part_now(from: &dyn File, at: u64, bytes: usize) -> io::Result<Bytes> {
    let left = usize::try_from(from.len()?.saturating_sub(at)).unwrap_or(bytes);
    let mut part = vec![0; bytes.min(left)];
    let len = from.read_at(at, &mut part)?;
    part.truncate(len);
    Ok(Bytes::from(part))
}

#[derive(Debug, thiserror::Error)]
enum PutError {
    #[error(transparent)]
    Local(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] object_store::Error),
    #[error(transparent)]
    Note(io::Error),
}

impl PutError {
    fn into_upload_error(self, place: String) -> UploadError {
        match self {
            Self::Local(source) => UploadError::Local(source),
            Self::Note(source) => UploadError::Note(source),
            Self::Store(error) => {
                let said = chain(&error);
                let reason = match meaning(&said) {
                    Some(meaning) => format!("{meaning}: {said}"),
                    None => said,
                };
                match error {
                    object_store::Error::PermissionDenied { .. }
                    | object_store::Error::Unauthenticated { .. }
                    | object_store::Error::NotFound { .. } => UploadError::Refused { place, reason },
                    _ => UploadError::Failed { place, reason },
                }
            }
        }
    }
}

/// The error and what caused it, on one line; what a cause repeats is said once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Writes beside the object and renames: readers see all of it or nothing. The name beside it is always the same, so that
/// the next attempt replaces what a crash left.
async fn copy(from: Arc<dyn File>, to: PathBuf) -> Result<(), UploadError> {
    let place = to.display().to_string();
    let copied = blocking(move || copy_now(from.as_ref(), &to)).await;
    copied.map_err(|error| local_error(&place, &error))
}

fn local_error(place: &str, error: &io::Error) -> UploadError {
    let (place, reason) = (place.to_owned(), error.to_string());
    match error.kind() {
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::NotADirectory => UploadError::Refused { place, reason },
        _ => UploadError::Failed { place, reason },
    }
}

fn copy_now(from: &dyn File, to: &Path) -> io::Result<()> {
    let (Some(folder), Some(name)) = (to.parent(), to.file_name().and_then(|name| name.to_str())) else {
        return Err(io::ErrorKind::InvalidFilename.into());
    };
    std::fs::create_dir_all(folder)?;
    let beside = folder.join(format!(".{name}.part"));
    let copied = fill(from, &beside).and_then(|()| std::fs::rename(&beside, to));
    if copied.is_err() {
        // A full disk gets its room back.
        let _ = std::fs::remove_file(&beside);
    }
    copied?;
    std::fs::File::open(folder)?.sync_all()
}

fn fill(from: &dyn File, to: &Path) -> io::Result<()> {
    let mut copy = std::fs::File::create(to)?;
    let mut at = 0;
    loop {
        let part = read_part_now(from, at, PART_BYTES)?;
        if part.is_empty() {
            return copy.sync_all();
        }
        copy.write_all(&part)?;
        at += part.len() as u64;
    }
}

#[cfg(test)]
#[path = "upload_tests.rs"]
mod tests;

//! Puts finished files where they belong.
//!
//! An object appears whole or not at all, under a name that follows from its segment. Uploading it again replaces it by the same
//! bytes, so an upload that was cut short, or whose answer was lost, is repeated.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, WriteMultipart};

use super::config::{Config, S3};
use super::object::{Target, TargetError};
use crate::log::File;

/// An upload's parts are of this size, so that an object may have 80 GB.
const PART_BYTES: usize = 8 << 20;
/// Parts on their way at once.
const PARTS: usize = 2;

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
    S3 { store: Arc<dyn ObjectStore>, bucket: String, prefix: String },
}

/// A store that cannot be opened: a mistake in the configuration.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("s3: {0}")]
    S3(String),
}

/// Why an object is not in its place.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// Somebody must change a key, a right or a bucket; trying again helps only then.
    #[error("{place} refuses: {reason}")]
    Refused { place: String, reason: String },
    /// Trying again may help.
    #[error("{place} does not take the object: {reason}")]
    Failed { place: String, reason: String },
    #[error("read the file to upload")]
    Local(#[source] io::Error),
}

impl Store {
    pub fn open(config: &Config) -> Result<Self, OpenError> {
        Self::open_at(&config.url, &config.s3)
    }

    /// As [`Self::open`], for a URL that an older segment's header names.
    pub fn open_at(url: &str, s3: &S3) -> Result<Self, OpenError> {
        let place = match Target::parse(url)? {
            Target::Folder(folder) => Place::Folder(folder),
            Target::S3 { bucket, prefix } => {
                let store = Arc::new(s3_store(&bucket, s3)?);
                Place::S3 { store, bucket, prefix }
            }
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
            Place::S3 { store, prefix, .. } => Some((store.clone(), ObjectPath::parse(prefix)?)),
        })
    }

    /// Puts the file under `name`; whatever had that name is replaced.
    pub async fn upload(&self, from: Arc<dyn File>, name: &str) -> Result<(), UploadError> {
        match &self.place {
            Place::Folder(folder) => copy(from, folder.join(name)).await,
            Place::S3 { store, bucket, prefix } => {
                let path = [prefix, name].into_iter().filter(|part| !part.is_empty());
                let path = path.collect::<Vec<_>>().join("/");
                let place = format!("s3://{bucket}/{path}");
                let path = ObjectPath::parse(&path).map_err(|error| UploadError::Refused {
                    place: place.clone(),
                    reason: error.to_string(),
                })?;
                put(store.as_ref(), &path, from).await.map_err(|error| error.into_upload_error(place))
            }
        }
    }
}

/// Memory: [`PARTS`] parts and the one being read.
async fn put(store: &dyn ObjectStore, path: &ObjectPath, from: Arc<dyn File>) -> Result<(), PutError> {
    if from.len()? <= PART_BYTES as u64 {
        let object = read_part(from, 0).await?;
        store.put(path, object.into()).await?;
        return Ok(());
    }
    let upload = store.put_multipart(path).await?;
    let mut parts = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
    match send(from, &mut parts).await {
        Ok(()) => {
            parts.finish().await?;
            Ok(())
        }
        Err(error) => {
            // Parts that nobody completes cost money until the bucket's own rules remove them.
            let _ = parts.abort().await;
            Err(error)
        }
    }
}

async fn send(from: Arc<dyn File>, parts: &mut WriteMultipart) -> Result<(), PutError> {
    let mut at = 0;
    loop {
        let part = read_part(from.clone(), at).await?;
        if part.is_empty() {
            return Ok(());
        }
        at += part.len() as u64;
        parts.wait_for_capacity(PARTS).await?;
        parts.put(part);
    }
}

/// [`PART_BYTES`] of the file from `at`; fewer at its end.
async fn read_part(from: Arc<dyn File>, at: u64) -> io::Result<Bytes> {
    tokio::task::spawn_blocking(move || read_part_now(from.as_ref(), at)).await?
}

fn read_part_now(from: &dyn File, at: u64) -> io::Result<Bytes> {
    let mut part =
        vec![0; PART_BYTES.min(usize::try_from(from.len()?.saturating_sub(at)).unwrap_or(PART_BYTES))];
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
}

impl PutError {
    fn into_upload_error(self, place: String) -> UploadError {
        match self {
            Self::Local(source) => UploadError::Local(source),
            Self::Store(error) => {
                let reason = chain(&error);
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
fn chain(error: &dyn std::error::Error) -> String {
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
    let copied = tokio::task::spawn_blocking(move || copy_now(from.as_ref(), &to)).await;
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory => {
            UploadError::Refused { place: place.clone(), reason: error.to_string() }
        }
        _ => UploadError::Failed { place: place.clone(), reason: error.to_string() },
    };
    copied.map_err(|error| failed(error.into()))?.map_err(failed)
}

fn copy_now(from: &dyn File, to: &Path) -> io::Result<()> {
    let (Some(folder), Some(name)) = (to.parent(), to.file_name().and_then(|name| name.to_str())) else {
        return Err(io::ErrorKind::InvalidFilename.into());
    };
    std::fs::create_dir_all(folder)?;
    let beside = folder.join(format!(".{name}.part"));
    let mut copy = std::fs::File::create(&beside)?;
    let mut at = 0;
    loop {
        let part = read_part_now(from, at)?;
        if part.is_empty() {
            break;
        }
        copy.write_all(&part)?;
        at += part.len() as u64;
    }
    copy.sync_all()?;
    std::fs::rename(&beside, to)?;
    std::fs::File::open(folder)?.sync_all()
}

fn s3_store(bucket: &str, s3: &S3) -> Result<object_store::aws::AmazonS3, OpenError> {
    // The program may have chosen a provider already; either is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
    if let Some(region) = &s3.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = &s3.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(id) = &s3.access_key_id {
        builder = builder.with_access_key_id(id);
    }
    if let Some(secret) = &s3.secret_access_key {
        builder = builder.with_secret_access_key(secret);
    }
    if s3.access_key_id.is_some() != s3.secret_access_key.is_some() {
        return Err(OpenError::S3("access_key_id and secret_access_key stand together or not at all".into()));
    }
    let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
    let plain = endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    let path_style = s3.path_style.unwrap_or(endpoint.is_some());
    builder
        .with_client_options(ClientOptions::new().with_allow_http(plain))
        .with_virtual_hosted_style_request(!path_style)
        .build()
        .map_err(|error| OpenError::S3(chain(&error)))
}

#[cfg(test)]
#[path = "upload_tests.rs"]
mod tests;

//! Uploads to a folder and to an S3 server in this process that checks signatures, and fails on request.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::exporter::parquet::object_store::{ACCESS_KEY, ObjectStore, Operation, SECRET_KEY, StoreFault};
use crate::log::SimDisk;
use crate::log::hooked::Hooked;

const NAME: &str = "tenant=a%2Fb/date=2025-06-15/hour=15/20250615T150640.123Z-x.parquet";
/// As small as S3 takes them.
const SETTINGS: Settings = Settings {
    part_bytes: 5 << 20,
    patience: Patience { request: Duration::from_secs(5), attempts: Duration::from_millis(300) },
};

fn config(endpoint: &str, secret: &str) -> Config {
    let s3 = S3 {
        region: Some("eu-west-1".into()),
        endpoint: Some(endpoint.into()),
        path_style: None,
        access_key_id: Some(ACCESS_KEY.into()),
        secret_access_key: Some(secret.into()),
    };
    Config { url: "s3://traces/some/prefix".into(), s3, ..Config::default() }
}

fn open(server: &ObjectStore) -> Store {
    let config = config(server.endpoint(), SECRET_KEY);
    Store::open_with(&config.url, &config.s3, SETTINGS).unwrap()
}

fn file(folder: &Path, bytes: &[u8]) -> Arc<dyn File> {
    let path = folder.join("file");
    std::fs::write(&path, bytes).unwrap();
    crate::log::Storage::open(&crate::log::Disk, &path, crate::log::Open::Read).unwrap()
}

fn journal(data: &Path) -> Journal {
    Journal::new(Arc::new(crate::log::Disk), data)
}

/// The only object below `folder`, whatever the server has beside it.
fn object(folder: &Path) -> (PathBuf, Vec<u8>) {
    let mut folders = vec![folder.to_owned()];
    let mut found = Vec::new();
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap().map(Result::unwrap) {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path => found.push(path),
            }
        }
    }
    assert_eq!(found.len(), 1, "{found:?}");
    (found[0].strip_prefix(folder).unwrap().to_owned(), std::fs::read(&found[0]).unwrap())
}

#[tokio::test]
async fn an_object_of_several_parts_appears_in_the_bucket_and_again() {
    let server = ObjectStore::start().await;
    let bytes: Vec<u8> = (0..SETTINGS.part_bytes as u32 * 5 / 2).map(|n| (n / 997) as u8).collect();
    let local = TempDir::new().unwrap();
    let from = file(local.path(), &bytes);
    for _ in 0..2 {
        open(&server).upload(from.clone(), NAME, &journal(local.path())).await.unwrap();
        let (path, uploaded) = object(&server.files());
        assert_eq!(path, Path::new("some/prefix").join(NAME));
        assert!(uploaded == bytes);
        assert!(journal(local.path()).list().is_empty());
    }
    // A store that ignores conditions is as good as one that knows them.
    assert!(server.asked().iter().all(|asked| asked.condition.is_none()));
}

#[tokio::test]
async fn a_small_object_is_one_request() {
    let server = ObjectStore::start().await;
    let local = TempDir::new().unwrap();
    open(&server).upload(file(local.path(), b"small"), NAME, &journal(local.path())).await.unwrap();
    assert_eq!(object(&server.files()).1, b"small");
    assert_eq!(server.asked().iter().map(|asked| asked.operation).collect::<Vec<_>>(), [Operation::Put]);
}

/// What each failure is called, and what of it somebody must read.
fn failures() -> Vec<(StoreFault, bool, &'static str)> {
    vec![
        (StoreFault::Answers(500, "InternalError"), false, "InternalError"),
        (StoreFault::Answers(503, "SlowDown"), false, "SlowDown"),
        (StoreFault::Cuts, false, ""),
        (StoreFault::Forgets, false, ""),
        (StoreFault::Silent, false, ""),
        (StoreFault::Answers(403, "AccessDenied"), true, "AccessDenied"),
        (StoreFault::Answers(403, "RequestTimeTooSkewed"), true, "this machine's clock differs"),
        (StoreFault::Answers(404, "NoSuchBucket"), true, "the bucket does not exist"),
    ]
}

async fn fails_and_is_repeated(fault: StoreFault, operation: Operation, finally: bool, says: &str) {
    let server = ObjectStore::start().await;
    let local = TempDir::new().unwrap();
    let len = if operation == Operation::Put { 1000 } else { SETTINGS.part_bytes as u32 * 5 / 2 };
    let bytes: Vec<u8> = (0..len).map(|n| (n / 997) as u8).collect();
    let (from, journal) = (file(local.path(), &bytes), journal(local.path()));
    server.fail(move |asked| (asked == operation).then_some(fault));
    let began = tokio::time::Instant::now();
    let error = open(&server).upload(from.clone(), NAME, &journal).await.unwrap_err();
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{fault:?} of {operation:?} took {:?}",
        began.elapsed()
    );
    let said = error.to_string();
    assert_eq!(matches!(error, UploadError::Refused { .. }), finally, "{fault:?} of {operation:?}: {said}");
    assert!(said.starts_with("s3://traces/some/prefix/tenant=") && said.contains(says), "{said}");
    assert!(journal.list().is_empty(), "aborted");
    assert_eq!(server.parts(), 0, "{fault:?} of {operation:?} leaves parts");
    server.mend();
    let config = config(server.endpoint(), SECRET_KEY);
    let patient = Settings { patience: Patience::default(), ..SETTINGS };
    let store = Store::open_with(&config.url, &config.s3, patient).unwrap();
    store.upload(from, NAME, &journal).await.unwrap();
    assert!(object(&server.files()).1 == bytes);
    assert!(server.asked().iter().all(|asked| asked.condition.is_none()));
}

#[tokio::test]
async fn whatever_a_store_does_is_told_and_repeating_the_upload_puts_the_same_object_there() {
    use Operation::{Begin, Complete, Part, Put};
    let mut cases = Vec::new();
    for (fault, finally, says) in failures() {
        // What has begun is refused no more for want of a bucket.
        let operations = if finally { vec![Put, Begin] } else { vec![Put, Begin, Part(2), Complete] };
        cases.extend(operations.into_iter().map(|at| fails_and_is_repeated(fault, at, finally, says)));
    }
    futures::stream::iter(cases).buffer_unordered(4).collect::<()>().await;
}

#[tokio::test]
async fn parts_that_a_store_could_not_be_told_to_forget_are_noted() {
    let server = ObjectStore::start().await;
    let local = TempDir::new().unwrap();
    let (from, journal) = (file(local.path(), &vec![7; 12 << 20]), journal(local.path()));
    let mut down = false;
    server.fail(move |asked| {
        down |= asked == Operation::Part(3);
        down.then_some(StoreFault::Cuts)
    });
    open(&server).upload(from, NAME, &journal).await.unwrap_err();
    assert!(server.parts() > 0);
    let left = journal.list();
    assert_eq!((left.len(), left[0].url.as_str()), (1, "s3://traces/some/prefix"));
    assert!(!open(&server).abort(&left[0]).await.unwrap(), "it is down");
    server.mend();
    assert!(open(&server).abort(&left[0]).await.unwrap());
    assert_eq!(server.parts(), 0);
}

#[tokio::test]
async fn an_upload_that_cannot_be_noted_leaves_nothing_in_the_store() {
    let server = ObjectStore::start().await;
    let (local, disk) = (TempDir::new().unwrap(), SimDisk::new(1));
    disk.storage().create_dir_all(Path::new("data")).unwrap();
    let journal = Journal::new(disk.storage(), Path::new("data"));
    let from = file(local.path(), &vec![7; 12 << 20]);
    disk.fail_writes(1);
    let error = open(&server).upload(from.clone(), NAME, &journal).await.unwrap_err();
    assert!(matches!(error, UploadError::Note(_)), "{error}");
    let asked = server.asked();
    assert_eq!((asked[0].operation, asked[1].operation), (Operation::Begin, Operation::Abort));
    assert_eq!(asked[0].path, asked[1].path, "the same object, however its name is encoded");
    open(&server).upload(from, NAME, &journal).await.unwrap();
    assert_eq!(object(&server.files()).1.len(), 12 << 20);
}

#[tokio::test]
async fn an_object_that_is_there_is_there_though_its_note_cannot_be_removed() {
    let server = ObjectStore::start().await;
    let (local, disk) = (TempDir::new().unwrap(), SimDisk::new(1));
    disk.storage().create_dir_all(Path::new("data")).unwrap();
    let storage = Hooked::over(disk.storage(), |what, _| match what {
        "remove" => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
        _ => Ok(()),
    });
    let journal = Journal::new(storage, Path::new("data"));
    let from = file(local.path(), &vec![7; 12 << 20]);
    open(&server).upload(from, NAME, &journal).await.unwrap();
    assert_eq!(journal.list().len(), 1);
    assert_eq!(object(&server.files()).1.len(), 12 << 20);
}

#[tokio::test]
async fn a_wrong_secret_is_refused_and_said_so() {
    let server = ObjectStore::start().await;
    let local = TempDir::new().unwrap();
    let from = file(local.path(), b"small");
    let store = Store::open(&config(server.endpoint(), "wrong")).unwrap();
    let error = store.upload(from.clone(), NAME, &journal(local.path())).await.unwrap_err();
    assert!(matches!(error, UploadError::Refused { .. }), "{error}");
    let said = error.to_string();
    assert!(said.starts_with("s3://traces/some/prefix/tenant="), "{said}");
    assert!(said.contains("SignatureDoesNotMatch"), "{said}");
    let asked = store.probe().await.unwrap_err().to_string();
    assert!(
        asked.starts_with("s3://traces/some/prefix refuses: ") && asked.contains("SignatureDoesNotMatch")
    );
}

#[tokio::test]
async fn asking_a_store_tells_what_no_upload_would_change() {
    let server = ObjectStore::start().await;
    let ask = async |code| {
        server.fail(move |_| {
            Some(StoreFault::Answers(code, ["NoSuchKey", "AccessDenied"][usize::from(code == 403)]))
        });
        open(&server).probe().await
    };
    open(&server).probe().await.unwrap();
    ask(404).await.unwrap();
    ask(403).await.expect("credentials that may only write are enough");
    let said = async |status, code| {
        server.fail(move |_| Some(StoreFault::Answers(status, code)));
        open(&server).probe().await.unwrap_err().to_string()
    };
    assert!(said(404, "NoSuchBucket").await.contains("the bucket does not exist"));
    assert!(said(403, "InvalidAccessKeyId").await.contains("InvalidAccessKeyId"));
    assert!(said(403, "RequestTimeTooSkewed").await.contains("clock"));
    let closed = config("http://127.0.0.1:1", "x");
    let store = Store::open_with(&closed.url, &closed.s3, SETTINGS).unwrap();
    assert!(matches!(store.probe().await.unwrap_err(), UploadError::Failed { .. }));
}

#[tokio::test]
async fn a_folder_takes_objects_whole_and_what_a_crash_left_is_replaced() {
    let root = TempDir::new().unwrap();
    let local = TempDir::new().unwrap();
    let from = file(local.path(), b"rows");
    let target = root.path().join("traces");
    let place = target.join(NAME);
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    let left_over = place.with_file_name(format!(".{}.part", place.file_name().unwrap().to_str().unwrap()));
    std::fs::write(left_over, b"ro").unwrap();
    let config = Config { url: format!("file:{}", target.display()), ..Config::default() };
    let store = Store::open(&config).unwrap();
    for _ in 0..2 {
        store.upload(from.clone(), NAME, &journal(local.path())).await.unwrap();
        assert_eq!(object(&target), (NAME.into(), b"rows".to_vec()));
    }
}

#[tokio::test]
async fn a_copy_that_fails_leaves_nothing_in_the_folder() {
    let (root, local) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let place = root.path().join(NAME);
    std::fs::create_dir_all(&place).unwrap();
    let store = Store::open_at(&format!("file:{}", root.path().display()), &S3::default()).unwrap();
    let from = file(local.path(), b"rows");
    let error = store.upload(from, NAME, &journal(local.path())).await.unwrap_err();
    assert!(matches!(error, UploadError::Failed { .. }), "{error}");
    let beside = std::fs::read_dir(place.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(beside.collect::<Vec<_>>(), [place]);
}

#[tokio::test]
async fn a_folder_that_cannot_be_is_told_at_once() {
    let root = TempDir::new().unwrap();
    std::fs::write(root.path().join("file"), b"").unwrap();
    let url = format!("file:{}/file/traces", root.path().display());
    let error = Store::open_at(&url, &S3::default()).unwrap().probe().await.unwrap_err();
    assert!(error.to_string().contains("file/traces"), "{error}");
}

#[test]
fn half_a_credential_is_refused() {
    let s3 = S3 { access_key_id: Some("key".into()), ..S3::default() };
    assert!(Store::open_at("s3://traces", &s3).unwrap_err().to_string().contains("stand together"));
}

#[test]
fn secrets_are_not_printed() {
    let printed = format!("{:?}", config("http://localhost", "hush"));
    assert!(!printed.contains("hush"), "{printed}");
}

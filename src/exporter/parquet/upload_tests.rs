//! Uploads to a folder and to an S3 server in this process that checks signatures.

use std::path::Path;

use hyper_util::rt::{TokioExecutor, TokioIo};
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tempfile::TempDir;

use super::*;

const NAME: &str = "tenant=a%2Fb/date=2025-06-15/hour=15/20250615T150640.123Z-x.parquet";

/// A server with the bucket `traces`, and where it keeps its objects.
async fn server() -> (TempDir, String) {
    let root = TempDir::new().unwrap();
    std::fs::create_dir(root.path().join("traces")).unwrap();
    let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root.path()).unwrap());
    builder.set_auth(SimpleAuth::from_single("key", "secret"));
    let service = builder.build();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let connection = server.serve_connection(TokioIo::new(socket), service.clone()).into_owned();
            tokio::spawn(connection);
        }
    });
    (root, endpoint)
}

fn config(endpoint: &str, secret: &str) -> Config {
    let s3 = S3 {
        region: Some("eu-west-1".into()),
        endpoint: Some(endpoint.into()),
        path_style: None,
        access_key_id: Some("key".into()),
        secret_access_key: Some(secret.into()),
    };
    Config { url: "s3://traces/some/prefix".into(), s3, ..Config::default() }
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
    let (root, endpoint) = server().await;
    let bytes: Vec<u8> = (0..PART_BYTES as u32 * 5 / 2).map(|n| (n / 997) as u8).collect();
    let local = TempDir::new().unwrap();
    let from = file(local.path(), &bytes);
    let store = Store::open(&config(&endpoint, "secret")).unwrap();
    for _ in 0..2 {
        store.upload(from.clone(), NAME, &journal(local.path())).await.unwrap();
        let (path, uploaded) = object(&root.path().join("traces"));
        assert_eq!(path, Path::new("some/prefix").join(NAME));
        assert!(uploaded == bytes);
    }
}

#[tokio::test]
async fn a_small_object_is_one_request() {
    let (root, endpoint) = server().await;
    let local = TempDir::new().unwrap();
    let store = Store::open(&config(&endpoint, "secret")).unwrap();
    store.upload(file(local.path(), b"small"), NAME, &journal(local.path())).await.unwrap();
    assert_eq!(object(&root.path().join("traces")).1, b"small");
}

#[tokio::test]
async fn a_wrong_secret_is_refused_and_said_so() {
    let (_root, endpoint) = server().await;
    let local = TempDir::new().unwrap();
    let from = file(local.path(), b"small");
    let store = Store::open(&config(&endpoint, "wrong")).unwrap();
    let error = store.upload(from.clone(), NAME, &journal(local.path())).await.unwrap_err();
    assert!(matches!(error, UploadError::Refused { .. }), "{error}");
    let said = error.to_string();
    assert!(said.starts_with("s3://traces/some/prefix/tenant="), "{said}");
    assert!(said.contains("SignatureDoesNotMatch"), "{said}");
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

//! A real S3 server in this process, over a folder.

use std::path::{Path, PathBuf};

use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub const ACCESS_KEY: &str = "tailwater-test";
pub const SECRET_KEY: &str = "secret of the test";
pub const BUCKET: &str = "traces";

/// s3s-fs with one bucket; its objects are files, so that DuckDB can read them too.
#[derive(Debug)]
pub struct ObjectStore {
    folder: TempDir,
    endpoint: String,
    server: JoinHandle<()>,
}

impl ObjectStore {
    pub async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(FileSystem::new(folder.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = service.clone();
                tokio::spawn(async move {
                    let io = hyper_util::rt::TokioIo::new(stream);
                    let builder =
                        hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
                    let _ = builder.serve_connection(io, service).await;
                });
            }
        });
        Self { folder, endpoint, server }
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The files of the bucket.
    pub fn files(&self) -> PathBuf {
        self.folder.path().join(BUCKET)
    }

    /// Credentials as the AWS tools read them from the environment.
    pub fn environment() -> Vec<(String, String)> {
        let pairs = [
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            ("AWS_REGION", "us-east-1"),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    }
}

impl AsRef<Path> for ObjectStore {
    fn as_ref(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        self.server.abort();
    }
}

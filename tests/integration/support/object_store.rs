//! A real S3 server in this process, over a folder, that fails on request.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub const ACCESS_KEY: &str = "tailwater-test";
pub const SECRET_KEY: &str = "secret of the test";
pub const BUCKET: &str = "traces";

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Put,
    /// An upload in parts begins.
    Begin,
    Part(u32),
    Complete,
    Abort,
    Other,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFault {
    /// It is refused with this status and S3's code.
    Answers(u16, &'static str),
    /// The connection breaks in the middle of its body.
    Cuts,
    /// There is no answer.
    Silent,
    /// It is done, and the connection breaks before the answer.
    Forgets,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub operation: Operation,
    /// Of the URL.
    pub path: String,
    /// The condition on which it shall be done.
    pub condition: Option<String>,
}

type Faults = Box<dyn FnMut(Operation) -> Option<StoreFault> + Send>;

#[derive(Default)]
struct Script {
    faults: Option<Faults>,
    asked: Vec<Asked>,
    wait: Duration,
}

/// s3s-fs with one bucket; its objects are files, so that DuckDB can read them too.
pub struct ObjectStore {
    folder: TempDir,
    endpoint: String,
    server: JoinHandle<()>,
    script: Arc<Mutex<Script>>,
    uploads: Arc<AtomicUsize>,
}

impl fmt::Debug for ObjectStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStore").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl ObjectStore {
    pub async fn start() -> Self {
        Self::open(Some(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY))).await
    }

    /// Each request waits so long before it is looked at.
    pub async fn slow(wait: Duration) -> Self {
        let store = Self::start().await;
        store.script.lock().unwrap().wait = wait;
        store
    }

    /// One that asks for no key.
    pub async fn for_everyone() -> Self {
        Self::open(None).await
    }

    async fn open(keys: Option<SimpleAuth>) -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(FileSystem::new(folder.path()).unwrap());
        let open = keys.is_none();
        keys.into_iter().for_each(|keys| builder.set_auth(keys));
        let service = builder.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let script = Arc::new(Mutex::new(Script::default()));
        let uploads = Arc::new(AtomicUsize::new(0));
        let (told, counted) = (script.clone(), uploads.clone());
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (service, script, uploads) = (service.clone(), told.clone(), counted.clone());
                let serve = service_fn(move |mut request: Request<Incoming>| {
                    if open {
                        request.headers_mut().remove("authorization");
                    }
                    let upload = (operation(&request) != Operation::Other).then(|| UnderWay::new(&uploads));
                    let answer = answer(service.clone(), script.clone(), request);
                    async move { (answer.await, upload).0 }
                });
                let io = hyper_util::rt::TokioIo::new(stream);
                tokio::spawn(async move {
                    let builder = hyper::server::conn::http1::Builder::new();
                    let _ = builder.serve_connection(io, serve).await;
                });
            }
        });
        Self { folder, endpoint, server, script, uploads }
    }

    /// From now on every request is asked what shall become of it.
    pub fn fail(&self, faults: impl FnMut(Operation) -> Option<StoreFault> + Send + 'static) {
        self.script.lock().unwrap().faults = Some(Box::new(faults));
    }

    /// From now on all is well.
    pub fn mend(&self) {
        self.script.lock().unwrap().faults = None;
    }

    /// What was asked since this was last called.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.script.lock().unwrap().asked)
    }

    /// Requests of uploads that have no answer yet.
    pub fn uploads(&self) -> usize {
        self.uploads.load(Relaxed)
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The files of the bucket.
    pub fn files(&self) -> PathBuf {
        self.folder.path().join(BUCKET)
    }

    /// Parts that wait for the end of their upload.
    pub fn parts(&self) -> usize {
        let entries = std::fs::read_dir(self.folder.path()).unwrap().map(Result::unwrap);
        entries.filter(|entry| entry.file_name().to_string_lossy().contains(".part-")).count()
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

/// Counts one more while it exists.
struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

async fn answer(
    service: S3Service,
    script: Arc<Mutex<Script>>,
    mut request: Request<Incoming>,
) -> io::Result<Response<s3s::Body>> {
    let wait = script.lock().unwrap().wait;
    tokio::time::sleep(wait).await;
    let fault = decide(&mut script.lock().unwrap(), &request);
    match fault {
        None => service
            .call(request.map(s3s::Body::from))
            .await
            .map_err(|error| io::Error::other(format!("{error:?}"))),
        Some(StoreFault::Answers(status, code)) => {
            let _ = request.body_mut().collect().await;
            let body = format!("<Error><Code>{code}</Code><Message>as the test says</Message></Error>");
            Ok(Response::builder().status(status).body(s3s::Body::from(body)).unwrap())
        }
        Some(StoreFault::Cuts) => {
            let _ = request.body_mut().frame().await;
            Err(io::ErrorKind::ConnectionReset.into())
        }
        Some(StoreFault::Silent) => std::future::pending().await,
        Some(StoreFault::Forgets) => {
            let _ = service.call(request.map(s3s::Body::from)).await;
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
}

fn decide(script: &mut Script, request: &Request<Incoming>) -> Option<StoreFault> {
    let operation = operation(request);
    let condition = ["if-match", "if-none-match"].into_iter().find_map(|name| request.headers().get(name));
    let condition = condition.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let path = request.uri().path().to_owned();
    script.asked.push(Asked { operation, path, condition });
    script.faults.as_mut().and_then(|faults| faults(operation))
}

fn operation(request: &Request<Incoming>) -> Operation {
    let query = request.uri().query().unwrap_or_default();
    let number = query.split('&').find_map(|pair| pair.strip_prefix("partNumber="));
    let of_upload = query.contains("uploadId=");
    match (request.method(), number.and_then(|number| number.parse().ok())) {
        (&Method::PUT, Some(number)) => Operation::Part(number),
        (&Method::PUT, None) => Operation::Put,
        (&Method::POST, _) if of_upload => Operation::Complete,
        (&Method::POST, _) => Operation::Begin,
        (&Method::DELETE, _) if of_upload => Operation::Abort,
        _ => Operation::Other,
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

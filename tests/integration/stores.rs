//! Object stores that fail, and stores of other clouds.
//!
//! The server that stands for Azure's is in `target/sdk/stores`, installed by `tests/install`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures::TryStreamExt;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::{ObjectStore as _, ObjectStoreExt};
use tempfile::TempDir;

use super::support::{
    KEEP_ALL, ObjectStore, Random, Row, Sender, Setup, StoreFault, Tailwater, Trace, WITHIN, eventually,
    free_address, http_client, long, request, rows_below,
};

/// Of the account that every emulator has.
const EMULATOR_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

async fn storing_in(store: &ObjectStore) -> Tailwater {
    Setup::of(KEEP_ALL).storing_in(store, "some/prefix").start().await
}

/// Delivers requests of twenty traces, fifty a second but twenty at least, spread over this time; returns the number
/// of spans.
async fn load(tailwater: &Tailwater, random: &mut Random, over: Duration) -> usize {
    let requests = 20.max(over.as_secs() as u32 * 50);
    let mut sender = Sender::to(tailwater);
    for _ in 0..requests {
        let traces = Trace::some(20, random);
        sender.deliver(&request(&traces)).await;
        tokio::time::sleep(over / requests).await;
    }
    requests as usize * 20 * 3
}

async fn down(tailwater: &Tailwater) -> bool {
    tailwater.metrics().await.sum("tailwater_exporter_down", &[("exporter", "parquet")]) == 1.0
}

async fn delivered(tailwater: &Tailwater, spans: usize) {
    let of = async |name| tailwater.metrics().await.sum(name, &[("exporter", "parquet")]) as usize;
    eventually("every span is in the store", WITHIN, async || {
        (of("tailwater_exporter_delivered_spans_total").await == spans).then_some(())
    })
    .await;
    assert_eq!(of("tailwater_exporter_pending_spans").await, 0);
}

fn assert_each_once(rows: &[Row], spans: usize) {
    let mut keys: Vec<_> = rows.iter().map(Row::key).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!((rows.len(), keys.len()), (spans, spans));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_down_for_a_while_gets_everything_once() {
    let store = ObjectStore::start().await;
    let tailwater = storing_in(&store).await;
    let mut random = Random(1);
    let mut spans = load(&tailwater, &mut random, Duration::from_secs(1)).await;
    let mut count = 0;
    store.fail(move |_| {
        count += 1;
        let faults = [
            StoreFault::Answers(503, "SlowDown"),
            StoreFault::Cuts,
            StoreFault::Answers(500, "InternalError"),
            StoreFault::Forgets,
        ];
        Some(faults[count % faults.len()])
    });
    spans += load(&tailwater, &mut random, long(Duration::from_secs(8), Duration::from_secs(60))).await;
    eventually("it is known to be down", WITHIN, async || down(&tailwater).await.then_some(())).await;
    let (status, says) = tailwater.readiness().await;
    assert!(status == 200 && says.contains("exporter parquet takes nothing, "), "{says}");
    tailwater.assert_in_bounds();
    store.mend();
    spans += load(&tailwater, &mut random, Duration::from_secs(1)).await;
    let ledger = tailwater.judged().await;
    delivered(&tailwater, spans).await;
    assert_eq!(ledger.kept as usize, spans);
    assert!(!down(&tailwater).await);
    assert_eq!(tailwater.readiness().await, (200, "ready\n".to_owned()));
    assert_each_once(&rows_below(&store.files()), spans);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_the_key_is_told_of_before_there_is_anything_to_store() {
    let store = ObjectStore::start().await;
    store.fail(|_| Some(StoreFault::Answers(403, "InvalidAccessKeyId")));
    let tailwater = storing_in(&store).await;
    eventually("it is known", WITHIN, async || down(&tailwater).await.then_some(())).await;
    let (status, says) = tailwater.readiness().await;
    assert!(
        status == 200
            && says.contains("s3://traces/some/prefix refuses: ")
            && says.contains("InvalidAccessKeyId"),
        "{says}"
    );
    let spans = load(&tailwater, &mut Random(2), Duration::from_secs(1)).await;
    store.mend();
    delivered(&tailwater, spans).await;
    tailwater.assert_ledger().await;
    assert_each_once(&rows_below(&store.files()), spans);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_missing_from_the_start_gets_everything_when_it_is_made() {
    let store = ObjectStore::start().await;
    store.fail(|_| Some(StoreFault::Answers(404, "NoSuchBucket")));
    let tailwater = storing_in(&store).await;
    let spans = load(&tailwater, &mut Random(4), Duration::from_secs(1)).await;
    let says = eventually("it is told", WITHIN, async || {
        let (status, says) = tailwater.readiness().await;
        (status == 200 && says.contains("the bucket does not exist")).then_some(says)
    })
    .await;
    assert!(
        says.contains("exporter parquet takes nothing, ") && says.contains("s3://traces/some/prefix"),
        "{says}"
    );
    store.mend();
    delivered(&tailwater, spans).await;
    tailwater.assert_ledger().await;
    assert_each_once(&rows_below(&store.files()), spans);
}

/// A program that serves until it is dropped.
struct Server(Child);

impl Server {
    fn start(program: &str, arguments: &[&str]) -> Self {
        let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/sdk/stores").join(program);
        assert!(program.exists(), "{} is not there: run tests/install", program.display());
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn listens(port: u16) {
    eventually("the store listens", WITHIN, async || {
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()
    })
    .await;
}

async fn stores_everything_at(url: &str, environment: &[(&str, String)]) -> usize {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let setup = Setup { parquet_url: Some(url.to_owned()), environment, ..Setup::of(KEEP_ALL) };
    let tailwater = setup.start().await;
    let spans = load(&tailwater, &mut Random(3), Duration::from_secs(1)).await;
    delivered(&tailwater, spans).await;
    tailwater.assert_ledger().await;
    spans
}

/// Google's XML API is S3's but for the key, <https://docs.cloud.google.com/storage/docs/interoperability>.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_google_holds_the_same() {
    let store = ObjectStore::for_everyone().await;
    let account = format!(
        r#"{{"gcs_base_url":"{}","disable_oauth":true,"client_email":"","private_key":"","private_key_id":""}}"#,
        store.endpoint()
    );
    let environment = [("GOOGLE_SERVICE_ACCOUNT_KEY", account), ("GOOGLE_SKIP_SIGNATURE", "true".to_owned())];
    let spans = stores_everything_at("gs://traces/some/prefix", &environment).await;
    assert_each_once(&rows_below(&store.files().join("some/prefix")), spans);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_of_azure_holds_the_same() {
    let (folder, port) = (TempDir::new().unwrap(), free_address().port());
    let root = folder.path().join("azurite").display().to_string();
    let _server = Server::start(
        "node_modules/.bin/azurite-blob",
        &[
            "--blobHost",
            "127.0.0.1",
            "--blobPort",
            &port.to_string(),
            "--location",
            &root,
            "--skipApiVersionCheck",
            "--disableTelemetry",
            "--silent",
        ],
    );
    listens(port).await;
    let address = format!("http://127.0.0.1:{port}");
    let environment =
        [("AZURE_STORAGE_USE_EMULATOR", "true".to_owned()), ("AZURITE_BLOB_STORAGE_URL", address.clone())];
    let setup = Setup {
        parquet_url: Some("az://traces/some/prefix".to_owned()),
        environment: environment.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        ..Setup::of(KEEP_ALL)
    };
    let tailwater = setup.start().await;
    eventually("the missing container is told", WITHIN, async || down(&tailwater).await.then_some(())).await;
    let (_, says) = tailwater.readiness().await;
    assert!(says.contains("the container does not exist"), "{says}");
    drop(tailwater);
    create_container(&address);
    let spans = stores_everything_at("az://traces/some/prefix", &environment).await;
    let copies = TempDir::new().unwrap();
    download(&address, copies.path()).await;
    assert_each_once(&rows_below(copies.path()), spans);
}

fn create_container(address: &str) {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/stores/create_container.js");
    let created = Command::new("node").arg(script).args([address, "traces"]).status().unwrap();
    assert!(created.success());
}

/// Copies every blob into a folder.
async fn download(address: &str, to: &Path) {
    http_client(); // reqwest wants to know who does its TLS, even when nobody does
    let store = MicrosoftAzureBuilder::new()
        .with_account("devstoreaccount1")
        .with_access_key(EMULATOR_KEY)
        .with_endpoint(format!("{address}/devstoreaccount1"))
        .with_container_name("traces")
        .with_allow_http(true)
        .build()
        .unwrap();
    let blobs: Vec<_> = store.list(None).try_collect().await.unwrap();
    for (n, blob) in blobs.iter().enumerate() {
        assert!(blob.location.as_ref().starts_with("some/prefix/date="), "{}", blob.location);
        let bytes = store.get(&blob.location).await.unwrap().bytes().await.unwrap();
        std::fs::write(to.join(format!("{n}.parquet")), bytes).unwrap();
    }
}

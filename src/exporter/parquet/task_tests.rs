//! Exactly once: the exporter against a disk that can lose power and an S3 server that can do anything else.

use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use parquet::file::reader::{FileReader, SerializedFileReader};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::super::cloud::Patience;
use super::*;
use crate::exporter::metrics::Metrics;
use crate::exporter::outbox::tests::Bench;
use crate::exporter::parquet::S3;
use crate::exporter::parquet::object_store::{ACCESS_KEY, ObjectStore, Operation, SECRET_KEY, StoreFault};
use crate::log::SimDisk;
use crate::log::hooked::Hooked;

const SPANS: u32 = 28;
/// Two parts of [`UPLOAD`].
const SPAN_BYTES: usize = 400_000;
const UPLOAD: upload::Settings = upload::Settings {
    part_bytes: 5 << 20,
    patience: Patience { request: Duration::from_secs(20), attempts: Duration::from_millis(300) },
};

fn attributes(url: &str) -> proto::SegmentAttributes {
    proto::SegmentAttributes { parquet_url: url.to_owned(), schema_version: SCHEMA_VERSION }
}

/// Spans whose text does not compress.
fn otlp(spans: u32, bytes: usize) -> bytes::Bytes {
    let mut random = 7_u64;
    let mut letter = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'0' + (random >> 58) as u8)
    };
    let mut span = |id: u32| {
        let value = Some(any_value::Value::StringValue((0..bytes).map(|_| letter()).collect()));
        let text = KeyValue { key: "text".into(), value: Some(AnyValue { value }), ..KeyValue::default() };
        Span {
            trace_id: vec![1; 16],
            span_id: u64::from(id + 1).to_be_bytes().to_vec(),
            attributes: vec![text],
            ..Span::default()
        }
    };
    let scope = ScopeSpans { spans: (0..spans).map(&mut span).collect(), ..ScopeSpans::default() };
    let resource_spans = vec![ResourceSpans { scope_spans: vec![scope], ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
}

/// One life of the exporter over a disk and a place for objects, both of which outlive it.
struct Life {
    bench: Bench,
    stop: watch::Sender<Stop>,
    task: JoinHandle<bool>,
    metrics: Arc<Metrics>,
}

impl Life {
    fn start(disk: &SimDisk, config: &Config) -> Self {
        Self::start_on(disk, disk.storage(), config)
    }

    /// The exporter sees its disk as `storage` shows it.
    fn start_on(disk: &SimDisk, storage: Arc<dyn Storage>, config: &Config) -> Self {
        let bench = Bench::open_for(disk, &[EXPORTER], attributes(&config.url));
        let built = Exporter::build(bench.outbox.clone(), storage, Path::new("data"), config);
        let exporter = Exporter { upload: UPLOAD, ..built.unwrap().unwrap() };
        let metrics = exporter.subscription.metrics.clone();
        let (stop, stopped) = watch::channel(Stop::Run);
        Self { bench, stop, task: tokio::spawn(exporter.run(stopped)), metrics }
    }

    fn append(&mut self, spans: u32, bytes: usize) {
        self.bench.append_otlp("", vec![(spans, otlp(spans, bytes))]);
        self.bench.outbox.log().seal();
    }

    /// What makes an object of several parts.
    fn append_large(&mut self) {
        static OTLP: OnceLock<bytes::Bytes> = OnceLock::new();
        let otlp = OTLP.get_or_init(|| otlp(SPANS, SPAN_BYTES)).clone();
        self.bench.append_otlp("", vec![(SPANS, otlp)]);
        self.bench.outbox.log().seal();
    }

    async fn until(&self, what: &str, mut is: impl FnMut(&Metrics) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(1_000);
        while !is(&self.metrics) {
            assert!(Instant::now() < deadline, "never {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn delivered(&self, spans: u64) {
        self.until("delivered", |metrics| metrics.delivered() >= spans).await;
    }

    /// Power is lost: no cursor is saved, no connection closed.
    async fn crash(self, disk: &SimDisk) {
        self.task.abort();
        let _ = self.task.await;
        self.bench.close();
        disk.crash();
    }

    async fn end(self) {
        drop(self.stop);
        let _ = self.task.await;
        self.bench.close();
    }
}

fn config(url: &str, endpoint: Option<&str>) -> Config {
    let s3 = S3 {
        region: Some("eu-west-1".into()),
        endpoint: endpoint.map(str::to_owned),
        access_key_id: Some(ACCESS_KEY.into()),
        secret_access_key: Some(SECRET_KEY.into()),
        ..S3::default()
    };
    Config { url: url.to_owned(), s3, ..Config::default() }
}

fn in_bucket(server: &ObjectStore) -> Config {
    config("s3://traces", Some(server.endpoint()))
}

/// Every object below a folder, with its number of rows.
fn objects(folder: &Path) -> Vec<(PathBuf, bytes::Bytes, i64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(objects(&entry));
        } else if entry.extension().is_some_and(|extension| extension == "parquet") {
            let bytes = bytes::Bytes::from(std::fs::read(&entry).unwrap());
            let rows =
                SerializedFileReader::new(bytes.clone()).unwrap().metadata().file_metadata().num_rows();
            found.push((entry, bytes, rows));
        }
    }
    found.sort();
    found
}

async fn asked_for(server: &ObjectStore, operation: Operation) {
    while !server.asked().iter().any(|asked| asked.operation == operation) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whatever the life before has come to: one object, all rows, under the name of its segment, and nothing beside it.
async fn is_delivered_once(disk: &SimDisk, server: &ObjectStore) {
    let segment = {
        let bench = Bench::open_for(disk, &[EXPORTER], attributes("s3://traces"));
        let sealed = bench.outbox.log().sealed();
        bench.close();
        sealed.into_iter().find(|segment| segment.number == 1).unwrap()
    };
    server.mend();
    let life = Life::start(disk, &in_bucket(server));
    life.delivered(SPANS.into()).await;
    let (objects, header) =
        (objects(&server.files()), Segment { uuid: segment.uuid, opened_ms: segment.opened_ms });
    assert_eq!(objects.len(), 1);
    assert_eq!((&objects[0].0, objects[0].2), (&server.files().join(name("", &header)), SPANS.into()));
    life.until("without parts in the store", |_| server.parts() == 0).await;
    let files = || disk.storage().list(Path::new("data")).unwrap().into_iter().map(|(name, _)| name);
    life.until("without files of its own", |_| files().eq(["cursor.parquet"])).await;
    assert_eq!((life.metrics.pending().spans, life.metrics.delivered()), (0, SPANS.into()));
    life.end().await;
}

#[tokio::test]
async fn power_lost_before_a_segment_is_encoded_delivers_it_once() {
    let (disk, server) = (SimDisk::new(1), ObjectStore::start().await);
    server.fail(|_| Some(StoreFault::Silent));
    let mut life = Life::start(&disk, &in_bucket(&server));
    asked_for(&server, Operation::Other).await;
    life.append_large();
    life.crash(&disk).await;
    is_delivered_once(&disk, &server).await;
}

#[tokio::test]
async fn power_lost_while_a_segment_is_encoded_delivers_it_once() {
    let (disk, server) = (SimDisk::new(2), ObjectStore::start().await);
    let (part, seen) = (Path::new("data/parquet.part"), disk.clone());
    let half = move || seen.content(part).is_some_and(|content| content.len() > 1 << 20);
    let (power, lost) = std::sync::mpsc::channel::<()>();
    let (lost, is_half) = (std::sync::Mutex::new(lost), half.clone());
    let storage = Hooked::over(disk.storage(), move |what, path| {
        if what == "write" && path == part && is_half() {
            let _ = lost.lock().unwrap().recv();
        }
        Ok(())
    });
    let mut life = Life::start_on(&disk, storage, &in_bucket(&server));
    life.append_large();
    life.until("half a file", |_| half()).await;
    life.crash(&disk).await;
    is_delivered_once(&disk, &server).await;
    drop(power);
}

#[tokio::test]
async fn a_full_disk_is_blamed_and_left_as_it_was_until_there_is_room() {
    let (disk, server) = (SimDisk::new(12), ObjectStore::start().await);
    let mut life = Life::start(&disk, &in_bucket(&server));
    life.until("reached", |_| !server.asked().is_empty()).await;
    disk.set_capacity(Some(disk.used() + (17 << 20)));
    life.append_large();
    let used = disk.used();
    life.until("out of room", |metrics| metrics.obstacle() == Some(Obstacle::Disk)).await;
    assert!(!life.metrics.is_down(), "the store is well");
    let said = life.metrics.last_error().unwrap();
    assert!(said.starts_with("make data/parquet.part: write the Parquet file: "), "{said}");
    life.until("tried again", |metrics| metrics.retries() > 1).await;
    assert_eq!((disk.content(Path::new("data/parquet.part")), disk.used()), (None, used));
    assert_eq!((life.metrics.delivered(), life.metrics.pending().spans), (0, SPANS.into()));
    disk.set_capacity(None);
    life.delivered(SPANS.into()).await;
    assert_eq!(life.metrics.obstacle(), None);
    assert_eq!(
        objects(&server.files()).iter().map(|(.., rows)| *rows).collect::<Vec<_>>(),
        [i64::from(SPANS)]
    );
    life.end().await;
}

#[tokio::test]
async fn power_lost_between_the_parts_of_an_upload_delivers_it_once_and_leaves_no_part() {
    for (seed, at) in
        [(3, Operation::Begin), (4, Operation::Part(1)), (5, Operation::Part(2)), (6, Operation::Complete)]
    {
        let (disk, server) = (SimDisk::new(seed), ObjectStore::start().await);
        server.fail(move |operation| (operation == at).then_some(StoreFault::Silent));
        let mut life = Life::start(&disk, &in_bucket(&server));
        life.append_large();
        asked_for(&server, at).await;
        tokio::time::sleep(Duration::from_millis(200)).await; // the other part arrives
        assert!(objects(&server.files()).is_empty());
        life.crash(&disk).await;
        is_delivered_once(&disk, &server).await;
    }
}

#[tokio::test]
async fn power_lost_between_the_upload_and_the_cursor_puts_the_same_bytes_there_again() {
    let (disk, server) = (SimDisk::new(7), ObjectStore::start().await);
    let mut life = Life::start(&disk, &in_bucket(&server));
    let failing = disk.clone();
    server.fail(move |operation| {
        // The next that is written is the cursor.
        let complete = operation == Operation::Complete;
        complete.then(|| failing.fail_writes(1));
        None
    });
    life.append_large();
    life.delivered(SPANS.into()).await;
    let before = objects(&server.files());
    life.crash(&disk).await;
    is_delivered_once(&disk, &server).await;
    assert!(objects(&server.files()) == before);
}

#[tokio::test]
async fn an_upload_whose_answer_was_lost_is_repeated_under_the_same_name() {
    let (disk, server) = (SimDisk::new(8), ObjectStore::start().await);
    server.fail(|operation| (operation == Operation::Complete).then_some(StoreFault::Forgets));
    let mut life = Life::start(&disk, &in_bucket(&server));
    life.append_large();
    life.until("failed", Metrics::is_down).await;
    let before = objects(&server.files());
    assert_eq!(before.len(), 1);
    life.crash(&disk).await;
    is_delivered_once(&disk, &server).await;
    assert!(objects(&server.files()) == before);
}

#[tokio::test]
async fn a_store_that_refuses_is_told_of_at_start_and_gets_everything_when_it_is_mended() {
    let (disk, server) = (SimDisk::new(9), ObjectStore::start().await);
    for (status, code, says) in [
        (404, "NoSuchBucket", "the bucket does not exist"),
        (403, "InvalidAccessKeyId", "InvalidAccessKeyId"),
    ] {
        server.fail(move |_| Some(StoreFault::Answers(status, code)));
        let life = Life::start(&disk, &in_bucket(&server));
        life.until("told", Metrics::is_down).await;
        let said = life.metrics.last_error().unwrap();
        assert!(said.contains(says), "{said}");
        life.end().await;
    }
    let mut life = Life::start(&disk, &in_bucket(&server));
    life.append(SPANS, 1_000);
    life.until("tried again", |metrics| metrics.retries() > 1).await;
    server.mend();
    life.delivered(SPANS.into()).await;
    assert!(!life.metrics.is_down());
    assert_eq!(objects(&server.files())[0].2, i64::from(SPANS));
    life.end().await;
}

#[tokio::test]
async fn what_is_no_otlp_is_counted_lost_and_the_rest_of_its_segment_is_written() {
    let (disk, server) = (SimDisk::new(10), ObjectStore::start().await);
    let mut life = Life::start(&disk, &in_bucket(&server));
    let broken = bytes::Bytes::from_static(&[0x0a, 0xff, 0xff]);
    life.bench.append_otlp("", vec![(3, otlp(3, 10)), (5, broken.clone()), (4, otlp(4, 10))]);
    life.bench.append_otlp("other", vec![(2, broken)]);
    life.bench.outbox.log().seal();
    life.delivered(7).await;
    assert_eq!((life.metrics.lost(Lost::Rejected), life.metrics.pending().spans), (7, 0));
    assert!(life.metrics.last_error().unwrap().contains("of trace 0202020202020202"));
    assert_eq!(objects(&server.files()).iter().map(|(.., rows)| rows).sum::<i64>(), 7);
    life.append(SPANS, 10);
    life.delivered(7 + u64::from(SPANS)).await;
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_for_ten_minutes_gets_everything_when_it_is_back() {
    let root = TempDir::new().unwrap();
    let (disk, folder) = (SimDisk::new(11), root.path().join("mount"));
    std::fs::write(&folder, b"not mounted").unwrap();
    let begin = Instant::now();
    let mut life = Life::start(&disk, &config(&format!("file:{}/traces", folder.display()), None));
    for minute in 0..10 {
        tokio::time::sleep_until(begin + Duration::from_secs(60 * minute)).await;
        life.append(SPANS, 100);
    }
    tokio::time::sleep_until(begin + Duration::from_secs(600)).await;
    assert_eq!((life.metrics.delivered(), life.metrics.pending().spans), (0, 10 * u64::from(SPANS)));
    assert!(life.metrics.is_down());
    let retries = life.metrics.retries();
    assert!((10..30).contains(&retries), "{retries} attempts");
    std::fs::remove_file(&folder).unwrap();
    life.delivered(10 * u64::from(SPANS)).await;
    assert!(begin.elapsed() < Duration::from_secs(600 + 65), "{:?}", begin.elapsed());
    assert_eq!(objects(&folder).iter().map(|(.., rows)| rows).sum::<i64>(), 10 * i64::from(SPANS));
    assert!(!life.metrics.is_down());
    life.end().await;
}

#[tokio::test]
async fn a_segment_goes_where_its_header_says_though_another_url_is_configured_now() {
    let (disk, root) = (SimDisk::new(13), TempDir::new().unwrap());
    let folder = |name: &str| root.path().join(name);
    let to = |name: &str| config(&format!("file:{}", folder(name).display()), None);
    std::fs::write(folder("first"), b"not mounted").unwrap();
    let mut life = Life::start(&disk, &to("first"));
    life.append(SPANS, 10);
    life.until("failed", Metrics::is_down).await;
    life.crash(&disk).await;
    std::fs::remove_file(folder("first")).unwrap();
    let mut life = Life::start(&disk, &to("second"));
    life.append(2, 10);
    life.delivered(u64::from(SPANS) + 2).await;
    let rows = |name: &str| objects(&folder(name)).iter().map(|(.., rows)| *rows).collect::<Vec<_>>();
    assert_eq!((rows("first"), rows("second")), (vec![SPANS.into()], vec![2]));
    life.end().await;
}

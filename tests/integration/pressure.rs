//! More than there is room for: the budget holds, senders are told, and nothing that was acknowledged is judged by less
//! than its whole trace. `TAILWATER_LONG=1` makes it a minute, a thousand connections, ten million spans.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use parquet::file::reader::{FileReader, SerializedFileReader};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::support::{
    BESIDE, KEEP_ALL, Metrics, Random, Row, Sender, Setup, SpanKey, Tailwater, Trace, WITHIN, eventually,
    files_below, key_of, long, request_of, rows_below, text, told,
};

/// Errors alone: then what is kept is known.
const ERRORS: &str = r#"
  - { name: errors, match: "{ status = error }", keep: 100% }
  - { name: rest, keep: 0% }
"#;
/// [`BESIDE`] while pieces of 16 MiB are on their way, with a record for each of 100,000 units: into the outbox, out of it,
/// and into a row group.
const BESIDE_LARGE_PIECES: u64 = 640 << 20;
/// In an overload.
const SENDERS: u64 = 4;
/// The pace of one of them at which all send more than 64 MiB hold of the last four seconds.
const MORE_THAN_FITS: Duration = Duration::from_millis(100);
/// Fills memory before the processor is busy.
const PADDING: usize = 16_000;

/// Twenty traces of three spans, one in ten with an error.
fn traces(random: &mut Random) -> Vec<Trace> {
    let mut traces = Trace::some(20, random);
    traces.iter_mut().for_each(|trace| trace.failed = random.one_in(10));
    traces
}

fn padded(spans: impl Iterator<Item = (&'static str, Span)>) -> ExportTraceServiceRequest {
    let padding = "x".repeat(PADDING);
    request_of(spans.map(|(service, mut span)| {
        span.attributes.push(text("padding", &padding));
        (service, span)
    }))
}

fn is_root(span: &Span) -> bool {
    span.parent_span_id.is_empty()
}

fn refused_for_memory(metrics: &Metrics) -> u64 {
    metrics.sum("tailwater_receiver_refused_requests_total", &[("cause", "memory")]) as u64
}

/// Nothing is judged before its time, and nothing is lost.
async fn overloaded() -> Tailwater {
    let setup = Setup {
        memory: "64MiB",
        // Longer than who was refused stays away.
        after_root: "4s",
        max_wait: "30s",
        hindsight: "60s",
        ..Setup::of(ERRORS)
    };
    setup.start().await
}

fn overload() -> Duration {
    long(Duration::from_secs(10), Duration::from_secs(60))
}

/// As the footers of the files say.
fn row_count(folder: &Path) -> usize {
    let rows = |path: PathBuf| {
        let file = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
        file.metadata().file_metadata().num_rows() as usize
    };
    let files = files_below(folder).into_iter();
    files.filter(|path| path.extension().is_some_and(|extension| extension == "parquet")).map(rows).sum()
}

/// How fast one of the senders goes, until told to stop.
#[derive(Clone, Debug)]
struct Pace {
    every: Duration,
    stop: Arc<AtomicBool>,
}

impl Pace {
    fn new(every: Duration) -> Self {
        Self { every, stop: Arc::default() }
    }

    fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// When the next twenty traces are due, which may be long ago. None: there are no more.
    async fn next(&self, due: &mut Instant) -> Option<()> {
        tokio::time::sleep_until(*due).await;
        *due += self.every;
        (!self.stop.load(Relaxed)).then_some(())
    }
}

/// Children first, roots in a request of their own a moment later.
async fn deliver_at(pace: Pace, mut sender: Sender, seed: u64) -> Vec<Trace> {
    let (mut random, mut sent, mut due) = (Random(seed), Vec::new(), Instant::now());
    while pace.next(&mut due).await.is_some() {
        let traces = traces(&mut random);
        sender
            .deliver(&padded(traces.iter().flat_map(Trace::build).filter(|(_, span)| !is_root(span))))
            .await;
        sender.deliver(&padded(traces.iter().flat_map(Trace::build).filter(|(_, span)| is_root(span)))).await;
        sent.extend(traces);
    }
    sent
}

fn senders<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    tailwater: &Tailwater,
    send: impl Fn(Sender, u64) -> F,
) -> Vec<JoinHandle<T>> {
    (0..SENDERS).map(|n| tokio::spawn(send(Sender::to(tailwater), n))).collect()
}

/// What came of requests that are sent once.
#[derive(Debug, Default)]
struct Once {
    requests: u64,
    refused: u64,
    /// Spans of acknowledged traces that failed.
    kept: HashSet<SpanKey>,
}

fn failed_spans(traces: &[Trace]) -> impl Iterator<Item = SpanKey> {
    traces.iter().filter(|trace| trace.failed).flat_map(Trace::keys)
}

/// Whole traces. Who is refused gives up.
async fn send_once_at(pace: Pace, mut sender: Sender, seed: u64) -> Once {
    let (mut random, mut due, mut once) = (Random(seed), Instant::now(), Once::default());
    while pace.next(&mut due).await.is_some() {
        let traces = traces(&mut random);
        once.requests += 1;
        match sender.send(&padded(traces.iter().flat_map(Trace::build))).await {
            Ok(_) => once.kept.extend(failed_spans(&traces)),
            Err(status) => {
                assert!(told(&status).is_some(), "not told when to come back: {status}");
                once.refused += 1;
            }
        }
    }
    once
}

async fn all_of(senders: Vec<JoinHandle<Once>>) -> Once {
    let mut all = Once::default();
    for sender in senders {
        let Once { requests, refused, kept } = sender.await.unwrap();
        (all.requests, all.refused) = (all.requests + requests, all.refused + refused);
        all.kept.extend(kept);
    }
    all
}

/// Finds out how much is taken when there is always more, once memory is full. Returns the pace that is twice as much.
async fn twice_the_sustainable(tailwater: &Tailwater) -> (Pace, Once) {
    let more = Pace::new(MORE_THAN_FITS);
    let senders = senders(tailwater, |sender, n| send_once_at(more.clone(), sender, 1_000 + n));
    eventually("memory is full", WITHIN, async || {
        (refused_for_memory(&tailwater.metrics().await) > 0).then_some(())
    })
    .await;
    let accepted = async || tailwater.metrics().await.sum("tailwater_receiver_accepted_spans_total", &[]);
    let (before, began) = (accepted().await, Instant::now());
    tokio::time::sleep(long(Duration::from_secs(6), Duration::from_secs(20))).await;
    let rate = (accepted().await - before) / began.elapsed().as_secs_f64();
    more.stop();
    eprintln!("{rate:.0} spans a second can be sustained");
    (Pace::new(Duration::from_secs_f64(SENDERS as f64 * 60.0 / (2.0 * rate))), all_of(senders).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn senders_that_come_again_lose_nothing_and_every_trace_is_judged_whole() {
    let mut tailwater = overloaded().await;
    let (pace, before) = twice_the_sustainable(&tailwater).await;
    let senders = senders(&tailwater, |sender, n| deliver_at(pace.clone(), sender, n));
    let end = Instant::now() + overload();
    let mut resident = 0;
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(200)).await;
        resident = resident.max(tailwater.resident());
        assert!(resident < (64 << 20) + BESIDE, "{resident} bytes resident");
    }
    pace.stop();
    let mut sent = Vec::new();
    for sender in senders {
        sent.extend(sender.await.unwrap());
    }
    let ledger = tailwater.judged().await;
    let metrics = tailwater.metrics().await;
    let refused = refused_for_memory(&metrics) - before.refused;
    eprintln!("{} traces, {refused} requests refused, at most {} MiB resident", sent.len(), resident >> 20);
    assert!(refused > 0, "it was no overload");
    assert_eq!(ledger.accepted, 60 * (before.requests - before.refused) + 3 * sent.len() as u64);
    let rootless = metrics.sum("tailwater_sampler_rootless_units_total", &[]);
    assert_eq!(rootless, 0.0, "judged before their root came");
    tailwater.drain().await;
    let kept: HashSet<_> = rows_below(&tailwater.parquet()).iter().map(Row::key).collect();
    let expected: HashSet<_> = before.kept.into_iter().chain(failed_spans(&sent)).collect();
    assert!(expected.len() > 30);
    assert!(kept == expected, "all spans of traces with an error, and nothing else");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_senders_do_not_send_again_is_what_was_refused() {
    let mut tailwater = overloaded().await;
    let (pace, before) = twice_the_sustainable(&tailwater).await;
    let senders = senders(&tailwater, |sender, n| send_once_at(pace.clone(), sender, n));
    tokio::time::sleep(overload()).await;
    pace.stop();
    let once = all_of(senders).await;
    let ledger = tailwater.judged().await;
    eprintln!("{} of {} requests refused", once.refused, once.requests);
    assert!(once.refused > 0, "it was no overload");
    let (requests, refused) = (before.requests + once.requests, before.refused + once.refused);
    assert_eq!(refused_for_memory(&tailwater.metrics().await), refused);
    assert_eq!(ledger.accepted, 60 * (requests - refused), "what is missing was refused");
    tailwater.drain().await;
    let kept: HashSet<_> = rows_below(&tailwater.parquet()).iter().map(Row::key).collect();
    let expected: HashSet<_> = before.kept.into_iter().chain(once.kept).collect();
    assert!(kept == expected, "all spans of acknowledged traces with an error, and nothing else");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_returned_when_the_traffic_ends() {
    let setup = Setup { hindsight: "8s", ..Setup::of(ERRORS) };
    let tailwater = setup.start().await;
    let mut sender = Sender::to(&tailwater);
    let mut random = Random(1);
    let base = tailwater.resident();
    while tailwater.metrics().await.sum("tailwater_buffer_log_bytes", &[]) < 100e6 {
        for _ in 0..10 {
            sender.deliver(&padded(traces(&mut random).iter().flat_map(Trace::build))).await;
        }
    }
    let peak = tailwater.resident();
    assert!(peak > base + (80 << 20), "{base} bytes, then {peak}");
    eprintln!("{} MiB resident before, {} at the peak", base >> 20, peak >> 20);
    eventually("memory is returned", WITHIN, async || {
        (tailwater.resident() < base + (peak - base) / 4).then_some(())
    })
    .await;
    tailwater.assert_ledger().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connections_in_the_middle_of_large_requests_fit_the_budget() {
    let tailwater = Setup { memory: "128MiB", ..Setup::default() }.start().await;
    let connections = long(Duration::from_secs(100), Duration::from_secs(1_000)).as_secs();
    let address = tailwater.http().strip_prefix("http://").unwrap().to_owned();
    let chunk = vec![b' '; 1 << 20];
    let mut sockets = Vec::new();
    for _ in 0..connections {
        let mut socket = TcpStream::connect(&address).await.unwrap();
        let head = "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: 16777216\r\n\r\n";
        socket.write_all(head.as_bytes()).await.unwrap();
        sockets.push(socket);
    }
    for _ in 0..4 {
        for socket in &mut sockets {
            // One that is refused is read no further than it must.
            let _ = tokio::time::timeout(Duration::from_millis(100), socket.write_all(&chunk)).await;
        }
        let in_flight =
            tailwater.metrics().await.sum("tailwater_buffer_memory_bytes", &[("part", "in_flight")]);
        assert!(in_flight <= f64::from(128 << 20), "{in_flight} bytes in flight");
        assert!(tailwater.resident() < (128 << 20) + BESIDE, "{} bytes resident", tailwater.resident());
    }
    drop(sockets);
    let mut random = Random(2);
    Sender::to(&tailwater).deliver(&padded(traces(&mut random).iter().flat_map(Trace::build))).await;
    tailwater.assert_ledger().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_larger_than_memory_takes_its_share_and_is_delivered_whole() {
    let setup = Setup { memory: "64MiB", disk: "16GiB", ..Setup::of(KEEP_ALL) };
    let mut tailwater = setup.start().await;
    let (mut sender, mut random) = (Sender::to(&tailwater), Random(3));
    let spans = long(Duration::from_secs(600_000), Duration::from_secs(10_000_000)).as_secs() as usize;
    let id = random.trace_id().to_vec();
    let few = spans <= 1_000_000;
    let mut keys = HashSet::new();
    for _ in 0..spans / 5_000 {
        let span = |_| Span {
            trace_id: id.clone(),
            span_id: random.span_id().to_vec(),
            parent_span_id: vec![9; 8],
            name: "one of very many, and of the same trace as all others, whose root never comes".into(),
            start_time_unix_nano: 1_750_000_000_000_000_000,
            end_time_unix_nano: 1_750_000_000_000_000_001,
            ..Span::default()
        };
        let batch: Vec<_> = (0..5_000).map(span).map(|span| ("frontend", span)).collect();
        if few {
            keys.extend(batch.iter().map(|(_, span)| key_of(span)));
        }
        sender.deliver(&request_of(batch)).await;
        assert!(
            tailwater.resident() < (64 << 20) + BESIDE_LARGE_PIECES,
            "{} bytes resident",
            tailwater.resident()
        );
    }
    let ledger = tailwater.judged().await;
    assert_eq!((ledger.accepted, ledger.kept), (spans as u64, spans as u64));
    tailwater.drain().await;
    assert_eq!(row_count(&tailwater.parquet()), spans);
    if few {
        let rows: HashSet<_> = rows_below(&tailwater.parquet()).iter().map(Row::key).collect();
        assert!(rows == keys);
    }
}

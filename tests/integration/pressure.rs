//! More than there is room for: the budget holds, senders are told, and nothing that was acknowledged is judged by less
//! than its whole trace. `TAILWATER_LONG=1` makes it a minute, and ten million spans.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use parquet::file::reader::{FileReader, SerializedFileReader};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::support::{
    BESIDE, Metrics, Random, Row, Sender, Setup, SpanKey, Tailwater, Trace, WITHIN, eventually, files_below,
    key_of, long, request_of, rows_below, text, told,
};

/// Everything, by one policy or the other.
const KEEP_BY_TWO: &str = r#"
  - { name: errors, match: "{ status = error }", keep: 100% }
  - { name: all, keep: 100% }
"#;
/// Errors alone: then what is kept is known.
const ERRORS: &str = r#"
  - { name: errors, match: "{ status = error }", keep: 100% }
  - { name: rest, keep: 0% }
"#;
/// [`BESIDE`] where traces of hundreds of thousands of spans are kept.
const BESIDE_GIANTS: u64 = 300 << 20;

/// What may be resident with this `buffer.memory`.
const fn resident_max(budget: u64, beside: u64) -> u64 {
    budget * 115 / 100 + beside
}

/// Spans of a request in the tests with very many.
const REQUEST_SPANS: usize = 5_000;
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
        assert!(resident < resident_max(64 << 20, BESIDE), "{resident} bytes resident");
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
    let setup = Setup { memory: "512MiB", hindsight: "8s", ..Setup::of(ERRORS) };
    let tailwater = setup.start().await;
    let mut sender = Sender::to(&tailwater);
    let mut random = Random(1);
    let base = tailwater.resident();
    // So much that what an allocator keeps for itself, whatever the load, is little beside it.
    while tailwater.metrics().await.sum("tailwater_buffer_log_bytes", &[]) < 300e6 {
        for _ in 0..10 {
            sender.deliver(&padded(traces(&mut random).iter().flat_map(Trace::build))).await;
        }
    }
    let peak = tailwater.resident();
    assert!(peak > base + (240 << 20), "{base} bytes, then {peak}");
    eprintln!("{} MiB resident before, {} at the peak", base >> 20, peak >> 20);
    eventually("the log has shrunk", WITHIN, async || {
        (tailwater.metrics().await.sum("tailwater_buffer_log_bytes", &[]) < 10e6).then_some(())
    })
    .await;
    let left = eventually("memory is returned", WITHIN, async || {
        Some(tailwater.resident()).filter(|left| *left < base + (peak - base) / 4)
    })
    .await;
    eprintln!("{} MiB in the end", left >> 20);
    tailwater.assert_ledger().await;
}

/// So much of a request of 16 MiB is sent.
const BEGINNING: u64 = 1 << 18;

/// Begins a large request. One that is refused is read on all the same, and answered at its end.
async fn begin_large(address: String) -> TcpStream {
    let head = "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: 16777216\r\n\r\n";
    let mut socket = TcpStream::connect(&address).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(&[b' '; BEGINNING as usize]).await.unwrap();
    socket
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connections_in_the_middle_of_large_requests_fit_the_budget() {
    const CONNECTIONS: u64 = 1_000;
    let tailwater = Setup { memory: "128MiB", ..Setup::default() }.start().await;
    let in_flight = async || {
        let metrics = tailwater.metrics().await;
        let bytes = metrics.sum("tailwater_buffer_memory_bytes", &[("part", "in_flight")]) as u64;
        (bytes, refused_for_memory(&metrics))
    };
    let address = tailwater.http().strip_prefix("http://").unwrap().to_owned();
    let begun: Vec<_> = (0..CONNECTIONS).map(|_| tokio::spawn(begin_large(address.clone()))).collect();
    let mut sockets = Vec::new();
    for connection in begun {
        sockets.push(connection.await.unwrap());
    }
    let (taken, refused) = eventually("each is taken or refused", Duration::from_secs(60), async || {
        let (bytes, refused) = in_flight().await;
        Some((bytes / BEGINNING, refused)).filter(|(taken, refused)| taken + refused == CONNECTIONS)
    })
    .await;
    let peak = tailwater.peak_resident();
    eprintln!("{taken} requests taken, {refused} refused, {} MiB resident at most", peak >> 20);
    assert!((400..=512).contains(&taken), "what fits is taken, and no more: {taken} requests");
    assert!(peak < resident_max(128 << 20, BESIDE), "{peak} bytes resident");
    drop(sockets);
    eventually("room is given back", Duration::from_secs(10), async || {
        (in_flight().await.0 == 0).then_some(())
    })
    .await;
    let mut random = Random(2);
    Sender::to(&tailwater).deliver(&padded(traces(&mut random).iter().flat_map(Trace::build))).await;
    tailwater.assert_ledger().await;
}

/// One trace of very many small spans below a span that may come or not; one in a hundred failed.
struct Giant {
    trace: Vec<u8>,
    random: Random,
    /// Of what was sent, unless that is too much.
    keys: Option<HashSet<SpanKey>>,
}

impl Giant {
    const PARENT: [u8; 8] = [9; 8];

    fn span(&mut self, n: usize) -> Span {
        Span {
            trace_id: self.trace.clone(),
            span_id: self.random.span_id().to_vec(),
            parent_span_id: Self::PARENT.to_vec(),
            name: "one of very many, and of the same trace as all others".into(),
            start_time_unix_nano: 1_750_000_000_000_000_000,
            end_time_unix_nano: 1_750_000_000_000_000_001,
            status: n.is_multiple_of(100).then(|| Status { code: 2, ..Status::default() }),
            ..Span::default()
        }
    }

    fn root(&mut self) -> Span {
        Span { span_id: Self::PARENT.to_vec(), parent_span_id: Vec::new(), ..self.span(1) }
    }

    async fn deliver(&mut self, tailwater: &Tailwater, spans: Vec<Span>) {
        if let Some(keys) = &mut self.keys {
            keys.extend(spans.iter().map(key_of));
        }
        // One of its own: a sender remembers all that it has sent.
        Sender::to(tailwater).deliver(&request_of(spans.into_iter().map(|span| ("frontend", span)))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_larger_than_memory_takes_its_share_and_is_delivered_whole() {
    let setup = Setup { memory: "64MiB", disk: "16GiB", ..Setup::of(KEEP_BY_TWO) };
    let mut tailwater = setup.start().await;
    let spans = long(Duration::from_secs(600_000), Duration::from_secs(10_000_000)).as_secs() as usize;
    let mut random = Random(3);
    let keys = (spans <= 1_000_000).then(HashSet::new);
    let mut giant = Giant { trace: random.trace_id().to_vec(), random, keys };
    let mut processor = Vec::new();
    // Three times without a root, judged by units; then the root comes, and the rest follows it.
    for quarter in 0..4 {
        let before = tailwater.processor();
        if quarter == 3 {
            let root = giant.root();
            giant.deliver(&tailwater, vec![root]).await;
        }
        for _ in 0..spans / 4 / REQUEST_SPANS {
            let request = (0..REQUEST_SPANS).map(|n| giant.span(n)).collect();
            giant.deliver(&tailwater, request).await;
        }
        tailwater.judged().await;
        processor.push((tailwater.processor() - before).as_secs_f64());
    }
    let peak = tailwater.peak_resident();
    eprintln!("{} MiB resident at most, seconds of processor time: {processor:.1?}", peak >> 20);
    assert!(peak < resident_max(64 << 20, BESIDE_GIANTS), "{peak} bytes resident");
    assert!(processor[2] < 2.5 * processor[0], "a span costs more, the more came before it: {processor:?}");
    let ledger = tailwater.judged().await;
    assert_eq!((ledger.accepted, ledger.kept), (spans as u64 + 1, spans as u64 + 1));
    tailwater.drain().await;
    assert_eq!(row_count(&tailwater.parquet()), spans + 1);
    if let Some(keys) = giant.keys {
        let rows: HashSet<_> = rows_below(&tailwater.parquet()).iter().map(Row::key).collect();
        assert!(rows == keys);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn very_many_traces_of_one_span_fit_the_budget() {
    let setup = Setup { policies: ERRORS.to_owned(), memory: "64MiB", disk: "16GiB", ..Setup::default() };
    let mut tailwater = setup.start().await;
    let traces = long(Duration::from_secs(300_000), Duration::from_secs(10_000_000)).as_secs() as usize;
    let mut giant = Giant { trace: Vec::new(), random: Random(4), keys: None };
    for _ in 0..traces / REQUEST_SPANS {
        let mut span = |n| Span {
            trace_id: giant.random.trace_id().to_vec(),
            parent_span_id: Vec::new(),
            name: "GET /".to_owned(),
            ..giant.span(n)
        };
        let request = (0..REQUEST_SPANS).map(&mut span).collect();
        giant.deliver(&tailwater, request).await;
    }
    let ledger = tailwater.judged().await;
    let peak = tailwater.peak_resident();
    eprintln!("{} MiB resident at most", peak >> 20);
    assert!(peak < resident_max(64 << 20, BESIDE), "{peak} bytes resident");
    let (all, failed) = (traces as u64, traces as u64 / 100);
    assert_eq!((ledger.accepted, ledger.kept, ledger.dropped), (all, failed, all - failed));
    assert_eq!(tailwater.metrics().await.sum("tailwater_sampler_rootless_units_total", &[]), 0.0);
    tailwater.drain().await;
    assert_eq!(row_count(&tailwater.parquet()), traces / 100);
}

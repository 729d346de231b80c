//! Sends requests as fast as they are acknowledged, or at a pace; prints what it saw as one line of JSON.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tonic::Code;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};

use super::raw::Raw;
use super::workload;

const CONNECTIONS: u64 = 4;
const IN_FLIGHT: u64 = 4;

/// What is in the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Realistic spans, eight a trace.
    Shop,
    /// Small spans, each a trace of its own.
    OneSpanTraces,
}

/// How much is sent, and how fast.
#[derive(Clone, Debug)]
pub struct Load {
    pub traffic: Traffic,
    pub spans_per_request: usize,
    /// 0: a closed loop.
    pub spans_per_second: u64,
    pub time: Duration,
    pub spans_max: u64,
}

impl Load {
    /// As arguments of a command line.
    pub fn write(&self) -> Vec<String> {
        let traffic = if self.traffic == Traffic::Shop { "shop" } else { "one-span-traces" };
        let numbers = [
            self.spans_per_request as u64,
            self.spans_per_second,
            self.time.as_millis() as u64,
            self.spans_max,
        ];
        [traffic.to_owned()].into_iter().chain(numbers.map(|number| number.to_string())).collect()
    }

    pub fn read(arguments: &[String]) -> Self {
        let number = |at: usize| arguments[at].parse::<u64>().unwrap();
        Self {
            traffic: if arguments[0] == "shop" { Traffic::Shop } else { Traffic::OneSpanTraces },
            spans_per_request: number(1) as usize,
            spans_per_second: number(2),
            time: Duration::from_millis(number(3)),
            spans_max: number(4),
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sent {
    pub spans: u64,
    pub bytes: u64,
    pub refused: u64,
    pub seconds: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    bytes: AtomicU64,
    refused: AtomicU64,
    acknowledged: Mutex<Vec<Duration>>,
}

pub fn run(address: &str, load: &Load) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    println!("{}", serde_json::to_string(&runtime.block_on(send(address, load))).unwrap());
}

async fn send(address: &str, load: &Load) -> Sent {
    let counts = Arc::new(Counts::default());
    let mut lanes = Vec::new();
    let mut connections = Vec::new();
    for connection in 0..CONNECTIONS {
        // Different traces in every run, so that a warm-up sends none of the run's.
        let seed = u64::from(std::process::id()) << 8 | connection;
        let source = Arc::new(Mutex::new(Source::new(load, seed)));
        source.lock().unwrap().prepare();
        let endpoint = Endpoint::from_shared(address.to_owned()).unwrap().tcp_nodelay(true);
        connections.push((source, endpoint.connect().await.unwrap()));
    }
    let start = Instant::now();
    for (source, channel) in connections {
        for _ in 0..IN_FLIGHT {
            lanes.push(tokio::spawn(lane(
                channel.clone(),
                source.clone(),
                load.clone(),
                start,
                counts.clone(),
            )));
        }
    }
    for lane in lanes {
        lane.await.unwrap();
    }
    let mut times = std::mem::take(&mut *counts.acknowledged.lock().unwrap());
    times.sort_unstable();
    let quantile =
        |q: f64| times.get((times.len() as f64 * q) as usize).map_or(0.0, |t| t.as_secs_f64() * 1e3);
    Sent {
        spans: times.len() as u64 * load.spans_per_request as u64,
        bytes: counts.bytes.load(Ordering::Relaxed),
        refused: counts.refused.load(Ordering::Relaxed),
        seconds: start.elapsed().as_secs_f64(),
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
    }
}

/// One request at a time until the time is over.
async fn lane(channel: Channel, source: Arc<Mutex<Source>>, load: Load, start: Instant, counts: Arc<Counts>) {
    let path = PathAndQuery::from_static("/opentelemetry.proto.collector.trace.v1.TraceService/Export");
    let mut client = Grpc::new(channel);
    loop {
        let number = counts.requests.fetch_add(1, Ordering::Relaxed);
        let spans = number * load.spans_per_request as u64;
        if spans >= load.spans_max {
            return;
        }
        if load.spans_per_second > 0 {
            let due = Duration::from_secs_f64(spans as f64 / load.spans_per_second as f64);
            tokio::time::sleep_until(start + due).await;
        }
        if start.elapsed() >= load.time {
            return;
        }
        let body = Bytes::from(source.lock().unwrap().next());
        let length = body.len() as u64;
        let sent = Instant::now();
        client.ready().await.unwrap();
        match client.unary(tonic::Request::new(body), path.clone(), Raw).await {
            Ok(_) => {
                counts.acknowledged.lock().unwrap().push(sent.elapsed());
                counts.bytes.fetch_add(length, Ordering::Relaxed);
            }
            Err(status) if status.code() == Code::Unavailable => {
                counts.refused.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(status) => panic!("refused for good: {status}"),
        }
    }
}

/// Where requests come from.
enum Source {
    Shop { generator: workload::Generator, spans: usize },
    OneSpanTraces { template: Vec<u8>, trace_ids: Vec<usize>, turn: u64 },
}

impl Source {
    fn new(load: &Load, seed: u64) -> Self {
        match load.traffic {
            Traffic::Shop => {
                Self::Shop { generator: workload::Generator::new(seed), spans: load.spans_per_request }
            }
            Traffic::OneSpanTraces => one_span_traces(load.spans_per_request, seed),
        }
    }

    /// Builds the templates, so that no request of the run costs more than a copy.
    fn prepare(&mut self) {
        if let Self::Shop { generator, spans } = self {
            for _ in 0..64 * 512_usize.div_ceil(*spans) {
                generator.request(*spans);
            }
        }
    }

    fn next(&mut self) -> Vec<u8> {
        match self {
            Self::Shop { generator, spans } => generator.request(*spans),
            Self::OneSpanTraces { template, trace_ids, turn } => {
                *turn = turn.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut body = template.clone();
                for &at in &*trace_ids {
                    for (byte, mask) in body[at + 8..at + 16].iter_mut().zip(turn.to_le_bytes()) {
                        *byte ^= mask;
                    }
                }
                body
            }
        }
    }
}

/// Spans of about 100 bytes. Their trace IDs stand in the template in the order of the spans.
fn one_span_traces(spans: usize, seed: u64) -> Source {
    let mut random = seed;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        random ^ random >> 29
    };
    let span = |id: u128, n: usize| Span {
        trace_id: id.to_be_bytes().to_vec(),
        span_id: (id as u64 | 1).to_be_bytes().to_vec(),
        name: "GET /healthz".to_owned(),
        kind: 2,
        start_time_unix_nano: 1_750_000_000_000_000_000 + n as u64,
        end_time_unix_nano: 1_750_000_000_001_000_000 + 2 * n as u64,
        ..Span::default()
    };
    let ids: Vec<u128> = (0..spans).map(|_| u128::from(next()) << 64 | u128::from(next())).collect();
    let spans = ids.iter().enumerate().map(|(n, id)| span(*id, n)).collect();
    let resource_spans = ResourceSpans {
        resource: Some(Resource::default()),
        scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    };
    let template = ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec();
    let mut from = 0;
    let mut place = |id: &u128| {
        let found = template[from..].windows(16).position(|window| window == id.to_be_bytes()).unwrap();
        from += found + 16;
        from - 16
    };
    let trace_ids = ids.iter().map(&mut place).collect();
    Source::OneSpanTraces { template, trace_ids, turn: seed }
}

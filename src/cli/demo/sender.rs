//! Sends the shop's traffic as its services' SDKs would: one OTLP/gRPC request for each service.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use tokio::time::{Instant, sleep};
use tonic::Code;
use tonic::transport::Channel;

use super::traffic::{Batch, Shop, resource_spans};

/// Spans in one request at most, as SDKs have it.
const REQUEST_SPANS: usize = 512;
/// A refused request is sent again so often.
const ATTEMPTS: u32 = 50;

#[derive(Debug)]
pub(super) struct Sender {
    client: TraceServiceClient<Channel>,
    shop: Shop,
    spans_per_second: u64,
    started: Instant,
    sent: u64,
}

impl Sender {
    pub(super) async fn connect(target: String, spans_per_second: u64) -> anyhow::Result<Self> {
        let client =
            TraceServiceClient::connect(target).await.context("connect to the demo's own receiver")?;
        let shop = Shop::new(rand::random());
        Ok(Self { client, shop, spans_per_second, started: Instant::now(), sent: 0 })
    }

    /// Spans sent and accepted.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Sends what the rate owes by now.
    pub(super) async fn send_due(&mut self) -> anyhow::Result<()> {
        let due = (self.started.elapsed().as_secs_f64() * self.spans_per_second as f64) as u64;
        let mut batch = Batch::new();
        let spans = self.shop.spans(due.saturating_sub(self.sent), unix_now(), &mut batch);
        self.send(batch).await?;
        self.sent += spans;
        Ok(())
    }

    /// Ends what is open.
    pub(super) async fn finish(&mut self) -> anyhow::Result<()> {
        let mut batch = Batch::new();
        let spans = self.shop.close(unix_now(), &mut batch);
        self.send(batch).await?;
        self.sent += spans;
        Ok(())
    }

    async fn send(&mut self, batch: Batch) -> anyhow::Result<()> {
        for (service, spans) in batch {
            for part in spans.chunks(REQUEST_SPANS) {
                let resource_spans = vec![resource_spans(service, part.to_vec())];
                self.export(ExportTraceServiceRequest { resource_spans }).await?;
            }
        }
        Ok(())
    }

    /// As the specification asks of exporters: what is unavailable is tried again.
    async fn export(&mut self, request: ExportTraceServiceRequest) -> anyhow::Result<()> {
        for _ in 1..ATTEMPTS {
            match self.client.export(request.clone()).await {
                Err(status) if status.code() == Code::Unavailable => sleep(Duration::from_millis(100)).await,
                answer => return answer.map(drop).context("send the demo's spans"),
            }
        }
        self.client.export(request).await.map(drop).context("send the demo's spans")
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

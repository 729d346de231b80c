//! A sender that counts what it was promised.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest,
};
use prost::Message;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::tailwater::Addresses;
use super::{SpanKey, Tailwater, keys_of};

/// Of a sender that comes again, however slow the machine is.
const PATIENCE: Duration = Duration::from_secs(300);

/// After that the sender comes again.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// The generated client, which follows a process from life to life.
#[derive(Debug)]
pub struct Sender {
    to: Arc<Mutex<Addresses>>,
    client: Option<(String, TraceServiceClient<Channel>)>,
    tenant: Option<(String, String)>,
    /// How often each span was handed to the process, acknowledged or not.
    pub attempts: HashMap<SpanKey, usize>,
    /// Spans of requests that were acknowledged whole.
    pub acknowledged: HashSet<SpanKey>,
}

impl Sender {
    pub fn to(tailwater: &Tailwater) -> Self {
        Self {
            to: tailwater.shared_addresses(),
            client: None,
            tenant: None,
            attempts: HashMap::new(),
            acknowledged: HashSet::new(),
        }
    }

    /// Every request carries this header.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.tenant = Some((name.to_owned(), value.to_owned()));
        self
    }

    /// One attempt.
    pub async fn send(
        &mut self,
        request: &ExportTraceServiceRequest,
    ) -> Result<ExportTracePartialSuccess, Status> {
        let keys: Vec<SpanKey> = keys_of(request).collect();
        let mut client = self.connect().await?;
        for key in &keys {
            *self.attempts.entry(*key).or_default() += 1;
        }
        let mut outgoing = tonic::Request::new(request.clone());
        outgoing.set_timeout(ANSWER_WITHIN);
        if let Some((name, value)) = &self.tenant {
            let name: tonic::metadata::AsciiMetadataKey = name.parse().unwrap();
            outgoing.metadata_mut().insert(name, value.parse().unwrap());
        }
        let answer = client.export(outgoing).await.inspect_err(|_| self.client = None)?;
        let partial = answer.into_inner().partial_success.unwrap_or_default();
        if partial.rejected_spans == 0 {
            self.acknowledged.extend(keys);
        }
        Ok(partial)
    }

    /// Sends until it is acknowledged, as an SDK does: again what may be sent again. More patient than an SDK.
    pub async fn deliver(&mut self, request: &ExportTraceServiceRequest) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(status) = self.send(request).await {
            assert!(retryable(status.code()), "refused for good: {status}");
            assert!(Instant::now() < deadline, "not acknowledged within {PATIENCE:?}: {status}");
            tokio::time::sleep(told(&status).unwrap_or(Duration::from_millis(100))).await;
        }
    }

    async fn connect(&mut self) -> Result<TraceServiceClient<Channel>, Status> {
        let address = self.to.lock().unwrap().grpc.clone();
        if let Some((known, client)) = &self.client
            && *known == address
        {
            return Ok(client.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let channel = endpoint.connect().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let client = TraceServiceClient::new(channel);
        self.client = Some((address, client.clone()));
        Ok(client)
    }
}

/// When to come back, if the answer says so: `google.rpc.RetryInfo` in the details of `google.rpc.Status`.
pub fn told(status: &Status) -> Option<Duration> {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Details {
        #[prost(message, repeated, tag = "3")]
        details: Vec<Detail>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Detail {
        #[prost(string, tag = "1")]
        type_url: String,
        #[prost(message, optional, tag = "2")]
        retry: Option<RetryInfo>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct RetryInfo {
        #[prost(message, optional, tag = "1")]
        delay: Option<Delay>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Delay {
        #[prost(int64, tag = "1")]
        seconds: i64,
        #[prost(int32, tag = "2")]
        nanos: i32,
    }
    let details = Details::decode(status.details()).ok()?.details;
    let retry = details.into_iter().find(|detail| detail.type_url.ends_with("google.rpc.RetryInfo"))?;
    let delay = retry.retry?.delay?;
    Some(Duration::new(delay.seconds.try_into().ok()?, delay.nanos.try_into().ok()?))
}

/// OTLP's list of codes that a client may try again; a broken connection shows as `Unknown` or `Internal` here.
fn retryable(code: Code) -> bool {
    use Code::{Aborted, Cancelled, DataLoss, DeadlineExceeded, Internal, OutOfRange, Unavailable, Unknown};
    matches!(
        code,
        Cancelled | DeadlineExceeded | Aborted | OutOfRange | Unavailable | DataLoss | Unknown | Internal
    )
}

//! A backend that is down, refuses, is slow or rejects delays nothing but itself and loses nothing in silence.

use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::Status;
use tonic::Code;

use super::support::{
    Backend, Fault, KEEP_ALL, Metrics, Random, Sender, Setup, Tailwater, Trace, WITHIN, eventually, long,
    request, rows_below,
};

async fn forwarding_to(backend: &Backend) -> Tailwater {
    Setup::of(KEEP_ALL).forwarding(backend).start().await
}

/// Delivers requests of twenty traces, fifty a second but a hundred at least, spread over this time; returns the
/// number of spans.
async fn load(sender: &mut Sender, random: &mut Random, over: Duration) -> usize {
    let requests = 100.max(over.as_secs() as u32 * 50);
    let mut spans = 0;
    for _ in 0..requests {
        let traces = Trace::some(20, random);
        spans += 60;
        sender.deliver(&request(&traces)).await;
        tokio::time::sleep(over / requests).await;
    }
    spans
}

/// kept = delivered + pending + lost, of one exporter of a process that began with an empty outbox.
fn assert_exporter_balances(metrics: &Metrics, kept: u64) {
    let of = |name| metrics.sum(name, &[("exporter", "backend")]) as u64;
    let (delivered, pending, lost) = (
        of("tailwater_exporter_delivered_spans_total"),
        of("tailwater_exporter_pending_spans"),
        of("tailwater_exporter_lost_spans_total"),
    );
    assert_eq!(
        kept,
        delivered + pending + lost,
        "kept = delivered {delivered} + pending {pending} + lost {lost}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_was_down_gets_everything_once_it_is_back() {
    let mut backend = Backend::start().await;
    let tailwater = forwarding_to(&backend).await;
    let (mut sender, mut random) = (Sender::to(&tailwater), Random(1));
    let mut sent = load(&mut sender, &mut random, Duration::from_secs(1)).await;
    backend.down().await;
    sent += load(&mut sender, &mut random, long(Duration::from_secs(8), Duration::from_secs(60))).await;
    tailwater.assert_in_bounds();
    backend.up().await;
    sent += load(&mut sender, &mut random, Duration::from_secs(1)).await;
    backend.has(sent).await;
    let ledger = tailwater.judged().await;
    assert_eq!((ledger.accepted, ledger.kept), (sent as u64, sent as u64));
    assert_exporter_balances(&tailwater.metrics().await, ledger.kept);
}

/// Sends traces of half a megabyte until one is refused; returns the number of spans that were taken.
async fn fill(sender: &mut Sender, random: &mut Random) -> usize {
    let mut spans = 0;
    loop {
        let mut heavy = request(&[Trace::new(random)]);
        heavy.resource_spans[0].scope_spans[0].spans[0].status =
            Some(Status { message: "x".repeat(500_000), ..Status::default() });
        match sender.send(&heavy).await {
            Ok(_) => spans += 3,
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status}");
                return spans;
            }
        }
    }
}

/// Whether the room is taken by requests or by what waits for the backend: the budget holds, and neither waits for
/// the other when the backend is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_senders_until_the_backend_is_back() {
    let mut backend = Backend::start().await;
    let setup = Setup { disk: "64MiB", ..Setup::of(KEEP_ALL) };
    let mut tailwater = setup.forwarding(&backend).start().await;
    let (mut sender, mut random) = (Sender::to(&tailwater), Random(5));
    backend.down().await;
    let mut sent = fill(&mut sender, &mut random).await;
    assert!(sent > 0);
    tokio::time::sleep(Duration::from_secs(5)).await; // until due: verdicts take the rest of the room
    sent += fill(&mut sender, &mut random).await;
    let disk = tailwater.data_bytes();
    assert!(disk < 70 << 20, "{disk} bytes on disk");
    tailwater.kill();
    tailwater.start().await;
    backend.up().await;
    backend.has(sent).await;
    eventually("senders are taken again", WITHIN, async || {
        sender.send(&request(&[Trace::new(&mut random)])).await.ok()
    })
    .await;
    backend.has(sent + 3).await;
    let ledger = tailwater.judged().await;
    assert_eq!(ledger.accepted, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_unavailable_for_a_while_gets_everything() {
    let backend = Backend::start().await;
    backend.fault(Fault::Answers(Code::Unavailable));
    let tailwater = forwarding_to(&backend).await;
    let mut sender = Sender::to(&tailwater);
    let sent = load(&mut sender, &mut Random(2), Duration::from_secs(3)).await;
    eventually("it is asked again and again", WITHIN, async || (backend.requests() > 3).then_some(())).await;
    backend.fault(Fault::None);
    backend.has(sent).await;
    let ledger = tailwater.judged().await;
    assert_exporter_balances(&tailwater.metrics().await, ledger.kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_does_not_answer_holds_up_no_sender() {
    let backend = Backend::start().await;
    backend.fault(Fault::Slow(Duration::from_secs(3_600)));
    let tailwater = forwarding_to(&backend).await;
    let mut sender = Sender::to(&tailwater);
    let sent = load(&mut sender, &mut Random(3), Duration::from_secs(2)).await;
    let asked = async || (backend.requests() > 0).then_some(());
    eventually("the backend is asked", WITHIN, asked).await;
    let delivered =
        tailwater.metrics().await.sum("tailwater_exporter_delivered_spans_total", &[("exporter", "backend")]);
    assert_eq!((sender.acknowledged.len(), delivered), (sent, 0.0));
    backend.fault(Fault::None);
    backend.has(sent).await;
    let ledger = tailwater.judged().await;
    assert_exporter_balances(&tailwater.metrics().await, ledger.kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_backend_refuses_for_good_is_counted_lost_and_the_rest_goes_on() {
    let backend = Backend::start().await;
    backend.fault(Fault::Answers(Code::InvalidArgument));
    let tailwater = forwarding_to(&backend).await;
    let (mut sender, mut random) = (Sender::to(&tailwater), Random(4));
    let refused = load(&mut sender, &mut random, Duration::from_secs(1)).await;
    let lost = async || {
        let labels = [("exporter", "backend"), ("cause", "rejected")];
        tailwater.metrics().await.sum("tailwater_exporter_lost_spans_total", &labels) as usize
    };
    eventually("all of it is counted", WITHIN, async || (lost().await == refused).then_some(())).await;
    backend.fault(Fault::None);
    let sent = load(&mut sender, &mut random, Duration::from_secs(1)).await;
    backend.has(sent).await;
    assert_eq!(lost().await, refused);
    let ledger = tailwater.judged().await;
    assert_eq!(ledger.kept as usize, refused + sent);
    assert_exporter_balances(&tailwater.metrics().await, ledger.kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_success_is_counted_and_never_sent_again() {
    let backend = Backend::start().await;
    backend.fault(Fault::Rejects(1));
    let tailwater = forwarding_to(&backend).await;
    let mut sender = Sender::to(&tailwater);
    let sent = load(&mut sender, &mut Random(5), Duration::from_secs(1)).await;
    backend.has(sent).await;
    tailwater.judged().await;
    assert!(backend.counts().values().all(|&times| times == 1), "sent again");
    let lost =
        tailwater.metrics().await.sum("tailwater_exporter_lost_spans_total", &[("exporter", "backend")]);
    assert_eq!(lost as usize, backend.requests(), "one span of each request");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_backend_delays_only_itself() {
    let backend = Backend::start().await;
    let mut dead = Backend::start().await;
    dead.down().await;
    let setup = Setup::of(KEEP_ALL)
        .forwarding(&backend)
        .forward_to("dead", &format!("endpoint: \"{}\"", dead.grpc()));
    let tailwater = setup.start().await;
    let mut sender = Sender::to(&tailwater);
    let sent = load(&mut sender, &mut Random(6), Duration::from_secs(1)).await;
    backend.has(sent).await;
    assert_eq!(dead.distinct(), 0);
    dead.up().await;
    dead.has(sent).await;
    tailwater.judged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_over_http_gets_the_same() {
    let backend = Backend::start().await;
    let keys = format!("endpoint: \"{}\", protocol: http", backend.http());
    let setup = Setup::of(KEEP_ALL);
    let tailwater = setup.forward_to("backend", &keys).start().await;
    let mut sender = Sender::to(&tailwater);
    let sent = load(&mut sender, &mut Random(7), Duration::from_secs(1)).await;
    backend.has(sent).await;
    let ledger = tailwater.judged().await;
    assert_exporter_balances(&tailwater.metrics().await, ledger.kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_waits_for_its_backend_can_be_watched() {
    let mut backend = Backend::start().await;
    backend.down().await;
    let setup = Setup { policies: KEEP_ALL.to_owned(), on_shutdown: "drain", ..Setup::default() };
    let keys = format!("endpoint: \"{}\"", backend.grpc());
    let tailwater = setup.forward_to("backend", &keys).start().await;
    let mut random = Random(9);
    let traces: Vec<_> = (0..10).map(|_| Trace::new(&mut random)).collect();
    Sender::to(&tailwater).deliver(&request(&traces)).await;
    tailwater.signal("TERM");
    // Sent twice by who signals a process and its group.
    tailwater.signal("TERM");
    eventually("it waits for the backend", WITHIN, async || {
        let pending =
            tailwater.metrics().await.sum("tailwater_exporter_pending_spans", &[("exporter", "backend")]);
        (pending > 0.0).then_some(())
    })
    .await;
    assert_eq!(tailwater.readiness().await, (503, "shutting down\n".to_owned()));
    backend.up().await;
    backend.has(30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_and_the_tenant_reach_the_backend() {
    let backend = Backend::start().await;
    let keys = "headers: { Authorization: Bearer t0ken }, tenant_header: X-Scope-OrgID";
    let setup = Setup { tenant_header: Some("X-Scope-OrgID"), ..Setup::of(KEEP_ALL) };
    let setup = setup.forward_to("backend", &format!("endpoint: \"{}\", {keys}", backend.grpc()));
    let mut tailwater = setup.start().await;
    let mut random = Random(8);
    for tenant in ["shop", "bank"] {
        let traces = Trace::some(10, &mut random);
        Sender::to(&tailwater).with_header("x-scope-orgid", tenant).deliver(&request(&traces)).await;
    }
    backend.has(60).await;
    let headers = backend.headers();
    assert!(headers.iter().all(|headers| headers["authorization"] == "Bearer t0ken"));
    let mut tenants: Vec<_> = headers.iter().map(|headers| headers["x-scope-orgid"].as_str()).collect();
    tenants.sort_unstable();
    tenants.dedup();
    assert_eq!(tenants, ["bank", "shop"]);
    tailwater.judged().await;
    tailwater.drain().await;
    for tenant in tenants {
        let rows = rows_below(&tailwater.parquet().join(format!("tenant={tenant}")));
        assert_eq!(rows.len(), 30, "{tenant}");
    }
}

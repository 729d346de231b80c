//! RED metrics of all traffic, through the process: what was sent is what is counted, whatever is kept of it.

use std::collections::HashSet;

use super::support::{
    Metrics, Random, Sender, Setup, Tailwater, Trace, WITHIN, eventually, http_client, request, to_hex,
};

const ERRORS_ALONE: &str = r#"
  - { name: errors, match: "{ status = error }", keep: 100% }
  - { name: nothing, keep: 0% }
"#;

fn setup(red: &'static str) -> Setup {
    Setup { red, ..Setup::of(ERRORS_ALONE) }
}

async fn send(tailwater: &Tailwater, traces: &[Trace]) {
    Sender::to(tailwater).deliver(&request(traces)).await;
}

fn series<'a>(service: &'a str, span: &'a str, kind: &'a str) -> [(&'a str, &'a str); 3] {
    [("service", service), ("span", span), ("kind", kind)]
}

fn calls(metrics: &Metrics, service: &str, span: &str, kind: &str) -> f64 {
    metrics.sum("tailwater_red_calls_total", &series(service, span, kind))
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_sent_is_counted_although_most_of_it_is_dropped() {
    let tailwater = setup("{ enabled: true }").start().await;
    let mut random = Random(41);
    let traces: Vec<_> = (0..300)
        .map(|n| (n, Trace::new(&mut random)))
        .map(|(n, trace)| if n % 10 == 0 { trace.failed() } else { trace })
        .collect();
    for some in traces.chunks(70) {
        send(&tailwater, some).await;
    }
    let ledger = tailwater.judged().await;
    assert_eq!((ledger.kept, ledger.dropped), (90, 810));
    let metrics = tailwater.metrics().await;
    assert_eq!(calls(&metrics, "frontend", "GET /cart", "server"), 300.0);
    assert_eq!(calls(&metrics, "backend", "step 1", "client"), 300.0);
    assert_eq!(calls(&metrics, "frontend", "step 2", "client"), 300.0);
    assert_eq!(metrics.sum("tailwater_red_calls_total", &[]), 900.0);
    let errors =
        |service, span, kind| metrics.sum("tailwater_red_errors_total", &series(service, span, kind));
    assert_eq!(
        (errors("backend", "step 1", "client"), errors("frontend", "GET /cart", "server")),
        (30.0, 0.0)
    );
    let root = series("frontend", "GET /cart", "server");
    assert_eq!(metrics.sum("tailwater_red_duration_seconds_count", &root), 300.0);
    let sum = metrics.sum("tailwater_red_duration_seconds_sum", &root);
    assert!((sum - 3.0).abs() < 1e-6, "each took 10 ms: {sum}");
    // 10 ms lie between 2^-7 and 2^-6 seconds.
    let below = |le: &str| {
        let [service, span, kind] = root;
        metrics.sum("tailwater_red_duration_seconds_bucket", &[service, span, kind, ("le", le)])
    };
    assert_eq!((below("0.0078125"), below("0.015625"), below("+Inf")), (0.0, 300.0, 300.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_series_of_its_own_is_counted_as_other() {
    let tailwater = setup("{ enabled: true, max_series: 5 }").start().await;
    let mut random = Random(42);
    let traces: Vec<_> = (0..200).map(|n| Trace::new(&mut random).named(&format!("GET /item/{n}"))).collect();
    send(&tailwater, &traces).await;
    let metrics = tailwater.metrics().await;
    assert_eq!(metrics.sum("tailwater_red_series", &[]), 5.0);
    assert_eq!(metrics.sum("tailwater_red_calls_total", &[]), 600.0);
    let other =
        calls(&metrics, "(other)", "(other)", "server") + calls(&metrics, "(other)", "(other)", "client");
    assert!((195.0..=595.0).contains(&other), "{other}");
}

/// Trace IDs that the scrape names.
async fn exemplars(tailwater: &Tailwater) -> HashSet<String> {
    let url = format!("{}/metrics", tailwater.telemetry());
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
    let answer = http_client().get(url).header("accept", accept).send().await.unwrap();
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    let text = answer.text().await.unwrap();
    assert!(text.ends_with("# EOF\n"));
    let named = text.lines().filter_map(|line| line.split_once("# {trace_id=\"")?.1.split('"').next());
    named.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn exemplars_name_kept_traces_alone() {
    let tailwater = setup("{ enabled: true }").start().await;
    let mut random = Random(43);
    let failed: Vec<_> = (0..20).map(|_| Trace::new(&mut random).failed()).collect();
    let dropped = Trace::some(200, &mut random);
    send(&tailwater, &failed).await;
    send(&tailwater, &dropped).await;
    tailwater.judged().await;
    let named = eventually("there are exemplars", WITHIN, async || {
        Some(exemplars(&tailwater).await).filter(|named| !named.is_empty())
    })
    .await;
    let kept: HashSet<_> = failed.iter().map(|trace| to_hex(&trace.id)).collect();
    assert!(named.is_subset(&kept), "{named:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_counted_unless_asked_for() {
    let tailwater = setup("{ enabled: false }").start().await;
    send(&tailwater, &[Trace::new(&mut Random(44))]).await;
    tailwater.judged().await;
    assert!(!tailwater.metrics().await.has("tailwater_red_calls_total"));
    assert!(exemplars(&tailwater).await.is_empty());
}

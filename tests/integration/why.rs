//! `tailwater why`, asked as a person asks: the real binary, beside a running instance and without one.

use serde_json::Value;

use super::support::{
    ObjectStore, Random, Sender, Setup, Tailwater, Trace, WITHIN, eventually, request, request_of,
    rows_below, text, to_hex,
};

const POLICIES: &str = r#"
  - { name: errors, match: "{ status = error }", keep: 100% }
  - { name: slow, slower_than: p95, keep: 100% }
  - { name: nothing, keep: 0% }
"#;

fn setup() -> Setup {
    Setup::of(POLICIES)
}

async fn json(tailwater: &Tailwater, trace: &Trace) -> Value {
    serde_json::from_str(&tailwater.why(&[&to_hex(&trace.id), "--json"]).await).unwrap()
}

/// Asks until the answer is of this fate.
async fn fate(tailwater: &Tailwater, trace: &Trace, fate: &str) -> Value {
    eventually(&format!("it is {fate}"), WITHIN, async || {
        let answer = json(tailwater, trace).await;
        (answer["fate"] == fate).then_some(answer)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_that_waits_says_until_when() {
    let tailwater = Setup { after_root: "30s", max_wait: "60s", ..setup() }.start().await;
    let (mut sender, mut random) = (Sender::to(&tailwater), Random(31));
    let trace = Trace::new(&mut random).failed();
    sender.deliver(&request(std::slice::from_ref(&trace))).await;
    let answer = json(&tailwater, &trace).await;
    assert_eq!(answer["fate"], "waiting", "{answer:#}");
    let account = &answer["instance"]["testimony"]["traces"][0];
    assert_eq!(
        (&account["waiting_spans"], &account["whole"], &account["complete"]),
        (&3.into(), &true.into(), &true.into())
    );
    let due = account["due_in_seconds"].as_f64().unwrap();
    assert!((20.0..=30.1).contains(&due), "{due}");
    let said = tailwater.why(&[&to_hex(&trace.id)]).await;
    assert!(said.contains("waiting, not judged yet") && said.contains("3 spans, due in"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_trace_says_by_which_policy_and_draw_and_where_it_is() {
    let tailwater = setup().start().await;
    let (mut sender, mut random) = (Sender::to(&tailwater), Random(32));
    let trace = Trace::new(&mut random).failed().named("POST /checkout");
    sender.deliver(&request(std::slice::from_ref(&trace))).await;
    let answer = fate(&tailwater, &trace, "kept").await;
    let account = &answer["instance"]["testimony"]["traces"][0];
    let verdict = &account["verdict"];
    assert_eq!(
        (&verdict["policy"], &verdict["asks"]),
        (&"errors".into(), &"match { status = error }".into())
    );
    assert_eq!(verdict["draw"]["randomness"], format!("{:014x}", trace.randomness()));
    assert_eq!(verdict["draw"]["threshold"], "00000000000000");
    assert_eq!(account["operation"]["name"], "POST /checkout");
    assert_eq!(account["operation"]["duration_seconds"], 0.01);
    let left = eventually("it can be read", WITHIN, async || {
        json(&tailwater, &trace).await["left"].as_array().unwrap().first().cloned()
    })
    .await;
    for (key, value) in [("policy", "errors"), ("reason", "root")] {
        assert_eq!(left[key], value, "{left:#}");
    }
    assert_eq!((&left["spans"], &left["whole"], &left["complete"]), (&3.into(), &true.into(), &true.into()));
    let said = tailwater.why(&[&to_hex(&trace.id).to_uppercase()]).await;
    for words in
        [": kept", "errors: match { status = error }", ">= T 00000000000000: drawn", "p95 of its operation"]
    {
        assert!(said.contains(words), "{words} in {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_trace_says_by_which_policy_and_against_which_threshold() {
    let tailwater = setup().start().await;
    let (mut sender, mut random) = (Sender::to(&tailwater), Random(33));
    let traces = Trace::some(400, &mut random);
    sender.deliver(&request(&traces)).await;
    let answer = fate(&tailwater, &traces[7], "dropped").await;
    let verdict = &answer["instance"]["testimony"]["traces"][0]["verdict"];
    assert_eq!((&verdict["policy"], &verdict["asks"]), (&"nothing".into(), &"everything".into()));
    assert!(answer["left"].as_array().unwrap().is_empty());
    let threshold = eventually("the threshold is learned", WITHIN, async || {
        let answer = json(&tailwater, &traces[7]).await;
        let operation = &answer["instance"]["testimony"]["traces"][0]["operation"];
        operation["thresholds"][0]["seconds"].as_f64()
    })
    .await;
    assert!((0.0099..0.0102).contains(&threshold), "{threshold}");
    let said = tailwater.why(&[&to_hex(&traces[7].id)]).await;
    for words in [": dropped", "< T 100000000000000: not drawn", "not slow: p95 is 10."] {
        assert!(said.contains(words), "{words} in {said}");
    }
}

/// 40 MiB of spans go through a memory of 32 MiB.
async fn push_out(sender: &mut Sender, random: &mut Random) {
    for _ in 0..80 {
        let traces = Trace::some(100, random);
        let large = traces.iter().flat_map(Trace::build).map(|(service, mut span)| {
            span.attributes.push(text("large", &"x".repeat(3_500)));
            (service, span)
        });
        sender.deliver(&request_of(large)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_window_a_drop_is_not_known_and_a_keep_is_remembered() {
    let tailwater = Setup { memory: "64MiB", after_root: "100ms", ..setup() }.start().await;
    let (mut sender, mut random) = (Sender::to(&tailwater), Random(34));
    let (dropped, kept) = (Trace::new(&mut random), Trace::new(&mut random).failed());
    sender.deliver(&request(&[dropped.clone(), kept.clone()])).await;
    fate(&tailwater, &dropped, "dropped").await;
    push_out(&mut sender, &mut random).await;
    let answer = fate(&tailwater, &dropped, "unknown").await;
    let says = answer["says"].as_str().unwrap();
    assert!(
        says.starts_with("not kept; judged more than ") && says.ends_with(" ago, or never seen"),
        "{says}"
    );
    let answer = fate(&tailwater, &kept, "kept").await;
    let account = &answer["instance"]["testimony"]["traces"][0];
    assert_eq!(
        (&account["spans"], &account["verdict"]["policy"]),
        (&Value::Null, &"errors".into()),
        "{account:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_that_never_came_is_said_to_be_unknown() {
    let tailwater = setup().start().await;
    let never = Trace::new(&mut Random(35));
    let answer = json(&tailwater, &never).await;
    assert_eq!(answer["fate"], "unknown");
    assert!(answer["says"].as_str().unwrap().contains("or never seen"));
    let refused = tailwater.why_refused(&["4bf92g"]).await;
    assert!(refused.contains("expected up to 32 hexadecimal digits"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stopped_instance_has_left_is_said_to_wait_in_its_input_log() {
    let mut tailwater = Setup { tenant_header: Some("x-tenant"), after_root: "2s", ..setup() }.start().await;
    let mut sender = Sender::to(&tailwater).with_header("x-tenant", "a/b");
    let mut random = Random(39);
    let kept = Trace::new(&mut random).failed();
    sender.deliver(&request(std::slice::from_ref(&kept))).await;
    fate(&tailwater, &kept, "kept").await;
    let waits = Trace::new(&mut random);
    sender.deliver(&request(std::slice::from_ref(&waits))).await;
    tailwater.terminate().await;
    let answer = json(&tailwater, &waits).await;
    assert_eq!(answer["fate"], "waiting", "{answer:#}");
    let log = &answer["waits"][0];
    assert_eq!((&log["tenant"], &log["root_seen"]), (&"a/b".into(), &true.into()), "{answer:#}");
    assert_eq!(log["spans"].as_u64(), Some(waits.keys().len() as u64), "{answer:#}");
    assert!(answer["says"].as_str().unwrap().contains("in the input log, not judged yet"));
    let answer = json(&tailwater, &kept).await;
    assert_eq!(
        (&answer["fate"], &answer["waits"]),
        (&"kept".into(), &Value::Array(Vec::new())),
        "{answer:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_instance_the_outbox_and_parquet_answer() {
    let mut tailwater = Setup { tenant_header: Some("x-tenant"), ..setup() }.start().await;
    let mut sender = Sender::to(&tailwater).with_header("x-tenant", "a/b");
    let mut random = Random(36);
    let trace = Trace::new(&mut random).failed();
    let others: Vec<_> = (0..50).map(|_| Trace::new(&mut random).failed()).collect();
    sender.deliver(&request(&others)).await;
    sender.deliver(&request(std::slice::from_ref(&trace))).await;
    fate(&tailwater, &trace, "kept").await;
    tailwater.drain().await;
    assert_eq!(rows_below(&tailwater.parquet()).len(), 153);
    std::fs::remove_dir_all(tailwater.data()).unwrap();
    let answer = json(&tailwater, &trace).await;
    assert_eq!((&answer["fate"], &answer["instance"]["testimony"]), (&"kept".into(), &Value::Null));
    let left = &answer["left"][0];
    assert!(left["place"].as_str().unwrap().ends_with(".parquet"), "{left}");
    assert_eq!(
        (&left["tenant"], &left["policy"], &left["spans"]),
        (&"a/b".into(), &"errors".into(), &3.into())
    );
    assert_eq!((&left["weight"], &left["draw"]["threshold"]), (&1.0.into(), &"00000000000000".into()));
    let never = json(&tailwater, &Trace::new(&mut random)).await;
    assert!(
        never["says"].as_str().unwrap().starts_with("not kept, or never seen; without a running instance")
    );
    assert!(never["looked"]["objects"].as_u64().unwrap() >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_is_found_in_a_bucket() {
    let store = ObjectStore::start().await;
    let mut tailwater = setup().storing_in(&store, "kept").start().await;
    let (mut sender, mut random) = (Sender::to(&tailwater), Random(37));
    let trace = Trace::new(&mut random).failed();
    sender.deliver(&request(std::slice::from_ref(&trace))).await;
    fate(&tailwater, &trace, "kept").await;
    tailwater.drain().await;
    std::fs::remove_dir_all(tailwater.data()).unwrap();
    let answer = json(&tailwater, &trace).await;
    assert_eq!(
        (&answer["fate"], &answer["left"][0]["policy"]),
        (&"kept".into(), &"errors".into()),
        "{answer:#}"
    );
    assert!(answer["left"][0]["place"].as_str().unwrap().starts_with("kept/date="), "{answer:#}");
}

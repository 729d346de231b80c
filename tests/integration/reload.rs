//! A changed file takes effect while everything runs: policies and waits, all of it or nothing.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::support::{
    Backend, Ledger, Random, Sender, Setup, SpanKey, Tailwater, Trace, WITHIN, eventually, request,
    rows_below,
};

/// From the change of the file to the first verdict by it.
const IN_FORCE: Duration = Duration::from_secs(2);

const NOTHING: &str = r#"
  - { name: errors, match: "{ status = error }", keep: 100% }
  - { name: nothing, keep: 0% }
"#;
const EVERYTHING: &str = r#"
  - { name: errors, match: "{ status = error }", keep: 100% }
  - { name: everything, keep: 100% }
"#;

/// The file with other policies.
fn with_policies(text: &str, policies: &str) -> String {
    let (before, rest) = text.split_once("policies:").unwrap();
    let (_, after) = rest.split_once("exporters:").unwrap();
    format!("{before}policies:{policies}exporters:{after}")
}

fn by_rename(file: &Path, text: &str) {
    let beside = file.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, file).unwrap();
}

async fn reloads(tailwater: &Tailwater, outcome: &str) -> f64 {
    tailwater.metrics().await.sum("tailwater_config_reloads_total", &[("outcome", outcome)])
}

async fn reloaded(tailwater: &Tailwater, outcome: &str, times: f64) {
    let what = format!("{times} reloads are {outcome}");
    eventually(&what, WITHIN, async || (reloads(tailwater, outcome).await == times).then_some(())).await;
}

async fn generation(tailwater: &Tailwater) -> f64 {
    tailwater.metrics().await.sum("tailwater_config_generation", &[])
}

async fn send(sender: &mut Sender, random: &mut Random, count: usize) -> Vec<Trace> {
    let traces = Trace::some(count, random);
    sender.deliver(&request(&traces)).await;
    traces
}

/// Sends until told to stop; says which spans were acknowledged, and when each request was sent.
async fn send_until(stop: Arc<AtomicBool>, mut sender: Sender, seed: u64) -> Vec<(Instant, Vec<Trace>)> {
    let mut random = Random(seed);
    let mut sent = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let at = Instant::now();
        sent.push((at, send(&mut sender, &mut random, 20).await));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_under_load_loses_nothing() {
    let backend = Backend::start().await;
    let tailwater = Setup::of(NOTHING).forwarding(&backend).start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..4)
        .map(|seed| tokio::spawn(send_until(stop.clone(), Sender::to(&tailwater), 200 + seed)))
        .collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(backend.distinct(), 0, "nothing is kept by the first policies");
    by_rename(&tailwater.config_file(), &with_policies(&tailwater.config(), EVERYTHING));
    reloaded(&tailwater, "accepted", 1.0).await;
    let in_force = Instant::now();
    tokio::time::sleep(Duration::from_secs(2)).await;
    stop.store(true, Ordering::Relaxed);
    let mut kept: Vec<SpanKey> = Vec::new();
    for sender in senders {
        for (at, traces) in sender.await.unwrap() {
            // Its wait of a second begins when it is sent: it is judged after the reload.
            if at > in_force {
                kept.extend(traces.iter().flat_map(Trace::keys));
            }
        }
    }
    let ledger = tailwater.judged().await;
    assert!(kept.len() > 1_000 && ledger.kept >= kept.len() as u64, "{} of {ledger}", kept.len());
    eventually("all that is kept is at the backend", WITHIN, async || {
        (backend.distinct() as u64 >= ledger.kept).then_some(())
    })
    .await;
    let found = backend.counts();
    assert!(kept.iter().all(|span| found.contains_key(span)), "a trace of after the reload is missing");
    let metrics = tailwater.metrics().await;
    let dropped = |policy| metrics.sum("tailwater_sampler_dropped_spans_total", &[("policy", policy)]);
    assert!(dropped("nothing") > 0.0, "the totals of a policy that is gone stay");
    assert_eq!(dropped("everything"), 0.0);
    assert_eq!(generation(&tailwater).await, 1.0);
    tailwater.assert_ledger().await;
}

/// The best of five: the machine may have other things to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_in_force_within_two_seconds() {
    let tailwater = Setup::of(NOTHING).start().await;
    let text = tailwater.config();
    let mut took = Vec::new();
    for (times, policies) in (1..=5).zip([EVERYTHING, NOTHING].into_iter().cycle()) {
        let changed = Instant::now();
        by_rename(&tailwater.config_file(), &with_policies(&text, policies));
        reloaded(&tailwater, "accepted", f64::from(times)).await;
        took.push(changed.elapsed());
    }
    assert!(took.iter().any(|took| *took < IN_FORCE), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_that_wait_are_judged_by_the_policies_in_force_when_they_are_due() {
    let tailwater = Setup { after_root: "10s", max_wait: "20s", ..Setup::of(NOTHING) }.start().await;
    let (mut sender, mut random) = (Sender::to(&tailwater), Random(21));
    send(&mut sender, &mut random, 50).await;
    by_rename(&tailwater.config_file(), &with_policies(&tailwater.config(), EVERYTHING));
    reloaded(&tailwater, "accepted", 1.0).await;
    let ledger = tailwater.judged().await;
    assert_eq!((ledger.kept, ledger.dropped), (150, 0), "{ledger}");
}

/// What was folded while spans came says something about the old conditions only.
#[tokio::test(flavor = "multi_thread")]
async fn what_old_conditions_found_does_not_answer_new_ones() {
    const SERVERS: &str = "\n  - { name: servers, match: \"{ kind = server }\", keep: 100% }\n";
    let tailwater = Setup { after_root: "10s", max_wait: "20s", ..Setup::of(SERVERS) }.start().await;
    let (mut sender, mut random) = (Sender::to(&tailwater), Random(27));
    let mut traces = Trace::some(50, &mut random);
    traces.push(Trace::new(&mut random).failed());
    sender.deliver(&request(&traces)).await;
    by_rename(&tailwater.config_file(), &with_policies(&tailwater.config(), NOTHING));
    reloaded(&tailwater, "accepted", 1.0).await;
    let ledger = tailwater.judged().await;
    assert_eq!((ledger.kept, ledger.dropped), (3, 150), "{ledger}");
}

/// As the kubelet publishes a ConfigMap: files in a folder of their own, `..data` a symlink to it that is exchanged.
#[tokio::test(flavor = "multi_thread")]
async fn a_config_map_changes_by_its_symlink() {
    let mut tailwater = Setup::of(NOTHING).start().await;
    assert!(tailwater.terminate().await.success());
    let (text, file) = (tailwater.config(), tailwater.config_file());
    let folder = file.parent().unwrap().to_owned();
    let publish = |version: &str, text: &str| {
        std::fs::create_dir(folder.join(version)).unwrap();
        std::fs::write(folder.join(version).join("tailwater.yaml"), text).unwrap();
        std::os::unix::fs::symlink(version, folder.join("..data_tmp")).unwrap();
        std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    publish("..1", &text);
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("..data/tailwater.yaml", &file).unwrap();
    tailwater.start().await;
    for (times, policies) in [(1.0, EVERYTHING), (2.0, NOTHING)] {
        publish(&format!("..{}", times + 1.0), &with_policies(&text, policies));
        std::fs::remove_dir_all(folder.join(format!("..{times}"))).unwrap();
        reloaded(&tailwater, "accepted", times).await;
    }
    assert_eq!(reloads(&tailwater, "refused").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reads_the_file_again() {
    let tailwater = Setup::of(NOTHING).start().await;
    tailwater.signal("HUP");
    reloaded(&tailwater, "accepted", 1.0).await;
    tailwater.signal("HUP");
    reloaded(&tailwater, "accepted", 2.0).await;
    assert_eq!(generation(&tailwater).await, 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_leaves_the_old_one_in_force_and_says_so() {
    let tailwater = Setup::of(EVERYTHING).start().await;
    let good = tailwater.config();
    let before = tailwater.metrics().await.sum("tailwater_config_last_load_timestamp_seconds", &[]);
    let bad = with_policies(&good, NOTHING).replace("{ status = error }", "{ status = }");
    by_rename(&tailwater.config_file(), &bad);
    reloaded(&tailwater, "refused", 1.0).await;
    tailwater.says("changed configuration refused, the old one stays in force").await;
    std::fs::write(tailwater.config_file(), "").unwrap();
    reloaded(&tailwater, "refused", 2.0).await;
    tailwater.says("the file is empty").await;
    let (mut sender, mut random) = (Sender::to(&tailwater), Random(22));
    send(&mut sender, &mut random, 10).await;
    assert_eq!(tailwater.judged().await.kept, 30);
    let metrics = tailwater.metrics().await;
    assert_eq!(metrics.sum("tailwater_config_last_load_timestamp_seconds", &[]), before);
    assert_eq!(generation(&tailwater).await, 0.0);
    std::fs::write(tailwater.config_file(), with_policies(&good, NOTHING)).unwrap();
    reloaded(&tailwater, "accepted", 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_needs_a_restart_is_named_and_nothing_changes() {
    let tailwater = Setup::of(EVERYTHING).start().await;
    let other = with_policies(&tailwater.config(), NOTHING).replace("disk: 2GiB", "disk: 3GiB");
    by_rename(&tailwater.config_file(), &other);
    reloaded(&tailwater, "refused", 1.0).await;
    tailwater.says("data.disk needs a restart").await;
    let (mut sender, mut random) = (Sender::to(&tailwater), Random(23));
    send(&mut sender, &mut random, 10).await;
    assert_eq!(tailwater.judged().await.kept, 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_wait_holds_for_what_comes_after_it() {
    let tailwater = Setup { after_root: "20s", max_wait: "20s", ..Setup::of(EVERYTHING) }.start().await;
    let (mut sender, mut random) = (Sender::to(&tailwater), Random(24));
    send(&mut sender, &mut random, 10).await;
    let text = tailwater.config().replace("after_root: 20s", "after_root: 100ms");
    by_rename(&tailwater.config_file(), &text);
    reloaded(&tailwater, "accepted", 1.0).await;
    send(&mut sender, &mut random, 5).await;
    eventually("the later ones are judged first", WITHIN, async || {
        (Ledger::of(&tailwater.metrics().await).kept == 15).then_some(())
    })
    .await;
}

/// A percentile that nobody asked for before has thresholds at once, from what is known.
#[tokio::test(flavor = "multi_thread")]
async fn thresholds_of_a_new_percentile_are_published_with_the_reload() {
    const SLOW: &str = "\n  - { name: slow, slower_than: p95, keep: 100% }\n  - { name: rest, keep: 0% }\n";
    let tailwater = Setup { after_root: "100ms", ..Setup::of(SLOW) }.start().await;
    let (mut sender, mut random) = (Sender::to(&tailwater), Random(25));
    send(&mut sender, &mut random, 1_000).await;
    tailwater.judged().await;
    let thresholds = async |percentile: &str| {
        let labels = [("percentile", percentile)];
        tailwater.metrics().await.sum("tailwater_sampler_slow_threshold_seconds", &labels)
    };
    eventually("p95 is published", WITHIN, async || (thresholds("p95").await > 0.0).then_some(())).await;
    by_rename(&tailwater.config_file(), &tailwater.config().replace("p95", "p99.9"));
    reloaded(&tailwater, "accepted", 1.0).await;
    assert!(thresholds("p99.9").await > 0.0);
    assert_eq!(thresholds("p95").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_the_changed_file_is_in_force() {
    let mut tailwater = Setup::of(NOTHING).start().await;
    by_rename(&tailwater.config_file(), &with_policies(&tailwater.config(), EVERYTHING));
    reloaded(&tailwater, "accepted", 1.0).await;
    let (mut sender, mut random) = (Sender::to(&tailwater), Random(26));
    let traces = send(&mut sender, &mut random, 10).await;
    tailwater.drain().await;
    let rows = rows_below(&tailwater.parquet());
    assert_eq!(rows.len(), traces.len() * 3);
    assert!(rows.iter().all(|row| row.policy == "everything"));
}

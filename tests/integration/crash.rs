//! How a process ends, and how the next one goes on: kill -9, SIGTERM, drain.

use std::time::Duration;

use super::support::{
    Backend, ERRORS_AND_HALF, Random, Sender, Setup, Tailwater, Trace, counts_below, request,
};

/// On a machine that has other things to do.
const A_FEW_SECONDS: Duration = Duration::from_secs(30);

async fn setup(backend: &Backend) -> Tailwater {
    Setup::of(ERRORS_AND_HALF).forwarding(backend).start().await
}

/// Lets everything be judged, and drains.
async fn finish(mut tailwater: Tailwater) -> Tailwater {
    tailwater.judged().await;
    tailwater.drain().await;
    tailwater
}

/// The books of each life balance when senders rest before and after the kill.
#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_balances_in_each_life() {
    let backend = Backend::start().await;
    let mut tailwater = setup(&backend).await;
    let (mut sender, mut random) = (Sender::to(&tailwater), Random(8));
    let mut sent = 0;
    for _ in 0..4 {
        let traces = Trace::some(50, &mut random);
        sender.deliver(&request(&traces)).await;
        sent += 150;
        let ledger = tailwater.assert_ledger().await;
        assert_eq!(ledger.accepted, 150);
        assert!(ledger.recovered <= sent, "{ledger}");
        tokio::time::sleep(Duration::from_millis(random.below(1_500))).await;
        tailwater.kill();
        tailwater.start().await;
        tailwater.assert_ledger().await;
    }
    finish(tailwater).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_yet_judged_at_the_kill_is_judged_after_it() {
    let backend = Backend::start().await;
    let mut tailwater = setup(&backend).await;
    let mut sender = Sender::to(&tailwater);
    let mut random = Random(9);
    let failed: Vec<_> = (0..100).map(|_| Trace::new(&mut random).failed()).collect();
    sender.deliver(&request(&failed)).await;
    tailwater.kill();
    tailwater.start().await;
    backend.has(300).await;
    let ledger = tailwater.judged().await;
    assert_eq!((ledger.accepted, ledger.recovered, ledger.kept), (0, 300, 300));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_within_seconds_and_the_next_start_goes_on() {
    let backend = Backend::start().await;
    let mut tailwater = setup(&backend).await;
    let mut sender = Sender::to(&tailwater);
    let mut random = Random(10);
    let failed: Vec<_> = (0..100).map(|_| Trace::new(&mut random).failed()).collect();
    sender.deliver(&request(&failed)).await;
    let began = tokio::time::Instant::now();
    assert!(tailwater.terminate().await.success());
    assert!(began.elapsed() < A_FEW_SECONDS, "{:?}", began.elapsed());
    tailwater.start().await;
    backend.has(300).await;
    tailwater.judged().await;
}

/// A life in which nothing comes remembers how far the life before it was.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_judged_is_not_recovered_after_an_idle_life() {
    let mut tailwater = Setup::default().start().await;
    let mut sender = Sender::to(&tailwater);
    let mut random = Random(12);
    let traces = Trace::some(100, &mut random);
    sender.deliver(&request(&traces)).await;
    tailwater.judged().await;
    tailwater.drain().await;
    for _ in 0..2 {
        tailwater.start().await;
        let ledger = tailwater.assert_ledger().await;
        assert_eq!(ledger.recovered, 0, "{ledger}");
        assert!(tailwater.terminate().await.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_judges_and_delivers_what_is_not_due_yet() {
    let backend = Backend::start().await;
    let setup = Setup { after_root: "30s", max_wait: "60s", ..Setup::default() };
    let mut tailwater = setup.forwarding(&backend).start().await;
    let mut sender = Sender::to(&tailwater);
    let mut random = Random(11);
    let failed: Vec<_> = (0..100).map(|_| Trace::new(&mut random).failed()).collect();
    sender.deliver(&request(&failed)).await;
    tailwater.drain().await;
    assert_eq!(backend.distinct(), 300);
    assert_eq!(counts_below(&tailwater.parquet()).len(), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_may_ask_for_a_drain() {
    let backend = Backend::start().await;
    let setup = Setup { after_root: "30s", max_wait: "60s", on_shutdown: "drain", ..Setup::default() };
    let mut tailwater = setup.forwarding(&backend).start().await;
    let mut sender = Sender::to(&tailwater);
    let mut random = Random(12);
    let failed: Vec<_> = (0..100).map(|_| Trace::new(&mut random).failed()).collect();
    sender.deliver(&request(&failed)).await;
    assert!(tailwater.terminate().await.success());
    assert_eq!(backend.distinct(), 300);
    assert_eq!(counts_below(&tailwater.parquet()).len(), 300);
}

//! What a backend gets twice after a kill: no more than what was under way.

use std::sync::Arc;
use std::time::Duration;

use super::support::{Backend, Fault, Random, Sender, Setup, Trace, eventually, request};

/// Requests that an OTLP exporter has under way at once, and what one of them holds at most.
const IN_FLIGHT: usize = 4;
const BATCH_BYTES: usize = 2 << 20;
/// Of the outbox, before each kill: much more than is under way.
const LIFE_BYTES: usize = 3 * IN_FLIGHT * BATCH_BYTES;
const KILLS: usize = 4;
const WITHIN: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_under_load_has_no_more_sent_again_than_the_batches_in_flight() {
    let backend = Backend::start().await;
    // All that is under way when the process dies was taken, and nobody has heard of it.
    backend.fault(Fault::Slow(Duration::from_millis(500)));
    let setup = Setup {
        policies: "\n  - { name: all, keep: 100% }".to_owned(),
        after_root: "200ms",
        ..Setup::default()
    };
    let mut tailwater =
        setup.forward_to("backend", &format!("endpoint: \"{}\"", backend.grpc())).start().await;
    // A sender that has its answer sends nothing twice: what comes twice, the exporter has sent.
    let turn = Arc::new(tokio::sync::Mutex::new(()));
    let (mut sender, sends) = (Sender::to(&tailwater), turn.clone());
    let sending = tokio::spawn(async move {
        let mut random = Random(31);
        loop {
            let _mine = sends.lock().await;
            let trace = Trace::new(&mut random).named(&"x".repeat(700_000));
            sender.deliver(&request(&[trace])).await;
        }
    });
    let (mut came, mut again) = backend.bytes();
    for kill in 0..=KILLS {
        eventually("much is delivered", WITHIN, async || {
            (backend.bytes().0 > came + LIFE_BYTES).then_some(())
        })
        .await;
        let (now, repeated) = backend.bytes();
        let (delivered, resent) = (now - came, repeated - again);
        println!("after kill {kill}: {delivered} bytes, of which {resent} again");
        assert!(resent <= IN_FLIGHT * BATCH_BYTES, "{resent} bytes came again after kill {kill}");
        (came, again) = (now, repeated);
        let _nobody_sends = turn.lock().await;
        tailwater.kill();
        tailwater.start().await;
    }
    assert!(again > 0, "nothing was under way at any kill");
    sending.abort();
    let ledger = tailwater.judged().await;
    assert_eq!(ledger.dropped, 0, "{ledger}");
}

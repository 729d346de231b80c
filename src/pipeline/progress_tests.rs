//! What was done once is not done again: by lives and recoveries that are cut short, by a log that is full.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::build::build;
use super::disk_tests::hooked;
use super::testing::request;
use super::{HandClock, Settings, Simulation};
use crate::config::{self, Config};
use crate::log::{SimDisk, segment};
use crate::trace::TraceId;
use crate::units::{ByteSize, HumanDuration, MemoryLimit};

const START_MS: u64 = 1_700_000_000_000;

fn config(keep: &str) -> Config {
    let text = format!(
        "receivers: {{ otlp: {{ grpc: {{ listen: '127.0.0.1:0' }}, http: {{ listen: '127.0.0.1:0' }} }} }}\n\
         data: {{ path: data }}\nbuffer: {{ memory: 256MiB, after_root: 1s, max_wait: 2s }}\n\
         policies: [{{ name: all, keep: {keep} }}]\n\
         exporters: {{ otlp: [{{ name: dead, endpoint: 'http://127.0.0.1:1' }}] }}\n\
         telemetry: {{ listen: '127.0.0.1:0' }}\n"
    );
    config::load(&text, Path::new("t.yaml")).unwrap()
}

/// A trace for each number.
fn trace(number: u128) -> TraceId {
    TraceId((number + 1).to_be_bytes())
}

/// The files of the input log.
fn segments(disk: &SimDisk) -> Vec<u32> {
    let files = segment::numbers(&*disk.storage(), Path::new("data/input")).unwrap();
    files.into_iter().map(|(number, _)| number).collect()
}

/// A life with so much memory, ten seconds old: states are not due because it is young.
fn full(mib: u64, disk: &SimDisk, now_ms: &Arc<AtomicU64>) -> Simulation {
    now_ms.store(10_000, Relaxed);
    let storage = disk.storage();
    let settings = Settings { storage, clock: HandClock::new(START_MS, now_ms), ..Settings::default() };
    let mut config = config("0%");
    config.buffer.memory = MemoryLimit::Bytes(ByteSize::mib(mib));
    config.buffer.after_root = HumanDuration(Duration::from_millis(100));
    Simulation::build(&config, &settings).unwrap()
}

/// Each life receives thirty traces in three seconds and is killed. A drop leaves nothing but a state that is past it.
#[tokio::test]
async fn lives_of_three_seconds_do_not_recover_more_and_more() {
    let (disk, now_ms) = (SimDisk::new(1), Arc::new(AtomicU64::new(0)));
    let mut files = Vec::new();
    for life in 0..20 {
        let settings = Settings {
            storage: disk.storage(),
            clock: HandClock::new(START_MS, &now_ms),
            ..Settings::default()
        };
        let mut instance = Simulation::build(&config("0%"), &settings).unwrap();
        for step in 0..30 {
            instance.receive("", request(trace(life * 30 + step), 1).into()).await.unwrap();
            now_ms.fetch_add(100, Relaxed);
            instance.turn().unwrap();
        }
        assert!(instance.engine().ledger.balance().balances());
        drop(instance);
        disk.kill();
        files.push(segments(&disk).len());
    }
    assert!(files.iter().all(|files| *files <= 2), "one a life: {files:?}");
}

const FORMER_LIVES: u128 = 40;
const SPANS: usize = 10_000;

/// There is less memory than before, so that a recovery has to judge; it ends when its first files are deleted.
#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_is_ended_is_gone_on_with() {
    let disk = SimDisk::new(1);
    let settings = || Settings { storage: disk.storage(), ..Settings::default() };
    for life in 0..FORMER_LIVES {
        let former = Simulation::build(&config("100%"), &settings()).unwrap();
        former.receive("", request(trace(life), SPANS).into()).await.unwrap();
        drop(former);
        disk.kill();
    }
    let first = segments(&disk)[0];
    let mut small = config("100%");
    small.buffer.memory = MemoryLimit::Bytes(ByteSize::mib(4));

    let (deletes, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (told, go_on) = (deletes.clone(), ended.clone());
    let waiting = hooked(disk.storage(), move |what, _| {
        told.fetch_or(what == "remove", Relaxed);
        while what == "remove" && !go_on.load(Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    });
    let deleting = async {
        while !deletes.load(Relaxed) {
            sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        built = build(small.clone().into(), waiting) => panic!("nothing was deleted: {:?}", built.err()),
        () = deleting => {}
    }
    ended.store(true, Relaxed);

    let again = async {
        loop {
            // The one before holds the directory a little longer.
            match build(small.clone().into(), settings()).await {
                Ok(pipeline) => return pipeline,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let pipeline = timeout(Duration::from_secs(60), again).await.unwrap();
    assert!(segments(&disk)[0] > first, "the state of the first recovery counts");
    let stats = pipeline.drain(Duration::from_secs(5)).await.unwrap();
    let all = FORMER_LIVES as u64 * SPANS as u64;
    assert!(stats.balance.balances() && stats.balance.recovered < all, "{:?}", stats.balance);
    let (.., pending) = stats.exporters[0];
    assert_eq!(pending, all, "each span is in the outbox, and once");
}

/// Lets so many requests of 2,000 spans come, one every `every_ms`, and looks after each.
async fn pour<T>(
    life: &mut Simulation,
    now_ms: &AtomicU64,
    (requests, every_ms): (u128, u64),
    look: impl Fn(&Simulation) -> T,
) -> Vec<T> {
    let mut seen = Vec::new();
    for number in 0..requests {
        while life.receive("", request(trace(number), 2_000).into()).await.is_err() {
            life.turn().unwrap(); // room is made for one that was refused
        }
        now_ms.fetch_add(every_ms, Relaxed);
        life.turn().unwrap();
        seen.push(look(life));
    }
    seen
}

/// Judged and written, it need not stay for ten seconds if it is much.
#[tokio::test]
async fn much_input_is_let_go_sooner() {
    let (disk, now_ms) = (SimDisk::new(1), Arc::new(AtomicU64::new(0)));
    let mut life = full(4, &disk, &now_ms);
    let files = pour(&mut life, &now_ms, (1_400, 6), |_| segments(&disk).len()).await;
    let most = files.iter().max().unwrap();
    assert!((128..160).contains(most), "{most} files");
}

/// More than the log may hold goes through it: from then on it takes no new memory.
#[tokio::test]
async fn the_memory_of_segments_that_retire_is_used_again() {
    let (disk, now_ms) = (SimDisk::new(1), Arc::new(AtomicU64::new(0)));
    let mut life = full(16, &disk, &now_ms);
    let spares = pour(&mut life, &now_ms, (300, 20), |life| life.engine().memory.spares()).await;
    assert!(life.engine().memory.low() > 1, "nothing has retired");
    assert!(spares.iter().any(|spares| *spares > 0), "what has retired was given back");
}

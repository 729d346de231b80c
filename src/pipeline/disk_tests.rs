//! An instance on disks that are slow, fail, or have no room.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use super::build::build;
use super::past::Past;
use super::place::Place;
use super::testing::request;
use super::{Pipeline, Settings, Simulation};
use crate::config::{self, Config};
use crate::exporter::metrics::Obstacle;
use crate::exporter::parquet;
use crate::log::hooked::Hooked;
use crate::log::{Disk, SimDisk, Storage, segment};
use crate::receiver::{Intake as _, Rejection};
use crate::trace::TraceId;
use crate::units::{ByteSize, HumanDuration, MemoryLimit};

pub(super) fn hooked(
    inner: Arc<dyn Storage>,
    before: impl Fn(&str, &Path) -> io::Result<()> + Send + Sync + 'static,
) -> Settings {
    Settings { storage: Hooked::over(inner, before), ..Settings::default() }
}

/// A dead backend, and ports that are free.
fn config(data: &str) -> Config {
    let text = format!(
        "receivers:\n  otlp:\n    grpc: {{ listen: \"127.0.0.1:0\" }}\n    http: {{ listen: \"127.0.0.1:0\" }}\n\
         data: {{ path: \"{data}\", sync: always }}\nbuffer: {{ memory: 128MiB, after_root: 1s, max_wait: 2s }}\n\
         policies: [{{ name: all, keep: 100% }}]\nexporters:\n  otlp: [{{ name: dead, endpoint: \"http://127.0.0.1:1\" }}]\n\
         telemetry: {{ listen: \"127.0.0.1:0\" }}\n"
    );
    config::load(&text, Path::new("t.yaml")).unwrap()
}

async fn send(pipeline: &Pipeline, trace: u8) -> Result<(), Rejection> {
    let body = Bytes::from(request(TraceId([trace; 16]), 10));
    let room = pipeline.intake.admit(body.len())?;
    pipeline.intake.receive(room, "", body).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_fsync_ends_the_process_with_its_reason() {
    let failing = Arc::new(AtomicBool::new(false));
    let fails = failing.clone();
    let settings =
        hooked(SimDisk::new(1).storage(), move |what, _| match what == "sync" && fails.load(Relaxed) {
            true => Err(io::Error::other("the disk has died")),
            false => Ok(()),
        });
    let pipeline = build(config("data").into(), settings).await.unwrap();
    send(&pipeline, 1).await.unwrap();
    failing.store(true, Relaxed);
    assert!(send(&pipeline, 2).await.is_err(), "it is not confirmed");
    let reason = timeout(Duration::from_secs(5), pipeline.failed()).await.unwrap().to_string();
    assert!(reason.contains("the disk has died") && reason.contains("this process ends"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_dies_ends_the_process() {
    let dies = Arc::new(AtomicBool::new(false));
    let dying = dies.clone();
    let settings = hooked(SimDisk::new(1).storage(), move |_, _| {
        assert!(!dying.load(Relaxed), "on purpose");
        Ok(())
    });
    let pipeline = build(config("data").into(), settings).await.unwrap();
    dies.store(true, Relaxed);
    let refused = tokio::select! {
        sent = send(&pipeline, 1) => sent.is_err(),
        _ = pipeline.failed() => true,
    };
    assert!(refused);
    let reason = timeout(Duration::from_secs(5), pipeline.failed()).await.unwrap().to_string();
    assert!(reason.contains("has died"), "{reason}");
}

/// 64 requests at once on a disk of which each fsync takes 20 ms: they share a few.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_wait_on_a_slow_disk_share_one_fsync() {
    let folder = tempfile::tempdir().unwrap();
    let syncs = Arc::new(AtomicU64::new(0));
    let counted = syncs.clone();
    let settings = hooked(Arc::new(Disk), move |what, _| {
        if what == "sync" {
            counted.fetch_add(1, Relaxed);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    });
    let pipeline =
        Arc::new(build(config(folder.path().join("data").to_str().unwrap()).into(), settings).await.unwrap());
    send(&pipeline, 255).await.unwrap();
    let (before, began) = (syncs.load(Relaxed), Instant::now());
    let sending: Vec<_> = (0..64)
        .map(|n| {
            let pipeline = pipeline.clone();
            tokio::spawn(async move { send(&pipeline, n + 1).await })
        })
        .collect();
    for sent in sending {
        sent.await.unwrap().unwrap();
    }
    let (shared, took) = (syncs.load(Relaxed) - before, began.elapsed());
    println!("64 requests, {shared} fsyncs, {took:?}");
    assert!((1..=16).contains(&shared), "{shared} fsyncs in {took:?}");
    let pipeline = Arc::into_inner(pipeline).unwrap();
    assert!(pipeline.stats().balance.balances());
    pipeline.shutdown(Duration::from_secs(10)).await.unwrap();
}

/// Of a real disk each write and each fsync takes 50 ms, in input log, outbox, state and cursor.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_disk_is_latency_for_senders_and_no_loss() {
    const SLOW: Duration = Duration::from_millis(50);
    let folder = tempfile::tempdir().unwrap();
    let settings = hooked(Arc::new(Disk), |what, _| {
        if what != "remove" {
            std::thread::sleep(SLOW);
        }
        Ok(())
    });
    let data = folder.path().join("data");
    let pipeline = Arc::new(build(config(data.to_str().unwrap()).into(), settings).await.unwrap());
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let pipeline = pipeline.clone();
            tokio::spawn(async move {
                for n in 0..10 {
                    let began = Instant::now();
                    send(&pipeline, 1 + sender * 10 + n).await.unwrap();
                    assert!(began.elapsed() >= 2 * SLOW, "acknowledged before it was written and synced");
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    let pipeline = Arc::into_inner(pipeline).unwrap();
    let stats = pipeline.drain(Duration::from_secs(5)).await.unwrap();
    assert!(stats.balance.balances());
    let (.., pending) = stats.exporters[0];
    assert_eq!((stats.balance.accepted, stats.balance.kept, pending), (400, 400, 400));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_turns_read_only_refuses_senders_says_so_and_may_come_back() {
    let read_only = Arc::new(AtomicBool::new(false));
    let refuses = read_only.clone();
    let settings =
        hooked(SimDisk::new(1).storage(), move |what, _| match what == "write" && refuses.load(Relaxed) {
            true => Err(ErrorKind::ReadOnlyFilesystem.into()),
            false => Ok(()),
        });
    let pipeline = build(config("data").into(), settings).await.unwrap();
    send(&pipeline, 1).await.unwrap();
    read_only.store(true, Relaxed);
    let refused = send(&pipeline, 2).await.unwrap_err();
    assert!(matches!(refused, Rejection::DiskFull { .. }), "{refused}");
    let stalled = pipeline.engine.input.as_ref().unwrap().stalled().unwrap_or_default();
    assert!(stalled.contains("read-only"), "{stalled}");
    read_only.store(false, Relaxed);
    let deadline = Instant::now() + Duration::from_secs(5);
    while send(&pipeline, 3).await.is_err() {
        assert!(Instant::now() < deadline, "it does not come back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(pipeline.stats().balance.balances());
    pipeline.shutdown(Duration::from_secs(10)).await.unwrap();
}

fn small(data: &str) -> Config {
    let mut config = config(data);
    config.buffer.memory = MemoryLimit::Bytes(ByteSize::mib(4));
    config.data.disk = ByteSize::mib(8);
    config
}

/// More was received than this life has memory for, and its verdicts find no room on the disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_finds_no_room_waits_for_the_exporters_and_can_be_ended() {
    let (disk, folder) = (SimDisk::new(1), tempfile::tempdir().unwrap());
    let settings = || Settings { storage: disk.storage(), ..Settings::default() };
    let former = Simulation::build(&config("data"), &settings()).unwrap();
    for trace in 0..60 {
        former.receive("", request(TraceId([trace + 1; 16]), 10_000).into()).await.unwrap();
    }
    drop(former);
    disk.kill();

    let blocked = timeout(Duration::from_secs(3), build(small("data").into(), settings())).await;
    assert!(blocked.is_err(), "it has found room or failed: {:?}", blocked.map(|built| built.err()));
    let freed = async {
        while Place::open(&settings(), Path::new("data")).is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(2), freed).await.expect("the abandoned recovery lets go of the directory");

    let mut delivering = small("data");
    delivering.exporters.otlp.clear();
    let url = format!("file:{}", folder.path().display());
    delivering.exporters.parquet = Some(parquet::Config { url, ..Default::default() });
    let pipeline =
        timeout(Duration::from_secs(60), build(delivering.into(), settings())).await.unwrap().unwrap();
    assert!(pipeline.stats().balance.balances());
    pipeline.shutdown(Duration::from_secs(10)).await.unwrap();
}

#[test]
fn what_was_deleted_counts_although_the_next_file_cannot_be() {
    let (disk, dir) = (SimDisk::new(1), Path::new("data/input"));
    (1..=3).for_each(|number| disk.put(&segment::path(dir, number), vec![0; 1_000]));
    let removals = AtomicUsize::new(0);
    let settings = hooked(disk.storage(), move |what, _| {
        let refused = what == "remove" && removals.fetch_add(1, Relaxed) == 1;
        if refused { Err(ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    });
    let past = Past::open(settings.storage, Path::new("data"), 0, 0).unwrap();
    let mut freed = 0;
    assert!(past.take_below(dir, 4, 0, &mut freed).is_err());
    assert_eq!(freed, 1_000);
    past.take_below(dir, 4, 0, &mut freed).unwrap();
    assert_eq!(freed, 3_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_cannot_be_written_is_refused_by_name_before_anything_is_done() {
    for (dir, kind) in [
        ("data", ErrorKind::ReadOnlyFilesystem),
        ("data/input", ErrorKind::PermissionDenied),
        ("data/outbox", ErrorKind::ReadOnlyFilesystem),
    ] {
        let disk = SimDisk::new(1);
        let settings = hooked(disk.storage(), move |what, path| match what {
            "writable" if path == Path::new(dir) => Err(kind.into()),
            _ => Ok(()),
        });
        let refused = format!("{:#}", build(config("data").into(), settings).await.unwrap_err());
        let expected =
            format!("expected a folder in which this process may create files, found {dir}: {kind}");
        assert!(refused.starts_with("data.path: ") && refused.contains(&expected), "{refused}");
        assert_eq!(disk.counts().writes, 0);
    }
}

/// Parquet into a folder, an object a second.
fn storing(folder: &Path) -> Config {
    let mut config = config("data");
    config.exporters.otlp.clear();
    let url = format!("file:{}", folder.display());
    let roll = parquet::Roll { age: HumanDuration::from_secs(1), ..Default::default() };
    config.exporters.parquet = Some(parquet::Config { url, roll, ..Default::default() });
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exporter_that_panics_is_told_of_and_delivers_everything_once_when_it_does_not() {
    let (disk, folder) = (SimDisk::new(1), tempfile::tempdir().unwrap());
    let panics = Arc::new(AtomicUsize::new(2));
    let left = panics.clone();
    let settings = hooked(disk.storage(), move |what, path| {
        let now = what == "open" && path.ends_with("parquet.part");
        let again = |left: usize| left.checked_sub(1);
        assert!(!now || left.fetch_update(Relaxed, Relaxed, again).is_err(), "on purpose");
        Ok(())
    });
    let pipeline = build(storing(folder.path()).into(), settings).await.unwrap();
    let metrics = pipeline.outbox.subscription(parquet::EXPORTER).unwrap().metrics.clone();
    send(&pipeline, 1).await.unwrap();
    let until = async |what: &str, is: &dyn Fn() -> bool| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is() {
            assert!(Instant::now() < deadline, "never {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    until("dead", &|| metrics.obstacle() == Some(Obstacle::Defect)).await;
    assert_eq!(metrics.last_error().as_deref(), Some("it has panicked: on purpose"));
    send(&pipeline, 2).await.expect("others go on");
    until("delivered", &|| metrics.delivered() == 20).await;
    assert_eq!((metrics.deaths(), metrics.obstacle(), metrics.repeated()), (2, None, 0));
    assert!(pipeline.failure.borrow().is_none() && pipeline.stats().balance.balances());
    pipeline.shutdown(Duration::from_secs(10)).await.unwrap();
}

/// Requests for several segments of the input log.
async fn fill_segments(life: &Simulation) {
    for trace in 0..40 {
        life.receive("", request(TraceId([trace + 1; 16]), 10_000).into()).await.unwrap();
    }
}

/// What was done to the disk, in its order, and an instance that has judged everything and keeps its first state.
async fn kept_on(fails: &'static str) -> (anyhow::Result<bool>, Vec<String>, SimDisk) {
    let (disk, done) = (SimDisk::new(1), Arc::new(parking_lot::Mutex::new(Vec::new())));
    let noted = done.clone();
    let settings = hooked(disk.storage(), move |what, path| {
        let step = format!("{what} {}", path.display());
        let failing = !fails.is_empty() && step.starts_with(fails);
        noted.lock().push(step);
        if failing { Err(io::Error::other("as the test asked")) } else { Ok(()) }
    });
    let mut life = Simulation::build(&config("data"), &settings).unwrap();
    fill_segments(&life).await;
    life.drain().unwrap();
    done.lock().clear();
    life.judge();
    let kept = life.keep();
    let done = done.lock().clone();
    (kept, done, disk)
}

#[tokio::test]
async fn nothing_is_deleted_before_the_outbox_is_synced_and_then_the_state_is_there() {
    let (kept, done, _) = kept_on("").await;
    assert!(kept.unwrap());
    let first = |step: &str| done.iter().position(|done| done.starts_with(step)).unwrap_or(usize::MAX);
    let last = |step: &str| done.iter().rposition(|done| done.starts_with(step)).unwrap_or(usize::MAX);
    let (outbox, written) = (last("sync data/outbox"), first("sync data/state.new"));
    let (state, deleted) = (first("rename data/state"), first("remove data/input"));
    assert!(written < state && state < deleted && deleted < usize::MAX, "{done:?}");
    assert!(outbox == usize::MAX || outbox < written, "{done:?}");
}

#[tokio::test]
async fn without_a_state_nothing_is_deleted() {
    for fails in ["write data/state.new", "sync data/state.new", "rename data/state"] {
        let (kept, done, disk) = kept_on(fails).await;
        assert!(kept.is_err(), "{fails}");
        assert!(!done.iter().any(|step| step.starts_with("remove data/")), "{fails}: {done:?}");
        assert!(segment::numbers(&*disk.storage(), Path::new("data/input")).unwrap().len() > 1);
    }
}

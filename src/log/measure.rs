//! What storing a request costs: `cargo test --lib log::measure -- --ignored --nocapture --test-threads 1`.

use super::{Disk, Head, Memory, Record, SegmentHeader, Settings, SyncMode, WriteLoop, Writer, segment};
use bytes::Bytes;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use uuid::Uuid;

struct Log {
    memory: Memory,
    writer: Writer,
    order: Mutex<()>,
    body: Bytes,
    requests: AtomicU64,
}

fn build(dir: &Path, sync: SyncMode, body: usize) -> (Arc<Log>, WriteLoop) {
    let settings = Settings {
        dir: dir.to_owned(),
        first_segment: 1,
        sync,
        queue_bytes: 64 << 20,
        reserve_bytes: 0,
        sync_names: false,
    };
    let fatal = Box::new(|reason: &str| panic!("{reason}"));
    let (writer, write_loop) = Writer::build(Arc::new(Disk), settings, fatal).unwrap();
    let memory = Memory::new(super::memory::SEGMENT_BYTES, 1);
    let log = Log {
        memory,
        writer,
        order: Mutex::new(()),
        body: vec![7; body].into(),
        requests: AtomicU64::new(0),
    };
    (Arc::new(log), write_loop)
}

async fn store(log: &Log, write: bool) {
    let body = &log.body;
    let head =
        Head::new(&Record { arrival_ms: 1, tenant: "", kind: 0, more: false, member: 0, body }).unwrap();
    let end = {
        let _order = log.order.lock();
        let appended = log.memory.append(head.as_bytes(), body, 1);
        let stored = appended.record;
        if write {
            let opened = appended.opened.then(|| SegmentHeader {
                number: stored.at.segment,
                uuid: Uuid::nil(),
                opened_ms: 1,
                attributes: Bytes::new(),
            });
            log.writer.append(stored.at, opened, Bytes::new(), stored.bytes.clone());
        }
        while log.memory.len() > 8 {
            log.memory.retire_oldest();
        }
        stored.end()
    };
    if write {
        log.writer.wait(end).await.unwrap();
    } else {
        tokio::task::yield_now().await;
    }
    log.requests.fetch_add(1, Relaxed);
}

/// CPU time of all threads of this process.
fn cpu() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let nanos = tasks.filter_map(|task| {
        let stat = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

fn run(name: &str, sync: SyncMode, body: usize, write: bool, tasks: usize, pace: Option<Duration>) {
    let dir = tempfile::tempdir().unwrap();
    let (log, write_loop) = build(dir.path(), sync, body);
    let thread = write_loop.spawn("input-log").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for _ in 0..tasks {
        let log = log.clone();
        runtime.spawn(async move {
            loop {
                store(&log, write).await;
                if let Some(pace) = pace {
                    tokio::time::sleep(pace).await;
                }
            }
        });
    }
    std::thread::sleep(Duration::from_millis(300));
    let (requests, before, start) = (log.requests.load(Relaxed), cpu(), tokio::time::Instant::now());
    while start.elapsed() < Duration::from_secs(3) {
        std::thread::sleep(Duration::from_millis(50));
        let low = log.writer.written().segment.saturating_sub(8);
        segment::delete_below(&Disk, dir.path(), low, &mut 0).unwrap();
    }
    let (requests, used) = (log.requests.load(Relaxed) - requests, cpu() - before);
    let (rate, each) =
        (requests as f64 / start.elapsed().as_secs_f64(), used.as_nanos() as f64 / requests as f64);
    println!(
        "{name:32} {rate:9.0} requests/s {:7.0} MB/s {:8.1} us CPU a request",
        rate * body as f64 / 1e6,
        each / 1e3
    );
    runtime.shutdown_timeout(Duration::from_secs(1));
    log.writer.close();
    thread.join().unwrap().unwrap();
}

#[test]
#[ignore = "a measurement"]
fn storing_a_request() {
    for _ in 0..2 {
        for (name, body) in [("100 B", 100), ("17 KB", 17_000), ("360 KB", 360_000)] {
            run(&format!("{name} memory only, 16 tasks"), SyncMode::None, body, false, 16, None);
            run(&format!("{name} written, 16 tasks"), SyncMode::None, body, true, 16, None);
            run(&format!("{name} written, 4 tasks"), SyncMode::None, body, true, 4, None);
            run(&format!("{name} synced, 16 tasks"), SyncMode::Always, body, true, 16, None);
        }
        let pace = Some(Duration::from_millis(7));
        run("17 KB memory only, paced 2 k/s", SyncMode::None, 17_000, false, 16, pace);
        run("17 KB written, paced 2 k/s", SyncMode::None, 17_000, true, 16, pace);
    }
}

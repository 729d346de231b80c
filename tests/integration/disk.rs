//! Disks that are full, slow to recover from, damaged, or somebody else's; and what a person can see of them.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use tempfile::TempDir;

use super::support::{
    Backend, KEEP_ALL, Random, Sender, Setup, Tailwater, Trace, WITHIN, eventually, files_below, request,
    rows_below, to_hex,
};

/// Traces of about 30 KB.
fn large(random: &mut Random, count: usize) -> Vec<Trace> {
    (0..count).map(|_| Trace::new(random).failed().named(&"x".repeat(30_000))).collect()
}

/// Text that does not become much smaller.
fn noise(random: &mut Random, letters: usize) -> String {
    (0..letters).map(|_| char::from(b'0' + random.below(64) as u8)).collect()
}

/// A file system of its own in memory, of so many MiB; none where mounting is not allowed.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(mib: u32) -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let options = format!("size={mib}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path());
        let mounted = mount.output().is_ok_and(|done| done.status.success());
        if !mounted {
            eprintln!("skipped: a tmpfs cannot be mounted here");
        }
        mounted.then_some(Self(folder))
    }

    /// Takes all the room that is left, until it is removed.
    fn ballast(&self) -> PathBuf {
        let path = self.0.path().join("ballast");
        let mut file = File::create(&path).unwrap();
        for block in [vec![1; 1 << 20], vec![1; 4096], vec![1; 1]] {
            while file.write_all(&block).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

/// Sends until refused; returns how many spans were acknowledged.
async fn fill(sender: &mut Sender, random: &mut Random) -> usize {
    for _ in 0..2_000 {
        if sender.send(&request(&large(random, 10))).await.is_err() {
            return sender.acknowledged.len();
        }
    }
    panic!("never refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_smaller_than_its_budget_refuses_senders_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount(96) else { return };
    let mut backend = Backend::start().await;
    let setup = Setup { disk: "1GiB", data: Some(disk.0.path().join("data")), ..Setup::of(KEEP_ALL) };
    let mut tailwater = setup.forwarding(&backend).start().await;
    backend.down().await;
    let (mut sender, mut random) = (Sender::to(&tailwater), Random(21));
    let sent = fill(&mut sender, &mut random).await;
    eventually("the disk is said to be full", WITHIN, async || {
        (tailwater.metrics().await.sum("tailwater_log_disk_full", &[]) == 1.0).then_some(())
    })
    .await;
    tailwater.kill();
    tailwater.start().await;
    backend.up().await;
    backend.has(sent).await;
    sender.deliver(&request(&large(&mut random, 1))).await;
    tailwater.judged().await;
    assert!(tailwater.said("disk budget is used up") > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_filled_by_somebody_else_is_seen_and_got_over() {
    let Some(disk) = SmallDisk::mount(96) else { return };
    let setup = Setup { disk: "64MiB", data: Some(disk.0.path().join("data")), ..Setup::default() };
    let mut tailwater = setup.start().await;
    let (mut sender, mut random) = (Sender::to(&tailwater), Random(22));
    sender.deliver(&request(&large(&mut random, 20))).await;
    let ballast = disk.ballast();
    eventually("the state fails", WITHIN, async || {
        let failed = [("outcome", "failed")];
        (tailwater.metrics().await.sum("tailwater_pipeline_states_total", &failed) > 1.0).then_some(())
    })
    .await;
    assert!(sender.send(&request(&large(&mut random, 1))).await.is_err());
    let (status, reason) = eventually("/readyz turns false", WITHIN, async || {
        Some(tailwater.readiness().await).filter(|(status, _)| *status == 503)
    })
    .await;
    assert!(
        reason.contains("senders are refused for") && reason.contains("no disk is left"),
        "{status} {reason}"
    );
    let (fails, works) =
        (|| tailwater.said("state cannot be kept"), || tailwater.said("state is kept again"));
    assert!((1..=works() + 1).contains(&fails()), "a change of state, not each try");
    fs::remove_file(ballast).unwrap();
    sender.deliver(&request(&large(&mut random, 20))).await;
    eventually("it is ready again", WITHIN, async || {
        (tailwater.readiness().await.0 == 200 && works() == fails()).then_some(())
    })
    .await;
    let kept = tailwater.judged().await.kept;
    tailwater.drain().await;
    assert_eq!((kept, rows_below(&tailwater.parquet()).len()), (120, 120));
}

/// Of an exporter of Parquet.
async fn is(tailwater: &Tailwater, gauge: &str) -> bool {
    let name = format!("tailwater_exporter_{gauge}");
    tailwater.metrics().await.sum(&name, &[("exporter", "parquet")]) == 1.0
}

#[tokio::test(flavor = "multi_thread")]
async fn parquet_that_finds_no_room_on_this_machine_blames_the_disk_and_goes_on_when_there_is_some() {
    let Some(disk) = SmallDisk::mount(96) else { return };
    let data = disk.0.path().join("data");
    let setup =
        Setup { disk: "64MiB", data: Some(data.clone()), policies: KEEP_ALL.to_owned(), ..Setup::default() };
    let mut tailwater = setup.start().await;
    // They fill the room that is reserved for the outbox: its segment has little to give back when it is sealed.
    let mut random = Random(32);
    let traces: Vec<_> =
        (0..20).map(|_| Trace::new(&mut random).named(&noise(&mut random, 165_000))).collect();
    Sender::to(&tailwater).deliver(&request(&traces)).await;
    let ballast = disk.ballast();
    eventually("the disk is blamed", WITHIN, async || is(&tailwater, "stalled").await.then_some(())).await;
    assert!(!is(&tailwater, "down").await, "the folder that takes Parquet is well");
    let (_, says) = tailwater.readiness().await;
    let blamed = "exporter parquet cannot use this machine's disk, 60 spans wait: make ";
    assert!(
        says.contains(blamed) && says.contains("parquet.part") && says.contains("No space left"),
        "{says}"
    );
    assert!(tailwater.said("this machine's disk keeps Parquet from being made") == 1);
    assert_eq!(tailwater.said("object store takes nothing"), 0);
    let part = data.join("parquet.part");
    eventually("no half file is left", WITHIN, async || (!part.exists()).then_some(())).await;
    fs::remove_file(ballast).unwrap();
    eventually("all of it is there", WITHIN, async || {
        (rows_below(&tailwater.parquet()).len() == 60 && !is(&tailwater, "stalled").await).then_some(())
    })
    .await;
    assert_eq!(tailwater.judged().await.kept, 60);
    assert!(tailwater.said("Parquet is written again") == 1);
    tailwater.drain().await;
    assert_eq!((rows_below(&tailwater.parquet()).len(), part.exists()), (60, false));
}

/// A folder that can be read alone, until this is dropped; files that are open already are not concerned.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn over(folder: &Path) -> Option<Self> {
        let mount = |arguments: &[&str]| {
            let done = Command::new("mount").args(arguments).arg(folder).output();
            done.is_ok_and(|done| done.status.success())
        };
        let name = folder.to_str().unwrap();
        let bound = mount(&["--bind", name]).then(|| Self(folder.to_owned()));
        let mounted = bound.filter(|_| mount(&["-o", "remount,bind,ro"]));
        if mounted.is_none() {
            eprintln!("skipped: nothing can be mounted here");
        }
        mounted
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_data_directory_is_refused_by_name_and_warned_of_by_check() {
    let folder = TempDir::new().unwrap();
    let (there, file) = (folder.path().join("there"), folder.path().join("t.yaml"));
    fs::create_dir(&there).unwrap();
    let Some(_read_only) = ReadOnly::over(&there) else { return };
    for data in [there.clone(), there.join("to/be/made")] {
        let yaml = format!(
            "receivers: {{ otlp: {{ grpc: {{ listen: \"127.0.0.1:0\" }} }} }}\ndata: {{ path: \"{}\" }}\n\
             telemetry: {{ listen: \"127.0.0.1:0\" }}\n",
            data.display()
        );
        fs::write(&file, yaml).unwrap();
        let expected = "data.path: expected a folder in which this process may create files, found ";
        let started = Tailwater::run(&["--config", file.to_str().unwrap()]);
        let (_, said) = text(&started);
        assert_eq!(started.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("{expected}{}: Read-only file system", data.display())), "{said}");
        let checked = Tailwater::run(&["check", file.to_str().unwrap()]);
        let (said, _) = text(&checked);
        assert!(checked.status.success(), "{said}");
        assert!(
            said.contains("warning: ") && said.contains(expected) && said.contains("Read-only"),
            "{said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_turns_read_only_is_told_of_refuses_and_comes_back() {
    let mut tailwater = Setup { policies: KEEP_ALL.to_owned(), ..Setup::default() }.start().await;
    let (mut sender, mut random) = (Sender::to(&tailwater), Random(33));
    sender.deliver(&request(&large(&mut random, 1))).await;
    let Some(read_only) = ReadOnly::over(&tailwater.data()) else { return };
    let named = format!("{}", tailwater.data().display());
    eventually("the state is missed", WITHIN, async || {
        let (status, says) = tailwater.readiness().await;
        let told = says.contains("the state cannot be kept, and nothing is deleted meanwhile: ");
        (status == 200 && told && says.contains(&named) && says.contains("Read-only file system"))
            .then_some(())
    })
    .await;
    let sent = fill(&mut sender, &mut random).await;
    let (status, says) = eventually("/readyz turns false", WITHIN, async || {
        Some(tailwater.readiness().await).filter(|(status, _)| *status == 503)
    })
    .await;
    let reason = says.contains("senders are refused for") && says.contains("cannot be written: ");
    assert!(reason && says.contains(&named) && says.contains("Read-only file system"), "{status} {says}");
    assert_eq!(tailwater.said("state is kept again"), 0);
    assert!(tailwater.said("log cannot be written, it is tried again") <= 2, "once for each log");
    drop(read_only);
    sender.deliver(&request(&large(&mut random, 1))).await;
    eventually("it is ready again", WITHIN, async || {
        (tailwater.readiness().await == (200, "ready\n".to_owned())).then_some(())
    })
    .await;
    let kept = tailwater.judged().await.kept;
    assert!(kept as usize >= sent + 3, "{kept} of {sent}");
    tailwater.drain().await;
    assert_eq!(rows_below(&tailwater.parquet()).len() as u64, kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_may_lose_its_oldest_and_counts_it() {
    let mut backend = Backend::start().await;
    let setup = Setup {
        disk: "64MiB",
        data_keys: "when_full: lose_oldest",
        parquet_keys: vec![],
        ..Setup::of(KEEP_ALL)
    };
    let tailwater = setup.forwarding(&backend).start().await;
    backend.down().await;
    let (mut sender, mut random) = (Sender::to(&tailwater), Random(23));
    for _ in 0..500 {
        sender.deliver(&request(&large(&mut random, 10))).await;
    }
    let ledger = tailwater.judged().await;
    assert_eq!(ledger.kept, 15_000);
    let of = async |name: &str| {
        let name = format!("tailwater_exporter_{name}");
        tailwater.metrics().await.sum(&name, &[("exporter", "backend")]) as u64
    };
    let evicted = of("lost_spans_total").await;
    assert!(evicted > 3_000, "{evicted}");
    assert!(tailwater.said("its oldest segment is given up") > 0);
    assert!(tailwater.data_bytes() < 80 << 20, "{} bytes", tailwater.data_bytes());
    backend.up().await;
    eventually("the rest is delivered", WITHIN, async || (of("pending_spans").await == 0).then_some(()))
        .await;
    assert_eq!(of("delivered_spans_total").await + of("lost_spans_total").await, ledger.kept);
    assert!(backend.distinct() as u64 >= ledger.kept - of("lost_spans_total").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_do_not_share_a_directory() {
    let tailwater = Setup::default().start().await;
    let second = tailwater.second().await;
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("in use by another process"), "{said}");
    assert_eq!(tailwater.readiness().await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_a_later_version_is_refused_untouched() {
    let mut tailwater = Setup::default().start().await;
    Sender::to(&tailwater).deliver(&request(&large(&mut Random(24), 1))).await;
    tailwater.kill();
    let path = newest(&tailwater.data().join("input"));
    let mut bytes = fs::read(&path).unwrap();
    bytes[8..12].copy_from_slice(&[2, 0, 0xfd, 0xff]);
    fs::write(&path, &bytes).unwrap();
    let refused = tailwater.second().await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("it has format version 2"), "{said}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_during_recovery_ends_it_and_the_next_start_begins_it_again() {
    let setup = Setup { after_root: "60s", max_wait: "60s", memory: "512MiB", ..Setup::default() };
    let mut tailwater = setup.start().await;
    let (mut sender, mut random) = (Sender::to(&tailwater), Random(25));
    for _ in 0..120 {
        let traces = Trace::some(600, &mut random);
        sender.deliver(&request(&traces)).await;
    }
    tailwater.kill();
    for moment in [0, 100, 300] {
        let said = tailwater.said("serving /status");
        drop(tailwater.launch());
        eventually("its admin port answers", WITHIN, async || {
            (tailwater.said("serving /status") > said).then_some(())
        })
        .await;
        tokio::time::sleep(Duration::from_millis(moment)).await;
        assert!(tailwater.terminate().await.success());
    }
    assert!(tailwater.said("stopped before it was ready") > 0, "recovery was too quick to be ended");
    tailwater.start().await;
    assert_eq!(tailwater.assert_ledger().await.recovered, 120 * 600 * 3);
}

/// A signal that comes sooner after the first counts as its echo.
const ECHO: Duration = Duration::from_millis(750);

#[tokio::test(flavor = "multi_thread")]
async fn a_second_sigterm_ends_a_drain_at_once_and_the_next_start_goes_on() {
    let mut backend = Backend::start().await;
    let setup = Setup { on_shutdown: "drain", ..Setup::of(KEEP_ALL) };
    let mut tailwater = setup.forwarding(&backend).start().await;
    Sender::to(&tailwater).deliver(&request(&large(&mut Random(26), 10))).await;
    backend.down().await;
    tailwater.signal("TERM");
    tailwater.says("shutting down").await; // and waits five minutes for the backend
    tokio::time::sleep(ECHO).await;
    assert_eq!(tailwater.terminate().await.code(), Some(1));
    backend.up().await;
    tailwater.start().await;
    backend.has(30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_cannot_deliver_ends_in_time_and_leaves_it_on_disk() {
    let mut backend = Backend::start().await;
    let setup = Setup {
        on_shutdown: "drain",
        data_keys: "drain_timeout: 3s", // instead of five minutes
        ..Setup::of(KEEP_ALL)
    };
    let mut tailwater = setup.forwarding(&backend).start().await;
    Sender::to(&tailwater).deliver(&request(&large(&mut Random(27), 10))).await;
    backend.down().await;
    assert!(tailwater.terminate().await.success());
    backend.up().await;
    tailwater.start().await;
    backend.has(30).await;
    assert_eq!(rows_below(&tailwater.parquet()).len(), 30, "Parquet was not kept waiting");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_of_what_was_left_says_what_it_cannot_deliver_and_ends_at_a_signal() {
    let mut backend = Backend::start().await;
    let mut tailwater = Setup::of(KEEP_ALL).forwarding(&backend).start().await;
    Sender::to(&tailwater).deliver(&request(&large(&mut Random(30), 10))).await;
    backend.down().await;
    tailwater.kill();
    let gave_up = tailwater.command().args(["drain", "--timeout", "3s"]).output().unwrap();
    let (_, said) = text(&gave_up);
    assert_eq!(gave_up.status.code(), Some(1), "{said}");
    assert!(said.contains("30 spans could not be delivered in time; they stay on disk"), "{said}");

    tailwater.launch_drain();
    tailwater.says("draining").await;
    assert_eq!(tailwater.terminate().await.code(), Some(1));
    backend.up().await;
    tailwater.drain().await;
    backend.has(30).await;
    assert_eq!(rows_below(&tailwater.parquet()).len(), 30);
}

fn newest(folder: &Path) -> PathBuf {
    let logs =
        files_below(folder).into_iter().filter(|path| path.extension().is_some_and(|name| name == "log"));
    logs.max().unwrap()
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// An instance that was killed with traces in both logs.
async fn killed(backend: &Backend) -> Tailwater {
    let mut tailwater = Setup::of(KEEP_ALL).forwarding(backend).start().await;
    let (mut sender, mut random) = (Sender::to(&tailwater), Random(28));
    for _ in 0..4 {
        sender.deliver(&request(&large(&mut random, 10))).await;
    }
    tailwater.judged().await;
    for _ in 0..4 {
        sender.deliver(&request(&large(&mut random, 10))).await;
    }
    tailwater.kill();
    tailwater
}

/// What many runs in memory show, once more with real files and the real binary.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_directory_is_started_from_and_says_what_it_lost() {
    let mut backend = Backend::start().await;
    backend.down().await;
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 6] = [
        ("a bit of the input log", |data| {
            change(&newest(&data.join("input")), |bytes| {
                let at = bytes.len() - 100;
                bytes[at] ^= 1;
            })
        }),
        ("a block of the input log", |data| {
            change(&newest(&data.join("input")), |bytes| {
                let middle = bytes.len() - 400_000;
                bytes[middle..middle + 4096].fill(0);
            })
        }),
        ("a cut outbox", |data| {
            change(&newest(&data.join("outbox")), |bytes| bytes.truncate(bytes.len() / 2))
        }),
        ("no outbox", |data| fs::remove_file(newest(&data.join("outbox"))).unwrap()),
        ("no state", |data| change(&data.join("state"), |bytes| bytes.fill(0))),
        ("no cursor", |data| fs::remove_file(data.join("cursor.backend")).unwrap()),
    ];
    for (what, damage) in damages {
        let mut tailwater = killed(&backend).await;
        damage(&tailwater.data());
        tailwater.start().await;
        tailwater.judged().await;
        let metrics = tailwater.metrics().await;
        let told = metrics.sum("tailwater_log_lost_bytes_total", &[("cause", "corrupt")]);
        assert!(told > 0.0 || what == "no cursor" || what.contains("outbox"), "{what}");
        assert!(tailwater.resident() < 400 << 20, "{what}: {} bytes", tailwater.resident());
    }
}

fn text(output: &std::process::Output) -> (String, String) {
    let read = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (read(&output.stdout), read(&output.stderr))
}

fn dumped(output: &std::process::Output) -> Vec<ExportTraceServiceRequest> {
    assert!(output.status.success(), "{:?}", text(output));
    text(output).0.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_can_be_looked_into_beside_a_running_instance() {
    let mut backend = Backend::start().await;
    backend.down().await;
    let tailwater = Setup::of(KEEP_ALL).forwarding(&backend).start().await;
    let mut random = Random(29);
    let traces = Trace::some(10, &mut random);
    Sender::to(&tailwater).deliver(&request(&traces)).await;
    tailwater.judged().await;
    let data = tailwater.data();
    let data = data.to_str().unwrap();
    let listed = eventually("all is listed", WITHIN, async || {
        let (listed, _) = text(&Tailwater::run(&["log", "ls", data]));
        listed.contains("30 spans wait in 10 records").then_some(listed)
    })
    .await;
    for word in
        ["state      written", "input log  1 segments", "outbox     1 segments", "exporters  2", "parquet"]
    {
        assert!(listed.contains(word), "{word} is not in\n{listed}");
    }
    let verified = Tailwater::run(&["log", "verify", data]);
    assert!(verified.status.success(), "{:?}", text(&verified));
    let spans = |requests: &[ExportTraceServiceRequest]| {
        let scopes = requests.iter().flat_map(|request| &request.resource_spans);
        scopes.flat_map(|above| &above.scope_spans).map(|scope| scope.spans.len()).sum::<usize>()
    };
    assert_eq!(spans(&dumped(&Tailwater::run(&["log", "dump", data]))), 30);
    assert_eq!(spans(&dumped(&Tailwater::run(&["log", "dump", data, "--requests"]))), 30);
    let id = to_hex(&traces[3].id);
    for requests in [&[][..], &["--requests"]] {
        let one = dumped(&Tailwater::run(&[&["log", "dump", data, "--trace", &id], requests].concat()));
        assert_eq!(spans(&one), 3);
        let found = &one[0].resource_spans[0].scope_spans[0].spans[0];
        assert_eq!(found.trace_id, traces[3].id);
    }
    assert_eq!(tailwater.readiness().await.0, 200, "nothing was locked");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_found_by_verify_and_the_rest_is_dumped() {
    let mut backend = Backend::start().await;
    backend.down().await;
    let tailwater = killed(&backend).await;
    let data = tailwater.data();
    change(&newest(&data.join("input")), |bytes| {
        let at = bytes.len() - 100;
        bytes[at] ^= 1;
    });
    let name = data.to_str().unwrap();
    let verified = Tailwater::run(&["log", "verify", name]);
    let (said, _) = text(&verified);
    assert_eq!(verified.status.code(), Some(1), "{said}");
    assert!(said.contains("bytes cannot be read") && said.contains("input"), "{said}");
    assert!(text(&Tailwater::run(&["log", "ls", name])).0.contains("wrong: "));
    assert_eq!(dumped(&Tailwater::run(&["log", "dump", name, "--requests"])).len(), 7);
    let elsewhere = Tailwater::run(&["log", "ls", "/"]);
    assert_eq!(elsewhere.status.code(), Some(2));
    let help = text(&Tailwater::run(&["log", "--help"])).0;
    for word in ["Examples:", "3 a.m.", "--requests", "takes no lock"] {
        assert!(help.contains(word), "{word}");
    }
}

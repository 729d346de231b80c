//! What people look at: the status page in a real browser, the alerts and the dashboard in a real Prometheus.
//!
//! Chromium, Prometheus and promtool are Debian's. Where one is missing its test says so and ends, unless
//! `TAILWATER_ALL_TOOLS` is set, as it is in CI.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tonic::Code;

use super::support::{
    Backend, Fault, Random, Sender, Setup, Tailwater, Trace, WITHIN, eventually, free_address, http_client,
    request,
};

/// Everything is kept, and durations are learned.
const KEEP_ALL: &str = "\n  - { name: slow, slower_than: p95, keep: 100% }\n  - { name: all, keep: 100% }";
const ALERTS: &str = include_str!("../../config/monitoring/alerts.yaml");
const DASHBOARD: &str = include_str!("../../config/monitoring/dashboard.json");

/// Whether a program is there. Says so if it is not.
fn has(program: &str) -> bool {
    let found =
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    assert!(found || std::env::var_os("TAILWATER_ALL_TOOLS").is_none(), "{program} is not installed");
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

fn run(program: &str, arguments: &[&str], folder: &Path) -> String {
    let done = Command::new(program).args(arguments).current_dir(folder).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{program} {arguments:?}: {out}{err}");
    out.into_owned()
}

#[test]
fn the_alerts_fire_when_they_should_and_only_then() {
    if !has("promtool") {
        return;
    }
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("alerts.yaml"), ALERTS).unwrap();
    let tests = include_str!("../monitoring/alerts_test.yaml");
    std::fs::write(folder.path().join("alerts_test.yaml"), tests).unwrap();
    run("promtool", &["check", "rules", "alerts.yaml"], folder.path());
    run("promtool", &["test", "rules", "alerts_test.yaml"], folder.path());
}

async fn json(url: &str) -> Option<Value> {
    let body = http_client().get(url).send().await.ok()?.bytes().await.ok()?;
    serde_json::from_slice(&body).ok()
}

/// A Prometheus that scrapes instances every second, with the alerts' minutes as seconds.
struct Prometheus {
    process: Child,
    url: String,
    _folder: TempDir,
}

impl Prometheus {
    fn start(targets: &[&Tailwater]) -> Self {
        let folder = TempDir::new().unwrap();
        let quick = ALERTS
            .replace("m])", "s])")
            .replace("m]) ", "s]) ")
            .replace(" 10000", " 10")
            .replace(" 900 ", " 5 ");
        let quick: String = quick
            .lines()
            .filter(|line| !line.trim().starts_with("for:"))
            .map(|line| format!("{line}\n"))
            .collect();
        std::fs::write(folder.path().join("alerts.yaml"), quick).unwrap();
        let targets: Vec<String> = targets
            .iter()
            .map(|target| target.telemetry().trim_start_matches("http://").to_owned())
            .collect();
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
             rule_files: [alerts.yaml]\n\
             scrape_configs:\n  - job_name: tailwater\n    static_configs: [{{ targets: {targets:?} }}]\n"
        );
        std::fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        let address = free_address().to_string();
        let process = Command::new("prometheus")
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg(format!("--web.listen-address={address}"))
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, url: format!("http://{address}/api/v1"), _folder: folder }
    }

    async fn get(&self, path: &str) -> Option<Value> {
        Some(json(&format!("{}/{path}", self.url)).await?["data"].take())
    }

    async fn fires(&self, name: &str) {
        eventually(&format!("{name} fires"), WITHIN, async || {
            let alerts = self.get("alerts").await?;
            let fires = |alert: &Value| alert["labels"]["alertname"] == name && alert["state"] == "firing";
            alerts["alerts"].as_array()?.iter().any(fires).then_some(())
        })
        .await;
    }

    async fn knows(&self, name: &str) {
        eventually(&format!("a series named {name}"), WITHIN, async || {
            let names = self.get("label/__name__/values").await?;
            names.as_array()?.iter().any(|known| known == name).then_some(())
        })
        .await;
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The names of our metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|char: char| !(char.is_ascii_alphanumeric() || char == '_'));
    words.filter(|word| word.starts_with("tailwater_")).collect()
}

/// Fills the disk budget of an instance whose backend is down.
async fn until_refused(sender: &mut Sender, random: &mut Random) {
    loop {
        let traces = Trace::some(200, random);
        if let Err(status) = sender.send(&request(&traces)).await {
            assert_eq!(status.code(), Code::Unavailable, "{status}");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prometheus_that_scrapes_instances_in_trouble_raises_the_alerts() {
    if !has("prometheus") {
        return;
    }
    let (refusing_backend, mut dead_backend) = (Backend::start().await, Backend::start().await);
    refusing_backend.fault(Fault::Answers(Code::InvalidArgument));
    let setup = || Setup { disk: "64MiB", ..Setup::of(KEEP_ALL) };
    let loses = setup().forwarding(&refusing_backend).start().await;
    let full = setup().forwarding(&dead_backend).start().await;
    dead_backend.down().await;
    let prometheus = Prometheus::start(&[&loses, &full]);
    prometheus.knows("tailwater_build_info").await;

    let mut random = Random(11);
    let (mut to_loses, mut to_full) = (Sender::to(&loses), Sender::to(&full));
    let keeps_sending = async {
        loop {
            let _ = to_loses.send(&request(&[Trace::new(&mut random)])).await;
            until_refused(&mut to_full, &mut random).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let watches = async {
        prometheus.fires("TailwaterLosing").await;
        prometheus.fires("TailwaterRefusing").await;
        prometheus.fires("TailwaterFallingBehind").await;
        for name in metrics_in(ALERTS).into_iter().chain(metrics_in(DASHBOARD)) {
            prometheus.knows(name).await;
        }
    };
    tokio::select! {
        () = keeps_sending => unreachable!("it goes on"),
        () = watches => {}
    }
    let rules = prometheus.get("rules").await.unwrap();
    let rules = rules["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.iter().all(|rule| rule["health"] == "ok"), "{rules:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_page_in_a_browser_and_as_json_say_the_same() {
    let tailwater = Setup::default().start().await;
    let mut sender = Sender::to(&tailwater);
    let mut random = Random(12);
    let traces = Trace::some(50, &mut random);
    sender.deliver(&request(&traces)).await;
    let ledger = tailwater.judged().await;
    let url = format!("{}/status", tailwater.telemetry());
    let json = json(&format!("{url}?format=json")).await.unwrap();
    assert_eq!(json["ledger"]["accepted"], ledger.accepted);
    assert_eq!(json["ledger"]["kept"], ledger.kept);
    assert_eq!(json["difference"], 0);
    assert_eq!(json["unready"], Value::Null);
    let largest = json["largest_traces"].as_array().unwrap();
    assert_eq!(largest.len(), 10);
    let names: Vec<_> = json["policies"].as_array().unwrap().iter().map(|policy| &policy["name"]).collect();
    assert_eq!(names, ["errors", "rest", "none"]);
    if !has("chromium") {
        return;
    }
    let folder = TempDir::new().unwrap();
    let profile = format!("--user-data-dir={}", folder.path().display());
    let arguments = ["--headless", "--no-sandbox", "--disable-gpu", &profile, "--dump-dom", &url];
    let page = run("chromium", &arguments, folder.path());
    assert!(page.contains("takes requests"), "{page}");
    for heading in ["Policies", "Ledger", "Exporters", "Largest traces in memory", "Refused requests"] {
        assert!(page.contains(&format!("<h2>{heading}</h2>")), "{heading} in {page}");
    }
    assert!(page.contains(largest[0]["trace_id"].as_str().unwrap()), "{page}");
}

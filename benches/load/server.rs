//! The server under load, and what it says of itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// `_SC_CLK_TCK` of every Linux that this runs on.
const TICKS_PER_SECOND: u64 = 100;

/// What the phases vary.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    pub memory: u64,
    pub after_root: Duration,
    pub max_wait: Duration,
    /// More keys of `data`.
    pub data: &'static str,
    /// The list of policies, indented by two.
    pub policies: &'static str,
}

/// What is kept without a file, but for health checks, which the traffic has not.
pub const FEW: &str = r#"
  - { name: errors, match: "{ status = error }", keep: 100% }
  - { name: slow, slower_than: p95, keep: 100% }
  - { name: rest, keep: 5% }
"#;

/// Ten as people write them: four about attributes, one about structure, one about a count. They keep the same.
pub const TEN: &str = r#"
  - { name: health-checks, match: "{ rootName =~ `GET /(healthz|readyz)` }", keep: 0% }
  - { name: errors, match: "{ status = error }", keep: 100% }
  - { name: gold, match: "{ span.customer.tier = `gold` }", keep: 50% }
  - { name: server-errors, match: "{ kind = server && span.http.response.status_code >= 500 }", keep: 100% }
  - { name: canary, match: "{ resource.deployment.environment.name = `canary` }", keep: 20% }
  - { name: oracle, match: "{ span.db.system.name = `oracle` }", keep: 50% }
  - { name: failed-checkout, match: "{ name = `checkout` } >> { status = error }", keep: 100% }
  - { name: chatty, match: "{ kind = client && duration > 1ms } | count() > 50", keep: 10% }
  - { name: slow, slower_than: p95, keep: 100% }
  - { name: rest, keep: 5% }
"#;

/// What was measured at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub cpu: Duration,
    pub resident: u64,
    pub accepted: u64,
    pub kept: u64,
    pub dropped: u64,
    /// Wire bytes of the requests in the memory log.
    pub log_bytes: u64,
}

/// What there is in the end.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub ledger: String,
    pub bytes_per_span: f64,
}

/// The binary with everything on.
#[derive(Debug)]
pub struct Server {
    child: Child,
    folder: PathBuf,
    pub grpc: String,
    telemetry: String,
}

impl Server {
    pub fn start(budget: &Budget, sink: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("load-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let config = folder.join("tailwater.yaml");
        std::fs::write(&config, yaml(budget, sink, &folder)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailwater"));
        command.arg("--config").arg(config).args(["--log-format", "json"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let (grpc, telemetry) = addresses(log);
        let server = Self { child, folder, grpc: format!("http://{grpc}"), telemetry };
        while !server.get("/readyz").starts_with("HTTP/1.0 200")
            && !server.get("/readyz").starts_with("HTTP/1.1 200")
        {
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    pub fn sample(&self) -> Sample {
        let metrics = self.get("/metrics");
        Sample {
            cpu: self.cpu(),
            resident: self.resident(),
            accepted: sum(&metrics, "tailwater_receiver_accepted_spans_total"),
            kept: sum(&metrics, "tailwater_sampler_kept_spans_total"),
            dropped: sum(&metrics, "tailwater_sampler_dropped_spans_total"),
            log_bytes: sum(&metrics, "tailwater_buffer_log_bytes"),
        }
    }

    /// Waits until all is judged and ends the server.
    pub fn finish(mut self) -> Outcome {
        let mut metrics = self.get("/metrics");
        for _ in 0..600 {
            if sum(&metrics, "tailwater_buffer_unjudged_spans") == 0 {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
            metrics = self.get("/metrics");
        }
        let term = |name| sum(&metrics, name);
        let came = term("tailwater_receiver_accepted_spans_total")
            + term("tailwater_pipeline_recovered_spans_total")
            + term("tailwater_buffer_upgraded_spans_total");
        let kept = term("tailwater_sampler_kept_spans_total");
        let went = kept
            + term("tailwater_sampler_dropped_spans_total")
            + term("tailwater_buffer_unjudged_spans")
            + term("tailwater_buffer_duplicate_spans_total")
            + term("tailwater_pipeline_lost_spans_total");
        let balance = if came == went { "balances" } else { "DOES NOT BALANCE" };
        let ledger = format!("{came} = {went} {balance}");
        self.stop();
        self.drain();
        let bytes = parquet_bytes(&self.folder.join("parquet")) as f64;
        Outcome { ledger, bytes_per_span: bytes / kept.max(1) as f64 }
    }

    fn stop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }

    /// Writes the Parquet of what is left.
    fn drain(&self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailwater"));
        command.arg("--config").arg(self.folder.join("tailwater.yaml")).arg("drain");
        let drained = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(drained.success(), "drain ended with {drained}");
    }

    /// User and system time of all its threads.
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND)
    }

    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1_024
    }

    fn get(&self, path: &str) -> String {
        let mut answer = String::new();
        let Ok(mut stream) = TcpStream::connect(&self.telemetry) else {
            return answer;
        };
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn yaml(budget: &Budget, sink: &str, folder: &Path) -> String {
    let Budget { memory, after_root, max_wait, data, policies } = budget;
    let (memory, after_root, max_wait) = (memory >> 20, after_root.as_secs(), max_wait.as_secs());
    let folder = folder.display();
    format!(
        r#"receivers:
  otlp:
    grpc: {{ listen: "127.0.0.1:0" }}
    http: {{ listen: "127.0.0.1:0" }}
data: {{ path: "{folder}/data", disk: 30GiB, {data} }}
buffer: {{ memory: {memory}MiB, after_root: {after_root}s, max_wait: {max_wait}s, hindsight: 5m }}
policies:{policies}
exporters:
  parquet: {{ url: "file:{folder}/parquet", roll: {{ age: 10s, size: 1GiB }} }}
  otlp:
    - {{ name: sink, endpoint: "{sink}" }}
telemetry: {{ listen: "127.0.0.1:0" }}
"#
    )
}

/// Where the process says that it listens; the rest of its log is read and dropped.
fn addresses(mut log: impl BufRead + Send + 'static) -> (String, String) {
    let (mut grpc, mut telemetry) = (None, None);
    let mut line = String::new();
    while grpc.is_none() || telemetry.is_none() {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "it ended before it listened");
        let Ok(said) = serde_json::from_str::<serde_json::Value>(&line) else {
            continue;
        };
        let address = said["address"].as_str().map(str::to_owned);
        match said["message"].as_str() {
            Some("listening for OTLP/gRPC") => grpc = address,
            Some("serving /status, /metrics, /healthz, /readyz") => telemetry = address,
            _ => (),
        }
    }
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::stderr()));
    (grpc.unwrap(), telemetry.unwrap())
}

/// The sum of all series of a name.
fn sum(metrics: &str, name: &str) -> u64 {
    let of_name = |line: &&str| line.split(['{', ' ']).next() == Some(name);
    let value = |line: &str| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap();
    metrics.lines().filter(of_name).map(value).sum::<f64>() as u64
}

fn parquet_bytes(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let bytes = |path: PathBuf| match path.is_dir() {
        true => parquet_bytes(&path),
        false => path.metadata().map_or(0, |metadata| metadata.len()),
    };
    entries.map_while(Result::ok).map(|entry| bytes(entry.path())).sum()
}

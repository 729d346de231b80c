//! The binary as a child process.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::TempDir;

use super::object_store::BUCKET;
use super::{Backend, Ledger, Metrics, ObjectStore, WITHIN, eventually, http_client};

/// Errors are kept, and one in twenty of the rest.
const POLICIES: &str = r#"
  - { name: errors, match: "{ status = error }", keep: 100% }
  - { name: rest, keep: 5% }
"#;

pub const KEEP_ALL: &str = "\n  - { name: all, keep: 100% }";
/// By the randomness of the trace: see [`super::HALF`].
pub const ERRORS_AND_HALF: &str = r#"
  - { name: errors, match: "{ status = error }", keep: 100% }
  - { name: half, keep: 50% }
"#;

/// Memory beside the budget: sketches, one row group, the program, what the allocator has not given back.
pub const BESIDE: u64 = 250 << 20;

/// What a test wants different from everybody else's configuration.
#[derive(Clone, Debug)]
pub struct Setup {
    /// YAML of the list of policies, indented by two.
    pub policies: String,
    pub memory: &'static str,
    pub after_root: &'static str,
    pub max_wait: &'static str,
    pub hindsight: &'static str,
    pub disk: &'static str,
    /// `resume` or `drain`.
    pub on_shutdown: &'static str,
    /// More keys of `data`, as `key: value`.
    pub data_keys: &'static str,
    /// The data directory; nothing: a folder of its own.
    pub data: Option<PathBuf>,
    /// The header whose value is the tenant.
    pub tenant_header: Option<&'static str>,
    /// The value of `telemetry.red`.
    pub red: &'static str,
    /// Where Parquet goes; nothing: a folder beside the data.
    pub parquet_url: Option<String>,
    /// More keys of the Parquet exporter, as `key: value`.
    pub parquet_keys: Vec<String>,
    /// One flow mapping of YAML for each OTLP exporter.
    pub otlp: Vec<String>,
    pub environment: Vec<(String, String)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            policies: POLICIES.to_owned(),
            memory: "256MiB",
            after_root: "1s",
            max_wait: "3s",
            hindsight: "60s",
            disk: "2GiB",
            on_shutdown: "resume",
            data_keys: "",
            data: None,
            tenant_header: None,
            red: "{}",
            parquet_url: None,
            parquet_keys: Vec::new(),
            otlp: Vec::new(),
            environment: Vec::new(),
        }
    }
}

impl Setup {
    /// These policies.
    pub fn of(policies: &str) -> Self {
        Self { policies: policies.to_owned(), ..Self::default() }
    }

    /// Adds an exporter to this backend, over gRPC, that has the name `backend`.
    pub fn forwarding(self, backend: &Backend) -> Self {
        self.forward_to("backend", &format!("endpoint: \"{}\"", backend.grpc()))
    }

    /// Parquet goes to this place in a bucket.
    pub fn storing_in(self, store: &ObjectStore, place: &str) -> Self {
        Self {
            parquet_url: Some(format!("s3://{BUCKET}/{place}")),
            parquet_keys: vec![format!("s3: {{ endpoint: \"{}\", region: us-east-1 }}", store.endpoint())],
            environment: ObjectStore::environment(),
            ..self
        }
    }

    /// Adds an OTLP exporter.
    pub fn forward_to(mut self, name: &str, keys: &str) -> Self {
        self.otlp.push(format!("{{ name: {name}, {keys} }}"));
        self
    }

    /// Starts the process and waits until it is ready.
    pub async fn start(self) -> Tailwater {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("tailwater.yaml"), self.yaml(folder.path())).unwrap();
        let mut tailwater = Tailwater {
            life: None,
            reader: None,
            addresses: Arc::default(),
            data: self.data.clone().unwrap_or_else(|| folder.path().join("data")),
            folder,
            environment: self.environment,
            log: Arc::default(),
        };
        tailwater.start().await;
        tailwater
    }

    fn yaml(&self, folder: &Path) -> String {
        let folder = folder.display();
        let url = self.parquet_url.clone().unwrap_or_else(|| format!("file:{folder}/parquet"));
        let keys: String = self.parquet_keys.iter().map(|key| format!("\n    {key}")).collect();
        let otlp: String = self.otlp.iter().map(|exporter| format!("\n    - {exporter}")).collect();
        let otlp = if otlp.is_empty() { String::new() } else { format!("\n  otlp:{otlp}") };
        let tenant =
            self.tenant_header.map_or_else(String::new, |name| format!("\n    tenant_header: {name}"));
        let Self {
            policies, memory, after_root, max_wait, hindsight, disk, on_shutdown, data_keys, red, ..
        } = self;
        let data = self.data.clone().unwrap_or_else(|| Path::new(&folder.to_string()).join("data"));
        let data = data.display();
        format!(
            r#"receivers:
  otlp:
    grpc: {{ listen: "127.0.0.1:0" }}
    http: {{ listen: "127.0.0.1:0" }}{tenant}
data: {{ path: "{data}", disk: {disk}, on_shutdown: {on_shutdown}, {data_keys} }}
buffer: {{ memory: {memory}, after_root: {after_root}, max_wait: {max_wait}, hindsight: {hindsight} }}
policies:{policies}
exporters:
  parquet:
    url: "{url}"
    roll: {{ age: 2s, size: 64MiB }}{keys}{otlp}
telemetry: {{ listen: "127.0.0.1:0", red: {red} }}
"#
        )
    }
}

/// Where one life of the process listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    pub grpc: String,
    pub http: String,
    pub telemetry: String,
}

impl Addresses {
    /// Takes what a line of the log says of where the process listens.
    fn read(&mut self, line: &str) {
        let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else { return };
        let (Some(message), Some(address)) = (line["message"].as_str(), line["address"].as_str()) else {
            return;
        };
        match message {
            "listening for OTLP/gRPC" => self.grpc = address.to_owned(),
            "listening for OTLP/HTTP" => self.http = address.to_owned(),
            "serving /status, /metrics, /healthz, /readyz" => self.telemetry = address.to_owned(),
            _ => (),
        }
    }

    fn complete(&self) -> bool {
        !self.grpc.is_empty() && !self.http.is_empty() && !self.telemetry.is_empty()
    }
}

/// A process, its configuration and its folder. The folder outlives the process, so it can be started again.
#[derive(Debug)]
pub struct Tailwater {
    life: Option<Child>,
    reader: Option<JoinHandle<()>>,
    addresses: Arc<Mutex<Addresses>>,
    folder: TempDir,
    data: PathBuf,
    environment: Vec<(String, String)>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Tailwater {
    /// Starts the process, again after it ended, and waits until it is ready.
    pub async fn start(&mut self) {
        self.spawn();
        self.ready().await;
    }

    /// Starts the process and does not wait for anything.
    pub fn launch(&mut self) -> mpsc::Receiver<Addresses> {
        self.launch_command(self.command())
    }

    /// Begins a drain of what a process left, as the process that runs.
    pub fn launch_drain(&mut self) {
        let mut command = self.command();
        command.arg("drain");
        drop(self.launch_command(command));
    }

    fn launch_command(&mut self, mut command: Command) -> mpsc::Receiver<Addresses> {
        assert!(self.life.is_none(), "it runs");
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let (tell, told) = mpsc::channel();
        let (stderr, log) = (child.stderr.take().unwrap(), self.log.clone());
        self.reader = Some(std::thread::spawn(move || read_log(stderr, &log, &tell)));
        self.life = Some(child);
        told
    }

    fn spawn(&mut self) {
        let told = self.launch();
        let addresses = told.recv_timeout(WITHIN).expect("it says where it listens");
        *self.addresses.lock().unwrap() = addresses;
    }

    /// The binary with its configuration.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailwater"));
        command.arg("--config").arg(self.folder.path().join("tailwater.yaml")).args(["--log-format", "json"]);
        command.current_dir(self.folder.path()).envs(self.environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    async fn ready(&self) {
        let url = format!("http://{}/readyz", self.addresses().telemetry);
        let client = http_client();
        eventually("/readyz turns true", WITHIN, async || {
            client.get(&url).send().await.ok().filter(|answer| answer.status().is_success())
        })
        .await;
    }

    /// kill -9. All it said can be read when this returns.
    pub fn kill(&mut self) {
        let mut child = self.life.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
    }

    /// Whether it has not ended by itself.
    pub fn runs(&mut self) -> bool {
        self.life.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// SIGTERM, and waits until it has ended.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        let mut child = self.life.take().expect("it runs");
        eventually("it ends after SIGTERM", WITHIN, async || child.try_wait().unwrap()).await
    }

    /// Ends the process, if it runs, and has what it left judged and delivered.
    pub async fn drain(&mut self) {
        if self.life.is_some() {
            assert!(self.terminate().await.success());
        }
        let mut command = self.command();
        command.arg("drain").stderr(Stdio::piped());
        let drained = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        assert!(drained.status.success(), "drain: {}", String::from_utf8_lossy(&drained.stderr));
    }

    /// What `tailwater why` answers, beside this process if it runs.
    pub async fn why(&self, arguments: &[&str]) -> String {
        let output = self.run_why(arguments).await;
        assert!(output.status.success(), "why: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it says when it refuses its arguments.
    pub async fn why_refused(&self, arguments: &[&str]) -> String {
        let output = self.run_why(arguments).await;
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    }

    async fn run_why(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = self.command();
        command.arg("why").args(arguments).arg("--url").arg(self.telemetry());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        let status = Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap();
        assert!(status.success());
    }

    pub fn pid(&self) -> u32 {
        self.life.as_ref().expect("it runs").id()
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most that was resident since it started.
    pub fn peak_resident(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Processor time that it has taken since it started.
    pub fn processor(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields = stat.rsplit(')').next().unwrap().split_whitespace();
        // utime and stime, in hundredths of a second.
        Duration::from_millis(fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum())
    }

    /// Where the present life listens; a [`super::Sender`] follows it from life to life.
    pub fn shared_addresses(&self) -> Arc<Mutex<Addresses>> {
        self.addresses.clone()
    }

    fn addresses(&self) -> Addresses {
        self.addresses.lock().unwrap().clone()
    }

    pub fn grpc(&self) -> String {
        format!("http://{}", self.addresses().grpc)
    }

    pub fn http(&self) -> String {
        format!("http://{}", self.addresses().http)
    }

    pub fn telemetry(&self) -> String {
        format!("http://{}", self.addresses().telemetry)
    }

    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("tailwater.yaml")
    }

    /// The text of its configuration.
    pub fn config(&self) -> String {
        std::fs::read_to_string(self.config_file()).unwrap()
    }

    /// Waits until a line of the log has this text.
    pub async fn says(&self, text: &str) {
        eventually(&format!("the log says {text}"), WITHIN, async || {
            self.log.lock().unwrap().iter().any(|line| line.contains(text)).then_some(())
        })
        .await;
    }

    pub fn data(&self) -> PathBuf {
        self.data.clone()
    }

    /// Runs a command of the binary, and waits until it has ended.
    pub fn run(arguments: &[&str]) -> std::process::Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailwater"));
        command.args(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// Another process with the same configuration, until it has ended.
    pub async fn second(&self) -> std::process::Output {
        let mut command = self.command();
        command.stderr(Stdio::piped());
        tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
    }

    /// Lines of its log so far that hold this text.
    pub fn said(&self, text: &str) -> usize {
        self.log.lock().unwrap().iter().filter(|line| line.contains(text)).count()
    }

    /// The status of `/readyz` and its reason.
    pub async fn readiness(&self) -> (u16, String) {
        let answer = http_client().get(format!("{}/readyz", self.telemetry())).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// The folder that Parquet goes to unless the setup says otherwise.
    pub fn parquet(&self) -> PathBuf {
        self.folder.path().join("parquet")
    }

    /// Of the memory and the disk that it is given unless the setup says otherwise it takes no more.
    pub fn assert_in_bounds(&self) {
        let (disk, resident) = (self.data_bytes(), self.resident());
        assert!(disk < 2 << 30, "{disk} bytes on disk");
        assert!(resident < (256 << 20) + BESIDE, "{resident} bytes resident");
    }

    /// Bytes of all files of the data directory.
    pub fn data_bytes(&self) -> u64 {
        super::rows::files_below(&self.data())
            .iter()
            .filter_map(|file| file.metadata().ok())
            .map(|m| m.len())
            .sum()
    }

    pub async fn metrics(&self) -> Metrics {
        let url = format!("{}/metrics", self.telemetry());
        let answer = http_client().get(url).send().await.unwrap();
        Metrics::parse(&answer.text().await.unwrap())
    }

    /// Asserts that the books balance. They are exact while nothing moves, so this waits for a moment of rest.
    pub async fn assert_ledger(&self) -> Ledger {
        let mut seen = None;
        for _ in 0..200 {
            let ledger = Ledger::of(&self.metrics().await);
            if ledger.balances() && seen == Some(ledger) {
                return ledger;
            }
            seen = Some(ledger);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the ledger does not balance: {}", seen.unwrap());
    }

    /// Waits until every accepted span has been judged.
    pub async fn judged(&self) -> Ledger {
        eventually("everything is judged", WITHIN, async || {
            let ledger = Ledger::of(&self.metrics().await);
            (ledger.buffered == 0 && ledger.balances()).then_some(ledger)
        })
        .await
    }
}

impl Drop for Tailwater {
    fn drop(&mut self) {
        if let Some(child) = &mut self.life {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let from = log.len().saturating_sub(40);
            eprintln!("the last lines of its log:\n{}", log[from..].join("\n"));
        }
    }
}

fn read_log(stderr: ChildStderr, log: &Mutex<Vec<String>>, tell: &mpsc::Sender<Addresses>) {
    let mut addresses = Addresses::default();
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if !addresses.complete() {
            addresses.read(&line);
            if addresses.complete() {
                // Nobody waits any more if the process took too long.
                let _ = tell.send(addresses.clone());
            }
        }
        log.lock().unwrap().push(line);
    }
}

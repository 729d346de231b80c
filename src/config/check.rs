//! What no single value shows: contradictions are refused, oddities are warned of.

use std::fmt;
use std::path::Path;

use serde_saphyr::Location;

use super::mistake::Source;
use super::tree::{Kind, Node};
use super::{Config, Input, Mistake, available_memory, place};
use crate::exporter::otlp::Endpoint;
use crate::exporter::parquet::Target;
use crate::log::grouped::SEGMENT_MAX;
use crate::sampler::{Policies, PolicyConfig, QueryError, RootCondition};
use crate::units::{ByteSize, HumanDuration, MemoryLimit};

/// The largest request in flight, its copy in the log with the index, and as large a one before it fit.
pub const MEMORY_MIN: ByteSize = ByteSize::mib(64);
/// Some segments of both logs, one of them preallocated.
const DISK_MIN: ByteSize = ByteSize::mib(64);
/// Outbox segments have offsets of 32 bits.
const ROLL_SIZE_MAX: ByteSize = ByteSize(SEGMENT_MAX);
/// Below, there is an object for each moment.
const ROLL_AGE_MIN: HumanDuration = HumanDuration::from_secs(1);
/// How long SDK batch processors hold a span, each at its own phase.
const SDK_BATCH: HumanDuration = HumanDuration::from_secs(5);

/// Something allowed that is probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    file_position: Mistake,
}

impl Warning {
    pub fn message(&self) -> &str {
        &self.file_position.message
    }

    pub fn line(&self) -> usize {
        self.file_position.line
    }

    /// As mistakes are shown, for the file of this name.
    pub fn in_file(&self, file: &str) -> String {
        struct Shown<'a>(&'a Mistake, &'a str);
        impl fmt::Display for Shown<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.render(self.1, f)
            }
        }
        Shown(&self.file_position, file).to_string()
    }
}

/// Finds the place of what is said about a path, as far as the path is written in the file.
struct Notes<'a> {
    source: Source<'a>,
    document: &'a Node,
    found: Vec<Mistake>,
}

impl<'a> Notes<'a> {
    fn new(source: Source<'a>, document: &'a Node) -> Self {
        Self { source, document, found: Vec::new() }
    }

    fn add(&mut self, path: &str, message: impl Into<String>) {
        let at = self.document.get(path).map_or(Location::UNKNOWN, |node| node.at);
        self.push(path, at, message.into());
    }

    /// About a byte of the value at `path`.
    fn add_within(&mut self, path: &str, offset: usize, message: &str) {
        let Some(Node { at, kind: Kind::Scalar(value) }) = self.document.get(path) else {
            return self.add(path, message);
        };
        match place::within(self.source, *at, value, offset) {
            Some((line, column)) => {
                // The column in the value gives way to the place in the file.
                let own = message.strip_prefix("column ").and_then(|rest| rest.split_once(": "));
                let message = own.map_or(message, |(_, message)| message);
                self.found.push(self.source.mistake_at(line, column, 1, message));
            }
            // The value is written otherwise in the file: then it is shown as it is.
            None => self.push(path, *at, format!("{message}\n{}", QueryError::pointer(value, offset))),
        }
    }

    fn push(&mut self, path: &str, at: Location, message: String) {
        // A default is nowhere in the file: then the path must be said.
        let message = if at == Location::UNKNOWN { format!("{path}: {message}") } else { message };
        self.found.push(self.source.mistake(at, message));
    }
}

pub(super) fn mistakes(config: &Config, source: Source<'_>, document: &Node) -> Vec<Mistake> {
    let mut notes = Notes::new(source, document);
    waits(config, &mut notes);
    room(config, &mut notes);
    roll(config, &mut notes);
    ports(config, &mut notes);
    root(config, &mut notes);
    policies(config, &mut notes);
    exporters(config, &mut notes);
    store(config, &mut notes);
    origins(config, &mut notes);
    if let Err(error) = config.log.filter() {
        notes.add(
            "log.level",
            format!("found \"{}\", expected a level such as info: {error}", config.log.level),
        );
    }
    notes.found
}

fn waits(config: &Config, notes: &mut Notes<'_>) {
    let buffer = &config.buffer;
    let said = |path: &str| notes.document.get(path).is_some();
    let (max_wait_said, hindsight_said) = (said("buffer.max_wait"), said("buffer.hindsight"));
    if buffer.max_wait < buffer.after_root && !max_wait_said {
        let message =
            format!("found {}, expected at most max_wait, which is {}", buffer.after_root, buffer.max_wait);
        notes.add("buffer.after_root", message);
    } else if buffer.max_wait < buffer.after_root {
        let message = format!(
            "found {}, expected at least after_root, which is {}",
            buffer.max_wait, buffer.after_root
        );
        notes.add("buffer.max_wait", message);
    }
    if buffer.after_root.as_millis() == 0 {
        notes.add("buffer.after_root", "found 0s, expected at least 1ms");
    }
    // What a restart reads again was sent under a verdict that the state file still has.
    if buffer.hindsight < buffer.max_wait && !hindsight_said {
        let message =
            format!("found {}, expected at most hindsight, which is {}", buffer.max_wait, buffer.hindsight);
        notes.add("buffer.max_wait", message);
    } else if buffer.hindsight < buffer.max_wait {
        let message =
            format!("found {}, expected at least max_wait, which is {}", buffer.hindsight, buffer.max_wait);
        notes.add("buffer.hindsight", message);
    }
}

fn room(config: &Config, notes: &mut Notes<'_>) {
    if let MemoryLimit::Bytes(memory) = config.buffer.memory
        && memory < MEMORY_MIN
    {
        notes.add("buffer.memory", format!("found {memory}, expected at least {MEMORY_MIN}"));
    }
    if config.data.input == Input::Memory && config.data.input_keep.as_millis() > 0 {
        notes.add("data.input_keep", "there is nothing to keep: data.input is memory");
    }
    if config.data.disk < DISK_MIN {
        notes.add("data.disk", format!("found {}, expected at least {DISK_MIN}", config.data.disk));
    }
    if config.data.path.as_os_str().is_empty() {
        notes.add("data.path", "found an empty path, expected a folder such as ./tailwater-data");
    }
}

/// When the outbox's segments end.
fn roll(config: &Config, notes: &mut Notes<'_>) {
    const AGE: &str = "exporters.parquet.roll.age";
    const SIZE: &str = "exporters.parquet.roll.size";
    let Some(roll) = config.exporters.parquet.as_ref().map(|parquet| parquet.roll) else { return };
    if roll.age < ROLL_AGE_MIN {
        notes.add(AGE, format!("found {}, expected at least {ROLL_AGE_MIN}", roll.age));
    }
    if roll.size > ROLL_SIZE_MAX {
        notes.add(SIZE, format!("found {}, expected at most {ROLL_SIZE_MAX}", roll.size));
    }
    // The default gives way: a full disk ends a segment too.
    if roll.size > config.data.disk && notes.document.get(SIZE).is_some() {
        let disk = config.data.disk;
        notes.add(SIZE, format!("found {}, expected at most data.disk, which is {disk}", roll.size));
    }
}

/// Every `listen`, by path.
fn listens(config: &Config) -> Vec<(&'static str, &str)> {
    let otlp = &config.receivers.otlp;
    let grpc = otlp.grpc.as_ref().map(|grpc| ("receivers.otlp.grpc.listen", grpc.listen.as_str()));
    let http = otlp.http.as_ref().map(|http| ("receivers.otlp.http.listen", http.listen.as_str()));
    let telemetry = ("telemetry.listen", config.telemetry.listen.as_str());
    grpc.into_iter().chain(http).chain([telemetry]).collect()
}

fn ports(config: &Config, notes: &mut Notes<'_>) {
    let listens = listens(config);
    if listens.len() == 1 {
        notes.add("receivers.otlp", "neither grpc nor http: nothing would be received");
    }
    for (index, (path, listen)) in listens.iter().enumerate() {
        let Some((host, port)) = host_and_port(listen) else {
            notes.add(path, format!("found \"{listen}\", expected host:port such as 0.0.0.0:4317"));
            continue;
        };
        for (other_path, other) in &listens[..index] {
            let Some((other_host, other_port)) = host_and_port(other) else { continue };
            let any_host = |host: &str| matches!(host, "0.0.0.0" | "[::]");
            let same_host = host == other_host || any_host(host) || any_host(other_host);
            if port != 0 && port == other_port && same_host {
                notes.add(path, format!("port {port} is already taken by {other_path}"));
            }
        }
    }
}

fn host_and_port(listen: &str) -> Option<(&str, u16)> {
    let (host, port) = listen.rsplit_once(':')?;
    let bare_v6 = host.contains(':') && !host.starts_with('[');
    (!host.is_empty() && !bare_v6).then_some(host).zip(port.parse().ok())
}

fn root(config: &Config, notes: &mut Notes<'_>) {
    if let Some(Err(error)) = config.buffer.root.as_ref().map(RootCondition::compile) {
        notes.add_within("buffer.root", error.offset, &error.message);
    }
}

fn policies(config: &Config, notes: &mut Notes<'_>) {
    let Err(error) = Policies::compile(&config.policies, 0) else { return };
    match error.policy {
        None => notes.add("policies", error.message),
        Some(index) => {
            notes.add_within(&format!("policies.{index}.{}", error.key), error.offset, &error.message);
        }
    }
}

fn exporters(config: &Config, notes: &mut Notes<'_>) {
    let exporters = &config.exporters;
    if exporters.parquet.is_none() && exporters.otlp.is_empty() {
        notes.add("exporters", "neither parquet nor otlp: kept traces would go nowhere");
    }
    if let Some(Err(error)) = exporters.parquet.as_ref().map(|parquet| Target::parse(&parquet.url)) {
        notes.add("exporters.parquet.url", error.to_string());
    }
    for (index, otlp) in exporters.otlp.iter().enumerate() {
        let path = format!("exporters.otlp.{index}.name");
        if exporters.otlp[..index].iter().any(|earlier| earlier.name == otlp.name) {
            notes.add(&path, format!("the name \"{}\" is given twice", otlp.name));
        }
        if let Some(own) = own_port(config, &otlp.endpoint) {
            let path = format!("exporters.otlp.{index}.endpoint");
            notes.add(&path, format!("this is {own} of this instance: what it keeps would come in again"));
        }
        if let Err((key, message)) = otlp.check() {
            let key = format!("exporters.otlp.{index}.{key}");
            notes.add(&key, message);
        }
    }
}

/// The port of this instance, by path, that an endpoint on this machine leads to.
fn own_port(config: &Config, endpoint: &Endpoint) -> Option<&'static str> {
    let here = |host: &str| matches!(host, "localhost" | "127.0.0.1" | "[::1]" | "0.0.0.0" | "[::]");
    let (to, port) = endpoint.host_and_port().filter(|(host, port)| here(host) && *port != 0)?;
    let leads = |listen: &str| {
        host_and_port(listen).is_some_and(|(host, own)| own == port && (host == to || here(host)))
    };
    let listens = listens(config).into_iter();
    listens
        .filter(|(path, _)| path.starts_with("receivers"))
        .find(|(_, listen)| leads(listen))
        .map(|(path, _)| path)
}

/// The section `s3`.
fn store(config: &Config, notes: &mut Notes<'_>) {
    let Some(s3) = config.exporters.parquet.as_ref().map(|parquet| &parquet.s3) else { return };
    let is_url = |text: &str| {
        url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
    };
    if let Some(endpoint) = s3.endpoint.as_deref().filter(|endpoint| !is_url(endpoint)) {
        let message = format!("found \"{endpoint}\", expected a URL such as http://minio:9000");
        notes.add("exporters.parquet.s3.endpoint", message);
    }
    if s3.access_key_id.is_some() != s3.secret_access_key.is_some() {
        let message = "access_key_id and secret_access_key stand together or not at all";
        notes.add("exporters.parquet.s3", message);
    }
}

/// An origin is a scheme and a host, as browsers send it; anything else would let no page in.
fn origins(config: &Config, notes: &mut Notes<'_>) {
    let Some(http) = &config.receivers.otlp.http else { return };
    for (index, origin) in http.cors.allowed_origins.iter().enumerate() {
        let host = origin.split_once("://").map_or(origin.as_str(), |(_, host)| host);
        let has_scheme = origin.contains("://") || origin.starts_with('*');
        if !has_scheme || host.is_empty() || host.contains('/') {
            let path = format!("receivers.otlp.http.cors.allowed_origins.{index}");
            notes.add(&path, format!("found \"{origin}\", expected an origin such as https://shop.example"));
        }
    }
}

pub(super) fn warnings(config: &Config, source: Source<'_>, document: &Node) -> Vec<Warning> {
    let mut notes = Notes::new(source, document);
    policy_order(config, &mut notes);
    if config.buffer.after_root < SDK_BATCH {
        let message = format!(
            "SDKs hold spans for up to {SDK_BATCH}, each service at its own phase: traces judged {} after their \
             root will often miss spans",
            config.buffer.after_root
        );
        notes.add("buffer.after_root", message);
    }
    if let (MemoryLimit::Bytes(memory), Some(there)) = (config.buffer.memory, available_memory())
        && memory.0 > there
    {
        let message = format!("found {memory}, but there are only {} MiB", there >> 20);
        notes.add("buffer.memory", message);
    }
    for (path, file) in named_files(config) {
        // The file may be checked on another machine than it is meant for.
        if let Err(error) = std::fs::File::open(file) {
            notes.add(&path, format!("{} cannot be read here: {error}", file.display()));
        }
    }
    notes.found.into_iter().map(|file_position| Warning { file_position }).collect()
}

/// Certificates and keys, by path.
fn named_files(config: &Config) -> Vec<(String, &Path)> {
    let mut files: Vec<(String, &Path)> = Vec::new();
    let otlp = &config.receivers.otlp;
    let grpc = otlp.grpc.as_ref().and_then(|grpc| grpc.tls.as_ref()).map(|tls| ("grpc", tls));
    let http = otlp.http.as_ref().and_then(|http| http.tls.as_ref()).map(|tls| ("http", tls));
    for (port, tls) in grpc.into_iter().chain(http) {
        let mut add = |key: &str, file| files.push((format!("receivers.otlp.{port}.tls.{key}"), file));
        add("cert_file", &tls.cert_file);
        add("key_file", &tls.key_file);
        tls.client_ca_file.iter().for_each(|file| add("client_ca_file", file));
    }
    for (index, otlp) in config.exporters.otlp.iter().enumerate() {
        let tls = &otlp.tls;
        for (key, file) in
            [("ca_file", &tls.ca_file), ("cert_file", &tls.cert_file), ("key_file", &tls.key_file)]
        {
            files.extend(file.as_deref().map(|file| (format!("exporters.otlp.{index}.tls.{key}"), file)));
        }
    }
    files
}

fn policy_order(config: &Config, notes: &mut Notes<'_>) {
    let compiled = Policies::compile(&config.policies, 0);
    for warning in compiled.iter().flat_map(|policies| policies.warnings()) {
        let path = format!("policies.{}.{}", warning.policy, warning.key);
        notes.add(&path, warning.message.as_str());
    }
    let matches_all = |policy: &PolicyConfig| {
        policy.matches.is_none() && policy.unless.is_none() && policy.slower_than.is_none() && !policy.shadow
    };
    match config.policies.iter().position(matches_all) {
        None => notes.add("policies", "no policy matches everything: what none of them matches is dropped"),
        Some(index) if index + 1 < config.policies.len() => notes.add(
            &format!("policies.{index}.name"),
            "this policy matches everything: the policies after it are never asked",
        ),
        Some(_) => {}
    }
}

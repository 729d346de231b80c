//! A data directory that somebody or something has damaged: it is always started from, loses only what is
//! unreadable, and says so.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

use super::{Clock, Settings, Simulation};
use crate::config::Config;
use crate::exporter::outbox::read_piece;
use crate::log::{GroupItem, GroupReader, ReadItem, Reader, SimDisk, Storage, segment};
use crate::trace::{Position, TraceId};
use crate::units::{ByteSize, MemoryLimit};

const START_MS: u64 = 1_700_000_000_000;
/// Of them 200 unless `TAILWATER_LONG` is set.
const MUTATIONS: u64 = 1_000;
const EXPORTERS: [&str; 2] = ["parquet", "a"];

/// A clock that is set by hand.
#[derive(Debug, Default)]
struct ByHand(AtomicU64);

/// Contents by path.
type Files = BTreeMap<PathBuf, Vec<u8>>;

impl Clock for ByHand {
    fn arrival_ms(&self) -> u64 {
        START_MS + self.0.load(Relaxed)
    }

    fn elapsed_ms(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn start(&self) {}
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % bound.max(1) as u64) as usize
    }
}

fn config() -> Config {
    let text = "data: { path: data }\nexporters:\n  parquet: { url: \"file:unused\", roll: { size: 100KiB } }\n  otlp: [{ name: a, \
                endpoint: \"http://127.0.0.1:1\" }]\n";
    let mut config = crate::config::load(text, Path::new("t.yaml")).unwrap();
    config.buffer.memory = MemoryLimit::Bytes(ByteSize::mib(4));
    config
}

fn open(disk: &SimDisk, clock: &Arc<ByHand>) -> anyhow::Result<Simulation> {
    let settings = Settings { storage: disk.storage(), clock: clock.clone(), seed: 1, ..Settings::default() };
    Simulation::build(&config(), &settings)
}

fn trace(number: u32) -> TraceId {
    TraceId((1 << 100 | u128::from(number)).to_be_bytes())
}

/// A failed trace, alone in its request.
fn failed(number: u32) -> Bytes {
    let span = Span {
        trace_id: trace(number).0.to_vec(),
        span_id: vec![7; 8],
        name: "x".repeat(3_000 + number as usize % 900),
        status: Some(Status { code: 2, ..Status::default() }),
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
}

/// A directory in the middle of a life, and what every one of its bytes stands for.
struct Base {
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// Traces by the bytes that hold them.
    held: HashMap<PathBuf, Vec<(Range<usize>, TraceId)>>,
    traces: u32,
    /// What each exporter has had.
    had: HashMap<&'static str, HashSet<TraceId>>,
    elapsed_ms: u64,
}

impl Base {
    fn new() -> Self {
        let disk = SimDisk::new(1);
        let clock = Arc::new(ByHand::default());
        let mut sent = 0;
        let mut had: HashMap<&str, HashSet<TraceId>> = HashMap::new();
        for life in 0..2 {
            let mut instance = open(&disk, &clock).unwrap();
            instance.turn().unwrap();
            for _ in 0..3 {
                send(&instance, &mut sent, 40);
                clock.0.fetch_add(5_000, Relaxed);
                send(&instance, &mut sent, 40);
                clock.0.fetch_add(6_000, Relaxed);
                instance.turn().unwrap();
            }
            let parcels = instance.outbox().tail("a").unwrap().read(100_000 + life * 50_000).unwrap();
            had.entry("a").or_default().extend(parcels.iter().filter_map(|parcel| parcel.piece.trace()));
            instance.outbox().subscription("a").unwrap().advance(parcels.last().unwrap().end);
            instance.turn().unwrap();
            send(&instance, &mut sent, 200);
            clock.0.fetch_add(4_900, Relaxed);
            instance.turn().unwrap();
            drop(instance);
            disk.kill();
        }
        let (files, held) = describe(&disk);
        Self { files, held, traces: sent, had, elapsed_ms: clock.elapsed_ms() }
    }

    fn damaged(&self, change: &dyn Fn(&mut Files)) -> SimDisk {
        let mut files = self.files.clone();
        change(&mut files);
        let disk = SimDisk::new(2);
        files.into_iter().for_each(|(path, content)| disk.put(&path, content));
        disk
    }

    fn touched(&self, path: &Path, bytes: Range<usize>) -> HashSet<TraceId> {
        let held = self.held.get(path).into_iter().flatten();
        held.filter(|(at, _)| at.start < bytes.end && bytes.start < at.end).map(|(_, trace)| *trace).collect()
    }

    fn all_of(&self, path: &Path) -> HashSet<TraceId> {
        self.touched(path, 0..usize::MAX)
    }
}

fn send(instance: &Simulation, sent: &mut u32, count: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for _ in 0..count {
        runtime.block_on(instance.receive("", failed(*sent))).unwrap();
        *sent += 1;
    }
}

type Held = HashMap<PathBuf, Vec<(Range<usize>, TraceId)>>;

fn describe(disk: &SimDisk) -> (BTreeMap<PathBuf, Vec<u8>>, Held) {
    let (mut files, mut held) = (BTreeMap::new(), Held::new());
    for dir in ["data", "data/input", "data/outbox"].map(Path::new) {
        for (name, _) in disk.list(dir).unwrap().iter().filter(|(_, len)| *len > 0) {
            files.insert(dir.join(name), disk.content(&dir.join(name)).unwrap());
        }
    }
    let mut hold = |dir: &str, at: Position, end: Position, trace| {
        let path = segment::path(&Path::new("data").join(dir), at.segment);
        held.entry(path).or_default().push((at.offset as usize..end.offset as usize, trace));
    };
    let mut input = Reader::open(disk.storage(), Path::new("data/input"), Position::default()).unwrap();
    while let Some(item) = input.next().unwrap() {
        let ReadItem::Record(record) = item else { continue };
        let request = ExportTraceServiceRequest::decode(record.body.clone()).unwrap();
        let id = &request.resource_spans[0].scope_spans[0].spans[0].trace_id;
        hold("input", record.at, record.end, TraceId(id[..].try_into().unwrap()));
    }
    let mut outbox = GroupReader::recover(disk.storage(), Path::new("data/outbox"), Position::default());
    while let Some(item) = outbox.next().unwrap() {
        let GroupItem::Group(group) = item else { continue };
        let piece = read_piece(&group.records[0]).unwrap();
        hold("outbox", group.at, group.end, piece.trace().unwrap());
    }
    (files, held)
}

/// What a start makes of a directory.
struct Outcome {
    /// By exporter, how often each trace comes.
    comes: HashMap<&'static str, HashMap<TraceId, usize>>,
    told_bytes: u64,
}

fn start(base: &Base, disk: &SimDisk) -> Outcome {
    let clock = Arc::new(ByHand(AtomicU64::new(base.elapsed_ms)));
    let mut instance = open(disk, &clock).unwrap_or_else(|error| panic!("it does not start: {error:#}"));
    instance.turn().unwrap();
    clock.0.fetch_add(100_000, Relaxed);
    instance.turn().unwrap();
    instance.drain().unwrap();
    assert_eq!(instance.failure(), None);
    let balance = instance.engine().ledger.balance();
    assert!(balance.balances(), "{balance}");
    assert!(instance.engine().memory.bytes() < 8 << 20);
    let mut comes = HashMap::new();
    let mut told_bytes = told(&instance);
    for exporter in EXPORTERS {
        let counts: &mut HashMap<TraceId, usize> = comes.entry(exporter).or_default();
        let (ids, unreadable) = match exporter {
            "parquet" => in_sealed(&instance, disk),
            _ => (in_tail(&instance, exporter), 0),
        };
        told_bytes += unreadable;
        ids.into_iter().for_each(|id| *counts.entry(id).or_default() += 1);
        told_bytes += instance.outbox().subscription(exporter).unwrap().metrics.lost_bytes();
    }
    Outcome { comes, told_bytes }
}

fn in_tail(instance: &Simulation, exporter: &str) -> Vec<TraceId> {
    let parcels = instance.outbox().tail(exporter).unwrap().read(usize::MAX).unwrap();
    parcels.iter().filter_map(|parcel| parcel.piece.trace()).collect()
}

/// As the Parquet exporter reads: sealed segments behind its cursor. And the bytes that it cannot read.
fn in_sealed(instance: &Simulation, disk: &SimDisk) -> (Vec<TraceId>, u64) {
    let cursor = instance.outbox().subscription("parquet").unwrap().cursor.position();
    let (mut ids, mut unreadable) = (Vec::new(), 0);
    for info in instance.outbox().log().sealed().iter().filter(|info| info.number >= cursor.segment) {
        let mut groups = GroupReader::segment(disk.storage(), info);
        while let Some(item) = groups.next().unwrap() {
            let group = match item {
                GroupItem::Group(group) => group,
                GroupItem::Lost { bytes, .. } => {
                    unreadable += bytes;
                    continue;
                }
            };
            ids.extend(group.records.iter().filter_map(|record| read_piece(record)?.trace()));
        }
    }
    (ids, unreadable)
}

fn told(instance: &Simulation) -> u64 {
    let metrics = String::from_utf8(instance.telemetry().collect().encode().unwrap()).unwrap();
    let lines = metrics.lines().filter(|line| line.starts_with("tailwater_log_lost_"));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
}

/// Nothing is missing but what was touched, and if something is, it is told. Returns how many are missing.
fn check(base: &Base, outcome: &Outcome, touched: &HashSet<TraceId>, what: &str) -> usize {
    let mut worst = 0;
    for exporter in EXPORTERS {
        let had = base.had.get(exporter).cloned().unwrap_or_default();
        let comes = &outcome.comes[exporter];
        let arrives = |id: &TraceId| had.contains(id) || comes.contains_key(id);
        let missing: HashSet<TraceId> = (0..base.traces).map(trace).filter(|id| !arrives(id)).collect();
        let unexplained = missing.difference(touched).count();
        assert_eq!(unexplained, 0, "{what}: of {} missing at {exporter} not all were touched", missing.len());
        assert!(missing.is_empty() || outcome.told_bytes > 0, "{what}: {} lost in silence", missing.len());
        worst = worst.max(missing.len());
    }
    worst
}

fn no_repeats(outcome: &Outcome, what: &str) {
    let repeated = outcome.comes["parquet"].values().filter(|times| **times > 1).count();
    assert_eq!(repeated, 0, "{what}: traces twice in the outbox");
}

fn file(disk: &SimDisk, dir: &str, nth: usize) -> PathBuf {
    let numbers = segment::numbers(disk, Path::new(dir)).unwrap();
    segment::path(Path::new(dir), numbers[nth].0)
}

#[test]
fn an_untouched_directory_is_taken_up_whole() {
    let base = Base::new();
    let outcome = start(&base, &base.damaged(&|_| ()));
    assert_eq!((check(&base, &outcome, &HashSet::new(), "untouched"), outcome.told_bytes), (0, 0));
    no_repeats(&outcome, "untouched");
    let segments = |dir: &str| base.files.keys().filter(|path| path.starts_with(dir)).count();
    assert!(segments("data/input") >= 3 && segments("data/outbox") >= 5, "{:?}", base.files.keys());
}

/// 1,000 times: bits flipped, files cut, blocks zeroed, files swapped, overwritten by another, deleted.
#[test]
fn a_damaged_directory_is_started_from_and_loses_only_what_is_unreadable() {
    let base = Base::new();
    let mut counts: BTreeMap<&str, (usize, usize, usize)> = BTreeMap::new();
    let long = std::env::var_os("TAILWATER_LONG").is_some();
    for seed in (0..MUTATIONS).filter(|seed| long || seed % 5 == 0) {
        let mut random = Random(seed);
        let Mutation { kind, change, touched, input_only, unknowable, path } = mutation(&base, &mut random);
        let what = format!("seed {seed}, {kind}, {}", path.display());
        let mut outcome = start(&base, &base.damaged(&*change));
        outcome.told_bytes += u64::from(unknowable);
        let missing = check(&base, &outcome, &touched, &what);
        if input_only {
            no_repeats(&outcome, &what);
        }
        let count = counts.entry(kind).or_default();
        *count = (count.0 + 1, count.1 + missing, count.2 + usize::from(outcome.told_bytes > 0));
    }
    for (kind, (runs, missing, told)) in counts {
        println!("{kind}: {runs} runs, {missing} traces lost, told in {told} runs");
        assert!(runs > 15, "{kind}");
    }
}

type Change = Box<dyn Fn(&mut BTreeMap<PathBuf, Vec<u8>>)>;

struct Mutation {
    kind: &'static str,
    change: Change,
    path: PathBuf,
    /// Traces of which it touches bytes.
    touched: HashSet<TraceId>,
    /// Only the input log has changed.
    input_only: bool,
    /// Nobody can know: the end of the input log, cut between two records or gone with its file.
    unknowable: bool,
}

fn mutation(base: &Base, random: &mut Random) -> Mutation {
    let paths: Vec<&PathBuf> = base.files.keys().collect();
    let path = paths[random.below(paths.len())].clone();
    let other = paths[random.below(paths.len())].clone();
    let len = base.files[&path].len();
    let at = random.below(len);
    let newest = path.starts_with("data/input")
        && base.files.keys().rfind(|file| file.starts_with("data/input")) == Some(&path);
    let whole = |at| base.held.get(&path).is_some_and(|held| held.iter().any(|(bytes, _)| bytes.start == at));
    let (file, swapped) = (path.clone(), other.clone());
    let (kind, change, touched, unknowable): (_, Change, _, _) = match random.below(6) {
        0 => {
            let bit = random.below(8);
            let touched = base.touched(&path, at..at + 1);
            let flip: Change = Box::new(move |files| files.get_mut(&file).unwrap()[at] ^= 1 << bit);
            ("a flipped bit", flip, touched, false)
        }
        1 => {
            let touched = base.touched(&path, at..usize::MAX);
            let cut: Change = Box::new(move |files| files.get_mut(&file).unwrap().truncate(at));
            ("a cut", cut, touched, at == 0 || whole(at))
        }
        2 => {
            let block = at / 512 * 512..(at / 512 * 512 + 4096).min(len);
            let touched = base.touched(&path, block.clone());
            let zero: Change = Box::new(move |files| files.get_mut(&file).unwrap()[block.clone()].fill(0));
            ("a zeroed block", zero, touched, false)
        }
        3 => {
            let same_log = path.parent() == other.parent()
                && [&path, &other].iter().all(|path| path.extension().is_some());
            let both = base.all_of(&path).union(&base.all_of(&other)).copied().collect();
            let touched = if same_log { HashSet::new() } else { both };
            let swap = move |files: &mut BTreeMap<PathBuf, Vec<u8>>| {
                let (one, two) = (files[&file].clone(), files[&swapped].clone());
                files.insert(file.clone(), two);
                files.insert(swapped.clone(), one);
            };
            ("two swapped files", Box::new(swap), touched, false)
        }
        4 => {
            let copy = move |files: &mut BTreeMap<PathBuf, Vec<u8>>| {
                let copy = files[&swapped].clone();
                files.insert(file.clone(), copy);
            };
            ("a file under another's name", Box::new(copy), base.all_of(&path), false)
        }
        _ => {
            let delete: Change = Box::new(move |files| _ = files.remove(&file));
            ("a deleted file", delete, base.all_of(&path), newest)
        }
    };
    let swaps = kind == "two swapped files" || kind == "a file under another's name";
    let in_input = |path: &Path| path.starts_with("data/input");
    let input_only = in_input(&path) && (!swaps || in_input(&other));
    let path = if swaps { path.join("from").join(other) } else { path };
    Mutation { kind, change, path, touched, input_only, unknowable }
}

#[test]
fn a_cut_or_deleted_outbox_file_is_missed_by_those_who_need_it() {
    let base = Base::new();
    for deleted in [true, false] {
        let disk = base.damaged(&|_| ());
        let path = file(&disk, "data/outbox", 1);
        let touched = base.all_of(&path);
        let outcome = start(
            &base,
            &base.damaged(&|files| match deleted {
                true => _ = files.remove(&path),
                false => files.get_mut(&path).unwrap().truncate(200),
            }),
        );
        assert!(check(&base, &outcome, &touched, "outbox") > 0, "what was only there is lost");
        assert!(outcome.told_bytes > 3_000 * touched.len() as u64, "{} bytes told", outcome.told_bytes);
    }
}

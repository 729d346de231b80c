//! Bits that flip on the disk between two lives: what they touch may be lost, and is counted; nothing else is.

use std::ops::Range;
use std::path::{Path, PathBuf};

use prost::Message;
use tailwater::log::{SegmentHeader, SimDisk, Storage, record, segment};
use tailwater::pipeline::{HandClock, Settings, Simulation};
use tailwater::proto::{Piece, State};
use tailwater::telemetry::ledger;
use tailwater::trace::Position;

use crate::plant::Plant;
use crate::traffic::name_of;
use crate::wire;
use crate::world::{BEGIN_MS, World, next_uuid};

const FOLDERS: [&str; 3] = ["data", "data/input", "data/outbox"];

/// Bytes that a start says it has lost: without the damage, and because of it.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    before: u64,
    touched: u64,
}

/// A record in a file, and the traces in it.
struct Held {
    bytes: Range<usize>,
    traces: Vec<usize>,
}

impl World {
    /// A bit flips in one of the files.
    pub fn damage(&mut self) {
        self.expected = None;
        let often = self.plan.damage && self.random.percent(40);
        let files = self.files();
        if !often || files.is_empty() {
            return;
        }
        let path = files[self.random.below(files.len() as u64) as usize].clone();
        let mut content = self.rig.disk.content(&path).unwrap_or_default();
        let (at, bit) = (self.random.below(content.len() as u64) as usize, self.random.below(8));
        let held = held(&path, &content);
        let hit = held.iter().find(|held| held.bytes.contains(&at));
        let touched = hit.map_or(0, |held| held.bytes.len() as u64);
        let in_folder = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        match in_folder {
            Some("input") => {
                self.counts.damaged_input += 1;
                self.expected = self.lost_at_start(&self.copy()).filter(|_| hit.is_some()).map(|before| {
                    let touched = if self.is_needed(&path, hit) { touched } else { 0 };
                    Expected { before, touched }
                });
            }
            Some("outbox") => {
                self.counts.damaged_outbox += 1;
                self.store.lenient = true;
            }
            _ => self.damage_beside(&path),
        }
        // Without its header a segment may get another name.
        let all = hit.is_none() && in_folder == Some("outbox");
        let traces = held.iter().filter(|held| all || held.bytes.contains(&at)).flat_map(|held| &held.traces);
        traces.for_each(|trace| self.traffic.traces[*trace].damaged = true);
        content[at] ^= 1 << bit;
        self.rig.disk.put(&path, content);
        self.note(format_args!(
            "bit {bit} of byte {at} of {} flips, {touched} bytes touched",
            path.display()
        ));
    }

    fn damage_beside(&mut self, path: &Path) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match name.strip_prefix("cursor.") {
            Some(exporter) => {
                self.counts.damaged_cursor += 1;
                self.saved.remove(exporter);
                // All that waits is sent again, to one that is new as well.
                self.sinks.iter_mut().filter(|sink| sink.name == exporter).for_each(|sink| sink.behind = 0);
            }
            None => {
                self.counts.damaged_state += 1;
                self.state_damaged = true;
                self.floor = 0;
            }
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for dir in FOLDERS.map(Path::new) {
            let found = self.rig.disk.list(dir).unwrap_or_default().into_iter();
            files.extend(found.filter(|(_, bytes)| *bytes > 0).map(|(name, _)| dir.join(name)));
        }
        let is_ours = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let is_log = name.ends_with(".log");
            is_log || name == "state" || (name.starts_with("cursor.") && !name.ends_with(".new"))
        };
        files.retain(is_ours);
        files
    }

    fn copy(&self) -> SimDisk {
        let disk = SimDisk::new(0);
        for dir in FOLDERS.map(Path::new) {
            for (name, _) in self.rig.disk.list(dir).unwrap_or_default() {
                let path = dir.join(name);
                disk.put(&path, self.rig.disk.content(&path).unwrap_or_default());
            }
        }
        disk
    }

    /// What a start from a disk would say that it has lost. None: it does not start.
    fn lost_at_start(&self, disk: &SimDisk) -> Option<u64> {
        let settings = Settings {
            storage: disk.storage(),
            clock: HandClock::new(BEGIN_MS, &self.now_ms),
            seed: 7,
            new_uuid: next_uuid,
            ..Settings::default()
        };
        Simulation::build(&self.config, &settings).ok().map(|instance| lost(&instance))
    }

    /// A life has begun on a damaged disk, at the first try: it says what it has lost, exactly.
    pub fn check_damage_told(&mut self) -> Result<(), String> {
        let (Some(life), Some(Expected { before, touched })) = (&self.life, self.expected.take()) else {
            return Ok(());
        };
        let uncounted = self.rig.plant == Some(Plant::DamageUncounted);
        let told = if uncounted { before } else { lost(&life.instance) };
        if told != before + touched {
            return Err(format!(
                "{touched} bytes were damaged, {told} are counted lost, {before} without it"
            ));
        }
        Ok(())
    }

    /// What lies before the low-water is not read any more.
    fn is_needed(&self, path: &Path, hit: Option<&Held>) -> bool {
        let number = path.file_name().and_then(|name| segment::number_of(name.to_str()?));
        let at = Position::new(number.unwrap_or_default(), hit.map_or(0, |held| held.bytes.start) as u32);
        let state = self.rig.disk.content(Path::new("data/state")).unwrap_or_default();
        // One that is damaged says nothing.
        let whole = state.get(8..).filter(|body| state[4..8] == crc32c::crc32c(body).to_le_bytes());
        let state = whole.and_then(|body| State::decode(body).ok()).unwrap_or_default();
        at >= state.low_water.map(Position::from).unwrap_or_default()
    }
}

/// As the ledger counts it.
pub fn lost(instance: &Simulation) -> u64 {
    let by_cause = instance.engine().ledger.lost_bytes_by_cause();
    let lost = by_cause.iter().filter(|(cause, _)| [ledger::CORRUPT, ledger::TORN].contains(cause));
    lost.map(|(_, bytes)| bytes).sum()
}

/// The records of a log's file that are whole.
fn held(path: &Path, file: &[u8]) -> Vec<Held> {
    let mut held = Vec::new();
    let Ok(header) = SegmentHeader::decode(file) else { return held };
    let in_outbox = path.starts_with("data/outbox");
    let mut at = header.encoded_len();
    let mut group = at;
    while at < file.len() {
        let bytes = &file[at..];
        // It may be damaged already: readers find the next.
        let Ok(parsed) = record::parse_checked(bytes) else {
            at += 1;
            continue;
        };
        let body = &bytes[parsed.body()];
        let piece = in_outbox.then(|| Piece::decode(body).ok()).flatten();
        let spans = wire::read(piece.as_ref().map_or(body, |piece| &piece.otlp)).unwrap_or_default();
        let traces = spans.iter().map(|span| name_of(span.id).0).collect();
        // Of a group all is lost.
        group = if parsed.member == 0 { at } else { group };
        at += parsed.len;
        held.push(Held { bytes: group..at, traces });
    }
    held
}

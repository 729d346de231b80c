//! What is in a data directory, for a person who asks: everything is read and checked, nothing is locked or written.
//!
//! It may belong to a running instance, and it may be damaged. Of a running one the last bytes are unfinished, and
//! what the instance deletes meanwhile is passed over.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::place;
use super::recover;
use super::state::{self, Read};
use crate::exporter::cursor;
use crate::exporter::metrics::Amount;
use crate::exporter::outbox::read_piece;
use crate::log::segment::{self, SEGMENT_HEADER};
use crate::log::{GroupItem, GroupReader, HeaderFault, Open, ReadItem, Reader, SegmentHeader, Storage};
use crate::otlp;
use crate::trace::Position;

/// See the module.
#[derive(Debug)]
pub struct Survey {
    pub state: StateFound,
    pub input: Vec<SegmentFound>,
    pub outbox: Vec<SegmentFound>,
    pub exporters: Vec<ExporterFound>,
    /// Bytes that the state says were in the input log, and that are needed and gone.
    pub input_missing: u64,
    /// Files of it that are gone, as those behind them say.
    pub input_gone: u64,
    /// The same of the outbox, for the exporter that has come least far.
    pub outbox_missing: u64,
}

#[derive(Debug)]
pub enum StateFound {
    Nothing,
    Damaged { bytes: u64 },
    Whole(StateSummary),
}

#[derive(Clone, Copy, Debug, Default)]
pub struct StateSummary {
    pub written_ms: u64,
    pub low_water: Position,
    pub outbox_covered: Position,
    /// Traces whose spans follow a verdict.
    pub kept: usize,
    /// Operations with learned durations.
    pub operations: usize,
}

/// A segment's file.
#[derive(Clone, Debug)]
pub struct SegmentFound {
    pub number: u32,
    pub path: PathBuf,
    pub header: Result<SegmentHeader, HeaderFault>,
    pub bytes: u64,
    pub records: u64,
    pub spans: u64,
    pub damaged_bytes: u64,
    /// At the end of the newest: being written, or cut off by a crash.
    pub unfinished_bytes: u64,
}

/// A cursor, and what waits behind it.
#[derive(Clone, Debug)]
pub struct ExporterFound {
    pub name: String,
    /// None: its file is damaged.
    pub cursor: Option<Position>,
    pub waits: Amount,
}

impl Survey {
    /// Reads all of the directory `data`. Errors: the disk, or files of a later version.
    pub fn take(storage: &Arc<dyn Storage>, data: &Path) -> anyhow::Result<Self> {
        loop {
            let saved = saved(&**storage, data)?;
            let survey = Self::of(storage, data, &saved)?;
            // A state that was written meanwhile has let go what this one knew.
            let again = saved_written_ms(&saved) != saved_written_ms(&self::saved(&**storage, data)?);
            if !again || survey.input_missing + survey.input_gone + survey.outbox_missing == 0 {
                return Ok(survey);
            }
        }
    }

    fn of(storage: &Arc<dyn Storage>, data: &Path, saved: &Read) -> anyhow::Result<Self> {
        let (input_dir, outbox_dir) = (data.join("input"), data.join("outbox"));
        let cursors = cursor::found(&**storage, data)?;
        let mut exporters: Vec<ExporterFound> = cursors
            .into_iter()
            .map(|(name, cursor)| ExporterFound { name, cursor, waits: Amount::default() })
            .collect();
        let input_files = segment::numbers(&**storage, &input_dir)?;
        let outbox_files = segment::numbers(&**storage, &outbox_dir)?;
        let input = segments(storage, &input_dir, &input_files, input_segment)?;
        let outbox = segments(storage, &outbox_dir, &outbox_files, |storage, found| {
            outbox_segment(storage, found, &mut exporters)
        })?;
        let (mut input_missing, mut outbox_missing) = (0, 0);
        let low_water = if let Read::Saved(saved) = saved { saved.low_water } else { Position::default() };
        let instance = place::read_instance(&**storage, data)?.unwrap_or_default();
        let input_gone = recover::missing_segments(&**storage, &input_dir, instance, low_water)?;
        if let Read::Saved(saved) = saved {
            input_missing = recover::missing(&input_files, &saved.input, saved.low_water);
            let low = exporters.iter().filter_map(|exporter| exporter.cursor).min();
            let missing = low.map(|low| saved.outbox.missing(&outbox_files, &[], low)).unwrap_or_default();
            outbox_missing = missing.iter().map(|(_, bytes)| bytes).sum();
        }
        let state = StateFound::of(saved);
        Ok(Self { state, input, outbox, exporters, input_missing, input_gone, outbox_missing })
    }

    /// What is wrong, a sentence each.
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        if let StateFound::Damaged { bytes } = self.state {
            complaints.push(format!(
                "state: {bytes} bytes that are no state; what was kept is known from the outbox alone"
            ));
        }
        for found in self.input.iter().chain(&self.outbox) {
            let path = found.path.display();
            if let Err(fault) = &found.header {
                complaints.push(format!("{path}: {fault}"));
            }
            if found.damaged_bytes > 0 {
                complaints.push(format!("{path}: {} bytes cannot be read", found.damaged_bytes));
            }
        }
        for (log, bytes) in [("input", self.input_missing), ("outbox", self.outbox_missing)] {
            if bytes > 0 {
                complaints.push(format!("{log}: {bytes} bytes are gone that the last state knew"));
            }
        }
        if self.input_gone > 0 {
            complaints.push(format!("input: {} files are gone", self.input_gone));
        }
        for exporter in self.exporters.iter().filter(|exporter| exporter.cursor.is_none()) {
            complaints
                .push(format!("cursor.{}: damaged; it would be set back to the last state", exporter.name));
        }
        complaints
    }
}

impl StateFound {
    fn of(saved: &Read) -> Self {
        match saved {
            Read::Nothing => Self::Nothing,
            Read::Damaged(bytes) => Self::Damaged { bytes: *bytes },
            Read::Saved(saved) => Self::Whole(StateSummary {
                written_ms: saved.written_ms,
                low_water: saved.low_water,
                outbox_covered: saved.outbox_covered,
                kept: saved.kept.len(),
                operations: saved.learned.len(),
            }),
        }
    }
}

fn saved(storage: &dyn Storage, data: &Path) -> Result<Read, state::StateError> {
    state::read(storage, &data.join("state"))
}

fn saved_written_ms(read: &Read) -> u64 {
    if let Read::Saved(saved) = read { saved.written_ms } else { 0 }
}

fn segments(
    storage: &Arc<dyn Storage>,
    dir: &Path,
    files: &[(u32, u64)],
    mut read: impl FnMut(&Arc<dyn Storage>, &mut SegmentFound) -> io::Result<()>,
) -> io::Result<Vec<SegmentFound>> {
    let newest = files.last().map(|(number, _)| *number);
    let mut all = Vec::new();
    for (number, bytes) in files {
        match segment_found(storage, dir, *number, *bytes, &mut read) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue, // deleted meanwhile
            Err(error) => return Err(error),
            Ok(mut found) => {
                if Some(*number) != newest {
                    found.damaged_bytes += std::mem::take(&mut found.unfinished_bytes);
                }
                all.push(found);
            }
        }
    }
    Ok(all)
}

fn segment_found(
    storage: &Arc<dyn Storage>,
    dir: &Path,
    number: u32,
    bytes: u64,
    read: &mut impl FnMut(&Arc<dyn Storage>, &mut SegmentFound) -> io::Result<()>,
) -> io::Result<SegmentFound> {
    let path = segment::path(dir, number);
    let file = storage.open(&path, Open::Read)?;
    let header = SegmentHeader::read(&*file, number)?;
    let (records, spans, damaged_bytes, unfinished_bytes) = (0, 0, 0, 0);
    let mut found =
        SegmentFound { number, path, header, bytes, records, spans, damaged_bytes, unfinished_bytes };
    read(storage, &mut found)?;
    Ok(found)
}

fn input_segment(storage: &Arc<dyn Storage>, found: &mut SegmentFound) -> io::Result<()> {
    let mut reader = Reader::numbered(storage.clone(), folder(&found.path), found.number);
    while let Some(item) = reader.next()? {
        match item {
            ReadItem::Record(record) => {
                found.records += 1;
                let scanned = otlp::scan(&record.body, |_| found.spans += 1);
                if scanned.is_err() {
                    found.damaged_bytes += record.bytes.len() as u64;
                }
            }
            ReadItem::Damaged { bytes, .. } | ReadItem::BadHeader { bytes, .. } => {
                found.damaged_bytes += bytes
            }
            ReadItem::TornTail { bytes, .. } => found.unfinished_bytes += bytes,
        }
    }
    Ok(())
}

fn outbox_segment(
    storage: &Arc<dyn Storage>,
    found: &mut SegmentFound,
    exporters: &mut [ExporterFound],
) -> io::Result<()> {
    let mut reader = GroupReader::numbered(storage.clone(), folder(&found.path), found.number);
    while let Some(item) = reader.next()? {
        match item {
            GroupItem::Group(group) => {
                for record in &group.records {
                    found.records += 1;
                    let Some(piece) = read_piece(record) else {
                        found.damaged_bytes += record.bytes.len() as u64;
                        continue;
                    };
                    found.spans += u64::from(piece.spans);
                    let waits = |exporter: &&mut ExporterFound| {
                        exporter.cursor.is_none_or(|cursor| cursor < group.end)
                    };
                    exporters.iter_mut().filter(waits).for_each(|at| at.waits += Amount::of(&piece));
                }
            }
            GroupItem::Lost { from, bytes, .. } => {
                // Behind it nothing is whole: a group that is being written, or was cut off.
                let at_the_end =
                    u64::from(from.offset) + bytes >= found.bytes && from.offset as usize >= SEGMENT_HEADER;
                let count = if at_the_end { &mut found.unfinished_bytes } else { &mut found.damaged_bytes };
                *count += bytes;
            }
        }
    }
    Ok(())
}

fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

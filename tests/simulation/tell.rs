//! Tells a person who repeats a seed what is on the disk when a life begins.

use std::path::Path;

use prost::Message;
use tailwater::exporter::outbox;
use tailwater::log::{Group, GroupItem, SimDisk, Storage};
use tailwater::proto::State;
use tailwater::trace::Position;

use crate::traffic::name_of;
use crate::wire;

/// Files, the state, and every piece in the outbox.
pub fn disk(disk: &SimDisk) {
    for dir in ["data", "data/input", "data/outbox"] {
        eprintln!("         {dir}: {:?}", disk.list(Path::new(dir)).unwrap_or_default());
    }
    state(&disk.content(Path::new("data/state")).unwrap_or_default());
    let mut groups = outbox::recover(disk.storage(), Path::new("data"), Position::default());
    while let Ok(Some(item)) = groups.next() {
        match item {
            GroupItem::Group(found) => group(&found),
            lost => eprintln!("         {lost:?}"),
        }
    }
}

fn state(file: &[u8]) {
    let Some(Ok(state)) = file.get(8..).map(State::decode) else { return };
    let State { low_water, outbox_covered, input_segment, outbox_segment, mut live, .. } = state;
    eprintln!(
        "         low-water {low_water:?}, covers {outbox_covered:?}, used {input_segment} and {outbox_segment}"
    );
    live.sort_by_key(|live| live.trace.map(|trace| (trace.high, trace.low)));
    for live in live {
        let trace = live.trace.unwrap_or_default();
        eprintln!(
            "         {:?} {:016x}{:016x} through {:?}",
            live.state(),
            trace.high,
            trace.low,
            live.through
        );
    }
}

fn group(group: &Group) {
    for record in &group.records {
        let Some(piece) = outbox::read_piece(record) else { continue };
        let spans = wire::read(&piece.otlp).unwrap_or_default();
        let names: Vec<_> = spans.iter().map(|seen| name_of(seen.id)).collect();
        eprintln!("         piece at {:?} through {:?}: {names:?}", record.at, piece.through());
    }
}
